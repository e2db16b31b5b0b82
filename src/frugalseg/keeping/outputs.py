"""What a finished stage has left in its folder, and how long an unfinished one worked."""

import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from frugalseg.keeping.lock import NAME

UNNEEDED = frozenset({"wandb", "pictures", "figures"})
"""Folders that nothing is computed from: who deletes them need not do a stage again."""
_UNNEEDED_FILES = frozenset({"done.json", "wandb-id.txt", "hparams.yaml"})


def count_outputs(folder: Path) -> dict[str, int]:
    """Number of files of a run folder and of each folder in it, "." for its own.

    A listing, no more: it takes milliseconds for thousands of files.

    Args:
        folder: of a stage; hidden files, logs and pictures are not counted.
    """
    found: dict[str, int] = {}
    # a folder that was moved to another disk is there by its link
    for place, folders, files in os.walk(folder, followlinks=True):
        folders[:] = [name for name in folders if name not in UNNEEDED and not name.startswith(".")]
        own = [name for name in files if not name.startswith(".") and name not in _UNNEEDED_FILES]
        if own:
            found[Path(place).relative_to(folder).as_posix()] = len(own)
    return found


def missing_outputs(folder: Path, recorded: Any) -> dict[str, str]:
    """What is gone of a finished stage: folder -> a description such as "2 of 24 files of maps are gone".

    Args:
        folder: of the stage.
        recorded: what `count_outputs` gave when it finished; anything else says nothing, as older versions did.
    """
    if not isinstance(recorded, Mapping):
        return {}
    there = count_outputs(folder)
    lost = {
        str(name): (number - there.get(str(name), 0), number)
        for name, number in recorded.items()
        if isinstance(number, int) and there.get(str(name), 0) < number
    }
    return {
        name: f"{gone} of {number} files{'' if name == '.' else f' of {name}'} are gone"
        for name, (gone, number) in lost.items()
    }


def clear_leftovers(folder: Path) -> None:
    """Remove what a process that was killed had begun to write; only for who holds the lock.

    Args:
        folder: of a stage.
    """
    for path in folder.rglob(".*.tmp"):
        if "wandb" not in path.relative_to(folder).parts:  # its own service writes there
            path.unlink(missing_ok=True)


def seconds_worked(folder: Path, record: Mapping[str, Any]) -> float | None:
    """Wall seconds up to the last sign of life of an unfinished run: a process that was killed tells nothing.

    Args:
        folder: of the run.
        record: its `provenance.json`; where an older version wrote it, there is no telling, hence None.
    """
    claimed, earlier = record.get("claimed"), record.get("seconds_earlier")
    if not isinstance(claimed, int | float) or not isinstance(earlier, int | float):
        return None
    # the lock is that of who asks
    signs = (path.stat().st_mtime for path in folder.rglob("*") if path.is_file() and path.name != NAME)
    # no sign can come from the future, whatever a clock said that has been set back since
    last = min(max(signs, default=claimed), time.time())
    return max(0.0, earlier) + max(0.0, last - claimed)
