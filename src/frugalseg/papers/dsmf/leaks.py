"""Nothing that is tested may have been learned: mix-ups of folds that no score would show."""

from collections.abc import Collection
from pathlib import Path

import torch
from lightning.pytorch import Trainer
from torch import Tensor

from frugalseg.batch import FewShotFolds
from frugalseg.errors import CheckpointError, WeightsError


def novel_classes(trainer: Trainer | None) -> tuple[int, ...]:
    """Class ids that the fold of the data tests; none where the data does not say.

    Args:
        trainer: with its data module; None for a task that is used without one.
    """
    data = getattr(trainer, "datamodule", None)
    return tuple(data.fold_classes) if isinstance(data, FewShotFolds) else ()


def refuse_taught_backbone(weights: str | None, tested: Collection[int], num_classes: int) -> None:
    """Refuse a backbone that a fit of ours has taught classes which are going to be tested.

    Args:
        weights: a file that is a checkpoint says what it left out, whatever its name; a timm name or null says nothing.
        tested: class ids.
        num_classes: K of the benchmark; the ids of one with another number mean other classes.

    Raises:
        WeightsError: it has learned one of them.
    """
    if weights is None or not (path := Path(weights).expanduser()).is_file():
        return
    try:
        content = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except Exception:  # another format, or damaged: who reads the weights says so
        return
    given = content.get("hyper_parameters") if isinstance(content, dict) else None
    if not isinstance(given, dict) or given.get("novel") is None or given.get("num_classes") != num_classes:
        return
    if learned := sorted(set(tested) - set(given["novel"])):
        raise WeightsError(
            f"{weights}: this backbone was trained on classes {learned}, which data.fold tests; give that of the"
            " same fold"
        )


def refuse_trained_classes(trained: Tensor, tested: Collection[int]) -> None:
    """Refuse to test a net on classes of its own training episodes.

    Args:
        trained: (K,) bool, what training has drawn.
        tested: class ids.

    Raises:
        CheckpointError: one of them was trained on.
    """
    if known := sorted(c for c in set(tested) if trained[c]):
        raise CheckpointError(f"classes {known} are tested, but this net was trained on them; set data.fold to its own")
