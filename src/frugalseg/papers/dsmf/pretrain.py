"""Pretrain DSMF-Net's backbone from nothing: segment the base classes of a fold, densely and with full masks.

It stands in for ImageNet weights where there are none (miniature.md B.2); the paper itself takes ImageNet's.
"""

from collections.abc import Sequence
from typing import Any, ClassVar, cast

import numpy as np
import torch
from lightning.pytorch import LightningModule
from lightning.pytorch.utilities.types import OptimizerLRSchedulerConfig
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.optim.lr_scheduler import CosineAnnealingLR

from frugalseg.batch import IGNORE_INDEX, SegBatch
from frugalseg.errors import ConfigError
from frugalseg.nn.dilated import dilated
from frugalseg.nn.ranks import over_ranks
from frugalseg.nn.weights import load_backbone_weights
from frugalseg.ops.cam import resize
from frugalseg.ops.confusion import confusion_matrix, mean_iou
from frugalseg.ops.precision import at_least_float32
from frugalseg.optim import fused
from frugalseg.papers.dsmf.losses import weighted_cross_entropy


def base_classes(num_classes: int, novel: Sequence[int]) -> tuple[int, ...]:
    """The classes that are not novel, in ascending order; class 0 is the background in benchmarks that have one.

    Args:
        num_classes: K, background included.
        novel: class ids to leave out.

    Raises:
        ConfigError: an id is not that of a class, stands twice, or no class is left.
    """
    key = "model.init_args.novel"
    if wrong := [c for c in novel if not 0 <= c < num_classes]:
        raise ConfigError(f"{key}: {wrong[0]} is no class of the benchmark; give ids from 0 to {num_classes - 1}")
    if len(set(novel)) < len(novel):
        raise ConfigError(f"{key}: {list(novel)} names a class twice; give each id once")
    base = tuple(c for c in range(num_classes) if c not in novel)
    if len(base) < 2:
        raise ConfigError(f"{key}: {list(novel)} leaves no class to learn; give the classes of one fold")
    return base


class BaseNet(nn.Module):
    """A learning backbone and one 1x1 convolution on its last two stages.

    Args:
        outputs: number of base classes, background included.
        backbone: a ResNet of timm, or `vgg16_bn`.
        backbone_options: further arguments of `DilatedResNet` or `DilatedVGG`.
    """

    def __init__(
        self, outputs: int, backbone: str = "resnet50", backbone_options: dict[str, Any] | None = None
    ) -> None:
        super().__init__()
        self.backbone = dilated(backbone, {**(backbone_options or {}), "frozen": False})
        self.head = nn.Conv2d(sum(self.backbone.channels[2:]), outputs, 1)

    def forward(self, image: Tensor) -> Tensor:
        """Logits at the size of the image, resized with aligned corners.

        Args:
            image: (N, 3, H, W) normalised.

        Returns:
            (N, outputs, H, W), at least float32.
        """
        stages = self.backbone(image)
        logits = at_least_float32(self.head(torch.cat([stages.c3, stages.c4], dim=1)))
        return resize(logits, (image.shape[-2], image.shape[-1]), align_corners=True)


