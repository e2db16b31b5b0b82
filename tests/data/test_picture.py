"""Decoding at a part of the size: what it changes, and that boxes, points and masks stay those of the pixels."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from frugalseg.data import ResizedSegment, Tags, Views
from frugalseg.data.base import Sample
from frugalseg.data.io import read_header, read_image, write_mask
from frugalseg.data.picture import Picture, coarsest
from frugalseg.data.sampler import draw_rng
from frugalseg.data.view_boxes import shared_area
from frugalseg.errors import ConfigError, ImageError
from frugalseg.ops.palette import voc_palette
from tests.data.conftest import picture

GREY = {"mean": (0.0, 0.0, 0.0), "std": (1 / 255, 1 / 255, 1 / 255)}
"""Items in grey levels 0..255."""
VIEWS = {"global_size": 48, "local_size": 24, "local_views": 4, "colour": "none", **GREY}
CLASSES = 21


def ramp(height, width):
    """Red tells the column and green the row, one grey level per pixel and coarser in large images."""
    x, y = np.arange(width) * (255 / max(width, 256)), np.arange(height) * (255 / max(height, 256))
    both = np.broadcast_arrays(x[None], y[:, None], np.float64(128))
    return np.stack(both, axis=-1).round().astype(np.uint8)


@pytest.fixture
def ramps(tmp_path):
    """Samples of a ramp as JPEG whose sides are no multiples of 8, and as PNG."""

    def make(suffix, height=245, width=251, pixels=None):
        path = tmp_path / f"a.{suffix}"
        image = Image.fromarray(ramp(height, width) if pixels is None else pixels)
        image.save(path, **({"quality": 98, "subsampling": 0} if suffix == "jpg" else {}))
        return Sample("a", path, None, (1,))

    return make


@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
@pytest.mark.parametrize("factor", [2, 4, 8])
@pytest.mark.parametrize("subsampling", [0, 2])
def test_scaled_decoding_equals_pillows_draft(tmp_path, mode, factor, subsampling):
    path = tmp_path / "a.jpg"
    Image.fromarray(picture(83, 61, 0)).convert(mode).save(path, quality=90, subsampling=subsampling)
    with Image.open(path) as image:
        image.draft(mode, (61 // factor, 83 // factor))
        expected = np.asarray(image.convert("RGB"))
    assert expected.shape == (-(-83 // factor), -(-61 // factor), 3)
    assert np.array_equal(read_image(path, factor), expected)


def test_only_jpegs_are_scalable(tmp_path, ramps):
    assert read_header(ramps("jpg").image) == ((245, 251), True)
    assert read_header(ramps("png").image) == ((245, 251), False)
    with pytest.raises(ImageError, match="only JPEGs"):
        read_image(ramps("png").image, 2)
    with pytest.raises(ImageError, match="no such image"):
        read_header(tmp_path / "no.jpg")


@given(
    size=st.tuples(st.integers(8, 900), st.integers(8, 900)),
    corners=st.lists(st.tuples(*[st.floats(0, 1)] * 4), min_size=1, max_size=4),
    side=st.integers(1, 64),
)
@settings(max_examples=200, deadline=None, derandomize=True)
def test_edges_move_less_than_a_block_and_no_crop_falls_short(size, corners, side):
    pairs = np.sort(np.array(corners).reshape(-1, 2, 2), axis=1) * (np.array(size[::-1]) - 1)
    boxes = (pairs.astype(np.int64) + np.array([[0], [1]])).reshape(-1, 4)
    factor, rounded = coarsest(boxes, [side] * len(boxes), size)
    assert factor in (1, 2, 4, 8)
    assert (rounded % factor == 0).all()
    assert (rounded[:, 2:] <= size[::-1]).all() and (rounded >= 0).all()
    at_end = rounded == np.array([*size[::-1]] * 2) // factor * factor
    assert (np.abs(rounded - boxes)[~at_end] <= factor / 2).all()
    assert (np.abs(rounded - boxes)[at_end] < factor).all()
    if factor > 1:
        assert (rounded[:, 2:] - rounded[:, :2] >= factor * side).all()
    else:
        assert np.array_equal(rounded, boxes)
    if factor < 8:  # the next one would leave a view short of pixels: no crop is that much larger
        assert ((boxes[:, 2:] - boxes[:, :2]) < 2 * factor * (side + 2)).any()


@pytest.mark.parametrize("size", [(245, 251), (613, 490)])
def test_boxes_are_those_of_the_pixels(ramps, size):
    """The mean colour of each view of a ramp tells where the middle of its box is."""
    sample, slope = ramps("jpg", *size), [255 / max(side, 256) for side in size[::-1]]
    plain, recipe = Views(**VIEWS), Views(**VIEWS, scaled=True)
    moved, wrong = 0, 0.0
    for draw in range(12):
        before, item = (each.train_item(sample, CLASSES, draw_rng(0, draw)) for each in (plain, recipe))
        views = [*item["global_views"], *item["local_views"]]
        for view, box, drawn in zip(views, item["box"].double(), before["box"].double(), strict=True):
            found = view[:2].double().mean(dim=(1, 2))
            at, drawn_at = (((b[:2] + b[2:] - 1) / 2 * torch.tensor(slope, dtype=torch.double)) for b in (box, drawn))
            assert (found - at).abs().max() < 0.6, (found, at)
            wrong = max(wrong, float((found - drawn_at).abs().max()))
        moved += int((item["box"] != before["box"]).any())
        for key in ("flip", "size"):  # the random numbers are the same
            assert torch.equal(item[key], before[key])
        assert (item["box"] - before["box"]).abs().max() < 8
    assert moved and wrong > 0.9  # boxes as drawn would be wrong: the test can tell


def test_views_overlap_as_much_when_edges_are_rounded(ramps):
    """The rule is met by the boxes that are given, at a smaller factor where rounding by the largest would break it."""
    sample = ramps("jpg", 613, 490)
    recipe = Views(**{**VIEWS, "global_size": 32, "local_size": 12, "local_views": 6}, scaled=True)
    size, sides = (613, 490), [32] * 2 + [12] * 6
    least = size[0] * size[1] * np.array([0.02, 0.01])
    pairs = [(0, 1)] + [(number, other) for number in range(2, 8) for other in (0, 1)]

    def short(boxes):
        shared = [shared_area(*(tuple(boxes[number].tolist()) for number in pair)) for pair in pairs]
        return shared[0] <= least[0] or min(shared[1:]) <= least[1]

    drawn = {number: recipe.boxes.draw(size, draw_rng(0, number)) for number in range(600)}
    assert not any(short(boxes) for boxes in drawn.values())
    alone = {number: coarsest(boxes, sides, size) for number, boxes in drawn.items()}
    wrong = [number for number, (_, boxes) in alone.items() if short(boxes)]
    assert wrong  # rounding alone breaks the rule
    for number in (*wrong, *(set(range(5)) - {*wrong})):
        boxes = recipe.train_item(sample, CLASSES, draw_rng(0, number))["box"].numpy()
        assert not short(boxes)
        factors = [f for f in (8, 4, 2, 1) if (boxes % f == 0).all() and np.abs(boxes - drawn[number]).max() < f]
        assert number not in wrong or factors[0] < alone[number][0]
        assert number in wrong or np.array_equal(boxes, alone[number][1])


def test_points_of_two_views_stay_matched(ramps):
    """What the geometry says of two views' common pixels is what they show."""
    sample, recipe = ramps("jpg", 613, 490), Views(**VIEWS, flip=0.0, scaled=True)
    for draw in range(4):
        item = recipe.train_item(sample, CLASSES, draw_rng(1, draw))
        first, second = item["box"][:2].double()
        low, high = torch.maximum(first[:2], second[:2]), torch.minimum(first[2:], second[2:])
        points = torch.stack([low + (high - low) * part for part in torch.linspace(0.2, 0.8, 5)])
        shown = []
        for view, box in zip(item["global_views"], (first, second), strict=True):
            grid = (2 * (points - box[:2]) / (box[2:] - box[:2]) - 1).float()[None, :, None]
            shown.append(torch.nn.functional.grid_sample(view[None], grid, align_corners=False)[0, :2, :, 0])
        assert (shown[0] - shown[1]).abs().max() < 1.0


