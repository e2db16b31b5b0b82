"""A tiny folder of maps with masks, made for one test."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from frugalseg.data.base import Sample

CLASSES = 4


@dataclass
class Folder:
    """Maps, samples and the arrays that are in the files."""

    maps: Path
    samples: list[Sample]
    arrays: dict
    masks: dict

    def rewrite(self, name, **changes):
        arrays = {**self.arrays[name], **changes}
        np.savez_compressed(self.maps / f"{name}.npz", **{k: v for k, v in arrays.items() if v is not None})


def make_folder(root, images=6, seed=0, names=("m0", "mw", "mp")):
    """Images of different sizes; the last has no mask, the one before it no tags."""
    rng = np.random.default_rng(seed)
    maps, masks = root / "maps", root / "masks"
    maps.mkdir(parents=True)
    masks.mkdir()
    folder = Folder(maps, [], {}, {})
    for index in range(images):
        name = f"2007_{index:06d}"
        size = (5 + index, 9 - index)
        tags = (
            ()
            if index == images - 2
            else tuple(sorted(rng.choice(CLASSES - 1, size=1 + index % 2, replace=False).tolist()))
        )
        keys = np.array([0, *(t + 1 for t in tags)], dtype=np.uint8)
        folder.arrays[name] = {"keys": keys, **{n: rng.random((len(keys), *size)).astype(np.float16) for n in names}}
        folder.rewrite(name)
        mask = rng.choice([0, 1, 2, 3, 255], size=size).astype(np.uint8)
        folder.masks[name] = mask
        Image.fromarray(mask).save(masks / f"{name}.png")
        path = masks / f"{name}.png" if index < images - 1 else None
        folder.samples.append(Sample(name, root / f"{name}.jpg", path, tags))
    return folder
