"""Counting a whole split at once: maps, sweeps and label masks of every image, with all cores.

All counts are integers and are summed, so that they are the same for any order and any number of processes.
"""

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from frugalseg.analysis.maps import (
    TOKEN_MAPS,
    check_classes,
    control_predictions,
    foreground_scores,
    lacking,
    predictions,
    read_maps,
    scorable,
    usable_rules,
)
from frugalseg.analysis.masks import check_folder, decided, read_labels
from frugalseg.batch import IGNORE_INDEX
from frugalseg.data.base import Sample
from frugalseg.data.io import image_size, read_mask
from frugalseg.data.meeting import cores
from frugalseg.data.parallel import Progress, each, each_dealt
from frugalseg.data.team import Team
from frugalseg.errors import DatasetError, MapsError
from frugalseg.ops.boundary import boundary_counts
from frugalseg.ops.cam import RULES
from frugalseg.ops.confusion import confusion_matrix
from frugalseg.ops.thresholds import histogram

Counts = dict[str, NDArray[np.int64]]
FEW = 64
"""Images from which on several processes are worth their start."""
SHARES = 256
"""Parts of a split that the ranks of a team take one after the other."""


@dataclass
class Tally:
    """Counts of some images.

    Attributes:
        confusion: rule, control or name of masks -> (K, K), row = true class.
        boundary: rule or name of masks -> (3, K), see `ops.boundary.boundary_counts`.
        ignored: name of masks -> (2,) undecided pixels (255), and all pixels.
        histograms: swept map -> (K, K, T + 1), see `ops.thresholds.histogram`.
    """

    confusion: Counts = field(default_factory=dict)
    boundary: Counts = field(default_factory=dict)
    ignored: Counts = field(default_factory=dict)
    histograms: Counts = field(default_factory=dict)

    def add(self, other: "Tally") -> None:
        """Add the counts of further images."""
        for name, counts in vars(other).items():
            mine = getattr(self, name)
            for key, array in counts.items():
                mine[key] = mine[key] + array if key in mine else array

    def numbers(self) -> dict[str, dict[str, list[Any]]]:
        """The counts, fit for JSON."""
        return {name: {key: array.tolist() for key, array in counts.items()} for name, counts in vars(self).items()}

    @classmethod
    def of(cls, numbers: Mapping[str, Mapping[str, list[Any]]]) -> Self:
        """The counts that `numbers` gave."""
        return cls(**{name: {k: np.array(v, np.int64) for k, v in counts.items()} for name, counts in numbers.items()})


@dataclass(frozen=True)
class Sources:
    """What is scored.

    Attributes:
        num_classes: K, with the background where there is one.
        background: whether class 0 is the background.
        maps: folder of `<id>.npz`, or None.
        rules: of `ops.cam.RULES`; those that the maps do not serve are left out.
        sweeps: of `analysis.maps.SWEEPS`: maps whose background is swept over `thresholds`.
        thresholds: ascending.
        masks: name -> folder of `<id>.png`; the segmenter's has the name "".
    """

    num_classes: int
    background: bool = True
    maps: Path | None = None
    rules: tuple[str, ...] = tuple(RULES)
    sweeps: tuple[str, ...] = ()
    thresholds: tuple[float, ...] = tuple(step / 100 for step in range(101))
    masks: Mapping[str, Path] = field(default_factory=dict)


def count_split(
    sources: Sources, samples: Sequence[Sample], workers: int | None = None, progress: Progress | None = None
) -> Tally:
    """Count all images that have a mask.

    Args:
        sources: what is scored.
        samples: images; those without a mask are left out.
        workers: processes; None for all cores, but one for a few images.
        progress: called with (images done, images in all).

    Raises:
        MapsError: maps are missing (count and first five), damaged, of another size or class set, or some images have
            maps that others lack.
        DatasetError: no image has a mask, label masks are missing, were made by two runs or are wrong.
        MaskError: a mask is wrong.
    """
    work, scored = _check(sources, samples)
    workers = workers or (1 if len(scored) <= FEW else os.cpu_count() or 1)
    total = Tally()
    if workers == 1:
        with _one_thread():
            for done, sample in enumerate(scored, 1):
                total.add(work.count(sample))
                if progress:
                    progress(done, len(scored))
        return total
    # a few sums per process, not one result per image: with 81 classes the counts of an image are larger than its maps
    parts = min(len(scored), 8 * workers)
    scaled = _scaled(progress, len(scored)) if progress else None
    for part in each(partial(_count_part, work), [scored[i::parts] for i in range(parts)], workers, scaled):
        total.add(part)
    return total


def count_shared(
    sources: Sources, samples: Sequence[Sample], workers: int | None, progress: Progress | None, team: Team
) -> Tally | None:
    """Count by all processes of a team.

    Args:
        sources: what is scored.
        samples: images; those without a mask are left out.
        workers: processes of each of the team's; None for its cores.
        progress: called with (images done, images in all).
        team: who shares the work.

    Returns:
        All counts; None on other ranks than 0.

    Raises:
        FrugalsegError: see `count_split`, or a rank has gone.
    """
    if team.world == 1:
        return count_split(sources, samples, workers, progress)
    work, scored = _check(sources, samples)
    parts = [scored[i::SHARES] for i in range(min(SHARES, len(scored)))]
    scaled = _scaled(progress, len(scored)) if progress and team.rank == 0 else None
    deal = team.deal([0] * len(parts))
    counted = each_dealt(partial(_count_part, work), parts, deal, workers or cores(team.place), scaled)
    ours = Tally()
    for part in counted.values():
        ours.add(part)
    # the sum goes with our first part
    known = team.gather({part: None if n else ours.numbers() for n, part in enumerate(counted)}, len(parts))
    if known is None:
        return None
    total = Tally()
    for numbers in known.values():
        if numbers is not None:
            total.add(Tally.of(numbers))
    return total


