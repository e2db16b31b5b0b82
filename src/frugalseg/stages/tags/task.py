"""Train a backbone from scratch to name what is in an image."""

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from lightning.pytorch import LightningModule
from lightning.pytorch.utilities.types import OptimizerLRSchedulerConfig
from torch import Tensor
from torchmetrics.classification import MultilabelAveragePrecision

from frugalseg.batch import TagBatch
from frugalseg.optim import fused
from frugalseg.stages.tags.model import TagNet


class TagClassifier(LightningModule):
    """Multi-label classification with AdamW and a cosine schedule.

    Args:
        num_classes: background included, as data modules count; the net has one output less.
        backbone: a timm ResNet.
        strides: step of stem and layers.
        backbone_options: further arguments of the timm model.
        lr: peak learning rate.
        weight_decay: AdamW's.
        half_every: every n-th step sees images of half the size, so that the features serve two scales; 0 for never.
    """

    monitor: ClassVar[str] = "val/map"
    mode: ClassVar[str] = "max"

    def __init__(
        self,
        num_classes: int,
        backbone: str = "resnet50",
        strides: Sequence[int] = (4, 1, 2, 2, 2),
        backbone_options: dict[str, Any] | None = None,
        lr: float = 3e-3,
        weight_decay: float = 0.01,
        half_every: int = 3,
    ) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.net = TagNet(num_classes - 1, backbone, strides, backbone_options)
        self.precision = MultilabelAveragePrecision(num_labels=num_classes - 1, average="macro")

    def configure_optimizers(self) -> OptimizerLRSchedulerConfig:
        """AdamW, cosine over all steps."""
        h = self.hparams
        optimiser = fused(torch.optim.AdamW(self.parameters(), lr=h["lr"], weight_decay=h["weight_decay"]))
        steps = int(self.trainer.estimated_stepping_batches)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps)
        return {"optimizer": optimiser, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def training_step(self, batch: TagBatch, batch_idx: int) -> Tensor:
        """Sigmoid cross-entropy of the tags."""
        image, every = batch["image"], self.hparams["half_every"]
        if every and self.global_step % every == every - 1:
            image = F.interpolate(image, scale_factor=0.5, mode="bilinear", align_corners=False)
        loss = F.binary_cross_entropy_with_logits(self.net(image), batch["tags"])
        self.log("train/loss", loss, batch_size=len(image))
        return loss

    def validation_step(self, batch: TagBatch, batch_idx: int) -> None:
        """Collect scores for the mean average precision over tags."""
        self.precision.update(self.net(batch["image"]).sigmoid(), batch["tags"].long())

    def on_validation_epoch_end(self) -> None:
        """Log the mean average precision."""
        self.log("val/map", self.precision.compute())
        self.precision.reset()
