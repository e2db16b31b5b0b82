"""SFC's network: a ResNet whose classifier maps are refined by pixel affinity and compared with prototypes.

Specification: sfc.md section 2 (training form) and section 6 (inference form). Torch only.
"""

from collections.abc import Sequence
from typing import Any, ClassVar, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from frugalseg.nn.backbone import ResNetStages, Stages
from frugalseg.nn.tiled import stages_in_tiles
from frugalseg.ops.cam import EPS, resize, with_background
from frugalseg.ops.precision import at_least_float32
from frugalseg.ops.prototypes import argmax_masks, cosine_map, masked_average_pool

LARGEST_AFFINITY = 2**28
"""Entries of the pixel affinity that are held at once when maps are made: 1 GiB. Photos at scale 2 have a tenth."""


class Maps(NamedTuple):
    """What one pass gives; K = C + 1 channels, background first, at the resolution of layer4."""

    score: Tensor
    """(N, C, 1, 1) image-level logits: the spatial mean of the class logits."""
    m0: Tensor
    """(N, K, h, w) normalised classifier map."""
    mw: Tensor
    """(N, K, h, w) the same after two rounds of pixel affinity."""
    mp: Tensor | None
    """(N, K, h, w) prototype map, or None where it was not asked for."""
    logits: Tensor
    """(N, C, h, w) class logits before rectification."""


def unit_features(features: Tensor, centre: bool = False) -> Tensor:
    """Features (N, D, h, w) as columns (N, D, hw) of length one, optionally after their spatial mean was subtracted."""
    # factors instead of quotients: the backward pass of a division is slower
    flat = features.flatten(2)
    if centre:
        flat = flat - flat.mean(dim=-1, keepdim=True)
    norm: Tensor = torch.linalg.vector_norm(flat, dim=1, keepdim=True)
    return flat * (1.0 / (norm + EPS))


def affinity(features: Tensor, centre: bool = False) -> tuple[Tensor, Tensor]:
    """Similarity between places, and the factor that makes its columns sum to one (sfc.md 2.3, step 3).

    The similarity is symmetric, so the normalised matrix is never built: the factor is applied to the products.

    Args:
        features: (N, D, h, w).
        centre: subtract the spatial mean first (not in the paper; helps small nets, miniature.md A.6).

    Returns:
        (N, hw, hw) rectified cosines and (N, 1, hw) reciprocal column sums.
    """
    flat = unit_features(features, centre)
    similarity = (flat.transpose(1, 2) @ flat).relu_()
    return similarity, 1.0 / (similarity.sum(dim=1, keepdim=True) + EPS)


def propagate(maps: Tensor, similarity: Tensor, scale: Tensor, steps: int = 2) -> Tensor:
    """Multiply maps from the left with the column-normalised similarity, `steps` times.

    Args:
        maps: (N, K, h, w).
        similarity: (N, hw, hw) of `affinity`.
        scale: (N, 1, hw) of `affinity`.
        steps: 2 in the paper's code.

    Returns:
        (N, K, h, w).
    """
    flat = maps.flatten(2)
    for _ in range(steps):
        flat = (flat @ similarity) * scale
    return flat.reshape(maps.shape)


def fold(pair: Tensor) -> Tensor:
    """Add the mirrored second half of a batch (an image and its mirror image) to the first: (2, ...) -> (1, ...)."""
    return pair[:1] + pair[1:].flip(-1)


def propagate_in_blocks(maps: Tensor, features: Tensor, block: int, centre: bool = False, steps: int = 2) -> Tensor:
    """`propagate` over `affinity` without the (hw, hw) matrix: `block` of its columns at a time, in every step anew.

    For large images, whose matrix would not fit into memory: 48 megapixels at stride 16 would take 140 GB.

    Args:
        maps: (N, K, h, w).
        features: (N, D, h, w).
        block: columns at a time.
        centre: see `affinity`.
        steps: 2 in the paper's code.

    Returns:
        (N, K, h, w).
    """
    flat, columns = maps.flatten(2), unit_features(features, centre)
    rows = columns.transpose(1, 2)
    for _ in range(steps):
        products = []
        for part in torch.split(columns, block, dim=-1):
            similarity = (rows @ part).relu_()
            products.append((flat @ similarity) * (1.0 / (similarity.sum(dim=1, keepdim=True) + EPS)))
        flat = torch.cat(products, dim=-1)
    return flat.reshape(maps.shape)


