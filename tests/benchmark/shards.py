"""Whole-dataset stages by two ranks over one, on two cores: CRF and random walk of genuine photos, tiling of scenes.

Ranks are forked, so that no import is timed; beginning, dealing, waiting for each other and the summary are.
"""

import os
import resource
import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import frugalseg.commands.crf
import frugalseg.commands.walk
import frugalseg.data.tiling  # noqa: F401 - as the two above: ranks would import them, each for itself
from frugalseg.cli import main
from frugalseg.data.isaid5i import SUFFIX
from frugalseg.miniature.voc import write_voc_world
from tests.benchmark.data import REAL
from tests.benchmark.measure import Measured
from tests.benchmark.tiling import find_scenes
from tests.data.ranks import run_ranks
from tests.integration.labelling import Folders, make_folders

IMAGES = 60
"""Genuine photos whose labels are made; about 500 x 375 pixels. That is seconds of work, where data sets have hours: with 12,
half a second of meeting and of the last image alone costs a fifth of the speed-up."""
COPIES = 60
"""Of each genuine scene, or there would be two scenes for two ranks."""
Words = Callable[[Path], list[str]]


def two_over_one(quick: bool) -> dict[str, Measured]:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        labelled, note = _photos(folder, quick)
        raw, scenes = _scenes(folder, quick)
        stages: dict[str, tuple[Words, str]] = {
            "crf": (lambda out: _words(labelled, "crf", out, "--crf.kinds=[crf]"), note),
            "walk": (lambda out: _words(labelled, "walk", out, "--walk.kinds=[refined]"), note),
            "tiling": (lambda out: _tile(raw, out), scenes),
        }
        return {
            f"shards.{stage}_two_over_one": _measure(words, folder / stage, remark, 1 if quick else 3)
            for stage, (words, remark) in stages.items()
        }


def _photos(folder: Path, quick: bool) -> tuple[Folders, str]:
    """Photos with maps and edges made from their masks."""
    root = REAL / "VOCdevkit" / "VOC2012"
    if quick or not root.is_dir():
        world = write_voc_world(folder / "VOC2012", images_train=4, images_val=1, seed=0)
        return make_folders(world, folder), "NO genuine photos: a miniature world"
    return make_folders(root, folder, IMAGES), f"{IMAGES} genuine photos"


def _words(folders: Folders, verb: str, out: Path, *extra: str) -> list[str]:
    return folders.words(verb, f"--data.init_args.limit={IMAGES}", *extra, out=out)


def _scenes(folder: Path, quick: bool) -> tuple[Path, str]:
    """A few copies of each genuine scene."""
    found, note = find_scenes(folder)
    images = folder / "raw" / "train" / "images"
    images.mkdir(parents=True)
    copies = 1 if quick else COPIES
    for copy in range(copies):
        for number, (image, mask) in enumerate(found):
            stem = f"P{copy}{number:03}"
            shutil.copy(image, images / f"{stem}.png")
            shutil.copy(mask, images / f"{stem}{SUFFIX}.png")
    return folder / "raw", f"{note}, {copies} copies of each"


def _tile(raw: Path, out: Path) -> list[str]:
    return ["data", "prepare", "isaid5i", "--raw", str(raw), "--root", str(out), "--workers", "1"]


def _measure(words: Words, folder: Path, note: str, rounds: int) -> Measured:
    """Median over rounds of seconds of one rank over those of two.

    `cpu_value` tells what a quiet machine could give at best: twice the processor time of one rank over that of two.
    """
    seconds: dict[int, list[float]] = {1: [], 2: []}
    cpu: dict[int, list[float]] = {1: [], 2: []}
    load = os.getloadavg()[0]
    for turn in range(rounds):
        for world, taken in seconds.items():
            out, began, before = folder / f"{turn}-{world}", time.perf_counter(), _cpu()
            ended = run_ranks(world, main, words(out), folder=folder, limit=600)
            taken.append(time.perf_counter() - began)
            cpu[world].append(_cpu() - before)
            if any(end.code for end in ended):
                raise RuntimeError(f"a rank failed: {ended}")
            shutil.rmtree(out)
    ratios = [one / two for one, two in zip(seconds[1], seconds[2], strict=True)]
    extra = {
        "spread": [round(min(ratios), 4), round(max(ratios), 4)],
        "seconds": {f"{world} ranks": round(median(taken), 3) for world, taken in seconds.items()},
        "cpu_value": round(2 * median(cpu[1]) / median(cpu[2]), 4),
        "rounds": rounds,
        "load_before": round(load, 2),
        "cores": os.cpu_count(),
    }
    return Measured(median(ratios), note, extra)


def _cpu() -> float:
    """Processor seconds of all ranks that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime
