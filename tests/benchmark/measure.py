"""Measuring: rows, interleaved timing, peak memory of a fresh process."""

import gc
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from statistics import median
from typing import Any, Literal

REPOSITORY = Path(__file__).parents[2]

Better = Literal["lower", "higher"]
Times = dict[str, list[tuple[float, float]]]
"""Side -> (wall seconds, CPU seconds) per round."""


class Skip(Exception):
    """Rows cannot be measured here, for the reason given: raised, of a whole group; in a row's place, of that row."""


@dataclass(frozen=True)
class Row:
    """What is measured, before it is."""

    id: str
    what: str
    unit: str = "ratio"
    better: Better = "lower"
    bound: float | None = None

    def holds(self, value: float) -> bool | None:
        if self.bound is None:
            return None
        return value <= self.bound if self.better == "lower" else value >= self.bound


@dataclass(frozen=True)
class Measured:
    """A value, a remark for `what`, and further keys of the row."""

    value: float
    note: str = ""
    extra: dict[str, Any] = field(default_factory=dict)


Rows = dict[str, Measured | Skip]
"""Id -> what was measured, or why this row alone was not."""


class Group:
    """Rows that come out of one run of `work`, a function named as `module:function`.

    Args:
        work: the function.
        rows: what it measures.
        of: first argument of the function, where it measures several things in one way.
        slow: minutes, so that it is run only where its rows are asked for by name.
    """

    def __init__(self, work: str, *rows: Row, of: str | None = None, slow: bool = False) -> None:
        self.work, self.rows, self.of, self.slow = work, rows, of, slow

    def run(self, quick: bool) -> Rows:
        """A value per id of `rows`."""
        return {key: row for rows in self.stream(quick) for key, row in rows.items()}

    def stream(self, quick: bool) -> Iterator[Rows]:
        """The same as it comes: some functions give their rows one after the other."""
        module, _, function = self.work.partition(":")
        measure = getattr(import_module(module), function)
        values = measure(quick) if self.of is None else measure(self.of, quick)
        yield from [values] if isinstance(values, dict) else values


def interleave(
    sides: Mapping[str, Callable[[], object]], rounds: int, repeats: Mapping[str, int] | None = None
) -> Times:
    """Time the sides in turn, A B C A B C ..., after one untimed round.

    Args:
        sides: name -> work.
        rounds: timed rounds.
        repeats: how often a side runs per round where once is too short; times are per run.
    """
    for work in sides.values():
        work()
    times: Times = {name: [] for name in sides}
    for _ in range(rounds):
        for name, work in sides.items():
            count = (repeats or {}).get(name, 1)
            gc.collect()
            wall, cpu = time.perf_counter(), time.process_time()
            for _ in range(count):
                work()
            times[name].append(((time.perf_counter() - wall) / count, (time.process_time() - cpu) / count))
    return times


def ratio(times: Times, over: str, under: str) -> Measured:
    """Median over rounds of wall time `over` / `under`.

    Three keys tell whether something else was running: `cpu_value`, the same of CPU time; `best_value`, each side's
    least CPU time over the other's; `spread`, the smallest and the largest ratio. On a quiet machine they agree.
    """
    pairs = list(zip(times[over], times[under], strict=True))
    walls = [a[0] / b[0] for a, b in pairs]
    extra = {
        "cpu_value": round(median(a[1] / b[1] for a, b in pairs), 4),
        "best_value": round(min(t[1] for t in times[over]) / min(t[1] for t in times[under]), 4),
        "spread": [round(min(walls), 4), round(max(walls), 4)],
        "seconds": {name: round(median(t[0] for t in times[name]), 4) for name in (over, under)},
        "rounds": len(pairs),
    }
    return Measured(median(walls), extra=extra)


def device_ratio(times: Times, over: str, under: str) -> Measured:
    """The same where a GPU works on one side or both, whose time is nobody's CPU time: without keys that tell of it."""
    plain = ratio(times, over, under)
    return Measured(plain.value, extra={k: v for k, v in plain.extra.items() if k not in ("cpu_value", "best_value")})


def peak_memory(work: Callable[[], object]) -> int:
    """Bytes by which `work` raises this process's resident memory at most; Linux only.

    The kernel's high-water mark VmHWM is set back to the present size first. ru_maxrss would not do: a child inherits
    the mark of the process that started it.
    """
    gc.collect()
    Path("/proc/self/clear_refs").write_text("5")
    before = _status("VmRSS")
    work()
    return _status("VmHWM") - before


def _status(key: str) -> int:
    match = re.search(rf"^{key}:\s+(\d+) kB", Path("/proc/self/status").read_text(), re.MULTILINE)
    if match is None:
        raise RuntimeError(f"/proc/self/status has no {key}")
    return 1024 * int(match[1])


def in_fresh_process(module: str, *arguments: str) -> int:
    """The integer that `python -m module arguments` prints last; see `last_line_of`."""
    return int(last_line_of(module, *arguments).split()[-1])


def last_line_of(module: str, *arguments: str, plain_allocation: bool = False) -> str:
    """The line that `python -m module arguments` prints last, run with one thread from the repository's root.

    Args:
        module: to run.
        arguments: its words.
        plain_allocation: without the settings of glibc's allocator that `make` gives.
    """
    kept = {name: value for name, value in os.environ.items() if not (plain_allocation and name.startswith("MALLOC_"))}
    done = subprocess.run(
        [sys.executable, "-m", module, *arguments],
        cwd=REPOSITORY, env={**kept, "OMP_NUM_THREADS": "1"}, capture_output=True, text=True,
    )  # fmt: skip
    if done.returncode:
        raise RuntimeError(f"{module} {' '.join(arguments)}: {done.stderr.strip().splitlines()[-1]}")
    return done.stdout.splitlines()[-1]