def test_masks_are_those_of_the_pixels(tmp_path):
    """A bright rectangle and its mask stay on each other."""
    pixels, ids = np.full((421, 533, 3), 20, np.uint8), np.zeros((421, 533), np.uint8)
    pixels[101:287, 143:391], ids[101:287, 143:391] = 235, 7
    sample = Sample("a", tmp_path / "a.jpg", tmp_path / "a.png", None)
    Image.fromarray(pixels).save(sample.image, quality=98, subsampling=0)
    write_mask(tmp_path / "a.png", ids, voc_palette())
    both = {scaled: ResizedSegment(64, area=(0.5, 1.0), scaled=scaled, **GREY) for scaled in (False, True)}
    agreed = {scaled: [] for scaled in both}
    for draw in range(20):
        items = {s: recipe.train_item(sample, CLASSES, draw_rng(2, draw)) for s, recipe in both.items()}
        assert not torch.equal(items[False]["image"], items[True]["image"])
        for scaled, item in items.items():
            shown, true = item["image"][0] > 128, item["mask"] == 7
            agreed[scaled].append(float((shown & true).sum() / (shown | true).sum()))
    assert min(agreed[True]) > 0.95
    assert np.mean(agreed[True]) > np.mean(agreed[False]) - 0.005


def test_what_it_does_to_pixels(ramps):
    """Stated effect: less than 2 grey levels, in the mean, from a box average, of a picture that is mostly noise."""
    sample = ramps("jpg", pixels=picture(400, 480, 3))
    scaled, whole = Picture(sample, scaled=True), Picture(sample)
    boxes = np.array([[16, 32, 416, 384]])
    (small,), same = scaled.crops(boxes, [80])
    (large,), _ = whole.crops(boxes, [80])
    assert np.array_equal(same, boxes) and small.shape == (88, 100, 3)
    mean = large.reshape(88, 4, 100, 4, 3).mean(axis=(1, 3))
    assert 0 < np.abs(small - mean).mean() < 2


