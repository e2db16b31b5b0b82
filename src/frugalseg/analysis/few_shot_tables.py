"""Few-shot tables for terminals and pages: the same cells in both, with all facts that make numbers comparable."""

from collections.abc import Iterable, Sequence

from rich.markup import escape
from rich.table import Table

from frugalseg.analysis.few_shot_grid import Grid, grid_of
from frugalseg.analysis.few_shot_pairs import paired_grids
from frugalseg.analysis.few_shot_rows import FOLDS, Row
from frugalseg.analysis.names import in_page, shown
from frugalseg.analysis.seeds import Aggregate

MEASURE = (
    "foreground pixels are summed over all episodes of a class and divided once; ignored pixels are left out. mIoU is"
    " the mean over the fold's classes that have episodes, FB-IoU that of background and foreground over all episodes"
)
MEAN_OF_FOLDS = "for every (training seed, base seed) first over the three folds, then over these"


def blocks(rows: Sequence[Row]) -> dict[str, list[Row]]:
    """Benchmark -> its rows: those of two benchmarks have no table in common."""
    found: dict[str, list[Row]] = {}
    for row in rows:
        found.setdefault(row.facts["benchmark"], []).append(row)
    return found


def fact_lines(rows: Sequence[Row]) -> list[tuple[str, str]]:
    """(Heading, text) of everything that numbers of one benchmark hang on; several values where rows differ.

    Args:
        rows: of one benchmark.
    """
    tested = {fold: [row.folds[fold] for row in rows if fold in row.folds] for fold in FOLDS}
    tested = {fold: found for fold, found in tested.items() if found}
    facts = [("benchmark", rows[0].facts["benchmark"])]
    facts.append(("protocol", _told(f"{row.facts['protocol']}: {row.protocol}" for row in rows)))
    facts += [(f"classes of fold {fold}", _told(each["classes"] for each in found)) for fold, found in tested.items()]
    for heading, what in (("episodes per base seed", "episodes"), ("episodes file", "episodes file")):
        by_fold = {fold: _told(each[what] for each in found) for fold, found in tested.items()}
        same = next(iter(by_fold.values())) if len(set(by_fold.values())) == 1 else None
        facts.append((heading, same or "; ".join(f"fold {fold}: {text}" for fold, text in by_fold.items())))
    rest = [key for key in rows[0].facts if key not in dict(facts)]
    facts += [(key, _told(row.facts[key] for row in rows)) for key in rest]
    facts.append(("training seeds", _told(row.training_seeds for row in rows)))
    facts.append(("data folder", ", ".join(dict.fromkeys(root for row in rows for root in row.roots))))
    return [*facts, ("score", MEASURE), ("±", _deviation(rows)), ("mean of the folds", MEAN_OF_FOLDS)]


def _told(values: Iterable[str]) -> str:
    """The one value, or all of them."""
    different = list(dict.fromkeys(values))
    return " / ".join(different) + (" (differs from row to row)" if len(different) > 1 else "")


def _deviation(rows: Sequence[Row]) -> str:
    """What the deviations are over."""
    if any(len({stage.seed for stage in row.stages}) > 1 for row in rows):
        return "sample standard deviation over all (training seed, base seed) results of a row"
    if any(len(stage.scores) > 1 for row in rows for stage in row.stages):
        return "sample standard deviation over base seeds; there is one training seed, so it says nothing of training"
    return "none: there is one training seed and one base seed"


def main_grid(rows: Sequence[Row]) -> Grid:
    """Mean IoU of every fold, their mean, FB-IoU, and what it costs.

    Args:
        rows: of one benchmark.
    """
    columns = [*[f"fold {fold}" for fold in FOLDS], "mean", "FB-IoU", "parameters trained / all", "FLOPs", "episodes/s"]
    keys = [*[f"fold{fold}/miou" for fold in FOLDS], "mean/miou", "mean/fb_iou"]
    cells = [[*[percent(row.figures, key) for key in keys], _parameters(row), _flops(row), _rate(row)] for row in rows]
    title = "mIoU in % by fold, their mean, mean FB-IoU in %; FLOPs of one episode, a multiply-add is 2"
    grid = grid_of(title, columns, cells, rows)
    notes = [f"{row.experiment}, {row.shots} shot: {note}." for row in rows for note in row.notes]
    return grid._replace(notes=[*grid.notes, *notes])


