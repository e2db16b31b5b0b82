"""Scores of every class as bars behind numbers: a table that can be read, searched, printed and squeezed."""

from collections.abc import Sequence
from typing import NamedTuple

from frugalseg.analysis.groups import GROUPS
from frugalseg.analysis.html.experiments import Experiment
from frugalseg.analysis.html.states import told
from frugalseg.analysis.scores import ending
from frugalseg.analysis.seeds import Aggregate
from frugalseg.analysis.tables import caption, cell, compared, names_of, splits_of
from frugalseg.errors import RunFolderError
from frugalseg.run import read_json

SHOWN = 4
"""Rules or masks side by side: a phone has no room for more."""


class Bar(NamedTuple):
    """One number with its bar.

    Attributes:
        text: of the cell.
        share: width in %, 0 to 100.
        colour: number of the rule.
    """

    text: str
    share: float
    colour: int


class BarTable(NamedTuple):
    """Bars of one score stage.

    Attributes:
        title: above it.
        columns: rules and masks.
        groups: (name, (class, bars) of its classes).
    """

    title: str
    columns: list[str]
    groups: list[tuple[str, list[tuple[str, list[Bar]]]]]


def class_bars(experiment: Experiment, reasons: list[str]) -> list[BarTable]:
    """IoU by class of every score stage, in groups by class frequency where the stage has told them.

    Args:
        experiment: with any state.
        reasons: takes what could not be read.
    """
    found = []
    for stage, rows in experiment.scores.items():
        groups = _groups(experiment, stage, reasons)
        for split in splits_of(rows):
            names = compared(names_of(rows, split), SHOWN)
            classes = list(dict.fromkeys(key.split("/", 2)[2] for key in rows if key.startswith(f"{split}/iou")))
            if names and classes:
                columns = [caption(name) for name in names]
                tables = [
                    (group, [(label, _bars(rows, split, names, label)) for label in members])
                    for group, members in _grouped(classes, groups)
                ]
                found.append(BarTable(f"{stage}: IoU in % by class on {split}", columns, tables))
    return found


def group_bars(experiment: Experiment) -> list[BarTable]:
    """Mean IoU of head, middle and tail classes of every score stage that has them.

    Args:
        experiment: with any state.
    """
    found = []
    for stage, rows in experiment.scores.items():
        for split in splits_of(rows):
            names = compared(names_of(rows, split), SHOWN)
            names = [name for name in names if f"{split}/miou{ending(name)}{ending(GROUPS[0])}" in rows]
            if names:
                lines = [
                    (
                        group,
                        [_bar(rows, f"{split}/miou{ending(name)}{ending(group)}", n) for n, name in enumerate(names)],
                    )
                    for group in GROUPS
                ]
                title = f"{stage}: mean IoU in % by class frequency on {split}"
                found.append(BarTable(title, [caption(name) for name in names], [("", lines)]))
    return found


def _groups(experiment: Experiment, stage: str, reasons: list[str]) -> dict[str, list[str]]:
    """Head, middle and tail classes of a stage: those of its first seed, whose world may differ from the others'."""
    for run in experiment.finished:
        path = run.path / "groups.json"
        if run.full_name == stage and path.is_file():
            try:
                content = read_json(path)
            except RunFolderError as error:
                reasons.append(f"{stage} of {run.place}: {told(error, run.path)}")
                continue
            lists = {name: [str(label) for label in content.get(name) or []] for name in GROUPS}
            return lists if any(lists.values()) else {}
    return {}


def _grouped(classes: Sequence[str], groups: dict[str, list[str]]) -> list[tuple[str, list[str]]]:
    """Classes in their groups; those of none, such as the background, first."""
    listed = {label for members in groups.values() for label in members}
    rest = [label for label in classes if label not in listed]
    parts = [("", rest)] if rest else []
    return parts + [
        (group, own) for group, members in groups.items() if (own := [c for c in members if c in set(classes)])
    ]


def _bars(rows: Aggregate, split: str, names: Sequence[str], label: str) -> list[Bar]:
    return [_bar(rows, f"{split}/iou{ending(name)}/{label}", number) for number, name in enumerate(names)]


def _bar(rows: Aggregate, key: str, colour: int) -> Bar:
    share = 100 * rows[key]["mean"] if key in rows else 0.0
    return Bar(cell(rows, key), min(100.0, max(0.0, share)) if share == share else 0.0, colour)
