"""Where the processes of one command meet, as torchrun or SLURM start them: a key-value store, no process group."""

import itertools
import os
import re
import socket
import time
from collections.abc import Mapping
from datetime import timedelta
from typing import TYPE_CHECKING, NamedTuple

from frugalseg.errors import ConfigError, FrugalsegError

if TYPE_CHECKING:
    from torch._C._distributed_c10d import Store

PATIENCE = 60.0
"""Seconds after which a process that shows no sign of life has gone; the variable FRUGALSEG_PATIENCE says otherwise."""
COMING = 5
"""Times as long is waited for rank 0, which may still be importing its libraries."""

_stores: dict[tuple[str, int], "Store"] = {}
_commands = itertools.count()


class Place(NamedTuple):
    """Which of the processes this is.

    Attributes:
        rank: its number, from 0.
        world: how many there are.
        local: how many of them share this machine.
        local_rank: its number among those.
    """

    rank: int = 0
    world: int = 1
    local: int = 1
    local_rank: int = 0


def patience() -> float:
    """Seconds; see `PATIENCE`."""
    return float(os.environ.get("FRUGALSEG_PATIENCE") or PATIENCE)


def find_place(environ: Mapping[str, str] | None = None) -> Place:
    """What the launcher says: RANK and WORLD_SIZE of torchrun, else SLURM_PROCID and SLURM_STEP_NUM_TASKS of srun.

    The script of a batch job, in which srun starts steps, has a SLURM_NTASKS too, but is a single process.

    Args:
        environ: variables; None for this process's.

    Returns:
        The one place of a world of one where no launcher has started this process.

    Raises:
        ConfigError: the variables are no such numbers.
    """
    found = os.environ if environ is None else environ
    if "RANK" in found and "WORLD_SIZE" in found:
        names = ("RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "LOCAL_RANK")
    elif "SLURM_PROCID" in found and "SLURM_STEP_NUM_TASKS" in found:
        names = ("SLURM_PROCID", "SLURM_STEP_NUM_TASKS", "SLURM_STEP_TASKS_PER_NODE", "SLURM_LOCALID")
    else:
        return Place()
    try:
        # SLURM writes 8(x2),4 for two machines of eight tasks and one of four
        local = max(int(number) for number in re.findall(r"(\d+)(?:\(x\d+\))?(?:,|$)", found.get(names[2]) or "1"))
        local_rank = int(found.get(names[3]) or 0)
        place = Place(int(found[names[0]]), int(found[names[1]]), local, local_rank)
    except ValueError:
        place = Place(-1)
    if not 0 <= place.rank < place.world or place.local < 1:
        told = ", ".join(f"{name}={found[name]}" for name in names if name in found)
        raise ConfigError(f"{told}: no rank of a world; start this with torchrun or srun, or unset these variables")
    return place


def cores(place: Place) -> int:
    """Cores for one process, of which `local` share the machine; SLURM may leave a process fewer."""
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    if "RANK" in os.environ:  # torchrun leaves the same cores to all ranks of a machine
        return max(1, allowed // place.local)
    return max(1, min(allowed, (os.cpu_count() or 1) // place.local))


def address() -> tuple[str, int]:
    """Host and port of rank 0: MASTER_ADDR and MASTER_PORT, which Lightning works out from SLURM's list of nodes.

    Raises:
        ConfigError: they are not known.
    """
    if "RANK" not in os.environ:
        from lightning.fabric.plugins.environments.slurm import SLURMEnvironment

        slurm = SLURMEnvironment(auto_requeue=False)
        return slurm.main_address, slurm.main_port
    host, port = os.environ.get("MASTER_ADDR", ""), os.environ.get("MASTER_PORT", "")
    if not host or not port.isdecimal():
        raise ConfigError(
            "RANK and WORLD_SIZE are set, but MASTER_ADDR and MASTER_PORT are not host and port of rank 0; start this"
            " with torchrun, or unset RANK and WORLD_SIZE"
        )
    return host, int(port)


def connect(place: Place) -> "Store":
    """The store of this command. Rank 0 keeps it, unless torchrun does; commands that `+` joins share a connection.

    Args:
        place: of this process; there are others.

    Raises:
        FrugalsegError: rank 0 does not answer, or its port is taken.
    """
    from torch._C._distributed_c10d import PrefixStore, TCPStore  # listing a data set need not wait for torch

    host, port = address()
    keeps = place.rank == 0 and os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != "True"
    limit = COMING * patience()
    if (host, port) not in _stores:
        try:
            if not keeps:
                _knock(host, port, limit)
            _stores[host, port] = TCPStore(
                host, port, is_master=keeps, timeout=timedelta(seconds=limit), wait_for_workers=False, multi_tenant=True
            )  # the port may also be that of a process group, of a fit before or after
        except (RuntimeError, OSError) as error:
            what = "cannot be listened on" if keeps else f"nobody has answered for {limit:.0f} seconds"
            raise FrugalsegError(
                f"rank {place.rank} of {place.world}: {host}:{port}, rank 0's: {what}"
                f" ({' '.join(str(error).split())[:100]}); see what rank 0 says, or set MASTER_ADDR and MASTER_PORT"
            ) from None
    # torchrun's own store outlives a restart of the ranks. A store of rank 0 does not: experiments/_base/slurm asks for
    # one, as the torchruns of several machines count restarts each for itself
    shared = os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True"
    attempt = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0") if shared else "0"
    return PrefixStore(f"frugalseg/{attempt}/{next(_commands)}", _stores[host, port])


def _knock(host: str, port: int, limit: float) -> None:
    """Wait until somebody listens: torch's own waiting writes a stack of calls for every attempt.

    Raises:
        OSError: nobody does.
    """
    deadline = time.monotonic() + limit
    while True:
        try:
            socket.create_connection((host, port), timeout=max(0.1, deadline - time.monotonic())).close()
            return
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.1)
