"""DenseCL and PixPro as whole methods against the formulas of golden/ssl/README.md, one number after another."""

import math

import numpy as np
import pytest
import torch
from torch import nn

from frugalseg.errors import ConfigError
from frugalseg.nn.ema import EMATeacher
from frugalseg.papers.mevt.methods import create_method
from frugalseg.papers.mevt.model import Dense
from frugalseg.papers.mevt.terms import Moment
from tests.papers.mevt.test_heads import oracle, projection
from tests.papers.mevt.test_step import views

HEADS = {"global_hidden": (7,), "pixel_hidden": (6,), "pixel_outputs": 4}
MOMENT = Moment(0.04, [0, 1, 2])


class SmallMaps(nn.Module):
    """4 x 4 cells of 64 x 64 pixels, and their mean through a linear as a token."""

    width, token_width = 5, 6

    def __init__(self):
        super().__init__()
        self.cells, self.whole = nn.Conv2d(3, 5, 16, stride=16), nn.Linear(5, 6)

    def forward(self, image):
        maps = self.cells(image).tanh()
        return Dense(maps, self.whole(maps.mean(dim=(2, 3))), (maps,))


def setting(name, **rule):
    """A method with nets whose weights are no small numbers, and a teacher that differs from its student."""
    torch.manual_seed(3)
    method = create_method(name, rule, HEADS).double()
    student = method.student(SmallMaps()).double()
    teacher = EMATeacher(student)
    for p in [*student.parameters(), *teacher.parameters()]:
        nn.init.normal_(p, std=0.5)
    return method, student, teacher


def crops(flipped=True):
    batch = views(images=3, local=0, seed=4)
    batch["global_views"] = batch["global_views"].double()
    # overlapping; apart, so that there are no positives; equal boxes with one mirrored
    batch["box"] = torch.tensor(
        [[[0, 0, 64, 48], [10, 6, 74, 70]], [[0, 0, 20, 20], [70, 70, 90, 90]], [[8, 4, 48, 44], [8, 4, 48, 44]]]
    )
    batch["flip"] = torch.tensor([[False, True], [False, False], [True, False]]) & flipped
    return batch


def unit(x):
    return x / math.sqrt(sum(x**2))


def number(value):
    return value.detach().numpy()


def pooled(maps, size):
    """(B, C, 4, 4) -> (B, size^2, C): means over squares."""
    k = 4 // size
    found = [
        [m[:, y * k : y * k + k, x * k : x * k + k].mean(axis=(1, 2)) for y in range(size) for x in range(size)]
        for m in maps.detach().numpy()
    ]
    return np.array(found)


def projected(head, cells):
    """Of any length: what is compared is normed where it is compared."""
    return np.array([projection(head, image, norm=False) for image in cells])


def info_nce(query, positive, queue, temperature):
    scores = [query @ positive / temperature, *(queue @ query / temperature)]
    return -scores[0] + math.log(sum(math.exp(s) for s in scores))


@pytest.mark.parametrize(("size", "dense", "temperature"), [(4, 0.5, 0.2), (2, 0.3, 0.4)])
def test_densecl(size, dense, temperature):
    method, student, teacher = setting("densecl", grid=size, dense=dense, temperature=temperature, queue=8)
    batch = crops()
    ours, theirs = student(batch["global_views"][:, 0]), teacher(batch["global_views"][:, 1])
    queues = [q.rows.clone().numpy() for q in (method.images, method.means)]
    for queue in queues:
        np.testing.assert_allclose((queue**2).sum(axis=1), 1, rtol=1e-6)
    q, k = (
        oracle(n.global_head, d.token.detach().numpy(), False) for n, d in ((student, ours), (teacher.module, theirs))
    )
    whole = np.mean([info_nce(q[n], k[n], queues[0], temperature) for n in range(3)])
    own, other = pooled(ours.features, size), pooled(theirs.features, size)
    own_grid, other_grid = projected(student.pixel_head, own), projected(teacher.module.pixel_head, other)
    cells = []
    for n in range(3):
        for i in range(size * size):
            match = np.argmax([unit(own[n, i]) @ unit(other[n, j]) for j in range(size * size)])
            cells.append(info_nce(unit(own_grid[n, i]), unit(other_grid[n, match]), queues[1], temperature))
    terms = method.terms(student, teacher, batch, MOMENT)
    np.testing.assert_allclose(number(terms.parts["global"]), whole, rtol=1e-9)
    np.testing.assert_allclose(number(terms.parts["dense"]), np.mean(cells), rtol=1e-9)
    np.testing.assert_allclose(number(terms.total), (1 - dense) * whole + dense * np.mean(cells), rtol=1e-9)
    # nothing is taken in before the update; then the oldest make room, image by image
    assert np.array_equal(method.images.rows.numpy(), queues[0])
    for _ in range(3):
        method.update(terms, MOMENT)
        queues = [
            np.concatenate([queues[0][3:], k]),
            np.concatenate([queues[1][3:], [unit(g.mean(0)) for g in other_grid]]),
        ]
        for queue, expected in zip((method.images, method.means), queues, strict=True):
            np.testing.assert_allclose(queue.rows.numpy(), expected, rtol=1e-6, atol=1e-7)
    terms.total.backward()
    assert all(p.grad is not None and p.grad.abs().max() > 0 for p in student.parameters())
    assert all(p.grad is None for p in teacher.parameters())


