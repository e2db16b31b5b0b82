"""Labels by random walks against dense matrices, and the reference's vectors."""

from itertools import product

import numpy as np
import pytest
import torch

from frugalseg.ops.cam import labels_from_maps
from frugalseg.ops.random_walk import path_offsets
from frugalseg.ops.walk_labels import (
    irn_label,
    irn_scores,
    psa_label,
    psa_scores,
    sfc_label,
    sfc_scores,
    stride_of,
)
from tests.ops import oracles

# ---------------------------------------------------------------------- slow forms


def offsets(radius):
    """All pairs of the half plane closer than `radius`, in listing order."""
    right = [(0, x) for x in range(1, radius)]
    return right + [
        (y, x) for y, x in product(range(1, radius), range(1 - radius, radius)) if y * y + x * x < radius * radius
    ]


def dense_from_edge(edge, radius):
    """(N, N) affinities of all pairs of cells, ones on the diagonal."""
    height, width = edge.shape
    dense = np.eye(height * width)
    for (y, x), (dy, dx) in product(np.ndindex(height, width), offsets(radius)):
        if not (y + dy < height and 0 <= x + dx < width):
            continue
        strongest = 0.0
        for i, j in product(range(dy + 1), range(min(0, dx), max(0, dx) + 1)):
            if abs(i * dx - j * dy) / np.hypot(dy, dx) < 1:
                strongest = max(strongest, edge[y + i, x + j])
        here, there = y * width + x, (y + dy) * width + x + dx
        dense[here, there] = dense[there, here] = 1 - strongest
    return dense


def dense_walk(scores, dense, beta, steps):
    transition = dense**beta
    transition = transition / transition.sum(axis=0)
    return (scores.reshape(len(scores), -1) @ np.linalg.matrix_power(transition, steps)).reshape(scores.shape)


def slow_irn(scores, edge, background, exponent, radius, beta, steps, stride):
    """Scores of one walk, maps of the classes alone; negative scores count as none."""
    seeds = oracles.resized(scores, edge.shape).clip(0) ** exponent * (1 - edge)
    walked = dense_walk(seeds, dense_from_edge(edge, radius), beta, steps)
    grown = oracles.resized(walked, tuple(stride * side for side in edge.shape))
    grown = grown[:, : scores.shape[1], : scores.shape[2]]
    grown = grown / grown.max()
    if background is None:
        return grown
    return np.concatenate([np.full_like(grown[:1], background), grown])


@pytest.fixture
def case():
    """Scores of three rows at 17 x 22 pixels and edges at a stride of 4."""
    rng = np.random.default_rng(1)
    scores = np.stack([oracles.bilinear(rng.random((3, 4)), (17, 22)) for _ in range(3)])
    return torch.as_tensor(scores), torch.as_tensor(rng.random((5, 6)) ** 2)


KEYS = torch.tensor([0, 3, 15])


# ---------------------------------------------------------------------- IRN and SFC


def test_irn_against_dense_matrices(case):
    scores, edge = case
    slow = slow_irn(scores.numpy()[1:], edge.numpy(), 0.3, 1.2, 3, 7, 20, 4)
    fast = irn_scores(scores, edge, 0.3, 1.2, 3, 7, 20)
    np.testing.assert_allclose(fast, slow, rtol=0, atol=1e-10)
    label = irn_label(scores, edge, KEYS, background=0.3, exponent=1.2, radius=3, beta=7, steps=20)
    np.testing.assert_array_equal(label, KEYS.numpy()[slow.argmax(axis=0)])
    assert set(label.unique().tolist()) == set(KEYS.tolist())


def test_irn_does_not_look_at_the_background_nor_at_a_common_factor(case):
    scores, edge = case
    plain = irn_scores(scores, edge)
    assert (plain[0] == 0.25).all()
    changed = torch.cat([torch.rand_like(scores[:1]), 3 * scores[1:]])
    torch.testing.assert_close(irn_scores(changed, edge), plain, rtol=0, atol=1e-12)


