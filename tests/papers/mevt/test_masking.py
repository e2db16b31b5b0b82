"""Which blocks are hidden (mevt.md c.6: ratio 0 or U(lo, hi) per view), and that nothing leaks out of them."""

import pytest
import torch

from frugalseg.nn.ema import EMATeacher
from frugalseg.papers.mevt.masking import draw_masks
from frugalseg.papers.mevt.matching import image_noise
from frugalseg.papers.mevt.model import create
from frugalseg.papers.mevt.step import look, seeds_of
from frugalseg.papers.mevt.student import Student
from tests.papers.mevt.test_step import SIZES, views

SEEDS = seeds_of([f"image{n}" for n in range(2000)], 3, 0)


def test_half_of_the_views_are_whole_and_of_the_others_a_uniform_part_is_hidden():
    counts = draw_masks(SEEDS, 2, (7, 7), (0.1, 0.5)).flatten(2).sum(dim=-1)
    hidden = counts[counts > 0].float()
    # standard deviations: .008 of the share, .0026 and .0018 of mean and spread of the part
    assert (counts == 0).float().mean().item() == pytest.approx(0.5, abs=0.03)
    assert hidden.min() == round(0.1 * 49) and hidden.max() == round(0.5 * 49)
    assert (hidden / 49).mean().item() == pytest.approx(0.3, abs=0.01)
    assert (hidden / 49).std().item() == pytest.approx(0.4 / 12**0.5, abs=0.01)


@pytest.mark.parametrize(("grid", "part"), [((7, 7), 0.3), ((2, 3), 0.5), ((4, 1), 1.0)])
def test_counts_are_exact(grid, part):
    counts = draw_masks(SEEDS[:200], 2, grid, (part, part)).flatten(2).sum(dim=-1)
    assert set(counts.unique().tolist()) == {0, round(part * grid[0] * grid[1])}


def test_every_block_is_as_likely_as_any_other():
    chosen = draw_masks(SEEDS, 2, (3, 2), (0.5, 0.5))
    share = chosen[chosen.flatten(2).any(dim=-1)].float().mean(dim=0)
    assert share.shape == (3, 2) and share.sub(0.5).abs().max() < 0.05  # standard deviation .011


def test_a_mask_is_its_seeds_own():
    whole = draw_masks(SEEDS[:8], 2, (4, 4), (0.3, 0.5))
    assert torch.equal(draw_masks(SEEDS[5:8], 2, (4, 4), (0.3, 0.5)), whole[:, 5:])
    assert not torch.equal(whole[0], whole[1])  # views are drawn apart
    assert not torch.equal(whole, draw_masks(SEEDS[8:16], 2, (4, 4), (0.3, 0.5)))


def test_masks_and_points_are_drawn_apart():
    """With the same numbers for both, what is hidden would say where points lie."""
    noise = image_noise(SEEDS[:500], 2, 2 + 9)
    same = torch.where(noise[..., 0] < 0.5, 0, 4)[..., None] > noise[..., 2:].argsort(dim=-1).argsort(dim=-1)
    drawn = draw_masks(SEEDS[:500], 2, (3, 3), (4 / 9, 4 / 9)).flatten(2).transpose(0, 1)
    assert 0.3 < (same.any(dim=-1) == drawn.any(dim=-1)).float().mean() < 0.7


def test_only_the_student_is_kept_from_seeing_hidden_blocks_and_of_global_views_alone():
    """The 7 x 7 patches next to a block see 3 pixels of it; what lies deeper inside reaches no cell of F4."""
    torch.manual_seed(0)
    student = Student(create("mevt_tiny", drop_path=0.0, mask_token=True), SIZES)
    teacher, batch = EMATeacher(student), views(images=2)
    mask = torch.zeros(2, 2, 2, 2, dtype=torch.bool)
    mask[0, 1, 0, 1] = True  # of the first view of the second image
    other = {**batch, "global_views": batch["global_views"].clone()}
    other["global_views"][1, 0, :, 3:29, 35:61] += 1
    one, two = look(student, teacher, batch, mask), look(student, teacher, other, mask)
    assert torch.equal(one.student_cells[0], two.student_cells[0])
    assert torch.equal(one.student_maps[0], two.student_maps[0])
    assert torch.equal(one.student_tokens, two.student_tokens)
    assert not torch.equal(one.teacher_cells[0][1], two.teacher_cells[0][1])
    assert torch.equal(one.teacher_cells[0][0], two.teacher_cells[0][0])  # the other image
    seen = look(student, teacher, batch)
    changed = [
        not torch.equal(a[n], b[n]) for a, b in zip(seen.student_cells, one.student_cells, strict=True) for n in (0, 1)
    ]
    assert changed == [False, True] + [False] * 6
    edge = {**batch, "global_views": batch["global_views"].clone()}
    edge["global_views"][1, 0, :, :32, 32:34] += 1  # what the neighbours' patches do see
    assert not torch.equal(look(student, teacher, edge, mask).student_cells[0], one.student_cells[0])
