"""Map operations against loops over pixels."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from frugalseg.ops.cam import (
    RULES,
    background_score,
    box_mask,
    combine,
    labels_from_maps,
    merge_scales,
    normalise,
    resize,
    with_background,
)
from tests.ops import oracles

few = settings(deadline=None, max_examples=30)
# quarters hit ties and zeros often; both matter to maxima and argmaxima
QUARTERS = st.integers(0, 8).map(lambda v: v / 4)
SIGNED = st.integers(-8, 8).map(lambda v: v / 4)
shapes4 = hnp.array_shapes(min_dims=4, max_dims=4, min_side=1, max_side=4)
side = st.integers(1, 7)


def close(actual, expected, atol=1e-12):
    np.testing.assert_allclose(actual.numpy(), expected, rtol=0, atol=atol)


@few
@given(hnp.arrays(np.float64, shapes4, elements=QUARTERS), st.sampled_from([1e-5, 1e-2]))
def test_normalise(maps, eps):
    close(normalise(torch.as_tensor(maps), eps), oracles.normalised(maps, eps))


def test_normalise_keeps_empty_channels_and_any_leading_shape():
    maps = torch.rand(2, 3, 4, 5, dtype=torch.float64)
    maps[0, 1] = 0
    result = normalise(maps)
    assert torch.equal(result[0, 1], torch.zeros(4, 5, dtype=torch.float64))
    assert torch.equal(result[1, 2], normalise(maps[1, 2]))


def test_normalise_passes_gradients_through_the_maximum():
    maps = torch.rand(2, 3, 2, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).requires_grad_()
    assert torch.autograd.gradcheck(normalise, (maps,))
    normalise(maps, 0.0).sum().backward()
    # without eps the sum does not change when a channel is scaled, so the gradient is orthogonal to the map
    close((maps.grad * maps.detach()).sum(dim=(-2, -1)), np.zeros((2, 3)))
    assert maps.grad.abs().max() > 0.1


@few
@given(hnp.arrays(np.float64, shapes4, elements=QUARTERS.map(lambda v: v / 2)))
def test_background_score(foreground):
    score = background_score(torch.as_tensor(foreground))
    assert score.shape == (len(foreground), 1, *foreground.shape[2:])
    for n, y, x in np.ndindex(foreground.shape[0], *foreground.shape[2:]):
        assert score[n, 0, y, x] == 1 - max(float(foreground[n, c, y, x]) for c in range(foreground.shape[1]))


@few
@given(hnp.arrays(np.float64, shapes4, elements=SIGNED))
def test_with_background(logits):
    maps = with_background(torch.as_tensor(logits))
    foreground = oracles.normalised(np.where(logits > 0, logits, 0.0))
    close(maps[:, 1:], foreground)
    close(maps[:, 0], 1 - foreground.max(axis=1))
    assert maps.min() >= 0
    assert maps.max() <= 1


def test_with_background_has_the_gradient_of_its_definition():
    logits = torch.randn(2, 3, 3, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(1)).requires_grad_()
    assert torch.autograd.gradcheck(with_background, (logits,))


@few
@given(hnp.arrays(np.float64, shapes4, elements=SIGNED), side, side, st.booleans())
def test_resize(maps, height, width, align_corners):
    actual = resize(torch.as_tensor(maps), (height, width), align_corners)
    close(actual, oracles.resized(maps, (height, width), align_corners))


def test_resize_returns_its_argument_where_the_size_is_right():
    maps = torch.rand(1, 2, 3, 4)
    assert resize(maps, (3, 4)) is maps
    assert resize(maps, (4, 3)) is not maps


def _full_mask(box, size):
    mask = torch.zeros(len(box), 1, *size)
    for n, (y0, x0, y1, x1) in enumerate(box.tolist()):
        mask[n, :, y0:y1, x0:x1] = 1
    return mask


@st.composite
def boxes(draw, largest=90):
    size = draw(st.tuples(st.integers(1, largest), st.integers(1, largest)))
    rows = []
    for _ in range(draw(st.integers(1, 3))):
        ys = sorted(draw(st.tuples(st.integers(0, size[0]), st.integers(0, size[0]))))
        xs = sorted(draw(st.tuples(st.integers(0, size[1]), st.integers(0, size[1]))))
        rows.append([ys[0], xs[0], ys[1], xs[1]])
    return torch.tensor(rows), size


@few
@given(boxes(), st.sampled_from([4, 8, 16, 32]), st.booleans())
def test_box_mask_is_the_nearest_resize_of_the_full_mask(case, stride, halved):
    """Grids as a network of that stride gives them, sizes that it does not divide included; `halved` is the half-scale pass."""
    box, size = case
    grid = tuple(-(-(max(1, s // 2) if halved else s) // stride) for s in size)
    expected = F.interpolate(_full_mask(box, size), size=grid, mode="nearest") > 0
    actual = box_mask(box, size, grid)
    assert actual.dtype == torch.bool
    assert torch.equal(actual, expected)


@few
@given(boxes(largest=12), st.tuples(st.integers(1, 12), st.integers(1, 12)))
def test_box_mask_takes_the_top_left_pixel_of_each_cell(case, grid):
    box, size = case
    actual = box_mask(box, size, grid)
    full = _full_mask(box, size)
    for n, y, x in np.ndindex(len(box), *grid):
        assert bool(actual[n, 0, y, x]) == bool(full[n, 0, y * size[0] // grid[0], x * size[1] // grid[1]])


def test_box_mask_positions_are_torchs_for_every_side():
    """All sides up to VOC's and COCO's longest, strides 16 and 32."""
    for pixels in range(1, 641):
        for stride in (16, 32):
            cells = -(-pixels // stride)
            picked = F.interpolate(torch.arange(pixels, dtype=torch.float64)[None, None], size=cells, mode="nearest")[
                0, 0
            ]
            low = picked.long()
            box = torch.stack([low, torch.zeros_like(low), low + 1, torch.ones_like(low)], dim=1)
            assert torch.equal(
                box_mask(box, (pixels, 1), (cells, 1))[:, 0, :, 0], torch.eye(cells, dtype=torch.bool)
            ), pixels


@st.composite
def scales(draw):
    channels = draw(st.integers(1, 4))
    sizes = draw(st.lists(st.tuples(st.integers(1, 5), st.integers(1, 5)), min_size=1, max_size=3))
    maps = [draw(hnp.arrays(np.float64, (channels, *size), elements=QUARTERS)) for size in sizes]
    others = draw(st.lists(st.integers(1, channels - 1), unique=True)) if channels > 1 else []
    return maps, draw(st.tuples(st.integers(1, 6), st.integers(1, 6))), [0, *sorted(others)]


@few
@given(scales())
def test_merge_scales(case):
    maps, size, keys = case
    expected = np.zeros((len(keys), *size))
    for scale in maps:
        for row, key in enumerate(keys):
            expected[row] += oracles.bilinear(scale[key], size)
    expected = oracles.normalised(expected)
    for row in range(len(keys)):
        expected[row] = expected[row] + 0.4 if row == 0 else expected[row] * 2
    close(merge_scales([torch.as_tensor(m) for m in maps], size, torch.tensor(keys)), expected)


@pytest.mark.parametrize(("maps", "keys"), [([], [0, 1]), ([torch.ones(2, 3, 3)], []), ([torch.ones(2, 3, 3)], [1, 0])])
def test_merge_scales_refuses_no_maps_and_keys_without_background(maps, keys):
    with pytest.raises(ValueError, match="background"):
        merge_scales(maps, (3, 3), torch.tensor(keys, dtype=torch.int64))


# sfc.md section 6
SPECIFIED = {
    "m0": lambda m: m["m0"],
    "mw": lambda m: m["mw"],
    "mp": lambda m: m["mp"],
    "sum": lambda m: m["mw"] + m["mp"],
    "seed": lambda m: m["mw"] + 0.7 * m["mp"],
    "walk": lambda m: m["mw"] + 0.3 * m["mp"],
}


@few
@given(st.sampled_from(sorted(SPECIFIED)), hnp.arrays(np.float64, (3, 2, 3, 4), elements=SIGNED))
def test_combine(rule, values):
    maps = dict(zip(("m0", "mw", "mp"), values, strict=True))
    close(combine({name: torch.as_tensor(m) for name, m in maps.items()}, rule), SPECIFIED[rule](maps))


def test_combine_knows_every_rule_and_no_other():
    assert set(RULES) == set(SPECIFIED)
    with pytest.raises(KeyError):
        combine({"mw": torch.zeros(1, 1, 1)}, "nonsense")
    with pytest.raises(KeyError):
        combine({"mw": torch.zeros(1, 1, 1)}, "sum")


@few
@given(hnp.arrays(np.float64, hnp.array_shapes(min_dims=3, max_dims=3, max_side=5), elements=QUARTERS), st.data())
def test_labels_from_maps(maps, data):
    others = data.draw(st.lists(st.integers(1, 254), min_size=len(maps) - 1, max_size=len(maps) - 1, unique=True))
    keys = np.array([0, *others], dtype=np.uint8)
    labels = labels_from_maps(torch.as_tensor(maps), torch.as_tensor(keys))
    assert labels.dtype == torch.int64
    for y, x in np.ndindex(maps.shape[1:]):
        best = 0
        for k in range(len(maps)):
            if maps[k, y, x] > maps[best, y, x]:
                best = k
        assert labels[y, x] == keys[best]
