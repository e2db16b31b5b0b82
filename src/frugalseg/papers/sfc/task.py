"""SFC as a LightningModule: the training step, its schedule, single-scale validation and multi-scale maps."""

import os
from collections.abc import Sequence
from typing import Any, ClassVar, NamedTuple, cast

import numpy as np
import torch
from lightning.pytorch import LightningModule
from lightning.pytorch.utilities.types import OptimizerLRSchedulerConfig
from numpy.typing import NDArray
from torch import Tensor

from frugalseg.batch import CountsClasses, ScalesBatch, TagBatch
from frugalseg.errors import ConfigError
from frugalseg.nn.backbone import Stages
from frugalseg.nn.weights import load_backbone_weights
from frugalseg.ops.cam import box_mask, labels_from_maps, normalise, resize
from frugalseg.ops.confusion import confusion_matrix, mean_iou
from frugalseg.optim import poly_sgd, trainable
from frugalseg.papers.sfc import losses
from frugalseg.papers.sfc.bank import ImageBank
from frugalseg.papers.sfc.inference import class_maps
from frugalseg.papers.sfc.model import SFCNet, half_size

VALIDATED = ("m0", "mw", "mp", "sum")
"""Maps whose single-scale score is measured while training."""


class Losses(NamedTuple):
    """Terms of one step, each with its weight, and their sum (sfc.md 4.5)."""

    classification: Tensor
    prototype: Tensor
    scale: Tensor
    total: Tensor


def _grid(stages: Stages) -> tuple[int, int]:
    """(h, w) of the maps."""
    return stages.layer4.shape[-2], stages.layer4.shape[-1]