class BasePretrain(LightningModule):
    """Learn a backbone on the base classes of one fold, with AdamW and a cosine schedule.

    Labels of novel classes are never read: there is no output for them, and their pixels are ignored in the loss and in
    the scores, neither a class nor background. Images that hold them are not dropped here, so that their pixels are
    seen, unlabelled; to drop the images is the benchmark's protocol. `DSMF` takes the result as `weights`, given the
    checkpoint's path and the same `backbone` and `backbone_options`.

    Args:
        num_classes: K of the benchmark, background included; the command line links it to the data.
        novel: class ids that the fold tests; empty where every class may be learned. The command line links it to the
            data's fold.
        backbone: a timm ResNet, or `vgg16_bn`.
        weights: timm name, file, or null; read when a new fit begins.
        backbone_options: as of `DSMF`; the backbone learns whatever they say.
        lr: initial rate of AdamW.
        weight_decay: decoupled, of AdamW.
        background_weight: of class 0's pixels in the loss, which are the background's; those of classes weigh 1. Set it
            to 1 for benchmarks without background, such as DLRSD.

    Attributes:
        base: ids of background (where there is one) and base classes, in the order of the net's outputs.

    Raises:
        ConfigError: a setting makes no sense.
    """

    monitor: ClassVar[str] = "val/miou"
    mode: ClassVar[str] = "max"

    def __init__(
        self,
        num_classes: int,
        novel: Sequence[int],
        backbone: str = "resnet50",
        weights: str | None = None,
        backbone_options: dict[str, Any] | None = None,
        lr: float = 3e-3,
        weight_decay: float = 0.01,
        background_weight: float = 0.4,
    ) -> None:
        super().__init__()
        self.save_hyperparameters()
        for key, value in (("lr", lr), ("background_weight", background_weight)):
            if value <= 0:
                raise ConfigError(f"model.init_args.{key} is {value}: set it to a number above 0")
        self.base = base_classes(num_classes, novel)
        self.net = BaseNet(len(self.base), backbone, backbone_options)
        ids = torch.tensor(self.base)
        # mask value -> output, for each value of a byte; those that are no class have been refused by the reader
        outputs = torch.full((256,), IGNORE_INDEX).scatter(0, ids, torch.arange(len(ids)))
        self.register_buffer("ids", ids, False)
        self.register_buffer("outputs", outputs, False)
        self.register_buffer("confusion", torch.zeros(num_classes, num_classes, dtype=torch.int64), False)
        self._ddp_params_and_buffers_to_ignore = ["confusion"]

    # ------------------------------------------------------------------ training

    def on_fit_start(self) -> None:
        """Read the backbone's weights when a new fit begins; a resumed one has them in its checkpoint."""
        if self.trainer.ckpt_path is None:
            load_backbone_weights(self.net.backbone, self.hparams["weights"])

    def configure_optimizers(self) -> OptimizerLRSchedulerConfig:
        """AdamW, cosine over all steps.

        Raises:
            ConfigError: the number of steps is not known.
        """
        steps = self.trainer.estimated_stepping_batches
        if not 0 < steps < float("inf"):
            raise ConfigError("trainer: the number of steps is not known; set max_steps or max_epochs")
        h = self.hparams
        optimiser = fused(torch.optim.AdamW(self.parameters(), lr=h["lr"], weight_decay=h["weight_decay"]))
        schedule = CosineAnnealingLR(optimiser, int(steps))
        return {"optimizer": optimiser, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def target(self, mask: Tensor) -> Tensor:
        """Numbers of the outputs in place of class ids; novel classes become 255.

        Args:
            mask: (N, H, W) int64, class ids of the benchmark and 255.
        """
        return cast(Tensor, self.outputs)[mask]

    def loss(self, batch: SegBatch) -> Tensor:
        """Weighted cross-entropy of background and base classes."""
        weights = [self.hparams["background_weight"] if c == 0 else 1.0 for c in self.base]
        return weighted_cross_entropy(self.net(batch["image"]), self.target(batch["mask"]), weights, over_ranks(self))

    def training_step(self, batch: SegBatch, batch_idx: int) -> Tensor:
        """One batch."""
        loss = self.loss(batch)
        self.log("train/loss", loss, batch_size=len(batch["id"]))
        return loss

    # ------------------------------------------------------------------ validation

    def on_validation_epoch_start(self) -> None:
        """Begin with empty counts."""
        cast(Tensor, self.confusion).zero_()

    def validation_step(self, batch: SegBatch, batch_idx: int) -> None:
        """Count the pixels of one batch by true and predicted class, in ids of the benchmark."""
        ids, confusion = cast(Tensor, self.ids), cast(Tensor, self.confusion)
        predicted = ids[self.net(batch["image"]).argmax(dim=1)]
        mask = batch["mask"]
        counted = torch.where(self.target(mask) == IGNORE_INDEX, IGNORE_INDEX, mask)
        confusion += confusion_matrix(predicted, counted, len(confusion)).to(confusion.device)

    def on_validation_epoch_end(self) -> None:
        """Sum the integer counts over ranks, then divide: exact however the images were dealt out.

        Raises:
            ConfigError: no pixel of background or a base class was seen.
        """
        # a copy: the buffer counts on, and what was handed out would change with it
        counts = cast(Tensor, self.confusion).clone()
        if self.trainer.world_size > 1:
            counts = cast(Tensor, self.trainer.strategy.reduce(counts, reduce_op="sum"))
        if not counts.any() and not self.trainer.sanity_checking:
            raise ConfigError(
                f"data: no pixel of classes {list(self.base)} was validated; "
                "raise trainer.limit_val_batches, or take model.init_args.novel from the data's fold"
            )
        # novel classes have neither true nor predicted pixels, so that the mean leaves them out
        self.log("val/miou", mean_iou(counts), rank_zero_only=False)
        self._counts = counts

    def confusion_counts(self) -> dict[str, NDArray[np.int64]]:
        """Counts (K, K) of the last validation, summed over ranks; row = true class; 0 for novel classes."""
        return {"segment": self._counts.cpu().numpy()}
