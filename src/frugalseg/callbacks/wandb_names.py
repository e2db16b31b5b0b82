"""What W&B is told of a run folder: group, job type, name, tags and settings, from its place and `provenance.json`."""

import re
from pathlib import Path
from typing import Any, NamedTuple

from frugalseg.run import read_json

PAPERS = ("sfc", "cti", "dsmf", "mevt")
_DETAILS = ("command", "data", "identity", "versions", "hardware", "git")
"""Of `provenance.json`, for the settings of a run whose stage has no Trainer."""


class RunFacts(NamedTuple):
    """Names of a run.

    Attributes:
        group: `<experiment>[-<name>]`: all stages, folds and seeds of an experiment are one group.
        stage: W&B's job type.
        name: the folder below that of all runs, such as `sfc-voc/seed0/classify`.
        seed: None where the folder is not called after one.
        fold: None where there are no folds.
        paper: one of `PAPERS`, or "".
        benchmark: the data module's name, such as VOC, or "".
        details: what else goes to the run's settings.
    """

    group: str
    stage: str
    name: str
    seed: int | None
    fold: int | None
    paper: str
    benchmark: str
    details: dict[str, Any]

    @property
    def tags(self) -> tuple[str, ...]:
        """Paper, benchmark, seed and fold, those that there are."""
        numbers = {"seed": self.seed, "fold": self.fold}
        counted = [f"{what}{value}" for what, value in numbers.items() if value is not None]
        return tuple(tag for tag in (self.paper, self.benchmark, *counted) if tag)

    @property
    def settings(self) -> dict[str, Any]:
        """Flat settings to group and filter by, whose names no task's settings have; `details` are left out."""
        return {
            "run_experiment": self.group,
            "run_stage": self.stage,
            "run_seed": self.seed,
            "run_fold": self.fold,
            "run_paper": self.paper,
            "run_benchmark": self.benchmark,
        }


def read_facts(folder: Path) -> RunFacts:
    """Names of a run folder that has been claimed.

    Args:
        folder: `runs/<experiment>[-<name>]/[fold<f>/]seed<s>/<stage>`; of any other folder what `provenance.json`
            calls the experiment is the group.

    Raises:
        RunFolderError: `provenance.json` is missing or damaged.
    """
    record = read_json(folder / "provenance.json")
    parts = folder.absolute().parts
    seed = _number("seed", parts[-2])
    fold = _number("fold", parts[-3]) if seed is not None else None
    depth = 2 if seed is None else 3 if fold is None else 4
    group = parts[-depth] if seed is not None else str(record.get("experiment") or parts[-depth])
    identity = record.get("identity") or {}
    return RunFacts(
        group,
        str(record.get("stage") or parts[-1]),
        "/".join([group, *parts[len(parts) - depth + 1 :]]),
        seed,
        fold,
        _paper(group, identity),
        _benchmark(identity),
        {key: record[key] for key in _DETAILS if key in record},
    )


def _number(word: str, part: str) -> int | None:
    found = re.fullmatch(rf"{word}(\d+)", part)
    return int(found.group(1)) if found else None


def _paper(group: str, identity: dict[str, Any]) -> str:
    """The experiment's name says whose chain a shared stage belongs to; else the task does."""
    task = str((identity.get("model") or {}).get("class_path") or "")
    words = [*re.split(r"\W|_", group), *task.split(".")]
    return next((word for word in words if word in PAPERS), "")


def _benchmark(identity: dict[str, Any]) -> str:
    """The data module's class: three verbs, three ways to record it."""
    data = identity.get("data")
    if not isinstance(data, dict):
        return ""
    return str(data.get("class_path") or data.get("class") or data.get("module") or "").rsplit(".", 1)[-1]