def class_grids(rows: Sequence[Row]) -> list[Grid]:
    """IoU of every class of each fold, their mean, and FB-IoU.

    Args:
        rows: of one benchmark.
    """
    grids = []
    for fold in FOLDS:
        own = [row for row in rows if fold in row.folds]
        # more than five where the rows have different protocols
        names = list(dict.fromkeys(name for row in own for name in row.names[fold]))
        keys = [*[f"fold{fold}/iou/{name}" for name in names], f"fold{fold}/miou", f"fold{fold}/fb_iou"]
        cells = [[percent(row.figures, key) for key in keys] for row in own]
        if own:
            grids.append(grid_of(f"fold {fold}: IoU in % by class", [*names, "mean", "FB-IoU"], cells, own, [fold]))
    return grids


def percent(figures: Aggregate, key: str) -> str:
    """Mean in %, and the standard deviation where there is more than one value; "-" for a key that is not there."""
    row = figures.get(key)
    if row is None:
        return "-"
    return f"{100 * row['mean']:.2f}" + (f" ±{100 * row['std']:.2f}" if row["n"] > 1 else "")


def _parameters(row: Row) -> str:
    return f"{_span(row, 'parameters_trainable')} / {_span(row, 'parameters')}"


def _span(row: Row, key: str) -> str:
    """A whole number that all stages should agree on; the smallest and the largest where they do not."""
    return " to ".join(f"{value:,.0f}" for value in _ends(row, key)) or "-"


def _flops(row: Row) -> str:
    giga = [value / 1e9 for value in _ends(row, "flops")]
    return " to ".join(f"{value:,.0f} G" if value >= 100 else f"{value:.3g} G" for value in giga) or "-"


def _ends(row: Row, key: str) -> list[float]:
    """Smallest and largest value, where they are equal once; empty where nothing was measured."""
    values = sorted(set(row.values(key).values()))
    return values if len(values) < 2 else [values[0], values[-1]]


def _rate(row: Row) -> str:
    return f"{row.figures['episodes_per_second']['mean']:.1f}" if "episodes_per_second" in row.figures else "-"


def grid_table(grid: Grid) -> Table:
    """For the terminal."""
    table = Table(title=escape(grid.title), caption="\n".join(map(escape, grid.notes)) or None, caption_justify="left")
    for number, column in enumerate(grid.columns):
        # a name or a number that is cut short may be read as another one
        table.add_column(escape(column), justify="left" if number == 0 else "right", overflow="fold")
    for line in grid.rows:
        table.add_row(*map(shown, line))
    return table


def fact_table(rows: Sequence[Row]) -> Table:
    """For the terminal; rows of one benchmark."""
    table = Table(title="what these numbers hang on", show_header=False)
    for heading, text in fact_lines(rows):
        table.add_row(escape(heading), shown(text))
    return table


def page_lines(rows: Sequence[Row]) -> list[str]:
    """Facts and all tables of few-shot rows, as lines of markdown.

    Args:
        rows: of any benchmarks.
    """
    lines: list[str] = []
    for own in blocks(rows).values():
        lines += ["", *[f"- **{heading}**: {in_page(text)}" for heading, text in fact_lines(own)]]
        for grid in (main_grid(own), *paired_grids(own), *class_grids(own)):
            lines += ["", f"**{grid.title}**", "", f"| {' | '.join(grid.columns)} |", "|---" * len(grid.columns) + "|"]
            lines += [f"| {' | '.join(map(in_page, line))} |" for line in grid.rows]
            lines += [line for note in grid.notes for line in ("", note)]
    return lines[1:]