class SFC(LightningModule):
    """Train SFC from image tags, score its maps, and write maps of several scales.

    The baseline of the paper's ablations is this task with `bank_draws: 0`, `prototype_weight: 0` and
    `scale_weight: 0`: a plain classifier at two scales.

    Args:
        num_classes: K, background included; the command line links it to the data.
        backbone: a timm ResNet.
        weights: timm name, file, or null; read when a new fit begins.
        strides: step of stem and layers, see `ResNetStages`.
        side: depth of the side convolutions.
        embedding: depth of f9; null for that of layer4.
        backbone_options: further arguments of the timm model.
        centre_features: subtract spatial means before cosines; departs from the paper, for small nets.
        background_factor: background's handicap in the prototype masks.
        lr: initial rate of the backbone.
        head_lr: initial rate of the heads.
        momentum: 1e-4 is what the authors' optimiser really uses (sfc.md, trap 2); 0.9 would be a true momentum.
        weight_decay: L2 factor.
        power: exponent of the polynomial decay.
        prototype_weight: factor of L_P.
        scale_weight: factor of L_W.
        use_class_weights: weight both consistency terms by the distribution coefficient; false weights all classes 1.
        bank_draws: images drawn from the bank per step; 0 turns the bank off.
        bank_bonus: r of the class weights; null computes steps x draws x 3 / (epochs x C) of section 4.2.
        calibration_start: step at which the bank is drawn from and both consistency terms begin; 0 in the paper.
        bank_start: step at which the bank begins to be filled.
        seed: of the bank's draws, which depend on it and on the step alone; null takes the run's.
        save_logits: keep the class logits at scale 1 beside the maps, for analysis.
        max_pixels: an input with more pixels is looked at tile by tile, which gives the same maps in less memory.
    """

    monitor: ClassVar[str] = "val/selection"
    mode: ClassVar[str] = "max"
    class_weight: Tensor

    def __init__(
        self,
        num_classes: int = 21,
        backbone: str = "resnet50",
        weights: str | None = "resnet50.tv_in1k",
        strides: Sequence[int] = (4, 1, 2, 2, 1),
        side: Sequence[int] = (128, 128, 256, 256),
        embedding: int | None = None,
        backbone_options: dict[str, Any] | None = None,
        centre_features: bool = False,
        background_factor: float = 0.3,
        lr: float = 0.1,
        head_lr: float = 1.0,
        momentum: float = 1e-4,
        weight_decay: float = 1e-4,
        power: float = 0.9,
        prototype_weight: float = losses.PROTOTYPE_WEIGHT,
        scale_weight: float = losses.SCALE_WEIGHT,
        use_class_weights: bool = True,
        bank_draws: int = 4,
        bank_bonus: float | None = None,
        calibration_start: int = 0,
        bank_start: int = 0,
        seed: int | None = None,
        save_logits: bool = False,
        max_pixels: int = 8_000_000,
    ) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.net = SFCNet(
            num_classes, backbone, strides, side, embedding, background_factor, centre_features, backbone_options
        )
        self.bank = ImageBank(num_classes - 1)
        # all ranks keep the same bank by themselves: DDP need not send it around with every step
        self._ddp_params_and_buffers_to_ignore = [f"bank.{name}" for name, _ in self.bank.named_buffers()]
        self.register_buffer("class_weight", torch.ones(num_classes))
        self.register_buffer(
            "confusion", torch.zeros(len(VALIDATED), num_classes, num_classes, dtype=torch.int64), False
        )

    # ------------------------------------------------------------------ set-up

    def on_fit_start(self) -> None:
        """Read initial weights and class counts when a new fit begins; a resumed one has both in its checkpoint.

        Not in `setup`: there the checkpoint is not known yet, and asking for the number of steps would build the train
        loader before its position is restored.

        Raises:
            ConfigError: class weights without a data module that counts, or settings that DDP cannot serve.
            WeightsError: the weights do not fit.
        """
        self._check_ranks()
        if self.trainer.ckpt_path is not None:
            return
        load_backbone_weights(self.net.backbone, self.hparams["weights"])
        if self.hparams["use_class_weights"] and not self._is_plain:
            data = getattr(self.trainer, "datamodule", None)
            if not isinstance(data, CountsClasses):
                raise ConfigError("use_class_weights needs a data module with class counts; set it to false otherwise")
            self.set_class_weights(data.class_counts)

    @property
    def _is_plain(self) -> bool:
        """Whether this is the baseline: a classifier without consistency terms."""
        return bool(self.hparams["prototype_weight"] == self.hparams["scale_weight"] == 0)

    def _check_ranks(self) -> None:
        """Refuse what several processes cannot do exactly, before the first step."""
        world, draws = self.trainer.world_size, self.hparams["bank_draws"]
        if world == 1:
            return
        if draws % world:
            raise ConfigError(f"model.init_args.bank_draws: {draws} draws cannot be dealt out evenly to {world} ranks")
        finds_unused = getattr(self.trainer.strategy, "_ddp_kwargs", {}).get("find_unused_parameters", False)
        if not finds_unused and (self._is_plain or self.hparams["calibration_start"] > 0):
            raise ConfigError(
                "trainer.strategy: f9 and the side convolutions get no gradient in a plain step; "
                "give ddp_find_unused_parameters_true"
            )

    def set_class_weights(self, counts: NDArray[np.integer]) -> None:
        """Compute the distribution coefficient from image counts per class, shape (C,).

        Raises:
            ConfigError: a class without images while the bank adds none.
        """
        bonus = self.hparams["bank_bonus"]
        if bonus is None:
            epochs = max(1, self.trainer.max_epochs or 1)
            steps = int(self.trainer.estimated_stepping_batches) / epochs
            bonus = steps * self.hparams["bank_draws"] * 3 / len(counts)
        try:
            weights = losses.class_weights(counts, float(bonus))
        except ValueError as error:
            raise ConfigError(f"model.init_args.bank_bonus: {error}") from error
        self.class_weight.copy_(losses.with_background_weight(weights))

    def configure_optimizers(self) -> OptimizerLRSchedulerConfig:
        """SGD, backbone and heads at their own rates, polynomial decay per step (section 5.1)."""
        h = self.hparams
        optimiser, schedule = poly_sgd(
            [
                (trainable(self.net.backbone.parameters()), h["lr"]),
                (trainable(self.net.heads.parameters()), h["head_lr"]),
            ],
            int(self.trainer.estimated_stepping_batches),
            h["weight_decay"],
            h["momentum"],
            h["power"],
        )
        return {"optimizer": optimiser, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    # ------------------------------------------------------------------ training

    def extend_from_bank(
        self, image: Tensor, tags: Tensor, box: Tensor, step: int, micro: int = 0
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Put a fresh batch into the bank, draw from it, and append what was drawn (section 3).

        With several processes there is one bank, kept alike on all: it sees the fresh images of all ranks in rank
        order, and the draws are dealt out, so that the number of processes does not alter the maths (trap 16).

        Args:
            image: (B, 3, S, S), this rank's fresh images.
            tags: (B, C).
            box: (B, 4).
            step: optimiser step; the draws are a pure function of seed and step, so that a resumed fit repeats them.
            micro: number of the batch within its step, where gradients are accumulated.

        Returns:
            The same three with the drawn entries behind.
        """
        draws = self.hparams["bank_draws"]
        if not draws or step < self.hparams["bank_start"]:
            return image, tags, box
        world, rank = (self.trainer.world_size, self.global_rank) if self._trainer else (1, 0)
        fresh: tuple[Tensor, ...] = (image, tags, box)
        if world > 1:
            fresh = tuple(cast(Tensor, self.all_gather(part)).flatten(0, 1) for part in fresh)
        self.bank.update(fresh[0], fresh[1], fresh[2])
        if step < self.hparams["calibration_start"]:
            return image, tags, box
        seed = self.hparams["seed"]
        seed = int(os.environ.get("PL_GLOBAL_SEED", "0")) if seed is None else seed
        # large primes keep neighbouring seeds and steps apart in the generator's 64-bit seed
        generator = torch.Generator().manual_seed(seed * 1_000_003 + step * 7_919 + micro * 104_729)
        slots = torch.randint(tags.shape[1], (draws,), generator=generator)[rank::world]
        drawn = self.bank.draw(slots)
        return torch.cat([image, drawn[0]]), torch.cat([tags, drawn[1]]), torch.cat([box, drawn[2]])

    def losses(self, image: Tensor, tags: Tensor, box: Tensor, calibrate: bool = True) -> Losses:
        """All terms of one pass (section 4).

        Args:
            image: (N, 3, H, W).
            tags: (N, C) 0/1.
            box: (N, 4) valid pixels.
            calibrate: False leaves both consistency terms at 0.

        Returns:
            `Losses`.
        """
        h = self.hparams
        size = (image.shape[-2], image.shape[-1])
        halved = half_size(image)
        stages, stages_half = self.net.backbone(image), self.net.backbone(halved)
        if not calibrate or self._is_plain:
            scores = [self.net.heads.score(s) for s in (stages, stages_half)]
            classification = (
                losses.classification_loss(scores[0], tags) + losses.classification_loss(scores[1], tags)
            ) / 2
            zero = classification.new_zeros(())
            return Losses(classification, zero, zero, classification)
        channels = torch.cat([tags.new_ones(len(tags), 1), tags], dim=1)[:, :, None, None]
        masks = [box_mask(box, size, _grid(s)) * channels for s in (stages, stages_half)]
        maps = self.net.heads(image, stages, masks[0])
        maps_half = self.net.heads(halved, stages_half, masks[1], prototypes=False)
        with torch.autocast(image.device.type, enabled=False):
            weight = self.class_weight.to(maps.mw.dtype)
            classification = (
                losses.classification_loss(maps.score, tags) + losses.classification_loss(maps_half.score, tags)
            ) / 2
            prototype = h["prototype_weight"] * losses.prototype_loss(maps.mw, maps.mp, weight)
            scale = h["scale_weight"] * losses.scale_loss(maps.mw, maps_half.mw, tags, weight)
        return Losses(classification, prototype, scale, classification + prototype + scale)

    def training_step(self, batch: TagBatch, batch_idx: int) -> Tensor:
        """One pass over a fresh batch and the images drawn from the bank."""
        step = self.global_step
        micro = batch_idx % max(1, self.trainer.accumulate_grad_batches)
        image, tags, box = self.extend_from_bank(batch["image"], batch["tags"], batch["box"], step, micro)
        terms = self.losses(image, tags, box, calibrate=step >= self.hparams["calibration_start"])
        self.log_dict({f"train/loss_{name}": value for name, value in terms._asdict().items()}, batch_size=len(image))
        return terms.total

    # ------------------------------------------------------------------ validation

    def on_validation_epoch_start(self) -> None:
        """Begin with empty counts."""
        cast(Tensor, self.confusion).zero_()

    def validation_step(self, batch: TagBatch, batch_idx: int) -> dict[str, Tensor]:
        """Score the maps of whole images at one scale (section 5.1, validation rule).

        Returns:
            `maps` (k, H, W) of the sum and `keys` (k,) for the pictures callback.
        """
        tags = batch["tags"]
        channels = torch.cat([tags.new_ones(len(tags), 1), tags], dim=1)[:, :, None, None]
        maps = self.net(batch["image"], channels)
        keys = channels[0].flatten().nonzero().flatten()
        size = (batch["image"].shape[-2], batch["image"].shape[-1])
        full = {n: normalise(resize(getattr(maps, n)[:, keys], size))[0] for n in ("m0", "mw", "mp")}
        full["sum"] = full["mw"] + full["mp"]
        if "mask" in batch:
            counts = cast(Tensor, self.confusion)
            for index, name in enumerate(VALIDATED):
                prediction = labels_from_maps(full[name], keys)
                counts[index] += confusion_matrix(prediction, batch["mask"][0], counts.shape[-1]).to(counts.device)
        return {"maps": full["sum"] / 2, "keys": keys}

    def on_validation_epoch_end(self) -> None:
        """Sum the integer counts over ranks, then divide: exact however the images were dealt out."""
        counts = cast(Tensor, self.confusion)
        if self.trainer.world_size > 1:
            counts = self.trainer.strategy.reduce(counts.clone(), reduce_op="sum")
        scores = {f"val/miou_{name}": mean_iou(c) for name, c in zip(VALIDATED, counts, strict=True)}
        scores["val/selection"] = scores["val/miou_mw"] + scores["val/miou_mp"]
        self.log_dict(scores, rank_zero_only=False, sync_dist=False)
        self._counts = counts

    def confusion_counts(self) -> dict[str, NDArray[np.int64]]:
        """Counts (K, K) of the last validation by map, summed over ranks; row = true class."""
        return {name: c.cpu().numpy() for name, c in zip(VALIDATED, self._counts, strict=True)}

    # ------------------------------------------------------------------ maps of several scales

    def predict_step(self, batch: ScalesBatch, batch_idx: int) -> dict[str, Any]:
        """Maps at image size of the classes in the image's tags (section 6).

        Returns:
            `id` and `arrays`: `keys` (k,) uint8 with 0 first; `m0`, `mw`, `mp` (k, H, W) float16; `logits` (C, h, w)
            float16, the mean over the mirrored pair at scale 1, where `save_logits` is on.

        Raises:
            ConfigError: the data have no image-level labels.
        """
        if "tags" not in batch:
            raise ConfigError("class activation maps need image-level labels; choose a split that has them")
        tags = batch["tags"][0]
        limit = int(self.hparams["max_pixels"])
        keys, maps, passes = class_maps(self.net, batch["images"], tags, batch["size"], limit, batch["id"][0])
        arrays = {"keys": keys.to(torch.uint8).cpu().numpy()}
        arrays |= {name: merged.half().cpu().numpy() for name, merged in maps.items()}
        if self.hparams["save_logits"]:
            arrays["logits"] = (passes[0].logits[0] / 2).half().cpu().numpy()
        return {"id": batch["id"][0], "arrays": arrays}
