import numpy as np
import pytest
from PIL import Image

from frugalseg.data.check_voc import check_voc
from frugalseg.data.io import write_mask
from frugalseg.errors import DatasetNotFoundError
from frugalseg.ops.palette import voc_palette
from tests.data.conftest import TRAIN, VAL


def texts(findings, level):
    return "\n".join(finding.what for finding in findings if finding.level == level)


def test_small_but_sound(voc_root):
    seen = []
    findings = check_voc(voc_root, progress=lambda done, total: seen.append((done, total)))
    assert not texts(findings, "error")
    assert "train: list on disk has 7 ids, smaller than the published 1,464" in texts(findings, "warn")
    assert "trainval: 2,903 of 2,913 images are missing" in texts(findings, "warn")
    assert "test: 1,456 ids as published, packaged list" in texts(findings, "ok")
    assert "packaged labels: class counts of trainaug are the published ones" in texts(findings, "ok")
    assert "mode, size and ids of 17 of 17 are right" in texts(findings, "ok")
    assert "0 of 7 masks have the usual pixels per class; others are " in texts(findings, "warn")  # they are noise
    assert seen == [(done, 17) for done in range(1, 18)]


@pytest.mark.parametrize("quick", [False, True])
def test_faults_are_found(voc_root, quick):
    size = Image.open(voc_root / f"JPEGImages/{TRAIN[2]}.jpg").size[::-1]
    bad = np.full(size, 33, np.uint8)
    write_mask(voc_root / f"SegmentationClass/{TRAIN[2]}.png", bad, voc_palette())
    write_mask(voc_root / f"SegmentationClass/{TRAIN[0]}.png", np.zeros((3, 3), np.uint8), voc_palette())
    Image.new("RGB", (60, 40)).save(voc_root / f"SegmentationClass/{TRAIN[1]}.png")
    (voc_root / f"SegmentationClassAug/{TRAIN[3]}.png").unlink()
    (voc_root / f"JPEGImages/{VAL[0]}.jpg").unlink()
    errors = texts(check_voc(voc_root, quick=quick), "error")
    assert f"{TRAIN[0]}.png: is 3x3" in errors
    assert f"{TRAIN[1]}.png: holds colours" in errors
    assert (f"{TRAIN[2]}.png: class id 33 in {bad.size} pixels" in errors) is not quick
    assert f"trainaug: 1 of 7 masks are missing in SegmentationClassAug, first {TRAIN[3]}" in errors
    assert f"val: 1 of 3 images are missing, first {VAL[0]}" in errors
    assert f"masks: {'mode and size' if quick else 'mode, size and ids'} of" in errors


def test_empty_split_and_absent_folder_and_own_classes(voc_root, write_split):
    write_split("train", [])
    (voc_root / "SegmentationClassAug").rename(voc_root / "elsewhere")
    findings = check_voc(voc_root)
    assert "train.txt: the split is empty" in texts(findings, "error")
    assert "SegmentationClassAug is absent" in texts(findings, "warn")
    (voc_root / "ImageSets/classes.txt").write_text("background\n" + "\n".join(f"c{i}" for i in range(20)))
    assert "nothing is published" in texts(check_voc(voc_root, quick=True), "ok")


def test_missing_root(tmp_path):
    with pytest.raises(DatasetNotFoundError):
        check_voc(tmp_path / "no")


@pytest.mark.real
def test_real_sample_is_sound_and_small(real_voc):
    findings = check_voc(real_voc)
    assert not texts(findings, "error")
    assert "train: list on disk has" in texts(findings, "warn")
    assert "smaller than the published 10,582" in texts(findings, "warn")
