"""Forest plot of settled claims; a PNG, written whole or not at all."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from frugalseg.analysis.claims_rows import INCOMPLETE, Row
from frugalseg.analysis.claims_statistics import CONTRADICTED, HOLDS, NOT_SHOWN
from frugalseg.analysis.claims_tables import told
from frugalseg.run import draft

COLOURS = {HOLDS: "#2e7d4f", CONTRADICTED: "#c44e52", NOT_SHOWN: "#b8860b", INCOMPLETE: "#8c8c8c"}
"""Of verdicts; their words stand beside them too."""


def draw_claims(path: Path, rows: Sequence[Row]) -> None:
    """Draw every effect with its interval and its seeds: to the right of zero is as claimed, whichever way that is.

    Claims of one paper and unit share an axis; a short upright line is a claim's margin.

    Args:
        path: PNG.
        rows: those without any effect yet are left out.
    """
    from matplotlib.figure import Figure  # half a second: only for those who draw

    units: dict[str, list[Row]] = {}
    for row in rows:
        if row.mean is not None:
            units.setdefault(f"{row.claim['paper']}: {row.claim['unit']}", []).append(row)
    heights = [len(own) + 1.2 for own in units.values()]
    figure = Figure(figsize=(11.0, 0.8 + 0.42 * sum(heights)), layout="constrained")
    panels: Any = figure.subplots(len(units), 1, squeeze=False, height_ratios=heights)[:, 0] if units else []
    for axes, (unit, own) in zip(panels, units.items(), strict=True):
        _panel(axes, unit, own)
    figure.suptitle("Effect of treatment over baseline; right of zero: as claimed. Bars: 95 % intervals; dots: seeds")
    with draft(path) as temporary:
        figure.savefig(temporary, format="png", dpi=110)


def _panel(axes: Any, unit: str, rows: Sequence[Row]) -> None:
    """Claims that share an axis, below one another."""
    for place, row in enumerate(rows):
        sign = 1.0 if row.claim["better"] == "higher" else -1.0
        colour = COLOURS[row.verdict]
        seeds = [sign * value for value in row.differences.values()]
        axes.plot(seeds, [place + 0.22] * len(seeds), ".", color=colour, alpha=0.5, markersize=5)
        if row.low is not None and row.high is not None:
            axes.plot([sign * row.low, sign * row.high], [place, place], "-", color=colour, linewidth=2.2)
        axes.plot(sign * (row.mean or 0.0), place, "o", color=colour, markersize=7)
        if row.claim["margin"]:
            axes.plot([row.claim["margin"]] * 2, [place - 0.3, place + 0.3], "-", color="0.3", linewidth=1.0)
        axes.text(1.01, place, told(row), transform=axes.get_yaxis_transform(), va="center", fontsize=8, color=colour)
    axes.axvline(0.0, color="0.3", linewidth=1.0)
    arrows = {"higher": "\N{UPWARDS ARROW}", "lower": "\N{DOWNWARDS ARROW}"}
    axes.set_yticks(range(len(rows)), [f"{row.claim['id']} {arrows[row.claim['better']]}" for row in rows])
    axes.tick_params(labelsize=8)
    axes.set_ylim(len(rows) - 0.4, -0.6)
    axes.set_xlabel(unit, fontsize=8)
    axes.grid(axis="x", color="0.9")
    axes.set_axisbelow(True)
