"""Affinities and walks against golden vectors and against dense matrices built pair by pair."""

import itertools
import warnings

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from frugalseg.ops.paths import path_cells, plan
from frugalseg.ops.random_walk import (
    affinity_from_edges,
    feature_affinity,
    inner_pairs,
    path_offsets,
    power_series,
    propagate,
    walk,
)

few = settings(deadline=None, max_examples=25)
sides = st.integers(1, 9)
UNIT = st.integers(0, 16).map(lambda v: v / 16)
maps = st.tuples(sides, sides).flatmap(lambda size: hnp.arrays(np.float64, size, elements=UNIT))
radii = st.integers(2, 5)


def close(actual, expected, atol):
    np.testing.assert_allclose(np.asarray(actual), expected, rtol=0, atol=atol)


# ---------------------------------------------------------------------- oracles


def pairs_within(radius):
    """Half of all offsets shorter than the radius."""
    span = range(1 - radius, radius)
    return {(y, x) for y in span for x in span if y * y + x * x < radius * radius and (y > 0 or (y == 0 and x > 0))}


def line_cells(dy, dx):
    """Cells of the bounding box closer than 1 to the line through (0, 0) and (dy, dx)."""
    end = np.array([dy, dx], dtype=float)
    found = set()
    for y in range(min(0, dy), max(0, dy) + 1):
        for x in range(min(0, dx), max(0, dx) + 1):
            foot = end * (np.dot([y, x], end) / np.dot(end, end))
            if np.hypot(y - foot[0], x - foot[1]) < 1 - 1e-9:
                found.add((y, x))
    return found


def dense_affinity(edge, radius):
    """(N, N), symmetric, ones on the diagonal, by a loop over pairs of cells."""
    height, width = edge.shape
    matrix = np.eye(height * width)
    for (dy, dx), y, x in itertools.product(pairs_within(radius), range(height), range(width)):
        if 0 <= y + dy < height and 0 <= x + dx < width:
            affinity = 1 - max(edge[y + v, x + u] for v, u in line_cells(dy, dx))
            i, j = y * width + x, (y + dy) * width + x + dx
            matrix[i, j] = matrix[j, i] = affinity
    return matrix


def dense(affinity):
    """(N, N) from (P, h, w)."""
    _, height, width = affinity.shape
    radius = next(r for r in range(2, 20) if len(path_offsets(r)) == len(affinity))
    matrix = np.eye(height * width)
    for p, (dy, dx) in enumerate(path_offsets(radius).tolist()):
        for y, x in itertools.product(range(height), range(width)):
            if 0 <= y + dy < height and 0 <= x + dx < width:
                i, j = y * width + x, (y + dy) * width + x + dx
                matrix[i, j] = matrix[j, i] = affinity[p, y, x]
    return matrix


def step_matrix(matrix, beta):
    powered = matrix**beta
    return powered / powered.sum(axis=0, keepdims=True)


def dense_walk(scores, matrix, beta, steps):
    return (scores.reshape(len(scores), -1) @ np.linalg.matrix_power(step_matrix(matrix, beta), steps)).reshape(
        scores.shape
    )


def every_cell(height, width):
    """Scores that are 1 in one cell each: their walks are the rows of the matrix."""
    return torch.eye(height * width, dtype=torch.float64).view(-1, height, width)


# ---------------------------------------------------------------------- golden vectors


@pytest.mark.golden
@pytest.mark.parametrize("radius", [5, 10])
def test_golden_paths(golden, radius):
    vector = golden("sfc/irn_random_walk")
    offsets = vector[f"r{radius}_dst_offsets"]
    assert path_offsets(radius).tolist() == offsets.tolist()
    lengths = [cells for paths, cells, _ in vector[f"r{radius}_group_sizes"].tolist() for _ in range(paths)]
    ends = np.cumsum(lengths)
    assert ends[-1] == len(vector[f"r{radius}_paths_flat"])
    for offset, end, length in zip(offsets.tolist(), ends, lengths, strict=True):
        cells = vector[f"r{radius}_paths_flat"][end - length : end].tolist()
        assert sorted(path_cells(tuple(offset))) == sorted(map(tuple, cells))


@pytest.mark.golden
@pytest.mark.parametrize(("dtype", "atol"), [(torch.float64, 1e-9), (torch.float32, 1e-4)])
def test_golden_irn_walk(golden, dtype, atol):
    vector = golden("sfc/irn_random_walk")
    scores, edge = torch.as_tensor(vector["cam"], dtype=dtype), torch.as_tensor(vector["edge"][0], dtype=dtype)
    result = propagate(scores, edge)
    assert result.dtype == dtype
    close(result, vector["rw"], atol)


