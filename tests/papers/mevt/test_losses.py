"""MEVT's losses against loops over views, images and points, on inputs other than the golden ones."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from frugalseg.papers.mevt import dense_losses, global_loss, losses
from tests.ops.ranks import on_ranks

few = settings(deadline=None, max_examples=25)
seeds = st.integers(0, 2**32 - 1)
STUDENT, TEACHER = 0.1, 0.06


def softmax(x):
    e = np.exp(x - x.max())
    return e / e.sum()


def soft_cross_entropy(target, logits):
    return -sum(q * (s - math.log(sum(math.exp(v) for v in logits))) for q, s in zip(target, logits, strict=True))


def term(student, teacher, centre):
    return soft_cross_entropy(softmax((teacher - centre) / TEACHER), student / STUDENT)


def unit(x):
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


def tensors(*arrays):
    return [torch.from_numpy(np.asarray(array)) for array in arrays]


@few
@given(seeds, st.integers(1, 3), st.integers(0, 3), st.integers(1, 4), st.integers(2, 6))
def test_dino(seed, leading, local, batch, k):
    views = max(leading + local, 2)
    rng = np.random.default_rng(seed)
    student, teacher = rng.standard_normal((views, batch, k)), rng.standard_normal((leading, batch, k))
    centre = rng.standard_normal(k)
    terms = [
        np.mean([term(student[v, b], teacher[a, b], centre) for b in range(batch)])
        for a in range(leading)
        for v in range(views)
        if v != a
    ]
    loss = global_loss.dino_loss(*tensors(student, teacher, centre), TEACHER, STUDENT)
    np.testing.assert_allclose(loss, np.mean(terms), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize(("leading", "views"), [(0, 2), (1, 1), (3, 2)])
def test_views_without_a_pair_are_refused(leading, views):
    with pytest.raises(ValueError, match="pair"):
        global_loss.dino_loss(torch.zeros(views, 2, 3), torch.zeros(leading, 2, 3), torch.zeros(3), TEACHER)


@few
@given(seeds, st.integers(1, 2), st.integers(1, 3), st.integers(1, 5))
def test_masked_cells(seed, views, batch, cells):
    rng = np.random.default_rng(seed)
    student, teacher = rng.standard_normal((2, views, batch, cells, 4))
    mask, centre = rng.random((views, batch, cells)) < 0.4, rng.standard_normal(4)
    means = []
    for v, b in np.ndindex(views, batch):
        chosen = [term(student[v, b, i], teacher[v, b, i], centre) for i in range(cells) if mask[v, b, i]]
        means.append(np.mean(chosen) if chosen else 0.0)
    loss = global_loss.masked_cell_loss(*tensors(student, teacher, mask, centre), TEACHER, STUDENT)
    np.testing.assert_allclose(loss, np.mean(means), rtol=1e-9, atol=1e-12)


def test_no_masked_cell_is_no_loss_and_no_gradient():
    student = torch.randn(2, 2, 3, 4, requires_grad=True)
    mask = torch.zeros(2, 2, 3, dtype=torch.bool)
    loss = global_loss.masked_cell_loss(student, torch.randn(2, 2, 3, 4), mask, torch.zeros(4), TEACHER)
    loss.backward()
    assert float(loss.detach()) == 0
    assert not student.grad.any()


def test_centre_of_several_ranks():
    rows = torch.rand(12, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    centre = torch.arange(5.0, dtype=torch.float64)[None]
    expected = 0.8 * centre.numpy() + 0.2 * rows.numpy().mean(axis=0)
    np.testing.assert_allclose(global_loss.update_centre(centre, rows.reshape(3, 4, 5), 0.8), expected, rtol=1e-12)
    parts = [rows[:3], rows[3:4], rows[4:]]
    for found in on_ranks(3, lambda own, reduce: global_loss.update_centre(centre, own, 0.8, reduce), parts):
        assert found.shape == centre.shape
        np.testing.assert_allclose(found, expected, rtol=1e-12)


@few
@given(seeds, st.integers(0, 6), st.integers(2, 5))
def test_prototype_loss(seed, n, k):
    rng = np.random.default_rng(seed)
    logits, assignment = rng.standard_normal((n, k)), rng.random((n, k))
    assignment /= assignment.sum(axis=1, keepdims=True)
    total = sum(soft_cross_entropy(assignment[i], logits[i] / STUDENT) for i in range(n))
    loss = losses.prototype_loss(*tensors(logits, assignment), STUDENT)
    np.testing.assert_allclose(loss, total / max(n, 1), rtol=1e-9, atol=1e-12)
    shared = losses.prototype_loss(*tensors(logits, assignment), STUDENT, count=torch.tensor(2.5))
    np.testing.assert_allclose(shared, total / 2.5, rtol=1e-9, atol=1e-12)


def slow_contrast(student, teacher, image, position, radius, tau, per_group):
    """Point by point; (loss, number of negatives of each point)."""
    terms, negatives = [], []
    for n in range(len(student)):
        allowed = [n]
        for m in range(len(student)):
            same_group = per_group is None or image[n] // per_group == image[m] // per_group
            far = math.dist(position[n], position[m]) > radius[n]
            if m != n and same_group and (image[m] != image[n] or far):
                allowed.append(m)
        scores = {m: math.exp(student[n] @ teacher[m] / tau) for m in allowed}
        terms.append(-math.log(scores[n] / sum(scores.values())))
        negatives.append(len(allowed) - 1)
    return sum(terms) / max(len(terms), 1), negatives


@few
@given(seeds, st.integers(0, 14), st.sampled_from([None, 1, 2, 3]), st.booleans())
def test_pixel_contrast(seed, points, per_group, varied):
    rng = np.random.default_rng(seed)
    student, teacher = unit(rng.standard_normal((2, points, 4)))
    image = rng.integers(0, 4, points)
    # whole coordinates, so that points coincide and lie at exactly the radius
    position = rng.integers(0, 5, (points, 2)).astype(float)
    radius = rng.integers(0, 4, points).astype(float) if varied else np.full(points, 2.0)
    expected, _ = slow_contrast(student, teacher, image, position, radius, 0.1, per_group)
    loss = losses.pixel_contrast(
        *tensors(student, teacher, image, position), torch.from_numpy(radius) if varied else 2.0, 0.1, per_group
    )
    np.testing.assert_allclose(loss, expected, rtol=1e-9, atol=1e-12)


def _contrast_inputs(points=24, images=4):
    rng = np.random.default_rng(3)
    student, teacher = unit(rng.standard_normal((2, points, 4)))
    image = np.sort(rng.integers(0, images, points))
    return [*tensors(student, teacher, image, rng.random((points, 2)) * 30)]


def test_negatives_of_the_same_image_count():
    student, teacher, image, position = _contrast_inputs()
    alone = torch.zeros_like(image)
    with_them = losses.pixel_contrast(student, teacher, alone, position, 5.0)
    assert float(with_them) > 0.1
    # all within the radius: nothing is left to tell apart
    assert float(losses.pixel_contrast(student, teacher, alone, position, 100.0)) == 0


def test_one_rank_computes_what_two_do():
    """Loss and gradient, with shares of different numbers of points (c.8)."""
    student, teacher, image, position = _contrast_inputs()
    student = student.requires_grad_()
    whole = losses.pixel_contrast(student, teacher, image, position, 5.0, images_per_group=2)
    (expected,) = torch.autograd.grad(whole, student)
    shares = [image < 2, image >= 2]
    assert int(shares[0].sum()) != int(shares[1].sum())
    parts = [
        losses.pixel_contrast(
            student[own], teacher[own], image[own] % 2, position[own], 5.0, count=len(image) / len(shares)
        )
        for own in shares
    ]
    mean = torch.stack(parts).mean()
    np.testing.assert_allclose(mean.detach(), whole.detach(), rtol=1e-12)
    (found,) = torch.autograd.grad(mean, student)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-12)
    crossed = losses.pixel_contrast(student, teacher, image, position, 5.0)
    assert float((crossed - whole).detach().abs()) > 1e-3


def _random(seed, *shape):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)).requires_grad_()


def test_gradients_are_those_of_finite_differences():
    teacher, centre = _random(1, 2, 3, 4).detach(), torch.zeros(4)
    assert torch.autograd.gradcheck(
        lambda s: global_loss.dino_loss(s, teacher, centre, TEACHER, 0.5), (_random(0, 3, 3, 4),)
    )
    _, key, image, position = _contrast_inputs(8, 2)
    assert torch.autograd.gradcheck(
        lambda s: losses.pixel_contrast(s, key, image, position, 5.0, 0.5), (_random(0, 8, 4),)
    )


def test_the_teacher_gets_no_gradient():
    student, teacher, q = _random(0, 2, 3, 4), _random(1, 2, 3, 4), _random(2, 6, 4)
    cells, keys = student.flatten(end_dim=1), teacher.flatten(end_dim=1)
    ids, place = torch.arange(6), torch.rand(6, 2)
    queue = torch.nn.functional.normalize(_random(3, 4, 7).detach(), dim=0)
    whole = torch.ones(2, 9, 9, dtype=torch.bool)
    maps = [_random(s, 2, 4, 3, 3) for s in (4, 5)]
    values = [
        (global_loss.dino_loss(student, teacher, torch.zeros(4), TEACHER), (teacher,)),
        (
            global_loss.masked_cell_loss(student[None], teacher[None], ids.view(1, 2, 3) > 2, queue[:, 0], TEACHER),
            (teacher,),
        ),
        (losses.prototype_loss(cells, q.softmax(dim=-1)), (q,)),
        (losses.pixel_contrast(cells, keys, ids, place, 0.1), (teacher,)),
        (dense_losses.queue_contrast(cells, keys, queue), (teacher,)),
        (
            dense_losses.region_loss([student, student], [teacher], [student, student], [teacher], queue[:, 0], 1.0),
            (teacher,),
        ),
        (dense_losses.pixel_consistency(maps[0], maps[1], whole), (maps[1],)),
    ]
    for loss, blocked in values:
        learned = torch.autograd.grad(loss, [student, maps[0], *blocked], allow_unused=True)
        assert any(gradient is not None and gradient.any() for gradient in learned[:2])
        assert all(gradient is None for gradient in learned[2:])


@few
@given(seeds, st.integers(1, 2), st.integers(0, 2), st.integers(1, 2))
def test_regions(seed, leading, local, batch):
    rng = np.random.default_rng(seed)
    tokens = [4] * leading + [3] * max(local, 2 - leading)
    views = len(tokens)

    def draw(n, width):
        return [rng.standard_normal((batch, t, width)) for t in tokens[:n]]

    student, teacher, theirs, own = draw(views, 5), draw(leading, 5), draw(leading, 3), draw(views, 3)
    # the last cell points where the first one does and has its logits: whichever rounding prefers, the loop need not know
    for features, logits in zip(theirs, teacher, strict=True):
        features[:, -1], logits[:, -1] = 2 * features[:, 0], logits[:, 0]
    centre, terms = rng.standard_normal(5), []
    for a in range(leading):
        for v in range(views):
            if v == a:
                continue
            for b in range(batch):
                for i in range(tokens[v]):
                    cosines = unit(theirs[a][b])[:-1] @ unit(own[v][b, i])
                    terms.append(term(student[v][b, i], teacher[a][b, cosines.argmax()], centre) / tokens[v])
    expected = sum(terms) / batch / (leading * (views - 1))
    loss = dense_losses.region_loss(
        *(tensors(*part) for part in (student, teacher, own, theirs)), torch.from_numpy(centre), TEACHER, STUDENT
    )
    np.testing.assert_allclose(loss, expected, rtol=1e-9, atol=1e-12)


def test_the_first_of_equal_cells_is_the_closest():
    features = torch.tensor([[[1.0, 0.0]]])
    others = torch.tensor([[[0.0, 1.0], [2.0, 0.0], [5.0, 0.0]]])
    assert dense_losses.closest(features, others).tolist() == [[1]]


@few
@given(seeds, st.integers(1, 3), st.integers(1, 4), st.integers(1, 4), st.integers(1, 5))
def test_dense_contrast(seed, batch, cells, others, queue_size):
    rng = np.random.default_rng(seed)
    query, key = rng.standard_normal((batch, cells, 3)), rng.standard_normal((batch, others, 3))
    match, queue = rng.integers(0, others, (batch, cells)), unit(rng.standard_normal((queue_size, 3))).T
    terms = []
    for b, i in np.ndindex(batch, cells):
        q = unit(query[b, i])
        scores = [
            math.exp(q @ unit(key[b, match[b, i]]) / 0.2),
            *(math.exp(q @ queue[:, j] / 0.2) for j in range(queue_size)),
        ]
        terms.append(-math.log(scores[0] / sum(scores)))
    loss = dense_losses.dense_contrast(*tensors(query, key, match, queue.copy()))
    np.testing.assert_allclose(loss, np.mean(terms), rtol=1e-9, atol=1e-12)


@few
@given(seeds, st.integers(1, 2), st.integers(1, 3), st.integers(1, 3), st.sampled_from([1.0, 2.0]))
def test_pixpro(seed, batch, rows, columns, power):
    rng = np.random.default_rng(seed)
    x, values, target = rng.standard_normal((3, batch, 4, rows, columns))
    corner = rng.uniform(0, 4, (2, batch, 2))
    boxes = np.concatenate([corner, corner + rng.uniform(1, 6, (2, batch, 2))], axis=-1)
    boxes[0, 0] = boxes[0, 0, [2, 1, 0, 3]]  # mirrored
    spread = dense_losses.propagate(*tensors(x, values), power)
    distance = dense_losses.cell_distance(*tensors(*boxes), (rows, columns))
    places, total = list(np.ndindex(rows, columns)), 0.0
    for b in range(batch):
        cells = [[(box[b, 2] - box[b, 0]) / columns, (box[b, 3] - box[b, 1]) / rows] for box in boxes]
        cosines = []
        for i, (y, z) in enumerate(places):
            one = unit(x[b, :, y, z])
            expected = sum(max(one @ unit(x[b, :, p, q]), 0) ** power * unit(values[b, :, p, q]) for p, q in places)
            np.testing.assert_allclose(spread[b, :, y, z], expected, rtol=1e-9, atol=1e-12)
            for j, (p, q) in enumerate(places):
                ends = [
                    (box[b, 0] + (column + 0.5) * cell[0], box[b, 1] + (row + 0.5) * cell[1])
                    for box, cell, row, column in zip(boxes, cells, (y, p), (z, q), strict=True)
                ]
                apart = math.dist(*ends) / max(math.hypot(*cell) for cell in cells)
                np.testing.assert_allclose(distance[b, i, j], apart, rtol=1e-9)
                cosines += [unit(expected) @ unit(target[b, :, p, q])] if apart < 0.7 else []
        total += sum(cosines) / (len(cosines) + 1e-6)
    loss = dense_losses.pixel_consistency(spread, torch.from_numpy(target), distance < 0.7)
    np.testing.assert_allclose(loss, -2 * total / batch, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("half", [torch.bfloat16, torch.float16])
def test_losses_are_float32_islands(half):
    """In half precision and under autocast each loss is that of the same values in float32."""
    rng = torch.Generator().manual_seed(0)
    one, other = (torch.randn(2, 6, 8, generator=rng).to(half) for _ in range(2))
    flat = [torch.nn.functional.normalize(x.float().flatten(end_dim=1), dim=-1).to(half) for x in (one, other)]
    maps = [x.transpose(1, 2).reshape(2, 8, 2, 3) for x in (one, other)]
    ids, place = torch.arange(12) // 6, torch.rand(12, 2, generator=rng)
    queue, close = torch.rand(8, 5, generator=rng), torch.ones(2, 6, 6, dtype=torch.bool)

    def every(cast):
        a, b, *vectors = (cast(x) for x in (one, other, *flat))
        p, q = (cast(x) for x in maps)
        centre = torch.zeros(8)
        return torch.stack(
            [
                global_loss.dino_loss(a, b, centre, TEACHER),
                losses.prototype_loss(vectors[0], vectors[1].float().softmax(dim=-1)),
                losses.pixel_contrast(*vectors, ids, place, 0.1),
                dense_losses.region_loss([a, b], [b], [a, b], [b], centre, TEACHER),
                dense_losses.dense_contrast(a, b, dense_losses.closest(a, b), queue),
                dense_losses.pixel_consistency(dense_losses.propagate(p, q), q, close),
            ]
        )

    expected = every(lambda x: x.float())
    with torch.autocast("cpu", dtype=half):
        found = every(lambda x: x)
    assert found.dtype == torch.float32
    assert torch.equal(found, expected)


def test_half_precision_teachers_are_sharpened_in_float32():
    logits = torch.linspace(-3, 3, 7).bfloat16()[None]
    found = losses.teacher_probabilities(logits, 0.0, TEACHER)
    assert torch.equal(found, losses.teacher_probabilities(logits.float(), 0.0, TEACHER))


def test_cells_are_compared_in_float32():
    """Cosines that bfloat16 cannot tell apart: the first would win there."""
    features, others = torch.tensor([[[1.0, 0.0]]]), torch.tensor([[[1.0, 0.02], [1.0, 0.01]]])
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert dense_losses.closest(features, others).tolist() == [[1]]
