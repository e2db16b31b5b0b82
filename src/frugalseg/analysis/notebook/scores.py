"""Scores that several notebooks draw."""

from frugalseg.analysis.notebook.folders import Runs, target_of
from frugalseg.analysis.seeds import Aggregate, aggregate, finished_stages
from frugalseg.errors import RunFolderError

SCORES = ("score", "score-train", "score-val")
"""Stages that score class maps; the first that has finished counts."""


def map_scores(runs: Runs, experiment: str) -> Aggregate:
    """Scores of an experiment's class maps over its seeds, by keys without their split.

    Args:
        runs: the folder of runs.
        experiment: name of its folder.

    Raises:
        RunFolderError: nothing has been scored.
    """
    (folder,) = runs.named([experiment])
    stages = finished_stages(folder)
    for stage in SCORES:
        if stage in stages:
            return {key.split("/", 1)[1]: row for key, row in aggregate(stages[stage]).items() if "/" in key}
    raise RunFolderError(f"missing: scores of {experiment}; `make {target_of(experiment)}` makes them")


def mean_and_std(rows: Aggregate, key: str, factor: float = 100.0) -> tuple[float, float]:
    """Of one key, times `factor`; NaN and 0 where it is not there."""
    row = rows.get(key)
    return (float("nan"), 0.0) if row is None else (factor * row["mean"], factor * row["std"])
