"""What stands on the page of one experiment."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from frugalseg.analysis.html.bars import BarTable, class_bars, group_bars
from frugalseg.analysis.html.curves import read_sweep
from frugalseg.analysis.html.effort import Command, commands, effort_grid, fact_grid, total_time
from frugalseg.analysis.html.experiments import Experiment
from frugalseg.analysis.html.gallery import gallery
from frugalseg.analysis.html.pictures import Album, Row, confusion_pictures, stage_pictures
from frugalseg.analysis.html.published import Comparison, compare
from frugalseg.analysis.html.scores import Scores, read_scores
from frugalseg.analysis.html.states import StageRun, State
from frugalseg.analysis.html.svg import Chart, Line, line_chart
from frugalseg.analysis.tables import caption

PERCENT = ("miou", "accuracy")
"""In the name of a column: a fraction, shown in %."""
KINDS = {
    "train/loss": "losses",
    "train/": "other values in training",
    "val/": "validation",
}
"""Beginning of columns -> what a chart of them is called; the first that fits counts."""
MOST_LINES = 8


class Page(NamedTuple):
    """All of it.

    Attributes:
        experiment: whose page.
        slug: its name in addresses.
        scores: tables and headline.
        comparison: with the paper.
        curves: of training.
        sweeps: threshold curves.
        groups: head, middle and tail.
        classes: of every score stage.
        gallery: one row per image.
        pictures: that stages drew.
        confusion: matrices.
        effort: time and memory.
        facts: provenance.
        commands: of every stage.
        matrix: what state every stage is in: headings, and per stage (name, runs).
        time: of all stages together.
        troubles: everything that is broken, unfinished or could not be read: (where, state, reason).
    """

    experiment: Experiment
    slug: str
    scores: Scores
    comparison: Comparison | None
    curves: list[Chart]
    sweeps: list[Chart]
    groups: list[BarTable]
    classes: list[BarTable]
    gallery: list[Row]
    pictures: list[Row]
    confusion: list[Row]
    effort: Any
    facts: Any
    commands: list[Command]
    matrix: tuple[list[str], list[tuple[str, list[StageRun | None]]]]
    time: str
    troubles: list[tuple[str, str, str]]


def make_page(experiment: Experiment, slug: str, out: Path) -> Page:
    """Read everything that an experiment's page shows, and copy its pictures.

    Args:
        experiment: with any state.
        slug: its name in addresses.
        out: top folder of the report.
    """
    album, reasons = Album(out, slug), list[str]()
    scores = read_scores(experiment)
    classes = class_bars(experiment, reasons)
    rows = gallery(experiment, album), stage_pictures(experiment, album), confusion_pictures(experiment, album)
    troubles = [(f"{s.name}, {s.place}", str(s.state), reason) for s, reason in experiment.troubles]
    troubles += [("", str(State.BROKEN), reason) for reason in (*scores.reasons, *reasons, *album.flaws)]
    troubles += [("", "stray", reason) for reason in experiment.strays]
    return Page(
        experiment, slug, scores, compare(experiment), learning_charts(experiment), sweep_charts(experiment),
        group_bars(experiment), classes, *rows, effort_grid(experiment), fact_grid(experiment), commands(experiment),
        state_matrix(experiment.stages), total_time(experiment), troubles,
    )  # fmt: skip


def learning_charts(experiment: Experiment) -> list[Chart]:
    """Losses, other values and validation scores of every stage that logged more than one step of them.

    Args:
        experiment: with any state.
    """
    charts = []
    for name in dict.fromkeys(stage.name for stage in experiment.stages):
        own = [stage for stage in experiment.stages if stage.name == name]
        columns = list(dict.fromkeys(column for stage in own for column in stage.log.curves))
        # of single classes there is a chart of bars; here they would push the others out
        columns = [c for c in columns if not c.startswith("val/iou/")]
        columns = [c for c in columns if any(len(stage.log.curves.get(c, ())) > 1 for stage in own)]
        for beginning, what in KINDS.items():
            kind = [c for c in columns if next((b for b in KINDS if c.startswith(b)), "") == beginning]
            for percent in (False, True):
                shown = [c for c in kind if any(word in c for word in PERCENT) is percent][:MOST_LINES]
                if lines := [
                    _line(stage, c, beginning, percent) for c in shown for stage in own if stage.log.curves.get(c)
                ]:
                    runs = len({stage.place for stage in own})
                    note = f"{runs} lines of each colour: one for every seed and fold" if runs > 1 else ""
                    charts.append(line_chart(f"{name}: {what}{' in %' * percent}", lines, "step", note))
    return charts


def _line(stage: StageRun, column: str, beginning: str, percent: bool) -> Line:
    name = column.removeprefix(beginning).removeprefix("_") or "loss"
    factor = 100.0 if percent else 1.0
    return Line(name, [(x, factor * y) for x, y in stage.log.curves[column]])


def sweep_charts(experiment: Experiment) -> list[Chart]:
    """Mean IoU over the background threshold, of every score stage that swept it.

    Args:
        experiment: with any state.
    """
    charts = []
    for name in dict.fromkeys(stage.name for stage in experiment.stages):
        lines = [
            Line(caption(key), [(x, 100 * y) for x, y in points])
            for stage in experiment.stages
            if stage.name == name and stage.done
            for key, points in read_sweep(stage.path / "sweep.csv").items()
        ]
        if lines:
            lines.sort(key=lambda line: line.name)
            note = "Dots: the best threshold of each seed."
            charts.append(line_chart(f"{name}: mIoU in %", lines, "background threshold", note, best=True))
    return charts


def state_matrix(stages: Sequence[StageRun]) -> tuple[list[str], list[tuple[str, list[StageRun | None]]]]:
    """Which stage of which fold and seed is in what state.

    Args:
        stages: of one experiment.

    Returns:
        Folds and seeds, and for every stage its runs in that order, None for one that is not there.
    """
    places = sorted({(stage.fold if stage.fold is not None else -1, stage.seed) for stage in stages})
    by_place = {(s.name, s.fold if s.fold is not None else -1, s.seed): s for s in stages}
    heads = [(f"f{fold} " if fold >= 0 else "") + f"s{seed}" for fold, seed in places]
    names = list(dict.fromkeys(stage.name for stage in stages))
    return heads, [(name, [by_place.get((name, *place)) for place in places]) for name in names]
