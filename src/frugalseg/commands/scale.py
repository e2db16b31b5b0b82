"""`frugalseg scale`: write episodes whose support and query show objects of unequal size.

Reads the masks of the test pairs of a fold and nothing else, so that the episodes stand before anything is trained:
support in the smallest third of a class's images by their largest object, query in the largest third
(`small-large.csv`), and the other way round (`large-small.csv`). Takes the `data` section of any few-shot experiment;
the files are run by the recipe's `episodes_file`.
"""

import argparse
from pathlib import Path

from frugalseg.analysis.scale_change import DIRECTIONS, largest_object, scale_episodes
from frugalseg.commands.data_settings import build_data
from frugalseg.data.episode_files import write_episodes
from frugalseg.data.episodes import Episodes
from frugalseg.data.io import read_mask
from frugalseg.data.module import SegmentationData
from frugalseg.errors import ConfigError, DatasetError


def run(argv: list[str]) -> int:
    """Write both files."""
    parser = argparse.ArgumentParser("frugalseg scale", description=__doc__, allow_abbrev=False)
    parser.add_argument("--config", action="append", default=[], help="experiment YAML; may be repeated")
    parser.add_argument("--out", type=Path, required=True, help="folder of both files")
    parser.add_argument("--count", type=int, default=300, help="episodes of each direction; default: 300")
    parser.add_argument("--seed", type=int, default=0, help="of the draws; default: 0")
    options, rest = parser.parse_known_args(argv)
    if options.count < 1 or options.seed < 0:
        raise ConfigError(f"--count {options.count} --seed {options.seed}: give at least 1 episode and a seed from 0")
    data = build_data(options.config, rest, verb="scale")
    if not isinstance(data.recipe, Episodes):
        raise ConfigError(f"data.recipe is {type(data.recipe).__name__}, which has no episodes; set it to Episodes")
    areas, shots = object_areas(data), data.recipe.shots
    about = f"benchmark {type(data).__name__}, split {data.splits['test']}, fold {data.fold}, shots {shots}"
    try:
        drawn = {way: scale_episodes(areas, way, options.count, shots, options.seed) for way in DIRECTIONS}
    except ValueError as error:
        raise DatasetError(f"{data.root}: {error}; add images, or lower recipe.shots") from None
    for way, rows in drawn.items():
        path = options.out / f"{way}.csv"
        write_episodes(path, rows, f"{about}, objects {way} by the masks, seed {options.seed}")
        queries = len({(row.class_id, row.query) for row in rows})
        print(f"{path}: {len(rows)} episodes of {queries} queries in {len(areas)} classes")
    return 0


def object_areas(data: SegmentationData) -> dict[int, dict[str, int]]:
    """Area of the largest object of every test pair; each mask is read once.

    Args:
        data: a few-shot benchmark with recipe `Episodes`.

    Returns:
        Class id -> image -> pixels.

    Raises:
        DatasetError: an image has no mask, or its mask does not show a class for which it is listed.
    """
    data.setup("test")
    samples, table = data.samples("test"), data.episode_table("test")
    listed: dict[int, list[int]] = {}
    for class_id, members in table.members.items():
        for index in members.tolist():
            listed.setdefault(index, []).append(class_id)
    areas: dict[int, dict[str, int]] = {class_id: {} for class_id in table.members}
    for index in sorted(listed):
        sample = samples[index]
        if sample.mask is None:
            raise DatasetError(f"{sample.id}: an episode needs masks; add it or choose another split")
        mask = read_mask(sample.mask, data.num_classes, code=sample.code)
        for class_id in listed[index]:
            if not (area := largest_object(mask, class_id)):
                raise DatasetError(f"{sample.mask}: shows no pixel of class {class_id}; take it off the pair list")
            areas[class_id][sample.id] = area
    return areas
