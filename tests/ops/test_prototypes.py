"""Prototypes against loops, and their gradients against the form that broadcasts N x K x D x h x w."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from frugalseg.ops.prototypes import (
    AREA_EPS,
    COSINE_EPS,
    NORM_EPS,
    argmax_masks,
    cosine_map,
    foreground,
    masked_average_pool,
    prior_mask,
    scaled_cosine_map,
    weighted_average_pool,
)
from tests.conftest import load_golden
from tests.ops import oracles

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


# ---------------------------------------------------------------- few-shot


def _masks(draw, *shape):
    return draw(hnp.arrays(np.uint8, shape, elements=st.sampled_from([0, 1, 255])))


@st.composite
def episodes(draw):
    """Query (N, D, h, w), supports (N, K, D, a, b), masks (N, K, H, W); features are whole numbers, some places zero."""
    n, k, d, h, w, a, b = (draw(st.integers(1, 3)) for _ in range(7))
    values = st.integers(-3, 3).map(float)
    query = draw(hnp.arrays(np.float64, (n, d, h, w), elements=values))
    support = draw(hnp.arrays(np.float64, (n, k, d, a, b), elements=values))
    return query, support, _masks(draw, n, k, draw(st.integers(1, 7)), draw(st.integers(1, 7)))


def _stretch(channel):
    low, high = min(channel.flat), max(channel.flat)
    return (channel - low) / (high - low + COSINE_EPS)


def _naive_cosine_of(one, other):
    lengths = [np.sqrt(sum(v * v for v in vector)) for vector in (one, other)]
    return sum(p * q for p, q in zip(one, other, strict=True)) / (lengths[0] * lengths[1] + COSINE_EPS)


def _naive_prior(query, support, mask):
    """Place by place and shot by shot, in float64."""
    n, _, h, w = query.shape
    result = np.zeros((n, 1, h, w))
    shots, a, b = support.shape[1], *support.shape[-2:]
    weights = mask if mask.dtype.kind == "f" else np.where(mask == 1, 1.0, 0.0)
    weights = oracles.resized(weights, (a, b), align_corners=True)
    for i, k in np.ndindex(n, shots):
        best = np.full((h, w), -np.inf)
        for y, x, v, u in np.ndindex(h, w, a, b):
            cosine = _naive_cosine_of(support[i, k, :, v, u] * weights[i, k, v, u], query[i, :, y, x])
            best[y, x] = max(best[y, x], cosine)
        result[i, 0] += _stretch(best) / shots
    return result


@few
@given(st.data(), st.integers(1, 4), st.integers(1, 4))
def test_foreground_is_what_equals_one_resized_with_corners_aligned(data, h, w):
    mask = _masks(data.draw, 2, 2, data.draw(st.integers(1, 6)), data.draw(st.integers(1, 6)))
    plain = foreground(torch.as_tensor(mask))
    expected = np.array([float(value == 1) for value in mask.flat]).reshape(mask.shape)
    assert plain.dtype == torch.float32
    np.testing.assert_array_equal(plain, expected)
    resized = foreground(torch.as_tensor(mask).long(), (h, w))
    np.testing.assert_allclose(resized, oracles.resized(expected, (h, w), align_corners=True), rtol=0, atol=1e-6)


@few
@given(cases())
def test_weighted_average_pool_equals_loops(case):
    features, masks, _ = case
    weights = masks[:, :1]
    pooled = weighted_average_pool(torch.as_tensor(features), torch.as_tensor(weights))
    n, d, h, w = features.shape
    assert pooled.shape == (n, d)
    for i, c in np.ndindex(n, d):
        area = sum(weights[i, 0, y, x] for y in range(h) for x in range(w))
        total = sum(features[i, c, y, x] * weights[i, 0, y, x] for y in range(h) for x in range(w))
        np.testing.assert_allclose(pooled[i, c], total / (area + AREA_EPS), rtol=0, atol=1e-12)
        assert area or pooled[i, c] == 0


@few
@given(cases())
def test_scaled_cosine_map_equals_loops(case):
    features, _, prototypes = case
    maps = scaled_cosine_map(torch.as_tensor(features), torch.as_tensor(prototypes[:, 0]))
    n, _, h, w = features.shape
    assert maps.shape == (n, 1, h, w)
    for i in range(n):
        cosines = np.zeros((h, w))
        for y, x in np.ndindex(h, w):
            cosines[y, x] = _naive_cosine_of(features[i, :, y, x], prototypes[i, 0])
        # rounding of the cosines is divided by the range, which the epsilon alone keeps from 0
        np.testing.assert_allclose(maps[i, 0], _stretch(cosines), rtol=0, atol=1e-8)


def test_gradients_of_the_few_shot_prototypes_are_those_of_finite_differences():
    features, prototype = _random(9, 2, 3, 2, 4).requires_grad_(), _random(10, 2, 3).requires_grad_()
    mask = _random(11, 2, 1, 2, 4).sigmoid().requires_grad_()
    assert torch.autograd.gradcheck(weighted_average_pool, (features, mask))
    assert torch.autograd.gradcheck(scaled_cosine_map, (features, prototype))


def test_an_empty_mask_gives_a_flat_map_and_no_bad_gradient():
    features = _random(12, 2, 4, 3, 3)
    features[0, :, 1, 1] = 0
    features.requires_grad_()
    prototype = weighted_average_pool(features, torch.zeros(2, 1, 3, 3))
    assert torch.equal(prototype, torch.zeros(2, 4, dtype=torch.float64))
    maps = scaled_cosine_map(features, prototype)
    assert torch.equal(maps, torch.zeros(2, 1, 3, 3, dtype=torch.float64))
    maps.sum().backward()
    assert features.grad.isfinite().all()


@settings(deadline=None, max_examples=40)
@given(episodes(), st.sampled_from([None, 1, 2, 3, 5, 50]))
def test_prior_mask_equals_loops(case, chunk):
    query, support, mask = case
    prior = prior_mask(*map(torch.as_tensor, (query, support, mask)), chunk=chunk)
    assert prior.shape == (len(query), 1, *query.shape[-2:])
    expected = _naive_prior(query, support, mask)
    # rounding of the cosines is divided by the range, which the epsilon alone keeps from 0
    np.testing.assert_allclose(prior, expected, rtol=0, atol=1e-7)
    assert (prior >= 0).all() and (prior <= 1).all()


@few
@given(episodes())
def test_every_chunk_size_gives_the_same_prior(case):
    """Whole numbers are summed exactly, so no rounding hides a difference."""
    query, support, mask = map(torch.as_tensor, case)
    soft = (support.sum(dim=2) > 0).double()
    for weights in (mask, soft):
        full = prior_mask(query, support, weights)
        for chunk in range(1, support.shape[-2] * support.shape[-1] + 2):
            difference = (prior_mask(query, support, weights, chunk) - full).abs().max()
            # a resized mask is no whole number; the products then round
            assert difference == 0 if weights is soft else difference <= 1e-7


def _episode(seed, shots=3, side=4):
    mask = (_random(seed, 2, shots, side, side) > 0).double()
    return _random(seed + 1, 2, 5, side, side), _random(seed + 2, 2, shots, 5, side, side), mask


def test_prior_ignores_the_order_of_shots_and_places_and_repeated_shots():
    query, support, mask = _episode(20)
    prior = prior_mask(query, support, mask)
    order = [2, 0, 1]
    torch.testing.assert_close(prior_mask(query, support[:, order], mask[:, order]), prior, rtol=0, atol=1e-12)
    places = torch.randperm(16, generator=torch.Generator().manual_seed(0))
    moved = [t.flatten(-2)[..., places].unflatten(-1, (4, 4)) for t in (support, mask)]
    torch.testing.assert_close(prior_mask(query, *moved), prior, rtol=0, atol=1e-12)
    one = prior_mask(query, support[:, :1], mask[:, :1])
    repeated = prior_mask(query, support[:, :1].expand(-1, 4, -1, -1, -1), mask[:, :1].expand(-1, 4, -1, -1))
    torch.testing.assert_close(repeated, one, rtol=0, atol=1e-12)
    assert (prior - one).abs().max() > 1e-2


def test_support_places_outside_the_mask_count_as_similarity_zero():
    """All of the foreground points away from the query: the masked place is nearer."""
    query = torch.tensor([[1.0, 2.0, 0.0]]).reshape(1, 1, 1, 3)
    support, mask = -torch.ones(1, 1, 1, 1, 2), torch.tensor([[[[1.0, 0.0]]]])
    assert torch.equal(prior_mask(query, support, mask), torch.zeros(1, 1, 1, 3))
    # without a place outside, the zero feature of the query is the nearest
    outside = prior_mask(query, support, torch.ones(1, 1, 1, 2))
    torch.testing.assert_close(outside, torch.tensor([0.0, 0.0, 1.0]).reshape(1, 1, 1, 3), rtol=0, atol=1e-5)


@pytest.mark.parametrize("chunk", [None, 3])
def test_places_under_one_mask_of_the_batch_do_not_change_the_other_image(chunk):
    """Only columns that some mask keeps are multiplied; where another image's mask keeps more, they count as zeros."""
    query, support, mask = _episode(25)
    mask[0, :, 1:], mask[1, :, :2] = 0, 0
    together = prior_mask(query, support, mask, chunk)
    alone = torch.cat([prior_mask(query[i : i + 1], support[i : i + 1], mask[i : i + 1], chunk) for i in range(2)])
    torch.testing.assert_close(together, alone, rtol=0, atol=1e-12)
    np.testing.assert_allclose(together, _naive_prior(*(t.numpy() for t in (query, support, mask))), atol=1e-7)


