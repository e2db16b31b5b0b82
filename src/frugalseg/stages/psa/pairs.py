"""Labels on the grid of the features, and what they say about pairs of near cells (cti.md 8.2).

Letters: N images, K classes with the background, h x w cells, P pairs per cell in the order of
`frugalseg.ops.random_walk.path_offsets`. Pair maps (N, P, h, w) are laid out as affinities are.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from frugalseg.batch import IGNORE_INDEX
from frugalseg.ops.random_walk import inner_pairs, path_offsets


class PairMasks(NamedTuple):
    """Which pairs count for which term; a pair with an unlabelled side, or with one outside the map, for none."""

    background: Tensor
    """(N, P, h, w) bool: both are background."""
    foreground: Tensor
    """(N, P, h, w) bool: both are the same foreground class."""
    different: Tensor
    """(N, P, h, w) bool: two classes, one of which may be the background."""

    def counts(self) -> Tensor:
        """(3,) float32, number of pairs of each kind."""
        return torch.stack([mask.sum() for mask in self]).float()


def pool_labels(mask: Tensor, stride: int, num_classes: int) -> Tensor:
    """The commonest label of each cell: one-hot masks, average-pooled, argmax.

    PSA pools the class scores of two CRFs and makes labels of them afterwards; here labels were made at full size, so
    that a cell on a boundary goes by majority instead of by strength of scores.

    Args:
        mask: (N, H, W) class ids, 0 background, 255 not labelled.
        stride: side of a cell in pixels.
        num_classes: K.

    Returns:
        (N, ceil(H / stride), ceil(W / stride)) int64; 255 where unlabelled pixels are the commonest. Cells that
        overhang count the pixels they have. Of equally common labels the first wins, and any class before
        "not labelled".
    """
    labels = num_classes + 1
    images, rows, columns = (torch.arange(size, device=mask.device) for size in mask.shape)
    height, width = (-(-size // stride) for size in mask.shape[1:])
    cell = (images[:, None, None] * height + (rows // stride)[:, None]) * width + columns // stride
    ids = torch.where(mask == IGNORE_INDEX, num_classes, mask)
    # not bincount, which waits for the device to know how much it needs
    which, most = (cell * labels + ids).flatten(), len(mask) * height * width * labels
    counts = torch.zeros(most, dtype=torch.int64, device=mask.device)
    counts.scatter_add_(0, which, counts.new_ones(()).expand_as(which))
    # unique scores: what argmax does with ties depends on the device
    order = labels - 1 - torch.arange(labels, device=mask.device)
    winner = (counts.view(-1, labels) * labels + order).argmax(dim=1).view(len(mask), height, width)
    return torch.where(winner == num_classes, IGNORE_INDEX, winner)


def pair_masks(label: Tensor, radius: int, border: bool = False) -> PairMasks:
    """Compare each cell with its partners.

    Args:
        label: (N, h, w) class ids, 0 background, 255 not labelled.
        radius: pairs are closer than that, in cells.
        border: take pairs from every cell; without, only from cells all of whose partners lie in the map, as the
            reference does (`inner_pairs`).

    Returns:
        `PairMasks`.
    """
    height, width = label.shape[1:]
    reach = radius - 1
    padded = F.pad(label, (reach, reach, 0, reach), value=IGNORE_INDEX)
    partner = torch.stack(
        [padded[:, dy : dy + height, reach + dx : reach + dx + width] for dy, dx in path_offsets(radius).tolist()],
        dim=1,
    )
    own = label[:, None]
    known = (own != IGNORE_INDEX) & (partner != IGNORE_INDEX)
    known = known if border else inner_pairs(known)
    same = (own == partner) & known
    return PairMasks(same & (own == 0), same & (own != 0), known & ~same)
