"""Seed labels against loops over pixels and the reference's vectors."""

from functools import partial

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from frugalseg.ops.crf import Kernels, dense_crf, pairwise
from frugalseg.ops.seeds import (
    alpha_unary,
    best_rows,
    constant_background,
    crf_labels,
    ids_of_rows,
    psa_seed_labels,
    sfc_seed_labels,
    threshold_seed_labels,
)

few = settings(deadline=None, max_examples=40)
# quarters hit ties, zeros and thresholds often
QUARTERS = st.integers(0, 8).map(lambda v: v / 4)
TENTHS = st.integers(0, 10).map(lambda v: v / 10)


def same(rows):
    return rows


def roll(rows):
    """A stand-in for a CRF that is not the identity."""
    return rows.roll(1, dims=-1)


@st.composite
def maps_and_keys(draw, elements=QUARTERS, foreground=False):
    """Scores (k, H, W) of k present classes - the k - 1 of the foreground alone where wanted - and their ids."""
    height, width, k = draw(st.integers(1, 4)), draw(st.integers(1, 4)), draw(st.integers(1, 4))
    maps = draw(hnp.arrays(np.float64, (k - foreground, height, width), elements=elements))
    others = draw(st.lists(st.integers(1, 254), min_size=k - 1, max_size=k - 1, unique=True))
    return torch.as_tensor(maps), torch.tensor([0, *sorted(others)])


def first_best(values):
    return max(range(len(values)), key=lambda row: (values[row], -row))


def merged(strict, lenient, keys):
    if strict:
        return int(keys[strict])
    return 255 if lenient else 0


# ---------------------------------------------------------------------- SFC


@few
@given(maps_and_keys())
def test_sfc_rule_pixel_by_pixel(case):
    scores, keys = case
    labels = sfc_seed_labels(scores, keys, same)
    assert labels.dtype == torch.int64
    for y, x in np.ndindex(*scores.shape[1:]):
        column = scores[:, y, x].tolist()
        halved = [column[0] * 0.5, *column[1:]]
        assert int(labels[y, x]) == merged(first_best(column), first_best(halved), keys)


def test_the_callers_scores_stay():
    scores = torch.rand(3, 4, 5)
    before = scores.clone()
    sfc_seed_labels(scores, torch.tensor([0, 3, 15]), same)
    assert torch.equal(scores, before)


def test_refine_is_called_with_the_sure_rows_first():
    scores = torch.tensor([[[0.9, 0.9, 0.9]], [[0.2, 0.5, 1.0]]])
    seen = []
    sfc_seed_labels(scores, torch.tensor([0, 4]), lambda rows: seen.append(rows.tolist()) or rows)
    assert seen == [[[[0, 0, 1]], [[0, 1, 1]]]]


def test_refined_rows_are_what_is_merged():
    scores = torch.tensor([[[0.9, 0.9, 0.9]], [[0.2, 0.5, 1.0]]])
    assert sfc_seed_labels(scores, torch.tensor([0, 4]), same).tolist() == [[0, 255, 4]]
    assert sfc_seed_labels(scores, torch.tensor([0, 4]), roll).tolist() == [[4, 0, 255]]


@pytest.fixture
def golden_ir(golden):
    arrays = {name: torch.as_tensor(array) for name, array in golden("sfc/ir_label").items()}
    return {**arrays, "scores": arrays["cam_w"] + 0.7 * arrays["cam_p"]}


@pytest.mark.golden
def test_golden_seed_labels_without_crf(golden_ir):
    scores, keys = golden_ir["scores"], golden_ir["keys"]
    seen = []
    labels = sfc_seed_labels(scores, keys, lambda rows: seen.extend(rows) or rows)
    assert torch.equal(labels.byte(), golden_ir["label_no_crf"])
    for rows, name in zip(seen, ("fg_argmax", "bg_argmax"), strict=True):
        assert torch.equal(rows.byte(), golden_ir[name])


@pytest.mark.golden
def test_golden_seed_labels_with_our_crf(golden_ir):
    """99 % of pixels: the reference's are of another implementation of the same model."""
    image, keys = golden_ir["img"], golden_ir["keys"]
    crf = partial(crf_labels, image=image, num_labels=len(keys), pairwise=pairwise(image))
    labels = sfc_seed_labels(golden_ir["scores"], keys, crf)
    agreement = (labels == golden_ir["label_crf"]).double().mean()
    assert agreement >= 0.99
    # the bare rule is further away: it is the CRF that this measures
    assert (golden_ir["label_no_crf"] == golden_ir["label_crf"]).double().mean() < agreement
    for name in ("fg", "bg"):
        rows = crf(golden_ir[f"{name}_argmax"].long())
        assert (rows == golden_ir[f"{name}_crf"]).double().mean() >= 0.99, name


