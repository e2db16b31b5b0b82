"""`frugalseg sync`: send what offline runs recorded to W&B.

Stages that have finished are sent in the order in which they ran, makers before those who read what they made. What has
been sent is marked and never sent twice, so the command can be stopped anywhere and goes on from there.
"""

import argparse
import os
import socket
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import urlparse
from urllib.request import getproxies

from frugalseg.callbacks.wandb_runs import has_key
from frugalseg.commands.progress import counter
from frugalseg.errors import ConfigError, FrugalsegError, RunFolderError

_KEEP = 200
"""Letters of W&B's reason in an error."""
_SERVER = "https://api.wandb.ai"
_PATIENCE = 10
"""Seconds that the server may take to be there."""


def run(argv: list[str]) -> int:
    """Send offline runs; writes W&B's marks beside them."""
    parser = argparse.ArgumentParser("frugalseg sync", description=__doc__, allow_abbrev=False)
    parser.add_argument("runs", nargs="*", type=Path, default=[Path("runs")], help="folders to look in; default: runs")
    parser.add_argument("--entity", help="W&B user or team; default: that of the key")
    parser.add_argument("--project", help="W&B project; default: that of each run")
    parser.add_argument("--unfinished", action="store_true", help="also stages that have not finished, or never will")
    parser.add_argument("--dry-run", action="store_true", help="only list what would be sent")
    options = parser.parse_args(argv)
    files = offline_files(options.runs, options.unfinished)
    if options.dry_run:
        print(*files, sep="\n", end="\n" if files else "")
    if options.dry_run or not files:
        none = "" if files else " (sent before, unfinished, or made with --run.wandb false, as all miniatures are)"
        print(f"offline runs to send: {len(files)}{none}", file=sys.stderr)
        return 0
    if not has_key():
        raise ConfigError(
            f"offline runs to send: {len(files)}, but there is no W&B key; set WANDB_API_KEY, or run `wandb login`"
        )
    check_server()
    words = [f"--{name}={value}" for name in ("entity", "project") if (value := getattr(options, name))]
    show = counter("sync")
    for number, file in enumerate(files):
        show(number, len(files))
        send(file, words)
    show(len(files), len(files))
    return 0


def offline_files(folders: Sequence[Path], unfinished: bool = False) -> list[Path]:
    """Files of offline runs that have not been sent, oldest first.

    Args:
        folders: searched with all that is below them.
        unfinished: also those of stages without `done.json`: what they record later would stay behind.

    Raises:
        RunFolderError: a folder does not exist.
    """
    found: set[Path] = set()
    for folder in folders:
        if not folder.is_dir():
            raise RunFolderError(f"{folder}: no such folder; name a folder of runs")
        found |= {path for path in folder.rglob("offline-run-*/*.wandb") if not _is_sent(path)}
    chosen = [path for path in found if unfinished or (path.parents[2] / "done.json").is_file()]
    return sorted(chosen, key=lambda path: (path.parent.name, str(path)))


def send(file: Path, words: Sequence[str] = ()) -> None:
    """Send one offline run through W&B's own command.

    Args:
        file: the run's `.wandb`.
        words: more of the command line.

    Raises:
        FrugalsegError: it did not arrive.
    """
    command = [sys.executable, "-m", "wandb", "sync", *words, str(file)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603
    # W&B ends with code 0 after an error, too
    if done.returncode or not _is_sent(file):
        lines = [line.removeprefix("wandb:").strip() for line in (done.stdout + done.stderr).splitlines()]
        told = [line for line in lines if line.startswith(("ERROR", "Error", "panic"))] or lines[-1:]
        reason = " ".join(told)[:_KEEP]
        raise FrugalsegError(f"{file}: not sent ({reason}); mend this, and run the command again to go on from here")


def check_server() -> None:
    """Refuse to begin where the server cannot be reached: W&B itself would try for days.

    Raises:
        FrugalsegError: nothing answers; behind a proxy there is no telling.
    """
    url = urlparse(os.environ.get("WANDB_BASE_URL") or _SERVER)
    if url.scheme in getproxies():
        return
    place = (url.hostname or "", url.port or (80 if url.scheme == "http" else 443))
    try:
        socket.create_connection(place, timeout=_PATIENCE).close()
    except OSError as error:
        raise FrugalsegError(
            f"{url.geturl()}: cannot be reached ({error}); go online, or set WANDB_BASE_URL"
        ) from error


def _is_sent(file: Path) -> bool:
    """Whether W&B has put its mark beside a file."""
    return file.with_suffix(".wandb.synced").exists()
