"""`frugalseg miniature`: write a small synthetic world in a benchmark's official layout."""

import argparse
from collections.abc import Callable, Mapping
from importlib import import_module
from pathlib import Path
from typing import Final, NamedTuple

from frugalseg.commands.progress import counter


class _World(NamedTuple):
    """One kind of world.

    Attributes:
        help: What is in it.
        writer: Imports and gives the function that writes it; whatever is not on the command line is left to its
            defaults.
        counts: Option -> (parameter of the writer, help).
        twin: The writer takes `balanced`.
        forms: The writer takes `forms`.
    """

    help: str
    writer: Callable[[], Callable[..., Path]]
    counts: Mapping[str, tuple[str, str]]
    twin: bool = False
    forms: bool = False


_VAL: Final = {"--images-val": ("images_val", "pictures for validation")}
_SPLITS: Final = {"--images": ("images_train", "pictures for training"), **_VAL}
_WORLDS: Final = {
    "voc": _World(
        "VOC: 12 classes, long-tailed, head and tail classes share their bodies",
        lambda: import_module("frugalseg.miniature.voc").write_voc_world,
        _SPLITS,
        twin=True,
    ),
    "attributes": _World(
        "for pre-training, as VOC: random objects tagged with colours, textures and shapes",
        lambda: import_module("frugalseg.miniature.attributes").write_attribute_world,
        {"--images": ("images", "pictures for training"), **_VAL},
    ),
    "coco": _World(
        "COCO 2014: the objects of the VOC world, with polygons, crowds and overlaps",
        lambda: import_module("frugalseg.miniature.coco").write_coco_world,
        _SPLITS,
        twin=True,
    ),
    "ade20k": _World(
        "ADE20K: regions of five textures on a plain ground",
        lambda: import_module("frugalseg.miniature.ade20k").write_ade20k_world,
        _SPLITS,
        forms=True,
    ),
    "cityscapes": _World(
        "Cityscapes: streets with houses, cars and people; --size is the height",
        lambda: import_module("frugalseg.miniature.cityscapes").write_cityscapes_world,
        _SPLITS,
    ),
    "isaid": _World(
        "iSAID: aerial scenes with objects of 15 classes",
        lambda: import_module("frugalseg.miniature.isaid").write_isaid_world,
        {"--scenes": ("scenes_train", "scenes for training"), "--scenes-val": ("scenes_val", "scenes for validation")},
    ),
    "dlrsd": _World(
        "DLRSD: aerial pictures, all of whose pixels are labelled, in folders by kind of place",
        lambda: import_module("frugalseg.miniature.dlrsd").write_dlrsd_world,
        {"--images": ("images_per_folder", "pictures in each folder")},
    ),
}


def run(argv: list[str]) -> int:
    """Write a world; an interrupted one is finished, a complete one is left alone."""
    parser = argparse.ArgumentParser("frugalseg miniature", description=__doc__)
    worlds = parser.add_subparsers(dest="world", required=True)
    for name, world in _WORLDS.items():
        options = worlds.add_parser(name, help=world.help, description=world.help, argument_default=argparse.SUPPRESS)
        options.add_argument("--root", type=Path, required=True, help="folder of the world, as the benchmark's own")
        options.add_argument("--seed", type=int)
        options.add_argument("--size", type=int, help="side of a picture in pixels, from 64 upward")
        for option, (parameter, what) in world.counts.items():
            options.add_argument(option, dest=parameter, type=int, help=what)
        if world.forms:
            options.add_argument("--forms", action="store_true", help="thin and small regions too, by class")
        if world.twin:
            options.add_argument("--balanced", action="store_true", help="the twin: all classes equally frequent")
    settings = vars(parser.parse_args(argv))
    name = settings.pop("world")
    _WORLDS[name].writer()(**settings, progress=counter(f"{name} world"))
    return 0
