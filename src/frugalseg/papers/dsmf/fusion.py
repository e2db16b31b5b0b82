"""From query features, prototype and evidence maps to one map: SFF of DSMF-Net and FEM of PFENet (dsmf.md 4.5).

N images, d channels, S x S grid (the two sides may differ), E evidence maps: graph maps of the stages, the prior map.
Every resize is bilinear with aligned corners; no convolution but those of the heads has a bias.
"""

from collections.abc import Sequence
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from frugalseg.ops.cam import resize

Size = tuple[int, int]


def pyramid_sizes(size: Size, levels: int) -> list[Size]:
    """Grids of the levels: each side is halved and rounded down, but never below 1.

    Args:
        size: (h, w) of the first level.
        levels: how many.
    """
    return [(max(size[0] >> i, 1), max(size[1] >> i, 1)) for i in range(levels)]


def merged_sizes(sizes: Sequence[Size]) -> list[Size]:
    """Grids half-way between neighbouring levels, rounded down: one fewer than `sizes`."""
    return [((a[0] + b[0]) // 2, (a[1] + b[1]) // 2) for a, b in pairwise(sizes)]


class Blend(nn.Module):
    """1x1 convolution and rectifier of several maps that are brought to one grid and joined.

    Resizing and 1x1 convolutions commute, and the convolution of joined maps is a sum over the maps. So nothing is
    joined, and each map passes its part of the weight on the smaller one of its own and the target grid.

    Args:
        channels: depth of each map; maps of depth 0 are left out.
        outputs: depth of the result.
    """

    def __init__(self, channels: Sequence[int], outputs: int) -> None:
        super().__init__()
        self.channels = list(channels)
        self.convolution = nn.Conv2d(sum(channels), outputs, 1, bias=False)

    def forward(self, maps: Sequence[Tensor], size: Size) -> Tensor:
        """Blend.

        Args:
            maps: (N, channels[i], h_i, w_i) each.
            size: (h, w) of the result.

        Returns:
            (N, outputs, h, w).
        """
        weights = torch.split(self.convolution.weight, self.channels, dim=1)
        pairs = [(part, weight) for part, weight in zip(maps, weights, strict=True) if weight.shape[1]]
        total = _brought(*pairs[0], size)
        for part, weight in pairs[1:]:
            total = total + _brought(part, weight, size)
        return total.relu()


def _brought(part: Tensor, weight: Tensor, size: Size) -> Tensor:
    """One map through its part of the weight and onto the grid, in the cheaper order."""
    if part.shape[-2:] == (1, 1):
        # a view: the same value everywhere needs no memory
        return F.conv2d(part, weight).expand(-1, -1, *size)
    if part.shape[-2] * part.shape[-1] < size[0] * size[1]:
        return resize(F.conv2d(part, weight), size, align_corners=True)
    return F.conv2d(resize(part, size, align_corners=True), weight)


class Residual(nn.Module):
    """x + two rectified 3x3 convolutions of x.

    Args:
        dim: d.
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(dim, dim, 3, padding=1, bias=False),
            nn.ReLU(inplace=True),
            nn.Conv2d(dim, dim, 3, padding=1, bias=False),
            nn.ReLU(inplace=True),
        )

    def forward(self, x: Tensor) -> Tensor:
        """(N, d, h, w) -> same shape."""
        added: Tensor = self.layers(x)
        return x + added


class Fusion(nn.Module):
    """What both fusions share: levels of query, prototype and evidence; condensing; refining.

    Args:
        dim: d.
        evidence: E; 1 without the graph maps, 0 for none.
        levels: of the pyramid.
        condensed: how many maps are condensed into one.

    Raises:
        ValueError: no level.
    """

    auxiliary: int
    """How many maps `forward` gives for auxiliary heads."""

    def __init__(self, dim: int, evidence: int, levels: int, condensed: int) -> None:
        super().__init__()
        if levels < 1:
            raise ValueError(f"sff_levels must be 1 or more, got {levels}")
        self.levels = nn.ModuleList(Blend((dim, dim, evidence), dim) for _ in range(levels))
        self.condense = Blend((dim,) * condensed, dim)
        self.refine = Residual(dim)

    def forward(self, query: Tensor, prototype: Tensor, evidence: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Fuse.

        Args:
            query: (N, d, S, S) reduced features of the query.
            prototype: (N, d).
            evidence: (N, E, S, S) in [0, 1].

        Returns:
            Fused features (N, d, S, S), and `auxiliary` maps (N, d, h_i, w_i) for heads of their own.
        """
        raise NotImplementedError

    def level(self, index: int, query: Tensor, prototype: Tensor, evidence: Tensor, size: Size) -> Tensor:
        """One level before levels meet: query averaged over cells, prototype everywhere, evidence resized."""
        pooled = F.adaptive_avg_pool2d(query, size)
        found: Tensor = self.levels[index]((pooled, prototype[:, :, None, None], evidence), size)
        return found

    def finish(self, maps: Sequence[Tensor], size: Size) -> Tensor:
        """Condense maps of any grids at `size`, then refine."""
        fused: Tensor = self.refine(self.condense(maps, size))
        return fused


class PyramidFusion(Fusion):
    """SFF: levels, merged levels on the grids between them, all condensed at full size and refined.

    Auxiliary heads sit on the merged levels; where there are none, on the levels themselves (as in PFENet).

    Args:
        dim: d.
        evidence: E; 4 are three graph maps and the prior map, 1 the prior map alone.
        levels: of the pyramid.
        merge: make the intermediate scales; off for the ablation row.

    Raises:
        ValueError: no level.
    """

    def __init__(self, dim: int = 256, evidence: int = 4, levels: int = 4, merge: bool = True) -> None:
        merged = levels - 1 if merge else 0
        super().__init__(dim, evidence, levels, condensed=levels + merged)
        self.merges = nn.ModuleList(Blend((dim, dim), dim) for _ in range(merged))
        self.auxiliary = merged or levels

    def forward(self, query: Tensor, prototype: Tensor, evidence: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Fuse; shapes as in `Fusion.forward`."""
        size = (query.shape[-2], query.shape[-1])
        sizes = pyramid_sizes(size, len(self.levels))
        levels = [self.level(i, query, prototype, evidence, s) for i, s in enumerate(sizes)]
        # strict would refuse the ablation that has no merges
        neighbours = zip(self.merges, pairwise(levels), merged_sizes(sizes), strict=False)
        merged = [merge(pair, s) for merge, pair, s in neighbours]
        return self.finish([*levels, *merged], size), merged or levels


class EnrichmentFusion(Fusion):
    """FEM of PFENet, the baseline: each level takes from the one above it, and is convolved twice; nothing between.

    What a level hands down has been brought to full size first, as in the released code. The grids are those of
    `pyramid_sizes`; PFENet's own fourth one is 8 x 8 where ours at S = 60 is 7 x 7.

    Args:
        dim: d.
        evidence: E; PFENet has 1, the prior map.
        levels: of the pyramid.

    Raises:
        ValueError: no level.
    """

    def __init__(self, dim: int = 256, evidence: int = 1, levels: int = 4) -> None:
        super().__init__(dim, evidence, levels, condensed=levels)
        self.handed_down = nn.ModuleList(Blend((dim, dim), dim) for _ in range(levels - 1))
        self.enrich = nn.ModuleList(Residual(dim) for _ in range(levels))
        self.auxiliary = levels

    def forward(self, query: Tensor, prototype: Tensor, evidence: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Fuse; shapes as in `Fusion.forward`. The auxiliary maps are the levels."""
        size = (query.shape[-2], query.shape[-1])
        levels: list[Tensor] = []
        for index, own in enumerate(pyramid_sizes(size, len(self.levels))):
            current = self.level(index, query, prototype, evidence, own)
            if levels:
                above = resize(levels[-1], size, align_corners=True)
                current = current + self.handed_down[index - 1]((current, above), own)
            levels.append(self.enrich[index](current))
        return self.finish(levels, size), levels
