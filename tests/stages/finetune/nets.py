"""Nets with everything that fine-tuning asks for, small enough for tests."""

import torch
from torch import nn

from frugalseg.nn.features import Backbone
from tests.stages.toys import CLASSES, SIDE, STRIDE, world

MEVT = "frugalseg.papers.mevt.model:create"
TINY_MEVT = Backbone(MEVT, options={"preset": "mevt_tiny", "drop_path": 0.0})
TINY_VIT = Backbone("vit_tiny_patch16_224", options={"embed_dim": 16, "depth": 4, "num_heads": 2, "img_size": 32})
TINY_SWIN = Backbone(
    "swin_tiny_patch4_window7_224", options={"embed_dim": 16, "depths": (1, 1, 2, 1), "num_heads": (1, 2, 2, 4)}
)
TINY_RESNET = Backbone("resnet18", options={"layers": [1, 1, 1, 1], "channels": [8, 8, 16, 24]})


class Stages(nn.Module):
    """Four stages of one convolution each, and a decoder that the pyramid does without."""

    def __init__(self, width=8):
        super().__init__()
        self.width, self.pyramid_widths = width, (width,) * 4
        self.stem = nn.Conv2d(3, width, STRIDE, STRIDE)
        self.stages = nn.ModuleList(nn.Conv2d(width, width, 2, 2) for _ in range(3))
        self.decoder = nn.Conv2d(width, width, 3, padding=1)

    def pyramid(self, image):
        maps = [self.stem(image)]
        for stage in self.stages:
            maps.append(stage(maps[-1].relu()))
        return tuple(maps)

    def dense(self, image):
        maps = self.pyramid(image)
        up = nn.functional.interpolate(maps[-1], size=maps[0].shape[-2:])
        return self.decoder((maps[0] + up).relu())


def stages(**options):
    return Backbone("tests.stages.finetune.nets:Stages", options=options)


def four_images(seed=1):
    """The same four images as one batch to learn, and one by one to score."""
    singles = world(4, seed)
    joined = {key: torch.cat([each[key] for each in singles]) for key in ("image", "mask", "box")}
    return {"id": [each["id"][0] for each in singles], **joined}, singles


__all__ = ["CLASSES", "SIDE", "Stages", "four_images", "stages"]
