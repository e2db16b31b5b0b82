"""From SBD's `.mat` files to the masks of `SegmentationClassAug`."""

from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.io import loadmat

from frugalseg.data import voc
from frugalseg.data.base import first_five
from frugalseg.data.folders import Listing, locate
from frugalseg.data.io import check_ids, check_size, image_size, read_mask, write_mask
from frugalseg.data.lists import read_ids
from frugalseg.data.parallel import Progress, each
from frugalseg.errors import DatasetError, MaskError
from frugalseg.ops.palette import voc_palette


def convert(
    sbd: str | Path,
    root: str | Path,
    workers: int | None = None,
    progress: Progress | None = None,
) -> int:
    """Write `ROOT/SegmentationClassAug/<id>.png` for trainaug and val, 12,031 masks.

    VOC's own mask is taken where there is one, because it has void borders and SBD's has none; so 0.8 % of the pixels
    of trainaug are void, as in the distribution that everybody uses. Masks that are there already are kept.

    Args:
        sbd: folder benchmark_RELEASE, or its `dataset`.
        root: folder VOCdevkit/VOC2012.
        workers: processes; None for all cores.
        progress: called with (masks done, masks to do).

    Returns:
        Number of masks written.

    Raises:
        DatasetNotFoundError: a folder is not there.
        DatasetError: masks are in neither data set, or a `.mat` file is damaged.
    """
    root = voc.locate(root)
    sbd = locate(sbd, "cls", "dataset/cls", give="the folder benchmark_RELEASE of benchmark.tgz", key="--sbd")
    source = sbd / "cls" if (sbd / "cls").is_dir() else sbd / "dataset" / "cls"
    there, ids = Listing(), [*read_ids("voc12", "trainaug"), *read_ids("voc12", "val")]
    target = root / "SegmentationClassAug"
    todo = [name for name in ids if target / f"{name}.png" not in there]
    makers = {name: there.first((root / f"SegmentationClass/{name}.png", source / f"{name}.mat")) for name in todo}
    if missing := [name for name, maker in makers.items() if maker is None]:
        raise DatasetError(
            f"{source}: {len(missing)} of {len(ids)} masks are neither here nor in {root}/SegmentationClass, first"
            f" {first_five(missing)}; unpack benchmark.tgz and VOCtrainval_11-May-2012.tar again"
        )
    each(partial(_write, root), [maker for maker in makers.values() if maker is not None], workers, progress)
    return len(todo)


def _write(root: Path, maker: Path) -> None:
    ids = read_mat(maker) if maker.suffix == ".mat" else read_mask(maker, len(voc.NAMES))
    image = root / "JPEGImages" / f"{maker.stem}.jpg"
    check_size(maker, ids.shape, image, image_size(image))
    write_mask(root / "SegmentationClassAug" / f"{maker.stem}.png", ids, voc_palette())


def read_mat(path: Path) -> NDArray[np.uint8]:
    """Read the class ids of one of SBD's `cls/*.mat` files.

    Args:
        path: MATLAB file with the struct `GTcls`, whose field `Segmentation` is (H, W) uint8.

    Returns:
        (H, W) uint8, 0 to 20.

    Raises:
        MaskError: absent, damaged, of another form, or with ids above 20.
    """
    try:
        with path.open("rb") as stream:  # scipy hides that a file is absent
            ids = np.asarray(loadmat(stream, variable_names=["GTcls"])["GTcls"][0]["Segmentation"][0])
    except FileNotFoundError:
        raise MaskError(f"{path}: no such file; unpack benchmark.tgz again") from None
    except Exception as error:  # scipy raises whatever the bytes lead it to
        reason = " ".join(str(error).split())[:120] or type(error).__name__
        raise MaskError(f"{path}: is no mask of SBD ({reason}); unpack benchmark.tgz again") from None
    if ids.ndim != 2 or ids.dtype != np.uint8:
        raise MaskError(f"{path}: GTcls.Segmentation is {ids.shape} {ids.dtype}, not (H, W) uint8; unpack it again")
    check_ids(path, ids, len(voc.NAMES))
    return ids
