"""Small nets and short trainings that show whether a task can be learned; one CPU thread, seconds."""

from collections.abc import Callable, Iterable, Iterator
from itertools import count, islice

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from frugalseg.batch import SegBatch
from frugalseg.data.module import SegmentationData
from frugalseg.ops.confusion import confusion_matrix, mean_iou


class Block(nn.Module):
    """Two 3x3 convolutions around a shortcut."""

    def __init__(self, width: int, dilation: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(width, width, 3, padding=dilation, dilation=dilation, bias=False),
            nn.BatchNorm2d(width),
            nn.ReLU(),
            nn.Conv2d(width, width, 3, padding=1, bias=False),
            nn.BatchNorm2d(width),
        )

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(x + self.layers(x))


class SmallNet(nn.Module):
    """Stem of stride 4, blocks of growing reach, a linear head; `body` gives features (N, width, H / 4, W / 4)."""

    def __init__(self, outputs: int, width: int = 48, dilations: tuple[int, ...] = (1, 2, 4)) -> None:
        super().__init__()
        stem: list[nn.Module] = []
        for inputs, channels in ((3, width // 2), (width // 2, width)):
            stem += [
                nn.Conv2d(inputs, channels, 3, stride=2, padding=1, bias=False),
                nn.BatchNorm2d(channels),
                nn.ReLU(),
            ]
        self.body = nn.Sequential(*stem, *(Block(width, dilation) for dilation in dilations))
        self.head = nn.Conv2d(width, outputs, 1)

    def forward(self, image: Tensor) -> Tensor:
        """(N, 3, H, W) -> logits (N, outputs, H, W)."""
        return F.interpolate(self.head(self.body(image)), size=image.shape[-2:], mode="bilinear", align_corners=False)


def training_batches(data: SegmentationData) -> Iterator:
    """Batches of epoch after epoch, as Lightning would ask for them."""
    loader = data.train_dataloader()
    for epoch in count():
        loader.sampler.set_epoch(epoch)
        yield from loader


def train(
    data: SegmentationData, parameters: Iterable[nn.Parameter], loss_of: Callable, steps: int, rate: float = 3e-3
) -> list[float]:
    """Take AdamW steps with a warm-up and a cosine; returns the losses."""
    parameters = list(parameters)
    optimizer = torch.optim.AdamW(parameters, lr=rate, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, total_steps=steps, pct_start=0.1)
    losses = []
    for batch in islice(training_batches(data), steps):
        loss = loss_of(batch)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(parameters, 3.0)
        optimizer.step()
        schedule.step()
        losses.append(loss.item())
    return losses


@torch.no_grad()
def untrained(net: SmallNet, images: Iterable[Tensor]) -> SmallNet:
    """Give a net that has learned nothing the BatchNorm statistics of 20 batches: the control for frozen features."""
    for image in islice(images, 20):
        net.train()(image)
    return net.eval()


def segmenter(data: SegmentationData, steps: int, seed: int, shuffled: bool = False) -> SmallNet:
    """Train a net on masks; `shuffled` gives every image the mask of another one: where things are at large, not what."""
    torch.manual_seed(seed)
    net = SmallNet(data.num_classes)

    def loss(batch: SegBatch) -> Tensor:
        mask = batch["mask"].roll(1, dims=0) if shuffled else batch["mask"]
        return F.cross_entropy(net(batch["image"]), mask, ignore_index=255)

    train(data, net.parameters(), loss, steps)
    return net.eval()


@torch.no_grad()
def score(data: SegmentationData, predict: Callable[[Tensor], Tensor], mirror: bool = False) -> float:
    """mIoU on the validation split.

    Args:
        data: with recipe `Segment`.
        predict: image (1, 3, H, W) -> class ids (1, H, W).
        mirror: compare with masks mirrored left to right.
    """
    total = torch.zeros(data.num_classes, data.num_classes, dtype=torch.int64)
    for batch in data.val_dataloader():
        mask = batch["mask"].flip(-1) if mirror else batch["mask"]
        total += confusion_matrix(predict(batch["image"]), mask, data.num_classes)
    return mean_iou(total)


def most_frequent(data: SegmentationData) -> int:
    """The class with the most pixels in the validation masks."""
    masks = (batch["mask"][batch["mask"] != 255] for batch in data.val_dataloader())
    return int(sum(torch.bincount(mask, minlength=data.num_classes) for mask in masks).argmax())


def average_precision(scores: Tensor, truth: Tensor) -> tuple[float, float]:
    """Mean over the classes that occur of average precision, and of what chance gives: their frequency.

    Args:
        scores: (N, C).
        truth: (N, C) of 0 and 1.
    """
    found = []
    for column, true in zip(scores.T, truth.T, strict=True):
        hits = true[column.argsort(descending=True)].numpy()
        if hits.any():
            precision = np.cumsum(hits) / np.arange(1, len(hits) + 1)
            found.append((precision[hits > 0].mean(), hits.mean()))
    return float(np.mean([ap for ap, _ in found])), float(np.mean([chance for _, chance in found]))
