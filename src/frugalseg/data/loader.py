"""Datasets and loaders: from samples to batches."""

from collections.abc import Iterator, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any, cast

import cv2
import numpy as np
from torch.utils.data import DataLoader, Dataset

from frugalseg import limits
from frugalseg.data.base import Episode, Sample
from frugalseg.data.episode_files import read_episodes
from frugalseg.data.episode_table import Draw as EpisodeDraw
from frugalseg.data.episode_table import EpisodeTable
from frugalseg.data.episodes import AbsentClassError, Episodes
from frugalseg.data.recipes import Batch, Item, Recipe
from frugalseg.data.sampler import Draw, TrainSampler, draw_rng
from frugalseg.errors import DatasetError, FrugalsegError
from frugalseg.position import check_position


class TrainItems(Dataset[Batch]):
    """Training batches, addressed by the list of draws that `TrainSampler` yields.

    Args:
        samples: the split.
        recipe: makes items.
        num_classes: K, with the background.
        seed: seed of the items' randomness.
    """

    def __init__(self, samples: Sequence[Sample], recipe: Recipe, num_classes: int, seed: int) -> None:
        self.samples, self.recipe, self.num_classes, self.seed = samples, recipe, num_classes, seed

    def __len__(self) -> int:
        """Number of samples."""
        return len(self.samples)

    def __getitem__(self, draws: list[Draw]) -> Batch:
        """Make the batch of these draws."""
        rngs = [draw_rng(self.seed, draw) for _, draw in draws]
        samples = [self.pick(index, rng) for (index, _), rng in zip(draws, rngs, strict=True)]
        return self.recipe.train_batch(samples, self.num_classes, rngs)

    def pick(self, index: int, rng: np.random.Generator) -> Sample:
        """What a draw is of: here the sample of that index."""
        return self.samples[index]


class TrainEpisodes(TrainItems):
    """Training episodes: what a draw is of depends on its random numbers alone.

    Args:
        samples: the split.
        recipe: makes items.
        num_classes: K, with the background.
        seed: seed of the items' randomness.
        table: what episodes are drawn from.
    """

    def __init__(
        self, samples: Sequence[Sample], recipe: Episodes, num_classes: int, seed: int, table: EpisodeTable
    ) -> None:
        super().__init__(samples, recipe, num_classes, seed)
        self.table, self.shots, self.length = table, recipe.shots, recipe.per_epoch or len(table)

    def __len__(self) -> int:
        """Number of episodes in an epoch."""
        return self.length

    def pick(self, index: int, rng: np.random.Generator) -> Episode:
        """Draw an episode."""
        return episode_of(self.table.training(rng, self.shots), self.samples, index)


class EvaluationItems(Dataset[Item]):
    """Whole images in the split's order.

    Args:
        samples: the split.
        recipe: makes items.
        num_classes: K, with the background.
    """

    def __init__(self, samples: Sequence[Sample], recipe: Recipe, num_classes: int) -> None:
        self.samples, self.recipe, self.num_classes = samples, recipe, num_classes

    def __len__(self) -> int:
        """Number of samples."""
        return len(self.samples)

    def __getitem__(self, index: int) -> Item:
        """Make one item."""
        return self.recipe.evaluation_item(self.pick(index), self.num_classes)

    def pick(self, index: int) -> Sample:
        """What an index stands for: here a sample."""
        return self.samples[index]


class EvaluationEpisodes(EvaluationItems):
    """Fixed episodes of one base seed: drawn, or those of a file.

    Args:
        samples: the split.
        recipe: makes items.
        num_classes: K, with the background.
        table: what episodes are drawn from; its classes are those that a file may test.
        fold: number of the fold, which the draws depend on.
        seed: the base seed, which they depend on too.
        count: how many; None for every pair once.
        file: the file; None draws.

    Raises:
        DatasetNotFoundError: the file is not there.
        DatasetError: it does not fit, see `read_episodes`.
    """

    def __init__(
        self,
        samples: Sequence[Sample],
        recipe: Episodes,
        num_classes: int,
        table: EpisodeTable,
        fold: int,
        seed: int,
        count: int | None = None,
        file: Path | None = None,
    ) -> None:
        super().__init__(samples, recipe, num_classes)
        self.table, self.shots, self.seed, self.file, self.key = table, recipe.shots, seed, file, (seed, fold)
        self.given: dict[int, EpisodeDraw] = {}
        if file is not None:
            self.given = draws_of_file(file, samples, recipe.shots, table)
            self.numbers = list(self.given)
            return
        self.numbers = list(range(count or len(table)))
        if len(self.numbers) < len(table):  # not the first ones: lists are in the order of scenes or classes
            order = np.random.default_rng(self.key).permutation(len(table))
            self.numbers = sorted(order[: len(self.numbers)].tolist())

    def __len__(self) -> int:
        """Number of episodes."""
        return len(self.numbers)

    @property
    def classes(self) -> set[int]:
        """Ids of the classes that have an episode; no image is read for it, and no support drawn."""
        if self.given:
            return {draw.class_id for draw in self.given.values()}
        return {int(self.table.pairs[number % len(self.table), 1]) for number in self.numbers}

    def __getitem__(self, index: int) -> Item:
        """Make one item, with its base seed.

        Raises:
            DatasetError: a mask of the episode does not show the class.
        """
        try:
            return {**super().__getitem__(index), "base_seed": self.seed}
        except AbsentClassError as error:
            lists = self.file or self.table.origin
            raise DatasetError(f"{error} in {lists}; take it off that list, or restore the mask") from None

    def pick(self, index: int) -> Episode:
        """The episode of that index."""
        number = self.numbers[index]
        draw = self.given[number] if self.given else self.table.test(number, self.key, self.shots)
        return episode_of(draw, self.samples, number)


