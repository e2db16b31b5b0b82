"""Sinkhorn against loops over points and prototypes, on one rank and on several, and matching against all orders."""

import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from frugalseg.ops.assignment import hungarian_match, sinkhorn
from tests.ops.ranks import on_ranks

few = settings(deadline=None, max_examples=30)
seeds = st.integers(0, 2**32 - 1)


@pytest.mark.golden
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=["f64", "f32"])
def test_golden(golden, dtype):
    g = golden("ssl/sinkhorn")
    cases = [key.removeprefix("logits_") for key in g if key.startswith("logits_")]
    assert cases
    for case in cases:
        logits = torch.from_numpy(g[f"logits_{case}"]).to(dtype)
        eps, iterations = float(g[f"eps_{case}"]), int(g[f"iters_{case}"])
        found = sinkhorn(logits, eps, iterations)
        assert found.dtype == dtype
        np.testing.assert_allclose(found, g[f"q_ref_{case}"], rtol=0, atol=1e-6)
        if dtype == torch.float64:
            np.testing.assert_allclose(found, g[f"q64_{case}"], rtol=0, atol=1e-12)
        sharp = sinkhorn(20 * logits, eps, iterations)
        assert torch.isfinite(sharp).all()
        np.testing.assert_allclose(sharp.sum(dim=1), 1, rtol=1e-6)
        assert float((sharp - found).abs().max()) > 1e-3


def slow_sinkhorn(logits, eps, iterations):
    n, k = logits.shape
    q = [[math.exp(logits[i, j] / eps) for j in range(k)] for i in range(n)]
    total = sum(map(sum, q))
    q = [[value / total for value in row] for row in q]
    for _ in range(iterations):
        for j in range(k):
            column = sum(q[i][j] for i in range(n))
            for i in range(n):
                q[i][j] /= column * k
        for i in range(n):
            row = sum(q[i])
            q[i] = [value / (row * n) for value in q[i]]
    return np.array(q) * n


@few
@given(seeds, st.integers(1, 9), st.integers(1, 7), st.integers(1, 5), st.floats(0.05, 2))
def test_sinkhorn_equals_a_loop(seed, n, k, iterations, eps):
    logits = np.random.default_rng(seed).uniform(-1, 1, (n, k))
    found = sinkhorn(torch.from_numpy(logits), eps, iterations)
    np.testing.assert_allclose(found, slow_sinkhorn(logits, eps, iterations), rtol=1e-9, atol=1e-12)


def _split(logits, cuts):
    return [logits[a:b] for a, b in itertools.pairwise([0, *cuts, len(logits)])]


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=["f64", "f32"])
@pytest.mark.parametrize("cuts", [[20], [7], [10, 20, 30], [0, 0, 39], [40, 40, 40]], ids=str)
@pytest.mark.parametrize("scale", [1.0, 20.0])
def test_ranks_agree_with_one(cuts, scale, dtype):
    """Also ranks that hold few points, or none."""
    logits = torch.from_numpy(np.random.default_rng(0).uniform(-1, 1, (40, 17))).to(dtype) * scale
    logits[:3] += 2 * scale  # columns of very different size on different ranks
    alone = sinkhorn(logits, 0.02, 3)
    parts = on_ranks(len(cuts) + 1, lambda own, reduce: sinkhorn(own, 0.02, 3, reduce), _split(logits, cuts))
    assert [len(part) for part in parts] == [len(own) for own in _split(logits, cuts)]
    assert float((torch.cat(parts) - alone).abs().max()) <= 1e-6


def test_ranks_do_not_agree_where_nothing_is_summed():
    logits = torch.rand(40, 17, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    parts = torch.cat([sinkhorn(own, 0.05, 3) for own in _split(logits, [20])])
    assert float((parts - sinkhorn(logits, 0.05, 3)).abs().max()) > 1e-3


def test_ranks_agree_on_logits_that_no_single_offset_holds():
    """exp overflows on one rank and vanishes on the other, however their average is shifted."""
    logits = torch.rand(8, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    logits[:4] += 300.0
    logits[4:] -= 300.0
    parts = on_ranks(2, lambda own, reduce: sinkhorn(own, 0.1, 3, reduce), [logits[:4], logits[4:]])
    assert torch.isfinite(torch.cat(parts)).all()
    assert float((torch.cat(parts) - sinkhorn(logits, 0.1, 3)).abs().max()) <= 1e-9


def test_sinkhorn_balances_and_has_no_gradient():
    logits = torch.rand(30, 6, generator=torch.Generator().manual_seed(0)).requires_grad_()
    found = sinkhorn(logits, 0.2, 50)
    assert not found.requires_grad
    np.testing.assert_allclose(found.sum(dim=1), 1, rtol=1e-6)
    np.testing.assert_allclose(found.sum(dim=0), 30 / 6, rtol=1e-3)
    assert sinkhorn(logits.bfloat16(), 0.2, 1).dtype == torch.float32
    assert sinkhorn(logits[:0], 0.2, 3).shape == (0, 6)


@pytest.mark.parametrize(("eps", "iterations"), [(0.0, 3), (-1.0, 3), (0.1, 0)])
def test_sinkhorn_refuses(eps, iterations):
    with pytest.raises(ValueError, match="Sinkhorn"):
        sinkhorn(torch.zeros(2, 2), eps, iterations)


@few
@given(seeds, st.integers(1, 4), st.integers(1, 5), st.booleans())
def test_matching_is_the_best_of_all(seed, rows, columns, ties):
    rng = np.random.default_rng(seed)
    scores = rng.integers(0, 3, (rows, columns)).astype(float) if ties else rng.standard_normal((rows, columns))
    found_rows, found_columns = hungarian_match(torch.from_numpy(scores))
    size = min(rows, columns)
    best = max(
        sum(scores[r, c] for r, c in zip(chosen, order, strict=True))
        for chosen in itertools.combinations(range(rows), size)
        for order in itertools.permutations(range(columns), size)
    )
    assert len(set(found_columns)) == len(set(found_rows)) == size
    assert list(found_rows) == sorted(found_rows)
    np.testing.assert_allclose(scores[found_rows, found_columns].sum(), best, rtol=1e-12)


@pytest.mark.parametrize("scores", [np.zeros(3), np.array([[np.nan, 1.0]])])
def test_matching_refuses(scores):
    with pytest.raises(ValueError, match="matrix"):
        hungarian_match(scores)
