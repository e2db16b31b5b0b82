"""The sweep of thresholds against one argmax per threshold, and CTI's evaluation."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from frugalseg.ops.confusion import iou, precision, recall
from frugalseg.ops.thresholds import cumulate, histogram, sweep
from tests.conftest import load_golden
from tests.ops import oracles

few = settings(deadline=None, max_examples=40)


def one_threshold(scores, keys, truth, threshold, classes):
    """Confusion matrix by an argmax over [threshold, map of class 1, map of class 2, ...], pixel by pixel."""
    pred = np.zeros(truth.shape, np.int64)
    for y, x in np.ndindex(truth.shape):
        best = np.float32(threshold)
        for key, score in zip(keys, scores, strict=True):
            if np.float32(score[y, x]) > best:
                best, pred[y, x] = np.float32(score[y, x]), key
    return oracles.confusion(pred, truth, classes)


@st.composite
def images(draw):
    """(K, scores, keys, truth, thresholds): eighths, so that scores equal each other and thresholds often."""
    classes = draw(st.integers(2, 5))
    keys = draw(st.lists(st.integers(1, classes - 1), unique=True).map(sorted))
    shape = draw(hnp.array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=5))
    eighths = st.integers(0, 9).map(lambda v: v / 8)
    scores = draw(hnp.arrays(np.float32, (len(keys), *shape), elements=eighths))
    truth = draw(hnp.arrays(np.uint8, shape, elements=st.sampled_from([*range(classes), 255])))
    thresholds = draw(st.lists(eighths, unique=True, min_size=1, max_size=6).map(sorted))
    return classes, scores, np.array(keys, np.int64), truth, np.array(thresholds)


def swept(classes, scores, keys, truth, thresholds):
    tensors = [torch.as_tensor(a) for a in (scores, keys, truth, thresholds)]
    return sweep(*tensors, classes)


@few
@given(images())
def test_every_threshold_equals_an_argmax_of_its_own(case):
    classes, scores, keys, truth, thresholds = case
    counts = swept(*case)
    assert counts.dtype == torch.int64 and counts.shape == (len(thresholds), classes, classes)
    for found, threshold in zip(counts, thresholds, strict=True):
        np.testing.assert_array_equal(found, one_threshold(scores, keys, truth, threshold, classes))


@few
@given(images())
def test_histograms_of_parts_add_up_to_that_of_the_whole(case):
    classes, scores, keys, truth, thresholds = case
    scores, keys, truth, thresholds = (torch.as_tensor(a) for a in (scores, keys, truth, thresholds))
    parts = [histogram(scores[:, :, x], keys, truth[:, x], thresholds, classes) for x in (slice(1), slice(1, None))]
    assert torch.equal(cumulate(parts[0] + parts[1]), sweep(scores, keys, truth, thresholds, classes))


def test_ties_go_to_the_background_and_then_to_the_first_class():
    scores, keys = torch.full((2, 1, 1), 0.5), torch.tensor([1, 2])
    counts = sweep(scores, keys, torch.tensor([[2]]), torch.tensor([0.25, 0.5, 0.75]), 3)
    assert [tuple(c.nonzero().flatten().tolist()) for c in counts] == [(2, 1), (2, 0), (2, 0)]


def test_a_double_threshold_is_compared_as_the_maps_are():
    """0.7 in float64 is smaller than 0.7 in float32; a map of 0.7 ties with it nevertheless."""
    scores = torch.full((1, 1, 1), 0.7)
    counts = sweep(scores, torch.tensor([1]), torch.tensor([[1]]), torch.tensor([0.7], dtype=torch.float64), 2)
    assert counts[0, 1].tolist() == [1, 0]


def test_an_image_without_foreground_is_background():
    counts = sweep(torch.zeros(0, 2, 3), torch.zeros(0).long(), torch.ones(2, 3).long(), torch.tensor([0.0, 1.0]), 3)
    assert counts[:, 1, 0].tolist() == [6, 6] and int(counts.sum()) == 12


def test_wrong_arguments():
    scores, keys, truth, thresholds = torch.zeros(1, 2, 2), torch.tensor([1]), torch.zeros(2, 2).long(), torch.ones(1)
    for changed, told in (
        ({"keys": torch.tensor([0])}, "foreground"),
        ({"keys": torch.tensor([3])}, "foreground"),
        ({"keys": torch.tensor([1, 2])}, "differ"),
        ({"truth": torch.zeros(2, 3).long()}, "differ"),
        ({"truth": torch.full((2, 2), 3)}, "truth"),
        ({"truth": torch.full((2, 2), -1)}, "truth"),
        ({"thresholds": torch.tensor([0.2, 0.2])}, "ascend"),
        ({"thresholds": torch.tensor([-0.1, 0.2])}, "ascend"),
        ({"thresholds": torch.zeros(0)}, "one at least"),
    ):
        given = {"scores": scores, "keys": keys, "truth": truth, "thresholds": thresholds} | changed
        with pytest.raises(ValueError, match=told):
            sweep(**given, num_classes=3)


@pytest.mark.golden
def test_evaluation_of_cti():
    g = load_golden("cti/eval_miou")
    classes = g["iou_per_class"].shape[1]
    thresholds = torch.as_tensor(g["thresholds"])
    total = torch.zeros(classes, classes, len(thresholds) + 1, dtype=torch.int64)
    for name in sorted(key.removeprefix("gt_") for key in g if key.startswith("gt_")):
        ids = sorted(int(key.rsplit("_", 1)[1]) for key in g if key.startswith(f"cam_{name}_"))
        scores = torch.stack([torch.as_tensor(g[f"cam_{name}_{c}"]) for c in ids])
        truth = torch.as_tensor(g[f"gt_{name}"])
        total += histogram(scores, torch.tensor(ids) + 1, truth, thresholds, classes)
    for number, counts in enumerate(cumulate(total)):
        # a class that occurs nowhere counts 0 in CTI's means (cti.md section 10)
        scores = 100 * np.nan_to_num(iou(counts))
        np.testing.assert_allclose(scores, g["iou_per_class"][number], rtol=0, atol=1e-9)
        np.testing.assert_allclose(scores.mean(), g["miou"][number], rtol=0, atol=1e-9)
        np.testing.assert_allclose(np.nan_to_num(precision(counts)).mean(), g["mean_precision"][number], atol=1e-9)
        np.testing.assert_allclose(np.nan_to_num(recall(counts)).mean(), g["mean_recall"][number], atol=1e-9)
