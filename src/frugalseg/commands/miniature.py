"""`frugalseg miniature`: write a small synthetic world in a benchmark's official layout."""

import argparse
from pathlib import Path

from frugalseg.commands.progress import counter
from frugalseg.miniature.attributes import write_attribute_world
from frugalseg.miniature.voc import write_voc_world


def run(argv: list[str]) -> int:
    """Write a world; an interrupted one is finished, a complete one is left alone."""
    parser = argparse.ArgumentParser("frugalseg miniature", description=__doc__)
    worlds = parser.add_subparsers(dest="world", required=True)
    voc = worlds.add_parser("voc", help="12 classes, long-tailed, head and tail classes share their bodies")
    attributes = worlds.add_parser("attributes", help="random objects tagged with colours, textures and shapes")
    for world, images in ((voc, 700), (attributes, 4000)):
        world.add_argument("--root", type=Path, required=True, help="folder that plays the part of VOC2012")
        world.add_argument("--seed", type=int, default=0)
        world.add_argument("--size", type=int, default=64, help="side in pixels, from 64 upward")
        world.add_argument("--images", type=int, default=images, help="pictures for training")
        world.add_argument("--images-val", type=int, default=150, help="pictures for validation")
    voc.add_argument("--balanced", action="store_true", help="the twin in which all classes are equally frequent")
    o = parser.parse_args(argv)
    progress = counter(f"{o.world} world")
    if o.world == "voc":
        write_voc_world(o.root, o.images, o.images_val, o.seed, o.size, o.balanced, progress)
    else:
        write_attribute_world(o.root, o.images, o.seed, o.size, o.images_val, progress)
    return 0
