"""Head, middle and tail classes."""

import numpy as np
from numpy.typing import NDArray

GROUPS = ("head", "middle", "tail")


def frequency_groups(counts: NDArray[np.integer]) -> dict[str, NDArray[np.int64]]:
    """Split classes into thirds by their number of training images; the middle third takes what is left over.

    Args:
        counts: (C,) images per foreground class.

    Returns:
        Group -> sorted class ids in 1..C (0 is the background). Ties are broken by class id.
    """
    order = np.argsort(-np.asarray(counts), kind="stable") + 1
    third = len(order) // 3
    parts = (order[:third], order[third : len(order) - third], order[len(order) - third :])
    return {name: np.sort(part).astype(np.int64) for name, part in zip(GROUPS, parts, strict=True)}
