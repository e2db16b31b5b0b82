"""One step: points show the same place in both views, terms add up, only the student learns, draws are per image."""

import math

import pytest
import torch
from torch import nn

from frugalseg.nn.ema import EMATeacher
from frugalseg.papers.mevt.distillation import SelfDistillation
from frugalseg.papers.mevt.model import Dense, create
from frugalseg.papers.mevt.step import Rule, find_matches, look, seeds_of
from frugalseg.papers.mevt.student import TINY, HeadSizes, Student
from frugalseg.papers.mevt.terms import Moment, entropy

RULE = Rule(weights=(0.5, 1.0, 1.0), sides=(5, 3), pixel_points=60, eps=0.02)
SIZES = HeadSizes((16,), (16,), (16,), 8, 8, 12, 10, norm=False)


def views(images=3, local=2, seed=0):
    """Crops of a 96 x 120 image by their boxes; contents are noise."""
    random = torch.Generator().manual_seed(seed)
    corner = torch.randint(0, 20, (images, 2 + local, 2), generator=random)
    side = torch.randint(50, 76, (images, 2 + local, 2), generator=random)
    return {
        "id": [f"image{n}" for n in range(images)],
        "global_views": torch.randn(images, 2, 3, 64, 64, generator=random),
        "local_views": torch.randn(images, local, 3, 32, 32, generator=random),
        "box": torch.cat([corner, corner + side], dim=-1),
        "flip": torch.rand(images, 2 + local, generator=random) < 0.5,
        "size": torch.tensor([[96, 120]]).repeat(images, 1),
    }


class Coordinates(nn.Module):
    """A net whose feature at a cell is the place in the image that the cell shows; views carry their box as colours."""

    width, token_width = 2, 4

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(()))

    def forward(self, image):
        return Dense(self.scale * image[:, :2], image.new_zeros(len(image), 4), (image,))


def placed(batch):
    """Each view's first two channels hold x and y of every cell's centre, in pixels of the image."""
    for name, start in (("global_views", 0), ("local_views", 2)):
        for n, row in enumerate(batch[name]):
            for v, view in enumerate(row):
                x1, y1, x2, y2 = batch["box"][n, start + v].tolist()
                side = view.shape[-1]
                cells = (torch.arange(side) + 0.5) / side
                x = x1 + (1 - cells if batch["flip"][n, start + v] else cells) * (x2 - x1)
                view[0], view[1] = x[None, :].expand(side, side), (y1 + cells * (y2 - y1))[:, None].expand(side, side)
    return batch


def nets(seed=0, drop_path=0.0, sizes=SIZES, **changes):
    torch.manual_seed(seed)
    student = Student(create("mevt_tiny", drop_path=drop_path, **changes), sizes)
    return student, EMATeacher(student)


def step(student, teacher, batch, rule=RULE, number=0):
    moment = Moment(0.04, seeds_of(batch["id"], number, 0))
    return SelfDistillation(rule, SIZES).terms(student, teacher, batch, moment)


def test_points_show_the_same_place_in_both_views():
    """g.3: a net that returns coordinates gives equal features, but for points nearer to an edge than a cell's half."""
    batch = placed(views())
    student = Student(Coordinates(), SIZES)
    seen = look(student, EMATeacher(student), batch)
    matches, _ = find_matches(seen, batch, RULE, seeds_of(batch["id"], 0, 0))
    assert len(matches.image) > 100
    inner = torch.ones(len(matches.image), dtype=torch.bool)
    for v in range(4):  # half a cell of the coarsest view, away from every edge
        box = batch["box"][matches.image, v].float()
        margin = (box[:, 2:] - box[:, :2]) / 64
        p = matches.position
        for low, high, place, m in zip(box[:, :2].T, box[:, 2:].T, p.T, margin.T, strict=True):
            inner &= ~(((place - low).abs() < m) | ((place - high).abs() < m))
    assert inner.float().mean() > 0.5
    torch.testing.assert_close(matches.teacher[inner], matches.student[inner], rtol=0, atol=1e-3)
    torch.testing.assert_close(matches.student[inner], matches.position[inner], rtol=0, atol=1e-3)


def test_terms_add_up_and_those_without_weight_are_left_out():
    student, teacher = nets()
    batch = views()
    everything = step(student, teacher, batch)
    assert everything.parts.keys() == {"global", "prototype", "pixel"}
    expected = sum(w * everything.parts[n] for w, n in zip((0.5, 1, 1), everything.parts, strict=True))
    torch.testing.assert_close(everything.total, expected)
    for number, name in enumerate(("global", "prototype", "pixel")):
        weights = tuple(float(n == number) for n in range(3))
        alone = step(student, teacher, batch, RULE._replace(weights=weights))
        assert alone.parts.keys() == {name}
        torch.testing.assert_close(alone.total, everything.parts[name])
        assert ("centre" in alone.kept) == (name == "global")


def test_only_the_student_has_gradients():
    student, teacher = nets()
    step(student, teacher, views()).total.backward()
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in student.parameters())
    assert all(p.grad is None for p in teacher.parameters())


def test_what_is_drawn_for_an_image_depends_on_it_and_the_step_alone():
    batch = views(images=4)
    seeds = seeds_of(batch["id"], 7, 0)
    assert seeds_of(batch["id"][2:], 7, 0) == seeds[2:] and len(set(seeds)) == 4
    assert not set(seeds) & set(seeds_of(batch["id"], 8, 0)) and not set(seeds) & set(seeds_of(batch["id"], 7, 1))
    student, teacher = nets()
    part = {key: value[2:] for key, value in batch.items()}
    whole, _ = find_matches(look(student, teacher, batch), batch, RULE, seeds)
    half, _ = find_matches(look(student, teacher, part), part, RULE, seeds[2:])
    torch.testing.assert_close(whole.position[whole.image >= 2], half.position, rtol=0, atol=0)


def test_views_may_lack_local_ones():
    student, teacher = nets()
    batch = views(local=0)
    found = step(student, teacher, batch)
    assert torch.isfinite(found.total) and len(look(student, teacher, batch).student_maps) == 2


def test_points_are_thinned_out_to_the_most_that_are_taken():
    student, teacher = nets()
    rows = []
    student.dense_head.register_forward_hook(lambda _, inputs, __: rows.append(len(inputs[0])))
    student.pixel_head.register_forward_hook(lambda _, inputs, __: rows.append(len(inputs[0])))
    step(student, teacher, views(), RULE._replace(most_points=90, pixel_points=30))
    assert rows == [90, 30]


def test_groups_of_images_are_what_ranks_would_see():
    """c.8: the pixel term of one rank with groups is the mean of what each group gives alone."""
    student, teacher = (net.double() for net in nets())
    batch = {k: v.double() if torch.is_tensor(v) and v.is_floating_point() else v for k, v in views(images=4).items()}
    rule = RULE._replace(weights=(0.0, 0.0, 1.0), pixel_points=80)
    whole = step(student, teacher, batch, rule._replace(images_per_group=2)).total
    halves = [
        step(student, teacher, {k: v[n : n + 2] for k, v in batch.items()}, rule._replace(pixel_points=40)).total
        for n in (0, 2)
    ]
    torch.testing.assert_close(whole, sum(halves) / 2, rtol=1e-9, atol=1e-9)


def test_entropy():
    assert float(entropy(torch.full((8,), 1 / 8))) == pytest.approx(math.log(8))
    assert float(entropy(torch.tensor([1.0, 0.0]))) == 0


def test_sizes_of_a_small_net_are_those_of_the_specification():
    assert HeadSizes((256,), (256,), (128,), 64, 64, 128, 64, True) == TINY
