"""Seed maps of one image from a net, without its training (cti.md section 6)."""

from collections.abc import Sequence

import torch
from torch import Tensor

from frugalseg.papers.cti.memory import ClassMemory
from frugalseg.papers.cti.model import CTIViT
from frugalseg.papers.cti.passes import Pass
from frugalseg.papers.cti.seeds import Fit, fit_patches, map_kinds, merge, unmirrored_sum


def seed_maps(
    net: CTIViT,
    pairs: Sequence[Tensor],
    tags: Tensor,
    size: tuple[int, int],
    kinds: Sequence[str] = ("q",),
    fit: Fit = "crop",
    max_pixels: int = 1_500_000,
    memory: ClassMemory | None = None,
) -> tuple[Tensor, dict[str, Tensor]]:
    """Maps of one image from the image and its mirror image at one scale or several.

    Args:
        net: in evaluation mode.
        pairs: per scale (2, 3, H_s, W_s).
        tags: (C,) 0/1.
        size: (H, W) of the image.
        kinds: of `seeds.KINDS`.
        fit: what becomes of pixels that fill no patch.
        max_pixels: larger images are shrunk for the net; their maps keep full size.
        memory: once it is full, its prototypes are infused in a pass of their own: `infused`.

    Returns:
        (k,) class ids, 0 first, and kind -> (k, H, W) in 0..1, whose first row is the background token's map.

    Raises:
        ImageError: the image is smaller than one patch.
    """
    keys = torch.cat([tags.new_ones(1), tags]).nonzero().flatten()
    channels = keys if net.first else (keys[1:] - 1)
    rows_from = None if list(kinds) == ["r"] else 0
    patches_from = 0 if "q" in kinds else None
    sums: dict[str, list[Tensor]] = {}
    for pair in pairs:
        fitted = fit_patches(pair, net.patch_embed.patch, fit, max_pixels)
        found: Pass = net(fitted.images, None, rows_from, patches_from)
        maps = map_kinds(found, channels, kinds)
        if memory is not None and memory.is_full():
            maps["infused"] = _infused(net, memory, fitted.images, found, tags)[:, channels]
        for name, pair_maps in maps.items():
            sums.setdefault(name, []).append(unmirrored_sum(pair_maps, fitted, size))
    return keys, {name: _with_background(net, merge(scales)) for name, scales in sums.items()}


def _infused(net: CTIViT, memory: ClassMemory, images: Tensor, found: Pass, tags: Tensor) -> Tensor:
    """R (N, K, h, w) with the memory's prototypes infused, as in PX."""
    own = found.tokens[:, net.first :]
    infused: Pass = net(images, memory.infusion(own, tags.expand(len(images), -1)))
    return infused.scores.maps


def _with_background(net: CTIViT, maps: Tensor) -> Tensor:
    """Put an empty map in front where there is no background token."""
    return maps if net.first else torch.cat([maps.new_zeros(1, *maps.shape[1:]), maps])
