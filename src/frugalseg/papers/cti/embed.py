"""From pixels to patch tokens, and positions for any grid (cti.md section 2.3)."""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from frugalseg.nn.backbone import ResNetStages


def resize_positions(table: Tensor, grid: tuple[int, int]) -> Tensor:
    """Resize a square table of positions to another grid.

    By target size, not by a factor: factors round wrongly on some grids, such as 61 patches (trap 8).

    Args:
        table: (1, G * G, D), row-major.
        grid: (h, w).

    Returns:
        (1, h * w, D); the table itself where the grid is its own.
    """
    side = round(table.shape[1] ** 0.5)
    # in a graph whose sides are open the question has no answer; interpolation on the same grid changes nothing
    if not torch.compiler.is_exporting() and grid == (side, side):
        return table
    square = table.reshape(1, side, side, -1).permute(0, 3, 1, 2)
    resized = F.interpolate(square, size=grid, mode="bicubic", align_corners=False)
    return resized.flatten(2).transpose(1, 2)


class PatchEmbed(nn.Module):
    """Square patches through one convolution; pixels that fill no patch are dropped.

    Args:
        dim: D.
        patch: side of a patch in pixels.
    """

    def __init__(self, dim: int, patch: int = 16) -> None:
        super().__init__()
        self.patch = patch
        self.proj = nn.Conv2d(3, dim, patch, patch)

    def forward(self, image: Tensor) -> Tensor:
        """(N, 3, H, W) -> (N, D, H // patch, W // patch)."""
        out: Tensor = self.proj(image)
        return out


class StemEmbed(nn.Module):
    """The frozen early stages of a ResNet, then patches of their cells: for small nets that no DeiT fits.

    A ViT from random weights learns little within minutes; on features of a pretrained stand-in it does
    (miniature.md A.3).

    Args:
        dim: D.
        backbone: a timm ResNet; stem, layer1 and layer2 are used and never learn.
        strides: step of stem and layers, see `ResNetStages`.
        options: further arguments of the timm model.
        cells: side of a patch in cells of layer2.
    """

    def __init__(
        self,
        dim: int,
        backbone: str,
        strides: Sequence[int],
        options: dict[str, Any] | None = None,
        cells: int = 2,
    ) -> None:
        super().__init__()
        self.backbone = ResNetStages(backbone, strides, trained_from="layer3", options=options)
        self.patch = self.backbone.steps[2] * cells
        self.proj = nn.Conv2d(self.backbone.channels[2], dim, cells, cells)
        # not used, so not kept
        self.backbone.layer3 = self.backbone.layer4 = nn.Identity()

    def forward(self, image: Tensor) -> Tensor:
        """(N, 3, H, W) -> (N, D, h, w) with cells of `patch` pixels."""
        out: Tensor = self.proj(self.backbone(image).layer2)
        return out