def test_sfc_adds_a_second_walk_with_the_background(case):
    scores, edge = case
    first = slow_irn(scores.numpy()[1:], edge.numpy(), 0.25, 1.3, 5, 10, 64, 4)
    second = slow_irn(scores.numpy(), edge.numpy(), None, 1.3 * 1.3, 5, 10, 64, 4)
    fast = sfc_scores(scores, edge, steps=64)
    np.testing.assert_allclose(fast, first + second, rtol=0, atol=1e-10)
    other = sfc_scores(scores, edge, 0.1, 1.1, 2.0, 4, 6, 30)
    first = slow_irn(scores.numpy()[1:], edge.numpy(), 0.1, 1.1, 4, 6, 30, 4)
    second = slow_irn(scores.numpy(), edge.numpy(), None, 1.1 * 2.0, 4, 6, 30, 4)
    np.testing.assert_allclose(other, first + second, rtol=0, atol=1e-10)


@pytest.mark.golden
def test_golden_pseudo_label(golden):
    arrays = {name: torch.as_tensor(array) for name, array in golden("sfc/pseudo_label").items()}
    scores = arrays["cam_w"] + 0.3 * arrays["cam_p"]
    total = sfc_scores(scores, arrays["edge"][0])
    torch.testing.assert_close(total, arrays["score_sum"], rtol=0, atol=2e-4)
    label = sfc_label(scores, arrays["edge"][0], arrays["keys"])
    agreement = (label == arrays["label"]).double().mean()
    assert agreement >= 0.999
    # without the second walk it is another label
    plain = irn_label(scores, arrays["edge"][0], arrays["keys"], exponent=1.3)
    assert (plain == arrays["label"]).double().mean() < agreement


def test_scores_cross_no_edge():
    """A class seeded left of a wall fills the left side and none of the right one."""
    scores, edge = torch.zeros(2, 32, 48), torch.zeros(8, 12)
    scores[1, 12:20, 4:10] = 1
    edge[:, 6] = 1
    label = irn_label(scores, edge, torch.tensor([0, 7]), background=0.25)
    assert (label[:, :20] == 7).all()
    assert (label[:, 30:] == 0).all()
    open_label = irn_label(scores, torch.zeros(8, 12), torch.tensor([0, 7]), background=0.25)
    assert (open_label[:, 30:] == 7).any()


def test_negative_scores_count_as_none(case):
    """Their powers would not be numbers."""
    scores, edge = case
    negative = scores - scores.mean()
    assert 0.2 < (oracles.resized(negative.numpy(), edge.shape) < 0).mean() < 0.8
    slow = slow_irn(negative.numpy()[1:], edge.numpy(), 0.25, 1.3, 5, 10, 20, 4)
    np.testing.assert_allclose(irn_scores(negative, edge, exponent=1.3, steps=20), slow, rtol=0, atol=1e-10)
    slow += slow_irn(negative.numpy(), edge.numpy(), None, 1.3 * 1.3, 5, 10, 20, 4)
    np.testing.assert_allclose(sfc_scores(negative, edge, steps=20), slow, rtol=0, atol=1e-10)


def test_float16_maps_walk_in_float32(case):
    scores, edge = case
    half = scores.half()
    for rule in (irn_scores, sfc_scores):
        result = rule(half, edge.float())
        assert result.dtype == torch.float32
        torch.testing.assert_close(result, rule(half.float(), edge.float()), rtol=0, atol=0)


# ---------------------------------------------------------------------- PSA


def dense_from_affinity(affinity):
    _, height, width = affinity.shape
    dense = np.eye(height * width)
    for p, (dy, dx) in enumerate(path_offsets(5).tolist()):
        for y, x in np.ndindex(height, width):
            if y + dy < height and 0 <= x + dx < width:
                here, there = y * width + x, (y + dy) * width + x + dx
                dense[here, there] = dense[there, here] = affinity[p, y, x]
    return dense


@pytest.mark.parametrize("size", [(40, 48), (33, 41)])
def test_psa_against_dense_matrices(size):
    rng = np.random.default_rng(2)
    maps, affinity = rng.random((2, *size)), rng.random((34, 5, 6))
    padded = np.zeros((3, 40, 48))
    padded[0, : size[0], : size[1]] = 0.39
    padded[1:, : size[0], : size[1]] = maps
    cells = padded.reshape(3, 5, 8, 6, 8).mean(axis=(2, 4))
    slow = oracles.resized(dense_walk(cells, dense_from_affinity(affinity), 8, 64), (40, 48))
    slow = slow[:, : size[0], : size[1]]
    fast = psa_scores(torch.as_tensor(maps), torch.as_tensor(affinity))
    np.testing.assert_allclose(fast, slow, rtol=0, atol=1e-10)
    label = psa_label(torch.as_tensor(maps), torch.as_tensor(affinity), KEYS)
    np.testing.assert_array_equal(label, KEYS.numpy()[slow.argmax(axis=0)])