@pytest.mark.golden
def test_golden_irn_affinity_and_matrices(golden):
    vector = golden("sfc/irn_random_walk")
    edge = torch.as_tensor(vector["edge"][0])
    # the reference pads with edges and takes pairs from the cells that the map had before
    padded = affinity_from_edges(F.pad(edge, (5, 5, 0, 5), value=1.0), 5).flatten(1)
    stored = 1e-7  # these are kept as float32
    close(padded[:, vector["r5_src"].astype(int)], vector["aff_sparse"], stored)
    height, width = edge.shape
    affinity = affinity_from_edges(edge, 5)
    close(dense(affinity.numpy()), vector["aff_dense"], stored)
    cells = every_cell(height, width)
    close(walk(cells, affinity, steps=1).flatten(1), vector["trans_step1"], stored)
    close(walk(cells, affinity, steps=256).flatten(1), vector["trans_final"], stored)


@pytest.mark.golden
@pytest.mark.parametrize(("dtype", "atol"), [(torch.float64, 1e-12), (torch.float32, 1e-5)])
def test_golden_cti_walk(golden, dtype, atol):
    vector = golden("cti/irn_propagate")
    result = propagate(torch.as_tensor(vector["x"], dtype=dtype), torch.as_tensor(vector["edge"], dtype=dtype))
    close(result, vector["out"].reshape(vector["x"].shape), atol)


def psa_features(vector, dtype):
    def layer(inputs, weight):
        return F.elu(F.conv2d(inputs, torch.as_tensor(vector[weight], dtype=dtype)))

    names = (("conv4", "w_f8_3"), ("conv5", "w_f8_4"), ("conv6", "w_f8_5"))
    return layer(torch.cat([layer(torch.as_tensor(vector[c], dtype=dtype), w) for c, w in names], dim=1), "w_f9")


@pytest.mark.golden
@pytest.mark.parametrize(("dtype", "atol"), [(torch.float64, 1e-12), (torch.float32, 1e-5)])
def test_golden_psa_affinity(golden, dtype, atol):
    vector = golden("cti/psa_affinity")
    affinity = feature_affinity(psa_features(vector, dtype))
    # its offsets are in the order of their listing
    order = sorted(range(34), key=lambda p: path_offsets(5)[p].tolist())
    sources = vector["ind_from"].astype(int)
    close(affinity[:, order].flatten(2)[:, :, sources], vector["aff_sparse"], atol)
    assert torch.equal(inner_pairs(affinity)[0, 0].flatten().nonzero()[:, 0], torch.as_tensor(sources))


@pytest.mark.golden
def test_golden_psa_walk(golden):
    vector = golden("cti/psa_affinity")
    affinity = inner_pairs(feature_affinity(psa_features(vector, torch.float64)))[0]
    height, width = affinity.shape[1:]
    close(walk(every_cell(height, width), affinity, 8, 64).flatten(1), vector["trans"], 1e-6)
    rows, columns = vector["pred"].shape
    scores = torch.zeros(vector["rw"].shape[1], rows, columns, dtype=torch.float64)
    scores[0] = 0.39
    for name in (name for name in vector if name.startswith("cam_class")):
        scores[int(name.removeprefix("cam_class")) + 1] = torch.as_tensor(vector[name])
    pooled = F.avg_pool2d(F.pad(scores, (0, 8 * width - columns, 0, 8 * height - rows)), 8)
    walked = walk(pooled, affinity, 8, 64)
    close(walked, vector["rw"][0], 1e-6)
    large = F.interpolate(walked[None], scale_factor=8, mode="bilinear")[0, :, :rows, :columns]
    best = large.topk(2, dim=0).values
    wrong = torch.as_tensor(vector["pred"]).long() != large.argmax(dim=0)
    assert not (wrong & (best[0] - best[1] > 1e-5)).any()


# ---------------------------------------------------------------------- paths


@pytest.mark.parametrize("radius", [2, 3, 4, 5, 7, 10, 12])
def test_paths_are_the_cells_close_to_the_line(radius):
    offsets = list(map(tuple, path_offsets(radius).tolist()))
    assert len(set(offsets)) == len(offsets)
    assert set(offsets) == pairs_within(radius)
    for offset in offsets:
        assert set(path_cells(offset)) == line_cells(*offset)


