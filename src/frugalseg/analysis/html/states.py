"""What state the folder of a stage is in; whatever is wrong with it is told, not raised."""

import re
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any

from frugalseg.analysis.html.curves import Log, read_log
from frugalseg.analysis.seeds import read_metrics
from frugalseg.errors import RunFolderError
from frugalseg.run import read_json

FRESH = 600.0
"""Seconds since the last sign of life within which an unfinished stage is taken to be running."""
ASIDE = ".old-"
"""In the name of a folder that a run with other settings has moved aside."""


class State(StrEnum):
    """Of a stage or an experiment; the gravest comes first."""

    BROKEN = "broken"
    RUNNING = "running"
    HALF = "half-finished"
    EMPTY = "not started"
    DONE = "done"


@dataclass(frozen=True)
class StageRun:
    """One stage's folder.

    Attributes:
        path: the folder.
        fold: its fold, where there are folds.
        seed: its seed.
        name: of the stage.
        state: see `State`.
        reasons: what is broken or not finished, in words.
        record: `provenance.json`; empty where it cannot be read.
        done: `done.json`, likewise.
        metrics: `metrics.json`, likewise.
        log: curves of `metrics.csv`.
    """

    path: Path
    fold: int | None
    seed: int
    name: str
    state: State = State.DONE
    reasons: tuple[str, ...] = ()
    record: dict[str, Any] = field(default_factory=dict)
    done: dict[str, Any] = field(default_factory=dict)
    metrics: dict[str, float] = field(default_factory=dict)
    log: Log = field(default_factory=Log)

    @property
    def place(self) -> str:
        """Fold and seed in words, such as `fold 1, seed 0`."""
        return (f"fold {self.fold}, " if self.fold is not None else "") + f"seed {self.seed}"

    @property
    def full_name(self) -> str:
        """Name of the stage with its fold, as `analysis.seeds` groups stages."""
        return (f"fold{self.fold}/" if self.fold is not None else "") + self.name


def read_stage(path: Path, fold: int | None, seed: int) -> StageRun:
    """Read one stage's folder; whatever is wrong with it ends up in `reasons`.

    Args:
        path: the folder.
        fold: its fold, where there are folds.
        seed: its seed.
    """
    reasons: list[str] = []
    if not any(path.iterdir()):
        return StageRun(path, fold, seed, path.name, State.BROKEN, ("is empty",))
    record = _read(path / "provenance.json", reasons, "holds files but no provenance.json")
    finished = (path / "done.json").is_file()
    done = _read(path / "done.json", reasons) if finished else {}
    metrics: dict[str, float] = {}
    if finished:
        metrics = _metrics(path / "metrics.json", reasons)
    log = read_log(path / "metrics.csv")
    if log.flaw:
        # the last line of a run that is writing may be half there
        reasons += [log.flaw] if finished else []
    if finished and (flaw := _lacks_checkpoint(path, record)):
        reasons.append(flaw)
    state = State.BROKEN if reasons else State.DONE
    if not finished and not reasons:
        state, reason = _unfinished(path, log)
        reasons.append(reason)
    return StageRun(path, fold, seed, path.name, state, tuple(reasons), record, done, metrics, log)


def _read(path: Path, reasons: list[str], absent: str = "") -> dict[str, Any]:
    """A JSON object; empty, and a reason, where it cannot be read."""
    if absent and not path.is_file():
        reasons.append(absent)
        return {}
    try:
        return read_json(path)
    except RunFolderError as error:
        reasons.append(told(error, path.parent))
        return {}


def _metrics(path: Path, reasons: list[str]) -> dict[str, float]:
    if not path.is_file():
        reasons.append("has done.json but no metrics.json")
        return {}
    try:
        return read_metrics(path)
    except RunFolderError as error:
        reasons.append(told(error, path.parent))
        return {}


def told(error: Exception, folder: Path) -> str:
    """An error's message without the folder's name, which stands beside it anyway, and without advice.

    Args:
        error: whose message it is.
        folder: that is told of.
    """
    text = " ".join(str(error).split())
    return text.replace(f"{folder}/", "").split("; run ")[0][:300]


def _lacks_checkpoint(path: Path, record: dict[str, Any]) -> str | None:
    """Why a finished fit cannot be used further: its checkpoint is gone though its settings made one."""
    command = record.get("command")
    if not isinstance(command, list) or "fit" not in command[1:2] or (path / "checkpoints" / "last.ckpt").is_file():
        return None
    config = path / "config.yaml"
    if config.is_file() and re.search(r"^\s*enable_checkpointing: false", config.read_text(errors="replace"), re.M):
        return None
    # a net that needs no training makes none either
    return "checkpoints/last.ckpt is missing" if record.get("trainable_parameters") else None


def _unfinished(path: Path, log: Log) -> tuple[State, str]:
    """Running or given up, and how far it has come."""
    signs = [path / "provenance.json", path / "metrics.csv", path / "checkpoints" / "last.ckpt"]
    times = [sign.stat().st_mtime for sign in (*signs, *_results(path)) if sign.exists()]
    quiet = time.time() - max(times, default=0.0)
    steps = f"after {log.last_step + 1:,} steps" if log.last_step is not None else "before its first result"
    if quiet < FRESH:
        return State.RUNNING, f"no done.json yet, {steps}; written to {quiet / 60:.0f} min ago"
    return State.HALF, f"no done.json: stopped {steps}; the same command continues it"


def _results(path: Path) -> Iterator[Path]:
    """Folders of results, whose times change whenever a file is added."""
    return (child for child in path.iterdir() if child.is_dir())
