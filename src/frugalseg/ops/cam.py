"""Class activation maps: normalising, background, boxes of valid pixels, merging scales.

Notation: N images, C foreground classes, K = C + 1 channels with the background first. All resizing is bilinear
without antialiasing. Sources: sfc.md sections 2.3, 4 and 6.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

EPS = 1e-5


def normalise(maps: Tensor, eps: float = EPS) -> Tensor:
    """Divide every channel by (its spatial maximum + eps).

    Args:
        maps: (..., H, W), not negative.
        eps: keeps empty channels at 0.

    Returns:
        Same shape. The gradient also flows through the maximum.
    """
    return maps / (maps.amax(dim=(-2, -1), keepdim=True) + eps)


def min_max(maps: Tensor, eps: float = EPS) -> Tensor:
    """Rectify every channel, take off its minimum and divide by its range (n(.) of cti.md section 3).

    Args:
        maps: (..., H, W).
        eps: taken off too, and added to the range: a constant channel gives 0, the largest value is a little below 1.

    Returns:
        Same shape, 0..1. The gradient also flows through minimum and maximum.
    """
    maps = maps.relu()
    low, high = maps.amin(dim=(-2, -1), keepdim=True), maps.amax(dim=(-2, -1), keepdim=True)
    return (maps - low - eps).relu() / (high - low + eps)


def background_score(foreground: Tensor) -> Tensor:
    """One minus the largest foreground score of each pixel, over ALL classes, absent ones too (sfc.md, trap 10).

    Args:
        foreground: (..., C, H, W) scores in [0, 1].

    Returns:
        (..., 1, H, W).
    """
    return 1.0 - foreground.amax(dim=-3, keepdim=True)


def with_background(logits: Tensor) -> Tensor:
    """Rectify and normalise class logits and put the background in front (M0 of sfc.md 2.3, before masking).

    Args:
        logits: (..., C, H, W).

    Returns:
        (..., K, H, W) in [0, 1].
    """
    foreground = normalise(logits.relu())
    return torch.cat([background_score(foreground), foreground], dim=-3)


def resize(maps: Tensor, size: tuple[int, int], align_corners: bool = False) -> Tensor:
    """Bilinear resize of (N, C, H, W) to `size`; returns the argument itself where the size is right already."""
    # in a graph whose sides are open the question has no answer; interpolation at the same size changes nothing
    if not torch.compiler.is_exporting() and maps.shape[-2:] == torch.Size(size):
        return maps
    return F.interpolate(maps, size=size, mode="bilinear", align_corners=align_corners)


def box_mask(box: Tensor, size: tuple[int, int], grid: tuple[int, int]) -> Tensor:
    """The box of valid pixels on a coarse grid: whether the top-left pixel of each cell lies inside.

    On grids that a network's stride gives, at full and at half scale, this equals torch's nearest resize of the
    full-size mask (tested), which need not be built; on others torch's float32 positions may differ by a pixel.

    Args:
        box: (N, 4) integer y0, x0, y1, x1 (end exclusive) in pixels.
        size: (H, W) of the image that the boxes refer to.
        grid: (h, w) of the result.

    Returns:
        (N, 1, h, w) bool.
    """
    inside = []
    for low, high, pixels, cells in (
        (box[:, 0], box[:, 2], size[0], grid[0]),
        (box[:, 1], box[:, 3], size[1], grid[1]),
    ):
        source = torch.arange(cells, device=box.device) * pixels // cells
        inside.append((source >= low[:, None]) & (source < high[:, None]))
    return (inside[0][:, :, None] & inside[1][:, None, :])[:, None]


def merge_scales(maps: Sequence[Tensor], size: tuple[int, int], keys: Tensor) -> Tensor:
    """Sum maps of several input scales at image size and shape the scores (sfc.md section 6).

    Only the wanted channels are resized: channels do not mix.

    Args:
        maps: per scale (K, h_s, w_s), background first.
        size: (H, W) of the image.
        keys: (k,) channel ids to keep; the first must be 0, the background.

    Returns:
        (k, H, W): background value + 0.4, foreground 2 x value, after division by the channel maximum.

    Raises:
        ValueError: no maps, or `keys` does not begin with the background.
    """
    if not maps or not len(keys) or int(keys[0]) != 0:
        raise ValueError("merge_scales needs at least one map, and keys that begin with 0, the background")
    merged = normalise(torch.stack([resize(m[keys][None], size)[0] for m in maps]).sum(dim=0))
    return torch.cat([merged[:1] + 0.4, merged[1:] * 2.0])


RULES: dict[str, dict[str, float]] = {
    "m0": {"m0": 1.0},
    "mw": {"mw": 1.0},
    "mp": {"mp": 1.0},
    "sum": {"mw": 1.0, "mp": 1.0},
    "seed": {"mw": 1.0, "mp": 0.7},
    "walk": {"mw": 1.0, "mp": 0.3},
}
"""Weights of the maps in each rule of sfc.md section 6: `mp` CAM evaluation, `seed` IRN seed labels, `walk` random
walk, `sum` the paper; `m0` and `mw` score the classifier's maps alone."""


def combine(maps: dict[str, Tensor], rule: str) -> Tensor:
    """Weighted sum of shaped maps by one of `RULES`.

    Args:
        maps: name -> (k, H, W).
        rule: a key of `RULES`.

    Returns:
        (k, H, W).

    Raises:
        KeyError: unknown rule, or a map that the rule needs is not there.
    """
    weights = RULES[rule]
    return torch.stack([maps[name] * weight for name, weight in weights.items()]).sum(dim=0)


def labels_from_maps(maps: Tensor, keys: Tensor) -> Tensor:
    """Class id with the highest score at each pixel.

    Args:
        maps: (k, H, W).
        keys: (k,) class id of each channel.

    Returns:
        (H, W) int64.
    """
    # max(...).indices is argmax, and on the CPU many times faster over a leading dimension
    return keys.long()[maps.max(dim=0).indices]
