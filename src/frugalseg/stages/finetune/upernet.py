"""UperNet's decoder (Xiao et al., ECCV 2018), as mmseg's configurations use it."""

from collections.abc import Sequence
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from frugalseg.nn.units import Norm, unit
from frugalseg.ops.cam import resize
from frugalseg.stages.finetune.heads import classifier

BINS = (1, 2, 3, 6)


class PyramidPooling(nn.Module):
    """The map beside its averages over grids of several sizes (PSPNet).

    Args:
        inputs: channels of the map.
        channels: of each average and of the result.
        norm: kind of the normalisation.
        bins: cells along a side of each grid.
    """

    def __init__(self, inputs: int, channels: int, norm: Norm = "batch", bins: Sequence[int] = BINS) -> None:
        super().__init__()
        self.bins = tuple(bins)
        self.pooled = nn.ModuleList(unit(inputs, channels, 1, norm) for _ in bins)
        self.join = unit(inputs + len(self.bins) * channels, channels, 3, norm)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, h, w) -> (N, channels, h, w)."""
        size = (x.shape[-2], x.shape[-1])
        pairs = zip(self.bins, self.pooled, strict=True)
        parts = [resize(convolve(F.adaptive_avg_pool2d(x, cells)), size) for cells, convolve in pairs]
        joined: Tensor = self.join(torch.cat([x, *parts], dim=1))
        return joined


class UperNet(nn.Module):
    """Pyramid pooling on the coarsest map, a feature pyramid, all levels joined at the finest, a linear map.

    Args:
        widths: channels of the four maps.
        num_classes: K.
        norm: kind of the normalisation. With `batch` a training step needs two images, as the coarsest average is one
            value per channel and image.
        channels: of every convolution.
        dropout: share of the channels that are dropped before the linear map.
    """

    reads_pyramid: ClassVar[bool] = True

    def __init__(
        self,
        widths: Sequence[int],
        num_classes: int,
        norm: Norm = "batch",
        channels: int = 512,
        dropout: float = 0.1,
    ) -> None:
        super().__init__()
        self.pooling = PyramidPooling(widths[-1], channels, norm)
        self.lateral = nn.ModuleList(unit(each, channels, 1, norm) for each in widths[:-1])
        self.smooth = nn.ModuleList(unit(channels, channels, 3, norm) for _ in widths[:-1])
        self.join = unit(len(widths) * channels, channels, 3, norm)
        self.dropout, self.classify = nn.Dropout2d(dropout), classifier(channels, num_classes)

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        """Four maps (N, C_i, h_i, w_i), the finest first -> (N, K, h_1, w_1)."""
        sizes = [(each.shape[-2], each.shape[-1]) for each in maps]
        levels = [lateral(each) for lateral, each in zip(self.lateral, maps[:-1], strict=True)]
        levels.append(self.pooling(maps[-1]))
        for i in range(len(levels) - 2, -1, -1):
            levels[i] = levels[i] + resize(levels[i + 1], sizes[i])
        smoothed = [smooth(each) for smooth, each in zip(self.smooth, levels[:-1], strict=True)]
        parts = [resize(each, sizes[0]) for each in [*smoothed, levels[-1]]]
        logits: Tensor = self.classify(self.dropout(self.join(torch.cat(parts, dim=1))))
        return logits
