"""The long tail of a data set as a figure and a table."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from frugalseg.data.base import ClassTable
from frugalseg.data.stats import Frequencies
from frugalseg.run import draft


def frequency_rows(found: Frequencies, classes: ClassTable) -> list[dict[str, Any]]:
    """One row per class, the commonest first.

    Args:
        found: of the K classes.
        classes: their names.

    Returns:
        Rows id, class, images, and, with masks, pixels and their percentage of all pixels that are not ignored.
    """
    rows: list[dict[str, Any]] = []
    for class_id in np.argsort(-found.images, kind="stable").tolist():
        row = {"id": class_id, "class": classes.names[class_id], "images": int(found.images[class_id])}
        if found.pixels is not None:
            pixels = int(found.pixels[class_id])
            row |= {"pixels": pixels, "pixel_percent": 100 * pixels / max(1, int(found.pixels.sum()))}
        rows.append(row)
    return rows


def draw_long_tail(path: Path, rows: Sequence[dict[str, Any]], classes: ClassTable, title: str) -> None:
    """Draw images per class as bars in the classes' colours, the commonest first; the background is left out.

    Args:
        path: PNG, written whole or not at all.
        rows: see `frequency_rows`.
        classes: names and colours.
        title: of the figure.
    """
    from matplotlib.figure import Figure  # half a second: only for those who draw

    shown = [row for row in rows if not (classes.background and row["id"] == 0)]
    counts = np.array([row["images"] for row in shown])
    figure = Figure(figsize=(max(6.0, 0.16 * len(shown)), 4.5), layout="constrained")
    axes = figure.subplots()
    axes.bar(range(len(shown)), counts, color=[classes.palette[row["id"]] / 255 for row in shown], edgecolor="0.4")
    axes.set_yscale("symlog")  # a class that never occurs stays visible as a gap at 0
    axes.set_xticks(
        range(len(shown)), [row["class"] for row in shown], rotation=90, fontsize=7 if len(shown) > 40 else 9
    )
    axes.set_xlim(-0.7, len(shown) - 0.3)
    axes.set_ylabel("images")
    rare = counts[counts > 0].min(initial=max(1, int(counts.max(initial=1))))
    axes.set_title(f"{title}: {counts.max(initial=0):,} to {rare:,} images, {counts.max(initial=0) / rare:.1f} to 1")
    with draft(path) as temporary:
        figure.savefig(temporary, format="png", dpi=150)