def test_empty_and_ignored_masks_give_a_prior_of_zero():
    query, support, _ = _episode(30)
    for value in (0, 255):
        mask = torch.full((2, 3, 9, 9), value, dtype=torch.uint8)
        assert torch.equal(prior_mask(query, support, mask), torch.zeros(2, 1, 4, 4, dtype=torch.float64))


def test_prior_has_no_gradient_and_refuses_what_it_cannot_do():
    query, support, mask = _episode(40)
    assert not prior_mask(query.requires_grad_(), support.requires_grad_(), mask).requires_grad
    with pytest.raises(ValueError, match="chunk must be at least 1, got 0"):
        prior_mask(query, support, mask, chunk=0)
    with pytest.raises(ValueError, match="at least one shot"):
        prior_mask(query, support[:, :0], mask[:, :0])


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
def test_few_shot_maps_are_float32_whatever_autocast_says(dtype):
    query, support, mask = (t.to(dtype) for t in _episode(50))
    prototype = support[:, 0, :, 0, 0]

    def maps(cast):
        inputs = [t.to(cast) for t in (query, support, mask, prototype)]
        yield prior_mask(*inputs[:3])
        yield weighted_average_pool(inputs[0], inputs[2][:, :1])
        yield scaled_cosine_map(inputs[0], inputs[3])

    expected = list(maps(torch.float32))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        actual = list(maps(dtype))
    for one, other in zip(actual, expected, strict=True):
        assert one.dtype == torch.float32
        assert torch.equal(one, other)


