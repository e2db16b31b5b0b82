"""Few-shot tables before they take a form; every fact in which their rows differ is a column."""

from collections.abc import Sequence
from typing import NamedTuple

from frugalseg.analysis.few_shot_facts import THRESHOLD, UNTRAINED
from frugalseg.analysis.few_shot_rows import FOLDS, Row


class Grid(NamedTuple):
    """A table before it takes a form.

    Attributes:
        title: above it.
        columns: headings.
        rows: of cells.
        notes: lines below it.
    """

    title: str
    columns: list[str]
    rows: list[list[str]]
    notes: list[str]


class Differing(NamedTuple):
    """A fact in which rows differ.

    Attributes:
        heading: of its column.
        cells: one per row.
        harmless: whether the rows can be compared all the same.
    """

    heading: str
    cells: list[str]
    harmless: bool


def differing(rows: Sequence[Row], folds: Sequence[int] = FOLDS) -> list[Differing]:
    """Facts in which rows of one table differ.

    Args:
        rows: of one benchmark.
        folds: that the table shows; what differs in others does not matter.
    """
    found = []
    for key in rows[0].facts:
        cells = [row.facts[key] for row in rows]
        if len(set(cells)) > 1:
            # where no weights were trained none were selected either, so such a row is comparable with any
            harmless = key == "selection rule" and len(set(cells) - {UNTRAINED, THRESHOLD}) < 2
            found.append(Differing(key, cells, harmless))
    for fold in folds:
        for what in ("classes", "episodes", "episodes file"):
            cells = [row.folds[fold][what] if fold in row.folds else "-" for row in rows]
            if len(set(cells) - {"-"}) > 1:
                found.append(Differing(f"{what} of fold {fold}", cells, False))
    seeds = [row.training_seeds for row in rows]
    return found + ([Differing("training seeds", seeds, True)] if len(set(seeds)) > 1 else [])


def grid_of(
    title: str, columns: list[str], cells: list[list[str]], rows: Sequence[Row], folds: Sequence[int] = FOLDS
) -> Grid:
    """A table that begins with experiment, shots and every fact that differs.

    Args:
        title: above it.
        columns: headings of the cells.
        cells: of each row.
        rows: of one benchmark.
        folds: that the table shows.
    """
    facts = differing(rows, folds)
    lines = [
        [row.experiment, str(row.shots), *[fact.cells[number] for fact in facts], *cells[number]]
        for number, row in enumerate(rows)
    ]
    apart = ", ".join(fact.heading for fact in facts if not fact.harmless)
    notes = [f"Not comparable: rows that differ in {apart}."] if apart else []
    return Grid(title, ["experiment", "shots", *[fact.heading for fact in facts], *columns], lines, notes)
