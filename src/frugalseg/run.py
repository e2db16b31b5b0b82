"""Run folders: where a stage writes, whether it is up to date, and whose folder it is (design.md section 4).

`runs/<experiment>[-<name>]/[fold<f>/]seed<s>/<stage>/` holds `config.yaml`, `provenance.json`, `checkpoints/`,
`metrics.csv`, `metrics.json` and, last of all, `done.json`.
"""

import errno
import json
import os
import resource
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from frugalseg.errors import DiskFullError, RunFolderError
from frugalseg.keeping import (
    changes,
    clear_leftovers,
    count_outputs,
    hand_over,
    leave,
    lock,
    missing_outputs,
    seconds_worked,
    take,
)
from frugalseg.keeping.digests import data_digests as data_digests
from frugalseg.keeping.digests import digest_of as digest_of
from frugalseg.keeping.digests import file_digest as file_digest
from frugalseg.keeping.digests import folder_digest as folder_digest

VOLATILE = frozenset({"num_workers", "pin_memory", "verdicts", "cache"})
"""Data settings that change how fast a stage runs, not what it computes."""
TRAINER_IDENTITY = (
    "fast_dev_run", "max_time", "overfit_batches", "devices", "num_nodes",
    "max_epochs", "max_steps", "min_epochs", "min_steps", "precision", "gradient_clip_val", "gradient_clip_algorithm",
    "accumulate_grad_batches", "limit_train_batches", "limit_val_batches", "limit_test_batches",
    "limit_predict_batches", "val_check_interval", "check_val_every_n_epoch",
)  # fmt: skip
"""Trainer settings that a result depends on; accelerator, loggers and callbacks are left out."""
ADDED_LATER: dict[str, dict[str, Any]] = {
    "frugalseg.papers.cti.CTI": {"save_views": False},
    "frugalseg.papers.dsmf.DSMF": {"unit": "graph"},
    "frugalseg.data.Tags": {"scaled": False},
    "frugalseg.data.Views": {"scaled": False},
    "frugalseg.data.ResizedSegment": {"scaled": False},
}
"""Settings that tasks and recipes gained, and how it was before: stages that lack them stay up to date."""
FIT_ONLY = ("devices", "num_nodes")
"""They set the batch of a fit; scores and predictions are the same on any number."""


@dataclass
class Run:
    """What a run is called and where its files go.

    Args:
        experiment: name of the experiment, e.g. `sfc-voc`.
        stage: name of the stage, e.g. `classify`.
        name: distinguishes variants of one experiment (Make's RUN).
        fold: cross-validation fold, where the benchmark has them.
        root: folder of all runs.
        save_every: training steps between writes of `checkpoints/last.ckpt`.
        wandb: log to Weights & Biases: offline unless a key is present.
        batch: images per optimiser step that the learning rate is meant for; a fit whose steps take another number says
            so, and changes nothing. Null for no such number.
    """

    experiment: str = "scratch"
    stage: str = "stage"
    name: str = ""
    fold: int | None = None
    root: str = "runs"
    save_every: int = 100
    wandb: bool = True
    batch: int | None = None

    def folder(self, seed: int, suffix: str = "") -> Path:
        """The stage's folder for a seed."""
        top = Path(self.root) / (f"{self.experiment}-{self.name}" if self.name else self.experiment)
        if self.fold is not None:
            top /= f"fold{self.fold}"
        return top / f"seed{seed}" / (self.stage + suffix)


@contextmanager
def draft(path: Path) -> Iterator[Path]:
    """A hidden file beside `path` to write to: it takes the place of `path` at the end, or goes where that fails."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        yield temporary
        temporary.replace(path)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise DiskFullError(f"{path}: the disk is full; free some space and run the command again") from None
        raise
    finally:
        temporary.unlink(missing_ok=True)


def _is_leftover(path: Path) -> bool:
    """Whether a process that was killed may have left this file when it wrote, or held the folder."""
    return path.name == lock.NAME or (path.name.startswith(".") and path.suffix == ".tmp")


def write_text(path: Path, text: str) -> None:
    """Write a text file whole or not at all."""
    with draft(path) as temporary:
        temporary.write_text(text)


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Write a JSON file whole or not at all."""
    write_text(path, json.dumps(content, indent=2, sort_keys=True, default=str) + "\n")


