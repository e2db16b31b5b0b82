"""A small DLRSD: 21 land uses from above, every pixel labelled with one of 17 classes, in the official layout.

A few pictures are some pixels smaller than the rest, as in UC Merced.

Example:
    >>> from pathlib import Path
    >>> write_dlrsd_world(Path("worlds/dlrsd"), images_per_folder=6, seed=0, size=96)  # doctest: +SKIP
"""

import io
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from frugalseg.data.parallel import Progress
from frugalseg.errors import ConfigError
from frugalseg.miniature.aerial.canvas import Canvas, develop
from frugalseg.miniature.aerial.landuse import paint_land_use
from frugalseg.miniature.aerial.recipes import RECIPES
from frugalseg.miniature.aerial.surfaces import Surface
from frugalseg.miniature.scene import stream
from frugalseg.miniature.writing import World, facts_of, write_world

# Class (ids count from 1), its colour in the masks, and what counts as it. Trees and water are of no fold of D1.
_CLASSES: Final[dict[str, tuple[tuple[int, int, int], tuple[Surface, ...]]]] = {
    "airplane": ((166, 202, 240), (Surface.PLANE,)),
    "bare soil": ((128, 128, 0), (Surface.SOIL,)),
    "buildings": ((0, 0, 128), (Surface.BUILDING,)),
    "cars": ((255, 0, 0), (Surface.SMALL_VEHICLE, Surface.LARGE_VEHICLE)),
    "chaparral": ((0, 128, 0), (Surface.CHAPARRAL,)),
    "court": ((128, 0, 0), (Surface.TENNIS_COURT, Surface.BASKETBALL_COURT)),
    "dock": ((255, 233, 233), (Surface.HARBOR,)),
    "field": ((160, 160, 164), (Surface.FIELD,)),
    "grass": ((0, 128, 128), (Surface.GRASS,)),
    "mobile home": ((90, 87, 255), (Surface.MOBILE_HOME,)),
    "pavement": ((255, 255, 0), (Surface.PAVEMENT,)),
    "sand": ((255, 192, 0), (Surface.SAND,)),
    "sea": ((0, 0, 255), (Surface.SEA,)),
    "ship": ((255, 0, 192), (Surface.SHIP,)),
    "tanks": ((128, 0, 128), (Surface.STORAGE_TANK,)),
    "trees": ((0, 255, 0), (Surface.TREES,)),
    "water": ((0, 255, 255), (Surface.WATER, Surface.SWIMMING_POOL)),
}
CLASS_NAMES: Final = tuple(_CLASSES)
FOLDERS: Final = tuple(RECIPES)
FOLDS: Final = (range(1, 6), range(6, 11), range(11, 16))  # class ids of D1
LEAST_SHARE: Final = 100 / 256**2  # of the picture, for a class to be listed
_WORLD_KEY: Final = 3  # keeps the random numbers apart from those of other worlds with the same seed
_UNITS: Final = 96
_MOST: Final = 100  # pictures of a folder: names have two digits


