"""Pair labels and losses against loops over cells, offsets and paths."""

import math

import numpy as np
import pytest
import torch
from PIL import Image

from frugalseg.ops.random_walk import affinity_from_edges, path_offsets
from frugalseg.stages.irn import pairs
from frugalseg.stages.irn.losses import displacement_sums, irn_loss

EPS = 1e-5


def offsets_by_loop(radius):
    """To the right, then row by row; the order of pairs does not matter for sums."""
    right = [(0, x) for x in range(1, radius)]
    return right + [
        (y, x) for y in range(1, radius) for x in range(1 - radius, radius) if y * y + x * x < radius * radius
    ]


def path(dy, dx):
    """Cells of the bounding box nearer than 1 to the line."""
    cells = [(y, x) for y in range(dy + 1) for x in range(min(0, dx), max(0, dx) + 1)]
    return [(y, x) for y, x in cells if abs(y * dx - x * dy) / math.hypot(dy, dx) < 1]


def kind_of(a, b):
    if 255 in (a, b):
        return pairs.IGNORED
    if a != b:
        return pairs.ACROSS
    return pairs.FOREGROUND if a else pairs.BACKGROUND


def losses_by_loop(edge, displacement, label, radius):
    """The five means and the total, for (N, h, w) edges after the sigmoid."""
    sums, counts = dict.fromkeys(range(1, 6), 0.0), dict.fromkeys(range(1, 4), 0)
    images, height, width = edge.shape
    for n in range(images):
        for y in range(height - radius + 1):
            for x in range(radius - 1, width - radius + 1):
                for dy, dx in offsets_by_loop(radius):
                    kind = kind_of(label[n, y, x], label[n, y + dy, x + dx])
                    if kind == pairs.IGNORED:
                        continue
                    affinity = 1 - max(edge[n, y + a, x + b] for a, b in path(dy, dx))
                    counts[kind] += 1
                    sums[kind] -= math.log((1 - affinity if kind == pairs.ACROSS else affinity) + EPS)
                    moved = displacement[n, :, y, x] - displacement[n, :, y + dy, x + dx]
                    if kind == pairs.FOREGROUND:
                        sums[4] += abs(moved[0] - dy) + abs(moved[1] - dx)
                    elif kind == pairs.BACKGROUND:
                        sums[5] += abs(moved[0]) + abs(moved[1])
    b, f, a = (sums[k] / (counts[k] + EPS) for k in (1, 2, 3))
    d_f, d_b = (sums[k + 2] / (2 * counts[c] + EPS) for k, c in ((2, 2), (3, 1)))
    return [b, f, a, d_f, d_b, ((b + f) / 2 + a) / 2 + (d_f + d_b) / 2], counts


