"""What refinement by CRF works on, and how it tells of itself."""

from types import SimpleNamespace

import torch
from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD

from frugalseg.stages.cluster import refine


def test_every_grey_level_comes_back():
    pixels = torch.arange(256, dtype=torch.uint8).view(16, 16, 1).repeat(1, 1, 3)
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in (IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD))
    image = (pixels.permute(2, 0, 1).float() / 255 - mean) / std
    assert torch.equal(refine.colours(image, IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD), pixels)


def test_a_teller_speaks_once_in_its_time(monkeypatch, caplog):
    now = iter([0.0, 5.0, 14.0, 15.0, 16.0])
    monkeypatch.setattr(refine, "time", SimpleNamespace(monotonic=lambda: next(now)))
    with caplog.at_level("INFO", logger=refine.__name__):
        tell = refine.teller("images", 8, every=15.0)
        for done in (1, 2, 3, 4):
            tell(done)
    assert [record.getMessage() for record in caplog.records] == ["images 3/8, 25 s left"]