class SFCHeads(nn.Module):
    """The 1x1 convolutions behind the backbone and the maps made from them.

    Args:
        num_classes: K, background included.
        channels: depth of layer1..layer4.
        side: output depth of the four side convolutions, from which prototypes are made.
        embedding: output depth of f9, whose cosines are the pixel affinity.
        background_factor: background's handicap in the prototype masks.
        centre: see `affinity`; also applied to every side feature.
    """

    def __init__(
        self,
        num_classes: int,
        channels: Sequence[int] = (256, 512, 1024, 2048),
        side: Sequence[int] = (128, 128, 256, 256),
        embedding: int = 2048,
        background_factor: float = 0.3,
        centre: bool = False,
    ) -> None:
        super().__init__()
        self.side1, self.side2, self.side3, self.side4 = (
            nn.Conv2d(i, o, 1, bias=False) for i, o in zip(channels, side, strict=True)
        )
        self.classifier = nn.Conv2d(channels[3], num_classes - 1, 1, bias=False)
        self.f9 = nn.Conv2d(channels[3] + 3, embedding, 1, bias=False)
        self.background_factor = background_factor
        self.centre = centre

    def score(self, stages: Stages) -> Tensor:
        """(N, C, 1, 1) image-level logits alone: all that a plain classifier's loss needs."""
        return at_least_float32(self.classifier(stages.layer4)).mean(dim=(-2, -1), keepdim=True)

    def hierarchy(self, stages: Stages) -> Tensor:
        """Normalised side features of all levels on the grid of layer4; trains the side convolutions only.

        Returns:
            (N, sum of side depths, h, w).
        """
        grid = (stages.layer4.shape[-2], stages.layer4.shape[-1])
        levels = []
        for side, x in zip((self.side1, self.side2, self.side3, self.side4), stages[1:], strict=True):
            feature = at_least_float32(side(x.detach()))
            if self.centre:
                feature = feature - feature.mean(dim=(-2, -1), keepdim=True)
            feature = feature * (1.0 / (torch.linalg.vector_norm(feature, dim=1, keepdim=True) + EPS))
            levels.append(resize(feature, grid))
        return torch.cat(levels, dim=1)

    def embed(self, image: Tensor, x4: Tensor) -> Tensor:
        """f9 of the image (resized to the grid, corners aligned) and layer4, image channels first."""
        small = resize(image, (x4.shape[-2], x4.shape[-1]), align_corners=True)
        return at_least_float32(self.f9(torch.cat([small.to(x4.dtype), x4], dim=1)))

    def prototype_map(self, mw: Tensor, features: Tensor, mask: Tensor) -> Tensor:
        """Rectified cosine to the prototype of each class (sfc.md 2.3, step 5).

        Args:
            mw: (N, K, h, w) maps whose argmax says where each class is.
            features: (N, D, h, w) of `hierarchy`.
            mask: (N, K, h, w) or (N, K, 1, 1); classes and places that may contribute.

        Returns:
            (N, K, h, w); exactly 0 for a class without places.
        """
        seeds = argmax_masks(mw, self.background_factor) * mask
        return cosine_map(features, masked_average_pool(features, seeds)).relu()

    def forward(self, image: Tensor, stages: Stages, mask: Tensor, prototypes: bool = True) -> Maps:
        """Maps of one scale in the training form; see `SFCNet.forward`."""
        logits = at_least_float32(self.classifier(stages.layer4))
        with torch.autocast(image.device.type, enabled=False):
            m0 = with_background(logits) * mask.to(logits.dtype)
        embedded = self.embed(image, stages.layer4)
        features = self.hierarchy(stages) if prototypes else None
        with torch.autocast(image.device.type, enabled=False):
            mw = propagate(m0, *affinity(embedded, self.centre))
            mp = None if features is None else self.prototype_map(mw, features, mask.to(mw.dtype))
        return Maps(logits.mean(dim=(-2, -1), keepdim=True), m0, mw, mp, logits)

    def infer(self, image: Tensor, stages: Stages, present: Tensor) -> Maps:
        """Maps of one scale in the inference form; see `SFCNet.infer`."""
        # 1x1 convolutions without bias are linear, so folding first gives the folded logits for half the work
        x4 = fold(stages.layer4)
        logits = at_least_float32(self.classifier(x4))
        embedded = self.embed(fold(image), x4)
        features = fold(self.hierarchy(stages))
        with torch.autocast(image.device.type, enabled=False):
            m0 = with_background(logits)
            mw = self._spread(m0, embedded)
            mp = self.prototype_map(mw, features, present.view(1, -1, 1, 1).to(mw.dtype))
        return Maps(logits.mean(dim=(-2, -1), keepdim=True), m0, mw, mp, logits)

    def _spread(self, m0: Tensor, embedded: Tensor) -> Tensor:
        """Two steps of pixel affinity, in blocks where the matrix would be large."""
        cells = m0.shape[-2] * m0.shape[-1]
        if cells * cells <= LARGEST_AFFINITY:
            return propagate(m0, *affinity(embedded, self.centre))
        return propagate_in_blocks(m0, embedded, LARGEST_AFFINITY // cells, self.centre)


class SFCNet(nn.Module):
    """Backbone and heads of SFC.

    Args:
        num_classes: K, background included.
        backbone: a timm ResNet; `layer1` and `layer2` never learn, `layer2`'s output is detached.
        strides: of stem and layers; the default gives output stride 16 without dilation.
        side: depth of the side convolutions.
        embedding: depth of f9; None for that of layer4.
        background_factor: background's handicap in the prototype masks.
        centre_features: subtract spatial means before cosines; departs from the paper, for small nets.
        backbone_options: further arguments of the timm model.
    """

    hot: ClassVar[tuple[str, ...]] = ("backbone.forward", "heads.forward", "heads.score")
    """What a training step calls; see `callbacks.Compile`."""

    def __init__(
        self,
        num_classes: int = 21,
        backbone: str = "resnet50",
        strides: Sequence[int] = (4, 1, 2, 2, 1),
        side: Sequence[int] = (128, 128, 256, 256),
        embedding: int | None = None,
        background_factor: float = 0.3,
        centre_features: bool = False,
        backbone_options: dict[str, Any] | None = None,
    ) -> None:
        super().__init__()
        self.backbone = ResNetStages(backbone, strides, options=backbone_options)
        channels = self.backbone.channels[1:]
        self.heads = SFCHeads(
            num_classes, channels, side, embedding or channels[-1], background_factor, centre_features
        )

    def forward(self, image: Tensor, mask: Tensor, prototypes: bool = True) -> Maps:
        """Maps of one scale, with gradients as section 2.3 lays them out.

        Args:
            image: (N, 3, H, W) normalised.
            mask: (N, K, h, w) or (N, K, 1, 1): places and classes that count, background 1.
            prototypes: False leaves the prototype branch out (the half-scale pass never uses it).

        Returns:
            `Maps`.
        """
        maps: Maps = self.heads(image, self.backbone(image), mask, prototypes)
        return maps

    def infer(self, pair: Tensor, present: Tensor, tiled: bool = False) -> Maps:
        """Maps of one image at one scale, from the image and its mirror image (section 6).

        Args:
            pair: (2, 3, H, W), the second the horizontal mirror image of the first.
            present: (K,) 1 for classes of the image's tags and for the background. Absent classes take part in the
                argmax of the prototype masks; places that they win are dropped.

            tiled: look at the image tile by tile, which takes less memory and gives the same maps.

        Returns:
            `Maps` with N = 1; `score` and `logits` are sums over the pair.
        """
        stages = stages_in_tiles(self.backbone, pair) if tiled else self.backbone(pair)
        return self.heads.infer(pair, stages, present)


def half_size(image: Tensor) -> Tensor:
    """Half the size, corners aligned (sfc.md section 4 and trap 7)."""
    size = (image.shape[-2] // 2, image.shape[-1] // 2)
    return F.interpolate(image, size=size, mode="bilinear", align_corners=True)
