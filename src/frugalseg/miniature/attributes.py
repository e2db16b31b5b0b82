"""The stand-in for ImageNet: objects of random looks, tagged with their colours, textures and shapes.

Small networks do not learn rare classes from scratch. Pre-training on this world gives them features for what
objects of the VOC-like world are made of, without a hint which combinations are classes there. On disk it is
a VOC without masks, whose "classes" are the attributes.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np

from frugalseg.data.parallel import Progress
from frugalseg.miniature.encoding import encode_jpeg
from frugalseg.miniature.looks import COLOURS, SHAPES, TEXTURES, Look, Surface
from frugalseg.miniature.scene import BODY, TIP, Scene, make_scene, stream
from frugalseg.miniature.vocfiles import Box, annotation_xml, bounding_box, picture_id, voc_layout
from frugalseg.miniature.writing import facts_of, write_world

ATTRIBUTES: Final = ("background", *COLOURS, *TEXTURES, *SHAPES)
_WORLD_KEY: Final = 1
_SPLIT_KEYS: Final = {"train": 0, "val": 1}
_FOLDERS: Final = {"JPEGImages": ".jpg", "Annotations": ".xml"}


@dataclass(frozen=True)
class AttributeWorld:
    """What determines a world, apart from how many pictures of it are written.

    Attributes:
        seed: Any number from 0 upward.
        size: Side of the pictures in pixels, from 64 upward.
    """

    seed: int = 0
    size: int = 64

    def picture(self, split: str, index: int) -> tuple[Scene, list[Look]]:
        """Draws one picture with one or two objects; returns it with their looks, in the order of their numbers."""
        key = (_WORLD_KEY, self.seed, _SPLIT_KEYS[split], index)
        rng = stream(key, 0)
        looks = [_random_look(rng) for _ in range(1 + int(rng.integers(2)))]
        return make_scene(looks, key, self.size), looks

    def files(self, split: str, index: int) -> Mapping[str, bytes]:
        """The files of one picture, as {folder: content}."""
        scene, looks = self.picture(split, index)
        tags = [tag for number, look in enumerate(looks, start=1) for tag in _tags(scene, number, look)]
        return {
            "JPEGImages": encode_jpeg(scene.image),
            "Annotations": annotation_xml(picture_id(split, index), self.size, tags, segmented=False),
        }


def _random_look(rng: np.random.Generator) -> Look:
    """Four different colours, so that the tip never melts into the body and every tag can be seen."""
    names = [str(name) for name in rng.permutation(list(COLOURS))[:4]]
    body_texture, tip_texture = (TEXTURES[int(pick)] for pick in rng.integers(len(TEXTURES), size=2))
    shape = SHAPES[int(rng.integers(len(SHAPES)))]
    return Look(Surface(body_texture, names[0], names[1]), shape, Surface(tip_texture, names[2], names[3]))


def _tags(scene: Scene, number: int, look: Look) -> list[tuple[str, Box]]:
    """Attributes of one object, each with the box of the part that shows it."""
    mine = scene.objects == number
    body, tip = (bounding_box(mine & (scene.parts == part)) for part in (BODY, TIP))
    on_body = [(name, body) for name in (*look.body.colours, look.body.texture)]
    on_tip = [(name, tip) for name in (*look.tip.colours, look.tip.texture, look.shape)]
    return on_body + on_tip


def write_attribute_world(
    root: Path,
    images: int = 4000,
    seed: int = 0,
    size: int = 64,
    images_val: int = 400,
    progress: Progress | None = None,
) -> Path:
    """Writes the pre-training world in VOC's layout, or finishes an interrupted one.

    Tags are the names of the "objects" in `Annotations`; there are no masks. A name may occur several times
    in one picture, as in VOC.

    Args:
        root: Folder that plays the part of `VOCdevkit/VOC2012`.
        images: Pictures for training.
        seed: Seed of everything.
        size: Side in pixels, from 64 upward.
        images_val: Pictures for validation.
        progress: Called as `progress(done, total)` after every picture.

    Returns:
        `root`.

    Raises:
        ConfigError: A number is too small.
        DatasetError: `root` holds another world or something else.
    """
    world = AttributeWorld(seed=seed, size=size)
    counts = {"train": images, "val": images_val}
    facts = facts_of("attributes", seed, size, counts, classes=ATTRIBUTES)
    return write_world(Path(root), voc_layout(facts, ATTRIBUTES, counts, _FOLDERS, world.files), progress)
