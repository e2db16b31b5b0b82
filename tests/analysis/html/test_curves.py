"""Curves of runs that were resumed, cut short or are long, against plain loops."""

import numpy as np
import pytest

from frugalseg.analysis.html.curves import read_log, read_sweep, thinned
from frugalseg.analysis.html.svg import BOTTOM, HEIGHT, LEFT, RIGHT, TOP, WIDTH, Line, line_chart


def test_a_resumed_run_has_one_curve(tmp_path):
    (tmp_path / "metrics.csv").write_text("epoch,step,train/loss\n0,9,5\n0,19,4\n0,29,3\n0,19,2\n0,29,1\n0,39,0.5\n")
    assert read_log(tmp_path / "metrics.csv").curves == {"train/loss": [(9, 5), (19, 2), (29, 1), (39, 0.5)]}


def test_columns_are_apart_and_values_that_are_not_finite_are_left_out(tmp_path):
    (tmp_path / "metrics.csv").write_text("epoch,step,a,b\n0,1,1,\n0,1,,2\n0,2,nan,inf\n0,3,3,\n")
    assert read_log(tmp_path / "metrics.csv").curves == {"a": [(1, 1), (3, 3)], "b": [(1, 2)]}


def test_no_file_is_no_flaw(tmp_path):
    log = read_log(tmp_path / "metrics.csv")
    assert (log.curves, log.flaw, log.last_step) == ({}, "", None)


def test_a_sweep_keeps_what_can_be_read(tmp_path):
    (tmp_path / "sweep.csv").write_text("map,threshold,miou\ncam,0.1,0.5\ncam,0.2,oops\ncam,0.3\nr,0.1,0.25\n")
    assert read_sweep(tmp_path / "sweep.csv") == {"cam": [(0.1, 0.5)], "r": [(0.1, 0.25)]}
    (tmp_path / "sweep.csv").write_text("a,b\n1,2\n")
    assert read_sweep(tmp_path / "sweep.csv") == {}


@pytest.mark.parametrize("count", [121, 500, 12345])
def test_thinning_keeps_means_and_the_end(count):
    points = [(float(x), float(x % 7)) for x in range(count)]
    kept = thinned(points, 120)
    assert len(kept) <= 120
    assert kept[-1] == points[-1]
    sizes = np.diff([round(place * (count - 1) / 119) for place in range(120)])
    means = np.array([y for _, y in kept[:-1]])
    assert (means * sizes).sum() == pytest.approx(sum(y for _, y in points[:-1]))


def test_a_short_curve_is_kept_as_it_is():
    points = [(1.0, 2.0), (2.0, 1.0)]
    assert thinned(points) == points


def test_points_lie_where_the_axes_say():
    chart = line_chart("t", [Line("a", [(0.0, 0.0), (5.0, 2.0), (10.0, 10.0)])], "step")
    told = str(chart.svg).split('points="')[1].split('"')[0]
    found = [tuple(map(float, pair.split(","))) for pair in told.split()]
    wide, high = WIDTH - RIGHT - LEFT, HEIGHT - BOTTOM - TOP
    expected = [(LEFT + wide * x / 10, HEIGHT - BOTTOM - high * y / 10) for x, y in ((0, 0), (5, 2), (10, 10))]
    np.testing.assert_allclose(found, expected, atol=0.06)


def test_equal_values_and_single_points_can_be_drawn():
    chart = line_chart("t", [Line("a", [(3.0, 7.0)]), Line("b", [(3.0, 7.0)])], "step")
    assert str(chart.svg).count("<circle") == 2
    assert [name for _, name in chart.legend] == ["a", "b"]


def test_names_are_escaped():
    chart = line_chart("<b>", [Line('"><script>', [(0.0, 1.0), (1.0, 2.0)])], "<i>", best=True)
    assert "<script" not in str(chart.svg) and "<i>" not in str(chart.svg) and "<b>" not in str(chart.svg)
