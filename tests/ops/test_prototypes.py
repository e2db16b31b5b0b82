"""Prototypes against loops, and their gradients against the form that broadcasts N x K x D x h x w."""

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from frugalseg.ops.prototypes import NORM_EPS, argmax_masks, cosine_map, masked_average_pool

few = settings(deadline=None, max_examples=30)
sides = st.integers(1, 3)


@st.composite
def cases(draw):
    """Features (N, D, h, w), masks (N, K, h, w) and prototypes (N, K, D); some features and prototypes are zero."""
    n, d, k, h, w = (draw(st.integers(1, 3)) for _ in range(5))
    values = st.integers(-4, 4).map(lambda v: v / 2)
    features = draw(hnp.arrays(np.float64, (n, d, h, w), elements=values))
    masks = draw(hnp.arrays(np.float64, (n, k, h, w), elements=st.sampled_from([0.0, 1.0, 0.25])))
    return features, masks, draw(hnp.arrays(np.float64, (n, k, d), elements=values))


def _random(seed, *shape):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


@few
@given(cases())
def test_masked_average_pool_equals_loops(case):
    features, masks, _ = case
    pooled = masked_average_pool(torch.as_tensor(features), torch.as_tensor(masks))
    n, d, h, w = features.shape
    for i, k, c in np.ndindex(n, masks.shape[1], d):
        total = sum(features[i, c, y, x] * masks[i, k, y, x] for y in range(h) for x in range(w))
        np.testing.assert_allclose(pooled[i, k, c], total / (h * w), rtol=0, atol=1e-12)


@few
@given(cases())
def test_cosine_map_equals_loops(case):
    features, _, prototypes = case
    cosines = cosine_map(torch.as_tensor(features), torch.as_tensor(prototypes))
    n, d, h, w = features.shape
    assert cosines.shape == (n, prototypes.shape[1], h, w)
    for i, k, y, x in np.ndindex(*cosines.shape):
        place, prototype = features[i, :, y, x], prototypes[i, k]
        lengths = [max(np.sqrt(sum(v * v for v in vector)), NORM_EPS) for vector in (place, prototype)]
        expected = sum(place[c] * prototype[c] for c in range(d)) / lengths[0] / lengths[1]
        np.testing.assert_allclose(cosines[i, k, y, x], expected, rtol=0, atol=1e-12)


def test_a_zero_prototype_gives_exactly_zero_and_no_bad_gradient():
    features = _random(0, 2, 4, 3, 3).requires_grad_()
    prototypes = torch.zeros(2, 3, 4, dtype=torch.float64, requires_grad=True)
    cosines = cosine_map(features, prototypes)
    assert torch.equal(cosines, torch.zeros(2, 3, 3, 3, dtype=torch.float64))
    cosines.sum().backward()
    assert features.grad.isfinite().all()
    assert prototypes.grad.isfinite().all()


def test_cosines_ignore_lengths_and_find_themselves():
    features = _random(1, 1, 5, 2, 2)
    prototypes = features.flatten(2).transpose(1, 2)
    own = cosine_map(features, prototypes * 7).flatten(2)[0].diagonal()
    np.testing.assert_allclose(own, np.ones(4), rtol=0, atol=1e-12)


def _naive_pool(features, masks):
    return (masks[:, :, None] * features[:, None]).sum(dim=(-2, -1)) / (features.shape[-2] * features.shape[-1])


def _naive_cosine(features, prototypes, eps=NORM_EPS):
    places, centres = features[:, None], prototypes[..., None, None]
    product = (places * centres).sum(dim=2)
    return product / places.norm(dim=2).clamp_min(eps) / centres.norm(dim=2).clamp_min(eps)


def test_gradients_equal_those_of_the_broadcast_form():
    masks = (_random(2, 2, 3, 4, 5) > 0).double()
    masks[0, 1] = 0  # a class without places
    probe = _random(3, 2, 3, 4, 5)
    gradients, values = [], []
    for pool, cosine in ((masked_average_pool, cosine_map), (_naive_pool, _naive_cosine)):
        features = _random(4, 2, 6, 4, 5).requires_grad_()
        weights = masks.clone().requires_grad_()
        value = cosine(features, pool(features, weights))
        (value * probe).sum().backward()
        values.append(value.detach())
        gradients.append((features.grad, weights.grad))
    np.testing.assert_allclose(values[0], values[1], rtol=0, atol=1e-12)
    assert gradients[1][0].abs().max() > 1e-3
    # a zero prototype has no direction: its gradient is 1/eps times a number, in both forms the same one
    for ours, naive in zip(*gradients, strict=True):
        np.testing.assert_allclose(ours, naive, rtol=1e-9, atol=1e-12)


def test_gradients_are_those_of_finite_differences():
    features, prototypes = _random(5, 2, 3, 2, 2).requires_grad_(), _random(6, 2, 2, 3).requires_grad_()
    masks = _random(7, 2, 2, 2, 2).requires_grad_()
    assert torch.autograd.gradcheck(masked_average_pool, (features, masks))
    assert torch.autograd.gradcheck(cosine_map, (features, prototypes))


@few
@given(
    hnp.arrays(
        np.float64,
        hnp.array_shapes(min_dims=4, max_dims=4, max_side=4),
        elements=st.integers(0, 8).map(lambda v: v / 8),
    ),
    st.sampled_from([0.25, 0.3, 1.0]),
)
def test_argmax_masks_equal_loops(scores, factor):
    masks = argmax_masks(torch.as_tensor(scores), factor)
    assert masks.dtype == torch.float64
    n, k, h, w = scores.shape
    for i, y, x in np.ndindex(n, h, w):
        shaded = [scores[i, c, y, x] * (factor if c == 0 else 1) for c in range(k)]
        best = 0
        for c in range(k):
            if shaded[c] > shaded[best]:
                best = c
        assert masks[i, :, y, x].tolist() == [float(c == best) for c in range(k)]


def test_argmax_masks_leave_scores_alone_and_carry_no_gradient():
    scores = _random(8, 2, 3, 4, 4).requires_grad_()
    before = scores.detach().clone()
    masks = argmax_masks(scores)
    assert not masks.requires_grad
    assert torch.equal(scores, before)
    assert torch.equal(masks, argmax_masks(scores, 0.3))
