"""Where a fit stands inside an epoch: what data modules save, and whether a saved position means the same elsewhere."""

from collections.abc import Mapping
from typing import Any, cast

from frugalseg.errors import CheckpointError


def position_of(trainer: Any, handed_out: tuple[int, int]) -> dict[str, int]:
    """Position of a running fit.

    Args:
        trainer: of Lightning.
        handed_out: epoch, and the batches of it that the loader has given so far.

    Returns:
        Epoch, number of its batches that were trained, and by how much Lightning's number of the epoch is ahead (a
        resumed epoch counts twice there).
    """
    epoch, batch = handed_out
    progress = trainer.fit_loop.epoch_loop.batch_progress.current
    batch -= max(0, progress.ready - progress.processed)  # fetched, but its step has not been taken
    ahead = cast(int, trainer.current_epoch) - epoch
    if batch >= trainer.num_training_batches:
        epoch, batch = epoch + 1, 0
    return {"epoch": epoch, "batch": batch, "ahead": ahead}


def check_position(start: int, saved: Mapping[str, int], here: Mapping[str, int], same: str) -> None:
    """Refuse to go on inside an epoch of other batches.

    Args:
        start: batches of the epoch that are left out; 0 at the beginning of one, where nothing can be mistaken.
        saved: what a position counted when it was saved.
        here: what it counts now.
        same: what must be the same, for the message.

    Raises:
        CheckpointError: they differ.
    """
    if start and saved != here:
        changed = ", ".join(f"{key} {saved.get(key)} -> {here[key]}" for key in here if saved.get(key) != here[key])
        raise CheckpointError(
            f"the checkpoint was saved inside an epoch of other batches ({changed}); resume with the same {same},"
            " batch size, devices and seed, or from a checkpoint saved at the end of an epoch"
        )
