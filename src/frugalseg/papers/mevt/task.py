"""MEVT's pretraining as a LightningModule: a student, its moving average as a teacher, schedules per step."""

from collections.abc import Mapping
from typing import Any, Literal, cast

import torch
from lightning.pytorch import LightningModule
from torch import Tensor, nn
from torch.optim import AdamW

from frugalseg.batch import ViewsBatch
from frugalseg.errors import CheckpointError, ConfigError
from frugalseg.nn.ema import EMATeacher
from frugalseg.optim import cosine_schedule, decayed_groups, fused, linear_warmup
from frugalseg.papers.mevt.backbones import check_sides, create_backbone
from frugalseg.papers.mevt.methods import Method, create_method
from frugalseg.papers.mevt.start import load_start
from frugalseg.papers.mevt.step import seeds_of
from frugalseg.papers.mevt.terms import Moment, Terms


class Pretrain(LightningModule):
    """Learn dense features without labels (mevt.md c), by MEVT's losses or another method's on the same views.

    `mevt` is L = global + dense prototypes + pixels; `dino` its global term alone; `densecl` and `pixpro` are the dense
    methods of those names. Every method trains every net.

    Args:
        preset: `mevt_s`, `mevt_xs` or `mevt_tiny`; or a timm name, such as `vit_small_patch16_224` or `resnet50`.
        method: which losses.
        changes: arguments of `MEVT` that differ from the preset, such as `context: false`; or of the timm model.
        heads: arguments of `HeadSizes` that differ from its defaults.
        rule: arguments of `Rule` that differ from its defaults, of `PairRule` for `densecl` and `pixpro`; `weights` are
            those of the three terms.
        weights: where the backbone starts: a checkpoint of this task, a file, a timm name for a net of timm; null for
            random numbers. Read when a new fit begins.
        lr: rate after the warm-up, for the batch as it is.
        min_lr: where its cosine leads.
        warmup: steps of the linear rise.
        weight_decay: first and last value, cosine between; biases, norms, tokens and positions have none.
        momentum: of the teacher at the first step; 1 at the last.
        teacher_temperature: first and last value.
        temperature_steps: of the rise between them.
        frozen_steps: first steps in which prototypes do not move.
        seed: of the places of points, together with image and step.

    Raises:
        ConfigError: no such net or method, or settings that they do not take.
    """

    def __init__(
        self,
        preset: str = "mevt_s",
        method: Literal["mevt", "dino", "densecl", "pixpro"] = "mevt",
        changes: dict[str, Any] | None = None,
        heads: dict[str, Any] | None = None,
        rule: dict[str, Any] | None = None,
        weights: str | None = None,
        lr: float = 2e-3,
        min_lr: float = 1e-6,
        warmup: int = 0,
        weight_decay: tuple[float, float] = (0.04, 0.4),
        momentum: float = 0.996,
        teacher_temperature: tuple[float, float] = (0.04, 0.07),
        temperature_steps: int = 0,
        frozen_steps: int = 0,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.method: Method = create_method(method, rule or {}, heads or {})
        self.student = self.method.student(create_backbone(preset, changes))
        # the teacher has no stochastic depth; its BatchNorms run on their own batches (mevt.md c.1)
        self.teacher = EMATeacher(self.student, self.method.student(create_backbone(preset, changes, teacher=True)))

    @property
    def backbone(self) -> nn.Module:
        """The student's."""
        return cast(nn.Module, self.student.backbone)

    def setup(self, stage: str) -> None:
        """Read the first weights; a checkpoint brings its own.

        Raises:
            WeightsError: they do not fit.
        """
        if self.hparams["weights"] is not None and self.trainer.ckpt_path is None:
            load_start(self.backbone, self.hparams["weights"])
            self.teacher.update(self.student, 0.0, buffers=True)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Refuse what another net or method has written.

        Raises:
            CheckpointError: it holds another preset, method or other changes.
        """
        theirs: Mapping[str, Any] = checkpoint.get("hyper_parameters", {})
        for key in ("preset", "method", "changes"):
            if _substance(theirs.get(key)) != _substance(self.hparams[key]):
                raise CheckpointError(
                    f"holds {key} {theirs.get(key)!r}, but the configuration asks for {self.hparams[key]!r}; "
                    f"give that {key}'s checkpoint, or set model.init_args.{key}"
                )

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep how images were normalised: whoever uses the features needs it, and the file may travel alone."""
        data = getattr(self.trainer, "datamodule", None)
        normaliser = getattr(getattr(data, "recipe", None), "normaliser", None)
        if normaliser is not None:
            checkpoint["normalisation"] = {"mean": list(normaliser.mean), "std": list(normaliser.std)}

    # ------------------------------------------------------------------ schedules

    @property
    def steps(self) -> int:
        """Optimiser steps of the whole fit.

        Raises:
            ConfigError: their number is not known.
        """
        total = self.trainer.estimated_stepping_batches
        if not 0 < total < float("inf"):
            raise ConfigError("trainer: the number of steps is not known; set max_steps or max_epochs")
        return int(total)

    def configure_optimizers(self) -> AdamW:
        """AdamW; rate and weight decay are set at every step."""
        named = list(self.student.named_parameters())
        tokens = [name for name, _ in named if name.endswith(("token", "pos_embed", "bias_table"))]
        return fused(AdamW(decayed_groups(named, self.hparams["weight_decay"][0], tokens), self.hparams["lr"]))

    def on_train_batch_start(self, batch: ViewsBatch, batch_idx: int) -> None:
        """Set rate and weight decay of this step."""
        h, step, total = self.hparams, self.global_step, self.steps
        rate = cosine_schedule(step, total, h["lr"], h["min_lr"], min(int(h["warmup"]), total))
        decay = cosine_schedule(step, total, *h["weight_decay"])
        decayed, plain = cast(AdamW, self.optimizers().optimizer).param_groups  # type: ignore[union-attr]
        decayed["lr"] = plain["lr"] = rate
        decayed["weight_decay"] = decay

    # ------------------------------------------------------------------ a step

    def moment(self, batch: ViewsBatch) -> Moment:
        """The present step."""
        h, world = self.hparams, self.trainer.world_size
        temperature = linear_warmup(self.global_step, int(h["temperature_steps"]), *h["teacher_temperature"])
        seeds = seeds_of(batch["id"], self.global_step, int(h["seed"]))
        return Moment(temperature, seeds, self._reduce if world > 1 else None, self.trainer.global_rank, world)

    def terms(self, batch: ViewsBatch, moment: Moment) -> Terms:
        """Losses and monitors of a batch."""
        return self.method.terms(self.student, self.teacher, batch, moment)

    def training_step(self, batch: ViewsBatch, batch_idx: int) -> Tensor:
        """One batch of views.

        Raises:
            ConfigError: views of a size that the net does not take, or one image alone for heads with BatchNorm, whose
                statistics it would be.
        """
        images = len(batch["id"])
        if self.method.sizes.norm and images < 2:
            raise ConfigError("data.batch_size: heads with BatchNorm need 2 images; raise it, or set heads.norm false")
        check_sides(self.backbone, batch["global_views"].shape[-2:], "global_size")
        if batch["local_views"].shape[1]:
            check_sides(self.backbone, batch["local_views"].shape[-2:], "local_size")
        moment = self.moment(batch)
        terms = self.terms(batch, moment)
        self.method.update(terms, moment)
        told = {f"train/loss_{name}": value for name, value in terms.parts.items()} | {"train/loss": terms.total}
        self.log_dict(told | {f"train/{k}": v for k, v in terms.monitors.items()}, batch_size=images)
        return terms.total

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        """Hold prototypes still in the first steps."""
        if self.global_step < self.hparams["frozen_steps"]:
            for weight in self.method.prototypes(self.student):
                weight.grad = None

    def optimizer_step(self, *given: Any, **named: Any) -> None:
        """Let the student learn, then move the teacher: once per step, however many batches it takes."""
        super().optimizer_step(*given, **named)
        # not in on_train_batch_end, which comes after the callback that writes the checkpoint; not counted yet
        momentum = cosine_schedule(self.global_step, self.steps, float(self.hparams["momentum"]), 1.0)
        self.teacher.update(self.student, momentum)

    def _reduce(self, value: Tensor) -> Tensor:
        return cast(Tensor, self.trainer.strategy.reduce(value.clone(), reduce_op="sum"))


def _substance(value: Any) -> Any:
    """A setting of the net without what changes its memory alone."""
    return {k: v for k, v in value.items() if k != "checkpointing"} if isinstance(value, Mapping) else value or {}
