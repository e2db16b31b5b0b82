"""Episodes whose support and query show objects of unequal size, chosen by the masks before anything is trained.

An image's object size of a class is the area of the class's largest connected region in it: where that is small, every
object is. Terciles are taken per class, as a large vehicle is smaller than a small harbour.
"""

from collections.abc import Mapping
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from frugalseg.data.episode_files import EpisodeRow

Direction = Literal["small-large", "large-small"]
DIRECTIONS: tuple[Direction, ...] = ("small-large", "large-small")
"""Size in the support, then in the query."""

_SIDES = np.ones((3, 3), dtype=np.int64)  # corners join too: a thin object in a slanted position stays one


def largest_object(mask: NDArray[np.uint8], class_id: int) -> int:
    """Pixels of the largest 8-connected region of a class.

    Args:
        mask: (H, W) class ids; 255 counts as another class.
        class_id: of the class.

    Returns:
        0 where the mask does not show it.
    """
    regions, count = ndimage.label(mask == class_id, structure=_SIDES)
    return int(np.bincount(regions.ravel())[1:].max()) if count else 0


def terciles(areas: Mapping[str, int]) -> tuple[list[str], list[str]]:
    """Images of the smallest third and of the largest third; the middle third takes what is left over.

    Args:
        areas: image -> area; ties are broken by the image's name.

    Returns:
        Names of small and of large ones, from the smallest up.
    """
    order = sorted(areas, key=lambda name: (areas[name], name))
    third = len(order) // 3
    return order[:third], order[len(order) - third :]


def scale_episodes(
    areas: Mapping[int, Mapping[str, int]], direction: Direction, count: int, shots: int = 1, seed: int = 0
) -> list[EpisodeRow]:
    """Draw episodes of one direction of scale change.

    Classes take turns, so that each has as many queries as any other. A class goes through its queries in random order
    and then again, with other supports, so that no image is a query twice before every one was once.

    Args:
        areas: class id -> image -> area of its largest object.
        direction: sizes in support and query.
        count: how many episodes.
        shots: K; supports of one episode differ.
        seed: of all draws.

    Returns:
        The episodes, numbered from 0. They are a pure function of the arguments.

    Raises:
        ValueError: a third of a class has fewer than K images, so that there are no supports, or no query.
    """
    if direction not in DIRECTIONS:
        raise ValueError(f"direction must be one of {', '.join(DIRECTIONS)}, got {direction!r}")
    queues, rows = {}, []
    rng = np.random.default_rng([seed, DIRECTIONS.index(direction)])
    for class_id in sorted(areas):
        small, large = terciles(areas[class_id])
        if len(small) < max(1, shots):
            raise ValueError(
                f"class {class_id} has {len(small)} images in a third of {len(areas[class_id])}, but {shots} supports"
                " are drawn of it"
            )
        supports, queries = (small, large) if direction == "small-large" else (large, small)
        queues[class_id] = (supports, [queries[index] for index in rng.permutation(len(queries))])
    classes = list(queues)
    for number in range(count):
        class_id = classes[number % len(classes)]
        supports, queries = queues[class_id]
        chosen = rng.choice(len(supports), size=shots, replace=False)
        query = queries[number // len(classes) % len(queries)]
        rows.append(EpisodeRow(number, class_id, query, tuple(supports[index] for index in chosen)))
    return rows