def centres(box, flip, size):
    x1, y1, x2, y2 = map(float, box)
    places = []
    for row in range(size):
        for column in range(size):
            u = (column + 0.5) / size
            places.append((x1 + (1 - u if flip else u) * (x2 - x1), y1 + (row + 0.5) / size * (y2 - y1)))
    return places, math.hypot((x2 - x1) / size, (y2 - y1) / size)


@pytest.mark.parametrize(("size", "distance", "power"), [(4, 0.7, 2.0), (2, 0.5, 1.0)])
def test_pixpro(size, distance, power):
    method, student, teacher = setting("pixpro", grid=size, distance=distance, power=power)
    batch = crops()
    weight, bias = student.values.weight.detach().numpy(), student.values.bias.detach().numpy()
    own, other = [], []
    for v in (0, 1):
        view = batch["global_views"][:, v]
        own.append(projected(student.pixel_head, pooled(student(view).features, size)))
        other.append(projected(teacher.module.pixel_head, pooled(teacher(view).features, size)))
    directions, positives = [], 0
    for a, b in ((0, 1), (1, 0)):
        found = []
        for n in range(3):
            ours, cell = centres(batch["box"][n, a], batch["flip"][n, a], size)
            theirs, cell_of_other = centres(batch["box"][n, b], batch["flip"][n, b], size)
            x, cosines = own[a][n], []
            for i, place in enumerate(ours):
                spread = sum(max(unit(x[i]) @ unit(y), 0) ** power * unit(weight @ y + bias) for y in x)
                for j, there in enumerate(theirs):
                    if math.dist(place, there) / max(cell, cell_of_other) < distance:
                        cosines.append(unit(spread) @ unit(other[b][n, j]))
            found.append(sum(cosines) / (len(cosines) + 1e-6))
            positives += len(cosines)
        directions.append(-2 * np.mean(found))
    terms = method.terms(student, teacher, batch, MOMENT)
    np.testing.assert_allclose(number(terms.total), sum(directions), rtol=1e-7)
    assert torch.equal(terms.total, terms.parts["pixel"])
    np.testing.assert_allclose(number(terms.monitors["positives"]), positives / 2 / (3 * size**4), rtol=1e-6)
    # mirrored views matter, so the agreement above is not that of symmetric boxes
    assert abs(method.terms(student, teacher, crops(flipped=False), MOMENT).total - terms.total).item() > 1e-3
    terms.total.backward()
    told = {name for name, p in student.named_parameters() if p.grad is not None and p.grad.abs().max() > 0}
    # there is no loss of the image as a whole
    assert told == {name for name, _ in student.named_parameters()} - {"backbone.whole.weight", "backbone.whole.bias"}
    assert all(p.grad is None for p in teacher.parameters())


@pytest.mark.parametrize("name", ["densecl", "pixpro"])
def test_local_views_are_refused(name):
    method, student, teacher = setting(name, grid=4)
    batch = views(images=3, local=1)
    with pytest.raises(
        ConfigError, match=rf"data\.recipe\.local_views: {name} sees the two global views alone; set it to 0$"
    ):
        method.terms(student, teacher, batch, MOMENT)


@pytest.mark.parametrize("rule", [{"queue": 0}, {"dense": 1.5}, {"dense": -0.1}])
def test_settings_of_densecl_that_make_no_sense_are_refused(rule):
    with pytest.raises(ConfigError, match=r"model\.init_args\.rule: DenseCL needs"):
        create_method("densecl", rule, HEADS)
