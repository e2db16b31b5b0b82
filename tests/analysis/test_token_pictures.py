"""Panels of CTI's maps, every cell against a picture that is put together by hand."""

import numpy as np
import pytest
from PIL import Image

from frugalseg.analysis import token_pictures
from frugalseg.analysis.pictures import CAPTION, captioned
from frugalseg.analysis.token_pictures import ROWS, rows_in, stacked, token_panel
from frugalseg.data.base import Sample
from frugalseg.errors import MapsError, MaskError
from frugalseg.ops.palette import heat, voc_palette

NAMES = ("background", "cat", "dog", "owl")
SIZE = (24, 32)
SCALE = 8
"""A picture is enlarged until its shorter side has 192 pixels."""
HEIGHT, WIDTH = SIZE[0] * SCALE + CAPTION, SIZE[1] * SCALE


@pytest.fixture
def sample(tmp_path):
    rng = np.random.default_rng(0)
    Image.fromarray(rng.integers(0, 256, (*SIZE, 3)).astype(np.uint8)).save(tmp_path / "a.png")
    mask = rng.choice([0, 1, 3, 255], SIZE).astype(np.uint8)
    Image.fromarray(mask).save(tmp_path / "mask.png")
    return Sample("a", tmp_path / "a.png", tmp_path / "mask.png", (0, 2))


def maps(names, keys=(0, 1, 3), size=SIZE, seed=1):
    rng = np.random.default_rng(seed)
    values = {name: rng.random((len(keys), *size)).astype(np.float16) for name in names}
    return {"keys": np.array(keys, np.uint8), **values}


def blend(image, colours, opacity):
    return (image * (1.0 - opacity) + colours * opacity).round().astype(np.uint8)


def cell(picture, text):
    """Every pixel repeated, and one line of text above."""
    return captioned(np.kron(picture, np.ones((SCALE, SCALE, 1), np.uint8)), text)


