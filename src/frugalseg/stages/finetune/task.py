"""Fine-tuning as a LightningModule: backbone and head learn together from masks."""

from dataclasses import asdict
from typing import Any, ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from lightning.pytorch.utilities.types import OptimizerLRSchedulerConfig
from numpy.typing import NDArray
from torch import Tensor

from frugalseg.batch import IGNORE_INDEX, SegBatch
from frugalseg.errors import ConfigError
from frugalseg.nn.counting import CountsPixels
from frugalseg.nn.features import Backbone
from frugalseg.nn.inputs import padded
from frugalseg.nn.ranks import divided, over_ranks
from frugalseg.nn.units import Norm
from frugalseg.ops.cam import resize
from frugalseg.stages.finetune.inference import Testing, predict, stated
from frugalseg.stages.finetune.net import FineTuneNet, Name
from frugalseg.stages.finetune.optimiser import Optimiser, build, parameter_groups


class FineTune(CountsPixels):
    """Train a whole net on masks and score it (mevt.md d.4).

    Scores are those of whole images at their masks' own pixels, one scale, no mirror image: `val/miou` of the last
    validation, `val/miou_best` of the best.

    Args:
        num_classes: K; the command line links it to the data.
        backbone: where the fine-tuning starts from.
        head: `linear`, the net's own dense features and a 1x1 convolution, so that nothing but the classifier is new;
            `fcn`, convolutions on the same features; `upernet` or `semantic-fpn` on the pyramid of the encoder alone.
        head_options: further arguments of the head.
        norm: `batch` or `group` normalisation in what is new. `batch` should see 8 images or more: on several devices
            set `trainer.sync_batchnorm`.
        frozen_norm: batch normalisation of the backbone is a constant, for small batches.
        auxiliary: weight of the loss of a second head on the third map; 0 for none, .4 in mmseg.
        optimiser: rates and schedule.
        testing: whole images or a sliding window.

    Raises:
        ConfigError: no such head or backbone, a head that the backbone cannot serve, or a window of a size that the
            backbone does not take.
    """

    monitor: ClassVar[str] = "val/miou"
    mode: ClassVar[str] = "max"

    def __init__(
        self,
        num_classes: int = 21,
        backbone: Backbone = Backbone(),  # noqa: B008 - it cannot be changed
        head: Name = "linear",
        head_options: dict[str, Any] | None = None,
        norm: Norm = "batch",
        frozen_norm: bool = False,
        auxiliary: float = 0.0,
        optimiser: Optimiser = Optimiser(),  # noqa: B008 - it cannot be changed
        testing: Testing = Testing(),  # noqa: B008 - it cannot be changed
    ) -> None:
        super().__init__()
        if norm not in ("batch", "group") or auxiliary < 0:
            raise ConfigError(f"model: norm is {norm!r}, auxiliary {auxiliary}; set batch or group, and 0 or more")
        self.save_hyperparameters(ignore=["backbone", "optimiser", "testing"])
        self.net = FineTuneNet(num_classes, backbone, head, head_options, norm, frozen_norm, auxiliary > 0)
        testing.check(self.net.backbone.multiple)
        self.optimiser, self.testing = optimiser, testing
        told = {"features": asdict(backbone), "optimiser": asdict(optimiser), "testing": asdict(testing)}
        self.save_hyperparameters({key: _plain(value) for key, value in told.items()})
        if not self.net.backbone.gives_pyramid:
            self.save_hyperparameters({"width": self.net.backbone.widths[0]})
        self.begin_counting(num_classes)

    # ------------------------------------------------------------------ set-up

    def setup(self, stage: str) -> None:
        """Read the backbone's weights when a new fit begins; a checkpoint brings its own.

        Raises:
            WeightsError: the weights do not fit.
        """
        if stage == "fit" and self.trainer.ckpt_path is None:
            self.net.backbone.load()

    def configure_optimizers(self) -> OptimizerLRSchedulerConfig:
        """AdamW or SGD with a rate per layer, all following one schedule by steps.

        Raises:
            ConfigError: the number of steps is not known.
        """
        steps = self.trainer.estimated_stepping_batches
        if not 0 < steps < float("inf"):
            raise ConfigError("trainer: the number of steps is not known; set max_steps or max_epochs")
        groups = parameter_groups(self.net.backbone, self.net.new(), self.optimiser)
        optimiser, schedule = build(groups, self.optimiser, int(steps))
        return {"optimizer": optimiser, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    # ------------------------------------------------------------------ training

    def training_step(self, batch: SegBatch, batch_idx: int) -> Tensor:
        """Cross entropy at the masks' pixels.

        Raises:
            ConfigError: one image alone, whose average batch normalisation cannot normalise.
        """
        image, truth = batch["image"], batch["mask"].long()
        if self.hparams["head"] == "upernet" and self.hparams["norm"] == "batch" and len(image) == 1:
            raise ConfigError(
                "data.batch_size: head upernet normalises one value per image; give 2 images, or set model.norm group"
            )
        main, auxiliary = self.net.both(padded(image, self.net.backbone.multiple))
        loss = self._cross_entropy(main, truth)
        if auxiliary is not None:
            side = self._cross_entropy(auxiliary, truth)
            self.log("train/loss_auxiliary", side, batch_size=len(image))
            loss = loss + self.hparams["auxiliary"] * side
        self.log("train/loss", loss, batch_size=len(image))
        return loss

    def _cross_entropy(self, logits: Tensor, truth: Tensor) -> Tensor:
        """Mean over the pixels that count, in float32 at the masks' size; padding is cut off."""
        height, width = truth.shape[-2:]
        multiple = self.net.backbone.multiple
        covered = (-(-height // multiple) * multiple, -(-width // multiple) * multiple)
        with torch.autocast(logits.device.type, enabled=False):
            full = resize(logits.float(), covered)[..., :height, :width]
            total = F.cross_entropy(full, truth, ignore_index=IGNORE_INDEX, reduction="sum")
        # a batch without any labelled pixel has loss 0, not NaN
        return divided(total, (truth != IGNORE_INDEX).sum(), over_ranks(self))

    # ------------------------------------------------------------------ validation

    def validation_step(self, batch: SegBatch, batch_idx: int) -> None:
        """Count pixels by true and predicted class."""
        logits = predict(self.net, batch["image"], self.net.backbone.multiple, self.testing)
        self.count(logits.argmax(dim=1), batch["mask"])

    def protocol_metrics(self) -> dict[str, float]:
        """The protocol, as metrics."""
        protocol = {"finetune": 1.0, str(self.hparams["head"]): 1.0, **stated(self.testing)}
        if "width" in self.hparams:
            protocol["width"] = float(self.hparams["width"])
        if self.hparams["auxiliary"]:
            protocol["auxiliary"] = float(self.hparams["auxiliary"])
        return {f"protocol/{key}": value for key, value in protocol.items()}

    def confusion_counts(self) -> dict[str, NDArray[np.int64]]:
        """Counts (K, K) of the last validation, summed over ranks; row = true class."""
        return {"finetune": self._counts.cpu().numpy()}


def _plain(settings: dict[str, Any]) -> dict[str, Any]:
    """Settings as a checkpoint may hold them."""
    return {key: list(value) if isinstance(value, tuple) else value for key, value in settings.items()}
