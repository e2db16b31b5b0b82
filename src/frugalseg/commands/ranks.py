"""Several processes of one Trainer command: one run folder for all, and what is said when one of them has gone."""

import time
from collections.abc import Callable, Mapping
from typing import Any

from lightning.fabric.utilities.rank_zero import rank_zero_only

from frugalseg.data.meeting import Place, find_place
from frugalseg.data.team import Team
from frugalseg.errors import ConfigError
from frugalseg.run import RunFolder

LOST = (
    "connection closed by peer", "connection reset by peer", "connection was likely closed", "broken pipe",
    "read error", "write error", "application timeout caused pair closure", "timed out waiting",
    "remote process has exited", "communicator was aborted", "collective operation timeout",
)  # fmt: skip
"""What gloo, NCCL and their store say, in lower case, of a process that they wait for in vain."""
_WATCH = 10.0
"""Seconds in which the watch over the other ranks, which knows more, is let tell what has happened."""


def claim(folder: RunFolder, trainer: Mapping[str, Any], facts: Callable[[], dict[str, Any]]) -> bool:
    """Make a run folder that of all processes of this command; rank 0 claims it, the others wait for that.

    Processes that torchrun or srun has started meet before there is a process group, so that all of them find the same
    folder in the same state; those that Lightning starts come when it has been claimed.

    Args:
        folder: of this stage.
        trainer: settings.
        facts: for `provenance.json`.

    Returns:
        False where the stage has finished before.

    Raises:
        ConfigError: this rank has other settings or data than rank 0, or there are more or less processes than the
            Trainer is told.
        FrugalsegError: rank 0 could not claim it, or does not come.
    """
    place = find_place()
    _check_number(place, trainer)
    if place.world == 1 and getattr(rank_zero_only, "rank", None):
        return True

    def ours() -> bool:
        if folder.is_done():
            return False
        folder.claim(facts())
        return True

    with Team(place) as team:
        return bool(team.begin({"run": str(folder.path), **folder.identity}, ours, folder.path, folder.is_done))


def _check_number(place: Place, trainer: Mapping[str, Any]) -> None:
    told, nodes = str(trainer.get("devices")), int(trainer.get("num_nodes") or 1)
    devices = int(told) if told.isdecimal() else None
    if place.world == 1 and nodes > 1:
        raise ConfigError(
            f"trainer.num_nodes is {nodes}, but no launcher has started this process: use torchrun or srun on every"
            " node (make ... LAUNCH=torchrun or LAUNCH=slurm, see experiments/_base/slurm)"
        )
    if place.world > 1 and devices is not None and devices * nodes != place.world:
        raise ConfigError(
            f"trainer.devices x trainer.num_nodes is {devices} x {nodes}, but the launcher has started {place.world}"
            " processes: set them to the processes of a node and to the nodes"
        )


def lost_rank(error: BaseException) -> str | None:
    """What to say of an error that comes from another process's end; None for any other error, and where there is none.

    Where rank 0 watches processes that it has started, its watch says which of them ended how, and ends this one too.

    Args:
        error: that ended the command.
    """
    told = str(error).lower()
    if not isinstance(error, RuntimeError) or not any(words in told for words in LOST):
        return None
    import torch

    from frugalseg.callbacks.ranks import is_watched

    place = find_place()
    if place.world == 1 and not (is_watched() or torch.distributed.is_initialized()):
        return None  # words of a pipe or a socket of its own
    if is_watched():
        time.sleep(_WATCH)
    where = f"rank {place.rank} of {place.world}: " if place.world > 1 else ""
    return (
        f"{where}another rank has gone or does not answer ({' '.join(str(error).split())[:200]}); see what it said;"
        " the same command goes on from last.ckpt"
    )
