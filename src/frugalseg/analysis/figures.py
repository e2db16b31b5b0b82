"""Figures of an evaluation: threshold curves, IoU by class, confusion; PNGs, written whole or not at all."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from frugalseg.analysis.sweep import Curve
from frugalseg.run import draft

COLOURS = ("#4c72b0", "#dd8452", "#55a868", "#c44e52", "#8172b3", "#937860", "#da8bc3", "#8c8c8c")
"""Of the compared rules, in order; they differ in lightness too."""
WIDE = 28
"""Classes per row of bars."""


def draw_thresholds(path: Path, curves: Mapping[str, Curve], title: str) -> None:
    """Draw mean IoU, and mean precision and recall, over the background threshold; the best ones are marked.

    Args:
        path: PNG.
        curves: caption -> curve.
        title: of the figure.
    """
    figure = _figure(11.0, 4.5)
    scores, shares = figure.subplots(1, 2)
    for colour, (name, curve) in zip(_colours(len(curves)), curves.items(), strict=True):
        at, top = curve.thresholds[curve.best], 100 * curve.miou[curve.best]
        scores.plot(curve.thresholds, 100 * curve.miou, color=colour, label=f"{name}: {top:.1f} at {at:g}")
        scores.plot(at, top, "o", color=colour)
        shares.plot(curve.thresholds, 100 * curve.precision, color=colour, label=f"{name}: precision")
        shares.plot(curve.thresholds, 100 * curve.recall, color=colour, linestyle="--", label=f"{name}: recall")
    for axes, what in ((scores, "mean IoU in %"), (shares, "mean over classes in %")):
        axes.set_xlabel("background threshold")
        axes.set_ylabel(what)
        axes.set_ylim(0, None)
        axes.grid(color="0.9")
        axes.legend(fontsize=8, frameon=False)
    figure.suptitle(title)
    _save(figure, path)


def draw_classes(
    path: Path,
    scores: Mapping[str, NDArray[np.float64]],
    names: Sequence[str],
    groups: Mapping[str, NDArray[np.int64]],
    title: str,
) -> None:
    """Draw the IoU of every class as bars, one colour per rule, one row of bars per group, a line at each group's mean.

    Args:
        path: PNG.
        scores: caption -> (K,) IoU, NaN where a class does not occur.
        names: K class names.
        groups: group -> class ids; the background, which is in none, leads the first row and is not in its mean.
            Without groups all classes stand in the order of their ids.
        title: of the figure.
    """
    rows = _rows(len(names), groups)
    longest = max(len(ids) for _, ids, _ in rows)
    figure = _figure(max(7.0, 1.5 + longest * (0.14 * len(scores) + 0.12)), 0.9 + 2.5 * len(rows))
    width = 0.8 / len(scores)
    for axes, (group, ids, averaged) in zip(figure.subplots(len(rows), squeeze=False)[:, 0], rows, strict=True):
        for place, (colour, (name, values)) in enumerate(zip(_colours(len(scores)), scores.items(), strict=True)):
            at = np.arange(len(ids)) + (place - (len(scores) - 1) / 2) * width
            axes.bar(at, 100 * np.nan_to_num(values[ids]), width, color=colour, label=name)
            if not np.isnan(values[averaged]).all():
                axes.axhline(100 * np.nanmean(values[averaged]), color=colour, linewidth=0.8, linestyle=":")
        axes.set_xticks(range(len(ids)), [names[i] for i in ids], rotation=45, ha="right", rotation_mode="anchor")
        axes.tick_params(axis="x", labelsize=8, length=0)
        axes.set_xlim(-0.6, longest - 0.4)
        axes.set_ylim(0, 100)
        axes.set_ylabel(f"{group}: IoU in %")
        axes.grid(axis="y", color="0.9")
        axes.set_axisbelow(True)
    handles, captions = figure.axes[0].get_legend_handles_labels()
    figure.legend(handles, captions, loc="outside lower center", ncols=min(len(scores), 4), frameon=False)
    figure.suptitle(f"{title} (dotted: mean of the group)")
    _save(figure, path)


def draw_confusion(path: Path, confusion: NDArray[np.int64], names: Sequence[str], title: str) -> None:
    """Draw a confusion matrix, each row divided by its sum; up to 30 classes with numbers.

    Args:
        path: PNG.
        confusion: (K, K) counts, row = true class; rows without pixels stay white.
        names: K class names.
        title: of the figure.
    """
    totals = confusion.sum(axis=1, keepdims=True)
    shares = 100 * confusion / np.maximum(totals, 1)
    side = max(5.0, 2.0 + (0.36 if len(names) <= 30 else 0.16) * len(names))
    figure = _figure(side + 0.8, side)
    axes = figure.subplots()
    # the root shows the small shares too: what is confused with what
    image = axes.imshow(np.sqrt(np.where(totals > 0, shares, np.nan)), cmap="Blues", vmin=0, vmax=10)
    size = 8 if len(names) <= 30 else 6
    axes.set_xticks(range(len(names)), names, rotation=90, fontsize=size)
    axes.set_yticks(range(len(names)), names, fontsize=size)
    axes.tick_params(length=0)
    if len(names) <= 30:
        for y, x in zip(*np.nonzero(shares >= 0.5), strict=True):
            shade = "white" if shares[y, x] > 40 else "black"
            axes.text(x, y, f"{shares[y, x]:.0f}", ha="center", va="center", fontsize=7, color=shade)
    axes.set_xlabel("predicted")
    axes.set_ylabel("true")
    bar = figure.colorbar(image, ax=axes, shrink=0.6, ticks=np.sqrt([0, 1, 5, 10, 25, 50, 100]))
    bar.ax.set_yticklabels(["0", "1", "5", "10", "25", "50", "100"])
    bar.set_label("% of the true class's pixels")
    axes.set_title(title)
    _save(figure, path)


def _rows(
    classes: int, groups: Mapping[str, NDArray[np.int64]]
) -> list[tuple[str, NDArray[np.int64], NDArray[np.int64]]]:
    """Rows of bars: name, class ids, those of the ids that are averaged; without groups `WIDE` classes at a time."""
    grouped = [(name, ids) for name, ids in groups.items() if len(ids)]
    if not grouped:
        parts = np.array_split(np.arange(classes), max(1, -(-classes // WIDE)))
        return [(f"classes {ids[0]}-{ids[-1]}", ids, ids) for ids in parts]
    rest = np.setdiff1d(np.arange(classes), np.concatenate([ids for _, ids in grouped]))
    rows = [(name, ids, ids) for name, ids in grouped]
    return [(rows[0][0], np.concatenate([rest, rows[0][1]]), rows[0][1]), *rows[1:]]


def _colours(count: int) -> list[str]:
    return [COLOURS[place % len(COLOURS)] for place in range(count)]


def _figure(width: float, height: float) -> Any:
    from matplotlib.figure import Figure  # half a second: only for those who draw

    return Figure(figsize=(width, height), layout="constrained")


def _save(figure: Any, path: Path) -> None:
    with draft(path) as temporary:
        figure.savefig(temporary, format="png", dpi=110)