# ---------------------------------------------------------------------- thresholds


@few
@given(maps_and_keys(TENTHS, foreground=True), TENTHS, TENTHS)
def test_threshold_rule_pixel_by_pixel(case, high, low):
    maps, keys = case
    labels = threshold_seed_labels(maps, keys, same, high, low)
    assert labels.shape == maps.shape[1:]
    for y, x in np.ndindex(*labels.shape):
        column = maps[:, y, x].tolist()
        rows = [first_best([threshold, *column]) for threshold in (high, low)]
        assert int(labels[y, x]) == merged(*rows, keys)


def test_thresholds_are_those_of_the_release():
    maps, keys = torch.tensor([[[0.41, 0.39, 0.27, 0.25]]]), torch.tensor([0, 9])
    assert threshold_seed_labels(maps, keys, same).tolist() == [[9, 255, 255, 0]]
    assert threshold_seed_labels(maps, keys, same, 0.30, 0.05).tolist() == [[9, 9, 255, 255]]
    assert threshold_seed_labels(maps, keys, roll).tolist() == [[0, 9, 255, 255]]


def test_the_background_wins_ties_with_its_threshold():
    maps = torch.tensor([[[0.5]]], dtype=torch.float64)
    assert int(threshold_seed_labels(maps, torch.tensor([0, 1]), same, 0.5, 0.5)) == 0


# ---------------------------------------------------------------------- probabilities and PSA


@few
@given(maps_and_keys(TENTHS, foreground=True), st.sampled_from([1, 4, 12, 24]))
def test_alpha_unary(case, alpha):
    maps, _ = case
    scores = alpha_unary(maps, alpha)
    assert scores.shape == (len(maps) + 1, *maps.shape[1:])
    assert torch.equal(scores[1:], maps)
    for y, x in np.ndindex(*maps.shape[1:]):
        largest = max((float(m[y, x]) for m in maps), default=0.0)
        assert float(scores[0, y, x]) == pytest.approx((1 - largest) ** alpha, abs=1e-15)


@pytest.mark.golden
def test_golden_alpha_unary(golden):
    arrays = golden("cti/crf_unary")
    maps = torch.as_tensor(np.stack([arrays[name] for name in arrays if name.startswith("cam")]))
    alphas = [name for name in arrays if name.startswith("unary_prob_alpha")]
    assert len(alphas) >= 2
    for name in alphas:
        scores = alpha_unary(maps, float(name.removeprefix("unary_prob_alpha")))
        np.testing.assert_allclose(scores, arrays[name], rtol=0, atol=1e-12)


def test_alpha_unary_of_scores_beyond_one():
    """Float16 maps may reach 1.0005: an odd power must not make a probability of a negative number."""
    assert float(alpha_unary(torch.tensor([[[1.0005]]]), 3.0)[0]) == 0
    assert float(alpha_unary(torch.tensor([[[1.0005]]]), 2.5)[0]) == 0


@st.composite
def low_and_high(draw):
    low, keys = draw(maps_and_keys(st.sampled_from([0.0, 9e-6, 2e-5, 0.25, 0.5, 1.0])))
    return low, draw(hnp.arrays(np.float64, tuple(low.shape), elements=st.sampled_from([0.0, 9e-6, 2e-5, 0.5]))), keys


@few
@given(low_and_high())
def test_psa_rule_pixel_by_pixel(case):
    low, high, keys = case[0], torch.as_tensor(case[1]), case[2]
    labels = psa_seed_labels(low, high, keys)
    for y, x in np.ndindex(*labels.shape):
        one, other = low[:, y, x].tolist(), high[:, y, x].tolist()
        expected = int(keys[first_best(one)]) if first_best(one) else 255
        expected = 0 if first_best(other) == 0 else expected
        expected = 255 if max(one + other) < 1e-5 else expected
        assert int(labels[y, x]) == expected


@pytest.mark.golden
def test_golden_psa_labels(golden):
    arrays = golden("cti/psa_labels_loss")
    low, high = (torch.as_tensor(arrays[name]).movedim(-1, 0) for name in ("la_scores", "ha_scores"))
    labels = psa_seed_labels(low, high, torch.arange(len(low)))
    np.testing.assert_array_equal(labels, arrays["merged"])