def write_arrays(path: Path, arrays: Mapping[str, Any], compress: bool = True) -> None:
    """Write arrays to an .npz file, whole or not at all."""
    with draft(path) as temporary, temporary.open("wb") as file:
        (np.savez_compressed if compress else np.savez)(file, **arrays)


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object.

    Raises:
        RunFolderError: the file is missing, damaged, or not an object.
    """
    try:
        content = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise RunFolderError(f"{path}: not readable ({error}); run the stage that writes it again") from error
    if not isinstance(content, dict):
        raise RunFolderError(f"{path}: not a JSON object; run the stage that writes it again")
    return content


def config_identity(config: dict[str, Any], fit: bool = True) -> dict[str, Any]:
    """The part of a resolved configuration that the result depends on.

    Args:
        config: resolved settings.
        fit: whether they are those of a fit.
    """
    data = json.loads(json.dumps(config.get("data") or {}, default=str))
    settings = data.get("init_args") or {}
    data["init_args"] = {key: _as_before(value) for key, value in settings.items() if key not in VOLATILE}
    trainer = config.get("trainer") or {}
    return {
        "data": data,
        "model": _as_before(config.get("model")),
        "seed": config.get("seed_everything"),
        "trainer": {key: trainer.get(key) for key in TRAINER_IDENTITY if fit or key not in FIT_ONLY},
    }


def _as_before(made: Any) -> Any:
    """Settings of a task or recipe without those that say no more than that older stages did not have them."""
    added = ADDED_LATER.get(str(made.get("class_path")), {}) if isinstance(made, dict) else {}
    if not added or not isinstance(made.get("init_args"), dict):
        return made
    kept = {k: v for k, v in made["init_args"].items() if k not in added or v != added[k]}
    return {**made, "init_args": kept}


@dataclass
class RunFolder:
    """One stage's folder on disk.

    Args:
        path: the folder.
        experiment: owner; another experiment's folder is refused.
        stage: owner's stage.
        identity: configuration and input digests; equal identities mean equal results.
    """

    path: Path
    experiment: str
    stage: str
    identity: dict[str, Any] = field(default_factory=dict)
    _earlier: float | None = field(default=0.0, init=False, repr=False, compare=False)
    _began: float = field(default_factory=time.monotonic, init=False, repr=False, compare=False)
    _was_open: bool = field(default=False, init=False, repr=False, compare=False)

    @property
    def digest(self) -> str:
        """Digest of the owner, the resolved configuration and the inputs."""
        return digest_of([self.experiment, self.stage, self.identity])

    @property
    def last_checkpoint(self) -> Path:
        """Where an interrupted fit continues."""
        return self.path / "checkpoints" / "last.ckpt"

    def is_done(self) -> bool:
        """Whether this very stage, with this configuration and these inputs, has finished here and is still there."""
        done = self.path / "done.json"
        same = self._is_finished() and not self._lost()
        self._was_open = not same
        if same:
            # Make compares times: a YAML whose comment changed is satisfied by a stage that did not. A clock that was
            # set back must not make it older than it was, and a disk that cannot be written to is none of our business
            with suppress(OSError):
                os.utime(done, (latest := max(time.time(), done.stat().st_mtime), latest))
        return same

    def _is_finished(self) -> bool:
        done = self.path / "done.json"
        return done.is_file() and read_json(done).get("digest") == self.digest

    def _lost(self) -> dict[str, str]:
        """What is gone of all that a finished stage had made; older versions did not count it."""
        return missing_outputs(self.path, read_json(self.path / "done.json").get("files"))

    def claim(self, provenance: dict[str, Any]) -> None:
        """Make the folder ours: continue an unfinished run of the same identity, move a stale one aside.

        The folder stays locked until the stage has finished or the process has ended.

        Args:
            provenance: written to `provenance.json` together with the identity.

        Raises:
            RunFolderError: the folder belongs to another experiment or to something else altogether, or another process
                works there.
        """
        blocking = next((path for path in (self.path, *self.path.parents) if path.is_file()), None)
        if blocking is not None:
            raise RunFolderError(f"{blocking}: is a file where a run folder belongs; move it or choose another RUN=")
        self._owner()  # before anything is written there
        self.path.mkdir(parents=True, exist_ok=True)
        take(self.path)
        owner = self._owner()  # again: nobody else changes it any more
        resumed: list[str] = []
        peaks: dict[str, Any] = {}
        self._earlier, self._began = 0.0, time.monotonic()
        if owner.get("digest") == self.digest and self._goes_on():
            resumed = [*owner.get("resumed", []), datetime.now(UTC).isoformat(timespec="seconds")]
            self._earlier = seconds_worked(self.path, owner)
            peaks = {key: owner[key] for key in ("peak_gpu_memory_bytes",) if key in owner}
        elif owner.get("digest") not in (None, self.digest) and self._has_results():
            what = changes(owner.get("identity"), self.identity) if owner.get("identity") else ""
            self._move_aside(
                str(owner.get("digest"))[:8], "configuration or inputs changed" + (f" ({what})" if what else "")
            )
        clear_leftovers(self.path)
        ours = {"experiment": self.experiment, "stage": self.stage, "digest": self.digest, "identity": self.identity}
        effort = {"claimed": time.time(), "seconds_earlier": self._earlier, **peaks}
        write_json(self.path / "provenance.json", {**provenance, **ours, **effort, "resumed": resumed})

    def _owner(self) -> dict[str, Any]:
        """The record of whose folder it is; empty where it is nobody's.

        Raises:
            RunFolderError: it is another experiment's, or holds files of nobody knows what.
        """
        record = self.path / "provenance.json"
        if not self.path.exists() or all(_is_leftover(path) for path in self.path.iterdir()):
            return {}
        if not record.is_file():
            raise RunFolderError(f"{self.path}: holds files but no provenance.json; choose another RUN= or empty it")
        owner = read_json(record)
        if (owner.get("experiment"), owner.get("stage")) != (self.experiment, self.stage):
            raise RunFolderError(
                f"{self.path}: belongs to {owner.get('experiment')}/{owner.get('stage')}, not to "
                f"{self.experiment}/{self.stage}; choose another RUN= or another run.root"
            )
        return owner

    def _goes_on(self) -> bool:
        """Whether an older run of the same identity goes on; one that had finished but lacks files, where it can.

        Raises:
            RunFolderError: another process has finished it since we asked.
        """
        if not self._is_finished():
            return True
        lost = self._lost()
        if not lost and self._was_open:
            leave(self.path)
            raise RunFolderError(f"{self.path}: another process has just finished there; run the same command again")
        told = f"{', '.join(lost.values())}, though the stage had finished"
        if "checkpoints" in lost:
            self._move_aside(self.digest[:8], told)  # a fit cannot make one of its checkpoints alone
            return False
        if lost:
            print(f"{self.path}: {told}; what is missing is made again", file=sys.stderr)
            (self.path / "done.json").unlink()
        return True

    def _has_results(self) -> bool:
        """Whether there is more than the records that a stage writes before its first result."""
        records = {"provenance.json", "config.yaml", "hparams.yaml", "wandb-id.txt"}
        files = (path for path in self.path.rglob("*") if path.is_file() and not _is_leftover(path))
        return any(path.name not in records for path in files)

    def _move_aside(self, tag: str, why: str) -> None:
        """Keep results of another configuration under another name: nothing is deleted."""
        for attempt in range(1000):
            target = self.path.with_name(f"{self.path.name}.old-{tag}" + (f"-{attempt}" if attempt else ""))
            if not target.exists():
                self.path.rename(target)
                hand_over(self.path, target)
                print(f"{self.path}: {why}; the old run is now {target}", file=sys.stderr)
                return
        raise RunFolderError(f"{self.path}: too many old runs beside it; delete some")

    def finish(self, metrics: dict[str, float] | None = None) -> None:
        """Write `metrics.json` and then, as the last file of all, `done.json`."""
        if metrics is not None:
            write_json(self.path / "metrics.json", dict(metrics))
        done = {
            "digest": self.digest,
            "finished": datetime.now(UTC).isoformat(timespec="seconds"),
            "inputs": self.identity.get("inputs", {}),
            "peak_memory_bytes": peak_memory(),
            "files": count_outputs(self.path),
        }
        if self._earlier is not None:
            done["seconds"] = round(self._earlier + time.monotonic() - self._began, 3)
        write_json(self.path / "done.json", done)
        leave(self.path)


def peak_memory() -> int:
    """Largest resident memory of this process so far, in bytes; workers of loaders are not counted."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak
