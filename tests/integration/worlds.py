"""The miniature worlds behind their data modules, as small as learning allows."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from frugalseg.data import ADE20K, COCO, DLRSD, VOC, Cityscapes, ISAID5i
from frugalseg.data.coco_masks import make_masks
from frugalseg.data.isaid5i import training_tiles
from frugalseg.data.module import SegmentationData
from frugalseg.data.recipes import Recipe
from frugalseg.data.tiling import tile_dataset
from frugalseg.miniature.ade20k import write_ade20k_world
from frugalseg.miniature.cityscapes import write_cityscapes_world
from frugalseg.miniature.coco import write_coco_world
from frugalseg.miniature.dlrsd import write_dlrsd_world
from frugalseg.miniature.isaid import write_isaid_world
from frugalseg.miniature.voc import write_voc_world

BASE = "base"
"""Split of the isaid world: training tiles that are listed for no class of fold 0 (P2)."""


class World(NamedTuple):
    """How a world is written and read; crops of `side` pixels fit its pictures."""

    write: Callable[[Path, int], Path]
    module: type[SegmentationData]
    side: int
    batch: int


def _coco(root: Path, seed: int) -> Path:
    write_coco_world(root, 700, 150, seed=seed)
    for folder in ("train2014", "val2014"):
        make_masks(root, folder, workers=1)
    return root


def _isaid(root: Path, seed: int) -> Path:
    raw = write_isaid_world(root.with_name(f"{root.name}-raw"), 24, 8, seed=seed)
    tile_dataset(raw, root, tile=96, step=77, workers=1, lists=True)
    (root / "splits").mkdir()
    (root / "splits" / f"{BASE}.txt").write_text("".join(f"{tile}\n" for tile in sorted(training_tiles(root, 0))))
    return root


WORLDS = {
    "voc": World(lambda root, seed: write_voc_world(root, 700, 150, seed=seed), VOC, 64, 16),
    "coco": World(_coco, COCO, 64, 16),
    "ade20k": World(lambda root, seed: write_ade20k_world(root, 600, 150, seed=seed), ADE20K, 96, 8),
    "cityscapes": World(lambda root, seed: write_cityscapes_world(root, 300, 60, seed=seed), Cityscapes, 64, 16),
    "isaid": World(_isaid, ISAID5i, 96, 8),
    "dlrsd": World(lambda root, seed: write_dlrsd_world(root, 18, seed=seed, size=96), DLRSD, 96, 8),
}


def open_world(name: str, root: Path, recipe: Recipe, seed: int, **settings: Any) -> SegmentationData:
    """The data module of a written world."""
    world = WORLDS[name]
    return world.module(root, recipe, num_workers=0, seed=seed, **{"batch_size": world.batch, **settings})
