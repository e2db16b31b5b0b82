"""What class tokens and maps become in another view of the same image: kept beside the maps, for analysis alone.

I-CTI asks that a view's maps stay the same when the class tokens of another view are infused (cti.md section 4.3). How
equal the tokens and maps of two views are is measured from these arrays by `analysis.view_agreement`, and how far the
tokens of different classes lie apart by `analysis.tokens`.
"""

from typing import Final, NamedTuple

import torch
from torch import Tensor

from frugalseg.ops.cam import min_max, resize
from frugalseg.papers.cti.blocks import AttentionSums
from frugalseg.papers.cti.model import CTIViT
from frugalseg.papers.cti.seeds import fit_patches

ZOOM: Final = 1.25
"""Larger, since training crops enlarge too: what is measured is no alien size."""
CONTRAST: Final = 0.8
CAST: Final = (0.2, 0.0, -0.2)
"""A warm light, in standard deviations of each channel."""
MAPS: Final = ("r", "f")


class Looked(NamedTuple):
    """What one pass over one image gives, of the classes asked for."""

    infused: Tensor
    """(k, D) class tokens behind block `infusion`: what I-CTI and C-CTI infuse."""
    last: Tensor
    """(k, D) class tokens of the last block: what is classified."""
    maps: Tensor
    """(2, k, h, w) R and F = R * mt."""


def second_view(image: Tensor, patch: int) -> Tensor:
    """Mirrored, enlarged to whole patches, with less contrast and in a warmer light; the same for every image.

    Args:
        image: (1, 3, H, W) normalised.
        patch: side of a patch in pixels.

    Returns:
        (1, 3, H', W').
    """
    height, width = (max(1, round(side * ZOOM / patch)) * patch for side in image.shape[-2:])
    return CONTRAST * resize(image.flip(-1), (height, width)) + image.new_tensor(CAST)[:, None, None]


def view_arrays(net: CTIViT, image: Tensor, classes: Tensor, max_pixels: int) -> dict[str, Tensor]:
    """Tokens and maps of an image and of its second view, each by one pass without its mirror image.

    Args:
        net: on the image's device.
        image: (1, 3, H', W') normalised.
        classes: (k,) ids of the classes looked at, without the background's 0.
        max_pixels: a larger image is shrunk for the net.

    Returns:
        `tokens` and `tokens_infused` (2, k, D), and `views_r` and `views_f` (2, k, h, w) in 0..1; the second of each
        pair is of the second view, its maps laid back over the patches of the first.
    """
    patch, channels = net.patch_embed.patch, classes - 1 + net.first
    image = fit_patches(image, patch, "resize", max_pixels).images
    first, second = _look(net, image, channels), _look(net, second_view(image, patch), channels)
    grid = (first.maps.shape[-2], first.maps.shape[-1])
    # torch resizes no empty maps
    back = resize(second.maps, grid).flip(-1) if len(classes) else first.maps
    views = min_max(torch.stack([first.maps, back], dim=1))
    return {
        "tokens": torch.stack([first.last, second.last]),
        "tokens_infused": torch.stack([first.infused, second.infused]),
        **{f"views_{name}": maps for name, maps in zip(MAPS, views, strict=True)},
    }


def _look(net: CTIViT, image: Tensor, channels: Tensor) -> Looked:
    """One pass; as `CTIViT.forward`, but the last block's tokens are kept."""
    sums = AttentionSums(len(image), net.tokens, 0, None)
    x, grid = net.start(image)
    x = net.run(x, 0, net.infusion + 1, sums)
    infused = x[0, channels]
    x = net.run(x, net.infusion + 1, net.depth, sums)
    r = net.scores(x, grid).maps[0, channels]
    if sums.rows is None:
        raise RuntimeError("the attention of class tokens was not kept")
    mt = sums.rows.reshape(len(sums.rows), -1, *grid)[0, channels]
    return Looked(infused, x[0, channels], torch.stack([r, r * mt]))