def random_case(seed, shape, classes=(0, 1, 2, 255)):
    rng = np.random.default_rng(seed)
    # blocks of equal labels, so that pairs of every kind are there
    blocks = rng.choice(classes, (shape[0], -(-shape[1] // 3), -(-shape[2] // 3)))
    label = np.kron(blocks, np.ones((1, 3, 3), int))[:, : shape[1], : shape[2]]
    return rng.normal(size=shape), rng.normal(size=(shape[0], 2, *shape[1:])), label.astype(np.uint8)


@pytest.mark.parametrize(("radius", "shape"), [(2, (1, 3, 5)), (3, (2, 7, 9)), (4, (2, 8, 11)), (5, (1, 5, 9))])
def test_losses_equal_the_loops(radius, shape):
    edge, displacement, label = random_case(radius, shape)
    expected, counts = losses_by_loop(1 / (1 + np.exp(-edge)), displacement, label, radius)
    kinds = pairs.pair_kinds(torch.from_numpy(label), radius)
    assert pairs.count_kinds(kinds).tolist() == list(counts.values())
    terms = irn_loss(torch.from_numpy(edge), kinds, torch.from_numpy(displacement), radius)
    torch.testing.assert_close(torch.stack(list(terms)), torch.tensor(expected, dtype=torch.float64))


def test_kinds_equal_the_loops():
    _, _, label = random_case(0, (2, 8, 10), classes=(0, 1, 2, 255, 254))
    radius = 4
    kinds = pairs.pair_kinds(torch.from_numpy(label), radius)
    assert kinds.dtype == torch.uint8
    for p, (dy, dx) in enumerate(path_offsets(radius).tolist()):
        for y in range(5):
            for x in range(3, 7):
                expected = [kind_of(a, b) for a, b in zip(label[:, y, x], label[:, y + dy, x + dx], strict=True)]
                assert kinds[:, p, y, x - 3].tolist() == expected
    assert set(kinds.unique().tolist()) == {0, 1, 2, 3}


@pytest.mark.parametrize("with_displacement", [True, False])
def test_gradients_equal_finite_differences(with_displacement):
    edge, displacement, label = random_case(5, (3, 3, 5))
    kinds = pairs.pair_kinds(torch.from_numpy(label), 2)
    inputs = [torch.from_numpy(edge).requires_grad_()]
    inputs += [torch.from_numpy(displacement).requires_grad_()] if with_displacement else []

    def total(e, d=None):
        return irn_loss(e, kinds, d, 2, at_once=2).total

    assert torch.autograd.gradcheck(total, inputs)


def test_neither_the_number_of_images_at_once_nor_that_of_processes_matters():
    edge, displacement, label = (torch.from_numpy(a) for a in random_case(6, (4, 9, 11)))
    kinds = pairs.pair_kinds(label, 4)

    def gradients(part, counts, at_once):
        leaves = [m[part].clone().requires_grad_() for m in (edge, displacement)]
        terms = irn_loss(leaves[0], kinds[part], leaves[1], 4, counts, at_once)
        terms.total.backward()
        return terms.total.detach(), leaves[0].grad, leaves[1].grad

    whole = gradients(slice(0, 4), None, 4)
    for value, expected in zip(gradients(slice(0, 4), None, 3), whole, strict=True):
        torch.testing.assert_close(value, expected)
    # two ranks with unequal numbers of pairs: counts are means over them, and DDP takes the mean of gradients
    counts = torch.stack([pairs.count_kinds(kinds[:2]), pairs.count_kinds(kinds[2:])])
    assert counts[0].tolist() != counts[1].tolist()
    first, second = (gradients(part, counts.double().mean(0), 1) for part in (slice(0, 2), slice(2, 4)))
    torch.testing.assert_close((first[0] + second[0]) / 2, whole[0])
    for index in (1, 2):
        torch.testing.assert_close(torch.cat([first[index], second[index]]) / 2, whole[index])


def test_half_precision_maps_are_compared_in_float32():
    edge, displacement, label = (torch.from_numpy(a) for a in random_case(7, (2, 9, 11)))
    kinds = pairs.pair_kinds(label, 3)
    low = [m.bfloat16().requires_grad_() for m in (edge, displacement)]
    high = [m.detach().float().requires_grad_() for m in low]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        terms = irn_loss(low[0], kinds, low[1], 3)
    expected = irn_loss(high[0], kinds, high[1], 3)
    assert terms.total.dtype == torch.float32
    assert torch.equal(torch.stack(list(terms)), torch.stack(list(expected)))
    terms.total.backward()
    expected.total.backward()
    for a, b in zip(low, high, strict=True):
        assert torch.equal(a.grad, b.grad.bfloat16())


def test_certain_edges_and_missing_kinds_stay_finite():
    edge = torch.full((1, 6, 9), 200.0).requires_grad_()
    label = torch.zeros(1, 6, 9, dtype=torch.uint8)
    label[:, :, 5:] = 255
    terms = irn_loss(edge, pairs.pair_kinds(label, 3), torch.zeros(1, 2, 6, 9), 3)
    assert float(terms.background) == pytest.approx(-math.log(EPS), rel=1e-3)
    assert [float(v) for v in (terms.foreground, terms.across, terms.displacement_foreground)] == [0, 0, 0]
    terms.total.backward()
    assert torch.isfinite(edge.grad).all()
    nothing = irn_loss(edge, pairs.pair_kinds(torch.full_like(label, 255), 3), None, 3).total
    nothing.backward()
    assert float(nothing.detach()) == 0


def test_without_gradients_nothing_is_kept():
    edge, displacement, label = (torch.from_numpy(a) for a in random_case(8, (2, 9, 11)))
    kinds = pairs.pair_kinds(label, 3)
    with_gradient = irn_loss(edge.clone().requires_grad_(), kinds, displacement, 3)
    assert not irn_loss(edge, kinds, displacement, 3).total.requires_grad
    assert torch.equal(irn_loss(edge, kinds, displacement, 3).total, with_gradient.total.detach())
    assert not with_gradient.background.requires_grad  # only the total is


def test_ideal_displacements_cost_nothing():
    """All cells of an object point at one place; all of the background's have one vector."""
    rows, columns = torch.meshgrid(torch.arange(6.0), torch.arange(9.0), indexing="ij")
    centred = torch.stack([3 - rows, 4 - columns])[None]
    label = torch.ones(1, 6, 9, dtype=torch.uint8)
    within, outside = pairs.pair_kinds(label, 3), pairs.pair_kinds(label * 0, 3)
    assert displacement_sums(centred, within, 3).tolist() == [0, 0]
    assert displacement_sums(-centred, within, 3)[0] > 0
    assert displacement_sums(torch.ones(1, 2, 6, 9), outside, 3).tolist() == [0, 0]
    assert displacement_sums(centred, outside, 3)[1] > 0


def test_maps_and_kinds_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="at least 10 x 19 cells, not 12 x 12"):
        pairs.pair_kinds(torch.zeros(1, 12, 12, dtype=torch.uint8), 10)
    kinds = pairs.pair_kinds(torch.zeros(1, 6, 9, dtype=torch.uint8), 3)
    with pytest.raises(ValueError, match="kinds of pairs must be"):
        irn_loss(torch.zeros(2, 6, 9), kinds, None, 3)


@pytest.mark.parametrize("stride", [2, 4])
@pytest.mark.parametrize("cells", [(16, 16), (7, 12)])
def test_labels_are_reduced_as_pillow_does(stride, cells):
    size = (cells[0] * stride, cells[1] * stride)
    mask = np.random.default_rng(0).integers(0, 256, size, dtype=np.uint8)
    expected = np.asarray(Image.fromarray(mask).resize(cells[::-1], Image.Resampling.NEAREST))
    reduced = pairs.reduce_labels(torch.from_numpy(mask)[None].long(), stride, cells)
    assert np.array_equal(reduced[0].numpy(), expected)


def test_labels_of_sides_that_are_no_multiple():
    mask = torch.arange(9)[None, :, None].expand(1, 9, 5)
    assert pairs.reduce_labels(mask, 4, (3, 2))[0, :, 0].tolist() == [2, 6, 8]


def test_boundary_scores_equal_a_ranking_by_hand():
    rng = np.random.default_rng(1)
    label = torch.from_numpy(random_case(9, (1, 9, 12))[2])
    # affinities on the grid of the bins, so that ties are the same
    edge = torch.from_numpy(rng.integers(0, pairs.BINS, (1, 9, 12)) / pairs.BINS)
    affinity, kinds = pairs.at_sources(affinity_from_edges(edge, 3), 3), pairs.pair_kinds(label, 3)
    counts = pairs.boundary_counts(affinity, kinds)
    ranked = sorted((float(a), int(k)) for a, k in zip(affinity.flatten(), kinds.flatten(), strict=True) if k)
    total = sum(k == pairs.ACROSS for _, k in ranked)
    precision = 0.0
    for value in sorted({a for a, _ in ranked}):
        found = [k == pairs.ACROSS for a, k in ranked if a <= value]
        precision += sum(k == pairs.ACROSS for a, k in ranked if a == value) / total * sum(found) / len(found)
    scores = pairs.boundary_scores(counts)
    assert scores["boundary_ap"] == pytest.approx(precision, abs=1e-12)
    assert scores["boundary_share"] == pytest.approx(total / len(ranked), abs=1e-12)
    assert pairs.boundary_scores(counts * torch.tensor([[1], [0]])) == {}
