"""Tables of how dense features were judged, for terminals and pages: the same cells in both."""

from collections.abc import Sequence

from rich.table import Table

from frugalseg.analysis.dense_rows import DenseRow
from frugalseg.analysis.names import in_page, shown
from frugalseg.analysis.tables import cell

TITLE = "dense features: mIoU and pixel accuracy in % on val"
NOTE = (
    "`last` is the last validation; `best` the best of all, chosen on the very images that are scored, as the published"
    " numbers of protocol L are; ± is the sample standard deviation over the runs' seeds"
)
FIGURES = {
    "mIoU last": "val/miou",
    "best": "val/miou_best",
    "accuracy": "val/accuracy",
    "mIoU, CRF": "val/miou_crf",
    "accuracy, CRF": "val/accuracy_crf",
}
"""Headings and keys; columns that are empty throughout are left out."""


def columns(rows: Sequence[DenseRow]) -> tuple[list[str], list[list[str]]]:
    """Headings and cells, one line per setting.

    Args:
        rows: of `read_rows`, of any number of experiments.
    """
    shown = {name: key for name, key in FIGURES.items() if any(key in row.figures for row in rows)}
    heads = ["experiment", "data", "backbone, weights", "protocol", "width", *shown, "seeds"]
    lines = [
        [row.experiment, row.facts.data, row.facts.backbone, row.facts.protocol, row.facts.width]
        + [cell(row.figures, key) for key in shown.values()]
        + [f"{row.figures['val/miou']['n']:.0f}" if "val/miou" in row.figures else "-"]
        for row in rows
    ]
    return heads, lines


def dense_table(rows: Sequence[DenseRow]) -> Table:
    """A table for the terminal.

    Args:
        rows: at least one.
    """
    heads, lines = columns(rows)
    table = Table(title=TITLE, caption=NOTE)
    for place, head in enumerate(heads):
        table.add_column(head, justify="left" if place < 4 else "right", overflow="fold")
    for place, line in enumerate(lines):
        if place and line[1] != lines[place - 1][1]:
            table.add_section()
        table.add_row(*map(shown, line))
    return table


def dense_lines(rows: Sequence[DenseRow]) -> list[str]:
    """The same as lines of a markdown table; none where there are no rows.

    Args:
        rows: of `read_rows`.
    """
    if not rows:
        return []
    heads, lines = columns(rows)
    head = [f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
    return [*head, *[f"| {' | '.join(map(in_page, line))} |" for line in lines], "", f"{TITLE}; {NOTE}."]
