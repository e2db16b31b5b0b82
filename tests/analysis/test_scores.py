"""Flat keys against loops."""

import numpy as np

from frugalseg.analysis.scores import flat_scores
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
    flat = flat_scores(counts, "val", NAMES, groups)
    assert set(flat) == {key for key, value in expected.items() if value is not None}
    assert "val/iou_mw/dog" not in flat
    assert "val/miou_mw_middle" not in flat
    for key, value in flat.items():
        assert type(value) is float
        np.testing.assert_allclose(value, expected[key], rtol=1e-12, err_msg=key)


def test_without_groups():
    flat = flat_scores({"m0": np.eye(4, dtype=np.int64)}, "train", NAMES)
    assert flat == {"train/miou_m0": 1.0, **{f"train/iou_m0/{name}": 1.0 for name in NAMES}}


def test_nothing_counted_gives_no_keys():
    assert flat_scores({"m0": np.zeros((4, 4), dtype=np.int64)}, "val", NAMES) == {}
