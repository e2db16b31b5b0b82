"""`frugalseg show`: a picture grid of a data module's batches, as training or evaluation sees them.

Takes the `data` section of any experiment's YAML; further settings are given as `--data.init_args...`.
"""

import argparse
from itertools import islice
from pathlib import Path
from typing import Any

from frugalseg.analysis.episodes import episode_pictures
from frugalseg.analysis.pictures import Picture, batch_pictures, grid, save_png
from frugalseg.analysis.views import views_pictures
from frugalseg.commands.data_settings import build_data
from frugalseg.data.module import SegmentationData
from frugalseg.errors import ConfigError

LOADERS = {"train": "fit", "val": "validate", "test": "test", "predict": "predict"}


def run(argv: list[str]) -> int:
    """Draw batches to a PNG."""
    parser = argparse.ArgumentParser("frugalseg show", description=__doc__, allow_abbrev=False)
    parser.add_argument("--config", action="append", default=[], help="experiment YAML; may be repeated")
    parser.add_argument("--role", choices=list(LOADERS), default="train", help="which loader to draw")
    parser.add_argument("--count", type=int, default=12, help="how many images")
    parser.add_argument("--columns", type=int, default=4)
    parser.add_argument("--out", default="runs/show.png")
    options, rest = parser.parse_known_args(argv)
    if options.count < 1 or options.columns < 1:
        raise ConfigError("--count and --columns must be at least 1")
    data = build_data(options.config, rest)
    data.setup(LOADERS[options.role])
    loader = getattr(data, f"{options.role}_dataloader")()
    pictures: list[Any] = []
    for batch in islice(loader, options.count):
        pictures += pictures_of(batch, data, options.role)
        if len(pictures) >= options.count:
            break
    save_png(Path(options.out), grid(pictures[: options.count], options.columns))
    print(f"{options.out}: {min(len(pictures), options.count)} images of {type(data).__name__}, {options.role}")
    return 0


def pictures_of(batch: Any, data: SegmentationData, role: str) -> list[Picture]:
    """One picture per item of a batch, whatever recipe made it.

    Args:
        batch: of one of the loaders of `data`.
        data: the data module.
        role: which of its loaders.
    """
    recipe = data.predict_recipe if role == "predict" else data.recipe
    scale = recipe.normaliser.mean, recipe.normaliser.std
    if "query_image" in batch:
        return episode_pictures(batch, data.class_names, *scale)
    if "global_views" in batch:
        sources = {sample.id: sample.image for sample in data.samples(role)}
        return views_pictures(data.on_after_batch_transfer(batch, 0), sources, *scale)
    return batch_pictures(batch, data.class_names, data.palette, *scale, background=data.classes.background)
