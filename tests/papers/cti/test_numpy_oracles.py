"""The plain torch forms of `naive` against loops over NumPy scalars, and those loops against the golden vectors."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from tests.papers.cti import naive
from tests.papers.cti import numpy_oracles as oracles

few = settings(deadline=None, max_examples=30)
seeds = st.integers(0, 2**32 - 1)
# halves hit ties, zeros and constant maps often; the tiny values are of the size of eps
VALUES = st.one_of(st.integers(-4, 8).map(lambda v: v / 2), st.floats(-1e-4, 1e-4))


def close(actual, expected, atol=1e-12):
    np.testing.assert_allclose(np.asarray(actual), np.asarray(expected), rtol=0, atol=atol)


@few
@given(hnp.arrays(np.float64, hnp.array_shapes(min_dims=4, max_dims=4, max_side=4), elements=VALUES))
def test_max_norm(maps):
    close(naive.max_norm(torch.as_tensor(maps)), oracles.max_norm(maps))


@pytest.mark.golden
def test_the_loop_of_max_norm_is_the_reference(golden):
    g = golden("cti/max_norm")
    close(oracles.max_norm(g["x"]), g["y"])


def _random_pass(seed, batch, k, grid, depth, infusion, last):
    """Maps and attentions of a network that was never run: the read-out of random tokens and random attentions."""
    rng = np.random.default_rng(seed)
    dim, patches = 4, grid[0] * grid[1]
    net = naive.NaiveCTI(k, dim, heads=1, depth=1, grid=2, infusion=infusion, last=last).double()
    attn = torch.from_numpy(rng.random((depth, batch, k + patches, k + patches)))
    tokens = [torch.from_numpy(rng.standard_normal((batch, k, dim)))]
    with torch.no_grad():
        return net.read_out(torch.from_numpy(rng.standard_normal((batch, patches, dim))), grid, tokens, attn)


@settings(deadline=None, max_examples=15)
@given(seeds, st.integers(1, 2), st.integers(2, 4), st.tuples(st.integers(1, 3), st.integers(1, 4)))
def test_map_fusion(seed, batch, k, grid):
    depth, infusion, last = 5, 1, 2
    got = _random_pass(seed, batch, k, grid, depth, infusion, last)
    attn, r = got.attn_headmean.numpy(), got.r.numpy()
    final, after = range(depth - last, depth), range(infusion + 1, depth)
    close(got.r * got.mt_last, oracles.fused_maps(r, attn, final))
    close(got.r * got.mt_after, oracles.fused_maps(r, attn, after))
    refined = naive.refine(got.pa, got.r * got.mt_last)
    close(refined, oracles.refined_maps(oracles.fused_maps(r, attn, final), attn, after), atol=1e-10)


@pytest.mark.golden
def test_the_loop_of_map_fusion_is_the_reference(golden):
    g = golden("cti/fusion_unit")
    r, attn = g["train_cams"][:1], g["attn_headmean"][:, :1]
    fused = oracles.fused_maps(r, attn, range(6, 12))
    close(fused, g["train_fcams"][:1], 1e-11)
    close(oracles.refined_maps(fused, attn, range(4, 12)), g["train_rcams"][:1], 1e-11)


@few
@given(seeds, st.integers(1, 3), st.integers(1, 4), st.integers(1, 6), st.floats(0, 1))
def test_memory(seed, batch, classes, size, frequency):
    rng = np.random.default_rng(seed)
    mine, loops = naive.NaiveMemory(classes, size), oracles.Memory(classes, size)
    for _ in range(8):
        tokens = rng.standard_normal((batch, classes + 1, 5))
        tags = (rng.random((batch, classes)) < frequency).astype(np.float64)
        mine.add(torch.from_numpy(tokens), torch.from_numpy(tags))
        close(mine.infused(torch.from_numpy(tokens), torch.from_numpy(tags)), loops.step(tokens, tags))
        assert [len(entries) for entries in mine.lists] == [len(entries) for entries in loops.lists]
        assert mine.full == loops.full()
        for c in range(classes):
            close(mine.prototype(c, torch.zeros(5, dtype=torch.float64)), loops.prototype(c, 5))


@pytest.mark.golden
def test_the_loop_of_the_memory_is_the_reference(golden):
    g = golden("cti/memory_bank")
    memory = oracles.Memory(g["labels"].shape[2])
    for step, (tokens, tags) in enumerate(zip(g["tokens"].astype(np.float64), g["labels"], strict=True)):
        close(memory.step(tokens, tags), g["infused"][step], 1e-10)
        assert memory.full() == g["cross_in_total"][step]


@few
@given(seeds, *[st.tuples(st.integers(1, 5), st.integers(1, 5))] * 2)
def test_resize_positions(seed, source, target):
    table = np.random.default_rng(seed).standard_normal((source[0] * source[1], 2))
    resized = naive.resize_positions(torch.from_numpy(table)[None], source, target)[0]
    close(resized, oracles.resized_positions(table, source, target))


@pytest.mark.golden
@pytest.mark.parametrize("grid", [(14, 14), (7, 9), (23, 31)])
def test_the_loop_of_the_resize_is_the_reference(golden, grid):
    g = golden("cti/pos_interp")
    resized = oracles.resized_positions(g["pos_embed_pat"][0], (14, 14), grid)
    close(resized, g[f"grid_{grid[0]}x{grid[1]}"][0], 1e-10)
