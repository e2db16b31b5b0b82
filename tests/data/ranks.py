"""Several ranks of one command, started as a launcher would start them but by forking: nothing is imported again."""

import contextlib
import io
import multiprocessing
import os
import socket
import sys
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch

from frugalseg.errors import FrugalsegError


class Ended(NamedTuple):
    """How a rank ended.

    Attributes:
        code: its exit code; minus the signal that killed it.
        said: what it wrote to the error stream.
    """

    code: int
    said: str


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def run_ranks(
    world: int,
    work: Callable[..., int],
    *arguments: Any,
    folder: Path,
    patience: float = 20,
    environ: Mapping[str, str] | None = None,
    each: Callable[[int], tuple[Any, ...]] | None = None,
    limit: float = 60,
) -> list[Ended]:
    """Run `work(*arguments)`, which gives an exit code, in `world` processes.

    Args:
        world: number of ranks.
        work: of each.
        arguments: the same for all.
        folder: for their error streams.
        patience: seconds of silence after which a rank counts as gone.
        environ: further variables.
        each: gives more arguments of a rank.
        limit: seconds after which they are killed, and the test fails.
    """
    common = {
        "WORLD_SIZE": str(world), "LOCAL_WORLD_SIZE": str(world), "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(free_port()), "FRUGALSEG_PATIENCE": str(patience), **(environ or {}),
    }  # fmt: skip
    context = multiprocessing.get_context("fork")
    folder.mkdir(parents=True, exist_ok=True)
    ranks = []
    for rank in range(world):
        more = each(rank) if each else ()
        place = {**common, "RANK": str(rank), "LOCAL_RANK": str(rank)}
        ranks.append(
            context.Process(target=_be_rank, args=(place, folder / f"rank{rank}.txt", work, *arguments, *more))
        )
    for process in ranks:
        process.start()
    for process in ranks:
        process.join(limit)
    late = [process for process in ranks if process.exitcode is None]
    for process in late:
        process.kill()
        process.join()
    ended = [Ended(p.exitcode or 0, (folder / f"rank{n}.txt").read_text()) for n, p in enumerate(ranks)]
    assert not late, f"{len(late)} of {world} ranks do not end: {ended}"
    return ended


def _be_rank(environ: Mapping[str, str], stream: Path, work: Callable[..., int], *arguments: Any) -> None:
    os.environ.update(environ)
    torch.set_num_threads(1)
    code = 1
    # line by line, so that a rank that is killed has said what it said
    with stream.open("w", buffering=1) as said, contextlib.redirect_stdout(io.StringIO()):
        sys.stderr = said
        try:
            code = work(*arguments)
        except FrugalsegError as error:
            print(error, file=said)
            code = 2
        except BaseException:
            traceback.print_exc(file=said)
    os._exit(code)
