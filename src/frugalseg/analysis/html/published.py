"""Ours beside the paper's: numbers that were read in the papers themselves, with their source and what differs."""

from fnmatch import fnmatch
from functools import cache
from importlib.resources import files
from typing import Any, NamedTuple

import yaml

from frugalseg.analysis.few_shot_grid import Grid
from frugalseg.analysis.html.experiments import PAPERS, Experiment
from frugalseg.analysis.seeds import aggregate
from frugalseg.analysis.tables import cell

NOTE = "Data, weights and schedule are those of the paper's number; ours stand under provenance."
SYNTHETIC = "not comparable: synthetic world"


class Comparison(NamedTuple):
    """A paper's numbers beside ours.

    Attributes:
        title: of the paper.
        read: how much of the paper was at hand.
        differs: what differs in method and code.
        grid: the numbers; None where the paper has none for this experiment, or none was at hand.
        remark: about this experiment; may be empty.
    """

    title: str
    read: str
    differs: str
    grid: Grid | None
    remark: str


@cache
def published() -> dict[str, Any]:
    """Contents of `analysis/published.yaml`."""
    text = files("frugalseg.analysis").joinpath("published.yaml").read_text(encoding="utf-8")
    return dict(yaml.safe_load(text)["papers"])


def compare(experiment: Experiment) -> Comparison | None:
    """What the paper of an experiment reports, beside what the experiment gave.

    Args:
        experiment: with any state.

    Returns:
        None where the experiment belongs to no paper.
    """
    if experiment.paper not in PAPERS:
        return None
    entry = published()[experiment.paper]
    numbers = [n for n in entry["numbers"] if any(fnmatch(experiment.name, form) for form in n["experiments"])]
    lines = [_line(experiment, number) for number in numbers]
    columns = ["quantity", "ours", "the paper's", "difference", "source", "data", "weights", "schedule"]
    grid = Grid("ours beside the paper's number", columns, lines, [NOTE])
    remark = f"This experiment is {SYNTHETIC}." if experiment.synthetic else ""
    return Comparison(entry["title"], entry["read"], entry["differs"], grid if lines else None, remark)


def _line(experiment: Experiment, number: dict[str, Any]) -> list[str]:
    value, unit = number["value"], number["unit"]
    ours = _ours(experiment, number)
    shown = cell({"ours": ours}, "ours") if ours else "no counterpart"
    if experiment.synthetic:
        difference = SYNTHETIC
    elif ours is None:
        difference = "-"
    else:
        difference = f"{100 * ours['mean'] - value:+.1f}"
    theirs = f"{value:+g} {unit}" if number.get("gain") else f"{value:g} {unit}"
    told = [str(number[key]) for key in ("source", "data", "weights", "schedule")]
    return [str(number["what"]), shown, theirs, difference, *told]


def _ours(experiment: Experiment, number: dict[str, Any]) -> dict[str, float] | None:
    """Mean over seeds of our counterpart; None where there is none."""
    stage, key = number["stage"], number["key"]
    by_seed = {
        run.seed: {key: run.metrics[key]}
        for run in experiment.finished
        if stage is not None and run.name in (stage, f"{stage}-{str(key).split('/')[0]}") and key in run.metrics
    }
    return aggregate(by_seed)[key] if by_seed else None
