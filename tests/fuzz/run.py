"""Attempts in a process of their own, so that a crash, a hang or a lack of memory is one failure and not the end."""

import json
import os
import resource
import select
import shutil
import signal
import sys
import tempfile
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random
from typing import Any, NamedTuple

from tests.fuzz.kind import Kind, leftovers, outcome

LIMIT, MEMORY = 30.0, 3 << 30
"""Seconds of one input on a busy machine, and bytes that a process may take beside what it has when it starts."""


class Row(NamedTuple):
    """What became of the inputs of a kind.

    Attributes:
        kind: its name.
        what: its readers.
        inputs: how many were tried.
        accepted: read, and what came out was right.
        refused: one line of an error that a user can cause.
        failures: (number, what happened).
        seconds: of a core, preparation included.
    """

    kind: str
    what: str
    inputs: int
    accepted: int
    refused: int
    failures: list[tuple[int, str]]
    seconds: float


def attempt(kind: Kind, prepared: Any, place: Path, seed: str) -> tuple[str, str]:
    """Make and read one input in an empty folder."""
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir(parents=True)
    error: BaseException | None = None
    try:
        kind.attempt(prepared, place, Random(seed))
    except (Exception, SystemExit) as caught:  # anything that a reader may raise
        error = caught
    result, told = outcome(error)
    if result == "failure" and error is not None:
        frames = traceback.extract_tb(error.__traceback__)
        told += " at " + " < ".join(f"{Path(f.filename).name}:{f.lineno}" for f in reversed(frames[-6:]))
    if begun := leftovers(place):
        return "failure", f"half-written: {begun[:3]}"
    return result, told


def run_kind(
    kind: Kind, count: int, seed: int = 0, told: Callable[[int, int], None] | None = None, only: int | None = None
) -> Row:
    """Try inputs of a kind.

    Args:
        kind: what.
        count: how many.
        seed: others give other inputs.
        told: called with (inputs done, inputs in all).
        only: number of the one input that is to be tried.
    """
    began, tally, failures = core_seconds(), {"accepted": 0, "refused": 0}, list[tuple[int, str]]()
    numbers = range(count) if only is None else range(only, only + 1)
    done = numbers.start
    with tempfile.TemporaryDirectory() as folder:
        while done < numbers.stop:
            for number, result, what in _child(kind, range(done, numbers.stop), seed, Path(folder)):
                done = number + 1
                if result == "failure":
                    failures.append((number, what))
                else:
                    tally[result] += 1
                if told:
                    told(done, numbers.stop)
    inputs = len(numbers)
    return Row(kind.name, kind.what, inputs, tally["accepted"], tally["refused"], failures, core_seconds() - began)


def core_seconds() -> float:
    """Of all processes that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _child(kind: Kind, numbers: range, seed: int, folder: Path) -> Iterator[tuple[int, str, str]]:
    """Results of a forked process, until it ends; the input at which it dies or hangs is a failure."""
    reading, writing = os.pipe()
    process = os.fork()
    if process == 0:
        os.close(reading)
        _work(kind, numbers, seed, folder, writing)
    os.close(writing)
    following, patience = numbers.start, 300.0  # preparation may take long
    with os.fdopen(reading, "rb", buffering=0) as pipe:
        pending = b""
        while following < numbers.stop:
            ready, _, _ = select.select([pipe], [], [], patience)
            data = pipe.read(1 << 16) if ready else b""
            if not data:
                os.kill(process, signal.SIGKILL)
                _, status = os.waitpid(process, 0)
                reason = f"took more than {patience:.0f} s" if not ready else f"the process died ({status})"
                yield following, "failure", reason
                return
            *lines, pending = (pending + data).split(b"\n")
            for line in lines:
                number, result, what = json.loads(line)
                if number >= 0:
                    following = number + 1
                    yield number, result, what
                patience = LIMIT
    os.waitpid(process, 0)


def _work(kind: Kind, numbers: range, seed: int, folder: Path, writing: int) -> None:
    """The forked process: says what became of each input, and ends without tidying up what it shares with its parent."""
    code = 1
    try:
        with os.fdopen(writing, "w", buffering=1) as pipe:
            quiet = os.open(os.devnull, os.O_WRONLY)
            os.dup2(quiet, 1)
            os.dup2(quiet, 2)
            good = folder / "good"
            shutil.rmtree(good, ignore_errors=True)
            good.mkdir()
            prepared = kind.prepare(good)
            size = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
            resource.setrlimit(resource.RLIMIT_AS, (size + MEMORY, resource.RLIM_INFINITY))
            print(json.dumps([-1, "", ""]), file=pipe, flush=True)
            for number in numbers:
                result, told = attempt(kind, prepared, folder / "place", f"{seed}/{kind.name}/{number}")
                print(json.dumps([number, result, told]), file=pipe, flush=True)
        code = 0
    except BaseException:
        traceback.print_exc(file=sys.stderr)
    finally:
        os._exit(code)
