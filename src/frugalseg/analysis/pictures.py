"""Grids of pictures: batches of any recipe, and class maps beside image and truth."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from frugalseg.analysis.maps import read_maps
from frugalseg.data.base import Sample
from frugalseg.data.io import read_image, read_mask
from frugalseg.ops.cam import combine
from frugalseg.ops.palette import colourise, heat, overlay
from frugalseg.run import draft

Picture = NDArray[np.uint8]
CAPTION = 14


def denormalise(image: torch.Tensor, mean: Sequence[float], std: Sequence[float]) -> Picture:
    """(3, H, W) normalised -> (H, W, 3) uint8."""
    pixels = image.float().permute(1, 2, 0).numpy() * np.asarray(std) + np.asarray(mean)
    return np.asarray((np.clip(pixels, 0, 1) * 255).round(), dtype=np.uint8)


def enlarged(picture: Picture, side: int = 192) -> Picture:
    """Repeat the pixels of a small picture so that its shorter side has at least `side` of them."""
    factor = -(-side // min(picture.shape[:2]))
    return picture.repeat(factor, axis=0).repeat(factor, axis=1)


def captioned(picture: Picture, text: str) -> Picture:
    """Put one line of text over a picture."""
    canvas = Image.new("RGB", (picture.shape[1], picture.shape[0] + CAPTION), "white")
    canvas.paste(Image.fromarray(picture), (0, CAPTION))
    ImageDraw.Draw(canvas).text((2, 1), text, fill="black")
    return np.asarray(canvas)


def grid(pictures: Sequence[Picture], columns: int) -> Picture:
    """Arrange pictures row by row on white; cells are as large as the largest picture.

    Raises:
        ValueError: no pictures.
    """
    if not pictures:
        raise ValueError("a grid needs at least one picture")
    height, width = (max(p.shape[axis] for p in pictures) for axis in (0, 1))
    columns = min(columns, len(pictures))
    rows = -(-len(pictures) // columns)
    canvas = np.full((rows * (height + 4), columns * (width + 4), 3), 255, dtype=np.uint8)
    for number, picture in enumerate(pictures):
        y, x = number // columns * (height + 4), number % columns * (width + 4)
        canvas[y : y + picture.shape[0], x : x + picture.shape[1]] = picture
    return canvas


def with_box(picture: Picture, box: Sequence[int]) -> Picture:
    """Outline the valid pixels y0, x0, y1, x1 (end exclusive) in red."""
    canvas = Image.fromarray(picture)
    y0, x0, y1, x1 = box
    if y1 > y0 and x1 > x0:
        ImageDraw.Draw(canvas).rectangle((x0, y0, x1 - 1, y1 - 1), outline=(224, 24, 24))
    return np.asarray(canvas)


def batch_pictures(
    batch: Any,
    names: Sequence[str],
    palette: Picture,
    mean: Sequence[float],
    std: Sequence[float],
    background: bool = True,
) -> list[Picture]:
    """One picture per image of a batch: crop with its box, mask where there is one, tags as caption.

    Args:
        batch: `TagBatch`, `SegBatch` or `ScalesBatch`.
        names: K class names, background first.
        palette: (256, 3).
        mean: of the normalisation.
        std: of the normalisation.
        background: whether class 0 is the background, which is no tag.
    """
    if "images" in batch:
        pairs = [denormalise(image, mean, std) for pair in batch["images"] for image in pair]
        return [captioned(grid(pairs, 2), batch["id"][0])]
    pictures = []
    for number, name in enumerate(batch["id"]):
        picture = with_box(denormalise(batch["image"][number], mean, std), batch["box"][number].tolist())
        if "mask" in batch:
            painted = overlay(picture, colourise(batch["mask"][number].numpy(), palette), 0.65)
            picture = np.concatenate([picture, painted], axis=1)
        shown = batch["tags"][number].nonzero().flatten().tolist() if "tags" in batch else []
        tags = [names[tag + background] for tag in shown]
        pictures.append(captioned(picture, f"{name} {', '.join(tags)}"))
    return pictures


def map_panel(sample: Sample, folder: Path, names: Sequence[str], palette: Picture, rule: str = "sum") -> Picture:
    """Image, a heat overlay per present class, labels of a rule, and the truth, side by side.

    Args:
        sample: with image and perhaps mask.
        folder: maps.
        names: K class names.
        palette: (256, 3).
        rule: of `ops.cam.RULES`; M0 alone where the maps lack what the rule needs.

    Raises:
        MapsError: the maps are missing or damaged.
    """
    image = read_image(sample.image)
    arrays = read_maps(folder / f"{sample.id}.npz")
    keys = arrays["keys"].astype(np.int64)
    maps: dict[str, torch.Tensor] = {
        n: torch.as_tensor(arrays[n].astype(np.float32)) for n in ("m0", "mw", "mp") if n in arrays
    }
    scores = combine(maps, rule if {"mw", "mp"} <= set(maps) else next(iter(maps))).numpy()
    panels = [captioned(enlarged(image), sample.id)]
    for row, key in enumerate(keys[1:], start=1):
        strength = scores[row] / max(float(scores[row].max()), 1e-6)
        panels.append(captioned(enlarged(overlay(image, heat(strength))), names[key]))
    labels = keys[scores.argmax(axis=0)]
    panels.append(captioned(enlarged(overlay(image, colourise(labels, palette), 0.65)), f"labels ({rule})"))
    if sample.mask is not None:
        truth = read_mask(sample.mask, len(names), code=sample.code)
        panels.append(captioned(enlarged(overlay(image, colourise(truth, palette), 0.65)), "truth"))
    return np.concatenate(panels, axis=1)


def save_png(path: Path, picture: Picture) -> None:
    """Write a picture whole or not at all."""
    with draft(path) as temporary:
        Image.fromarray(picture).save(temporary, format="PNG")
