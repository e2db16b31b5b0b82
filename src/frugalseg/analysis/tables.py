"""Terminal tables of scores."""

from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table

from frugalseg.analysis.groups import GROUPS
from frugalseg.analysis.seeds import Aggregate, aggregate, read_metrics

LABELS = {
    "m0": "M0 classifier",
    "mw": "M_W refined",
    "mp": "M_P prototype",
    "sum": "M_W + M_P",
    "seed": "M_W + 0.7 M_P",
    "walk": "M_W + 0.3 M_P",
    "tags": "tags painted",
    "chance": "chance",
}
LOGITS = ("tail_body_head", "tail_body_tail", "head_body_head", "head_body_tail")


def cell(rows: Aggregate, key: str, factor: float = 100.0) -> str:
    """Mean, and the standard deviation where there is more than one seed; "-" for a key that is not there."""
    row = rows.get(key)
    if row is None:
        return "-"
    spread = f" ±{row['std'] * factor:.1f}" if row["n"] > 1 else ""
    return f"{row['mean'] * factor:.1f}{spread}"


def splits_of(rows: Aggregate) -> list[str]:
    """Splits that have a score."""
    return sorted({key.split("/")[0] for key in rows if "/miou_" in key})


def rules_of(rows: Aggregate, split: str) -> list[str]:
    """Rules and controls that have a score, in the order of `LABELS`."""
    return [rule for rule in LABELS if f"{split}/miou_{rule}" in rows]


def summary_table(results: dict[str, Aggregate], split: str) -> Table:
    """Mean IoU of every rule, overall and by class frequency, for several experiments below one another."""
    table = Table(title=f"mIoU in % on {split}")
    for column in ("experiment", "map"):
        table.add_column(column)
    for column in ("all", *GROUPS, "background"):
        table.add_column(column, justify="right")
    for name, rows in results.items():
        for position, rule in enumerate(rules_of(rows, split)):
            cells = [cell(rows, f"{split}/miou_{rule}" + (f"_{group}" if group else "")) for group in ("", *GROUPS)]
            background = cell(rows, f"{split}/iou_{rule}/background")
            table.add_row(name if position == 0 else "", LABELS[rule], *cells, background)
        table.add_section()
    return table


def class_table(name: str, rows: Aggregate, split: str, rules: Sequence[str] = ("m0", "mw", "mp", "sum")) -> Table:
    """IoU of every class for the main rules."""
    rules = [rule for rule in rules if rule in rules_of(rows, split)]
    table = Table(title=f"{name}: IoU in % by class on {split}")
    table.add_column("class")
    for rule in rules:
        table.add_column(LABELS[rule], justify="right")
    names = list(dict.fromkeys(key.split("/", 2)[2] for key in rows if key.startswith(f"{split}/iou_")))
    for label in names:
        table.add_row(label, *[cell(rows, f"{split}/iou_{rule}/{label}") for rule in rules])
    table.add_section()
    table.add_row("mean", *[cell(rows, f"{split}/miou_{rule}") for rule in rules])
    return table


def logit_table(results: dict[str, Aggregate], split: str) -> Table | None:
    """Mean logits of head and tail class on bodies that they share; None where nothing was measured."""
    measured = {name: rows for name, rows in results.items() if f"{split}/logit_{LOGITS[0]}" in rows}
    if not measured:
        return None
    table = Table(
        title=f"mean logits on bodies shared by a head and a tail class, {split} (on whose object: whose logit)"
    )
    table.add_column("experiment", no_wrap=True)
    for owner in ("tail", "head"):
        for rival in ("head", "tail"):
            table.add_column(f"on {owner}: {rival}", justify="right")
    for name, rows in measured.items():
        table.add_row(name, *[cell(rows, f"{split}/logit_{key}", 1.0) for key in LOGITS])
    return table


def terminal() -> Console:
    """A console that is wide enough for our tables where the output is not a terminal."""
    console = Console()
    return console if console.is_terminal else Console(width=130)


def print_scores(folder: Path) -> None:
    """Print the tables of one finished score stage."""
    rows = aggregate({0: read_metrics(folder / "metrics.json")})
    console = terminal()
    for split in splits_of(rows):
        console.print(summary_table({folder.parent.parent.name or str(folder): rows}, split))
        console.print(class_table(str(folder), rows, split))