@pytest.mark.parametrize("radius", [2, 5, 10, 12])
def test_the_plan_covers_every_path_and_nothing_else(radius):
    sets = {-1: {(0, 0)}}
    for place, (offset, operands) in enumerate(zip(path_offsets(radius).tolist(), plan(radius), strict=True)):
        covered = {(y + dy, x + dx) for node, (dy, dx) in operands for y, x in sets[node]}
        sets[place] = set(path_cells(tuple(offset)))
        assert covered == sets[place]


def test_the_plan_takes_few_steps():
    """That is its use: 2,134 cells would be looked at one by one."""
    assert sum(map(len, plan(10))) < sum(len(path_cells(tuple(o))) for o in path_offsets(10).tolist()) / 6


@pytest.mark.parametrize("radius", [1, 0, -3])
def test_a_radius_without_neighbours_is_refused(radius):
    with pytest.raises(ValueError, match="at least 2"):
        path_offsets(radius)


# ---------------------------------------------------------------------- affinities


@few
@given(maps, radii)
def test_affinity_from_edges(edge, radius):
    affinity = affinity_from_edges(torch.as_tensor(edge), radius)
    close(dense(affinity.numpy()), dense_affinity(edge, radius), 0)
    for p, (dy, dx) in enumerate(path_offsets(radius).tolist()):
        for y, x in np.ndindex(edge.shape):
            if not (0 <= y + dy < edge.shape[0] and 0 <= x + dx < edge.shape[1]):
                assert affinity[p, y, x] == 0


@few
@given(st.tuples(st.integers(2, 4), sides, sides).flatmap(lambda s: hnp.arrays(np.float64, s, elements=UNIT)), radii)
def test_edges_of_a_batch_do_not_mix(edges, radius):
    batch = affinity_from_edges(torch.as_tensor(edges), radius)
    assert torch.equal(batch, torch.stack([affinity_from_edges(torch.as_tensor(e), radius) for e in edges]))


def distinct(*shape):
    """Values in (0, 1) of which no two are nearly equal, so that every minimum has one gradient."""
    values = np.random.default_rng(0).permutation(int(np.prod(shape))) + 0.5
    return torch.as_tensor(values.reshape(shape) / values.size).requires_grad_()


@pytest.mark.parametrize(("shape", "radius"), [((7, 9), 5), ((2, 4, 6), 3), ((3, 2), 5), ((12, 21), 10)])
def test_edges_get_the_gradient_of_their_affinities(shape, radius):
    assert torch.autograd.gradcheck(lambda edge: affinity_from_edges(edge, radius), (distinct(*shape),), fast_mode=True)


