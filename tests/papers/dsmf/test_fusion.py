"""Both fusions against NumPy forms that join maps before they convolve them; sizes, switches, precision."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from frugalseg.papers.dsmf.fusion import Blend, EnrichmentFusion, PyramidFusion, merged_sizes, pyramid_sizes
from frugalseg.papers.dsmf.graph import GraphUnit
from frugalseg.papers.dsmf.heads import Head
from tests.papers.dsmf import oracles

few = settings(deadline=None, max_examples=40)
fusions = pytest.mark.parametrize("fusion", [PyramidFusion, EnrichmentFusion])


def count(*modules):
    return sum(p.numel() for module in modules for p in module.parameters())


def inputs(seed, dim, evidence, size, images=2, dtype=torch.float64):
    draw = torch.Generator().manual_seed(seed)
    query = torch.rand(images, dim, *size, dtype=dtype, generator=draw)
    prototype = torch.rand(images, dim, dtype=dtype, generator=draw)
    return query, prototype, torch.rand(images, evidence, *size, dtype=dtype, generator=draw)


def built(fusion, seed=0, **options):
    torch.manual_seed(seed)
    return fusion(**options).double()


def compare(module, oracle, tensors, *options):
    weights = {name: value.numpy() for name, value in module.state_dict().items()}
    expected, expected_auxiliary = oracle(*(t.numpy() for t in tensors), weights, *options)
    with torch.no_grad():
        fused, auxiliary = module(*tensors)
    np.testing.assert_allclose(fused, expected, rtol=0, atol=1e-12)
    assert len(auxiliary) == len(expected_auxiliary) == module.auxiliary
    for got, wanted in zip(auxiliary, expected_auxiliary, strict=True):
        np.testing.assert_allclose(got, wanted, rtol=0, atol=1e-12)


# ---------------------------------------------------------------------- the arithmetic


@few
@given(
    st.integers(0, 2**31),
    st.integers(2, 6),
    st.integers(0, 3),
    st.tuples(st.integers(1, 9), st.integers(1, 9)),
    st.integers(1, 4),
    st.booleans(),
)
def test_sff_equals_the_joined_form(seed, dim, evidence, size, levels, merge):
    module = built(PyramidFusion, seed, dim=dim, evidence=evidence, levels=levels, merge=merge)
    compare(module, oracles.pyramid_fusion, inputs(seed, dim, evidence, size), levels, merge)


@few
@given(
    st.integers(0, 2**31),
    st.integers(2, 6),
    st.integers(0, 3),
    st.tuples(st.integers(1, 9), st.integers(1, 9)),
    st.integers(1, 4),
)
def test_fem_equals_the_joined_form(seed, dim, evidence, size, levels):
    module = built(EnrichmentFusion, seed, dim=dim, evidence=evidence, levels=levels)
    compare(module, oracles.enrichment_fusion, inputs(seed, dim, evidence, size), levels)


def test_fem_hands_levels_down_by_way_of_the_full_grid():
    """From 10 to 5 cells by way of 20 is another interpolation than from 10 to 5; on small grids the two agree."""
    module, tensors = built(EnrichmentFusion, dim=6, evidence=1, levels=3), inputs(5, 6, 1, (20, 23))
    compare(module, oracles.enrichment_fusion, tensors, 3)


@pytest.mark.parametrize("grids", [[(3, 4), (7, 5), (1, 1)], [(7, 5), (3, 4), (1, 1)], [(5, 5)], [(1, 1)]])
def test_gradients_of_a_blend_are_those_of_the_joined_form(grids):
    torch.manual_seed(0)
    blend, size = Blend([3] * len(grids), 4).double(), (5, 5)
    maps = [torch.randn(2, 3, *grid, dtype=torch.float64, requires_grad=True) for grid in grids]
    leaves = [*maps, blend.convolution.weight]
    brought = [nn.functional.interpolate(m, size, mode="bilinear", align_corners=True) for m in maps]
    joined = blend.convolution(torch.cat(brought, dim=1)).relu()
    goal = torch.randn_like(joined)
    torch.testing.assert_close(blend(maps, size), joined, rtol=0, atol=1e-12)
    ours = torch.autograd.grad((blend(maps, size) * goal).sum(), leaves)
    for mine, expected in zip(ours, torch.autograd.grad((joined * goal).sum(), leaves), strict=True):
        torch.testing.assert_close(mine, expected, rtol=0, atol=1e-11)


def test_a_blend_refuses_another_number_of_maps():
    with pytest.raises(ValueError, match="zip"):
        Blend([2, 2], 2)([torch.zeros(1, 2, 3, 3)], (3, 3))


# ---------------------------------------------------------------------- sizes


@pytest.mark.parametrize(
    ("side", "levels", "merged"),
    [
        (32, [32, 16, 8, 4], [24, 12, 6]),
        (33, [33, 16, 8, 4], [24, 12, 6]),
        (60, [60, 30, 15, 7], [45, 22, 11]),
        (12, [12, 6, 3, 1], [9, 4, 2]),
        (3, [3, 1, 1, 1], [2, 1, 1]),
        (1, [1, 1, 1, 1], [1, 1, 1]),
    ],
)
def test_grids(side, levels, merged):
    """The first three are the table of dsmf.md section 3."""
    sizes = pyramid_sizes((side, 2 * side), 4)
    assert [h for h, _ in sizes] == levels
    assert [w for _, w in sizes] == [max(2 * side // 2**i, 1) for i in range(4)]
    assert merged_sizes([(s, s) for s in levels]) == [(s, s) for s in merged]


@fusions
@pytest.mark.parametrize("size", [(33, 33), (32, 32), (60, 60), (12, 12), (3, 3), (1, 1), (33, 20), (3, 12)])
def test_any_grid_works_forwards_and_backwards(fusion, size):
    torch.manual_seed(0)
    module = fusion(dim=4, evidence=4)
    tensors = [t.requires_grad_() for t in inputs(0, 4, 4, size, dtype=torch.float32)]
    fused, auxiliary = module(*tensors)
    assert fused.shape == (2, 4, *size)
    wanted = pyramid_sizes(size, 4)
    wanted = merged_sizes(wanted) if fusion is PyramidFusion else wanted
    assert [tuple(a.shape) for a in auxiliary] == [(2, 4, *s) for s in wanted]
    (fused.mean() + sum(a.mean() for a in auxiliary)).backward()
    for tensor in (*tensors, *module.parameters()):
        assert tensor.grad is not None
        assert tensor.grad.isfinite().all()


# ---------------------------------------------------------------------- switches


@fusions
def test_every_input_matters(fusion):
    module, tensors = built(fusion, dim=6, evidence=3), inputs(1, 6, 3, (8, 8))
    with torch.no_grad():
        before = module(*tensors)[0]
        for index in range(3):
            changed = [t + 1 if i == index else t for i, t in enumerate(tensors)]
            assert not torch.allclose(module(*changed)[0], before), index


@pytest.mark.parametrize(
    ("options", "auxiliary", "condensed"),
    [
        ({}, [(24, 24), (12, 12), (6, 6)], 7),
        ({"merge": False}, [(32, 32), (16, 16), (8, 8), (4, 4)], 4),
        ({"levels": 3}, [(24, 24), (12, 12)], 5),
        ({"levels": 2, "merge": False}, [(32, 32), (16, 16)], 2),
        ({"levels": 1}, [(32, 32)], 1),
    ],
)
def test_switches_of_sff(options, auxiliary, condensed):
    module = built(PyramidFusion, dim=4, **options)
    _, maps = module(*inputs(2, 4, 4, (32, 32)))
    assert [tuple(m.shape[-2:]) for m in maps] == auxiliary
    assert module.auxiliary == len(auxiliary)
    assert module.condense.convolution.weight.shape == (4, condensed * 4, 1, 1)


@fusions
def test_evidence_can_be_switched_off(fusion):
    """Without graph maps one map is left, without the prior map too none."""
    for evidence in (0, 1, 3, 4):
        module = built(fusion, dim=4, evidence=evidence)
        assert module.levels[0].convolution.weight.shape[1] == 8 + evidence
        assert module(*inputs(3, 4, evidence, (5, 5)))[0].isfinite().all()


@fusions
def test_no_level_is_refused(fusion):
    with pytest.raises(ValueError, match="sff_levels must be 1 or more, got 0"):
        fusion(levels=0)


# ---------------------------------------------------------------------- parameters


def test_parameters_of_the_default():
    """dsmf.md 4.9; the reducers of stages 1 to 3 and of the query have no bias (4.1)."""
    reducers = [nn.Conv2d(channels, 256, 1, bias=False) for channels in (256, 512, 1024, 512 + 1024)]
    fusion, units = PyramidFusion(), [GraphUnit() for _ in range(3)]
    auxiliary = [Head() for _ in range(fusion.auxiliary)]
    assert count(*auxiliary) == 1_771_014
    assert count(*reducers, *units, fusion, Head(), *auxiliary) == 6_082_824


def test_parameters_of_pfenet():
    """dsmf.md 4.9: two reducers, FEM, a head, and one more on each level."""
    fusion = EnrichmentFusion()
    reducers = [nn.Conv2d(512 + 1024, 256, 1, bias=False) for _ in range(2)]
    assert count(*reducers, fusion, *(Head() for _ in range(1 + fusion.auxiliary))) == 10_817_034


# ---------------------------------------------------------------------- precision and heads


@fusions
def test_autocast(fusion):
    torch.manual_seed(0)
    module = fusion(dim=16, evidence=4)
    tensors = inputs(4, 16, 4, (9, 7), dtype=torch.float32)
    with torch.no_grad():
        full, _ = module(*tensors)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            half, auxiliary = module(*tensors)
            logits = Head(16)(half, (31, 29))
    assert {half.dtype, *(a.dtype for a in auxiliary)} == {torch.bfloat16}
    assert logits.dtype == torch.float32
    torch.testing.assert_close(half.float(), full, rtol=0, atol=0.02 * full.abs().max().item())


def test_head_is_convolved_then_resized():
    torch.manual_seed(0)
    head, x = Head(3, classes=2).double().eval(), torch.rand(2, 3, 5, 4, dtype=torch.float64)
    weights = {name: value.numpy() for name, value in head.state_dict().items()}
    padded = np.pad(x.numpy(), ((0, 0), (0, 0), (1, 1), (1, 1)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), axis=(2, 3))
    hidden = np.maximum(np.einsum("ocij,nchwij->nohw", weights["layers.0.weight"], windows), 0)
    logits = np.einsum("oc,nchw->nohw", weights["layers.3.weight"][:, :, 0, 0], hidden)
    logits += weights["layers.3.bias"][:, None, None]
    with torch.no_grad():
        np.testing.assert_allclose(head(x), logits, rtol=0, atol=1e-12)
        np.testing.assert_allclose(head(x, (9, 11)), oracles.resize(logits, (9, 11)), rtol=0, atol=1e-12)


def test_head_drops_whole_channels_in_training_only():
    torch.manual_seed(0)
    head, x = Head(8, dropout=0.5), torch.rand(1, 8, 6, 6)
    assert torch.equal(head.eval()(x), head(x))
    seen = []
    head.layers[2].register_forward_hook(lambda _m, _i, out: seen.append(out))
    head.train()(x)
    zero = (seen[0] == 0).flatten(2)
    untouched = (head.layers[1](head.layers[0](x)) == 0).flatten(2)
    dropped = zero.all(dim=2) & ~untouched.all(dim=2)
    assert dropped.any()
    assert torch.equal(zero[~dropped], untouched[~dropped])