def cells(panel):
    """Row -> cells."""
    assert panel.shape[0] % HEIGHT == 0 and panel.shape[1] % WIDTH == 0
    rows = np.split(panel, panel.shape[0] // HEIGHT)
    return [np.split(row, panel.shape[1] // WIDTH, axis=1) for row in rows]


def labels_by_loop(arrays, name, threshold):
    guess = np.zeros(SIZE, np.int64)
    for y, x in np.ndindex(*SIZE):
        best = np.float32(threshold)
        for key, scores in zip(arrays["keys"][1:], arrays[name][1:].astype(np.float32), strict=True):
            if scores[y, x] > best:
                best, guess[y, x] = scores[y, x], key
    return guess


def painted(sample, ids):
    image, palette = np.asarray(Image.open(sample.image)).astype(np.float32), voc_palette()
    return blend(image, palette[ids].astype(np.float32), 0.65)


def test_image_labels_and_truth_and_a_row_per_kind(sample):
    arrays = maps(("q", "infused", "f", "mt", "r", "cam"))
    panel = cells(token_panel(sample, arrays, NAMES, voc_palette(), 0.7))
    image = np.asarray(Image.open(sample.image))
    first, *rows = panel
    np.testing.assert_array_equal(first[0], cell(image, "a"))
    labels = labels_by_loop(arrays, "cam", 0.7)
    assert set(np.unique(labels)) == {0, 1, 3}
    np.testing.assert_array_equal(first[1], cell(painted(sample, labels), "labels: seed map above 0.7"))
    truth = np.asarray(Image.open(sample.mask))
    np.testing.assert_array_equal(first[2], cell(painted(sample, truth), "truth"))
    captions = {
        "cam": "seed map", "r": "R before infusion", "infused": "R after infusion",
        "mt": "mt class attention", "f": "F = R mt", "q": "Q = pa F",
    }  # fmt: skip
    for row, (name, what) in zip(rows, captions.items(), strict=True):
        for found, strength, owner in zip(row, arrays[name], ("background token", "cat", "owl"), strict=True):
            colours = heat(strength.astype(np.float64)).astype(np.float32)
            np.testing.assert_array_equal(
                found, cell(blend(image.astype(np.float32), colours, 0.5), f"{what}: {owner}")
            )


def test_a_seed_map_alone_has_two_rows_and_the_usual_threshold(sample):
    arrays = maps(("cam",))
    first, second = cells(token_panel(sample, arrays, NAMES, voc_palette()))
    labels = labels_by_loop(arrays, "cam", 0.4)
    np.testing.assert_array_equal(first[1], cell(painted(sample, labels), "labels: seed map above 0.4"))
    assert len(second) == 3


def test_without_infusion_r_has_its_own_name(sample, monkeypatch):
    told = []
    monkeypatch.setattr(token_pictures, "captioned", lambda picture, text: (told.append(text), picture)[1])
    token_panel(sample, maps(("cam", "r")), NAMES, voc_palette())
    assert [text for text in told if text.startswith("R")] == [
        f"R head map: {n}" for n in ("background token", "cat", "owl")
    ]


def test_shorter_rows_are_filled_with_white(sample):
    wide = cells(token_panel(sample, maps(("cam",), keys=(0, 1, 2, 3)), NAMES, voc_palette()))
    assert [len(row) for row in wide] == [4, 4]
    assert (wide[0][3] == 255).all() and not (wide[1][3] == 255).all()
    narrow = cells(token_panel(sample, maps(("cam", "r"), keys=(0, 2)), NAMES, voc_palette()))
    assert [len(row) for row in narrow] == [3, 3, 3]
    assert all((row[2] == 255).all() and not (row[1] == 255).all() for row in narrow[1:])


def test_an_image_without_tags_and_one_without_a_mask(sample):
    first, second = cells(token_panel(sample, maps(("cam",), keys=(0,)), NAMES, voc_palette(), 0.0))
    nothing = painted(sample, np.zeros(SIZE, np.int64))
    np.testing.assert_array_equal(first[1], cell(nothing, "labels: seed map above 0"))
    assert all((found == 255).all() for found in second[1:])
    bare = Sample("a", sample.image, None, sample.tags)
    assert [len(row) for row in cells(token_panel(bare, maps(("cam",), keys=(0,)), NAMES, voc_palette()))] == [2, 2]


def test_the_first_kind_that_is_there_gives_the_labels(sample):
    arrays = maps(("q", "mt"))
    first, *_ = cells(token_panel(sample, arrays, NAMES, voc_palette(), 0.6))
    labels = labels_by_loop(arrays, "mt", 0.6)
    np.testing.assert_array_equal(first[1], cell(painted(sample, labels), "labels: mt class attention above 0.6"))


def test_which_files_have_rows():
    assert rows_in(maps(("m0", "mw", "mp"))) == []
    assert rows_in(maps(reversed(ROWS))) == list(ROWS) == ["cam", "r", "infused", "mt", "f", "q"]


def test_maps_of_another_size_are_refused(sample):
    with pytest.raises(MapsError, match=r"a.npz: maps are \(24, 31\), but the image .*a.png is \(24, 32\)"):
        token_panel(sample, maps(("cam",), size=(24, 31)), NAMES, voc_palette())


def test_a_mask_of_another_size_is_refused(sample):
    Image.fromarray(np.zeros((24, 31), np.uint8)).save(sample.mask)
    with pytest.raises(MaskError, match=r"mask.png: .*24x31.*a.png"):
        token_panel(sample, maps(("cam",)), NAMES, voc_palette())


def test_stacked_keeps_every_picture():
    rng = np.random.default_rng(0)
    parts = [rng.integers(0, 200, (h, w, 3)).astype(np.uint8) for h, w in ((2, 3), (1, 5), (4, 1))]
    found = stacked(parts)
    assert found.shape == (7, 5, 3) and found.dtype == np.uint8
    top = 0
    for part in parts:
        inside = found[top : top + part.shape[0]]
        np.testing.assert_array_equal(inside[:, : part.shape[1]], part)
        assert (inside[:, part.shape[1] :] == 255).all()
        top += part.shape[0]
