"""Cross entropy over the logits of several input scales."""

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from frugalseg.batch import IGNORE_INDEX
from frugalseg.nn.ranks import Average, divided
from frugalseg.ops.cam import resize
from frugalseg.ops.precision import at_least_float32


def reduce_labels(mask: Tensor, size: tuple[int, int]) -> Tensor:
    """Labels at the centres of a coarse grid's cells.

    Torch's plain `nearest` takes the top-left pixel of each cell and would shift labels by half a cell;
    `nearest-exact` equals Pillow's, which deeplab-pytorch uses.

    Args:
        mask: (N, H, W) int64.
        size: (h, w).

    Returns:
        (N, h, w) int64.
    """
    if mask.shape[-2:] == torch.Size(size):
        return mask
    return F.interpolate(mask[:, None].float(), size=size, mode="nearest-exact")[:, 0].long()


def pixel_loss(logits: Tensor, mask: Tensor, at_mask_size: bool = False, average: Average | None = None) -> Tensor:
    """Mean cross entropy over the pixels that count, in float32.

    Args:
        logits: (N, K, h, w).
        mask: (N, H, W) int64; 255 does not count.
        at_mask_size: resize the logits to the mask instead of reducing the mask to the logits.
        average: over ranks, whose pixels are one mean; see `over_ranks`.

    Returns:
        A scalar; 0, with a gradient of 0, where no pixel counts (torch's own mean would be NaN and end the training).
    """
    with torch.autocast(logits.device.type, enabled=False):
        logits = logits.float()
        if at_mask_size:
            logits = resize(logits, (mask.shape[-2], mask.shape[-1]))
        else:
            mask = reduce_labels(mask, (logits.shape[-2], logits.shape[-1]))
        total = F.cross_entropy(logits, mask, ignore_index=IGNORE_INDEX, reduction="sum")
        return divided(total, (mask != IGNORE_INDEX).sum(), average)


def scales_logits(net: Callable[[Tensor], Tensor], image: Tensor, scales: Sequence[float]) -> list[Tensor]:
    """Logits of an image at several sizes and, with more than one, their largest at each cell of the first.

    This is the multi-scale input of DeepLab V2 as deeplab-pytorch trains it (scales 1, 0.5, 0.75).

    Args:
        net: (N, 3, H, W) -> (N, K, h, w).
        image: (N, 3, H, W).
        scales: factors; sides are rounded down, as in the reference.

    Returns:
        One (N, K, h_s, w_s) per scale, and (N, K, h_1, w_1) of the maximum; at least float32, for they are resized.
    """
    height, width = image.shape[-2:]
    sizes = [(max(1, int(height * scale)), max(1, int(width * scale))) for scale in scales]
    found = [at_least_float32(net(resize(image, size))) for size in sizes]
    if len(found) == 1:
        return found
    grid = (found[0].shape[-2], found[0].shape[-1])
    return [*found, torch.stack([resize(logits, grid) for logits in found]).amax(dim=0)]


def scales_loss(
    logits: Sequence[Tensor], mask: Tensor, at_mask_size: bool = False, average: Average | None = None
) -> Tensor:
    """Sum of `pixel_loss` over scales and maximum: a sum, not a mean, as in the reference.

    Args:
        logits: from `scales_logits`.
        mask: (N, H, W) int64.
        at_mask_size: see `pixel_loss`.
        average: see `pixel_loss`.

    Returns:
        A scalar.
    """
    return torch.stack([pixel_loss(each, mask, at_mask_size, average) for each in logits]).sum()