# ---------------------------------------------------------------------- all rules


@pytest.mark.parametrize("refine", [same, roll])
def test_an_image_without_classes_is_background(refine):
    keys, size = torch.tensor([0]), (3, 4)
    nothing = torch.zeros(0, *size)
    background = torch.zeros(size, dtype=torch.int64)
    assert torch.equal(sfc_seed_labels(torch.rand(1, *size), keys, refine), background)
    assert torch.equal(threshold_seed_labels(nothing, keys, refine), background)
    scores = alpha_unary(nothing, 4)
    assert torch.equal(scores, torch.ones(1, *size))
    assert torch.equal(psa_seed_labels(scores, scores, keys), background)


def test_batches_are_their_images_side_by_side():
    generator = torch.Generator().manual_seed(0)
    scores = torch.rand(3, 4, 5, 6, generator=generator)
    keys = torch.tensor([[0, 1, 2, 3], [0, 7, 8, 9], [0, 2, 4, 250]])
    rules = {
        "sfc": lambda s, k: sfc_seed_labels(s, k, roll),
        "threshold": lambda s, k: threshold_seed_labels(s[..., 1:, :, :], k, roll, 0.6, 0.3),
        "psa": lambda s, k: psa_seed_labels(
            alpha_unary(s[..., 1:, :, :], 1), alpha_unary(s[..., 1:, :, :], 3).flip(-1), k
        ),
        "ids": lambda s, k: ids_of_rows(best_rows(s), k),
    }
    for name, rule in rules.items():
        whole = rule(scores, keys)
        assert len(whole.unique()) > 3, name
        assert torch.equal(whole, torch.stack([rule(s, k) for s, k in zip(scores, keys, strict=True)])), name


def test_constant_background():
    maps = torch.rand(2, 3, 4, 5)
    scores = constant_background(maps, 0.25)
    assert torch.equal(scores[:, 0], torch.full((2, 4, 5), 0.25))
    assert torch.equal(scores[:, 1:], maps)


# ---------------------------------------------------------------------- the CRF on labels


@pytest.fixture
def noisy():
    """Two halves of different colour, a tenth of the labels wrong."""
    rng = np.random.default_rng(0)
    truth = np.zeros((24, 32), np.int64)
    truth[:, 16:] = 1
    image = np.where(truth[..., None] > 0, 200, 60) + rng.integers(-4, 5, (24, 32, 3))
    rows = np.where(rng.random(truth.shape) < 0.1, 1 - truth, truth)
    return torch.as_tensor(image.astype(np.uint8)), torch.as_tensor(rows), torch.as_tensor(truth)


def test_crf_labels_are_the_best_rows_of_the_crf(noisy):
    image, rows, truth = noisy
    shared = pairwise(image)
    labels = crf_labels(rows, image, 3, pairwise=shared)
    assert torch.equal(labels, dense_crf(image, rows, iterations=12, gt_prob=0.7, num_labels=3).argmax(dim=0))
    assert torch.equal(labels, truth)
    assert not torch.equal(rows, truth)
    assert torch.equal(crf_labels(rows, image, 3, pairwise=shared), labels)  # what is shared stays as it is
    assert torch.equal(crf_labels(rows[None], image[None], 3)[0], labels)


def test_the_crf_of_labels_is_that_of_sfc():
    """Noise that has not settled after ten iterations: each setting changes some label."""
    rng = np.random.default_rng(0)
    image = torch.as_tensor((128 + 20 * rng.standard_normal((40, 50, 3))).clip(0, 255).astype(np.uint8))
    rows = torch.as_tensor(rng.integers(0, 3, (40, 50)))
    spelt = {"iterations": 12, "gt_prob": 0.7, "kernels": Kernels(3, 3, 50, 5, 10), "num_labels": 3}
    sfc = crf_labels(rows, image, 3)
    assert torch.equal(sfc, dense_crf(image, rows, **spelt).argmax(dim=0))
    for change in ({"iterations": 10}, {"gt_prob": 0.6}, {"kernels": Kernels(bilateral_srgb=13)}):
        changed = crf_labels(rows, image, 3, **change)
        assert torch.equal(changed, dense_crf(image, rows, **{**spelt, **change}).argmax(dim=0))
        assert not torch.equal(changed, sfc)


def test_a_single_label_needs_no_crf(noisy):
    image, rows, _ = noisy
    nothing = torch.zeros_like(rows)
    assert crf_labels(nothing, image, 1) is nothing
