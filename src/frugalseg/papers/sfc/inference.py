"""Class maps of one image from a net, without its training (sfc.md section 6)."""

import logging
from collections.abc import Sequence

import torch
from torch import Tensor

from frugalseg.ops.cam import merge_scales
from frugalseg.papers.sfc.model import Maps, SFCNet

log = logging.getLogger(__name__)

KINDS = ("m0", "mw", "mp")
"""Maps that are made."""


def class_maps(
    net: SFCNet, pairs: Sequence[Tensor], tags: Tensor, size: tuple[int, int], max_pixels: int, name: str
) -> tuple[Tensor, dict[str, Tensor], list[Maps]]:
    """Maps of one image from the image and its mirror image at several scales.

    Args:
        net: in evaluation mode.
        pairs: per scale (2, 3, H_s, W_s).
        tags: (C,) 0/1.
        size: (H, W) of the image.
        max_pixels: an input with more pixels is looked at tile by tile, which gives the same maps in less memory.
        name: of the image, for messages.

    Returns:
        (k,) class ids, 0 first; kind -> (k, H, W) shaped as `merge_scales` says; and the passes, one per scale.
    """
    present = torch.cat([tags.new_ones(1), tags])
    keys = present.nonzero().flatten()
    passes = [net.infer(pair, present, _is_large(pair, max_pixels, name)) for pair in pairs]
    maps = {kind: merge_scales([getattr(found, kind)[0] for found in passes], size, keys) for kind in KINDS}
    return keys, maps, passes


def _is_large(pair: Tensor, max_pixels: int, name: str) -> bool:
    """Whether an input is looked at in tiles; says so."""
    height, width = pair.shape[-2:]
    if large := height * width > max_pixels:
        log.warning("%s: in tiles at %dx%d, more than max_pixels", name, height, width)
    return large
