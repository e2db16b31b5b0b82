"""Colours against bits dealt out another way, and painting against loops."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image

from frugalseg.ops.palette import colourise, heat, overlay, voc_palette

few = settings(deadline=None, max_examples=30)


def test_palette_deals_bits_out_to_the_channels():
    bits = np.unpackbits(np.arange(256, dtype=np.uint8)[:, None], axis=1, bitorder="little")
    dealt = np.zeros((256, 24), dtype=np.uint8)
    dealt[:, :8] = bits
    # bit 3j + c of the id is bit 7 - j of channel c
    expected = np.packbits(dealt.reshape(256, 8, 3), axis=1, bitorder="big")[:, 0]
    np.testing.assert_array_equal(voc_palette(), expected)
    assert voc_palette().dtype == np.uint8
    assert len(np.unique(voc_palette(), axis=0)) == 256


@pytest.mark.real
def test_palette_is_that_of_genuine_masks(real_voc):
    path = next(iter(sorted((real_voc / "SegmentationClass").glob("*.png"))))
    with Image.open(path) as mask:
        stored = np.array(mask.getpalette(), dtype=np.uint8).reshape(-1, 3)
    np.testing.assert_array_equal(voc_palette()[: len(stored)], stored)


@few
@given(
    hnp.arrays(np.int64, hnp.array_shapes(min_dims=2, max_dims=2, max_side=6), elements=st.integers(0, 255)), st.data()
)
def test_colourise_equals_a_loop(mask, data):
    other = data.draw(hnp.arrays(np.uint8, (256, 3)))
    for palette, painted in ((voc_palette(), colourise(mask)), (other, colourise(mask, other))):
        assert painted.shape == (*mask.shape, 3)
        assert painted.dtype == np.uint8
        for y in range(mask.shape[0]):
            for x in range(mask.shape[1]):
                assert painted[y, x].tolist() == palette[mask[y, x]].tolist()


@pytest.mark.parametrize("wrong", [-1, 256, 10_000])
def test_colourise_refuses_other_ids(wrong):
    with pytest.raises(ValueError, match=str(wrong)):
        colourise(np.array([[0, wrong]]))


def test_colourise_takes_an_empty_mask():
    assert colourise(np.zeros((0, 4), dtype=np.uint8)).shape == (0, 4, 3)


def _heat_loop(scores, knots):
    painted = np.zeros((*scores.shape, 3), dtype=np.uint8)
    for y in range(scores.shape[0]):
        for x in range(scores.shape[1]):
            place = min(max(float(scores[y, x]), 0.0), 1.0) * (len(knots) - 1)
            low = min(int(place), len(knots) - 2)
            share = place - low
            for c in range(3):
                painted[y, x, c] = round(knots[low][c] * (1 - share) + knots[low + 1][c] * share)
    return painted


@few
@given(hnp.arrays(np.float64, (3, 4), elements=st.floats(-0.5, 1.5)))
def test_heat_is_linear_between_its_knots(scores):
    knots = heat(np.linspace(0, 1, 5)[None])[0].astype(float)
    painted = heat(scores)
    assert painted.dtype == np.uint8
    # a value half-way between two integers may be rounded either way
    assert np.abs(painted.astype(int) - _heat_loop(scores, knots).astype(int)).max() <= 1


def test_heat_goes_from_blue_to_red_and_takes_nan_for_zero():
    painted = heat(np.array([[0.0, 1.0, np.nan]], dtype=np.float32))[0]
    assert painted[0].argmax() == 2
    assert painted[1].argmax() == 0
    np.testing.assert_array_equal(painted[2], painted[0])
    assert len(np.unique(heat(np.linspace(0, 1, 5)[None])[0], axis=0)) == 5


@few
@given(hnp.arrays(np.uint8, (2, 3, 3)), hnp.arrays(np.uint8, (2, 3, 3)), st.sampled_from([0.0, 0.25, 0.5, 0.75, 1.0]))
def test_overlay_equals_a_loop(image, colours, opacity):
    blended = overlay(image, colours, opacity)
    assert blended.dtype == np.uint8
    for index in np.ndindex(image.shape):
        assert blended[index] == round(int(image[index]) * (1 - opacity) + int(colours[index]) * opacity)


def test_overlay_takes_half_of_each_unless_told():
    image, colours = np.full((1, 1, 3), 10, np.uint8), np.full((1, 1, 3), 30, np.uint8)
    np.testing.assert_array_equal(overlay(image, colours), overlay(image, colours, 0.5))
    assert overlay(image, colours)[0, 0, 0] == (10 + 30) // 2
