"""Linear probing as a LightningModule: a head learns on features of a net that does not."""

from dataclasses import asdict
from typing import Any, ClassVar, Literal, cast

import numpy as np
import torch.nn.functional as F
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities.types import OptimizerLRSchedulerConfig
from numpy.typing import NDArray
from torch import Tensor
from torch.optim import SGD, AdamW
from torch.optim.lr_scheduler import LambdaLR, MultiStepLR

from frugalseg.batch import IGNORE_INDEX, SegBatch
from frugalseg.errors import ConfigError
from frugalseg.nn.counting import CountsPixels
from frugalseg.nn.features import Backbone, FrozenBackbone
from frugalseg.nn.inputs import padded, resized
from frugalseg.nn.ranks import divided, over_ranks
from frugalseg.ops.cam import resize
from frugalseg.optim import fused, poly_factor
from frugalseg.stages.probe.cached import FeatureBatch
from frugalseg.stages.probe.heads import FCNHead, LinearHead
from frugalseg.stages.probe.index import CacheIndex
from frugalseg.stages.probe.protocols import PROTOCOLS, Name, logits_at, target


class LinearProbe(CountsPixels):
    """Train a head on frozen features and score it (mevt.md d.2, d.3).

    Scores are those of whole images at the protocol's size: `val/miou` of the last validation, `val/miou_best` of the
    best. The published protocol L reports its best checkpoint; the last one is the honest figure.

    Args:
        num_classes: K; the command line links it to the data.
        backbone: whose features.
        protocol: `L`, `L-cached` (batches of `CachedFeatures`) or `M`; its name goes with the scores.
        head: `linear`, or `fcn`, the small convolutional head on the same frozen features.
        input_size: side of the images instead of the protocol's.
        grid: side of the grid of logits and masks instead of the protocol's.
        lr: instead of the protocol's.
        drop_at: instead of the protocol's 20, for L.
        channels: of the FCN head.

    Raises:
        ConfigError: an unknown protocol, no such backbone, or a size that it does not take.
    """

    monitor: ClassVar[str] = "val/miou"
    mode: ClassVar[str] = "max"

    def __init__(
        self,
        num_classes: int = 21,
        backbone: Backbone = Backbone(),  # noqa: B008 - it cannot be changed
        protocol: Name = "L",
        head: Literal["linear", "fcn"] = "linear",
        input_size: int | None = None,
        grid: int | None = None,
        lr: float | None = None,
        drop_at: int | None = None,
        channels: int = 512,
    ) -> None:
        super().__init__()
        if protocol not in PROTOCOLS:
            raise ConfigError(f"model.protocol is {protocol!r}; set it to one of {', '.join(PROTOCOLS)}")
        self.protocol = PROTOCOLS[protocol]
        self.input_size, self.grid = input_size or self.protocol.input_size, grid or self.protocol.grid
        self.backbone = FrozenBackbone(backbone)
        if self.input_size and self.input_size % self.backbone.multiple:
            raise ConfigError(
                f"model.input_size is {self.input_size}; backbone {backbone.name} needs a multiple of "
                f"{self.backbone.multiple}"
            )
        self.save_hyperparameters(ignore=["backbone"])
        resolved = {"input_size": self.input_size, "grid": self.grid, "width": self.backbone.width}
        self.save_hyperparameters({"features": asdict(backbone), **resolved})
        width, norm = self.backbone.width, self.protocol.norm
        self.head = (
            LinearHead(width, num_classes, norm) if head == "linear" else FCNHead(width, num_classes, norm, channels)
        )
        self.lr, self.drop_at = lr or self.protocol.lr, drop_at or self.protocol.drop_at
        self.begin_counting(num_classes)

    # ------------------------------------------------------------------ Lightning

    def setup(self, stage: str) -> None:
        """Read the backbone's weights; a checkpoint brings its own.

        Raises:
            WeightsError: the weights do not fit.
        """
        if self.trainer.ckpt_path is None:
            self.backbone.load()

    def _check_kept(self) -> None:
        """Refuse kept features that are not those of our backbone, whose weights are here by now."""
        index = getattr(getattr(self.trainer, "datamodule", None), "index", None)
        if isinstance(index, CacheIndex):
            index.check(self.backbone.digest(), self.backbone.width, self.input_size, self.grid)

    def on_fit_start(self) -> None:
        """Look at where kept features come from.

        Raises:
            ConfigError: from another net, or of another size.
        """
        self._check_kept()

    def on_validation_start(self) -> None:
        """Likewise, where nothing is fitted.

        Raises:
            ConfigError: as before.
        """
        if self.trainer.state.fn != TrainerFn.FITTING:
            self._check_kept()

    def configure_optimizers(self) -> OptimizerLRSchedulerConfig:
        """What the protocol says, over the head alone."""
        rules, parameters = self.protocol, self.head.parameters()
        if not rules.adamw:
            sgd = fused(SGD(parameters, lr=self.lr, momentum=rules.momentum, weight_decay=rules.weight_decay))
            return {"optimizer": sgd, "lr_scheduler": {"scheduler": MultiStepLR(sgd, [self.drop_at], 0.1)}}
        adamw = fused(AdamW(parameters, lr=self.lr, weight_decay=rules.weight_decay))
        steps = int(self.trainer.estimated_stepping_batches)
        schedule = LambdaLR(adamw, lambda step: poly_factor(step, steps, rules.power))
        return {"optimizer": adamw, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def logits(self, batch: SegBatch | FeatureBatch) -> Tensor:
        """Logits at the protocol's grid, or at the images' own pixels.

        Args:
            batch: images, or features that are known already.

        Returns:
            (N, K, g, g) or (N, K, H, W) float32.

        Raises:
            ConfigError: images for `L-cached`, or kept features for another protocol.
        """
        if ("features" in batch) != (self.protocol.name == "L-cached"):
            raise ConfigError(
                f"model.protocol is {self.protocol.name}, but the data give kept features; set it to L-cached"
                if "features" in batch
                else "model.protocol is L-cached, but the data give images; run `frugalseg cache` with this "
                "configuration, then fit with --data frugalseg.stages.probe.CachedFeatures --data.init_args.index FILE"
            )
        if "features" in batch:
            features, size, covered = cast(FeatureBatch, batch)["features"].float(), None, None
        else:
            image = batch["image"]
            image = image if self.input_size is None else resized(image, (self.input_size, self.input_size))
            whole = padded(image, self.backbone.multiple)
            size, covered = tuple(image.shape[-2:]), tuple(whole.shape[-2:])
            features = self.backbone.dense(whole)
        if self.grid is not None:
            size = covered = (self.grid, self.grid)
            if not self.head.pointwise:
                features = resize(features.float(), size)
        return logits_at(self.head(features), cast(tuple[int, int], size), cast(tuple[int, int], covered))

    def target(self, batch: SegBatch | FeatureBatch) -> Tensor:
        """True classes where `logits` are; (N, g, g) or (N, H, W) int64."""
        mask = batch["mask"].long()
        return mask if "features" in batch else target(mask, self.input_size, self.grid)

    def training_step(self, batch: SegBatch | FeatureBatch, batch_idx: int) -> Tensor:
        """Cross entropy over the pixels that count."""
        truth = self.target(batch)
        total = F.cross_entropy(self.logits(batch), truth, ignore_index=IGNORE_INDEX, reduction="sum")
        # a batch without any labelled pixel has loss 0, not NaN
        loss = divided(total, (truth != IGNORE_INDEX).sum(), over_ranks(self))
        self.log("train/loss", loss, batch_size=len(truth))
        return loss

    def validation_step(self, batch: SegBatch | FeatureBatch, batch_idx: int) -> None:
        """Count pixels by true and predicted class."""
        prediction = self.logits(batch).argmax(dim=1)
        self.count(prediction, self.target(batch))

    def protocol_metrics(self) -> dict[str, float]:
        """The protocol, as metrics."""
        settings: dict[str, Any] = {"width": self.backbone.width, "input_size": self.input_size, "grid": self.grid}
        stated = {f"protocol/{key}": float(value) for key, value in settings.items() if value is not None}
        return {
            f"protocol/{self.protocol.name}": 1.0,
            **stated,
        }

    def confusion_counts(self) -> dict[str, NDArray[np.int64]]:
        """Counts (K, K) of the last validation, summed over ranks; row = true class."""
        return {"probe": self._counts.cpu().numpy()}
