"""Images and masks at the sizes that evaluation protocols ask for.

Images are smoothed where they shrink, as Pillow does. Masks take the nearest pixel, by Pillow's rule (under the cell's
centre) or by that of torch's `nearest` (under its corner): protocols are written for the one or the other. Where a
centre lies exactly between two pixels the further one is taken; Pillow's sums may round to either.
"""

import torch
import torch.nn.functional as F
from torch import Tensor


def resized(image: Tensor, size: tuple[int, int]) -> Tensor:
    """Bilinear resize with smoothing; the image itself where it has that size.

    Args:
        image: (N, 3, H, W).
        size: wanted.

    Returns:
        (N, 3, *size), of the image's type.
    """
    if image.shape[-2:] == torch.Size(size):
        return image
    # half precision has no such kernel on every device
    whole = F.interpolate(image.float(), size=size, mode="bilinear", align_corners=False, antialias=True)
    return whole.to(image.dtype)


def nearest(mask: Tensor, size: tuple[int, int], centred: bool = False) -> Tensor:
    """Nearest resize of class ids, in integers.

    Args:
        mask: (..., H, W) integers.
        size: wanted.
        centred: the pixel under the cell's centre instead of under its corner.

    Returns:
        (..., *size).
    """
    if mask.shape[-2:] == torch.Size(size):
        return mask
    picks = []
    for cells, pixels in zip(size, mask.shape[-2:], strict=True):
        index = torch.arange(cells, device=mask.device)
        picks.append((2 * index + 1) * pixels // (2 * cells) if centred else index * pixels // cells)
    return mask[..., picks[0][:, None], picks[1]]


def squared(image: Tensor, mask: Tensor, side: int) -> tuple[Tensor, Tensor]:
    """Both resized to a square, the aspect given up.

    Args:
        image: (N, 3, H, W).
        mask: (N, H, W).
        side: wanted.

    Returns:
        (N, 3, side, side) and (N, side, side).
    """
    return resized(image, (side, side)), nearest(mask, (side, side), centred=True)


def middle(image: Tensor, mask: Tensor, side: int) -> tuple[Tensor, Tensor]:
    """The shorter side resized, and a square cut out of the middle.

    Args:
        image: (N, 3, H, W).
        mask: (N, H, W).
        side: wanted.

    Returns:
        (N, 3, side, side) and (N, side, side).
    """
    height, width = image.shape[-2:]
    short = min(height, width)
    size = (side * height // short, side * width // short)
    top, left = (round((pixels - side) / 2) for pixels in size)
    window = (..., slice(top, top + side), slice(left, left + side))
    return resized(image, size)[window], nearest(mask, size, centred=True)[window]


def padded(image: Tensor, multiple: int) -> Tensor:
    """Zeros to the right and below up to multiples of a number; the image itself where it has such a size already.

    Args:
        image: (N, 3, H, W).
        multiple: of both sides.
    """
    down, right = -image.shape[-2] % multiple, -image.shape[-1] % multiple
    return F.pad(image, (0, right, 0, down)) if down or right else image
