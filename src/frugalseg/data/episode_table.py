"""Which images form a few-shot episode; nothing here reads a file."""

import logging
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from frugalseg.data.base import Pair, Sample, first_five
from frugalseg.errors import DatasetError

log = logging.getLogger(__name__)


class Draw(NamedTuple):
    """An episode as indices of samples."""

    class_id: int
    query: int
    supports: tuple[int, ...]


class EpisodeTable:
    """Which images show which class, and the drawing of episodes from it; reads no file.

    Args:
        samples: the split.
        pairs: its (image, class) pairs.
        classes: class ids that episodes are to be drawn of.
        where: the split, for messages.
        origin: where the pairs come from, for messages.
        narrowed: whether the split may lack images of the pairs on purpose: such pairs are left out with a warning.

    Raises:
        DatasetError: no pair is left, or the split lacks images though it is not narrowed.
    """

    def __init__(
        self,
        samples: Sequence[Sample],
        pairs: Sequence[Pair],
        classes: Sequence[int],
        where: str,
        origin: str = "the few-shot lists",
        narrowed: bool = True,
    ) -> None:
        if not pairs:
            raise DatasetError(
                f"{where}: no few-shot pairs: its lists name no image of these classes; choose another fold"
            )
        place = {sample.id: index for index, sample in enumerate(samples)}
        kept = [(place[pair.id], pair.class_id) for pair in pairs if pair.id in place]
        absent = dict.fromkeys(pair.id for pair in pairs if pair.id not in place)
        if not kept:
            raise DatasetError(
                f"{where}: none of the {len(pairs)} few-shot pairs names an image of the split (pairs such as"
                f" {first_five(pair.id for pair in pairs)}); is this the list of another data set?"
            )
        if absent:
            what = f"{len(pairs) - len(kept)} of {len(pairs)} pairs of {origin}"
            which = f"{len(absent)} images that are not in the split, first {first_five(absent)}"
            if not narrowed:
                raise DatasetError(
                    f"{where}: {what} name {which}; restore the images or the lists, or name the images that are there"
                    " in a split list of your own"
                )
            log.warning("%s: %s are left out, they name %s", where, what, which)
        self.where, self.origin = where, origin
        self.pairs = np.array(kept, np.int64)
        """(P, 2): index of the sample, class id; in the list's order."""
        self.members = {c: self.pairs[self.pairs[:, 1] == c, 0] for c in classes}
        """Class id -> indices of the samples that show it."""

    def __len__(self) -> int:
        """Number of pairs."""
        return len(self.pairs)

    def thin(self, shots: int) -> list[int]:
        """Class ids with fewer than shots + 1 images."""
        return [c for c, members in self.members.items() if len(members) <= shots]

    def leave_out(self, classes: Sequence[int]) -> None:
        """Take the pairs of some classes out.

        Raises:
            DatasetError: no pair is left.
        """
        self.pairs = self.pairs[~np.isin(self.pairs[:, 1], classes)]
        self.members = {c: members for c, members in self.members.items() if c not in classes}
        if not len(self.pairs):
            raise DatasetError(f"{self.where}: no class has two images, so there is no episode")

    def training(self, rng: np.random.Generator, shots: int) -> Draw:
        """Draw an episode: a class, then its query and supports, all uniformly and without repetition.

        Classes with fewer than shots + 1 images are left out of the draw.

        Args:
            rng: source of randomness.
            shots: K.

        Raises:
            DatasetError: every class is left out.
        """
        thick = [c for c, members in self.members.items() if len(members) > shots]
        if not thick:
            raise DatasetError(f"{self.where}: no class has the {shots + 1} images that {shots} shots take")
        class_id = thick[rng.integers(len(thick))]
        members = self.members[class_id]
        query, *supports = members[distinct(rng, len(members), shots + 1)].tolist()
        return Draw(class_id, query, tuple(supports))

    def test(self, number: int, key: Sequence[int], shots: int) -> Draw:
        """The episode of a pair: its image is the query, the supports are drawn from the class's other images.

        A pure function of its arguments, so results depend neither on workers nor on ranks nor on order. The supports
        of K shots are the first K of those of more shots. A class with fewer than K + 1 images uses each other image
        once, in random order, and then again from the first.

        Args:
            number: of the episode; a second round through the pairs (number >= P) draws other supports.
            key: whole numbers that everything depends on: base seed and fold.
            shots: K.

        Raises:
            DatasetError: no other image shows the class.
        """
        query, class_id = self.pairs[number % len(self)].tolist()
        others = self.members[class_id][self.members[class_id] != query]
        if not len(others):
            raise DatasetError(
                f"{self.where}: class {class_id} has one image, so no support; shorten the list of pairs"
            )
        rng = np.random.default_rng([*key, number])
        chosen = others[distinct(rng, len(others), min(shots, len(others)))].tolist()
        return Draw(class_id, query, tuple(chosen[shot % len(chosen)] for shot in range(shots)))


def distinct(rng: np.random.Generator, n: int, k: int) -> list[int]:
    """Draw k different numbers below n, one after another: fewer are a prefix of more (unlike `Generator.choice`)."""
    if n <= 64:
        return [int(number) for number in rng.permutation(n)[:k]]
    found: list[int] = []
    while len(found) < k:  # n is hundreds and k a handful: repeats are rare
        if (number := int(rng.integers(n))) not in found:
            found.append(number)
    return found
