"""What a checkpoint or package from elsewhere may ask for: nets of timm and of the suite, and no files but its own."""

from collections.abc import Mapping
from typing import Any

import timm

from frugalseg.errors import CheckpointError

OWN_NETS = ("frugalseg.papers.mevt.model:create", "frugalseg.papers.mevt.model:MEVT")
"""Nets of the suite that stages take by their dotted path; any other path would be imported, and so run."""
READING = ("pretrained", "checkpoint_path", "cache_dir")
"""Beginnings of those arguments by which timm reads other places than the file that was opened."""


def check_timm(name: object, options: Mapping[str, Any] | None = None) -> None:
    """Refuse a net that is none of timm's own, or that would read files.

    Args:
        name: of the net.
        options: further arguments.

    Raises:
        CheckpointError: says which.
    """
    if reading := [key for key in options or {} if key.startswith(READING)]:
        raise CheckpointError(f"asks for the argument {reading[0]}, by which timm reads other files; it is not opened")
    if not isinstance(name, str) or not timm.is_model(name):
        raise CheckpointError(f"asks for the net {name!r}, which is none of timm's own; it is not opened")


def check_backbone(name: object, options: Mapping[str, Any] | None = None) -> None:
    """The same for nets that may also be the suite's own.

    Args:
        name: of timm, or `package.module:name`.
        options: further arguments.

    Raises:
        CheckpointError: says which.
    """
    if name in OWN_NETS:
        return
    if isinstance(name, str) and ":" in name:
        known = ", ".join(OWN_NETS)
        raise CheckpointError(f"asks for the net {name!r}; only {known} and timm's are opened from a checkpoint")
    check_timm(name, options)
