"""A small ADE20K: discs and squares of five textures on a plain ground, which is a class like the others.

Example:
    >>> from pathlib import Path
    >>> write_ade20k_world(Path("worlds/ade20k"), images_train=600, images_val=150)  # doctest: +SKIP
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from frugalseg.data.parallel import Progress
from frugalseg.miniature.encoding import encode_jpeg, encode_png
from frugalseg.miniature.scene import stream
from frugalseg.miniature.textures import TEXTURES, develop, paint_ground, paint_texture, plane
from frugalseg.miniature.writing import World, facts_of, write_world

CLASS_NAMES: Final = ("ground", *TEXTURES)
UNITS: Final = 96.0  # along each side of a picture
RADIUS: Final = (14.0, 30.0)  # least and greatest, in units
_WORLD_KEY: Final = 12
_SPLIT_KEYS: Final = {"train": 0, "val": 1}
_FOLDERS: Final = {"train": "training", "val": "validation"}


@dataclass(frozen=True)
class TexturePicture:
    """One picture with its exact labels.

    Attributes:
        image: RGB, shape `(S, S, 3)`.
        mask: 0 void, 1 ground, 2 to 6 textures, shape `(S, S)`; regions are parted by lines of void, 1 pixel wide.
        regions: Number of discs and squares, 2 to 4; later ones may hide earlier ones.
    """

    image: NDArray[np.uint8]
    mask: NDArray[np.uint8]
    regions: int


@dataclass(frozen=True)
class ADE20KWorld:
    """What determines a world, apart from how many pictures of it are written.

    Attributes:
        seed: Any number from 0 upward.
        size: Side of the pictures in pixels, from 64 upward; the scenes do not depend on it.
    """

    seed: int = 0
    size: int = 96

    def picture(self, split: str, index: int) -> TexturePicture:
        """Draws one picture of `train` or `val`, whatever was drawn before; `index` counts from 0."""
        rng = stream((_WORLD_KEY, self.seed, _SPLIT_KEYS[split], index), 0)
        x, y = plane(self.size, self.size, UNITS)
        image = paint_ground(x, y, rng)
        classes = np.ones((self.size, self.size), dtype=np.uint8)
        owner = np.zeros((self.size, self.size), dtype=np.uint8)
        count = int(rng.integers(2, 5))
        for number in range(1, count + 1):
            texture = int(rng.integers(len(TEXTURES)))
            column, row, radius = rng.uniform((8, 8, RADIUS[0]), (UNITS - 8, UNITS - 8, RADIUS[1]))
            dx, dy = x - column, y - row
            far = np.hypot(dx, dy) if rng.random() < 0.5 else np.maximum(np.abs(dx), np.abs(dy))
            inside = far < radius
            image[inside] = paint_texture(TEXTURES[texture], dx, dy, rng)[inside]
            classes[inside], owner[inside] = texture + 2, number
        return TexturePicture(develop(image, rng), np.where(_borders(owner), 0, classes).astype(np.uint8), count)

    def files(self, split: str, index: int) -> Mapping[str, bytes]:
        """The files of one picture, as {path: content}."""
        picture = self.picture(split, index)
        image, mask = _paths(split, index)
        return {image: encode_jpeg(picture.image), mask: encode_png(picture.mask, palette=False)}

    def lists(self, images: Mapping[str, int]) -> Mapping[str, bytes]:
        """`objectInfo150.txt` and `sceneCategories.txt`, from all pictures drawn again.

        Args:
            images: Number of pictures of `train` and `val`.
        """
        areas = np.zeros(1 + len(CLASS_NAMES))
        shown = {split: np.zeros(1 + len(CLASS_NAMES), dtype=np.intp) for split in images}
        scenes = []
        for split, count in images.items():
            for index in range(count):
                picture = self.picture(split, index)
                area = np.bincount(picture.mask.ravel(), minlength=len(areas))
                areas += area
                shown[split] += area > 0
                scenes.append(f"{_name(split, index)} {picture.regions}_regions")
        ratios = areas / areas[1:].sum()
        rows = [
            f"{number}\t{ratios[number]:.4f}\t{shown['train'][number]}\t{shown['val'][number]}\t{name}"
            for number, name in enumerate(CLASS_NAMES, start=1)
        ]
        lists = {"objectInfo150.txt": ["Idx\tRatio\tTrain\tVal\tName", *rows], "sceneCategories.txt": scenes}
        return {path: "".join(f"{line}\n" for line in lines).encode() for path, lines in lists.items()}


def _borders(owner: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Pixels whose right or lower neighbour belongs to another region: lines of one pixel."""
    border = np.zeros(owner.shape, dtype=np.bool_)
    border[:, :-1] |= owner[:, :-1] != owner[:, 1:]
    border[:-1] |= owner[:-1] != owner[1:]
    return border


def _name(split: str, index: int) -> str:
    return f"ADE_{split}_{index + 1:08d}"


def _paths(split: str, index: int) -> tuple[str, str]:
    name, folder = _name(split, index), _FOLDERS[split]
    return f"images/{folder}/{name}.jpg", f"annotations/{folder}/{name}.png"


def write_ade20k_world(
    root: Path,
    images_train: int = 600,
    images_val: int = 150,
    seed: int = 0,
    size: int = 96,
    progress: Progress | None = None,
) -> Path:
    """Writes a world in the layout of ADEChallengeData2016, or finishes an interrupted one.

    Masks are of mode L: 0 void, 1 ground, 2 to 6 textures. `objectInfo150.txt` lists these six classes: number, share
    of all labelled pixels, training and validation pictures that show it, name. `sceneCategories.txt` names a
    picture by its number of regions. Last of all comes `world.json`.

    Args:
        root: Folder that plays the part of `ADEChallengeData2016`.
        images_train: Pictures for training; more of them leave the first ones as they are.
        images_val: Pictures for validation.
        seed: Seed of everything.
        size: Side in pixels, from 64 upward.
        progress: Called as `progress(done, total)` after every picture.

    Returns:
        `root`.

    Raises:
        ConfigError: A number is too small.
        DatasetError: `root` holds another world or something else.
    """
    world = ADE20KWorld(seed=seed, size=size)
    images = {"train": images_train, "val": images_val}
    facts = facts_of("ade20k", seed, size, images, classes=CLASS_NAMES)
    plan = World(facts, images, _paths, world.files, lambda: world.lists(images))
    return write_world(Path(root), plan, progress)
