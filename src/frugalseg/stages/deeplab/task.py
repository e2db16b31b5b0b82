"""The segmenter as a LightningModule: training on true masks or pseudo labels, validation, prediction."""

from collections.abc import Sequence
from typing import Any, ClassVar, Literal, cast

import numpy as np
import torch
from lightning.pytorch import LightningModule
from lightning.pytorch.utilities.types import OptimizerLRSchedulerConfig
from numpy.typing import NDArray
from torch import Tensor

from frugalseg.batch import ScalesBatch, SegBatch
from frugalseg.errors import ConfigError
from frugalseg.nn.ranks import over_ranks
from frugalseg.nn.weights import load_backbone_weights
from frugalseg.ops.confusion import confusion_matrix, mean_iou
from frugalseg.optim import poly_sgd
from frugalseg.stages.deeplab.groups import parameter_groups
from frugalseg.stages.deeplab.inference import Inference, merge_passes, refine
from frugalseg.stages.deeplab.losses import scales_logits, scales_loss
from frugalseg.stages.deeplab.model import DeepLabNet
from frugalseg.stages.deeplab.passes import Passes


class DeepLab(LightningModule):
    """Train a segmentation net of the DeepLab family and predict masks with it (sfc.md 8, cti.md 9).

    It trains on the masks of its batches: the benchmark's own, or those that `data.pseudo_labels` lays over them.

    Args:
        num_classes: K, background included; the command line links it to the data.
        backbone: `resnet38d`, or a name of timm.
        weights: timm name, file, or null for the backbone; read when a new fit begins.
        head: `largefov`, `v2` (sum of dilated convolutions) or `v3plus`.
        output_stride: pixels per cell of the last features.
        strides: five steps of a ResNet without dilation instead of an output stride.
        frozen_norm: batch normalisation of the backbone is a constant, scale and shift included; for small batches.
        backbone_options: further arguments of the backbone.
        head_options: further arguments of the head.
        train_scales: sizes at which each training batch is seen. With more than one, the largest logits over scales
            are trained too and the losses are summed; deeplab-pytorch has [1.0, 0.5, 0.75].
        loss_at: where logits and labels meet. `logits` reduces the labels (deeplab-pytorch), `mask` resizes the logits
            (the ResNet-38 codes).
        lr: initial rate of the backbone.
        head_lr_factor: rate of the head over that of the backbone.
        bias_lr_factor: rate of the biases of the head's convolutions over that of the backbone.
        momentum: of SGD. The published ResNet-38 code of cti.md 9 hands its weight decay to this argument, so that it
            trains with momentum 1e-5 and without any decay.
        weight_decay: L2 factor; the head's biases have none.
        power: exponent of the polynomial decay, which goes by optimiser steps.
        inference: how predictions are made.
    """

    monitor: ClassVar[str] = "val/miou"
    mode: ClassVar[str] = "max"
    confusion: Tensor

    def __init__(
        self,
        num_classes: int = 21,
        backbone: str = "resnet101",
        weights: str | None = "resnet101.tv_in1k",
        head: Literal["largefov", "v2", "v3plus"] = "v2",
        output_stride: int = 8,
        strides: Sequence[int] | None = None,
        frozen_norm: bool = True,
        backbone_options: dict[str, Any] | None = None,
        head_options: dict[str, Any] | None = None,
        train_scales: Sequence[float] = (1.0,),
        loss_at: Literal["logits", "mask"] = "logits",
        lr: float = 2.5e-4,
        head_lr_factor: float = 10.0,
        bias_lr_factor: float = 20.0,
        momentum: float = 0.9,
        weight_decay: float = 5e-4,
        power: float = 0.9,
        inference: Inference = Inference(),  # noqa: B008 - it cannot be changed
    ) -> None:
        super().__init__()
        if not train_scales or min(train_scales) <= 0:
            raise ValueError(f"train_scales must be one or more numbers above 0, got {list(train_scales)}")
        self.save_hyperparameters(ignore=["inference"])
        self.net = DeepLabNet(
            num_classes, backbone, head, output_stride, strides, frozen_norm, backbone_options, head_options
        )
        self.inference = inference
        self.passes = Passes(self.net, inference.window, inference.overlap, inference.max_pixels)
        self.register_buffer("confusion", torch.zeros(num_classes, num_classes, dtype=torch.int64), False)

    # ------------------------------------------------------------------ set-up

    def on_fit_start(self) -> None:
        """Read initial weights when a new fit begins; a resumed one has them in its checkpoint.

        Raises:
            WeightsError: the weights do not fit.
        """
        if self.trainer.ckpt_path is None:
            load_backbone_weights(self.net.backbone.net, self.hparams["weights"])

    def configure_optimizers(self) -> OptimizerLRSchedulerConfig:
        """SGD with a rate each for backbone, head and the head's biases, polynomial decay per step."""
        h = self.hparams
        groups = parameter_groups(self.net, h["lr"], h["weight_decay"], h["head_lr_factor"], h["bias_lr_factor"])
        steps = int(self.trainer.estimated_stepping_batches)
        optimiser, schedule = poly_sgd(
            [(group.parameters, group.lr) for group in groups], steps, h["weight_decay"], h["momentum"], h["power"]
        )
        for settings, group in zip(optimiser.param_groups, groups, strict=True):
            settings["weight_decay"] = group.weight_decay
        return {"optimizer": optimiser, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    # ------------------------------------------------------------------ training

    def training_step(self, batch: SegBatch, batch_idx: int) -> Tensor:
        """Cross entropy at all training scales.

        Raises:
            ConfigError: a single image, whose pooled features batch normalisation cannot normalise.
        """
        if self.hparams["head"] == "v3plus" and len(batch["image"]) == 1:
            raise ConfigError("data.batch_size: head v3plus normalises one value per image; give at least 2 images")
        logits = scales_logits(self.net, batch["image"], self.hparams["train_scales"])
        loss = scales_loss(logits, batch["mask"], self.hparams["loss_at"] == "mask", over_ranks(self))
        self.log("train/loss", loss, batch_size=len(batch["image"]))
        return loss

    # ------------------------------------------------------------------ validation

    def on_validation_epoch_start(self) -> None:
        """Begin with empty counts."""
        self.confusion.zero_()

    def validation_step(self, batch: SegBatch, batch_idx: int) -> dict[str, Tensor]:
        """Score whole images at one scale.

        Returns:
            `maps` (k, H, W), probabilities of the background and of the classes that are predicted, and `keys` (k,),
            for the pictures callback.
        """
        image, mask = batch["image"], batch["mask"][0]
        size = (image.shape[-2], image.shape[-1])
        probabilities = merge_passes([self.passes(image, batch["id"][0])], size)
        prediction = probabilities.max(dim=0).indices
        self.confusion += confusion_matrix(prediction, mask, len(self.confusion)).to(self.confusion.device)
        keys = torch.unique(torch.cat([prediction.new_zeros(1), prediction.flatten()]))
        return {"maps": probabilities[keys], "keys": keys}

    def on_validation_epoch_end(self) -> None:
        """Sum the integer counts over ranks, then divide: exact however the images were dealt out."""
        counts = self.confusion
        if self.trainer.world_size > 1:
            counts = cast(Tensor, self.trainer.strategy.reduce(counts.clone(), reduce_op="sum"))
        self.log("val/miou", mean_iou(counts), rank_zero_only=False, sync_dist=False)
        self._counts = counts

    def confusion_counts(self) -> dict[str, NDArray[np.int64]]:
        """Counts (K, K) of the last validation, summed over ranks; row = true class."""
        return {"segment": self._counts.cpu().numpy()}

    # ------------------------------------------------------------------ prediction

    def probabilities(self, batch: ScalesBatch) -> Tensor:
        """Merge all scales of one image.

        Args:
            batch: of the recipe `MultiScale`.

        Returns:
            (K, H, W) float32.
        """
        settings, name = self.inference, batch["id"][0]
        pairs = batch["images"] if settings.mirror else [pair[:1] for pair in batch["images"]]
        passes = (self.passes(pair, name, pair.shape[-2] / batch["size"][0]) for pair in pairs)
        return merge_passes(passes, batch["size"], settings.merge, settings.of)

    def predict_step(self, batch: ScalesBatch, batch_idx: int) -> dict[str, Any]:
        """Predict the mask of one image.

        Returns:
            `id` and `masks`: `masks` (H, W) uint8 class ids and, where the CRF is on, `masks-crf` likewise.
        """
        probabilities = self.probabilities(batch)
        masks = {"masks": probabilities.max(dim=0).indices.to(torch.uint8)}
        if self.inference.crf:
            masks["masks-crf"] = refine(batch["pixels"], probabilities, self.inference).to(torch.uint8)
        return {"id": batch["id"][0], "masks": masks}
