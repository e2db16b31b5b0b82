"""How long a finished stage took; how far a set of stages is, and how long the rest will take (`frugalseg follow`).

A stage counts as done when its file (`done.json`, or a world's `world.json`) is there, as running when its folder holds
`provenance.json` and not yet that file.
"""

import time
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from statistics import fmean
from typing import Any


def clock(seconds: float) -> str:
    """Minutes and seconds, e.g. `3:07`."""
    whole = max(0, round(seconds))
    return f"{whole // 60}:{whole % 60:02d}"


def worked_seconds(done: Mapping[str, Any], origin: Mapping[str, Any]) -> tuple[float | None, bool]:
    """Wall seconds of work on a finished stage, and whether they are exact.

    An older version noted only when a stage began and ended, which says nothing of one that was resumed.

    Args:
        done: content of `done.json`; empty where there is none.
        origin: content of `provenance.json`; empty where there is none.
    """
    seconds = done.get("seconds")
    if isinstance(seconds, int | float):
        return float(seconds), True
    if origin.get("resumed"):
        return None, False
    try:
        began, ended = (datetime.fromisoformat(each) for each in (origin["started"], done["finished"]))
        return (ended - began).total_seconds(), False
    except (KeyError, ValueError, TypeError):
        return None, False


def stage_name(file: Path) -> str:
    """Name of a stage by the file that says it is done: `mini-sfc/seed0/cam` of `runs/mini-sfc/seed0/cam/done.json`."""
    parts = file.parent.parts
    return "/".join(parts[parts.index("runs") + 1 :] if "runs" in parts[:-1] else parts[-3:])


class Stages:
    """Stages that a command makes.

    Args:
        files: of each stage, the file that says it is done.
        expected: name of a stage -> seconds that it took elsewhere; others are taken to last as long as their mean.
        jobs: stages that run side by side.
    """

    def __init__(self, files: Sequence[Path], expected: Mapping[str, float], jobs: int = 2) -> None:
        self.files = {stage_name(file): file for file in files}
        usual = fmean(expected.values()) if expected else 1.0
        self.expected = {name: max(expected.get(name, usual), 0.1) for name in self.files}
        self.jobs = max(1, jobs)
        self.began = time.monotonic()
        self._there = {name for name, file in self.files.items() if file.is_file()}
        self._started: dict[str, float] = {}
        self._ended: dict[str, float] = {}

    def look(self) -> None:
        """Look at the folders."""
        now = time.monotonic()
        for name, file in self.files.items():
            if file.is_file():
                if name not in self._there:
                    self._there.add(name)
                    self._ended[name] = now
                continue
            if name in self._there:  # out of date: its folder was moved aside and it is made again
                self._there.discard(name)
                self._ended.pop(name, None)
                self._started.pop(name, None)
            if name not in self._started and self._has_begun(file.parent):
                self._started[name] = now

    def _has_begun(self, folder: Path) -> bool:
        """Whether the stage was begun in this run: an earlier run may have left it unfinished."""
        record = folder / "provenance.json"
        try:
            age = time.time() - record.stat().st_mtime
        except OSError:
            return False
        return age <= time.monotonic() - self.began + 1

    @property
    def done(self) -> int:
        """Number of finished stages."""
        return len(self._there)

    @property
    def total_seconds(self) -> float:
        """Expected seconds of all stages, one after the other."""
        return sum(self.expected.values())

    @property
    def done_seconds(self) -> float:
        """The part of `total_seconds` that is behind us; of a running stage at most nine tenths."""
        now, pace = time.monotonic(), self._pace()
        part = sum(self.expected[name] for name in self._there)
        for name, _ in self.running():
            spent = (now - self._started[name]) / pace
            part += min(spent, 0.9 * self.expected[name])
        return part

    def running(self) -> list[tuple[str, float]]:
        """Stages that have begun and not ended, with their seconds so far."""
        now = time.monotonic()
        return [(name, now - begun) for name, begun in self._started.items() if name not in self._there]

    def measured(self) -> dict[str, float]:
        """Seconds of every stage that began and ended while we looked."""
        return {
            name: round(self._ended[name] - self._started[name], 1) for name in self._started if name in self._ended
        }

    def _pace(self) -> float:
        """Seconds here per expected second, from the stages that have ended; 1 before there are some."""
        found = self.measured()
        planned = sum(self.expected[name] for name in found)
        # a few seconds of evidence say little: the expectation counts as half a minute of it
        return (sum(found.values()) + 30.0) / (planned + 30.0)

    def seconds_left(self) -> float:
        """Until all are done, if `jobs` stages always run side by side."""
        return (self.total_seconds - self.done_seconds) * self._pace() / self.jobs

    def left_text(self) -> str:
        """The time left in words."""
        return "all done" if self.done == len(self.files) else f"about {clock(self.seconds_left())} left"

    def line(self) -> str:
        """Everything in one line, for logs."""
        names = ", ".join(f"{name} ({clock(seconds)})" for name, seconds in self.running())
        return f"stage {self.done} of {len(self.files)}, {self.left_text()}" + (f"; running: {names}" if names else "")

    def summary(self) -> str:
        """How many are done, and after which time."""
        return f"{self.done} of {len(self.files)} stages done, {clock(time.monotonic() - self.began)}"
