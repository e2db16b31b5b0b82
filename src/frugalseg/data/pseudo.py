"""Pseudo labels: a directory of masks laid over a training split."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from frugalseg.data.base import Sample, first_five
from frugalseg.data.io import made_by
from frugalseg.errors import DatasetError, DatasetNotFoundError


class PseudoLabels:
    """Masks `<id>.png` that take the place of a benchmark's own.

    Args:
        root: the directory.
    """

    def __init__(self, root: str | Path) -> None:
        self.root = Path(root)

    def over(self, samples: Sequence[Sample]) -> list[Sample]:
        """Replace every sample's mask.

        Args:
            samples: the training split.

        Raises:
            DatasetNotFoundError: the directory is absent.
            DatasetError: masks are missing, or come from different runs.
        """
        if not self.root.is_dir():
            raise DatasetNotFoundError(
                f"{self.root}: no such folder of pseudo labels; run the stage that writes it first"
            )
        there = {path.name for path in self.root.iterdir()}
        if missing := [sample.id for sample in samples if f"{sample.id}.png" not in there]:
            raise DatasetError(
                f"{self.root}: {len(missing)} of {len(samples)} pseudo labels are missing, first {first_five(missing)};"
                " let the stage that writes them run to its end"
            )
        masks = [self.root / f"{sample.id}.png" for sample in samples]
        refuse_mixture(masks)
        return [replace(sample, mask=mask, code=None) for sample, mask in zip(samples, masks, strict=True)]


def refuse_mixture(masks: Sequence[Path]) -> None:
    """Refuse masks of which some were made by another run: their labels would not be comparable.

    Only headers are read. Files that do not say who made them are one run of their own.

    Args:
        masks: files of one folder.

    Raises:
        DatasetError: naming one file of each run.
    """
    makers: dict[str, Path] = {}
    for mask in masks:
        makers.setdefault(made_by(mask), mask)
        if len(makers) > 1:
            (one, first), (other, second) = makers.items()
            raise DatasetError(
                f"{first.parent}: holds masks of two runs, {first.name} ({one[:8] or 'unknown'}) and {second.name}"
                f" ({other[:8] or 'unknown'}); empty the folder and run the stage that writes it again"
            )
