"""A small VOC: twelve classes, a long tail, and bodies that frequent and rare classes share.

Image counts have the shape of VOC's: one class far above the rest, many near-equal ones, a few rare ones. So SFC's
class weights are U-shaped here as they are there: above one for the commonest class and for the rare ones, below one
in between. The balanced twin (`balanced=True`) has the same grounds, the same numbers of objects and mostly the same
poses; only which classes are drawn differs. It is the control for every claim about the long tail.

Example:
    >>> from pathlib import Path
    >>> write_voc_world(Path("worlds/voc"), images_train=700, images_val=150, seed=0)  # doctest: +SKIP
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from frugalseg.data.parallel import Progress
from frugalseg.miniature.encoding import encode_jpeg, encode_png
from frugalseg.miniature.looks import CLASS_NAMES, LOOKS, PAIRS
from frugalseg.miniature.scene import Scene, make_scene, stream
from frugalseg.miniature.vocfiles import annotation_xml, bounding_box, picture_id, voc_layout
from frugalseg.miniature.writing import facts_of, write_world

# Per class, in the order of `LOOKS`. Drawing without replacement flattens them: of 700 pictures about 465 show
# the first class, 120 each other head class, 63 each middle class and 26 each tail class.
LONG_TAIL: Final = (500.0, 91.0, 87.0, 82.0, 44.0, 43.0, 43.0, 42.0, 18.0, 18.0, 18.0, 17.0)
EVEN: Final = (1.0,) * len(LOOKS)
_OBJECTS: Final = (0.45, 0.40, 0.15)  # chances of one, two and three objects
_WORLD_KEY: Final = 0  # keeps the random numbers apart from those of other worlds with the same seed
_SPLIT_KEYS: Final = {"train": 0, "val": 1}
_FOLDERS: Final = {
    "JPEGImages": ".jpg",
    "SegmentationClass": ".png",
    "SegmentationClassAug": ".png",
    "Parts": ".png",
    "Annotations": ".xml",
}


@dataclass(frozen=True)
class Picture:
    """One picture with its exact labels.

    Attributes:
        scene: Image, objects and parts.
        class_ids: Class of each object in the order of their numbers; no class occurs twice.
    """

    scene: Scene
    class_ids: tuple[int, ...]

    @property
    def mask(self) -> NDArray[np.uint8]:
        """Class ids, 0 = background, shape `(S, S)`; there are no void pixels."""
        return np.array([0, *self.class_ids], dtype=np.uint8)[self.scene.objects]


def draw_picture(key: Sequence[int], size: int, weights: Sequence[float]) -> Picture:
    """Draws one picture of one to three objects, no class twice.

    Args:
        key: Names the picture, see `frugalseg.miniature.scene.stream`.
        size: Side in pixels.
        weights: Relative chance of each of `LOOKS` to be drawn first.

    Returns:
        The picture.
    """
    rng = stream(key, 0)
    count = 1 + int(rng.choice(len(_OBJECTS), p=_OBJECTS))
    # The largest of log(weight) + Gumbel noise are a weighted draw without replacement; unlike
    # `choice` it takes the same random numbers for all weights, which the balanced twin needs.
    scores = np.log(weights) + rng.gumbel(size=len(LOOKS))
    # ... and commoner classes would always lie behind if objects kept the order of their scores
    drawn = rng.permutation(np.argsort(-scores, kind="stable")[:count])
    scene = make_scene([LOOKS[look] for look in drawn], key, size)
    return Picture(scene, tuple(int(look) + 1 for look in drawn))


@dataclass(frozen=True)
class VOCWorld:
    """What determines a world, apart from how many pictures of it are written.

    Attributes:
        seed: Any number from 0 upward.
        size: Side of the pictures in pixels, from 64 upward; the scenes do not depend on it.
        balanced: Draw all classes equally often.
    """

    seed: int = 0
    size: int = 64
    balanced: bool = False

    @property
    def weights(self) -> tuple[float, ...]:
        """Relative chance of each class to be drawn first."""
        return EVEN if self.balanced else LONG_TAIL

    def picture(self, split: str, index: int) -> Picture:
        """Draws one picture, whatever was drawn before.

        Args:
            split: `train` or `val`.
            index: Counted from 0.

        Returns:
            The picture.
        """
        return draw_picture((_WORLD_KEY, self.seed, _SPLIT_KEYS[split], index), self.size, self.weights)

    def files(self, split: str, index: int) -> Mapping[str, bytes]:
        """The files of one picture, as {folder: content}."""
        picture = self.picture(split, index)
        mask = encode_png(picture.mask, palette=True)
        boxes = [
            (CLASS_NAMES[class_id], bounding_box(picture.scene.objects == number))
            for number, class_id in enumerate(picture.class_ids, start=1)
        ]
        return {
            "JPEGImages": encode_jpeg(picture.scene.image),
            "SegmentationClass": mask,
            "SegmentationClassAug": mask,
            "Parts": encode_png(picture.scene.parts, palette=False),
            "Annotations": annotation_xml(picture_id(split, index), self.size, boxes, segmented=True),
        }


def write_voc_world(
    root: Path,
    images_train: int = 700,
    images_val: int = 150,
    seed: int = 0,
    size: int = 64,
    balanced: bool = False,
    progress: Progress | None = None,
) -> Path:
    """Writes a world in VOC's layout, or finishes an interrupted one.

    Beside the official files there are `Parts/<id>.png` (mode L: 1 body, 2 tip), `ImageSets/classes.txt`
    and, last of all, `world.json`. `trainaug` equals `train`: all masks are exact.

    Args:
        root: Folder that plays the part of `VOCdevkit/VOC2012`.
        images_train: Pictures for training; more of them leave the first ones as they are.
        images_val: Pictures for validation.
        seed: Seed of everything.
        size: Side in pixels, from 64 upward.
        balanced: Write the balanced twin.
        progress: Called as `progress(done, total)` after every picture.

    Returns:
        `root`.

    Raises:
        ConfigError: A number is too small.
        DatasetError: `root` holds another world or something else.
    """
    world = VOCWorld(seed=seed, size=size, balanced=balanced)
    images = {"train": images_train, "val": images_val}
    labels = {"classes": CLASS_NAMES, "weights": world.weights, "pairs": PAIRS}
    facts = facts_of("voc", seed, size, images, balanced=balanced, **labels)
    return write_world(Path(root), voc_layout(facts, CLASS_NAMES, images, _FOLDERS, world.files), progress)
