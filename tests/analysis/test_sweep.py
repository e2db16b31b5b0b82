"""Curves against confusion matrices, threshold by threshold."""

import csv
import io

import numpy as np
import pytest

from frugalseg.analysis.sweep import curves_csv, read_curve
from tests.ops import oracles

THRESHOLDS = (0.1, 0.4, 0.8)


@pytest.fixture
def histogram():
    """Counts by true class, winning class (never the background), and thresholds passed."""
    counts = np.random.default_rng(0).integers(0, 40, (3, 3, 4))
    counts[:, 0] = 0
    return counts


def matrices(histogram):
    for number in range(histogram.shape[-1] - 1):
        matrix = np.zeros((3, 3), np.int64)
        for true, winner, passed in np.ndindex(histogram.shape):
            matrix[true, winner if passed > number else 0] += histogram[true, winner, passed]
        yield matrix


def test_every_point_of_the_curve(histogram):
    curve = read_curve(histogram, THRESHOLDS)
    assert curve.thresholds.tolist() == list(THRESHOLDS)
    means = []
    for number, matrix in enumerate(matrices(histogram)):
        scores = [s for s in oracles.iou(matrix) if s is not None]
        means.append(sum(scores) / len(scores))
        assert curve.miou[number] == pytest.approx(means[-1], abs=1e-12)
        predicted, occurs = matrix.sum(axis=0), matrix.sum(axis=1)
        shares = [matrix[k, k] / predicted[k] for k in range(3) if predicted[k]]
        assert curve.precision[number] == pytest.approx(sum(shares) / len(shares), abs=1e-12)
        shares = [matrix[k, k] / occurs[k] for k in range(3) if occurs[k]]
        assert curve.recall[number] == pytest.approx(sum(shares) / len(shares), abs=1e-12)
        assert curve.pixel_accuracy[number] == pytest.approx(np.trace(matrix) / matrix.sum(), abs=1e-12)
    assert curve.best == means.index(max(means))
    np.testing.assert_array_equal(curve.confusion, list(matrices(histogram))[curve.best])


def test_the_smallest_of_equally_good_thresholds_is_the_best():
    histogram = np.zeros((2, 2, 4), np.int64)
    histogram[1, 1, 3] = 5  # right at every threshold
    assert read_curve(histogram, THRESHOLDS).best == 0


def test_nothing_counted_is_no_curve():
    assert read_curve(np.zeros((3, 3, 4), np.int64), THRESHOLDS) is None


def test_the_csv_holds_all_curves(histogram):
    curves = {"mw": read_curve(histogram, THRESHOLDS), "cam": read_curve(histogram[::-1].copy(), THRESHOLDS)}
    rows = list(csv.DictReader(io.StringIO(curves_csv(curves))))
    assert len(rows) == 6
    for row, (name, number) in zip(rows, [(n, i) for n in curves for i in range(3)], strict=True):
        assert row["map"] == name
        assert float(row["threshold"]) == THRESHOLDS[number]
        for column in ("miou", "precision", "recall", "pixel_accuracy"):
            assert float(row[column]) == getattr(curves[name], column)[number]
