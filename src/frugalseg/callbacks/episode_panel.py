"""One picture of a few-shot episode: what is given, what is true, and what was found on the way to the answer."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from frugalseg.batch import IGNORE_INDEX
from frugalseg.ops.cam import resize
from frugalseg.ops.few_shot import count_episode
from frugalseg.ops.palette import colourise, heat, overlay

Picture = NDArray[np.uint8]

CAPTION, GAP, NARROWEST = 18, 4, 192
"""Pixels: height of a caption, distance between cells, and width below which a cell's pixels are repeated."""
SHOWN = 5
"""Supports that are drawn, at most."""

_TINTS = np.zeros((256, 3), np.uint8)
_TINTS[1], _TINTS[IGNORE_INDEX] = (224, 24, 24), (120, 120, 120)


class Drawn(NamedTuple):
    """What a panel shows of an episode; K supports, all images and masks of one size (H, W)."""

    query: Picture
    """(H, W, 3)."""
    truth: NDArray[np.integer[Any]]
    """(H, W): 1 the class, 0 everything else, 255 ignored."""
    supports: Picture
    """(K, H, W, 3)."""
    support_masks: NDArray[np.integer[Any]]
    """(K, H, W), as `truth`."""
    prediction: NDArray[np.integer[Any]]
    """(H, W): 0 or 1."""
    prior: NDArray[np.floating[Any]] | None
    """(h, w) in 0..1, where the method has one."""
    graph_maps: Sequence[NDArray[np.floating[Any]]]
    """(h_l, w_l) in 0..1, one for each graph stage; none for methods without."""
    label: str
    """The class."""


def episode_panel(episode: Drawn) -> Picture:
    """Supports, query, truth and prediction in one row; below, the heats of the maps over the query.

    The class is tinted red, ignored pixels are tinted grey. Heats run from blue (0) to red (1) and are not stretched.
    Rows end at the right, so that maps lie below the query and not below supports.

    Args:
        episode: what to draw.

    Returns:
        (height, width, 3); the second row is missing where there are no maps.
    """
    query, shots = episode.query, len(episode.supports)
    first = {}
    for shot in range(min(shots, SHOWN)):
        of_all = f" of {shots}" if shots > SHOWN else ""
        first[f"support {shot + 1}{of_all}"] = tinted(episode.supports[shot], episode.support_masks[shot])
    first["query"] = query
    first[f"truth {episode.label}"] = tinted(query, episode.truth)
    first[f"prediction {iou_text(episode.prediction, episode.truth)}"] = tinted(query, episode.prediction)
    maps = {} if episode.prior is None else {"prior": episode.prior}
    maps |= {f"graph stage {number}": map_ for number, map_ in enumerate(episode.graph_maps, start=1)}
    second = {caption: heated(query, map_) for caption, map_ in maps.items()}
    rows = [_row(cells) for cells in (first, second) if cells]
    width = max(row.shape[1] for row in rows)
    return np.concatenate(
        [np.pad(row, ((0, 0), (width - row.shape[1], 0), (0, 0)), constant_values=255) for row in rows]
    )


def tinted(image: Picture, mask: NDArray[np.integer[Any]]) -> Picture:
    """Tint the pixels of the class (1) red and ignored ones (255) grey; both (H, W)."""
    return np.where((mask == 0)[..., None], image, overlay(image, colourise(mask, _TINTS)))


def heated(image: Picture, map_: NDArray[np.floating[Any]]) -> Picture:
    """Lay a map (h, w) in 0..1, resized bilinearly, over an image as heat."""
    scores = torch.as_tensor(map_, dtype=torch.float32)[None, None]
    return overlay(image, heat(resize(scores, (image.shape[0], image.shape[1]))[0, 0].numpy()))


def iou_text(prediction: NDArray[np.integer[Any]], truth: NDArray[np.integer[Any]]) -> str:
    """IoU of the class in percent, counted as the scores are; says so where neither mask has a pixel of it."""
    pixels = count_episode(torch.as_tensor(prediction).long(), torch.as_tensor(truth).long(), IGNORE_INDEX)
    hits, union = int(pixels.intersection[1]), int(pixels.union[1])
    return f"IoU {100 * hits / union:.1f} %" if union else "IoU undefined"


def _row(cells: dict[str, Picture]) -> Picture:
    """Put captioned pictures of one size side by side."""
    return np.concatenate([_captioned(picture, caption) for caption, picture in cells.items()], axis=1)


def _captioned(picture: Picture, text: str) -> Picture:
    """Enlarge a small picture by whole pixels and put a line of text above it, white to its right and below it."""
    factor = -(-NARROWEST // picture.shape[1])
    large = picture.repeat(factor, axis=0).repeat(factor, axis=1)
    height, width = large.shape[:2]
    canvas = Image.new("RGB", (width + GAP, height + CAPTION + GAP), "white")
    canvas.paste(Image.fromarray(large), (0, CAPTION))
    ImageDraw.Draw(canvas).text((2, 1), text, fill="black", font=ImageFont.load_default(13))
    return np.asarray(canvas)
