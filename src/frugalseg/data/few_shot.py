"""What recipe `Episodes` needs of a data module: tables of pairs, and the episodes that are evaluated."""

import logging
from typing import TYPE_CHECKING
from weakref import WeakSet

from frugalseg.data.episode_table import EpisodeTable
from frugalseg.data.episodes import Episodes
from frugalseg.data.loader import EvaluationEpisodes
from frugalseg.errors import DatasetError

if TYPE_CHECKING:  # the data module imports this file
    from frugalseg.data.module import SegmentationData

log = logging.getLogger(__name__)

_told: "WeakSet[EpisodeTable]" = WeakSet()  # tables whose uncovered classes have been warned of


def make_table(data: "SegmentationData", recipe: Episodes, role: str) -> EpisodeTable:
    """Match the few-shot pairs of a role with its samples.

    A class of the fold without episodes would change what a test is the mean of, so that it is an error. In training
    and in validation on base classes it is left out with a warning: no result is a mean over these.

    Args:
        data: the benchmark.
        recipe: what an episode is.
        role: "train", "val" or "test".

    Raises:
        ConfigError: the benchmark has no few-shot folds.
        DatasetError: no pair is left, images of pairs are not there, or a class has too few.
    """
    where = f"split {data.splits[role]} of {data.root}{' (data.limit is set)' if data.limit else ''}"
    pairs, novel = data.pairs(role), data.is_novel(role)
    if role == "val" and not novel and not pairs:
        raise DatasetError(
            f"{where}: holding images out leaves no pair of base classes to validate on; add images, or set"
            " data.val_classes=novel"
        )
    classes = data.fold_classes if novel else sorted({pair.class_id for pair in pairs})
    narrowed = data.limit is not None or data.narrowed(data.splits[role])
    table = EpisodeTable(data.samples(role), pairs, classes, where, data.pairs_from(role), narrowed)
    # one image is enough to be a query, not to have a support
    least = 1 if role != "train" else recipe.shots
    if thin := table.thin(least):
        has = ", ".join(f"{data.class_names[c]} ({len(table.members[c])})" for c in thin)
        what = f"{where}: too few images for an episode of {has}: it takes {least + 1}"
        if (novel and not recipe.allow_missing_classes) or (role == "train" and len(thin) == len(table.members)):
            allow = ", or set recipe.allow_missing_classes to leave them out" if novel else ", or lower recipe.shots"
            raise DatasetError(f"{what}; add images{allow}")
        log.warning("%s; left out", what)
        table.leave_out(table.thin(1))
    return table


def evaluated(data: "SegmentationData", recipe: Episodes, role: str) -> list[EvaluationEpisodes]:
    """The episodes of an evaluation: of each base seed in a test, of the first one in validation.

    A test whose episodes lack a class would be a mean over other classes, and over different ones from base seed to
    base seed, so that it is refused unless `allow_missing_classes` is set. Validation only warns of it, once.

    Args:
        data: the benchmark.
        recipe: what an episode is.
        role: "val" or "test".

    Raises:
        ConfigError: the benchmark has no few-shot folds.
        DatasetNotFoundError: a file of episodes is not there.
        DatasetError: there is no episode, a file does not fit, or a class of a test has no episode.
    """
    samples, table = data.samples(role), data.episode_table(role)
    count = recipe.val_episodes if role == "val" and recipe.val_episodes else recipe.test_episodes
    # a file holds episodes of the classes that are tested
    files = recipe.files if data.is_novel(role) else {}
    found = [
        EvaluationEpisodes(samples, recipe, data.num_classes, table, data.fold, seed, count, files.get(seed))
        for seed in recipe.test_seeds[: 1 if role == "val" else None]
    ]
    if lacking := [what for items in found if (what := _uncovered(data, items))]:
        if role == "test" and not recipe.allow_missing_classes:
            mend = "complete the file" if files else "raise recipe.test_episodes"
            raise DatasetError(f"{lacking[0]}; {mend}, or set recipe.allow_missing_classes")
        if table not in _told:
            log.warning("%s; the mean is over the other classes", "; ".join(lacking))
            _told.add(table)
    return found


def _uncovered(data: "SegmentationData", items: EvaluationEpisodes) -> str:
    """Which classes have no episode of a base seed; empty where all have."""
    absent = sorted(set(items.table.members) - items.classes)
    source = f" in {items.file}" if items.file else ""
    names = ", ".join(data.class_names[c] for c in absent)
    where = f"{items.table.where}: the {len(items)} episodes of base seed {items.seed}{source}"
    return f"{where} leave {len(absent)} of {len(items.table.members)} classes out: {names}" if absent else ""
