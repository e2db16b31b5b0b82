"""A sweep of background thresholds in one pass against one evaluation per threshold; both read the same files."""

import tempfile
from pathlib import Path

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from frugalseg.analysis.maps import foreground_scores, read_maps
from frugalseg.data.io import read_mask, write_mask
from frugalseg.ops.cam import labels_from_maps
from frugalseg.ops.confusion import confusion_matrix
from frugalseg.ops.palette import voc_palette
from frugalseg.ops.thresholds import cumulate, histogram
from tests.benchmark.measure import Measured, interleave, ratio

CLASSES = 21
Pairs = list[tuple[Path, Path]]


def make_files(folder: Path, images: int, size: tuple[int, int]) -> Pairs:
    """Smooth maps of one to three classes, compressed as `CamWriter` does, and masks that go with them."""
    rng = np.random.default_rng(0)
    pairs = []
    for number in range(images):
        keys = np.sort(rng.choice(np.arange(1, CLASSES), size=1 + number % 3, replace=False))
        coarse = np.stack([rng.random((9, 12), np.float32) for _ in keys])
        maps = np.stack([enlarge(channel, size) for channel in coarse]).clip(0)
        maps = np.concatenate([np.zeros((1, *size), np.float32), 2 * maps / maps.max(axis=(1, 2), keepdims=True)])
        truth = np.concatenate([[0], keys])[np.argmax(np.concatenate([maps[:1] + 1, maps[1:]]), axis=0)]
        truth[:4] = 255
        pair = folder / f"{number}.npz", folder / f"{number}.png"
        np.savez_compressed(pair[0], keys=np.concatenate([[0], keys]).astype(np.uint8), mw=maps.astype(np.float16))
        write_mask(pair[1], truth.astype(np.uint8), voc_palette())
        pairs.append(pair)
    return pairs


def enlarge(channel: NDArray[np.float32], size: tuple[int, int]) -> NDArray[np.float32]:
    return np.asarray(cv2.resize(channel, size[::-1], interpolation=cv2.INTER_CUBIC), np.float32)


def read(pair: tuple[Path, Path]) -> tuple[Tensor, Tensor, Tensor]:
    """Foreground scores, their class ids, and the true labels of one image."""
    arrays = read_maps(pair[0])
    truth = torch.as_tensor(read_mask(pair[1], CLASSES).astype(np.int64))
    return foreground_scores(arrays, "mw"), torch.as_tensor(arrays["keys"][1:].astype(np.int64)), truth


def swept(pairs: Pairs, thresholds: Tensor) -> Tensor:
    """(T, K, K) counts, every file read once."""
    total = torch.zeros(CLASSES, CLASSES, len(thresholds) + 1, dtype=torch.int64)
    for pair in pairs:
        total += histogram(*read(pair), thresholds, CLASSES)
    return cumulate(total)


def single(pairs: Pairs, threshold: float) -> Tensor:
    """(K, K) counts at one threshold: what a run per threshold does, with our fast parts."""
    total = torch.zeros(CLASSES, CLASSES, dtype=torch.int64)
    for pair in pairs:
        scores, keys, truth = read(pair)
        whole = torch.cat([torch.full((1, *truth.shape), threshold), scores])
        labels = labels_from_maps(whole, torch.cat([keys.new_zeros(1), keys]))
        total += confusion_matrix(labels, truth, CLASSES)
    return total


def sweep_over_single(quick: bool) -> dict[str, Measured]:
    images, size, count = (2, (30, 40), 5) if quick else (9, (375, 500), 60)
    thresholds = torch.arange(count) / count
    with tempfile.TemporaryDirectory() as folder:
        pairs = make_files(Path(folder), images, size)
        each = torch.stack([single(pairs, float(threshold)) for threshold in thresholds])
        if not torch.equal(swept(pairs, thresholds), each):
            raise RuntimeError("the sweep counts other pixels than the single evaluations")
        sides = {
            "sweep": lambda: swept(pairs, thresholds),
            "single": lambda: [single(pairs, float(threshold)) for threshold in thresholds],
        }
        times = interleave(sides, 1 if quick else 3, {"sweep": 1 if quick else 10})
    measured = ratio(times, "single", "sweep")
    measured.extra["ms_per_image"] = {k: round(1000 * v / images, 2) for k, v in measured.extra["seconds"].items()}
    return {"evaluate.sweep_over_single": measured}
