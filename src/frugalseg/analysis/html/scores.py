"""Tables of scores for an experiment's page, in the cells of a terminal's, and the score that stands for it."""

import re
from collections.abc import Sequence
from typing import NamedTuple

from rich.table import Table

from frugalseg.analysis.chain import chain_rows, chain_table, is_chain
from frugalseg.analysis.dense_rows import STATED, DenseRow, read_facts
from frugalseg.analysis.dense_tables import NOTE, TITLE, columns
from frugalseg.analysis.few_shot import has_few_shot, read_stages
from frugalseg.analysis.few_shot_grid import Grid
from frugalseg.analysis.few_shot_rows import Row, rows_of
from frugalseg.analysis.few_shot_tables import blocks, class_grids, fact_lines, main_grid, percent
from frugalseg.analysis.html.experiments import Experiment
from frugalseg.analysis.html.states import told
from frugalseg.analysis.scores import ending
from frugalseg.analysis.seeds import aggregate
from frugalseg.analysis.tables import caption, cell, logit_table, splits_of, summary_table
from frugalseg.errors import RunFolderError, printable

MAIN_MAPS = ("sum", "cam_best", "mw", "m0")
"""What stands for an experiment that ends in maps: the first of these that was scored."""


class Scores(NamedTuple):
    """Everything that was scored.

    Attributes:
        grids: tables.
        headline: the score that stands for the experiment; "-" where there is none.
        what: what the headline is.
        reasons: what could not be read.
    """

    grids: list[Grid]
    headline: str
    what: str
    reasons: list[str]


def read_scores(experiment: Experiment) -> Scores:
    """Tables of maps and masks, of few-shot tests and of dense features, as far as they can be read.

    Args:
        experiment: with any state.
    """
    reasons: list[str] = []
    few_shot = _few_shot_rows(experiment, reasons)
    dense = _dense_rows(experiment, reasons)
    grids = [*_map_grids(experiment), *_few_shot_grids(few_shot), *_dense_grids(dense)]
    headline, what = _headline(experiment, few_shot, dense)
    return Scores(grids, headline, what, reasons)


def from_rich(table: Table, notes: Sequence[str] = ()) -> Grid:
    """A terminal's table as a grid.

    Args:
        table: whose cells are plain text.
        notes: below it.
    """
    cells = [[str(cell) for cell in column.cells] for column in table.columns]
    return Grid(
        str(table.title or ""),
        [str(column.header) for column in table.columns],
        [list(row) for row in zip(*cells, strict=True)],
        list(notes),
    )


def _map_grids(experiment: Experiment) -> list[Grid]:
    """The chain first, then every score stage of maps by split."""
    stages = experiment.scores
    grids = [from_rich(chain_table(experiment.name, stages), _seed_note(experiment))] if is_chain(stages) else []
    for stage, rows in stages.items():
        for split in splits_of(rows):
            grid = from_rich(summary_table({stage: rows}, split))
            # the one experiment of this page needs no column
            lines = [line[1:] for line in grid.rows]
            grids.append(grid._replace(title=f"{stage}: {grid.title}", columns=grid.columns[1:], rows=lines))
            if (logits := logit_table({stage: rows}, split)) is not None:
                grids.append(from_rich(logits))
    return grids


def _seed_note(experiment: Experiment) -> list[str]:
    """What ± means."""
    if len(experiment.seeds) < 2:
        return ["One seed, hence no deviation."]
    return [f"Mean ± sample standard deviation over seeds {', '.join(map(str, experiment.seeds))}, as far as scored."]


def _few_shot_rows(experiment: Experiment, reasons: list[str]) -> list[Row]:
    if not any(stage.name.endswith("shot-test") and stage.metrics for stage in experiment.stages):
        return []
    if not has_few_shot(experiment.path):
        return []
    try:
        return rows_of(experiment.name, read_stages(experiment.path))
    except RunFolderError as error:
        reasons.append(f"few-shot tables left out: {printable(told(error, experiment.path))}")
        return []


def _few_shot_grids(rows: Sequence[Row]) -> list[Grid]:
    grids = []
    for own in blocks(rows).values():
        facts = Grid("what these numbers hang on", ["fact", "value"], [list(pair) for pair in fact_lines(own)], [])
        grids += [main_grid(own), *class_grids(own), facts]
    return grids


def _dense_rows(experiment: Experiment, reasons: list[str]) -> list[DenseRow]:
    """As `analysis.dense_rows.read_rows`, but a damaged stage does not take the others along."""
    found: dict[object, tuple[str, object, dict[int, dict[str, float]]]] = {}
    rows = []
    for stage in experiment.finished:
        if stage.fold is not None or not any(key.startswith(STATED) for key in stage.metrics):
            continue
        try:
            facts = read_facts(stage.path / "provenance.json")
        except RunFolderError as error:
            reasons.append(f"{stage.name} of {stage.place} is left out: {printable(told(error, stage.path))}")
            continue
        name = stage.name.removesuffix("-validate")
        found.setdefault((name, facts), (name, facts, {}))[2][stage.seed] = stage.metrics
        if len(found[name, facts][2]) == 1:
            rows.append((name, facts, found[name, facts][2]))
    return [DenseRow(experiment.name, name, facts, aggregate(by_seed)) for name, facts, by_seed in rows]


def _dense_grids(rows: Sequence[DenseRow]) -> list[Grid]:
    if not rows:
        return []
    heads, lines = columns(rows)
    heads, lines = ["stage", *heads[1:]], [[row.stage, *line[1:]] for row, line in zip(rows, lines, strict=True)]
    return [Grid(TITLE, heads, lines, [NOTE])]


def _headline(experiment: Experiment, few_shot: Sequence[Row], dense: Sequence[DenseRow]) -> tuple[str, str]:
    """The score that stands for an experiment, in %, and what it is."""
    if few_shot:
        keys = dict.fromkeys(
            key for row in few_shot for key in row.figures if re.fullmatch(r"(mean|fold\d+)/miou", key)
        )
        key = "mean/miou" if "mean/miou" in keys else next(iter(keys), "fold0/miou")
        whose = "mean of the folds" if key == "mean/miou" else f"fold {key.partition('/')[0].removeprefix('fold')}"
        # of tests with equal shots and other facts (episodes of another size, say) the first one
        first = {row.shots: row for row in reversed(few_shot) if key in row.figures} or {few_shot[0].shots: few_shot[0]}
        told = [percent(first[shots].figures, key) for shots in sorted(first)]
        return " / ".join(told), f"{' / '.join(map(str, sorted(first)))} shot, {whose}"
    if dense:
        # `probe` itself before probes of single maps such as `probe-f3`
        best = min(dense, key=lambda row: (row.stage != "probe", not row.stage.startswith("probe")))
        return cell(best.figures, "val/miou"), f"{best.stage} on val"
    if is_chain(experiment.scores) and (rows := chain_rows(experiment.scores)):
        label, scores = rows[-1]
        split = "val" if "val" in scores else next(iter(scores))
        return cell(scores[split], "value"), f"{label} on {split}"
    for figures in experiment.scores.values():
        for split in splits_of(figures):
            for name in MAIN_MAPS:
                if (key := f"{split}/miou{ending(name)}") in figures:
                    return cell(figures, key), f"{caption(name)} on {split}"
    return "-", ""
