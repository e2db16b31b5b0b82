"""Backbones and worlds small enough to know what must come out."""

import torch
import torch.nn.functional as F
from lightning.pytorch import Trainer
from torch import nn
from torch.utils.data import DataLoader

CLASSES, SIDE, STRIDE = 5, 32, 4


class OneHot(nn.Module):
    """Reads the class that `truthful` hid in the image: ground truth as features."""

    def __init__(self, classes=CLASSES):
        super().__init__()
        self.width = classes

    def dense(self, image):
        ids = F.avg_pool2d(image[:, :1], STRIDE)[:, 0].round().long()
        return F.one_hot(ids.clamp(0, self.width - 1), self.width).permute(0, 3, 1, 2).float()


class Pooled(nn.Module):
    """Averages of the image under a fixed convolution."""

    def __init__(self, width=6):
        super().__init__()
        self.width = width
        self.conv = nn.Conv2d(3, width, STRIDE, stride=STRIDE)

    def dense(self, image):
        return self.conv(image)


class NoDense(nn.Module):
    width = 3


def truth(seed, count=1, side=SIDE, majority=0.7):
    """(N, S, S) masks of 8-pixel blocks, with a majority class 0 and a frame of ignored pixels."""
    g = torch.Generator().manual_seed(seed)
    blocks = torch.randint(1, CLASSES, (count, side // 8, side // 8), generator=g)
    blocks[torch.rand(blocks.shape, generator=g) < majority] = 0
    mask = blocks.repeat_interleave(8, 1).repeat_interleave(8, 2)
    mask[:, :1], mask[:, :, :1] = 255, 255
    return mask


def truthful(mask):
    """Images that hold the class ids, those below the ignored frame too."""
    filled = mask.clone()
    filled[:, 0], filled[:, :, 0] = filled[:, 1], filled[:, :, 1]
    filled[:, 0, 0] = filled[:, 1, 1]
    return filled[:, None].expand(-1, 3, -1, -1).float()


def world(images, seed, kind="truth", batch=1):
    """Batches of `truthful` images, or of pure noise that knows nothing of the masks."""
    masks = truth(seed, images)
    noise = torch.randn(images, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(seed + 1))
    pictures = truthful(masks) if kind == "truth" else noise
    return [
        {
            "id": [f"{seed}-{i}" for i in range(at, min(at + batch, images))],
            "image": pictures[at : at + batch],
            "mask": masks[at : at + batch],
            "box": torch.tensor([[0, 0, SIDE, SIDE]]).expand(min(batch, images - at), 4),
        }
        for at in range(0, images, batch)
    ]


def loader(batches):
    return DataLoader(batches, batch_size=None)


def trainer(epochs=1, **more):
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
    more = {"enable_checkpointing": False, "num_sanity_val_steps": 0, **more}
    return Trainer(accelerator="cpu", devices=1, max_epochs=epochs, **quiet, **more)


def own(name, multiple=STRIDE, **options):
    from frugalseg.nn.features import Backbone

    return Backbone(f"tests.stages.toys:{name}", multiple=multiple, options=options)
