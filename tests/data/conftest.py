"""A tiny VOC tree, made anew for each test."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from frugalseg.data.io import write_mask
from frugalseg.ops.palette import voc_palette

# real ids, so that the packaged labels know them
TRAIN = ["2007_000032", "2007_000039", "2007_000063", "2007_000068", "2007_000121", "2007_000170", "2007_000241"]
VAL = ["2007_000033", "2007_000042", "2007_000061"]
SIZES = [(40, 60), (60, 40), (33, 47), (50, 50), (41, 64), (64, 30), (45, 45), (38, 52), (52, 38), (30, 61)]


def picture(height: int, width: int, seed: int) -> np.ndarray:
    """Noise on a ramp: every pixel and its mirror image are told apart."""
    ramp = np.linspace(0, 120, width)[None, :, None] + np.linspace(0, 80, height)[:, None, None]
    noise = np.random.default_rng(seed).integers(0, 55, (height, width, 3))
    return (ramp + noise).astype(np.uint8)


def make_voc(root: Path) -> Path:
    """VOC2012 layout: 7 training and 3 validation images with masks and no annotations."""
    for folder in ("JPEGImages", "SegmentationClass", "SegmentationClassAug", "ImageSets/Segmentation"):
        (root / folder).mkdir(parents=True)
    for number, (name, size) in enumerate(zip(TRAIN + VAL, SIZES, strict=True)):
        Image.fromarray(picture(*size, number)).save(root / f"JPEGImages/{name}.jpg", quality=95)
        ids = np.random.default_rng(number).integers(0, 21, size).astype(np.uint8)
        ids[:3] = 255
        for folder in ("SegmentationClass", "SegmentationClassAug"):
            write_mask(root / folder / f"{name}.png", ids, voc_palette())
    for split, ids in (("train", TRAIN), ("trainaug", TRAIN), ("val", VAL)):
        (root / f"ImageSets/Segmentation/{split}.txt").write_text("".join(f"{name}\n" for name in ids))
    return root


@pytest.fixture
def voc_root(tmp_path: Path) -> Path:
    return make_voc(tmp_path / "VOCdevkit" / "VOC2012")


@pytest.fixture
def write_split(voc_root: Path) -> Callable[[str, list[str]], None]:
    def write(split: str, lines: list[str]) -> None:
        (voc_root / f"ImageSets/Segmentation/{split}.txt").write_text("\n".join(lines))

    return write
