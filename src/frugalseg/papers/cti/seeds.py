"""From passes over an image and its mirror image to seed maps at image size (cti.md sections 3 and 6)."""

from collections.abc import Sequence
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from frugalseg.ops.cam import min_max, resize
from frugalseg.papers.cti.passes import Pass, refine

Fit = Literal["crop", "pad", "resize"]
"""What becomes of pixels that fill no patch: dropped, and the map stretched over them, as the authors do (trap 7);
patches filled up with zeros; or the image resized to whole patches."""
KINDS = ("r", "mt", "f", "q")


class Fitted(NamedTuple):
    """An image, or several, made fit for the net."""

    images: Tensor
    """(N, 3, H', W')."""
    filled: tuple[int, int] | None
    """Height and width without the padding; None where maps cover the whole image."""


def fit_patches(images: Tensor, patch: int, fit: Fit, max_pixels: int) -> Fitted:
    """Bring images to a size that the net takes.

    Args:
        images: (N, 3, H, W).
        patch: side of a patch in pixels.
        fit: what to do with pixels that fill no patch.
        max_pixels: larger images are shrunk, for attention takes memory by the square of their pixels.

    Returns:
        `Fitted`.
    """
    height, width = images.shape[-2:]
    shrink = min(1.0, (max_pixels / (height * width)) ** 0.5)
    size = (max(1, int(height * shrink)), max(1, int(width * shrink)))
    if fit == "resize":
        size = (max(1, round(size[0] / patch)) * patch, max(1, round(size[1] / patch)) * patch)
    images = resize(images, size)
    if fit != "pad":
        return Fitted(images, None)
    return Fitted(F.pad(images, (0, -size[1] % patch, 0, -size[0] % patch)), size)


def map_kinds(found: Pass, channels: Tensor, kinds: Sequence[str]) -> dict[str, Tensor]:
    """Maps of some channels of one pass.

    Args:
        found: with the attention that the kinds need: rows for `mt`, `f` and `q`, patches for `q`.
        channels: (k,) tokens.
        kinds: of `KINDS`: `r` the head, `mt` class-to-patch attention, `f` their product, `q` it refined.

    Returns:
        kind -> (N, k, h, w), in the order of `kinds`.
    """
    maps: dict[str, Tensor] = {"r": found.scores.maps[:, channels]}
    if found.rows is not None:
        maps["mt"] = found.rows[:, channels]
        maps["f"] = maps["r"] * maps["mt"]
    if found.patches is not None:
        with torch.autocast(found.patches.device.type, enabled=False):
            maps["q"] = refine(found.patches, maps["f"])
    return {kind: maps[kind] for kind in kinds}


def unmirrored_sum(pair: Tensor, fitted: Fitted, size: tuple[int, int]) -> Tensor:
    """Maps of an image and its mirror image at image size, laid over each other.

    Args:
        pair: (2, k, h, w), the second of the mirror image.
        fitted: what the net has seen.
        size: (H, W) of the image.

    Returns:
        (k, H, W).
    """
    if not pair.shape[1]:
        return pair.new_zeros(0, *size)  # torch resizes no empty maps
    if fitted.filled is not None:
        height, width = fitted.filled
        pair = resize(pair, (fitted.images.shape[-2], fitted.images.shape[-1]))[..., :height, :width]
    full = resize(pair, size)
    return full[0] + full[1].flip(-1)


def merge(sums: Sequence[Tensor]) -> Tensor:
    """Seed maps from the sums of one scale or several.

    One scale is normalised as in the losses (cti.md section 6); the sum of several by plain minimum and maximum, as
    MCTformer's is (golden/cti/multiscale_merge).

    Args:
        sums: per scale (k, H, W).

    Returns:
        (k, H, W) in 0..1.
    """
    if len(sums) == 1:
        return min_max(sums[0])
    total = torch.stack(list(sums)).sum(dim=0)
    low, high = total.amin(dim=(-2, -1), keepdim=True), total.amax(dim=(-2, -1), keepdim=True)
    return (total - low) / (high - low + 1e-8)
