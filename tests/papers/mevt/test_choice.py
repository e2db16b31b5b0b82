"""Which points the pixel term takes, and how it measures distances."""

import torch

from frugalseg.papers.mevt import distillation
from tests.papers.mevt.test_distillation import DENSE, batch_of, moment_of, setting


def test_the_pixel_term_takes_other_points_and_measures_by_the_longer_side(monkeypatch):
    priorities, radii = [], []
    choose, contrast = distillation.choose_points, distillation.pixel_contrast

    def chosen(matches, priority, most):
        priorities.append(priority)
        return choose(matches, priority, most)

    def contrasted(own, theirs, image, position, radius, **named):
        radii.append(radius)
        return contrast(own, theirs, image, position, radius, **named)

    monkeypatch.setattr(distillation, "choose_points", chosen)
    monkeypatch.setattr(distillation, "pixel_contrast", contrasted)
    rule = {**DENSE, "weights": (0.0, 1.0, 1.0), "most_points": 20, "pixel_points": 20, "radius": 0.25}
    method, student, teacher = setting(rule)
    batch = batch_of()
    method.terms(student, teacher, batch, moment_of(batch))
    assert torch.equal(priorities[1], 1 - priorities[0])
    assert torch.equal(radii[0], torch.full_like(radii[0], 0.25 * int(batch["size"].max())))
