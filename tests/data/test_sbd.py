import numpy as np
import pytest
from PIL import Image
from scipy.io import savemat

from frugalseg.data import sbd as module
from frugalseg.data.io import write_mask
from frugalseg.data.sbd import convert, read_mat
from frugalseg.errors import DatasetError, DatasetNotFoundError, DiskFullError, MaskError
from frugalseg.ops.palette import voc_palette
from tests.data.conftest import picture


@pytest.fixture
def trees(tmp_path, monkeypatch):
    """One image with VOC's mask, two with SBD's; the lists name these three."""
    root, sbd = tmp_path / "VOC2012", tmp_path / "benchmark_RELEASE"
    (root / "JPEGImages").mkdir(parents=True)
    (sbd / "dataset/cls").mkdir(parents=True)
    monkeypatch.setattr(module, "read_ids", lambda _, split: ["a", "b"] if split == "trainaug" else ["c"])
    masks = {}
    for number, name in enumerate("abc"):
        Image.fromarray(picture(12, 15, number)).save(root / f"JPEGImages/{name}.jpg")
        masks[name] = np.random.default_rng(number).integers(0, 21, (12, 15)).astype(np.uint8)
        savemat(sbd / f"dataset/cls/{name}.mat", {"GTcls": {"Segmentation": masks[name], "CategoriesPresent": [1]}})
    official = masks["c"].copy()
    official[0] = 255
    write_mask(root / "SegmentationClass/c.png", official, voc_palette())
    return root, sbd, {**masks, "c": official}


def test_masks_of_both_data_sets(trees):
    root, sbd, masks = trees
    seen = []
    assert convert(sbd, root, workers=1, progress=lambda *p: seen.append(p)) == 3
    assert seen == [(1, 3), (2, 3), (3, 3)]
    for name, expected in masks.items():
        with Image.open(root / f"SegmentationClassAug/{name}.png") as mask:
            assert mask.mode == "P"
            assert (np.asarray(mask) == expected).all()
    assert convert(sbd / "dataset", root) == 0  # nothing is left to do, and both folders are understood


def test_it_continues_and_all_cores_give_the_same(trees):
    root, sbd, masks = trees
    convert(sbd, root, workers=2)
    (root / "SegmentationClassAug/b.png").unlink()
    assert convert(sbd, root, workers=2) == 1
    assert (np.asarray(Image.open(root / "SegmentationClassAug/b.png")) == masks["b"]).all()


def test_faults(trees, tmp_path):
    root, sbd, _ = trees
    with pytest.raises(DatasetNotFoundError, match="1 folder too low"):
        convert(sbd / "dataset" / "cls", root)
    (sbd / "dataset/cls/b.mat").write_bytes(b"half")
    with pytest.raises(MaskError, match=r"b\.mat: is no mask of SBD"):
        convert(sbd, root, workers=1)
    (sbd / "dataset/cls/b.mat").unlink()
    with pytest.raises(DatasetError, match=r"1 of 3 masks are neither here nor in .*first b; unpack"):
        convert(sbd, root)
    savemat(sbd / "dataset/cls/b.mat", {"GTcls": {"Segmentation": np.full((12, 15), 21, np.uint8)}})
    with pytest.raises(MaskError, match="class id 21"):
        convert(sbd, root)
    savemat(sbd / "dataset/cls/b.mat", {"GTcls": {"Segmentation": np.zeros((5, 5), np.uint8)}})
    with pytest.raises(MaskError, match="is 5x5"):
        convert(sbd, root)
    with pytest.raises(MaskError, match="no such file"):
        read_mat(tmp_path / "x.mat")
    assert not list(root.rglob("*.tmp"))


@pytest.mark.parametrize(
    ("ids", "found"),
    [
        (np.ones((3, 4), np.int16), r"\(3, 4\) int16"),
        (np.full((3, 4), 1.5), r"\(3, 4\) float64"),  # ids could be no whole numbers
        (np.ones((3, 4, 2), np.uint8), r"\(3, 4, 2\) uint8"),
    ],
)
def test_only_one_byte_per_pixel_is_taken(tmp_path, ids, found):
    savemat(tmp_path / "x.mat", {"GTcls": {"Segmentation": ids}})
    with pytest.raises(MaskError, match=rf"x\.mat: GTcls.Segmentation is {found}, not \(H, W\) uint8"):
        read_mat(tmp_path / "x.mat")


def test_full_disk_leaves_nothing_half_written(trees, monkeypatch):
    root, sbd, _ = trees

    def full(self, stream, format, **options):  # noqa: A002
        stream.write(b"\x89PNG half of it")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Image.Image, "save", full)
    with pytest.raises(DiskFullError, match=r"a\.png: the disk is full; free some space"):
        convert(sbd, root, workers=1)
    assert list((root / "SegmentationClassAug").iterdir()) == []
    monkeypatch.undo()
    monkeypatch.setattr(module, "read_ids", lambda _, split: ["a", "b"] if split == "trainaug" else ["c"])
    assert convert(sbd, root, workers=1) == 3
