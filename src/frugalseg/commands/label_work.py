"""The work on one image, or on several of one shape: what a verb computes, and what becomes of it."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from frugalseg.data.base import ClassTable, Sample
from frugalseg.data.io import image_size, made_by, read_mask, write_mask
from frugalseg.errors import FrugalsegError, MaskError
from frugalseg.ops.seeds import UNKNOWN


@dataclass(frozen=True)
class Batch:
    """Inputs of images of one size and one number of classes.

    Attributes:
        keys: (N, k) class ids, 0 first.
        scores: what each kind starts from, (N, k or k - 1, H, W) float32.
        others: what else a verb needs.
    """

    keys: Tensor
    scores: Mapping[str, Tensor]
    others: tuple[Any, ...] = ()

    @property
    def bare(self) -> bool:
        """Whether no class is present: every rule then labels all pixels background."""
        return self.keys.shape[1] == 1


@dataclass(frozen=True)
class Labeller(ABC):
    """Makes labels of some kinds. It is sent to other processes, so that it holds settings and paths, no data.

    Attributes:
        kinds: what is made.
        maps: folder of maps.
        num_classes: K.
    """

    kinds: tuple[str, ...]
    maps: Path
    num_classes: int

    def map_file(self, sample: Sample) -> Path:
        """Maps of an image."""
        return self.maps / f"{sample.id}.npz"

    def shape(self, sample: Sample) -> tuple[int, ...]:
        """H, W and k, which images of a batch must share, from headers; k is 0 where `load` is to say what is wrong."""
        try:
            with np.load(self.map_file(sample), allow_pickle=False) as archive:
                return *image_size(sample.image), len(archive["keys"])
        except Exception:  # damage makes zipfile, zlib and NumPy raise nearly anything
            return 0, 0, 0

    def load(self, samples: Sequence[Sample]) -> Batch:
        """Read and check the inputs of images of one shape."""
        read = [self.read(sample) for sample in samples]
        scores = {kind: torch.stack([found[1][kind] for found in read]) for kind in self.kinds}
        return Batch(torch.stack([found[0] for found in read]), scores, tuple(found[2] for found in read))

    @abstractmethod
    def read(self, sample: Sample) -> tuple[Tensor, dict[str, Tensor], Any]:
        """Keys (k,), scores by kind, and the rest of what an image needs."""

    @abstractmethod
    def prepare(self, batch: Batch, device: torch.device) -> Batch:
        """Take a batch to a device, and compute what the kinds share."""

    @abstractmethod
    def label(self, batch: Batch, kind: str) -> Tensor:
        """Class ids and 255, (N, H, W)."""


def moved(batch: Batch, device: torch.device) -> Batch:
    """Keys and scores on a device."""
    scores = {kind: values.to(device) for kind, values in batch.scores.items()}
    return replace(batch, keys=batch.keys.to(device), scores=scores)


@contextmanager
def of_images(samples: Sequence[Sample]) -> Iterator[None]:
    """Name the images of which an operation says that something about them is wrong."""
    try:
        yield
    except ValueError as error:
        names = ", ".join(sample.id for sample in samples)
        raise FrugalsegError(f"{names}: {error}; mend the settings, or make the maps and edges again") from error


class Made(NamedTuple):
    """What is known of the labels of one image.

    Attributes:
        id: of the image.
        pixels: their number.
        unknown: how many pixels are 255, by kind.
        seconds: time of each kind, of their common set-up, and on cores of writing; empty where the files were there.
        bare: whether the maps name no class.
    """

    id: str
    pixels: int
    unknown: dict[str, int]
    seconds: dict[str, float]
    bare: bool


@dataclass(frozen=True, eq=False)
class Target:
    """Where labels go.

    Attributes:
        out: the run folder.
        kinds: names of its folders.
        classes: the benchmark's.
        run: digest of the run; every file carries it.
    """

    out: Path
    kinds: Sequence[str]
    classes: ClassTable
    run: str

    def present(self, sample: Sample) -> Made | None:
        """What is known of labels that this run has written; None where one is missing, damaged or another run's."""
        try:
            ids = {kind: self._read(self.out / kind / f"{sample.id}.png") for kind in self.kinds}
        except (MaskError, FileNotFoundError):
            return None
        return self._made(sample, ids, bare=False, seconds={})

    def _read(self, path: Path) -> NDArray[np.uint8]:
        if not path.is_file() or made_by(path) != self.run:
            raise FileNotFoundError(path)
        return read_mask(path, self.classes.num_classes)

    def write(
        self, sample: Sample, labels: Mapping[str, NDArray[np.uint8]], bare: bool, seconds: dict[str, float]
    ) -> Made:
        """Write the labels (H, W) of every kind.

        Args:
            sample: the image.
            labels: by kind.
            bare: see `Made`.
            seconds: see `Made`.
        """
        for kind, ids in labels.items():
            write_mask(self.out / kind / f"{sample.id}.png", ids, self.classes.palette, self.run)
        return self._made(sample, labels, bare, seconds)

    @staticmethod
    def _made(sample: Sample, labels: Mapping[str, NDArray[np.uint8]], bare: bool, seconds: dict[str, float]) -> Made:
        unknown = {kind: int(np.count_nonzero(ids == UNKNOWN)) for kind, ids in labels.items()}
        return Made(sample.id, next(iter(labels.values())).size, unknown, seconds, bare)
