"""Bars, curves and matrices of notebooks, as pictures."""

import io
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from frugalseg.analysis.figures import COLOURS
from frugalseg.analysis.notebook.display import Plate

Line = tuple[Sequence[float], Sequence[float]]
"""Abscissae and ordinates."""


def new_figure(width: float = 9.0, height: float = 3.4) -> Any:
    """An empty matplotlib figure, in inches; it belongs to no window."""
    from matplotlib.figure import Figure  # half a second: only for those who draw

    return Figure(figsize=(width, height), layout="constrained")


def finished(figure: Any, text: str) -> Plate:
    """A figure as a picture; `text` says what it shows."""
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=100)
    return Plate(file.getvalue(), text)


def bar_chart(
    labels: Sequence[str],
    series: Mapping[str, Sequence[tuple[float, float]]],
    what: str,
    title: str,
    dashed: float | None = None,
) -> Plate:
    """Groups of bars with the standard deviation over seeds.

    Args:
        labels: of the groups.
        series: caption -> (mean, deviation) of every group; NaN leaves a gap.
        what: label of the axis.
        title: of the figure.
        dashed: height of a line to compare with.
    """
    across = max(6.0, 2.0 + 0.32 * len(labels) * (1 + len(series)) ** 0.8)
    # as many captions side by side as fit: a sign is some 0.075 inches wide
    columns = max(1, min(len(series), 4, int(across / (0.6 + 0.075 * max(map(len, series), default=1)))))
    figure = new_figure(across, 3.4 + 0.2 * -(-len(series) // columns))
    axes = figure.subplots()
    width = 0.8 / max(1, len(series))
    for place, (name, values) in enumerate(series.items()):
        at = np.arange(len(labels)) + (place - (len(series) - 1) / 2) * width
        means, spreads = np.array(values, dtype=np.float64).reshape(len(labels), 2).T
        axes.bar(at, np.nan_to_num(means), width, color=COLOURS[place % len(COLOURS)], label=name)
        if np.nan_to_num(spreads).any():
            axes.errorbar(at, means, spreads, fmt="none", ecolor="0.2", elinewidth=1, capsize=2)
    if dashed is not None:
        axes.axhline(dashed, color="0.4", linestyle="--", linewidth=1)
    tilted = max(len(line) for label in labels for line in label.split("\n")) * len(labels) > 70
    axes.set_xticks(range(len(labels)), labels, rotation=40 * tilted, ha="right" if tilted else "center", fontsize=9)
    axes.axhline(0, color="0.3", linewidth=0.8)
    axes.set_ylabel(what)
    axes.grid(axis="y", color="0.9")
    axes.set_axisbelow(True)
    axes.set_title(title, fontsize=11)
    figure.legend(frameon=False, fontsize=9, ncols=columns, loc="outside lower center")
    return finished(figure, title)


def line_chart(panels: Mapping[str, Mapping[str, Sequence[Line]]], axis: str, title: str) -> Plate:
    """Panels of curves; curves of one caption share a colour, such as those of all seeds.

    Args:
        panels: what is drawn -> caption -> its curves.
        axis: label of the abscissa.
        title: of the figure.
    """
    columns = min(3, len(panels))
    rows = -(-len(panels) // columns)
    figure = new_figure(4.2 * columns if columns > 1 else 7.0, 0.5 + 3.0 * rows)
    captions = list(dict.fromkeys(name for series in panels.values() for name in series))
    cells = figure.subplots(rows, columns, squeeze=False).ravel()
    for axes, (what, series) in zip(cells, panels.items(), strict=False):
        for name, curves in series.items():
            colour = COLOURS[captions.index(name) % len(COLOURS)]
            for number, (x, y) in enumerate(curves):
                axes.plot(x, y, color=colour, linewidth=1.2, alpha=0.85, label=name if number == 0 else None)
                if len(x) == 1:
                    axes.plot(x, y, "o", color=colour)
        axes.set_title(what, fontsize=10)
        axes.set_xlabel(axis)
        axes.grid(color="0.9")
        axes.legend(frameon=False, fontsize=8)
    for axes in cells[len(panels) :]:
        axes.set_visible(False)
    figure.suptitle(title)
    return finished(figure, f"{title}: {', '.join(panels)}")


def matrix_chart(matrices: Mapping[str, NDArray[np.float64]], names: Sequence[str], title: str, low: float) -> Plate:
    """Square matrices side by side in one scale of colours.

    Args:
        matrices: caption -> (C, C).
        names: C.
        title: of the figure.
        low: value of the darkest colour; 1 is the brightest.
    """
    figure = new_figure(2.0 + 4.0 * len(matrices), 4.6)
    grid = figure.subplots(1, len(matrices), squeeze=False)[0]
    for place, (axes, (caption, matrix)) in enumerate(zip(grid, matrices.items(), strict=True)):
        image = axes.imshow(matrix, vmin=low, vmax=1, cmap="viridis")
        axes.set_title(caption, fontsize=10)
        axes.set_xticks(range(len(names)), names, rotation=90, fontsize=7)
        axes.set_yticks(range(len(names)), names if place == 0 else [""] * len(names), fontsize=7)
    figure.colorbar(image, ax=grid, shrink=0.8)
    figure.suptitle(title)
    return finished(figure, title)
