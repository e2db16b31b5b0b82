"""The bench on which one stage of a chain is run, disturbed, and put back."""

import json
import os
import random
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from tests.faults import inject
from tests.faults.chains import Chain, Stage
from tests.faults.compare import differences
from tests.faults.server import Child, start


class Failed(Exception):
    """A stage did not survive."""


@dataclass
class Facts:
    """What is known of the undisturbed run of a stage.

    Attributes:
        seconds: from its fork to its end.
        first: from its fork to its first file.
        written: files in the order in which they appeared.
        size: bytes on a disk of whole pages.
    """

    seconds: float
    first: float
    written: list[str]
    size: int


@dataclass
class Bench:
    """One chain in a folder: `work` to run in, `reference` to compare with.

    Args:
        chain: its stages.
        top: folder of the chain.
    """

    chain: Chain
    top: Path
    facts: dict[str, Facts] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.work, self.reference = self.top / "work", self.top / "reference"

    def folder(self, stage: Stage) -> Path:
        """Where a stage writes."""
        return self.work / stage.folder

    def start(
        self, stage: Stage, before: Callable[[], None] | None = None, extra: tuple[str, ...] = (), log: str = ""
    ) -> Child:
        """Begin a stage."""
        return start((*stage.words, *extra), self.work, self.top / f"logs/{stage.name}{log}.log", before)

    def finish(self, stage: Stage, before: Callable[[], None] | None = None) -> str:
        """Run a stage to its end; gives what it printed."""
        child = self.start(stage, before)
        if code := child.wait():
            raise Failed(f"exit code {code}: {last_lines(child.printed())}")
        return _without_traceback(child.printed())

    def refused(self, child: Child, *said: str) -> str:
        """Wait for a refusal in one line and code 2 that says these words."""
        code, text = child.wait(), child.printed()
        lines = [line for line in text.splitlines() if line.startswith("frugalseg: error:")]
        if code != 2 or len(lines) != 1:
            raise Failed(f"exit code {code} instead of a refusal in one line: {last_lines(text)}")
        if missing := [words for words in said if words not in lines[0]]:
            raise Failed(f"{lines[0]!r} does not say {missing}")
        _without_traceback(text)
        return lines[0]

    def check(self, stage: Stage, rerun: bool = False) -> dict[str, str]:
        """Compare a stage with the undisturbed one; gives what differs as it may."""
        wrong, excused = differences(self.reference / stage.folder, self.folder(stage), rerun)
        if wrong:
            raise Failed(
                f"{stage.folder}: " + "; ".join(wrong[:6]) + (f" and {len(wrong) - 6} more" if len(wrong) > 6 else "")
            )
        left = [p.name for p in self.folder(stage).rglob(".*.tmp")]
        if left:
            raise Failed(f"files of killed writes are left: {left[:3]}")
        return excused

    def clear(self, stage: Stage) -> None:
        """Take away what a stage has made, and older runs beside it."""
        folder = self.folder(stage)
        shutil.rmtree(folder, ignore_errors=True)
        for old in folder.parent.glob(f"{folder.name}.old-*"):
            shutil.rmtree(old)

    def restore(self, stage: Stage) -> None:
        """Put back what the undisturbed run of a stage has made, with its times."""
        self.clear(stage)
        shutil.copytree(self.reference / stage.folder, self.folder(stage))

    def prepare(self, say: Callable[[str], None]) -> dict[str, dict[str, str]]:
        """Run the chain twice undisturbed and compare; what is there already is taken.

        Returns:
            Of each stage the files that differ between the two, and why they may.
        """
        record = self.top / "prepared.json"
        if not record.is_file():
            shutil.rmtree(self.top, ignore_errors=True)
            self.work.mkdir(parents=True)
            self.chain.prepare(self.work)
            for turn in (1, 2):
                shutil.rmtree(self.work / "runs", ignore_errors=True)
                for stage in self.chain.stages:
                    self._measure(stage)
                say(f"{self.chain.name}: run {turn} of 2 undisturbed")
                if turn == 1:
                    shutil.copytree(self.work / "runs", self.top / "first/runs")
            shutil.copytree(self.work / "runs", self.reference / "runs")
            record.write_text(json.dumps({name: vars(facts) for name, facts in self.facts.items()}))
        else:
            self.facts = {name: Facts(**facts) for name, facts in json.loads(record.read_text()).items()}
            shutil.rmtree(self.work / "runs", ignore_errors=True)
            shutil.copytree(self.reference / "runs", self.work / "runs")
        return {}

    def repeated(self, stage: Stage) -> dict[str, str]:
        """Compare the two undisturbed runs of a stage; gives what differs as it may."""
        wrong, excused = differences(self.top / "first" / stage.folder, self.reference / stage.folder, rerun=True)
        if wrong:
            raise Failed("; ".join(wrong[:8]))
        return excused

    def _measure(self, stage: Stage) -> None:
        notes = self.top / f"logs/{stage.name}.notes"
        notes.parent.mkdir(exist_ok=True)
        notes.unlink(missing_ok=True)
        child = self.start(stage, inject.noting(notes))
        first = None
        while child.poll() is None:
            if first is None and self.folder(stage).exists():
                first = time.monotonic() - child.began
            time.sleep(0.005)
        seconds = time.monotonic() - child.began
        if child.wait():
            raise Failed(f"{self.chain.name} {stage.name} undisturbed: {last_lines(child.printed())}")
        written = [line.rsplit(f"{stage.folder}/", 1)[-1] for line in notes.read_text().splitlines()]
        size = sum(-(-p.stat().st_size // 4096) * 4096 for p in self.folder(stage).rglob("*") if p.is_file())
        self.facts[stage.name] = Facts(seconds, first or 0.0, written, size)


def phase(stage: Stage, folder: Path) -> str:
    """How far a stage was when it was killed."""
    if (folder / "done.json").exists():
        return "after the last file"
    if not folder.exists() or not any(folder.iterdir()):
        return "before its folder was claimed"
    if any(folder.rglob(".*.tmp")):
        return "while a file was written"
    if stage.kind == "fit":
        there = (folder / "checkpoints/last.ckpt").exists()
        return "between checkpoints" if there else "before the first checkpoint"
    results = [p for p in folder.rglob("*") if p.is_file() and p.parent != folder]
    return "between files" if results else "before the first file"


def last_lines(text: str) -> str:
    """The end of what was printed, in one line."""
    return " | ".join(text.strip().splitlines()[-3:])[-600:]


def _without_traceback(text: str) -> str:
    if "Traceback (most recent call last)" in text:
        raise Failed(f"a traceback: {last_lines(text)}")
    return text


def dice(*words: object) -> random.Random:
    """Random numbers that the same words give again."""
    return random.Random("/".join(map(str, words)))


def touch_all(folder: Path, seconds: float) -> None:
    """Move the times of all files by so many seconds."""
    for path in folder.rglob("*"):
        if path.is_file():
            moved = path.stat().st_mtime + seconds
            os.utime(path, (moved, moved))
