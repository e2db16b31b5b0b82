"""Differences between few-shot methods, pair by pair.

Methods are tested on the same episodes for every base seed, so the deviation of each says little about their
difference: what makes one base seed hard makes it hard for all.
"""

from collections.abc import Sequence

import numpy as np

from frugalseg.analysis.few_shot_facts import UNTRAINED
from frugalseg.analysis.few_shot_grid import Grid, differing, grid_of
from frugalseg.analysis.few_shot_rows import FOLDS, Row

KEYS = (*[f"fold{fold}/miou" for fold in FOLDS], "mean/miou")
"""Of `Row.figures`, in the order of the columns."""


def paired_grids(rows: Sequence[Row]) -> list[Grid]:
    """For every number of shots, its first row minus each other that is comparable with it.

    Cells hold the mean difference in points of mIoU, its sample standard deviation where there are several pairs, and
    how many of the pairs are positive.

    Args:
        rows: of one benchmark, in the order of the call.

    Returns:
        None for shots where no other row is comparable and has a pair.
    """
    found = []
    for shots in sorted({row.shots for row in rows}):
        first, *rest = [row for row in rows if row.shots == shots]
        others = [row for row in rest if _comparable(first, row) and any(_labels(first, row, key) for key in KEYS)]
        if others:
            title = (
                f"{shots} shot: {first.experiment} (the first row) minus each other, in points of mIoU, paired by"
                " (training seed, base seed): mean ± sample standard deviation of the differences (positive / all)"
            )
            cells = [[difference(first, row, key) for key in KEYS] for row in others]
            columns = [*[f"fold {fold}" for fold in FOLDS], "mean"]
            grid = grid_of(title, columns, cells, others)
            found.append(grid._replace(notes=[*grid.notes, *_notes(first, others)]))
    return found


def difference(first: Row, other: Row, key: str) -> str:
    """One cell; "-" without a pair.

    Args:
        first: row to subtract from.
        other: row to subtract.
        key: of both rows' figures.
    """
    labels = _labels(first, other, key)
    if not labels:
        return "-"
    ours, theirs = first.values(key), other.values(key)
    points = 100 * np.array([ours[label] - theirs[label] for label in labels])
    deviation = f" ±{points.std(ddof=1):.2f}" if len(points) > 1 else ""
    return f"{points.mean():+.2f}{deviation} ({(points > 0).sum()}/{len(points)})"


def _comparable(first: Row, other: Row) -> bool:
    return all(fact.harmless for fact in differing([first, other]))


def _labels(first: Row, other: Row, key: str) -> list[str]:
    """`seed<training seed>/base<base seed>` of the pairs."""
    theirs = other.values(key)
    return [label for label in first.values(key) if label in theirs]


def _notes(first: Row, others: Sequence[Row]) -> list[str]:
    """For which rows the pairs tell of one training only."""
    single = [row.experiment for row in others if _one_training(first, row)]
    if not single:
        return []
    which = "" if len(single) == len(others) else f" against {', '.join(single)}"
    return [
        f"There is one training seed{which}: its base seeds share one trained net of each fold, so these differences"
        " say nothing of other trainings."
    ]


def _one_training(first: Row, other: Row) -> bool:
    """Whether some cell is of one training seed, of nets that were trained."""
    if first.facts["selection rule"] == other.facts["selection rule"] == UNTRAINED:
        return False
    seeds = [{label.partition("/")[0] for label in _labels(first, other, key)} for key in KEYS]
    return any(len(found) == 1 for found in seeds)
