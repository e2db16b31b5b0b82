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
from frugalseg.miniature.textures import TEXTURES, Floats, develop, paint_ground, paint_texture, plane
from frugalseg.miniature.writing import World, facts_of, write_world

CLASS_NAMES: Final = ("ground", *TEXTURES)
UNITS: Final = 96.0  # along each side of a picture
RADIUS: Final = (14.0, 30.0)  # least and greatest, in units
# Of the world with forms: how many of each kind a picture has, later ones over earlier ones; sizes are in units.
_PLAIN: Final = (1, 3)
_SLENDER: Final = (2, 4)
_SMALL: Final = (4, 7)
_HALF_WIDTH: Final = (4.0, 6.0)
_HALF_LENGTH: Final = (22.0, 40.0)
_RING: Final = (12.0, 22.0)
_DOT: Final = (6.0, 9.0)
_WORLD_KEY: Final = 12
_SPLIT_KEYS: Final = {"train": 0, "val": 1}
_FOLDERS: Final = {"train": "training", "val": "validation"}


@dataclass(frozen=True)
class TexturePicture:
    """One picture with its exact labels.

    Attributes:
        image: RGB, shape `(S, S, 3)`.
        mask: 0 void, 1 ground, 2 to 6 textures, shape `(S, S)`; regions are parted by lines of void, 1 pixel wide.
        regions: Number of discs and squares, 2 to 4, or of all forms, 7 to 11; later ones may hide earlier ones.
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
        forms: Two textures come as discs and squares, one as bars, one as rings and one as dots. Which ones does the
            seed say, so that over worlds no form has a texture of its own.
    """

    seed: int = 0
    size: int = 96
    forms: bool = False

    def picture(self, split: str, index: int) -> TexturePicture:
        """Draws one picture of `train` or `val`, whatever was drawn before; `index` counts from 0."""
        rng = stream((_WORLD_KEY, self.seed, _SPLIT_KEYS[split], index), int(self.forms))
        x, y = plane(self.size, self.size, UNITS)
        image = paint_ground(x, y, rng)
        classes = np.ones((self.size, self.size), dtype=np.uint8)
        owner = np.zeros((self.size, self.size), dtype=np.uint8)
        kinds = self._kinds(rng) if self.forms else [0] * int(rng.integers(2, 5))
        for number, kind in enumerate(kinds, start=1):
            texture = (kind + self.seed) % len(TEXTURES) if self.forms else int(rng.integers(len(TEXTURES)))
            column, row, radius = rng.uniform((8, 8, RADIUS[0]), (UNITS - 8, UNITS - 8, RADIUS[1]))
            dx, dy = x - column, y - row
            inside = _FORMS[kind](dx, dy, radius, rng)
            image[inside] = paint_texture(TEXTURES[texture], dx, dy, rng)[inside]
            classes[inside], owner[inside] = texture + 2, number
        return TexturePicture(develop(image, rng), np.where(_borders(owner), 0, classes).astype(np.uint8), len(kinds))

    def _kinds(self, rng: np.random.Generator) -> list[int]:
        """Numbers of forms of one picture, large ones first: what is small is seldom hidden."""
        counts = [int(rng.integers(*between)) for between in (_PLAIN, _SLENDER, _SMALL)]
        plain, slender = rng.integers(0, 2, counts[0]).tolist(), rng.integers(2, 4, counts[1]).tolist()
        return [*plain, *slender, *[4] * counts[2]]

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


def _block(dx: Floats, dy: Floats, radius: float, rng: np.random.Generator) -> NDArray[np.bool_]:
    """A disc or a square."""
    far = np.hypot(dx, dy) if rng.random() < 0.5 else np.maximum(np.abs(dx), np.abs(dy))
    return np.asarray(far < radius)


def _bar(dx: Floats, dy: Floats, _radius: float, rng: np.random.Generator) -> NDArray[np.bool_]:
    least, greatest = zip((0, np.pi), _HALF_WIDTH, _HALF_LENGTH, strict=True)
    angle, half_width, half_length = rng.uniform(least, greatest)
    along, across = dx * np.cos(angle) + dy * np.sin(angle), dy * np.cos(angle) - dx * np.sin(angle)
    return np.asarray((np.abs(along) < half_length) & (np.abs(across) < half_width))


def _ring(dx: Floats, dy: Floats, _radius: float, rng: np.random.Generator) -> NDArray[np.bool_]:
    radius, half_width = rng.uniform((_RING[0], _HALF_WIDTH[0]), (_RING[1], _HALF_WIDTH[1]))
    return np.asarray(np.abs(np.hypot(dx, dy) - radius) < half_width)


def _dot(dx: Floats, dy: Floats, _radius: float, rng: np.random.Generator) -> NDArray[np.bool_]:
    return _block(dx, dy, float(rng.uniform(*_DOT)), rng)


_FORMS: Final = (_block, _block, _bar, _ring, _dot)


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
    forms: bool = False,
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
        forms: With bars, rings and dots, see `ADE20KWorld`.
        progress: Called as `progress(done, total)` after every picture.

    Returns:
        `root`.

    Raises:
        ConfigError: A number is too small.
        DatasetError: `root` holds another world or something else.
    """
    world = ADE20KWorld(seed=seed, size=size, forms=forms)
    images = {"train": images_train, "val": images_val}
    # worlds without them are as they were before there were any
    facts = facts_of("ade20k", seed, size, images, classes=CLASS_NAMES, **({"forms": True} if forms else {}))
    plan = World(facts, images, _paths, world.files, lambda: world.lists(images))
    return write_world(Path(root), plan, progress)
