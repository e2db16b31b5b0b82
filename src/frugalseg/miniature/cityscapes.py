"""A small Cityscapes: a road between houses, with cars, people and poles whose size tells how far they are.

Example:
    >>> from pathlib import Path
    >>> write_cityscapes_world(Path("worlds/cityscapes"), images_train=300, images_val=60)  # doctest: +SKIP
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from frugalseg.data.parallel import Progress
from frugalseg.miniature.canvas import IDS
from frugalseg.miniature.encoding import encode_png
from frugalseg.miniature.scene import stream
from frugalseg.miniature.street import draw_street
from frugalseg.miniature.writing import World, facts_of, write_world

CITIES: Final = {"train": ("aachen", "bochum"), "val": ("frankfurt", "lindau")}
_WORLD_KEY: Final = 13
_SPLIT_KEYS: Final = {"train": 0, "val": 1}


@dataclass(frozen=True)
class CityscapesWorld:
    """What determines a world, apart from how many pictures of it are written.

    Attributes:
        seed: Any number from 0 upward.
        size: Height of the pictures in pixels, from 64 upward; they are twice as wide.
    """

    seed: int = 0
    size: int = 64

    def picture(self, split: str, index: int) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        """Draws one picture of `train` or `val`, whatever was drawn before.

        Args:
            split: `train` or `val`.
            index: Counted from 0.

        Returns:
            RGB of shape `(S, 2S, 3)` and official label ids of shape `(S, 2S)`.
        """
        rng = stream((_WORLD_KEY, self.seed, _SPLIT_KEYS[split], index), 0)
        return draw_street(rng, self.size)

    def files(self, split: str, index: int) -> Mapping[str, bytes]:
        """The files of one picture, as {path: content}."""
        image, ids = self.picture(split, index)
        image_path, ids_path = _paths(split, index)
        return {image_path: encode_png(image, palette=False), ids_path: encode_png(ids, palette=False)}


def _paths(split: str, index: int) -> tuple[str, str]:
    """Image and mask; pictures go to the cities in turn."""
    cities = CITIES[split]
    city, number = cities[index % len(cities)], index // len(cities)
    stem = f"{split}/{city}/{city}_{number:06d}_000019"
    return f"leftImg8bit/{stem}_leftImg8bit.png", f"gtFine/{stem}_gtFine_labelIds.png"


def write_cityscapes_world(
    root: Path,
    images_train: int = 300,
    images_val: int = 60,
    seed: int = 0,
    size: int = 64,
    progress: Progress | None = None,
) -> Path:
    """Writes a world in Cityscapes' layout, or finishes an interrupted one.

    Masks are `labelIds` (mode L, official ids): eleven of the 19 benchmark classes, and as void ids 1, 3 and 4.

    Args:
        root: Folder that holds `leftImg8bit` and `gtFine`.
        images_train: Pictures for training; more of them leave the first ones as they are.
        images_val: Pictures for validation.
        seed: Seed of everything.
        size: Height in pixels, from 64 upward; pictures are twice as wide.
        progress: Called as `progress(done, total)` after every picture.

    Returns:
        `root`.

    Raises:
        ConfigError: A number is too small.
        DatasetError: `root` holds another world or something else.
    """
    world = CityscapesWorld(seed=seed, size=size)
    images = {"train": images_train, "val": images_val}
    facts = facts_of("cityscapes", seed, size, images, label_ids=IDS)
    return write_world(Path(root), World(facts, images, _paths, world.files, dict), progress)
