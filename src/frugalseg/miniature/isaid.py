"""A small iSAID: scenes from above with fifteen classes, in the official raw layout.

Scenes are of different widths, and one is smaller than a tile, so that whatever cuts tiles meets borders, remainders
and padding.

Example:
    >>> from pathlib import Path
    >>> write_isaid_world(Path("worlds/isaid"), seed=0)  # doctest: +SKIP
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from frugalseg.data.parallel import Progress
from frugalseg.miniature.aerial.canvas import Canvas, develop
from frugalseg.miniature.aerial.catalogue import ISAID_KINDS
from frugalseg.miniature.aerial.districts import paint_districts
from frugalseg.miniature.aerial.surfaces import Surface
from frugalseg.miniature.encoding import encode_png
from frugalseg.miniature.scene import stream
from frugalseg.miniature.writing import World, facts_of, write_world

CLASS_NAMES: Final = (
    "background",
    "ship",
    "storage_tank",
    "baseball_diamond",
    "tennis_court",
    "basketball_court",
    "ground_track_field",
    "bridge",
    "large_vehicle",
    "small_vehicle",
    "helicopter",
    "swimming_pool",
    "roundabout",
    "soccer_ball_field",
    "plane",
    "harbor",
)
# RGB of iSAID's semantic masks, background first
COLOURS: Final = (
    (0, 0, 0),
    (0, 0, 63),
    (0, 63, 63),
    (0, 63, 0),
    (0, 63, 127),
    (0, 63, 191),
    (0, 63, 255),
    (0, 127, 63),
    (0, 127, 127),
    (0, 0, 127),
    (0, 0, 191),
    (0, 0, 255),
    (0, 191, 127),
    (0, 127, 191),
    (0, 127, 255),
    (0, 100, 155),
)
_WORLD_KEY: Final = 2  # keeps the random numbers apart from those of other worlds with the same seed
_SPLIT_KEYS: Final = {"train": 0, "val": 1}
_DISTRICTS: Final = 4
# The scene that is smaller than a tile. The few scenes of `val` all have to show classes.
_TINY: Final = ("train", 5)


def scene_id(split: str, index: int) -> str:
    """Name of a scene: every fourth number belongs to `val`, so no name occurs in both splits."""
    number = 4 * index + 3 if split == "val" else index // 3 * 4 + index % 3
    return f"P{number:04d}"


@dataclass(frozen=True)
class IsaidWorld:
    """What determines a world, apart from how many scenes of it are written.

    Attributes:
        seed: Any number from 0 upward.
        size: Height of the scenes in pixels, from 64 upward; widths differ from it by up to an eighth.
    """

    seed: int = 0
    size: int = 480

    def shape(self, split: str, index: int) -> tuple[int, int]:
        """Height and width of a scene; they are never equal."""
        rng = stream((_WORLD_KEY, self.seed, _SPLIT_KEYS[split], index), 0)
        height = max(64, self.size // 6) if (split, index) == _TINY else self.size
        more = 1 + 2 * int(rng.integers(2, max(3, height // 16)))  # odd: no multiple of an even step
        return height, height + more if rng.random() < 0.5 else height - more

    def scene(self, split: str, index: int) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        """Draws one scene, whatever was drawn before.

        Args:
            split: `train` or `val`.
            index: Counted from 0.

        Returns:
            The image `(H, W, 3)` and class ids, 0 = background, `(H, W)`.
        """
        key = (_WORLD_KEY, self.seed, _SPLIT_KEYS[split], index)
        canvas = Canvas(*self.shape(split, index))
        count = 1 if (split, index) == _TINY else _DISTRICTS
        first = [self._card(split, index * _DISTRICTS + district) for district in range(count)]
        rng = stream(key, 1)
        paint_districts(canvas, first, rng)
        return develop(canvas, rng), _CLASS_OF_SURFACE[canvas.surface]

    def _card(self, split: str, number: int) -> int:
        """Kinds are dealt from shuffled packs: fifteen districts in a row show fifteen kinds."""
        pack, place = divmod(number, len(ISAID_KINDS))
        return int(stream((_WORLD_KEY, self.seed, _SPLIT_KEYS[split], pack), 2).permutation(len(ISAID_KINDS))[place])

    def paths(self, split: str, index: int) -> Sequence[str]:
        """The image and the coloured mask of a scene."""
        name = scene_id(split, index)
        return (f"{split}/images/{name}.png", f"{split}/Semantic_masks/images/{name}_instance_color_RGB.png")

    def files(self, split: str, index: int) -> Mapping[str, bytes]:
        """Draws a scene and encodes it, as {path: content}."""
        image, ids = self.scene(split, index)
        pictures = (image, np.array(COLOURS, dtype=np.uint8)[ids])
        encoded = (encode_png(picture, palette=False) for picture in pictures)
        return dict(zip(self.paths(split, index), encoded, strict=True))


def _class_table() -> NDArray[np.uint8]:
    table = np.zeros(len(Surface), dtype=np.uint8)
    for class_id, kind in enumerate(ISAID_KINDS, start=1):
        table[kind.surface] = class_id
    return table


_CLASS_OF_SURFACE: Final = _class_table()


def write_isaid_world(
    root: Path,
    scenes_train: int = 24,
    scenes_val: int = 8,
    seed: int = 0,
    size: int = 480,
    progress: Progress | None = None,
) -> Path:
    """Writes raw scenes in iSAID's layout, or finishes an interrupted world.

    `{train,val}/images/P0000.png` are RGB, `{train,val}/Semantic_masks/images/P0000_instance_color_RGB.png` hold the
    official colours of the classes. The sixth scene of `train` is smaller than a tile.

    Args:
        root: Folder of the data set.
        scenes_train: Scenes for training; more of them leave the first ones as they are.
        scenes_val: Scenes for validation. From four scenes on, every class occurs in a split; from eight on, in two
            districts at least, which is enough for 5-shot episodes on tiles of 96 pixels.
        seed: Seed of everything.
        size: Height in pixels, from 64 upward.
        progress: Called as `progress(done, total)` after every scene.

    Returns:
        `root`.

    Raises:
        ConfigError: A number is too small.
        DatasetError: `root` holds another world or something else.
    """
    world = IsaidWorld(seed=seed, size=size)
    images = {"train": scenes_train, "val": scenes_val}
    facts = facts_of("isaid", seed, size, images, classes=CLASS_NAMES, colours=COLOURS)
    return write_world(Path(root), World(facts, images, world.paths, world.files, dict), progress)
