"""Cluster scores against the golden vectors and against loops over pixels."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from frugalseg.ops import clustering

IGNORED = 255
few = settings(deadline=None, max_examples=40)
seeds = st.integers(0, 2**32 - 1)


def _cases(g):
    return [key.removeprefix("gt_") for key in g if key.startswith("gt_")]


def _counts(g, case):
    ids = (torch.from_numpy(g[f"{name}_{case}"]) for name in ("pred", "gt"))
    return clustering.cluster_counts(*ids, int(g[f"n_clu_{case}"]), int(g[f"n_cls_{case}"]), IGNORED)


@pytest.mark.golden
def test_golden_matrices(golden):
    g = golden("ssl/cluster_miou")
    assert _cases(g)
    for case in _cases(g):
        counts = _counts(g, case)
        np.testing.assert_array_equal(counts, g[f"confusion_{case}"])
        np.testing.assert_allclose(clustering.iou_matrix(counts), g[f"iou_matrix_{case}"], rtol=0, atol=1e-12)
        np.testing.assert_allclose(clustering.precision_matrix(counts), g[f"prec_matrix_{case}"], rtol=0, atol=1e-12)


@pytest.mark.golden
def test_golden_matching_by_iou(golden):
    g = golden("ssl/cluster_miou")
    cases = [case for case in _cases(g) if f"miou_hungarian_{case}" in g]
    assert cases
    for case in cases:
        counts = _counts(g, case)
        classes = clustering.match_by_iou(counts)
        clusters = g[f"hungarian_cluster_{case}"]
        np.testing.assert_array_equal(classes[clusters], g[f"hungarian_gt_{case}"])
        assert not np.delete(classes, clusters).any()
        matched = clustering.matched_counts(counts, classes)
        hits = np.diagonal(matched)
        np.testing.assert_array_equal(hits, g[f"tp_{case}"])
        np.testing.assert_array_equal(matched.sum(axis=0)[:-1] - hits, g[f"fp_{case}"])
        np.testing.assert_array_equal(matched.sum(axis=1) - hits, g[f"fn_{case}"])
        for score, name in (
            (clustering.mean_iou_of_all(matched), "miou_hungarian"),
            (clustering.mean_iou_of_present(matched), "miou_hungarian_present_only"),
        ):
            np.testing.assert_allclose(score, g[f"{name}_{case}"], rtol=0, atol=1e-12)


@pytest.mark.golden
def test_golden_many_to_one(golden):
    g = golden("ssl/cluster_miou")
    for case in _cases(g):
        counts = _counts(g, case)
        predicted = g[f"pred_{case}"][g[f"gt_{case}"] != IGNORED]
        for name, scores in (("iou", clustering.iou_matrix(counts)), ("prec", clustering.precision_matrix(counts))):
            classes = clustering.best_classes(scores)
            np.testing.assert_array_equal(classes[predicted], g[f"remap_many_{name}_{case}"])
            mean = clustering.mean_iou_of_all(clustering.matched_counts(counts, classes))
            np.testing.assert_allclose(mean, g[f"miou_many_{name}_{case}"], rtol=0, atol=1e-12)


@pytest.mark.golden
def test_golden_matching_by_pixels(golden):
    g = golden("ssl/cluster_miou")
    for case in _cases(g):
        counts = _counts(g, case)
        classes = clustering.match_by_pixels(counts)
        clusters = g[f"count_cluster_{case}"]
        np.testing.assert_array_equal(classes[clusters], g[f"count_gt_{case}"])
        assert (np.delete(classes, clusters) == -1).all()
        accuracy = clustering.matched_accuracy(clustering.matched_counts(counts, classes))
        np.testing.assert_allclose(accuracy, g[f"acc_count_{case}"], rtol=0, atol=1e-12)


@few
@given(seeds, st.integers(1, 5), st.integers(1, 8), st.integers(0, 40))
def test_counts_and_matrices_equal_loops(seed, classes, clusters, pixels):
    rng = np.random.default_rng(seed)
    predicted = rng.integers(0, clusters, pixels)
    truth = np.where(rng.random(pixels) < 0.2, IGNORED, rng.integers(0, classes, pixels))
    predicted[truth == IGNORED] = 10**6  # never looked at
    counts = clustering.cluster_counts(*map(torch.from_numpy, (predicted, truth)), clusters, classes, IGNORED)
    overlaps, shares = clustering.iou_matrix(counts), clustering.precision_matrix(counts)
    best = clustering.best_classes(overlaps)
    for k in range(clusters):
        scores = []
        for c in range(classes):
            both = sum(1 for p, t in zip(predicted, truth, strict=True) if p == k and t == c)
            either = sum(1 for p, t in zip(predicted, truth, strict=True) if t != IGNORED and (p == k or t == c))
            whole = sum(1 for p, t in zip(predicted, truth, strict=True) if t != IGNORED and p == k)
            assert int(counts[c, k]) == both
            np.testing.assert_allclose(overlaps[c, k], both / either if either else 0, rtol=1e-12)
            np.testing.assert_allclose(shares[c, k], both / whole if whole else 0, rtol=1e-12)
            scores.append(both / either if either else 0.0)
        assert best[k] == scores.index(max(scores))


@few
@given(seeds, st.integers(1, 5), st.integers(1, 8), st.integers(1, 40))
def test_scores_of_a_matching_equal_loops(seed, classes, clusters, pixels):
    rng = np.random.default_rng(seed)
    predicted, truth = rng.integers(0, clusters, pixels), rng.integers(0, classes, pixels)
    counts = clustering.cluster_counts(*map(torch.from_numpy, (predicted, truth)), clusters, classes, IGNORED)
    mapping = rng.integers(-1, classes, clusters)
    matched = clustering.matched_counts(counts, mapping)
    named = [int(mapping[p]) for p in predicted]
    scores, present = [], []
    for c in range(classes):
        both = sum(1 for p, t in zip(named, truth, strict=True) if p == c and t == c)
        either = sum(1 for p, t in zip(named, truth, strict=True) if p == c or t == c)
        scores.append(both / either if either else 0.0)
        present += [scores[-1]] if c in truth else []
    np.testing.assert_allclose(clustering.class_iou(matched), scores, rtol=1e-12)
    np.testing.assert_allclose(clustering.mean_iou_of_all(matched), np.mean(scores), rtol=1e-12)
    np.testing.assert_allclose(clustering.mean_iou_of_present(matched), np.mean(present), rtol=1e-12)
    right = np.mean([p == t for p, t in zip(named, truth, strict=True)])
    np.testing.assert_allclose(clustering.matched_accuracy(matched), right, rtol=1e-12)


def test_first_class_wins_ties():
    assert clustering.best_classes(np.array([[0.5, 0.0], [0.5, 0.0], [0.1, 0.0]])).tolist() == [0, 0]


def test_nothing_counted_is_no_score():
    matched = clustering.matched_counts(np.zeros((3, 2), dtype=np.int64), np.array([0, -1]))
    assert np.isnan(clustering.mean_iou_of_present(matched))
    assert np.isnan(clustering.matched_accuracy(matched))
    assert clustering.mean_iou_of_all(matched) == 0


@pytest.mark.parametrize(
    ("clusters", "target", "message"),
    [
        ([0, 3], [0, 1], "clusters holds"),
        ([0, 1], [0, 2], "target holds"),
        ([0, -1], [0, 1], "-1"),
        ([0], [0, 1], "shape"),
    ],
)
def test_counting_refuses(clusters, target, message):
    with pytest.raises(ValueError, match=message):
        clustering.cluster_counts(torch.tensor(clusters), torch.tensor(target), 3, 2, IGNORED)
