"""Masks drawn over their images: tinted areas with outlines, and a strip that names the classes."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from frugalseg.ops.palette import colourise, overlay

Picture = NDArray[np.uint8]
OPACITY = 0.45
LINE, SWATCH, GAP = 20, 12, 14
"""Heights and distances in the strip, in pixels."""


def draw(pixels: Picture, ids: Picture, palette: Picture, labels: Sequence[tuple[int, str]], bare: bool) -> Picture:
    """Draw a mask over its image.

    Args:
        pixels: (H, W, 3) uint8 RGB.
        ids: (H, W) class ids.
        palette: (256, 3).
        labels: ids of the classes in the mask and what the strip says of them, in its order.
        bare: whether class 0 is background, which is not tinted.

    Returns:
        (H + strip, W, 3) uint8.
    """
    colours = colourise(ids, palette)
    tinted, edge = overlay(pixels, colours, OPACITY), _outline(ids)
    if bare:
        tinted = np.where((ids == 0)[..., None], pixels, tinted)
        edge &= ids != 0
    tinted[edge] = colours[edge]
    return np.concatenate([tinted, _strip(pixels.shape[1], palette, labels)])


def _outline(ids: Picture) -> NDArray[np.bool_]:
    """Pixels with a neighbour of another class."""
    edge = np.zeros(ids.shape, dtype=np.bool_)
    across, down = ids[:, :-1] != ids[:, 1:], ids[:-1] != ids[1:]
    for part, differs in ((edge[:, :-1], across), (edge[:, 1:], across), (edge[:-1], down), (edge[1:], down)):
        part |= differs
    return edge


def _strip(width: int, palette: Picture, labels: Sequence[tuple[int, str]]) -> Picture:
    """(h, width, 3) of colours with their names, in as many lines as they need."""
    font = ImageFont.load_default(SWATCH)
    places, x, y = [], GAP // 2, 0
    for index, text in labels:
        text = text.encode("utf-8", "replace").decode()  # what cannot be encoded cannot be drawn
        needed = SWATCH + 4 + round(font.getlength(text)) + GAP
        if x > GAP // 2 and x + needed > width:
            x, y = GAP // 2, y + LINE
        places.append((index, text, x, y))
        x += needed
    canvas = Image.new("RGB", (width, y + LINE), "white")
    pen = ImageDraw.Draw(canvas)
    for index, text, left, top in places:
        box = (left, top + 4, left + SWATCH - 1, top + 3 + SWATCH)
        pen.rectangle(box, fill=(*map(int, palette[index]),), outline=(96, 96, 96))
        pen.text((left + SWATCH + 4, top + 3), text, fill="black", font=font)
    return np.asarray(canvas)
