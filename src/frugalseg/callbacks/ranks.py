"""Several ranks: they see the same data, and none of them goes on, or waits, when another has ended."""

import os
import signal
import subprocess
import sys
import threading
import time
from typing import Any

from lightning.fabric.plugins.environments.lightning import LightningEnvironment
from lightning.pytorch import Callback, LightningModule, Trainer

from frugalseg.errors import DatasetError

POLL = 0.2
"""Seconds between two looks at the other ranks."""
_watches: list[threading.Thread] = []
_stop = threading.Event()
"""Of the watch over rank 0."""


class Ranks(Callback):
    """Compare the data of all ranks at set-up, and end the job when a rank ends before its time.

    Ranks that Lightning starts are watched by rank 0, which is watched by them; torchrun and srun do that themselves.
    Lightning's own watch kills rank 0 too, without a word on the command's error stream.
    """

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Begin to watch; then look at the data, which have listed their splits by now.

        Raises:
            DatasetError: not all ranks have the same samples.
        """
        if trainer.world_size == 1:
            return
        _stop.clear()
        children = getattr(trainer.strategy.launcher, "procs", [])
        if children:
            _silence_lightning()
            _start(_watch_children, list(children), trainer.world_size)
        elif trainer.local_rank and isinstance(
            getattr(trainer.strategy, "cluster_environment", None), LightningEnvironment
        ):
            _start(_watch_parent, os.getppid(), trainer.global_rank, trainer.world_size)
        _compare(trainer)


def let_go() -> None:
    """The command is over, its last file is written: rank 0 may go first from now on."""
    _stop.set()


def is_watched() -> bool:
    """Whether a watch is on, which will tell of a rank that has gone."""
    return any(watch.is_alive() for watch in _watches)


def _compare(trainer: Trainer) -> None:
    data = getattr(trainer, "datamodule", None)
    ours = [str(getattr(data, "digest", None)), dict(getattr(data, "split_sizes", None) or {})]
    told: list[Any] = [None] * trainer.world_size
    # one after the other, as Lightning has a broadcast of objects but no gathering of them
    for rank in range(trainer.world_size):
        told[rank] = trainer.strategy.broadcast(ours, src=rank)
    others = [rank for rank, theirs in enumerate(told) if theirs != told[0]]
    if others:
        raise DatasetError(
            f"{getattr(data, 'root', 'data')}: rank {others[0]} of {trainer.world_size} sees other data than rank 0"
            f" there ({told[others[0]][1]} samples, rank 0 {told[0][1]}; or other files); give all ranks the same data"
        )


def _start(work: Any, *given: Any) -> None:
    watch = threading.Thread(target=work, args=given, daemon=True, name="frugalseg-ranks")
    _watches[:] = [each for each in _watches if each.is_alive()] + [watch]
    watch.start()


def _silence_lightning() -> None:
    """Leave Lightning's own watch nothing to look at: it would kill us before we can say why."""
    for thread in threading.enumerate():
        if thread.name == "child-process-observer":
            thread._child_processes = []  # type: ignore[attr-defined]


def _watch_children(children: list["subprocess.Popen[bytes]"], world: int) -> None:
    while any(child.poll() is None for child in children):
        for number, child in enumerate(children, 1):
            if child.poll():
                _end(f"rank {number} of {world} {_how(child.returncode)}", children)
        time.sleep(POLL)
    for number, child in enumerate(children, 1):
        if child.returncode:
            _end(f"rank {number} of {world} {_how(child.returncode)}", children)


def _watch_parent(parent: int, rank: int, world: int) -> None:
    while not _stop.wait(POLL):
        if os.getppid() != parent:
            _end(f"rank 0 of {world} has gone, so rank {rank} stops", [])


def _how(code: int) -> str:
    if code > 0:
        return f"ended with exit code {code}, see its own error above"
    try:
        name = signal.Signals(-code).name
    except ValueError:
        name = str(-code)
    return f"was killed by {name}"


def _end(what: str, children: list["subprocess.Popen[bytes]"]) -> None:
    """Say what has happened and leave at once: the main thread may be waiting for that rank, for ever."""
    for child in children:
        if child.poll() is None:
            child.kill()
    sys.stderr.write(f"frugalseg: error: {what}; the job stops, the same command goes on from last.ckpt\n")
    sys.stderr.flush()
    os._exit(1)
