"""The linear probe that mevt.md c.9 judges its tiny run by; g.8's gain is measured with it."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from frugalseg.data.module import SegmentationData
from frugalseg.ops.confusion import confusion_matrix, mean_iou

IMAGES, SIDE, STEPS, PIXELS = 150, 48, 1500, 4096


@torch.no_grad()
def _features(net: nn.Module, data: SegmentationData, role: str) -> tuple[Tensor, Tensor]:
    """(N, 48, 48, D) features and (N, 48, 48) classes of a split's first images; the mask's every second pixel."""
    maps, masks = [], []
    for sample in data.samples(role)[:IMAGES]:
        item = data.recipe.evaluation_item(sample, data.num_classes)
        dense = net(item["image"][None]).features
        maps.append(F.interpolate(dense, size=(SIDE, SIDE), mode="bilinear", align_corners=False)[0].permute(1, 2, 0))
        masks.append(item["mask"][::2, ::2].long())
    return torch.stack(maps), torch.stack(masks)


def c9_probe(net: nn.Module, data: SegmentationData) -> float:
    """Val mIoU of a linear classifier on frozen standardised features: SGD 0.1, 1500 steps of 4096 pixels."""
    net.eval()
    torch.manual_seed(0)
    (x, y), (x_val, y_val) = (_features(net, data, role) for role in ("train", "val"))
    mean, std = x.mean(dim=(0, 1, 2)), x.std(dim=(0, 1, 2))
    x, x_val = (x - mean) / std, (x_val - mean) / std
    x, y = x[y != 255], y[y != 255]
    linear = nn.Linear(x.shape[1], data.num_classes)
    optimiser = torch.optim.SGD(linear.parameters(), 0.1)
    for _ in range(STEPS):
        chosen = torch.randint(len(x), (PIXELS,))
        optimiser.zero_grad()
        F.cross_entropy(linear(x[chosen]), y[chosen]).backward()
        optimiser.step()
    with torch.no_grad():
        return mean_iou(confusion_matrix(linear(x_val).argmax(dim=-1), y_val, data.num_classes))
