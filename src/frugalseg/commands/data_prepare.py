"""`frugalseg data prepare`: conversions that are made once; each continues where it was stopped."""

import argparse
from functools import partial
from pathlib import Path
from typing import Any

from frugalseg.commands.progress import counter
from frugalseg.data.team import Team, alone
from frugalseg.errors import ConfigError


def add_parser(actions: Any) -> None:
    """Add `prepare` to the actions of `frugalseg data`."""
    prepare = actions.add_parser("prepare", help="SBD masks, COCO masks, iSAID tiles, tags of your own masks")
    what = prepare.add_subparsers(dest="what", required=True)
    voc = what.add_parser("sbd", help="SBD's .mat files -> VOC2012/SegmentationClassAug")
    voc.add_argument("--sbd", type=Path, required=True, help="folder benchmark_RELEASE")
    voc.add_argument("--root", type=Path, required=True, help="folder VOCdevkit/VOC2012")
    coco = what.add_parser("coco", help="instances json -> semantic masks in SegmentationClass/")
    coco.add_argument("--root", type=Path, required=True)
    coco.add_argument("--folders", nargs="+", default=["train2014", "val2014"], help="such as train2017 val2017")
    coco.add_argument("--crowd", choices=["class", "ignore"], default="class", help="what crowd regions become")
    isaid = what.add_parser("isaid5i", help="raw iSAID scenes -> 256-pixel tiles")
    isaid.add_argument("--raw", type=Path, required=True, help="folder that holds train/images and val/images")
    isaid.add_argument("--root", type=Path, required=True, help="folder for the tiles")
    isaid.add_argument("--tile", type=int, default=256, help="side in pixels")
    isaid.add_argument("--step", type=int, default=206, help="pixels from tile to tile")
    isaid.add_argument("--foreground", type=float, default=0.1, help="share above which a tile is kept")
    isaid.add_argument("--lists", action="store_true", help="also write pair lists, for scenes without official ones")
    folder = what.add_parser("folder", help="tags.csv of your own folder, from its masks")
    folder.add_argument("--root", type=Path, required=True, help="folder that holds masks and classes.txt")
    folder.add_argument("--pixels", type=int, default=1, help="that a class must have in a mask")
    for parser in (voc, coco, isaid, folder):
        parser.add_argument("--workers", type=int, help="processes; default: all cores")


def run_prepare(options: argparse.Namespace) -> int:
    """Run one conversion; processes that were started together share iSAID's scenes."""
    if options.what == "isaid5i":
        return _cut_scenes(options)
    return alone(partial(_make_tags if options.what == "folder" else _make_masks, options))


def _make_masks(options: argparse.Namespace) -> int:
    from frugalseg.data import coco_masks, sbd  # they import Lightning, for which `data get` need not wait

    progress = counter(f"prepare {options.what}")
    if options.what == "sbd":
        count = sbd.convert(options.sbd, options.root, options.workers, progress)
        print(f"{options.root}/SegmentationClassAug: {count:,} masks written")
    else:
        for folder in options.folders:
            count = coco_masks.make_masks(options.root, folder, options.workers, options.crowd, progress)
            print(f"{options.root}/SegmentationClass/{folder}: {count:,} masks written")
    return 0


def _make_tags(options: argparse.Namespace) -> int:
    from frugalseg.data.folder_write import write_tags

    if options.pixels < 1:
        raise ConfigError(f"--pixels {options.pixels}: give a number from 1 upward")
    count = write_tags(options.root, options.pixels, options.workers, counter("prepare folder"))
    print(f"{options.root}/tags.csv: {count:,} rows written")
    return 0


def _cut_scenes(options: argparse.Namespace) -> int:
    from frugalseg.data import tiling

    with Team() as team:
        tiles = tiling.tile_dataset(
            options.raw,
            options.root,
            tile=options.tile,
            step=options.step,
            foreground=options.foreground,
            workers=options.workers,
            progress=counter("prepare isaid5i"),
            lists=options.lists,
            team=team,
        )
        if tiles:
            print(f"{options.root}: {', '.join(f'{split} {count:,}' for split, count in tiles.items())} tiles")
    return team.code