def test_the_gradient_of_edges_equals_that_of_a_maximum_over_gathered_paths():
    """At radius 10, where minima are shared most; only for the cells that training uses."""
    edge = torch.rand(2, 24, 30, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    mine, plain = edge.clone().requires_grad_(), edge.clone().requires_grad_()
    weights = torch.randn(2, 152, 15, 12, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    affinity = affinity_from_edges(mine, 10)[..., :15, 9:21]
    gathered = [
        1 - torch.stack([plain[:, y : y + 15, 9 + x : 21 + x] for y, x in path_cells(tuple(offset))]).amax(dim=0)
        for offset in path_offsets(10).tolist()
    ]
    expected = torch.stack(gathered, dim=1)
    assert torch.equal(affinity, expected)
    (affinity * weights).sum().backward()
    (expected * weights).sum().backward()
    close(mine.grad, plain.grad.numpy(), 1e-12)
    assert mine.grad.abs().max() > 1


def test_equal_edges_share_a_gradient_of_the_right_sum():
    edge = torch.full((6, 8), 0.5, dtype=torch.float64, requires_grad=True)
    affinity = affinity_from_edges(edge, 5)
    affinity.sum().backward()
    assert edge.grad.sum() == -(affinity > 0).sum()


@few
@given(hnp.arrays(np.float64, st.tuples(st.integers(1, 3), sides, sides), elements=UNIT), radii)
def test_feature_affinity(features, radius):
    affinity = feature_affinity(torch.as_tensor(features), radius)
    for p, (dy, dx) in enumerate(path_offsets(radius).tolist()):
        for y, x in np.ndindex(features.shape[1:]):
            expected = 0.0
            if 0 <= y + dy < features.shape[1] and 0 <= x + dx < features.shape[2]:
                expected = np.exp(-np.mean(np.abs(features[:, y, x] - features[:, y + dy, x + dx])))
            assert abs(float(affinity[p, y, x]) - expected) < 1e-14


@pytest.mark.parametrize("shape", [(3, 5, 7), (2, 4, 6, 5)])
def test_features_get_the_gradient_of_their_affinities(shape):
    assert torch.autograd.gradcheck(lambda f: feature_affinity(f, 4), (distinct(*shape),), fast_mode=True)


def test_affinities_are_float32_at_least():
    edge = torch.rand(6, 7, dtype=torch.bfloat16)
    assert affinity_from_edges(edge, 3).dtype == torch.float32
    assert torch.equal(affinity_from_edges(edge, 3), affinity_from_edges(edge.float(), 3))
    assert feature_affinity(edge[None], 3).dtype == torch.float32
    assert affinity_from_edges(edge.double(), 3).dtype == torch.float64


def test_inner_pairs_are_those_of_cells_with_all_partners():
    affinity = affinity_from_edges(torch.zeros(11, 13), 5)
    inner = inner_pairs(affinity)
    complete = (affinity > 0).all(dim=0)
    assert torch.equal((inner > 0).all(dim=0), complete)
    assert torch.equal((inner > 0).any(dim=0), complete)
    assert complete.sum() == 7 * 5
    assert torch.equal(inner_pairs(affinity > 0), inner > 0)
    assert not inner_pairs(affinity_from_edges(torch.zeros(3, 20), 5)).any()
    assert not inner_pairs(affinity_from_edges(torch.zeros(20, 5), 5)).any()


# ---------------------------------------------------------------------- the walk


walks = st.tuples(st.integers(1, 3), sides, sides).flatmap(
    lambda s: st.tuples(hnp.arrays(np.float64, s, elements=UNIT), hnp.arrays(np.float64, s[1:], elements=UNIT))
)


@few
@given(walks, radii, st.sampled_from([1.0, 2.5, 10.0]), st.sampled_from([0, 1, 2, 7, 64, 256, 1001]))
def test_walk_is_the_power_of_the_dense_matrix(case, radius, beta, steps):
    scores, edge = case
    actual = walk(torch.as_tensor(scores), affinity_from_edges(torch.as_tensor(edge), radius), beta, steps)
    close(actual, dense_walk(scores, dense_affinity(edge, radius), beta, steps), 1e-11)


@few
@given(walks)
def test_propagate_fades_scores_on_edges_first(case):
    scores, edge = case
    actual = propagate(torch.as_tensor(scores), torch.as_tensor(edge), radius=3, beta=4, steps=20)
    close(actual, dense_walk(scores * (1 - edge), dense_affinity(edge, 3), 4, 20), 1e-12)


def example(height=23, width=31, channels=3, dtype=torch.float64):
    """Scores, and edges with strong ones among weak ones."""
    random = torch.Generator().manual_seed(5)
    scores = torch.rand(channels, height, width, generator=random, dtype=torch.float64)
    edge = torch.rand(height, width, generator=random, dtype=torch.float64) ** 3
    return scores.to(dtype), affinity_from_edges(edge, 5).to(dtype)


def test_one_step_replaces_scores_by_weighted_means():
    """Sums of channels are not conserved, sums weighted by the matrix's column sums are; extremes never grow."""
    scores, affinity = example()
    sums = torch.as_tensor((dense(affinity.numpy()) ** 10).sum(axis=0)).view(23, 31)
    for steps in (1, 256):
        result = walk(scores, affinity, steps=steps)
        close((result * sums).sum(dim=(1, 2)), (scores * sums).sum(dim=(1, 2)).numpy(), 1e-9)
        assert (result.amax(dim=(1, 2)) < scores.amax(dim=(1, 2))).all()
        assert (result.amin(dim=(1, 2)) > scores.amin(dim=(1, 2))).all()
    assert (walk(scores, affinity).sum(dim=(1, 2)) - scores.sum(dim=(1, 2))).abs().min() > 1e-3


@pytest.mark.parametrize("steps", [1, 64, 256])
def test_constant_maps_stay(steps):
    _, affinity = example()
    maps = torch.tensor([0.0, 1.0, 0.25], dtype=torch.float64)[:, None, None].expand(3, 23, 31)
    close(walk(maps, affinity, steps=steps), maps.numpy(), 1e-14)


def test_steps_add_up():
    scores, affinity = example()
    twice = walk(walk(scores, affinity, steps=100), affinity, steps=156)
    close(twice, walk(scores, affinity, steps=256).numpy(), 1e-12)


def test_channels_do_not_mix():
    scores, affinity = example()
    alone = torch.cat([walk(channel[None], affinity) for channel in scores])
    close(walk(scores, affinity), alone.numpy(), 1e-13)


def test_a_map_of_edges_lets_nothing_move_and_loses_the_scores():
    scores, _ = example()
    edge = torch.ones(23, 31, dtype=torch.float64)
    close(walk(scores, affinity_from_edges(edge, 5)), scores.numpy(), 1e-14)
    assert not propagate(scores, edge).any()


def test_without_edges_all_cells_become_alike():
    scores, _ = example(9, 8)
    result = walk(scores, affinity_from_edges(torch.zeros(9, 8, dtype=torch.float64), 5), steps=4096)
    assert (result.amax(dim=(1, 2)) - result.amin(dim=(1, 2))).max() < 1e-9


def test_a_wall_is_not_crossed():
    scores = torch.zeros(1, 12, 20)
    scores[:, :, :9] = torch.rand(1, 12, 9)
    edge = torch.zeros(12, 20)
    edge[:, 9:11] = 1
    result = propagate(scores, edge)
    assert not result[..., 9:].any()
    assert result[..., :9].min() > 0.3


@few
@given(walks, st.sampled_from(["rows", "columns", "diagonal"]))
def test_mirrored_input_gives_mirrored_output(case, axis):
    turn = {
        "rows": lambda t: t.flip(-2),
        "columns": lambda t: t.flip(-1),
        "diagonal": lambda t: t.transpose(-2, -1),
    }[axis]
    scores, edge = map(torch.as_tensor, case)
    close(propagate(turn(scores), turn(edge)), turn(propagate(scores, edge)).numpy(), 1e-12)


@pytest.mark.parametrize("low", [0.0, 0.3])
def test_float32_stays_close_to_float64(low):
    """As many cells as a photograph of 375 x 500 has at stride 4."""
    random = torch.Generator().manual_seed(0)
    scores = torch.rand(3, 94, 125, generator=random)
    edge = low + (1 - low) * torch.rand(94, 125, generator=random) ** 2
    single, double = propagate(scores, edge), propagate(scores.double(), edge.double())
    assert single.dtype == torch.float32
    close(single, double.numpy(), 2e-5)


def test_half_scores_walk_in_float32_even_under_autocast():
    scores, affinity = example(dtype=torch.float32)
    expected = walk(scores.half().float(), affinity)
    with torch.autocast("cpu", torch.bfloat16):
        result = walk(scores.half(), affinity)
    assert result.dtype == torch.float32
    assert torch.equal(result, expected)


def test_walks_speak_to_nobody_and_keep_no_graph():
    scores, affinity = example(8, 9)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert not walk(scores.requires_grad_(), affinity).requires_grad


@pytest.mark.parametrize("steps", [1, 2, 3, 17, 64, 100, 255, 256, 5000])
@pytest.mark.parametrize("tolerance", [1e-3, 1e-9, 1e-15])
def test_power_series(steps, tolerance):
    series = power_series(steps, tolerance)
    t = np.linspace(-1, 1, 1001)
    actual = np.polynomial.chebyshev.chebval(t, series)
    assert np.abs(actual - t**steps).max() <= tolerance + 1e-13


def test_power_series_is_short():
    assert len(power_series(256, 1e-12)) <= 122
    assert len(power_series(64, 1e-9)) < 60
    assert len(power_series(7, 1e-9)) == 8


def test_bad_input():
    scores, affinity = example(6, 7)
    with pytest.raises(ValueError, match="same cells"):
        walk(scores[:, :5], affinity)
    with pytest.raises(ValueError, match="same cells"):
        walk(scores[0], affinity)
    with pytest.raises(ValueError, match="33 affinities per cell"):
        walk(scores, affinity[:33])
    with pytest.raises(ValueError, match="negative"):
        walk(scores, affinity - 0.5)
    with pytest.raises(ValueError, match="-1 steps"):
        walk(scores, affinity, steps=-1)
    with pytest.raises(ValueError, match=r"exponent of -0\.5"):
        walk(scores, affinity, beta=-0.5)
    with pytest.raises(ValueError, match="edges must be"):
        affinity_from_edges(torch.zeros(1, 1, 4, 4), 5)
    with pytest.raises(ValueError, match="features must be"):
        feature_affinity(torch.zeros(4, 4), 5)
    for broken in (float("nan"), float("inf")):
        spoilt = scores.clone()
        spoilt[0, 0, 0] = broken
        with pytest.raises(ValueError, match="finite"):
            walk(spoilt, affinity)
        spoilt = affinity.clone()
        spoilt[0, 0, 0] = broken
        with pytest.raises(ValueError, match="finite"):
            walk(scores, spoilt)
