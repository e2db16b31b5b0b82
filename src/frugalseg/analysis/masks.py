"""Folders of label masks `<id>.png`: what a stage or a segmenter predicts, read for scoring.

Values are class ids; 255 says that the stage did not decide, and counts as background (sfc.md section 9).
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from frugalseg.analysis.pictures import Picture, captioned, enlarged
from frugalseg.batch import IGNORE_INDEX
from frugalseg.data.base import Sample, first_five
from frugalseg.data.io import check_ids, check_mode, read_image, read_mask
from frugalseg.data.opening import DAMAGE, open_image
from frugalseg.data.pseudo import refuse_mixture
from frugalseg.errors import DatasetError, DatasetNotFoundError, MaskError
from frugalseg.ops.palette import colourise, overlay

_AGAIN = "delete it and run the stage that writes it again"


def check_folder(folder: Path, samples: Sequence[Sample]) -> None:
    """Refuse a folder that cannot be scored as a whole; only headers are read.

    Args:
        folder: of the label masks.
        samples: images that are scored.

    Raises:
        DatasetNotFoundError: no such folder.
        DatasetError: masks are missing (count and first five), or were made by two runs.
        MaskError: a file is no image.
    """
    if not folder.is_dir():
        raise DatasetNotFoundError(f"{folder}: no such folder of label masks; run the stage that writes it first")
    there = {path.name for path in folder.iterdir()}
    if missing := [sample.id for sample in samples if f"{sample.id}.png" not in there]:
        raise DatasetError(
            f"{folder}: label masks of {len(missing)} of {len(samples)} images are missing, first"
            f" {first_five(missing)}; let the stage that writes them run to its end"
        )
    refuse_mixture([folder / f"{sample.id}.png" for sample in samples])


def read_labels(path: Path, num_classes: int, size: tuple[int, int], truth: Path) -> NDArray[np.uint8]:
    """Read a predicted mask.

    Args:
        path: PNG of mode P or L.
        num_classes: K, with the background.
        size: (H, W) of the true mask.
        truth: the true mask, for the message.

    Returns:
        (H, W) uint8, class ids and 255.

    Raises:
        MaskError: absent, damaged, no PNG, of another mode or size, or an id outside 0..K-1 and 255.
    """
    try:
        with open_image(path, error=MaskError) as image:
            if image.format != "PNG":
                raise MaskError(f"{path}: is a {image.format} file in truth; {_AGAIN}, as PNG")
            check_mode(path, image.mode)
            ids = np.asarray(image)
    except FileNotFoundError:
        raise MaskError(f"{path}: no such file; run the stage that writes it again") from None
    except DAMAGE as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise MaskError(f"{path}: cannot be decoded ({reason}); {_AGAIN}") from None
    if ids.shape != size:
        raise MaskError(
            f"{path}: is {ids.shape[0]}x{ids.shape[1]} (HxW), but the true mask {truth} is {size[0]}x{size[1]};"
            " label masks must have the size of their image"
        )
    check_ids(path, ids, num_classes)
    return ids


def decided(ids: NDArray[np.uint8], path: Path, background: bool) -> NDArray[np.uint8]:
    """Labels with background in place of 255.

    Args:
        ids: (H, W) class ids and 255.
        path: where they are from, for the message.
        background: whether class 0 is the background.

    Raises:
        MaskError: there is a 255, but no background that it could count as.
    """
    open_pixels = ids == IGNORE_INDEX
    if not background and open_pixels.any():
        raise MaskError(
            f"{path}: {IGNORE_INDEX} in {int(open_pixels.sum())} pixels, but this benchmark has no background that they"
            " could count as; give every pixel a class"
        )
    return np.where(open_pixels, np.uint8(0), ids)


def label_panel(sample: Sample, folders: Mapping[str, Path], names: Sequence[str], palette: Picture) -> Picture:
    """Image, the labels of each folder (grey: undecided), and the truth, side by side.

    Args:
        sample: with image and mask.
        folders: caption -> folder of label masks.
        names: K class names.
        palette: (256, 3).
    """
    image = read_image(sample.image)
    panels = [captioned(enlarged(image), sample.id)]
    for name, folder in folders.items():
        ids = read_labels(folder / f"{sample.id}.png", len(names), image.shape[:2], sample.image)
        panels.append(captioned(enlarged(overlay(image, colourise(ids, palette), 0.65)), name or "labels"))
    if sample.mask is not None:
        truth = read_mask(sample.mask, len(names), code=sample.code)
        panels.append(captioned(enlarged(overlay(image, colourise(truth, palette), 0.65)), "truth"))
    return np.concatenate(panels, axis=1)
