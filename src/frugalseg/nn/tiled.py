"""Backbones on images that are too large for one pass."""

import torch
from torch import Tensor

from frugalseg.nn.backbone import ResNetStages, Stages


def stages_in_tiles(backbone: ResNetStages, image: Tensor, core: int = 1024, margin: int = 256) -> Stages:
    """Run a backbone tile by tile and put its stages together.

    Convolutions look no further than their receptive field. With normalisation by running statistics the result is
    therefore that of one pass wherever `margin` is at least half the receptive field; ResNet-50 without dilation sees
    213 pixels to each side at output stride 16 (sfc.md 2.1).

    Args:
        backbone: its normalisation must be frozen, or every tile would be normalised by itself.
        image: (N, 3, H, W).
        core: side of what each tile contributes; a multiple of the output stride.
        margin: pixels around it that are looked at too; a multiple of the output stride.

    Returns:
        The stages of the whole image, as `backbone(image)` gives them.

    Raises:
        ValueError: sides that would shift the grid, or normalisation over each tile.
    """
    stride = backbone.output_stride
    if core < 1 or core % stride or margin % stride:
        raise ValueError(f"core and margin must be multiples of the output stride {stride}, got {core} and {margin}")
    if backbone.training and not backbone.frozen_norm:
        raise ValueError("tiles need frozen normalisation; call eval() first")
    height, width = image.shape[-2:]
    rows: list[list[Tensor]] = [[] for _ in Stages._fields]
    for top in range(0, height, core):
        parts: list[list[Tensor]] = [[] for _ in Stages._fields]
        for left in range(0, width, core):
            y0, x0 = max(0, top - margin), max(0, left - margin)
            tile = image[..., y0 : top + core + margin, x0 : left + core + margin]
            for index, stage in enumerate(backbone(tile)):
                step = backbone.steps[index]
                y, x, side = (top - y0) // step, (left - x0) // step, core // step
                parts[index].append(stage[..., y : y + side, x : x + side].clone())
        for index, part in enumerate(parts):
            rows[index].append(torch.cat(part, dim=-1))
    return Stages(*[torch.cat(row, dim=-2) for row in rows])
