"""What `frugalseg evaluate` prints: every rule and folder of masks in one table, and the main ones by class."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from rich.table import Table

from frugalseg.analysis.groups import GROUPS
from frugalseg.analysis.scores import ending
from frugalseg.analysis.seeds import read_metrics
from frugalseg.analysis.tables import BEST, caption, compared, names_of, terminal


def score_table(title: str, metrics: Mapping[str, float], split: str) -> Table:
    """One line per rule and folder of masks, in percent; the threshold as it is."""
    names = names_of(metrics, split)
    columns = {"mIoU": "miou{}", **{group: f"miou{{}}_{group}" for group in GROUPS}}
    columns |= {"background": "iou{}/background", "false positives": "false_positive{}"}
    columns |= {"pixels": "pixel_accuracy{}", "boundary": "boundary_iou{}", "undecided": "ignored{}"}
    keys = {name: [f"{split}/{form.format(ending(name))}" for form in columns.values()] for name in names}
    shown = [any(row[place] in metrics for row in keys.values()) for place in range(len(columns))]
    swept = any(name.endswith(BEST) for name in names)
    table = Table("", title=f"{title}: scores in % on {split}")
    for column in [c for c, wanted in zip(columns, shown, strict=True) if wanted] + ["threshold"] * swept:
        table.add_column(column, justify="right")
    for name in names:
        cells = [_percent(metrics.get(key)) for key, wanted in zip(keys[name], shown, strict=True) if wanted]
        threshold = metrics.get(f"{split}/threshold_{name.removesuffix(BEST)}") if name.endswith(BEST) else None
        cells += ["" if threshold is None else f"{threshold:g}"] * swept
        table.add_row(caption(name), *cells)
    return table


def by_class(title: str, metrics: Mapping[str, float], split: str, classes: Sequence[str]) -> Table:
    """IoU of every class that occurs, in the order of `classes`, for those that are compared."""
    names = compared(names_of(metrics, split))
    table = Table("class", title=f"{title}: IoU in % by class on {split}")
    for name in names:
        table.add_column(caption(name), justify="right")
    for label in classes:
        scores = [metrics.get(f"{split}/iou{ending(name)}/{label}") for name in names]
        if any(score is not None for score in scores):
            table.add_row(label, *[_percent(score) for score in scores])
    table.add_section()
    table.add_row("mean", *[_percent(metrics.get(f"{split}/miou{ending(name)}")) for name in names])
    return table


def print_overview(folder: Path, split: str, classes: Sequence[str]) -> None:
    """Print both tables of a finished folder.

    Args:
        folder: that holds metrics.json.
        split: whose scores they are.
        classes: names of all classes.
    """
    metrics, console = read_metrics(folder / "metrics.json"), terminal()
    console.print(score_table(str(folder), metrics, split))
    console.print(by_class(str(folder), metrics, split, classes))


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.1f}"
