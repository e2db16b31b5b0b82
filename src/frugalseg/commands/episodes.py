"""`frugalseg episodes`: write the episodes that evaluation runs to a CSV file, so that others run exactly these.

Takes the `data` section of any experiment's YAML; further settings are given as `--data.init_args...`. The file is read
by the recipe's `episodes_file`.
"""

import argparse
from pathlib import Path
from typing import cast

from frugalseg.commands.data_settings import build_data
from frugalseg.data.episode_files import EpisodeRow, write_episodes
from frugalseg.data.episodes import Episodes
from frugalseg.data.loader import EvaluationEpisodes
from frugalseg.data.module import SegmentationData
from frugalseg.errors import ConfigError

STAGES = {"val": "validate", "test": "test"}


def run(argv: list[str]) -> int:
    """Write a file of episodes; reads no image."""
    parser = argparse.ArgumentParser("frugalseg episodes", description=__doc__, allow_abbrev=False)
    parser.add_argument("--config", action="append", default=[], help="experiment YAML; may be repeated")
    parser.add_argument("--split-role", choices=list(STAGES), default="test", help="whose episodes; default: test")
    parser.add_argument("--out", type=Path, required=True, help="the CSV file")
    options, rest = parser.parse_known_args(argv)
    data = build_data(options.config, rest, verb="episodes")
    recipe = data.recipe
    if not isinstance(recipe, Episodes):
        raise ConfigError(f"data.recipe is {type(recipe).__name__}, which has no episodes; set it to Episodes")
    data.setup(STAGES[options.split_role])
    loader = data.test_dataloader() if options.split_role == "test" else data.val_dataloader()
    # the loader's own items: whatever it would run is what is written
    items = cast(EvaluationEpisodes, loader.dataset)
    rows = [_row(items, index) for index in range(len(items))]
    write_episodes(options.out, rows, about(data, recipe, options.split_role))
    print(f"{options.out}: {len(rows)} episodes of {type(data).__name__}, {options.split_role}, shots {recipe.shots}")
    return 0


def about(data: SegmentationData, recipe: Episodes, role: str) -> str:
    """What evaluation's episodes hang on, in one line.

    Args:
        data: the data module.
        recipe: its recipe.
        role: "val" or "test".
    """
    facts = {
        "benchmark": type(data).__name__,
        "split": data.splits[role],
        "protocol": getattr(data, "protocol", None),  # of benchmarks that have more than one
        "fold": data.fold,
        "shots": recipe.shots,
        "base seed": recipe.test_seed if recipe.episodes_file is None else None,
        "from the file": recipe.episodes_file and recipe.episodes_file.name,
        "limit": data.limit,
    }
    return ", ".join(f"{name} {fact}" for name, fact in facts.items() if fact is not None)


def _row(items: EvaluationEpisodes, index: int) -> EpisodeRow:
    episode = items.pick(index)
    return EpisodeRow(episode.number, episode.class_id, episode.id, tuple(support.id for support in episode.supports))
