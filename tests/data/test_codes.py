import numpy as np
import pytest
from PIL import Image

from frugalseg.data.base import Sample
from frugalseg.data.codes import MaskCode, ids_of_colours
from frugalseg.data.io import read_mask, write_mask
from frugalseg.data.pseudo import PseudoLabels
from frugalseg.errors import MaskError
from frugalseg.ops.palette import voc_palette

CODE = MaskCode.of({0: 255, 1: 0, 2: 1, 9: 2})


def test_stored_values_become_ids(tmp_path):
    stored = np.array([[0, 1, 2], [9, 9, 0]], np.uint8)
    write_mask(tmp_path / "P.png", stored, voc_palette())
    Image.fromarray(stored).save(tmp_path / "L.png")
    for mode in ("L", "P"):
        found = read_mask(tmp_path / f"{mode}.png", 3, (2, 3), code=CODE)
        assert found.tolist() == [[255, 0, 1], [2, 2, 255]]
        assert found.dtype == np.uint8


def test_a_value_out_of_range_names_file_value_and_pixel(tmp_path):
    stored = np.ones((4, 5), np.uint8)
    stored[2, 3] = stored[3, 0] = 7
    write_mask(tmp_path / "m.png", stored, voc_palette())
    with pytest.raises(MaskError, match=r"m\.png: value 7 in 2 pixels, first at row 2, column 3, is no class"):
        read_mask(tmp_path / "m.png", 3, code=CODE)


def test_colours(tmp_path):
    colours = np.array([[0, 0, 0], [0, 0, 63], [255, 0, 1]], np.uint8)
    raw = np.array([[0, 1, 2], [2, 2, 0]], np.uint8)
    assert (ids_of_colours(colours[raw], colours, tmp_path) == raw).all()
    code = MaskCode.of({0: 255, 1: 0, 2: 1}, colours)
    for mode in ("RGB", "RGBA"):
        Image.fromarray(colours[raw]).convert(mode).save(tmp_path / "m.png")
        assert read_mask(tmp_path / "m.png", 2, code=code).tolist() == [[255, 0, 1], [1, 1, 255]]
    with pytest.raises(MaskError, match="holds colours"):
        read_mask(tmp_path / "m.png", 2, code=CODE)


def test_an_unknown_colour_names_file_colour_and_pixel(tmp_path):
    rgb = np.zeros((3, 4, 3), np.uint8)
    rgb[1, 2] = 10, 20, 30
    with pytest.raises(MaskError, match=r"x\.png: colour \(10, 20, 30\) \(RGB\) at row 1, column 2, of 1 such"):
        ids_of_colours(rgb, np.array([[0, 0, 0]], np.uint8), tmp_path / "x.png")


def test_red_and_blue_are_not_mixed_up(tmp_path):
    table = np.array([[0, 0, 0], [0, 0, 63]], np.uint8)
    with pytest.raises(MaskError, match=r"colour \(63, 0, 0\)"):
        ids_of_colours(np.array([[[63, 0, 0]]], np.uint8), table, tmp_path)


def test_slack_stretches_a_mask_that_is_a_little_off(tmp_path):
    stored = np.ones((254, 256), np.uint8)
    stored[:127] = 2
    write_mask(tmp_path / "m.png", stored, voc_palette())
    loose = MaskCode.of({1: 0, 2: 1}, slack=4)
    found = read_mask(tmp_path / "m.png", 2, (256, 256), code=loose)
    assert found.shape == (256, 256)
    assert (found[:127] == 1).all()
    assert (found[129:] == 0).all()
    with pytest.raises(MaskError, match="254x256"):
        read_mask(tmp_path / "m.png", 2, (260, 256), code=loose)
    with pytest.raises(MaskError, match="254x256"):
        read_mask(tmp_path / "m.png", 2, (256, 256), code=MaskCode.of({1: 0, 2: 1}))


def test_slack_stretches_to_the_nearest_value(tmp_path):
    """Between the values 1 and 9 lie others that are classes too: a bilinear mask would be valid, and wrong."""
    stored = np.random.default_rng(0).choice([1, 9], (31, 61)).astype(np.uint8)
    write_mask(tmp_path / "m.png", stored, voc_palette())
    code = MaskCode.of({value: value for value in range(12)}, slack=4)
    found = read_mask(tmp_path / "m.png", 12, (33, 57), code=code)
    rows, columns = (((np.arange(to) + 0.5) * side / to).astype(int) for side, to in ((31, 33), (61, 57)))
    assert np.array_equal(found, stored[rows][:, columns])


def test_pseudo_labels_hold_ids_whatever_the_benchmark_stores(tmp_path):
    write_mask(tmp_path / "a.png", np.zeros((2, 2), np.uint8), voc_palette())
    (sample,) = PseudoLabels(tmp_path).over([Sample("a", tmp_path / "a.jpg", None, None, CODE)])
    assert read_mask(sample.mask, 3, code=sample.code).tolist() == [[0, 0], [0, 0]]