def draws_of_file(path: Path, samples: Sequence[Sample], shots: int, table: EpisodeTable) -> dict[int, EpisodeDraw]:
    """Read a file of episodes: number -> draw, in the file's order.

    Args:
        path: the file.
        samples: the split that it names images of.
        shots: K.
        table: of the split; knows which classes are tested.

    Raises:
        DatasetNotFoundError: there is no such file.
        DatasetError: it does not fit, see `read_episodes`.
    """
    place = {sample.id: index for index, sample in enumerate(samples)}
    return {
        row.number: EpisodeDraw(row.class_id, place[row.query], tuple(place[name] for name in row.supports))
        for row in read_episodes(path, shots, place, table.members, table.where)
    }


def episode_of(draw: EpisodeDraw, samples: Sequence[Sample], number: int) -> Episode:
    """Put samples in the place of their indices."""
    query = {field.name: getattr(samples[draw.query], field.name) for field in fields(Sample)}
    supports = tuple(samples[index] for index in draw.supports)
    return Episode(**query, class_id=draw.class_id, supports=supports, number=number)


class Loader(DataLoader[Any]):
    """A DataLoader that counts what it hands out and keeps users' errors to one line."""

    given = 0
    """Batches of the current epoch that the consumer has got."""

    def __iter__(self) -> "_Batches":  # type: ignore[override]
        """Begin an epoch."""
        self.given = 0
        return _Batches(self, super().__iter__())


class _Batches(Iterator[Any]):
    def __init__(self, loader: Loader, batches: Iterator[Any]) -> None:
        self.loader, self.batches = loader, batches

    def __next__(self) -> Any:
        try:
            batch = next(self.batches)
        except FrugalsegError as error:
            # torch re-raises a worker's error with the whole traceback as its text; the last line holds ours
            last = str(error).rstrip().rsplit("\n", 1)
            raise (type(error)(last[1].partition(": ")[2]) if len(last) == 2 else error) from None
        self.loader.given += 1
        return batch


class TrainLoader(Loader):
    """A loader that knows its position in the training; its sampler is a `TrainSampler`.

    The data module saves the position; `state_dict` says what a position counts, so that none is mistaken for another.
    Having it also tells Lightning that resuming inside an epoch is safe.
    """

    began = (0, 0)
    """(epoch, batches left out) of the current iteration."""

    def __iter__(self) -> "_Batches":  # type: ignore[override]
        """Begin an epoch where the sampler says."""
        sampler = cast(TrainSampler, self.sampler)
        self.began = (sampler.epoch, sampler.start)
        return super().__iter__()

    @property
    def position(self) -> tuple[int, int]:
        """(epoch, batches of it handed out so far)."""
        epoch, start = self.began
        return epoch, start + self.given

    def state_dict(self) -> dict[str, int]:
        """What a position counts: samples of the split, samples per step over all ranks, seed."""
        sampler = cast(TrainSampler, self.sampler)
        return {"samples": sampler.n, "step": sampler.batch_size * sampler.world, "seed": sampler.seed}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Check that a position inside an epoch means the same here.

        Args:
            state: `state_dict` of the fit that is resumed.

        Raises:
            CheckpointError: it does not, and the fit would go on inside an epoch.
        """
        check_position(cast(TrainSampler, self.sampler).start, state, self.state_dict(), "split")


def quiet_worker(_worker: int, held: limits.Limits | None = None) -> None:
    """Keep OpenCV to one thread per worker: workers are the parallelism.

    Args:
        held: limits of the process that starts the workers, which need not inherit its memory.
    """
    if held is not None:
        limits.use(held)
    cv2.setNumThreads(0)
