"""A small COCO 2014: the scenes of the VOC-like world, with what makes COCO's annotations awkward.

Which pictures are special depends on their index alone, so that even small worlds have them; see `write_coco_world`.

Example:
    >>> from pathlib import Path
    >>> write_coco_world(Path("worlds/coco"), images_train=700, images_val=150)  # doctest: +SKIP
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

from frugalseg.data.parallel import Progress
from frugalseg.miniature.cocofiles import Record, Region, annotation, image_record, instances
from frugalseg.miniature.encoding import encode_jpeg
from frugalseg.miniature.inset import add_inset
from frugalseg.miniature.looks import LOOKS
from frugalseg.miniature.paint import background, develop
from frugalseg.miniature.scene import stream
from frugalseg.miniature.voc import EVEN, LONG_TAIL, Picture, draw_picture
from frugalseg.miniature.writing import World, facts_of, write_world

CATEGORY_IDS: Final = (1, 2, 4, 5, 7, 8, 10, 11, 13, 16, 17, 20)
EMPTY: Final = (2, 5)
GREY: Final = 4
INSET: Final = (8, 6)  # remainder of the index: every eighth picture, from number 6
CROWD: Final = (20, 7)
_WORLD_KEY: Final = 10
_INSET_KEY: Final = 11
_SPLIT_KEYS: Final = {"train": 0, "val": 1}
_FIRST_IDS: Final = {"train": 9, "val": 42}  # ten apart from then on, so ids have gaps and the splits share none


@dataclass(frozen=True)
class COCOPicture:
    """One picture with its exact labels.

    Attributes:
        image: RGB, shape `(S, S, 3)`, or grey, shape `(S, S)`.
        mask: Ranks of the category ids from 1 upward, 0 = background, shape `(S, S)`.
        objects: Rank and annotated region `(S, S)` of each object; a region may contain a smaller one.
        crowd: The first object is annotated as a crowd.
    """

    image: NDArray[np.uint8]
    mask: NDArray[np.uint8]
    objects: tuple[tuple[int, Region], ...]
    crowd: bool


@dataclass(frozen=True)
class COCOWorld:
    """What determines a world, apart from how many pictures of it are written.

    Attributes:
        seed: Any number from 0 upward.
        size: Side of the pictures in pixels, from 64 upward.
        balanced: Draw all classes equally often.
    """

    seed: int = 0
    size: int = 64
    balanced: bool = False

    def picture(self, split: str, index: int) -> COCOPicture:
        """Draws one picture of `train` or `val`, whatever was drawn before; `index` counts from 0."""
        key = (_WORLD_KEY, self.seed, _SPLIT_KEYS[split], index)
        if index in EMPTY:
            rng = stream(key, 0)
            nothing = np.zeros((self.size, self.size), dtype=np.uint8)
            return COCOPicture(develop(rng, background(rng, self.size)), nothing, (), crowd=False)
        weights = EVEN if self.balanced else LONG_TAIL
        drawn = draw_picture(key, self.size, weights)
        regions = enumerate(drawn.class_ids, start=1)
        objects = tuple((class_id, np.asarray(drawn.scene.objects == number)) for number, class_id in regions)
        if index % INSET[0] == INSET[1]:
            return _with_inset(drawn, objects, weights, stream((_INSET_KEY, *key[1:]), 0))
        image = cv2.cvtColor(drawn.scene.image, cv2.COLOR_RGB2GRAY) if index == GREY else drawn.scene.image
        return COCOPicture(np.asarray(image, np.uint8), drawn.mask, objects, index % CROWD[0] == CROWD[1])

    def files(self, split: str, index: int) -> Mapping[str, bytes]:
        """The files of one picture, as {path: content}."""
        return {_path(split, index): encode_jpeg(self.picture(split, index).image)}

    def annotations(self, split: str, count: int) -> bytes:
        """Content of a split's `instances_*.json`, from all `count` pictures drawn again."""
        images: list[Record] = []
        records: list[Record] = []
        for index in range(count):
            picture, image_id = self.picture(split, index), _image_id(split, index)
            images.append(image_record(Path(_path(split, index)).name, image_id, picture.mask.shape))
            for number, (rank, region) in enumerate(picture.objects, start=1):
                crowd = picture.crowd and number == 1
                records.append(annotation(region, CATEGORY_IDS[rank - 1], image_id, number, crowd))
        return instances(images, records, _CATEGORIES)


_CATEGORIES: Final = tuple(
    {"supercategory": look.body.texture, "id": category, "name": look.name}
    for category, look in zip(CATEGORY_IDS, LOOKS, strict=True)
)


def _with_inset(
    drawn: Picture, objects: tuple[tuple[int, Region], ...], weights: Sequence[float], rng: np.random.Generator
) -> COCOPicture:
    """A small object of a class that is not there yet, on the biggest one, whose region keeps those pixels.

    It comes first, so that whoever paints annotations in the order of the file loses it.
    """
    chances = np.array(weights)
    chances[np.array(drawn.class_ids) - 1] = 0
    rank = 1 + int(rng.choice(len(LOOKS), p=chances / chances.sum()))
    image, mask = drawn.scene.image.copy(), drawn.mask.copy()
    region = add_inset(image, max((region for _, region in objects), key=np.count_nonzero), LOOKS[rank - 1], rng)
    if region is None:
        return COCOPicture(image, mask, objects, crowd=False)
    mask[region] = rank
    return COCOPicture(image, mask, ((rank, region), *objects), crowd=False)


def _image_id(split: str, index: int) -> int:
    return _FIRST_IDS[split] + 10 * index


def _path(split: str, index: int) -> str:
    return f"{split}2014/COCO_{split}2014_{_image_id(split, index):012d}.jpg"


def write_coco_world(
    root: Path,
    images_train: int = 700,
    images_val: int = 150,
    seed: int = 0,
    size: int = 64,
    balanced: bool = False,
    progress: Progress | None = None,
) -> Path:
    """Writes a world in COCO 2014's layout, or finishes an interrupted one.

    Category ids have gaps. Objects are annotated with polygons of what can be seen of them, or with run lengths where
    that has a hole. By index, in each split: 2 and 5 show nothing and have no annotation; 4 is a grey JPEG; of 6, 14,
    ... the biggest object's region contains that of a small one; the first object of 7, 27, ... is a crowd (iscrowd 1,
    run lengths), which makes 3 % of the annotations. Last of all comes `world.json`.

    Args:
        root: Folder that holds `train2014`, `val2014` and `annotations`.
        images_train: Pictures for training; more of them leave the first ones as they are.
        images_val: Pictures for validation.
        seed: Seed of everything.
        size: Side in pixels, from 64 upward.
        balanced: Draw all classes equally often instead of the long tail.
        progress: Called as `progress(done, total)` after every picture.

    Returns:
        `root`.

    Raises:
        ConfigError: A number is too small.
        DatasetError: `root` holds another world or something else.
    """
    world = COCOWorld(seed=seed, size=size, balanced=balanced)
    images = {"train": images_train, "val": images_val}
    categories = {str(category["id"]): category["name"] for category in _CATEGORIES}
    facts = facts_of("coco", seed, size, images, balanced=balanced, categories=categories)
    plan = World(
        facts,
        images,
        paths=lambda split, index: [_path(split, index)],
        make=world.files,
        extras=lambda: {
            f"annotations/instances_{split}2014.json": world.annotations(split, count)
            for split, count in images.items()
        },
    )
    return write_world(Path(root), plan, progress)
