"""The pair loss against its definition and the reference's vectors."""

import numpy as np
import pytest
import torch

from frugalseg.stages.psa.losses import affinity_loss
from frugalseg.stages.psa.pairs import PairMasks, pair_masks
from tests.conftest import load_golden


def case(seed=0, size=(9, 12)):
    generator = torch.Generator().manual_seed(seed)
    label = torch.tensor([0, 0, 1, 2, 255])[torch.randint(5, (2, *size), generator=generator)]
    pairs = pair_masks(label, 5, border=True)
    return torch.rand(pairs.different.shape, dtype=torch.float64, generator=generator), pairs


def by_hand(affinity, pairs):
    means = []
    for mask, alike in zip(pairs, (True, True, False), strict=True):
        values = affinity[mask].numpy()
        entropy = -np.log(values + 1e-5) if alike else -np.log(1 - values + 1e-5)
        means.append(entropy.sum() / (len(values) + 1e-5))
    return [*means, means[0] / 4 + means[1] / 4 + means[2] / 2]


def test_terms_and_total():
    affinity, pairs = case()
    assert all(mask.any() for mask in pairs)
    terms = affinity_loss(affinity, pairs)
    # the number of pairs is float32 in the task; here it holds small whole numbers exactly
    np.testing.assert_allclose([float(t) for t in terms], by_hand(affinity, pairs), rtol=1e-12)


@pytest.mark.golden
def test_terms_and_gradient_are_the_references():
    golden = load_golden("cti/psa_labels_loss")
    pairs = PairMasks(*(torch.as_tensor(golden[name].astype(bool))[None] for name in ("bg_pos", "fg_pos", "neg")))
    affinity = torch.tensor(golden["aff"], requires_grad=True)
    terms = affinity_loss(affinity, pairs)
    terms.total.backward()
    for value, name in zip(terms, ("bg_loss", "fg_loss", "neg_loss", "loss"), strict=True):
        np.testing.assert_allclose(value.item(), golden[name], rtol=0, atol=1e-12)
    np.testing.assert_allclose(affinity.grad.numpy(), golden["grad_aff"], rtol=0, atol=1e-12)


@pytest.mark.golden
def test_float32_keeps_to_the_references_tolerance():
    golden = load_golden("cti/psa_labels_loss")
    pairs = PairMasks(*(torch.as_tensor(golden[name].astype(bool))[None] for name in ("bg_pos", "fg_pos", "neg")))
    affinity = torch.tensor(golden["aff"], dtype=torch.float32, requires_grad=True)
    terms = affinity_loss(affinity, pairs)
    terms.total.backward()
    np.testing.assert_allclose(terms.total.item(), golden["loss"], rtol=0, atol=1e-5)
    np.testing.assert_allclose(affinity.grad.numpy(), golden["grad_aff"], rtol=0, atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_widened(dtype):
    affinity, pairs = case()
    half = affinity.to(dtype)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        terms = affinity_loss(half, pairs)
    assert {t.dtype for t in terms} == {torch.float32}
    assert float(terms.total) == pytest.approx(by_hand(half.double(), pairs)[-1], rel=1e-5)


def test_kinds_without_pairs_give_zero():
    affinity, pairs = case()
    nothing = PairMasks(*(torch.zeros_like(mask) for mask in pairs))
    leaf = affinity.requires_grad_()
    terms = affinity_loss(leaf, nothing)
    terms.total.backward()
    assert [t.item() for t in terms] == [0, 0, 0, 0]
    assert not leaf.grad.any()


def test_extreme_affinities_stay_finite():
    _, pairs = case()
    for value in (0.0, 1.0):
        leaf = torch.full(pairs.different.shape, value, requires_grad=True)
        affinity_loss(leaf, pairs).total.backward()
        assert torch.isfinite(leaf.grad).all() and leaf.grad.any()


def test_two_ranks_that_share_counts_give_the_gradient_of_one_process():
    """DDP averages gradients; with the mean count on each rank that is the gradient over the whole batch."""
    affinity, pairs = case(size=(11, 13))
    counts = torch.stack([PairMasks(*(m[i : i + 1] for m in pairs)).counts() for i in (0, 1)])
    assert not torch.equal(counts[0], counts[1])
    whole = affinity.clone().requires_grad_()
    affinity_loss(whole, pairs).total.backward()
    halves = []
    for i in (0, 1):
        part = affinity[i : i + 1].clone().requires_grad_()
        affinity_loss(part, PairMasks(*(m[i : i + 1] for m in pairs)), counts.mean(dim=0)).total.backward()
        halves.append(part.grad / 2)
    # 1e-5 in the denominators is once in one process and twice in two
    torch.testing.assert_close(torch.cat(halves), whole.grad, rtol=1e-6, atol=0)
