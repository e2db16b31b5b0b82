"""The dense CRF against pydensecrf2 on a genuine photo, what sharing its set-up saves, memory, and a GPU.

`python -m tests.benchmark.crf [--quick]` prints the peak memory of one call with 21 labels in bytes.
"""

import sys
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from frugalseg.ops.crf import Kernels, dense_crf, pairwise
from tests.benchmark.data import REAL, find_images
from tests.benchmark.device import gpu_device
from tests.benchmark.measure import Measured, Skip, device_ratio, in_fresh_process, interleave, peak_memory, ratio

PHOTO = "2007_005988"
"""500 x 375 pixels; its mask has three classes."""
GT_PROB = 0.7
ITERATIONS = 10
IMAGES = 16
"""Of a batch on a GPU."""
KERNELS = Kernels()


def load_photo(quick: bool) -> NDArray[np.uint8]:
    """The photo (H, W, 3); cut down where quick."""
    path = REAL / f"VOCdevkit/VOC2012/JPEGImages/{PHOTO}.jpg"
    if not path.is_file():
        raise Skip(f"no photo at {path}; set FRUGALSEG_REAL_DATA")
    with Image.open(path) as opened:
        photo = np.array(opened.convert("RGB"))
    return photo[:48, :64].copy() if quick else photo


def any_photo(quick: bool) -> tuple[NDArray[np.uint8], str]:
    """The photo, else a made one of its size; and a remark on which."""
    try:
        return load_photo(quick), ""
    except Skip:
        with tempfile.TemporaryDirectory() as folder:
            (path, *_), note = find_images(Path(folder), 1)
            with Image.open(path) as opened:
                photo = np.array(opened.convert("RGB"))
    return photo[:48, :64].copy() if quick else photo, note


def make_labels(count: int, size: tuple[int, int]) -> NDArray[np.int64]:
    """Blocks of labels at random: both sides take the same time whatever they are."""
    blocks = np.random.default_rng(0).integers(0, count, (size[0] // 48 + 1, size[1] // 48 + 1))
    return np.kron(blocks, np.ones((48, 48), np.int64))[: size[0], : size[1]].copy()


def ours(photo: NDArray[np.uint8], labels: NDArray[np.int64], count: int, device: str = "cpu") -> Tensor:
    pixels, hard = torch.from_numpy(photo).to(device), torch.from_numpy(labels).to(device)
    return dense_crf(pixels, hard, KERNELS, ITERATIONS, GT_PROB, count).cpu()


def reference(photo: NDArray[np.uint8], labels: NDArray[np.int64], count: int) -> NDArray[np.float32]:
    """As its users call it: (L, H, W) marginals."""
    from pydensecrf.densecrf import DenseCRF2D
    from pydensecrf.utils import unary_from_labels

    height, width = labels.shape
    crf = DenseCRF2D(width, height, count)
    crf.setUnaryEnergy(unary_from_labels(labels, count, GT_PROB, zero_unsure=False))
    crf.addPairwiseGaussian(sxy=KERNELS.gaussian_sxy, compat=KERNELS.gaussian_compat)
    crf.addPairwiseBilateral(
        sxy=KERNELS.bilateral_sxy, srgb=KERNELS.bilateral_srgb, rgbim=photo, compat=KERNELS.bilateral_compat
    )
    return np.array(crf.inference(ITERATIONS)).reshape(count, height, width)


def over_reference(quick: bool) -> dict[str, Measured]:
    photo = load_photo(quick)
    try:
        import pydensecrf.densecrf  # noqa: F401
    except ImportError as missing:
        raise Skip("pydensecrf2 is not installed") from missing
    rows = {}
    for count in (3, 21):
        work = (photo, make_labels(count, photo.shape[:2]), count)
        difference = np.abs(ours(*work).numpy() - reference(*work)).max()
        if difference > 1e-3:
            raise RuntimeError(f"the two results with {count} labels differ by {difference}")
        times = interleave({"ours": lambda w=work: ours(*w), "reference": lambda w=work: reference(*w)}, _rounds(quick))
        measured = ratio(times, "reference", "ours")
        rows[f"crf.over_reference_{count}"] = Measured(
            measured.value, f"marginals differ by {difference:.0e} at most", measured.extra
        )
    return rows


def sharing(quick: bool) -> dict[str, Measured]:
    """The two calls of sfc.md 7.1."""
    pixels = torch.from_numpy(load_photo(quick))
    labels = [torch.from_numpy(make_labels(3, pixels.shape[:2])).roll(shift, 1) for shift in (0, 5)]

    def calls(shared: bool) -> None:
        kernels = pairwise(pixels, KERNELS) if shared else None
        for hard in labels:
            dense_crf(pixels, hard, KERNELS, 12, GT_PROB, 3, kernels)

    times = interleave({"shared": lambda: calls(True), "unshared": lambda: calls(False)}, _rounds(quick))
    return {"crf.shared_over_unshared": ratio(times, "shared", "unshared")}


def memory(quick: bool) -> dict[str, Measured]:
    load_photo(quick)  # skips where there is none
    peak = in_fresh_process("tests.benchmark.crf", *(["--quick"] if quick else []))
    return {"crf.peak_memory": Measured(peak / 1e6)}


def gpu(quick: bool) -> dict[str, Measured]:
    """One photo, and a batch of several, as `frugalseg crf` works on a GPU."""
    device, images = gpu_device(), 2 if quick else IMAGES
    photo, note = any_photo(quick)
    rows = {}
    for count in (3, 21):
        work = (photo, make_labels(count, photo.shape[:2]), count)
        several = (*(np.stack([x] * images) for x in work[:2]), count)
        torch.testing.assert_close(ours(*work, device), ours(*work), rtol=0, atol=1e-3)
        torch.testing.assert_close(ours(*several, device)[-1], ours(*work), rtol=0, atol=1e-3)
        sides = {
            "gpu": lambda w=work: ours(*w, device),
            "batch": lambda w=several: ours(*w, device),
            "cpu": lambda w=work: ours(*w),
        }
        times = interleave(sides, 1 if quick else 5)
        times["batch"] = [(wall / images, cpu / images) for wall, cpu in times["batch"]]
        for name, side in (("gpu", "gpu"), ("gpu_batch", "batch")):
            rows[f"crf.{name}_over_cpu_{count}"] = replace(device_ratio(times, "cpu", side), note=note)
    return rows


def _rounds(quick: bool) -> int:
    return 1 if quick else 15


def main(quick: bool) -> None:
    torch.set_num_threads(1)
    small, photo = load_photo(True), load_photo(quick)
    ours(small, make_labels(21, small.shape[:2]), 21)  # libraries loaded and set up
    labels = make_labels(21, photo.shape[:2])
    print(peak_memory(lambda: ours(photo, labels, 21)))


if __name__ == "__main__":
    main("--quick" in sys.argv)
