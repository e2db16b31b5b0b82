"""Terminal tables of scores."""

from collections.abc import Iterable, Sequence

from rich.console import Console
from rich.table import Table

from frugalseg.analysis.groups import GROUPS
from frugalseg.analysis.maps import CONTROLS, TOKEN_MAPS
from frugalseg.analysis.names import shown
from frugalseg.analysis.scores import ending
from frugalseg.analysis.seeds import Aggregate

LABELS = {
    "m0": "M0 classifier",
    "mw": "M_W refined",
    "mp": "M_P prototype",
    "sum": "M_W + M_P",
    "seed": "M_W + 0.7 M_P",
    "walk": "M_W + 0.3 M_P",
    "cam": "seed map",
    "r": "R head map",
    "mt": "mt class attention",
    "f": "F = R mt",
    "q": "Q = pa F",
    "infused": "R after infusion",
    "tags": "tags painted",
    "chance": "chance",
    "": "segmentation",
    "crf": "+ CRF",
    "seed_labels": "seed labels",
    "psa": "seed labels of two alphas",
    "refined": "refined: random walk",
    "pseudo": "pseudo label",
}
"""Captions of rules of maps, controls, and the usual names of masks."""
BEST = "_best"
"""Ends the name of what a swept map gives at its best threshold."""
SIDE_RULES = ("seed", "walk", *CONTROLS)
"""Rules that are left out where a few are compared class by class."""
LOGITS = ("tail_body_head", "tail_body_tail", "head_body_head", "head_body_tail")


def cell(rows: Aggregate, key: str, factor: float = 100.0) -> str:
    """Mean, and the standard deviation where there is more than one seed; "-" for a key that is not there."""
    row = rows.get(key)
    if row is None:
        return "-"
    spread = f" ±{row['std'] * factor:.1f}" if row["n"] > 1 else ""
    return f"{row['mean'] * factor:.1f}{spread}"


def threshold_cell(rows: Aggregate, split: str, name: str) -> str:
    """Mean best threshold, with its standard deviation over several seeds; empty for what is not swept."""
    row = rows.get(f"{split}/threshold_{name.removesuffix(BEST)}") if name.endswith(BEST) else None
    if row is None:
        return ""
    return f"{round(row['mean'], 3):g}" + (f" ±{round(row['std'], 3):g}" if row["n"] > 1 else "")


def only_swept(name: str) -> bool:
    """Whether a name is the best of a map that has no other score, since it has no background of its own."""
    return name.endswith(BEST) and name.removesuffix(BEST) in TOKEN_MAPS


def compared(names: Sequence[str], count: int = 8) -> list[str]:
    """The first `count` of those that are compared class by class.

    These are the main rules, masks, and maps that can only be swept; where there is no rule and no mask, all names.
    """
    main = [name for name in names if name not in SIDE_RULES and (only_swept(name) or not name.endswith(BEST))]
    return (list(names) if all(map(only_swept, main)) else main)[:count]


def splits_of(rows: Aggregate) -> list[str]:
    """Splits that have a score."""
    return sorted({key.split("/")[0] for key in rows if "/miou" in key})


def caption(name: str) -> str:
    """A rule, control, swept map or name of masks in words."""
    if name.endswith(BEST):
        return f"{caption(name.removesuffix(BEST))}, best threshold"
    return LABELS.get(name) or name


def names_of(keys: Iterable[str], split: str) -> list[str]:
    """Rules, controls and masks that a split has scores of, in the order of `LABELS`, others last."""
    start, places = f"{split}/miou", {name: place for place, name in enumerate(LABELS)}
    found = {key[len(start) :] for key in keys if key.startswith(start)}
    found -= {f"{name}{ending(group)}" for name in found for group in GROUPS}
    names = (name.removeprefix("_") for name in found)
    return sorted(names, key=lambda name: (places.get(name.removesuffix(BEST), len(places)), name))


def summary_table(results: dict[str, Aggregate], split: str) -> Table:
    """Mean IoU of every rule, overall and by class frequency, for several experiments below one another.

    Groups, false positives and best thresholds have columns where any of the experiments has them.
    """
    names = {name: names_of(rows, split) for name, rows in results.items()}
    swept = any(rule.endswith(BEST) for found in names.values() for rule in found)
    columns = _columns({key for rows in results.values() for key in rows}, split)
    table = Table(title=f"mIoU in % on {shown(split)}")
    for column in ("experiment", "map"):
        table.add_column(column)
    for column in (*columns, *["threshold"] * swept):
        table.add_column(column, justify="right")
    for name, rows in results.items():
        for position, rule in enumerate(names[name]):
            cells = [cell(rows, f"{split}/{form.format(ending(rule))}") for form in columns.values()]
            cells += [threshold_cell(rows, split, rule)] * swept
            table.add_row(shown(name) if position == 0 else "", shown(caption(rule)), *cells)
        table.add_section()
    return table


def _columns(keys: Iterable[str], split: str) -> dict[str, str]:
    """Headings of a summary, and the form of their keys: `{}` stands for a rule's ending."""
    mine = [key for key in keys if key.startswith((f"{split}/miou", f"{split}/false_positive"))]
    grouped = any(key.endswith(tuple(map(ending, GROUPS))) for key in mine)
    columns = {"all": "miou{}"} | ({group: f"miou{{}}_{group}" for group in GROUPS} if grouped else {})
    columns["background"] = "iou{}/background"
    if any("/false_positive" in key for key in mine):
        columns["false positives"] = "false_positive{}"
    return columns


def class_table(name: str, rows: Aggregate, split: str) -> Table:
    """IoU of every class for the main rules and masks."""
    rules = compared(names_of(rows, split))
    table = Table(title=f"{shown(name)}: IoU in % by class on {shown(split)}")
    table.add_column("class")
    for rule in rules:
        table.add_column(shown(caption(rule)), justify="right")
    names = list(dict.fromkeys(key.split("/", 2)[2] for key in rows if key.startswith(f"{split}/iou")))
    for label in names:
        table.add_row(shown(label), *[cell(rows, f"{split}/iou{ending(rule)}/{label}") for rule in rules])
    table.add_section()
    table.add_row("mean", *[cell(rows, f"{split}/miou{ending(rule)}") for rule in rules])
    return table


def logit_table(results: dict[str, Aggregate], split: str) -> Table | None:
    """Mean logits of head and tail class on bodies that they share; None where nothing was measured."""
    measured = {name: rows for name, rows in results.items() if f"{split}/logit_{LOGITS[0]}" in rows}
    if not measured:
        return None
    table = Table(
        title=f"mean logits on bodies shared by a head and a tail class, {shown(split)} (on whose object: whose logit)"
    )
    table.add_column("experiment", no_wrap=True)
    for owner in ("tail", "head"):
        for rival in ("head", "tail"):
            table.add_column(f"on {owner}: {rival}", justify="right")
    for name, rows in measured.items():
        table.add_row(shown(name), *[cell(rows, f"{split}/logit_{key}", 1.0) for key in LOGITS])
    return table


def terminal() -> Console:
    """A console that is wide enough for our tables where the output is not a terminal."""
    console = Console()
    return console if console.is_terminal else Console(width=160)
