"""Matched points of two views as a training signal, and what a linear probe of the features is worth."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from frugalseg.batch import ViewsBatch
from frugalseg.data.module import SegmentationData
from frugalseg.ops.geometry import matched_points, sample_at
from tests.integration.small_nets import SmallNet, score, train

POINTS = 7
TEMPERATURE = 0.1
NEAR = 1 / 8


class Projector(nn.Module):
    """Two layers with BatchNorm between, then unit length: (M, width) -> (M, 64)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(width, 96), nn.BatchNorm1d(96), nn.ReLU(), nn.Linear(96, 64))

    def forward(self, x: Tensor) -> Tensor:
        return F.normalize(self.layers(x), dim=1)


def pixel_loss(net: SmallNet, projector: Projector, batch: ViewsBatch, mismatched: bool = False) -> Tensor:
    """mevt.md c.5 without a teacher: tell a point of one global view among the points of the other ones.

    Points of the same image that lie nearer than an eighth of its longer side are no negatives.

    Args:
        net: its `body` is trained.
        projector: as well.
        batch: global views and their geometry.
        mismatched: take the second views for mirrored where they are not, and the other way round.
    """
    views, box, flip = batch["global_views"], batch["box"], batch["flip"].clone()
    flip[:, 1] ^= mismatched
    features = [net.body(views[:, view]) for view in (0, 1)]
    offset = torch.rand(len(views), 1, 1, 2)
    *grids, points = matched_points(box[:, 0], flip[:, 0], box[:, 1], flip[:, 1], POINTS, offset)
    sampled = [sample_at(f, grid).permute(0, 2, 3, 1).flatten(0, 2) for f, grid in zip(features, grids, strict=True)]
    first, second = (projector(x) for x in sampled)
    place = points.flatten(0, 2)
    image = torch.arange(len(views)).repeat_interleave(POINTS**2)
    radius = (NEAR * batch["size"].amax(dim=1))[image]
    excluded = (image[:, None] == image) & (torch.cdist(place, place) < radius[:, None])
    excluded.fill_diagonal_(False)
    logits = (first @ second.T / TEMPERATURE).masked_fill(excluded, -torch.inf)
    target = torch.arange(len(place))
    return (F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target)) / 2


def probe(net: SmallNet, data: SegmentationData, steps: int, seed: int) -> float:
    """mIoU on the validation split of a linear classifier on frozen, standardised features of stride 4."""
    torch.manual_seed(seed)
    net.eval().requires_grad_(False)
    linear = nn.Sequential(
        nn.BatchNorm2d(net.head.in_channels, affine=False), nn.Conv2d(net.head.in_channels, data.num_classes, 1)
    )

    def logits(image: Tensor) -> Tensor:
        return F.interpolate(linear(net.body(image)), size=image.shape[-2:], mode="bilinear", align_corners=False)

    train(
        data,
        linear.parameters(),
        lambda batch: F.cross_entropy(logits(batch["image"]), batch["mask"], ignore_index=255),
        steps,
        rate=1e-2,
    )
    linear.eval()
    return score(data, lambda image: logits(image).argmax(dim=1))
