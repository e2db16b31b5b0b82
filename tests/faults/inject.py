"""Faults that are laid in a child before its command begins, and mounts that starve it of room or rights."""

import errno
import os
import pathlib
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime, tzinfo
from pathlib import Path

DAY = 86400.0


def at_renamings(action: Callable[[int, Path, bool], None]) -> Callable[[], None]:
    """Call `action(number, target, done)` before and after each renaming of a file, by which all results appear."""

    def lay() -> None:
        rename, count = pathlib.Path.replace, [0]

        def watched(source: Path, target: object) -> Path:
            number, count[0] = count[0], count[0] + 1
            action(number, Path(str(target)), False)
            renamed = rename(source, target)
            action(number, Path(str(target)), True)
            return renamed

        pathlib.Path.replace = watched

    return lay


def noting(notes: Path) -> Callable[[], None]:
    """Write the name of every file that appears, one a line."""

    def note(number: int, target: Path, done: bool) -> None:
        if done:
            with notes.open("a") as file:
                file.write(f"{target}\n")

    return at_renamings(note)


def killed_at(turn: int, after: bool) -> Callable[[], None]:
    """SIGKILL of the whole group right before or after a renaming."""

    def kill(number: int, target: Path, done: bool) -> None:
        if number == turn and done == after:
            os.killpg(0, signal.SIGKILL)

    return at_renamings(kill)


def held_at(turn: int, waits: Path, until: Path) -> Callable[[], None]:
    """Say that it waits after a renaming, and wait for a file."""

    def hold(number: int, target: Path, done: bool) -> None:
        if number == turn and done:
            waits.touch()
            while not until.exists():
                time.sleep(0.01)

    return at_renamings(hold)


def full_at(turn: int) -> Callable[[], None]:
    """Where nothing can be mounted: the disk is full from a renaming on."""

    def fill(number: int, target: Path, done: bool) -> None:
        if number >= turn and not done:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(target))

    return at_renamings(fill)


def clock_off(seconds: float) -> Callable[[], None]:
    """Another time of day; the clock that only goes forward goes on."""

    def lay() -> None:
        import frugalseg.callbacks.provenance as provenance
        import frugalseg.run as run

        now, now_ns = time.time, time.time_ns

        class Shifted(datetime):
            @classmethod
            def now(cls, tz: tzinfo | None = None) -> datetime:
                return datetime.fromtimestamp(time.time(), tz)

        time.time, time.time_ns = lambda: now() + seconds, lambda: now_ns() + int(seconds * 1e9)
        run.datetime = provenance.datetime = Shifted

    return lay


def _run(*words: str | Path) -> bool:
    return subprocess.run([str(w) for w in words], capture_output=True, check=False).returncode == 0


def can_mount(folder: Path) -> bool:
    """Whether small file systems can be mounted here."""
    place = folder / "mount-check"
    place.mkdir(parents=True, exist_ok=True)
    made = _run("mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", place)
    if made:
        _run("umount", place)
    place.rmdir()
    return made


@contextmanager
def small_disk(folder: Path, size: int) -> Iterator[Callable[[], None]]:
    """A file system of so many bytes in the place of a folder; what is given makes it large."""
    folder.mkdir(parents=True, exist_ok=True)
    if not _run("mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", folder):
        raise RuntimeError(f"{folder}: cannot be mounted")
    try:
        yield lambda: _run("mount", "-o", "remount,size=1g", folder) or None
    finally:
        _run("umount", folder)


@contextmanager
def read_only(folder: Path) -> Iterator[None]:
    """Nothing in the folder can be written, not even by root."""
    folder.mkdir(parents=True, exist_ok=True)
    mounted = _run("mount", "--bind", folder, folder) and _run("mount", "-o", "remount,bind,ro", folder)
    mode = folder.stat().st_mode
    if not mounted:
        if os.getuid() == 0:
            raise RuntimeError(f"{folder}: cannot be made read-only for root")
        folder.chmod(0o555)
    try:
        yield
    finally:
        if mounted:
            _run("umount", folder)
        else:
            folder.chmod(mode)


def unmount_all(top: Path) -> None:
    """Undo what a run that was killed left mounted below a folder."""
    places = [line.split()[1] for line in Path("/proc/mounts").read_text().splitlines()]
    for place in sorted(places, reverse=True):
        if Path(place).is_relative_to(top.resolve()):
            _run("umount", place)
