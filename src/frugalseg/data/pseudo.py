"""Pseudo labels: a directory of masks laid over a training split."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from frugalseg.data.base import Sample, first_five
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
            DatasetError: masks are missing.
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
        return [replace(sample, mask=self.root / f"{sample.id}.png", code=None) for sample in samples]
