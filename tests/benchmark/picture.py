"""How costs grow, as a picture: points and fitted lines of all rows `growth.*`, one panel for each thing that is varied."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from frugalseg.run import draft
from tests.benchmark.registry_steps import GROWTH
from tests.benchmark.rows import Record


def draw(path: Path, rows: Sequence[Record]) -> None:
    """Draw on logarithmic axes; without any such row there is no picture."""
    figure = figure_of(rows)
    if figure is None:
        return
    with draft(path) as temporary:
        figure.savefig(temporary, format="png", dpi=110)


def figure_of(rows: Sequence[Record]) -> Any:
    """The picture, None without such rows; its legends name the work, of which a training step is but one."""
    from matplotlib.figure import Figure  # half a second: only where there is something to draw

    panels: dict[str, list[Record]] = {}
    for row in rows:
        if row.get("points"):
            panels.setdefault(row["axis"], []).append(row)
    if not panels:
        return None
    figure = Figure(figsize=(3.4 * len(panels), 3.6), layout="constrained")
    for axes, (name, found) in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels.items(), strict=True):
        _panel(axes, name, found)
    figure.suptitle("CPU seconds, one thread")
    return figure


def _panel(axes: Any, name: str, rows: Sequence[Record]) -> None:
    for number, row in enumerate(rows):
        x, y = np.array(row["points"], dtype=float).T
        slope, start = np.polyfit(np.log(x), np.log(y), 1)
        label = f"{_work_of(row)}: {row['value']:.2f}"
        axes.plot(x, y, "o", color=f"C{number}", markersize=4)
        axes.plot(x, np.exp(start) * x**slope, "-", color=f"C{number}", linewidth=1, label=label)
    axes.set(xscale="log", yscale="log", xlabel=name)
    axes.legend(title="exponent", fontsize=8, title_fontsize=8)
    axes.grid(color="0.9")


def _work_of(row: Record) -> str:
    """What of the row's words stands before the thing that is varied."""
    name = str(row["id"]).partition(".")[2]
    return GROWTH.get(name, name).partition(",")[0]
