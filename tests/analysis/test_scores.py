"""Flat keys against loops."""

import numpy as np

from frugalseg.analysis.scores import false_positives, flat_scores
from tests.ops import oracles

NAMES = ("background", "cat", "dog", "owl")


def _mean(values):
    seen = [v for v in values if v is not None]
    return sum(seen) / len(seen) if seen else None


def test_flat_scores_equal_loops():
    rng = np.random.default_rng(0)
    counts = {rule: rng.integers(0, 50, (4, 4)) for rule in ("m0", "mw")}
    counts["mw"][2] = counts["mw"][:, 2] = 0  # no dogs
    groups = {"head": np.array([1]), "middle": np.array([2]), "tail": np.array([2, 3])}
    expected = {}
    for rule, matrix in counts.items():
        scores = oracles.iou(matrix)
        expected[f"val/miou_{rule}"] = _mean(scores)
        for group, classes in groups.items():
            expected[f"val/miou_{rule}_{group}"] = _mean([scores[c] for c in classes])
        expected |= {f"val/iou_{rule}/{name}": score for name, score in zip(NAMES, scores, strict=True)}
        expected[f"val/pixel_accuracy_{rule}"] = sum(matrix[k, k] for k in range(4)) / matrix.sum()
    flat = flat_scores(counts, "val", NAMES, groups)
    assert set(flat) == {key for key, value in expected.items() if value is not None}
    assert "val/iou_mw/dog" not in flat
    assert "val/miou_mw_middle" not in flat
    for key, value in flat.items():
        assert type(value) is float
        np.testing.assert_allclose(value, expected[key], rtol=1e-12, err_msg=key)


def test_without_groups():
    flat = flat_scores({"m0": np.eye(4, dtype=np.int64)}, "train", NAMES)
    names = {f"train/iou_m0/{name}": 1.0 for name in NAMES}
    assert flat == {"train/miou_m0": 1.0, "train/pixel_accuracy_m0": 1.0, **names}


def test_nothing_counted_gives_no_keys():
    assert flat_scores({"m0": np.zeros((4, 4), dtype=np.int64)}, "val", NAMES) == {}


def test_the_empty_name_leaves_no_trace_in_the_keys():
    matrix = np.random.default_rng(0).integers(1, 50, (4, 4))
    groups, boundary = {"head": np.array([1])}, {"": np.full((3, 4), 2), "crf": np.full((3, 4), 2)}
    flat = flat_scores({"": matrix, "crf": matrix}, "val", NAMES, groups, boundary)
    plain = {key: value for key, value in flat.items() if "crf" not in key}
    assert set(plain) == {
        "val/miou", "val/miou_head", "val/pixel_accuracy", "val/boundary_iou", *(f"val/iou/{name}" for name in NAMES)
    }  # fmt: skip
    for key, value in plain.items():
        metric = key.split("/")[1]
        assert flat[key.replace(metric, f"{metric}_crf" if metric != "miou_head" else "miou_crf_head", 1)] == value


def test_boundary_scores_are_the_mean_over_classes_that_occur():
    pixels = np.array([[3, 0, 0, 0], [4, 5, 0, 0], [5, 0, 0, 2]])
    flat = flat_scores({}, "val", NAMES, boundary={"m0": pixels})
    assert set(flat) == {"val/boundary_iou_m0"}
    np.testing.assert_allclose(flat["val/boundary_iou_m0"], (3 / 6 + 0 + 0) / 3, rtol=1e-15)


def test_undecided_pixels_have_a_key_where_there_are_some():
    flat = flat_scores({}, "val", NAMES, ignored={"": np.array([0, 8]), "crf": np.array([2, 8])})
    assert flat == {"val/ignored_crf": 0.25}


def test_false_positives_are_a_share_of_the_true_background():
    rng = np.random.default_rng(1)
    counts = {rule: rng.integers(0, 50, (4, 4)) for rule in ("", "cam_best", "tags")}
    counts["tags"][0] = 0  # no background at all
    flat = flat_scores(counts, "val", NAMES, background=True)
    shares = {key: value for key, value in flat.items() if "false_positive" in key}
    assert set(shares) == {"val/false_positive", "val/false_positive_cam_best"}
    for rule, key in (("", "val/false_positive"), ("cam_best", "val/false_positive_cam_best")):
        background = [int(n) for n in counts[rule][0]]
        np.testing.assert_allclose(shares[key], sum(background[1:]) / sum(background), rtol=1e-15)
        assert type(shares[key]) is float
    assert flat_scores(counts, "val", NAMES) == {key: value for key, value in flat.items() if key not in shares}


def test_all_and_none_of_the_background():
    assert false_positives(np.array([[0, 3], [5, 7]])) == 1
    assert false_positives(np.array([[3, 0], [5, 7]])) == 0
