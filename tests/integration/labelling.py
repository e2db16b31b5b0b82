"""Class maps and edges of a miniature world, made from its true masks, and the words of the verbs that make labels."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import cv2
import numpy as np
import yaml

from frugalseg.data.io import read_mask
from frugalseg.data.voc import class_table, index
from frugalseg.run import write_arrays


@dataclass(frozen=True)
class Folders:
    world: Path
    maps: Path
    edges: Path
    out: Path

    def words(self, verb, *extra, out=None, workers=1):
        """A command line; `extra` words win."""
        words = [verb, "--maps", self.maps, "--split", "train", "--out", out or self.out, "--workers", workers,
                 "--data=VOC", f"--data.init_args.root={self.world}"]  # fmt: skip
        return [str(word) for word in (*words, *(["--edges", self.edges] if verb == "walk" else []), *extra)]

    @cached_property
    def samples(self):
        return index(self.world, "train")

    @cached_property
    def num_classes(self):
        return class_table(self.world).num_classes

    def truth(self, sample):
        ids = read_mask(sample.mask, self.num_classes)
        return np.where(ids == 255, 0, ids)

    def rewrite(self, sample, folder="maps", **changes):
        """Change arrays of one file; None takes one out."""
        path = getattr(self, folder) / f"{sample.id}.npz"
        with np.load(path) as archive:
            arrays = {**archive, **changes}
        write_arrays(path, {name: array for name, array in arrays.items() if array is not None})


def soft_maps(truth, keys, rng, blur=5.0):
    """(k, H, W) float16 as SFC shapes them (sfc.md section 6): classes are blurred truth with noise."""
    classes = np.zeros((len(keys), *truth.shape), np.float32)
    for row, key in enumerate(keys[1:], start=1):
        found = cv2.GaussianBlur((truth == key).astype(np.float32), (0, 0), blur)
        noise = cv2.GaussianBlur(rng.random(truth.shape, np.float32), (0, 0), 3)
        classes[row] = np.clip(found / found.max() + 0.5 * (noise - 0.6), 0, None)
        classes[row] /= classes[row].max()
    background = 1 - classes.max(axis=0)
    return np.concatenate([background[None] / background.max() + 0.4, classes[1:] * 2]).astype(np.float16)


def true_edges(truth, stride=4):
    """(h, w) float32: 0.9 in cells where two classes meet, a little elsewhere."""
    thick = cv2.dilate(truth, np.ones((3, 3), np.uint8)) != cv2.erode(truth, np.ones((3, 3), np.uint8))
    height, width = (-(-side // stride) for side in truth.shape)
    padded = np.zeros((height * stride, width * stride), bool)
    padded[: truth.shape[0], : truth.shape[1]] = thick
    return np.where(padded.reshape(height, stride, width, stride).any(axis=(1, 3)), 0.9, 0.02).astype(np.float32)


def make_folders(world: Path, root: Path, limit: int | None = None) -> Folders:
    """Maps and edges of the training split."""
    folders = Folders(world, root / "maps", root / "edges", root / "labels")
    rng = np.random.default_rng(0)
    for sample in folders.samples[:limit]:
        truth = folders.truth(sample)
        keys = np.array([0, *[tag + 1 for tag in sample.tags]], np.uint8)
        maps = {name: soft_maps(truth, keys, rng, blur) for name, blur in (("m0", 6.0), ("mw", 5.0), ("mp", 4.0))}
        write_arrays(folders.maps / f"{sample.id}.npz", {"keys": keys, **maps})
        write_arrays(folders.edges / f"{sample.id}.npz", {"edge": true_edges(truth)})
    return folders


def write_config(path: Path, **sections) -> Path:
    """An experiment's YAML."""
    path.write_text(yaml.safe_dump(sections))
    return path
