import numpy as np
import pytest

from frugalseg.data import PseudoLabels
from frugalseg.data.io import made_by, read_mask, write_mask
from frugalseg.data.voc import index
from frugalseg.errors import DatasetError, DatasetNotFoundError, MaskError
from frugalseg.ops.palette import voc_palette
from tests.data.conftest import TRAIN


def test_masks_are_replaced_and_nothing_else(voc_root, tmp_path):
    samples = index(voc_root, "trainaug")
    for name in TRAIN:
        write_mask(tmp_path / "pseudo" / f"{name}.png", np.full((4, 4), 3, np.uint8), voc_palette())
    laid = PseudoLabels(str(tmp_path / "pseudo")).over(samples)
    assert [(s.id, s.image, s.tags) for s in laid] == [(s.id, s.image, s.tags) for s in samples]
    assert all((read_mask(s.mask, 21) == 3).all() for s in laid)


def test_missing_masks_are_counted(voc_root, tmp_path):
    with pytest.raises(DatasetNotFoundError, match="no such folder"):
        PseudoLabels(tmp_path / "no").over(index(voc_root, "trainaug"))
    write_mask(tmp_path / "pseudo" / f"{TRAIN[0]}.png", np.zeros((4, 4), np.uint8), voc_palette())
    with pytest.raises(DatasetError) as error:
        PseudoLabels(tmp_path / "pseudo").over(index(voc_root, "trainaug"))
    assert "6 of 7 pseudo labels are missing" in str(error.value)
    assert f"first {', '.join(TRAIN[1:6])};" in str(error.value)


def test_masks_of_two_runs_are_refused(voc_root, tmp_path):
    ids = np.full((4, 4), 3, np.uint8)
    for name in TRAIN:
        write_mask(tmp_path / "pseudo" / f"{name}.png", ids, voc_palette(), run="a" * 64)
    samples = index(voc_root, "trainaug")
    assert len(PseudoLabels(tmp_path / "pseudo").over(samples)) == len(samples)
    assert made_by(tmp_path / "pseudo" / f"{TRAIN[2]}.png") == "a" * 64
    for other, shown in (("b" * 64, "bbbbbbbb"), ("", "unknown")):
        write_mask(tmp_path / "pseudo" / f"{TRAIN[2]}.png", ids, voc_palette(), run=other)
        with pytest.raises(DatasetError) as error:
            PseudoLabels(tmp_path / "pseudo").over(samples)
        assert "two runs" in str(error.value) and shown in str(error.value) and f"{TRAIN[2]}.png" in str(error.value)
    (tmp_path / "pseudo" / f"{TRAIN[2]}.png").write_bytes(b"no image")
    with pytest.raises(MaskError, match=f"{TRAIN[2]}.png: cannot be opened"):
        PseudoLabels(tmp_path / "pseudo").over(samples)