def _check(sources: Sources, samples: Sequence[Sample]) -> "tuple[_Work, list[Sample]]":
    """How to count an image, and the images that have a mask, whose files are all there."""
    scored = [sample for sample in samples if sample.mask is not None]
    if not scored:
        raise DatasetError(f"none of the {len(samples)} images of this split has a mask to score against; add masks")
    if sources.maps is not None:
        scorable(sources.maps, scored)
    for folder in sources.masks.values():
        check_folder(folder, scored)
    return _Work(sources, _usable(sources, scored[0]), scored[0].id), scored


def _scaled(progress: Progress, images: int) -> Progress:
    """Parts done, as images done."""
    return lambda done, parts: progress(images * done // parts, images)


def _usable(sources: Sources, first: Sample) -> tuple[str, ...]:
    """Rules that the first image's maps serve; all other images must serve the same.

    Raises:
        MapsError: none, and no sweep either.
    """
    if sources.maps is None:
        return ()
    path = sources.maps / f"{first.id}.npz"
    arrays = read_maps(path)
    rules = usable_rules(arrays, sources.rules)
    there = ", ".join(name for name in arrays if name != "keys") or "no map"
    if unserved := [name for name in sources.sweeps if lacking(arrays, name)]:
        raise MapsError(f"{path}: cannot be swept for {unserved[0]}, it holds {there}; mend --sweep")
    if not rules and not sources.sweeps:
        able = next((f" {name}" for name in TOKEN_MAPS if name in arrays), "")
        raise MapsError(
            f"{path}: serves none of the rules {', '.join(sources.rules)}, it holds {there}; set --sweep{able}"
        )
    return rules


def _count_part(work: "_Work", samples: Sequence[Sample]) -> Tally:
    """Sum over some images."""
    total = Tally()
    with _one_thread():
        for sample in samples:
            total.add(work.count(sample))
    return total


@contextmanager
def _one_thread() -> Iterator[None]:
    """Each core has a process already; and on a busy machine threads wait for each other longer than they work."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@dataclass(frozen=True)
class _Work:
    """Counting one image.

    Attributes:
        sources: what is scored.
        rules: that every image's maps must serve.
        first: id of the image that they are from.
    """

    sources: Sources
    rules: tuple[str, ...]
    first: str

    def count(self, sample: Sample) -> Tally:
        """Count one image with a mask."""
        tally = Tally()
        truth = self._truth(sample)
        if self.sources.maps is not None:
            self._count_maps(self.sources.maps / f"{sample.id}.npz", sample, truth, tally)
        for name, folder in self.sources.masks.items():
            path = folder / f"{sample.id}.png"
            ids = read_labels(path, self.sources.num_classes, (truth.shape[0], truth.shape[1]), _mask(sample))
            tally.ignored[name] = np.array([(ids == IGNORE_INDEX).sum(), ids.size])
            guess = torch.as_tensor(decided(ids, path, self.sources.background))
            self._count_labels(name, guess, truth, tally)
        return tally

    def _truth(self, sample: Sample) -> Tensor:
        # the size is the mask's own, unless the benchmark's masks may differ from their images
        size = image_size(sample.image) if sample.code is not None and sample.code.slack else None
        ids = read_mask(_mask(sample), self.sources.num_classes, size, sample.image, sample.code)
        return torch.as_tensor(ids.astype(np.int64))

    def _count_maps(self, path: Path, sample: Sample, truth: Tensor, tally: Tally) -> None:
        """Count rules, controls and sweeps of one file."""
        arrays = read_maps(path)
        wanted = (*self.sources.rules, *self.sources.sweeps)
        served = {name for name in wanted if not lacking(arrays, name)}
        if odd := served ^ {*self.rules, *self.sources.sweeps}:
            raise MapsError(
                f"{path}: differs from {self.first}.npz in having maps for the rules {', '.join(sorted(odd))}; "
                "the folder mixes two runs, delete one's files and run the stage that makes the maps"
            )
        check_classes(path, arrays, self.sources.num_classes)
        keys = arrays["keys"].astype(np.int64)
        guesses = predictions(arrays, self.rules)
        swept = {name: foreground_scores(arrays, name) for name in self.sources.sweeps}
        for size in (*(labels.shape for labels in guesses.values()), *(maps.shape[1:] for maps in swept.values())):
            if size != truth.shape:
                raise MapsError(
                    f"{path}: maps are {tuple(size)}, but the mask {sample.mask} is {tuple(truth.shape)};"
                    " make the maps of these very images"
                )
        for rule, guess in guesses.items():
            self._count_labels(rule, guess, truth, tally)
        for control, guess in control_predictions(sample, keys, (truth.shape[0], truth.shape[1])).items():
            tally.confusion[control] = confusion_matrix(guess, truth, self.sources.num_classes).numpy()
        thresholds = torch.tensor(self.sources.thresholds)
        for name, scores in swept.items():
            counts = histogram(scores, torch.as_tensor(keys[1:]), truth, thresholds, self.sources.num_classes)
            tally.histograms[name] = counts.numpy()

    def _count_labels(self, name: str, guess: Tensor, truth: Tensor, tally: Tally) -> None:
        tally.confusion[name] = confusion_matrix(guess, truth, self.sources.num_classes).numpy()
        tally.boundary[name] = boundary_counts(guess, truth, self.sources.num_classes).numpy()


def _mask(sample: Sample) -> Path:
    """The mask of a sample that has one."""
    if sample.mask is None:
        raise ValueError(f"{sample.id} has no mask")
    return sample.mask