@pytest.mark.parametrize("recipe", ["views", "tags", "segment"])
def test_nothing_changes_where_no_pixels_are_to_spare_or_the_file_is_no_jpeg(tmp_path, ramps, recipe):
    make = {
        "views": lambda side, scaled: Views(side, side // 2, 2, colour="none", scaled=scaled),
        "tags": lambda side, scaled: Tags(side, area=(0.3, 1.2), views=2, scaled=scaled),
        "segment": lambda side, scaled: ResizedSegment(side, scaled=scaled),
    }[recipe]
    for sample, side in ((ramps("png"), 32), (ramps("jpg"), 200)):
        items = [make(side, scaled).train_item(sample, CLASSES, draw_rng(0, 5)) for scaled in (False, True)]
        for key, value in items[0].items():
            same = torch.equal(value, items[1][key]) if isinstance(value, torch.Tensor) else value == items[1][key]
            assert same, key


def test_two_views_draw_the_same_random_numbers(ramps):
    """Weak and strong views of a scaled decode differ from the others by resampling alone."""
    sample = ramps("jpg", 613, 490)
    recipes = [Tags(48, flip=0.5, area=(0.5, 1.0), views=2, scaled=scaled, **GREY) for scaled in (False, True)]
    for draw in range(4):
        plain, scaled = (recipe.train_item(sample, CLASSES, draw_rng(3, draw)) for recipe in recipes)
        assert not torch.equal(plain["image"], scaled["image"])
        assert (plain["image"] - scaled["image"]).abs().mean() < 2.5  # half a block of 8 on a slope of 0.42 a pixel


def test_settings_are_checked():
    with pytest.raises(ConfigError, match=r"recipe.scaled .* recipe.area"):
        Tags(scaled=True)
