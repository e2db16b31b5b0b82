"""Figures by what is in them: bars, lines and cells are read from the axes before they become pixels."""

import numpy as np
import pytest
from PIL import Image

from frugalseg.analysis import figures
from frugalseg.analysis.figures import COLOURS, draw_classes, draw_confusion, draw_thresholds
from frugalseg.analysis.sweep import Curve


@pytest.fixture
def kept(monkeypatch):
    """The figures that were saved."""
    found, save = [], figures._save

    def keep(figure, path):
        found.append(figure)
        save(figure, path)

    monkeypatch.setattr(figures, "_save", keep)
    return found


def names(count):
    return [f"class {k}" for k in range(count)]


def bars(axes, colour):
    """Heights of the bars of one colour, from left to right."""
    from matplotlib.colors import to_rgba

    patches = [p for p in axes.patches if p.get_facecolor() == to_rgba(colour)]
    return [p.get_height() for p in sorted(patches, key=lambda p: p.get_x())]


@pytest.mark.parametrize("classes", [2, 21, 81])
def test_bars_stand_in_the_row_of_their_group(tmp_path, kept, classes):
    rng = np.random.default_rng(classes)
    scores = {"one": rng.random(classes), "two": rng.random(classes)}
    scores["two"][1] = np.nan
    order = rng.permutation(np.arange(1, classes))
    groups = {
        name: np.sort(ids) for name, ids in zip(("head", "middle", "tail"), np.array_split(order, 3), strict=True)
    }
    draw_classes(tmp_path / "a/classes.png", scores, names(classes), groups, "title")
    rows = {name: ids for name, ids in groups.items() if len(ids)}
    assert len(kept[0].axes) == len(rows)
    for axes, (name, ids) in zip(kept[0].axes, rows.items(), strict=True):
        shown = [0, *ids] if name == "head" else list(ids)
        assert [text.get_text() for text in axes.get_xticklabels()] == [f"class {k}" for k in shown]
        for colour, values in zip(COLOURS, scores.values(), strict=False):
            np.testing.assert_allclose(bars(axes, colour), 100 * np.nan_to_num(values[shown]))
            means = [line.get_ydata()[0] for line in axes.lines if line.get_color() == colour]
            seen = values[ids][~np.isnan(values[ids])]
            np.testing.assert_allclose(means, [100 * seen.mean()] if len(seen) else [])  # without the background
    assert Image.open(tmp_path / "a/classes.png").size[0] > 500
    assert [p.name for p in (tmp_path / "a").iterdir()] == ["classes.png"]


@pytest.mark.parametrize(("classes", "rows"), [(3, 1), (28, 1), (29, 2), (150, 6)])
def test_without_groups_classes_stand_in_order(tmp_path, kept, classes, rows):
    scores = {"one": np.linspace(0, 1, classes)}
    draw_classes(tmp_path / "classes.png", scores, names(classes), {}, "title")
    assert len(kept[0].axes) == rows
    np.testing.assert_allclose([h for axes in kept[0].axes for h in bars(axes, COLOURS[0])], 100 * scores["one"])


def test_the_best_threshold_is_marked(tmp_path, kept):
    thresholds = np.array([0.0, 0.5, 1.0])
    rising, falling = np.array([0.1, 0.2, 0.3]), np.array([0.6, 0.5, 0.4])
    curves = {"up": Curve(thresholds, rising, falling, rising, rising, np.eye(2, dtype=np.int64)),
              "down": Curve(thresholds, falling, rising, falling, rising, np.eye(2, dtype=np.int64))}  # fmt: skip
    draw_thresholds(tmp_path / "thresholds.png", curves, "title")
    scores, shares = kept[0].axes
    for number, (name, miou, best) in enumerate((("up", rising, 2), ("down", falling, 0))):
        line, dot = scores.lines[2 * number : 2 * number + 2]
        np.testing.assert_allclose(line.get_ydata(), 100 * miou)
        assert (dot.get_xdata()[0], dot.get_ydata()[0]) == (thresholds[best], pytest.approx(100 * miou[best]))
        assert scores.get_legend().get_texts()[number].get_text() == f"{name}: {100 * miou[best]:.1f} at {best // 2}"
        np.testing.assert_allclose(shares.lines[2 * number].get_ydata(), 100 * curves[name].precision)
        np.testing.assert_allclose(shares.lines[2 * number + 1].get_ydata(), 100 * curves[name].recall)


@pytest.mark.parametrize("classes", [4, 81])
def test_rows_of_the_confusion_are_shares_of_the_true_class(tmp_path, kept, classes):
    counts = np.random.default_rng(0).integers(0, 50, (classes, classes))
    counts[1] = 0
    draw_confusion(tmp_path / "confusion.png", counts, names(classes), "title")
    axes = kept[0].axes[0]
    cells = np.ma.filled(axes.images[0].get_array(), np.nan) ** 2  # roots are shown
    assert np.isnan(cells[1]).all()
    rest = np.delete(np.arange(classes), 1)
    np.testing.assert_allclose(cells[rest], 100 * counts[rest] / counts[rest].sum(axis=1, keepdims=True))
    if classes > 30:
        assert not axes.texts
        return
    for text in axes.texts:
        x, y = text.get_position()
        assert text.get_text() == f"{cells[y, x]:.0f}"
    assert len(axes.texts) == (cells >= 0.5).sum()
