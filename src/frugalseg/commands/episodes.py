"""`frugalseg episodes`: write the episodes that evaluation runs to a CSV file, so that others run exactly these.

Takes the `data` section of any experiment's YAML; further settings are given as `--data.init_args...`. The file is read
by the recipe's `episodes_file`. Several base seeds make a file each, whose names have `{seed}` replaced.
"""

import argparse
from pathlib import Path
from typing import cast

from frugalseg.commands.data_settings import build_data
from frugalseg.data.episode_files import SEED, EpisodeRow, file_of, write_episodes
from frugalseg.data.episodes import Episodes
from frugalseg.data.loader import EvaluationEpisodes
from frugalseg.data.module import SegmentationData
from frugalseg.errors import ConfigError

STAGES = {"val": "validate", "test": "test"}


def run(argv: list[str]) -> int:
    """Write a file of episodes for each base seed; reads no image."""
    parser = argparse.ArgumentParser("frugalseg episodes", description=__doc__, allow_abbrev=False)
    parser.add_argument("--config", action="append", default=[], help="experiment YAML; may be repeated")
    parser.add_argument("--split-role", choices=list(STAGES), default="test", help="whose episodes; default: test")
    parser.add_argument("--out", type=Path, required=True, help="the CSV file; {seed} stands for the base seed")
    options, rest = parser.parse_known_args(argv)
    data = build_data(options.config, rest, verb="episodes")
    recipe = data.recipe
    if not isinstance(recipe, Episodes):
        raise ConfigError(f"data.recipe is {type(recipe).__name__}, which has no episodes; set it to Episodes")
    data.setup(STAGES[options.split_role])
    loaders = data.test_dataloader() if options.split_role == "test" else data.val_dataloader()
    # the loaders' own items: whatever they would run is what is written
    found = [cast(EvaluationEpisodes, each.dataset) for each in (loaders if isinstance(loaders, list) else [loaders])]
    if len(found) > 1 and SEED not in str(options.out):
        raise ConfigError(f"--out {options.out} is one file for {len(found)} base seeds; put {SEED} into its name")
    # all of them first: a fault in one leaves no file of another
    drawn = [(items, [_row(items, index) for index in range(len(items))]) for items in found]
    for items, rows in drawn:
        path = file_of(options.out, items.seed)
        write_episodes(path, rows, about(data, items, options.split_role))
        print(f"{path}: {len(rows)} episodes of {type(data).__name__}, {options.split_role}, shots {recipe.shots}")
    return 0


def about(data: SegmentationData, items: EvaluationEpisodes, role: str) -> str:
    """What evaluation's episodes hang on, in one line.

    Args:
        data: the data module.
        items: episodes of one base seed.
        role: "val" or "test".
    """
    facts = {
        "benchmark": type(data).__name__,
        "split": data.splits[role],
        "protocol": getattr(data, "protocol", None),  # of benchmarks that have more than one
        "fold": data.fold,
        "classes": None if data.is_novel(role) else "base",
        "shots": items.shots,
        "base seed": items.seed if items.file is None else None,
        "from the file": items.file and items.file.name,
        "limit": data.limit,
    }
    return ", ".join(f"{name} {fact}" for name, fact in facts.items() if fact is not None)


def _row(items: EvaluationEpisodes, index: int) -> EpisodeRow:
    episode = items.pick(index)
    return EpisodeRow(episode.number, episode.class_id, episode.id, tuple(support.id for support in episode.supports))