GOLDEN_BOUND = 1e-5
"""README of the golden vectors, for all of them but the scaled distances of masked_avg_pool."""


def _near(actual, expected, bound=GOLDEN_BOUND):
    assert actual.shape == expected.shape
    np.testing.assert_allclose(actual, expected, rtol=0, atol=bound)


def _golden(name):
    return {key: torch.as_tensor(array) for key, array in load_golden(f"fewshot/{name}").items()}


@pytest.mark.golden
@pytest.mark.parametrize("chunk", [None, 1, 10, 1000])
@pytest.mark.parametrize("name", ["prior_mask_1shot", "kshot_5"])
def test_golden_prior(name, chunk):
    golden = _golden(name)
    _near(prior_mask(golden["q4"], golden["s4"], golden["s_mask"], chunk), golden["prior"])
    soft = foreground(golden["s_mask"], golden["s4"].shape[-2:])
    _near(prior_mask(golden["q4"], golden["s4"], soft, chunk), golden["prior"])


@pytest.mark.golden
def test_golden_prototypes():
    golden = _golden("weighted_gap")
    _near(weighted_average_pool(golden["feat"], golden["mask"]), golden["proto"])
    golden = _golden("kshot_5")
    weights = foreground(golden["s_mask"], golden["supp_feat"].shape[-2:])
    pooled = weighted_average_pool(golden["supp_feat"].flatten(0, 1), weights.flatten(0, 1)[:, None])
    _near(pooled.unflatten(0, weights.shape[:2]).mean(dim=1), golden["proto"])


@pytest.mark.golden
def test_golden_masked_average_pool():
    """PANet's: features are brought up to the mask, and both regions have a prototype."""
    golden = _golden("masked_avg_pool")
    mask = golden["mask"][:, None]
    features = torch.nn.functional.interpolate(golden["feat"], mask.shape[-2:], mode="bilinear", align_corners=False)
    prototypes = [weighted_average_pool(features, weights, eps=1e-5) for weights in (mask, 1 - mask)]
    _near(prototypes[0], golden["fg"])
    _near(prototypes[1], golden["bg"])
    distances = 20 * cosine_map(golden["query"], torch.stack(prototypes[::-1], dim=1))
    _near(distances, golden["dist_bg_fg"], 1e-4)


def _graph_unit(weights, x):
    """G of golden/fewshot/README.md, glore_norm, in float64."""
    w = {key.removeprefix("w_"): np.asarray(value, dtype=np.float64) for key, value in weights.items()}
    flat = np.asarray(x, dtype=np.float64).reshape(*x.shape[:2], -1)
    theta = w["conv_state__weight"][..., 0, 0] @ flat + w["conv_state__bias"][:, None]
    phi = w["conv_proj__weight"][..., 0, 0] @ flat + w["conv_proj__bias"][:, None]
    nodes = theta @ phi.transpose(0, 2, 1) / flat.shape[-1]
    nodes = nodes + nodes @ w["gcn__conv1__weight"][..., 0].T + w["gcn__conv1__bias"]
    nodes = w["gcn__conv2__weight"][..., 0] @ np.maximum(nodes, 0)
    back = w["conv_extend__weight"][..., 0, 0] @ nodes @ phi
    scale = w["blocker__weight"] / np.sqrt(w["blocker__running_var"] + 1e-4)
    shift = w["blocker__bias"] - w["blocker__running_mean"] * scale
    return torch.as_tensor((flat + back * scale[:, None] + shift[:, None]).reshape(x.shape))


@pytest.mark.golden
def test_golden_graph_map():
    golden, weights = _golden("graph_map_ours"), load_golden("fewshot/glore_norm")
    supports, shots = golden["fs"].flatten(0, 1), golden["fs"].shape[:2]
    pooled = weighted_average_pool(_graph_unit(weights, supports), golden["mask"].flatten(0, 1))
    _near(pooled.unflatten(0, shots), golden["proto_k"])
    prototype = pooled.unflatten(0, shots).mean(dim=1)
    _near(prototype, golden["proto"])
    _near(scaled_cosine_map(_graph_unit(weights, golden["fq"]), prototype)[:, 0], golden["map"])
