"""Supports that an evaluation has seen before: their prototypes and the columns that the prior compares.

An image is the support of many episodes. Kept are not its features but what episodes take of them, which is a
hundredth of that. Every support is worked out by itself, so a result does not depend on what else is in a batch.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from frugalseg.papers.dsmf.model import Support

Key = tuple[str, int]
"""Name of the image, id of the class."""
Known = tuple[Tensor, Tensor]
"""Prototypes (L, d) and columns (D4, n) of the last stage's places under the mask."""


class SupportCache:
    """Keeps supports until a number of bytes is reached; those beyond are worked out anew each time.

    Args:
        limit: bytes; 0 keeps nothing.
    """

    def __init__(self, limit: int = 4 << 30) -> None:
        self.limit, self.used = limit, 0
        self.hits = self.misses = 0
        self._known: dict[Key, Known] = {}

    def clear(self) -> None:
        """Forget everything: the net has changed."""
        self._known.clear()
        self.used = 0

    def get(self, key: Key, make: Callable[[], Support]) -> Known:
        """What is known of a support.

        Args:
            key: image and class.
            make: works it out, with N = K = 1.
        """
        if key in self._known:
            self.hits += 1
            return self._known[key]
        self.misses += 1
        support = make()
        place = support.mask[0, 0] > 0
        # masked places are exactly 0 and are compared with the query by `joined`; the others are few
        known = support.prototypes[0, 0], (support.last[0, 0] * support.mask[0, 0])[:, place]
        size = sum(part.numel() * part.element_size() for part in known)
        if self.used + size <= self.limit:
            self._known[key] = known
            self.used += size
        return known


def joined(shots: Sequence[Sequence[Known]]) -> Support:
    """Supports of a batch of episodes from what is kept of each.

    Columns are filled up with zeros. A column of zeros has similarity exactly 0, as the masked places of a whole map
    have; and since the last stage ends with a rectifier no similarity is below 0, so the maximum is the same.

    Args:
        shots: N episodes of K supports.

    Returns:
        `Support` whose last stage is one row of columns, (N, K, D4, 1, n), multiplied by its mask already.
    """
    longest = max(1, max(columns.shape[1] for episode in shots for _, columns in episode))
    last = torch.stack(
        [
            torch.stack([torch.nn.functional.pad(columns, (0, longest - columns.shape[1])) for _, columns in episode])
            for episode in shots
        ]
    )[:, :, :, None]
    prototypes = torch.stack([torch.stack([known[0] for known in episode]) for episode in shots])
    return Support(prototypes, last, last.new_ones(*last.shape[:2], 1, longest))
