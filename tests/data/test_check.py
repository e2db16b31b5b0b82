import numpy as np
import pytest
from PIL import Image

from frugalseg.cli import main
from frugalseg.commands.benchmarks import BENCHMARKS
from frugalseg.commands.data import NAMES
from frugalseg.data.ade20k import ADE20K
from frugalseg.data.check import check_splits
from frugalseg.data.recipes import Segment
from frugalseg.errors import DatasetNotFoundError
from frugalseg.miniature.ade20k import write_ade20k_world
from frugalseg.miniature.cityscapes import write_cityscapes_world
from frugalseg.miniature.dlrsd import write_dlrsd_world
from tests.conftest import REAL


def texts(findings, level):
    return "\n".join(finding.what for finding in findings if finding.level == level)


@pytest.fixture
def ade(tmp_path):
    return write_ade20k_world(tmp_path / "ade", images_train=4, images_val=2)


def test_sound(ade):
    seen = []
    findings = check_splits(ADE20K(ade, Segment()), {"train": 4, "val": 7}, progress=lambda *p: seen.append(p))
    assert "train: 4 images as published" in texts(findings, "ok")
    assert "val: 2 images, fewer than the published 7" in texts(findings, "warn")
    assert "mode, size and ids of 6 of 6 are right" in texts(findings, "ok")
    assert not texts(findings, "error")
    assert seen == [(n, 6) for n in range(1, 7)]


@pytest.mark.parametrize("quick", [False, True])
def test_faults(ade, quick):
    folder = ade / "annotations" / "training"
    Image.fromarray(np.full((96, 96), 99, np.uint8)).save(folder / "ADE_train_00000001.png")
    Image.fromarray(np.ones((3, 3), np.uint8)).save(folder / "ADE_train_00000002.png")
    Image.new("RGB", (96, 96)).save(folder / "ADE_train_00000003.png")
    (folder / "ADE_train_00000004.png").unlink()
    for path in (ade / "images" / "validation").iterdir():
        path.unlink()
    errors = texts(check_splits(ADE20K(ade, Segment()), {"train": 4, "val": 2}, quick), "error")
    assert "train: 1 of 4 masks are missing, first ADE_train_00000004" in errors
    assert "val: split val of" in errors
    assert "holds no images" in errors
    assert "ADE_train_00000002.png: is 3x3" in errors
    assert "ADE_train_00000003.png: holds colours" in errors
    assert ("ADE_train_00000001.png: value 99 in 9216 pixels" in errors) is not quick
    assert "of 0 of 3 are right" in errors if not quick else "of 1 of 3 are right" in errors


def test_splits_that_are_not_there_may_be_meant(ade):
    findings = check_splits(ADE20K(ade, Segment()), {"train": 4, "test": 3352})
    assert "test.txt: no such split" in texts(findings, "warn")
    assert not texts(findings, "error")
    with pytest.raises(DatasetNotFoundError, match=r"test\.txt"):
        check_splits(ADE20K(ade, Segment()), {"test": 3352})


def test_the_verb(tmp_path, capsys):
    root = write_cityscapes_world(tmp_path / "city", images_train=4, images_val=2)
    assert main(["data", "check", "cityscapes", "--root", str(root)]) == 0
    assert "fewer than the published 2,975" in capsys.readouterr().out
    next((root / "leftImg8bit" / "train").rglob("*.png")).unlink()
    assert main(["data", "check", "cityscapes", "--root", str(root)]) == 1
    assert "train: incomplete: 1 of 4 labelled frames have no image" in capsys.readouterr().out
    assert main(["data", "check", "ade20k", "--root", str(root)]) == 2
    assert capsys.readouterr().err.count("\n") == 1


@pytest.mark.real
@pytest.mark.skipif(not (REAL / "cityscapes").is_dir(), reason=f"no genuine samples at {REAL}; set FRUGALSEG_REAL_DATA")
def test_genuine_labels_without_images_are_reported():
    findings = BENCHMARKS["cityscapes"].findings(REAL / "cityscapes")
    assert "split val is incomplete: labels of 1 frames" in texts(findings, "error")
    assert "mode, size and ids of 2 of 2 are right" in texts(findings, "ok")


@pytest.fixture
def dlrsd(tmp_path):
    return write_dlrsd_world(tmp_path / "dlrsd", images_per_folder=6, size=64)


def test_dlrsd_numbered_from_0_is_noticed(dlrsd):
    assert not [f for f in BENCHMARKS["dlrsd"].findings(dlrsd) if "hold 0" in f.what]
    masks = sorted((dlrsd / "DLRSD/Images").rglob("*.png"))
    for path in masks:
        Image.fromarray(np.asarray(Image.open(path)) - 1).save(path)
    assert "the masks hold 0 but never 17" in texts(BENCHMARKS["dlrsd"].findings(dlrsd), "error")


def test_dlrsd_with_unlabelled_pixels(dlrsd):
    path = next((dlrsd / "DLRSD/Images").rglob("*.png"))
    ids = np.array(Image.open(path))
    ids[:2, :5] = 0
    Image.fromarray(ids).save(path)
    assert "10 pixels hold 0 or 18 and are ignored" in texts(BENCHMARKS["dlrsd"].findings(dlrsd), "warn")


def test_the_verbs_know_every_benchmark():
    assert list(NAMES) == list(BENCHMARKS)
