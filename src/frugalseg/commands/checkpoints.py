"""Checkpoints that a command is given or finds: whether they can be used, and where an interrupted fit goes on."""

import logging
from pathlib import Path
from typing import Any, NamedTuple

import torch

from frugalseg.callbacks.checkpoints import PREVIOUS
from frugalseg.errors import CheckpointError

log = logging.getLogger(__name__)


class Start(NamedTuple):
    """Where a fit goes on.

    Attributes:
        path: of the checkpoint; None for the beginning.
        newest: last step of which `metrics.csv` may have a row by then; None where the checkpoint does not tell.
    """

    path: Path | None
    newest: int | None


def check_checkpoint(path: Path, class_path: str) -> None:
    """Refuse a checkpoint that is missing, damaged, or of another task.

    Args:
        path: of the checkpoint.
        class_path: of the task.

    Raises:
        CheckpointError: with the file and what it holds.
    """
    if not path.is_file():
        raise CheckpointError(
            f"{path}: no such checkpoint; run the stage that trains it first "
            "(a fit that ends before its first validation has no best.ckpt: use last.ckpt, with Make CKPT=last)"
        )
    try:
        content = _read(path)
    except Exception as error:
        raise CheckpointError(
            f"{path}: not a readable checkpoint ({_reason(error)}); delete it and train again"
        ) from error
    known = content.get("hyper_parameters") if isinstance(content, dict) else None
    owner = known.get("_class_path") if isinstance(known, dict) else None
    # the same class may be named by its package or by its module
    if owner is not None and str(owner).rsplit(".", 1)[-1] != class_path.rsplit(".", 1)[-1]:
        raise CheckpointError(
            f"{path}: holds {owner}, but the configuration asks for {class_path}; give that task's checkpoint"
        )
    if owner is None:
        raise CheckpointError(
            f"{path}: does not say which task it belongs to; give a checkpoint written by `frugalseg fit`"
        )


def find_start(last: Path, class_path: str, clear: bool) -> Start:
    """Where an interrupted fit goes on: at its last checkpoint, or where that is damaged at the one before it.

    Args:
        last: `last.ckpt`.
        class_path: of the task.
        clear: take a damaged `last.ckpt` away, lest it become the one before the next; one rank alone may do so.

    Raises:
        CheckpointError: none of those that are there can be read, or one is of another task.
    """
    previous = last.with_name(PREVIOUS)
    if not last.is_file() and not previous.is_file():
        return Start(None, -1)
    reasons: dict[Path, str] = {}
    for path in (last, previous):
        try:
            content = _read(path)
        except Exception as error:  # damage makes torch raise nearly anything
            reasons[path] = _reason(error) if path.is_file() else "it is not there"
            continue
        check_checkpoint(path, class_path)
        if path == previous and clear:
            log.warning("%s: not readable (%s); the fit goes on from %s", last, reasons[last], previous)
            last.unlink(missing_ok=True)
        return Start(path, _newest(content))
    told = ", ".join(f"{path.name}: {reason}" for path, reason in reasons.items())
    raise CheckpointError(
        f"{last}: no readable checkpoint to go on from ({told}); delete {last.parent} to train from the beginning"
    )


def _read(path: Path) -> Any:
    return torch.load(path, map_location="cpu", weights_only=True, mmap=True)


def _reason(error: Exception) -> str:
    return str(error).splitlines()[0][:160] if str(error) else type(error).__name__


def _newest(content: Any) -> int | None:
    try:
        return int(content["loops"]["fit_loop"]["epoch_loop.state_dict"]["_batches_that_stepped"])
    except (KeyError, TypeError, ValueError):
        return None