@dataclass(frozen=True)
class DlrsdWorld:
    """What determines a world, apart from how many pictures of it are written.

    Attributes:
        seed: Any number from 0 upward.
        size: Nominal side in pixels, from 64 upward; scenes do not depend on it.
    """

    seed: int = 0
    size: int = 256

    def shape(self, folder: str, number: int) -> tuple[int, int]:
        """Height and width; one picture in twenty lacks a few rows or columns."""
        place = FOLDERS.index(folder)
        if (7 * place + number) % 20 != 2:
            return self.size, self.size
        rng = stream((_WORLD_KEY, self.seed, place, number), 0)
        less = self.size - int(rng.integers(1, max(2, self.size * 10 // 256)))
        return (less, self.size) if rng.random() < 0.5 else (self.size, less)

    def picture(self, folder: str, number: int) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        """Draws one picture, whatever was drawn before.

        Args:
            folder: One of `FOLDERS`.
            number: Counted from 0 in the folder.

        Returns:
            The image `(H, W, 3)` and class ids 1..17, `(H, W)`.
        """
        canvas = Canvas(*self.shape(folder, number), scale=self.size / _UNITS)
        rng = stream((_WORLD_KEY, self.seed, FOLDERS.index(folder), number), 1)
        paint_land_use(canvas, RECIPES[folder], rng)
        return develop(canvas, rng), _CLASS_OF_SURFACE[canvas.surface]

    def files(self, folder: str, number: int) -> Mapping[str, bytes]:
        """Draws a picture and encodes it, as {path: content}."""
        image, ids = self.picture(folder, number)
        mask = Image.fromarray(ids)
        mask.putpalette(_PALETTE)
        contents = (_encode(Image.fromarray(image), "TIFF"), _encode(mask, "PNG"))
        return dict(zip(_paths(folder, number), contents, strict=True))


def _paths(folder: str, number: int) -> tuple[str, str]:
    name = f"{folder}/{folder}{number:02d}"
    return f"UCMerced_LandUse/Images/{name}.tif", f"DLRSD/Images/{name}.png"


def _encode(picture: Image.Image, form: str) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, form)
    return buffer.getvalue()


def _class_table() -> NDArray[np.uint8]:
    table = np.zeros(len(Surface), dtype=np.uint8)
    for class_id, (_, surfaces) in enumerate(_CLASSES.values(), start=1):
        table[list(surfaces)] = class_id
    return table


_CLASS_OF_SURFACE: Final = _class_table()
_PALETTE: Final = bytes((0, 0, 0, *(level for colour, _ in _CLASSES.values() for level in colour)))


def write_dlrsd_world(
    root: Path,
    images_per_folder: int = 12,
    seed: int = 0,
    size: int = 256,
    progress: Progress | None = None,
) -> Path:
    """Writes a world in the layouts of UC Merced and DLRSD, or finishes an interrupted one.

    Beside the pictures there are `splits/{train,val}.txt` - the last sixth of each folder is for validation - and
    the pair lists of the split that is called D1, `lists/d1_pairs_{trn,val}_fold{0,1,2}.txt`: every picture with
    every class of the fold that covers `LEAST_SHARE` of it. As in D1, both lists of a fold are the same.

    Args:
        root: Folder of the data set.
        images_per_folder: Pictures of each of the 21 land uses, 2 to 100; from 6 on, every class has enough for
            5-shot episodes. More of them leave the first ones as they are.
        seed: Seed of everything.
        size: Nominal side in pixels, from 64 upward.
        progress: Called as `progress(done, total)` after every picture.

    Returns:
        `root`.

    Raises:
        ConfigError: A number is too small or too large.
        DatasetError: `root` holds another world or something else.
    """
    if not 2 <= images_per_folder <= _MOST:
        raise ConfigError(f"images_per_folder is {images_per_folder}: use a whole number from 2 to {_MOST}")
    names = _split(images_per_folder)
    drawn = DlrsdWorld(seed=seed, size=size)
    root = Path(root)
    images = {split: len(pictures) for split, pictures in names.items()}
    labels = {"classes": CLASS_NAMES, "least_share": LEAST_SHARE}
    facts = facts_of("dlrsd", seed, size, images, images_per_folder=images_per_folder, **labels)
    world = World(
        facts,
        images,
        lambda split, index: _paths(*names[split][index]),
        lambda split, index: drawn.files(*names[split][index]),
        lambda: _lists(root, names),
    )
    return write_world(root, world, progress)


def _split(images_per_folder: int) -> dict[str, list[tuple[str, int]]]:
    """(folder, number) of the pictures of each split."""
    first_val = images_per_folder - max(1, images_per_folder // 6)
    ranges = {"train": range(first_val), "val": range(first_val, images_per_folder)}
    return {split: [(folder, number) for folder in FOLDERS for number in numbers] for split, numbers in ranges.items()}


def _lists(root: Path, names: Mapping[str, list[tuple[str, int]]]) -> Mapping[str, bytes]:
    """Reads the masks back instead of keeping them, for an earlier run may have written them."""
    texts = {f"splits/{split}.txt": [f"{folder}{number:02d}" for folder, number in names[split]] for split in names}
    pairs: list[list[str]] = [[] for _ in FOLDS]
    for folder, number in sorted(names["train"] + names["val"]):
        with Image.open(root / _paths(folder, number)[1]) as mask:
            areas = np.bincount(np.asarray(mask).ravel(), minlength=len(CLASS_NAMES) + 1)
        least = LEAST_SHARE * areas.sum()
        for fold, class_ids in enumerate(FOLDS):
            pairs[fold] += [f"{folder}{number:02d}__{class_id}" for class_id in class_ids if areas[class_id] >= least]
    for fold, lines in enumerate(pairs):
        texts |= {f"lists/d1_pairs_{split}_fold{fold}.txt": lines for split in ("trn", "val")}
    return {path: "".join(f"{line}\n" for line in lines).encode() for path, lines in texts.items()}
