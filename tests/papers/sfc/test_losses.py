"""SFC's losses against loops over images, classes and pixels, and gradients against finite differences."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from frugalseg.papers.sfc import losses
from tests.ops import oracles

few = settings(deadline=None, max_examples=30)
seeds = st.integers(0, 2**32 - 1)
sizes = st.tuples(st.integers(1, 3), st.integers(1, 4), st.integers(1, 4), st.integers(1, 5))


def _weights(rng, classes):
    return np.concatenate([[1.0], rng.uniform(0.2, 2, classes)])


@few
@given(st.lists(st.integers(0, 500), min_size=1, max_size=8), st.floats(0.5, 400))
def test_class_weights(counts, bonus):
    q = []
    for n in counts:
        demand = 0
        for other in counts:
            demand += abs(other - n)
        q.append(demand / (n + bonus))
    mean = sum(q) / len(q)
    expected = [value / mean if mean else 1.0 for value in q]
    weights = losses.class_weights(counts, bonus)
    assert weights.dtype == np.float64
    np.testing.assert_allclose(weights, expected, rtol=1e-12)
    np.testing.assert_allclose(weights.mean(), 1.0, rtol=1e-12)


def test_equal_counts_give_equal_weights():
    assert losses.class_weights([7, 7, 7], 0.0).tolist() == [1.0, 1.0, 1.0]


@pytest.mark.parametrize(("counts", "bonus"), [([0, 3], 0.0), ([2, 3], -2.0), ([1, 3], -2.0)])
def test_a_class_that_is_never_shown_is_refused(counts, bonus):
    with pytest.raises(ValueError, match="bonus"):
        losses.class_weights(counts, bonus)
    assert len(losses.class_weights(counts, 5.0)) == len(counts)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_background_weighs_one(dtype):
    weights = np.array([0.25, 1.75], dtype=dtype)
    result = losses.with_background_weight(weights)
    assert result.dtype == torch.float64
    assert result.tolist() == [1.0, *weights.tolist()]


@few
@given(hnp.arrays(np.float64, st.tuples(st.integers(1, 3), st.integers(1, 4)), elements=st.floats(-30, 30)), seeds)
def test_classification_loss(score, seed):
    tags = np.random.default_rng(seed).integers(0, 2, score.shape)
    terms = []
    for index in np.ndindex(score.shape):
        x, y = float(score[index]), int(tags[index])
        terms.append(math.log1p(math.exp(-x)) if y else math.log1p(math.exp(x)))
    expected = sum(terms) / len(terms)
    flat = losses.classification_loss(torch.as_tensor(score), torch.as_tensor(tags))
    tall = losses.classification_loss(torch.as_tensor(score)[..., None, None], torch.as_tensor(tags).float())
    np.testing.assert_allclose(float(flat), expected, rtol=1e-10, atol=1e-12)
    assert float(tall) == float(flat)


def _prototype_loop(mw, mp, weights):
    shaped = oracles.normalised(mp)
    terms = [weights[i[1]] * abs(mw[i] - shaped[i]) for i in np.ndindex(mw.shape)]
    return sum(terms) / len(terms)


@few
@given(sizes, seeds)
def test_prototype_loss(size, seed):
    rng = np.random.default_rng(seed)
    n, c, h, w = size
    mw, mp = rng.random((n, c + 1, h, w)), rng.random((n, c + 1, h, w))
    mp[:, -1] = 0  # an absent class
    weights = _weights(rng, c)
    loss = losses.prototype_loss(*map(torch.as_tensor, (mw, mp, weights)))
    np.testing.assert_allclose(float(loss), _prototype_loop(mw, mp, weights), rtol=1e-12)


def _scale_loop(mw, half, tags, weights):
    grid = half.shape[-2:]
    terms = []
    for n in range(len(mw)):
        for c in range(1, mw.shape[1]):
            shrunk = oracles.bilinear(mw[n, c], grid, align_corners=True)
            present = tags[n, c - 1]
            for y, x in np.ndindex(*grid):
                terms.append(weights[c] * abs(shrunk[y, x] * present - half[n, c, y, x] * present))
    return sum(terms) / len(terms)


@few
@given(sizes, seeds)
def test_scale_loss(size, seed):
    rng = np.random.default_rng(seed)
    n, c, h, w = size
    mw, half = rng.random((n, c + 1, 2 * h, 2 * w)), rng.random((n, c + 1, h, w))
    tags = rng.integers(0, 2, (n, c)).astype(float)
    weights = _weights(rng, c)
    loss = losses.scale_loss(*map(torch.as_tensor, (mw, half, tags, weights)))
    np.testing.assert_allclose(float(loss), _scale_loop(mw, half, tags, weights), rtol=1e-12, atol=1e-15)


def test_scale_loss_ignores_background_and_absent_classes():
    rng = torch.Generator().manual_seed(0)
    mw, half = torch.rand(1, 3, 4, 4, generator=rng), torch.rand(1, 3, 2, 2, generator=rng)
    tags, weights = torch.tensor([[1.0, 0.0]]), torch.ones(3)
    before = losses.scale_loss(mw, half, tags, weights)
    mw[:, [0, 2]] += 5
    assert losses.scale_loss(mw, half, tags, weights) == before
    mw[:, 1] += 5
    assert losses.scale_loss(mw, half, tags, weights) > before + 0.5


def test_losses_vanish_where_maps_agree():
    mw = torch.rand(2, 3, 4, 4, dtype=torch.float64)
    mw = mw / mw.amax(dim=(-2, -1), keepdim=True)
    assert losses.prototype_loss(mw, mw, torch.ones(3)) < 1e-4
    flat = torch.full((2, 3, 4, 4), 0.25)
    assert losses.scale_loss(flat, flat[..., :2, :2], torch.ones(2, 2), torch.ones(3)) == 0


def _random(seed, *shape):
    return torch.rand(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)).requires_grad_()


def test_gradients_are_those_of_finite_differences():
    weights = torch.tensor([1.0, 0.5, 1.5], dtype=torch.float64)
    tags = torch.tensor([[1.0, 0.0], [1.0, 1.0]], dtype=torch.float64)
    mw, mp, half = _random(0, 2, 3, 4, 4), _random(1, 2, 3, 4, 4), _random(2, 2, 3, 2, 2)
    assert torch.autograd.gradcheck(lambda a, b: losses.prototype_loss(a, b, weights), (mw, mp))
    assert torch.autograd.gradcheck(lambda a, b: losses.scale_loss(a, b, tags, weights), (mw, half))
    assert torch.autograd.gradcheck(lambda a: losses.classification_loss(a, tags), (_random(3, 2, 2, 1, 1),))


def test_both_sides_of_both_consistency_terms_learn():
    """sfc.md 4.3 and 4.4: nothing is detached."""
    weights, tags = torch.ones(3, dtype=torch.float64), torch.ones(2, 2)
    for loss, shapes in (
        (lambda a, b: losses.prototype_loss(a, b, weights), ((2, 3, 4, 4), (2, 3, 4, 4))),
        (lambda a, b: losses.scale_loss(a, b, tags, weights), ((2, 3, 4, 4), (2, 3, 2, 2))),
    ):
        left, right = (_random(5 + i, *shape) for i, shape in enumerate(shapes))
        loss(left, right).backward()
        assert left.grad.abs().max() > 0
        assert right.grad.abs().max() > 0
