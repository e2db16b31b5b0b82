"""Tiles against the whole image, and against counting pixel by pixel."""

import itertools

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import nn

from frugalseg.ops.tiles import blend, sliding, spans

few = settings(deadline=None, max_examples=60)


def convolution(kernel, stride=1, dilation=1, outputs=3, depth=2):
    torch.manual_seed(kernel * 10 + stride)
    net = nn.Conv2d(depth, outputs, kernel, stride, padding=kernel // 2 * dilation, dilation=dilation)
    return net.double().requires_grad_(False)


def image(height, width, depth=2, seed=0):
    return torch.randn(2, depth, height, width, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


@few
@given(st.integers(1, 200), st.integers(1, 60), st.integers(0, 40), st.integers(1, 9))
def test_spans_cover_the_side(length, size, overlap, align):
    assume(size >= overlap + align)
    found = spans(length, size, overlap, align)
    covered = np.zeros(length, int)
    for begin, end in found:
        assert begin % align == 0 and 0 <= begin < end <= length and end - begin <= size
        covered[begin:end] += 1
    assert covered.min() >= 1
    assert found[0].begin == 0 and found[-1].end == length
    for (_, end), (begin, _) in itertools.pairwise(found):
        assert end - begin >= overlap
    assert (len(found) == 1) == (length <= size)


@few
@given(st.integers(1, 200), st.integers(1, 12), st.integers(0, 12), st.sampled_from([1, 2, 4]), st.integers(0, 3))
def test_no_cell_is_left_without_weight(length, hop, extra, stride, margin):
    """At the smallest overlap that is allowed, too."""
    overlap = 2 * -(-margin // stride) * stride + extra
    size = overlap + hop * stride
    total = np.zeros(-(-length // stride))
    for span in spans(length, size, overlap, stride):
        weight = blend(span, length, stride, overlap, margin).numpy()
        assert (weight >= 0).all()
        total[span.begin // stride :][: len(weight)] += weight
    assert (total > 0).all()


def test_weights_fade_towards_inner_edges_only():
    first, middle, last = (blend(span, 96, 1, 12, 3).numpy() for span in spans(96, 40, 12))
    assert (np.diff(first) <= 0).all() and (np.diff(last) >= 0).all()
    for rising in (middle[:20], last[:20]):
        assert rising[:3].tolist() == [0, 0, 0] and rising[3] > 0 and (np.diff(rising[3:9]) > 0).all()
    assert first[0] == last[-1] == middle[20] == middle.max()
    # from where the margins of two neighbours meet in the middle of what they share
    assert (middle[8:32] == middle.max()).all() and middle[7] < middle.max() > middle[32]


@few
@given(
    st.integers(1, 50),
    st.integers(1, 50),
    st.integers(4, 20),
    st.integers(0, 3),
    st.sampled_from([(1, 1), (1, 2), (2, 4)]),
)
def test_a_function_of_single_pixels_does_not_see_the_tiles(height, width, size, overlap, steps):
    stride, align = steps
    assume(size >= overlap + align)
    picture, net = image(height, width), convolution(1, stride)
    tiled = sliding(net, picture, size, overlap, stride, align)
    torch.testing.assert_close(tiled, net(picture), rtol=0, atol=1e-12)


@few
@given(st.integers(1, 60), st.integers(1, 60), st.integers(7, 24))
def test_a_margin_of_the_reach_makes_tiles_exact(height, width, size):
    picture, net = image(height, width), convolution(3)
    tiled = sliding(net, picture, size, 2, margin=1)
    torch.testing.assert_close(tiled, net(picture), rtol=0, atol=1e-12)


def test_strided_and_dilated_layers_are_exact_too():
    """Stride 4 in two steps and a dilated layer on the coarse grid: reach 2·1 + 1·2 + 2·4 = 11 pixels or less."""
    net = nn.Sequential(convolution(3, 2), convolution(3, 2, depth=3), convolution(3, 1, 2, depth=3))
    picture = image(97, 131)
    whole = net(picture)
    assert whole.shape[-2:] == (25, 33)
    tiled = sliding(net, picture, 44, 24, stride=4, margin=11)
    torch.testing.assert_close(tiled, whole, rtol=0, atol=1e-12)
    shifted = sliding(net, picture, 44, 24, stride=4, align=8, margin=11)
    torch.testing.assert_close(shifted, whole, rtol=0, atol=1e-12)


def test_without_a_margin_only_cells_near_edges_of_tiles_differ():
    picture, net = image(50, 70), convolution(3)
    tiled, whole = sliding(net, picture, 30, 10), net(picture)
    touched = torch.zeros(50, 70, dtype=torch.bool)
    for rows in spans(50, 30, 10):
        for columns in spans(70, 30, 10):
            inner = torch.zeros(50, 70, dtype=torch.bool)
            for edge, length in ((rows, 50), (columns, 70)):
                lines = [edge.begin] * (edge.begin > 0) + [edge.end - 1] * (edge.end < length)
                for line in lines:
                    if length == 50:
                        inner[line, columns.begin : columns.end] = True
                    else:
                        inner[rows.begin : rows.end, line] = True
            touched |= inner
    same = torch.isclose(tiled, whole, rtol=0, atol=1e-12).all(dim=(0, 1))
    assert (same | touched).all()
    assert not same.all()


def test_half_precision_is_blended_in_float32():
    result = sliding(lambda tile: tile.half(), image(9, 30).float(), 8, 4)
    assert result.dtype == torch.float32


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"size": 4, "overlap": 4}, "no such cut"),
        ({"size": 4, "overlap": 2, "stride": 3}, "no such cut"),
        ({"size": 8, "overlap": 2, "margin": 2}, "gap"),
        ({"size": 8, "overlap": 2, "stride": 2, "align": 3}, "do not fit"),
        ({"size": 8, "overlap": 2, "stride": 2}, "cells"),
    ],
)
def test_settings_without_sense_are_refused(settings, words):
    with pytest.raises(ValueError, match=words):
        sliding(convolution(1), image(20, 20), **settings)