def golden_affinity(arrays):
    """(34, h, w): the reference has pairs only from cells all of whose partners lie in the map."""
    height, width = arrays["conv4"].shape[-2:]
    sources = torch.as_tensor(arrays["aff_sparse"])[0].view(-1, height - 4, width - 8)
    affinity = torch.zeros(len(sources), height, width, dtype=sources.dtype)
    for p, offset in enumerate(path_offsets(5).tolist()):
        affinity[p, : height - 4, 4 : width - 4] = sources[offsets(5).index(tuple(offset))]
    return affinity


@pytest.mark.golden
def test_golden_psa_labels(golden):
    arrays = golden("cti/psa_affinity")
    classes = sorted(int(name.removeprefix("cam_class")) for name in arrays if name.startswith("cam_class"))
    maps = torch.as_tensor(np.stack([arrays[f"cam_class{c}"] for c in classes])).double()
    keys = torch.tensor([0, *[c + 1 for c in classes]])
    scores = psa_scores(maps, golden_affinity(arrays), background=0.39)
    best = scores.topk(2, dim=0).values
    clear = best[0] - best[1] > 1e-5
    assert clear.double().mean() > 0.9
    label = labels_from_maps(scores, keys)
    expected = torch.as_tensor(arrays["pred"])
    assert torch.equal(label[clear], expected[clear].long())
    assert torch.equal(label, psa_label(maps, golden_affinity(arrays), keys))
    # before the walk it is another label
    assert (labels_from_maps(torch.cat([torch.full_like(maps[:1], 0.39), maps]), keys) != expected).any()


# ---------------------------------------------------------------------- all rules


def test_an_image_without_classes_is_background(case):
    scores, edge = case
    keys, background = torch.tensor([0]), torch.zeros(17, 22, dtype=torch.int64)
    assert torch.equal(irn_label(scores[:1], edge, keys), background)
    assert torch.equal(sfc_label(scores[:1], edge, keys), background)
    assert torch.equal(psa_label(scores[:0], torch.rand(34, 3, 3), keys), background)


def test_maps_that_edges_wipe_out_are_background(case):
    scores, edge = case
    for rule in (irn_scores, sfc_scores):
        result = rule(scores, torch.ones_like(edge))
        assert torch.isfinite(result).all()
        assert (labels_from_maps(result, KEYS) == 0).all()


@pytest.mark.parametrize("rule", [irn_label, sfc_label])
@pytest.mark.parametrize("size", [(16, 16), (17, 22), (15, 33)])
@pytest.mark.parametrize("stride", [2, 4, 8])
def test_labels_have_the_size_of_the_image(rule, size, stride):
    edge = torch.rand(*(-(-side // stride) for side in size), generator=torch.Generator().manual_seed(0))
    label = rule(torch.rand(3, *size), edge, KEYS)
    assert label.shape == size
    assert label.dtype == torch.int64
    assert set(label.unique().tolist()) <= set(KEYS.tolist())


@pytest.mark.parametrize("stride", range(2, 17))
def test_stride_of_any_grid_is_found(stride):
    for size in ((375, 500), (333, 500), (281, 500), (512, 512), (427, 640)):
        assert stride_of(size, tuple(-(-side // stride) for side in size)) == stride


def test_ambiguous_grids_take_the_networks_stride():
    assert stride_of((5, 5), (2, 2)) == 4
    assert stride_of((3, 3), (1, 1)) == 4


@pytest.mark.parametrize("cells", [(94, 126), (375, 500), (23, 31), (0, 0), (10, 125)])
def test_a_grid_of_another_image_is_refused(cells):
    with pytest.raises(ValueError, match="cells"):
        stride_of((375, 500), cells)
    with pytest.raises(ValueError):
        irn_scores(torch.rand(2, 375, 500), torch.rand(*cells))
