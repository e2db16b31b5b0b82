"""Cutting genuine iSAID scenes into tiles against a plain Pillow pipeline, on one core."""

import os
import tempfile
from pathlib import Path
from statistics import median

import numpy as np
from PIL import Image

from frugalseg.data.isaid5i import COLOURS, SUFFIX
from frugalseg.data.tiles import FOREGROUND, STEP, TILE, tile_scene
from tests.benchmark.measure import REPOSITORY, Measured, interleave, ratio

REAL = Path(os.environ.get("FRUGALSEG_REAL_DATA", REPOSITORY.parent / "shared" / "real"))


def find_scenes(folder: Path) -> tuple[list[tuple[Path, Path]], str]:
    """The genuine scenes with their masks, else blocks of colour written to `folder`; and a remark on which."""
    images = sorted(p for p in (REAL / "iSAID_raw").glob("*/images/*.png") if not p.stem.endswith(SUFFIX))
    if images:
        return [(image, image.with_name(f"{image.stem}{SUFFIX}.png")) for image in images], "2 genuine iSAID scenes"
    rng = np.random.default_rng(0)
    image, mask = folder / "P0000.png", folder / f"P0000{SUFFIX}.png"
    Image.fromarray(rng.integers(0, 64, (1000, 1000, 3), np.uint8)).save(image)
    ids = np.kron(rng.integers(0, 16, (10, 10)) * rng.integers(0, 2, (10, 10)), np.ones((100, 100), int))
    Image.fromarray(COLOURS[ids]).save(mask)
    return [(image, mask)], "NO genuine scenes: one of noise"


def plain(image: Path, mask: Path, folder: Path) -> int:
    """What one writes down first: a comparison per colour, Pillow's crops, Pillow's PNGs."""
    scene, colours = Image.open(image).convert("RGB"), np.asarray(Image.open(mask).convert("RGB"))
    ids = np.zeros(colours.shape[:2], np.uint8)
    for class_id, colour in enumerate(COLOURS):
        ids[(colours == colour).all(axis=2)] = class_id
    labels, written = Image.fromarray(ids), 0
    last_y, last_x = scene.height - TILE, scene.width - TILE
    for y in [*range(0, last_y, STEP), last_y]:
        for x in [*range(0, last_x, STEP), last_x]:
            box = (x, y, x + TILE, y + TILE)
            label = labels.crop(box)
            if np.count_nonzero(label) > FOREGROUND * TILE**2:
                stem = f"{image.stem}_{y}_{y + TILE}_{x}_{x + TILE}"
                scene.crop(box).save(folder / "images" / f"{stem}.png")
                label.save(folder / "semantic_png" / f"{stem}{SUFFIX}.png")
                written += 1
    return written


def tiling(quick: bool) -> dict[str, Measured]:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        scenes, note = find_scenes(folder)
        for side in ("ours", "pil"):
            for part in ("images", "semantic_png"):
                (folder / side / part).mkdir(parents=True)

        def ours() -> int:
            return sum(len(tile_scene(image, mask, folder / "ours")) for image, mask in scenes)

        def pil() -> int:
            return sum(plain(image, mask, folder / "pil") for image, mask in scenes)

        tiles = ours()
        if pil() != tiles:
            raise RuntimeError("the two pipelines keep different tiles")
        times = interleave({"tiling": ours, "pil": pil}, 1 if quick else 7)
        sizes = {side: sum(p.stat().st_size for p in (folder / side).rglob("*.png")) for side in ("ours", "pil")}
    value = ratio(times, "pil", "tiling")
    note = f"{note}, {tiles} tiles kept"
    extra = {**value.extra, "bytes_over_pil": round(sizes["ours"] / sizes["pil"], 3)}
    return {
        "data.tiling": Measured(tiles / median(cpu for _, cpu in times["tiling"]), note),
        "data.tiling_over_pil": Measured(value.value, note, extra),
    }
