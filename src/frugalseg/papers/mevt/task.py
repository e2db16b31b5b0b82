"""MEVT's pretraining as a LightningModule: a student, its moving average as a teacher, schedules per step."""

from typing import Any, Literal, cast

import torch
from lightning.pytorch import LightningModule
from torch import Tensor
from torch.optim import AdamW

from frugalseg.batch import ViewsBatch
from frugalseg.errors import ConfigError
from frugalseg.nn.ema import EMATeacher
from frugalseg.ops.assignment import Reduce
from frugalseg.optim import cosine_schedule, decayed_groups, linear_warmup
from frugalseg.papers.mevt.global_loss import update_centre
from frugalseg.papers.mevt.model import create
from frugalseg.papers.mevt.step import Rule, Terms, run_step, seeds_of
from frugalseg.papers.mevt.student import HeadSizes, Student


class Pretrain(LightningModule):
    """Learn dense features without labels: L = global + dense prototypes + pixels (mevt.md c).

    Args:
        preset: `mevt_s`, `mevt_xs` or `mevt_tiny`.
        changes: arguments of `MEVT` that differ from the preset, such as `context: false`.
        heads: arguments of `HeadSizes` that differ from its defaults.
        rule: arguments of `Rule` that differ from its defaults; `weights` are those of the three terms.
        lr: rate after the warm-up, for the batch as it is.
        min_lr: where its cosine leads.
        warmup: steps of the linear rise.
        weight_decay: first and last value, cosine between; biases, norms and the global token have none.
        momentum: of the teacher at the first step; 1 at the last.
        teacher_temperature: first and last value.
        temperature_steps: of the rise between them.
        frozen_steps: first steps in which prototypes do not move.
        seed: of the places of points, together with image and step.
    """

    def __init__(
        self,
        preset: Literal["mevt_s", "mevt_xs", "mevt_tiny"] = "mevt_s",
        changes: dict[str, Any] | None = None,
        heads: dict[str, Any] | None = None,
        rule: dict[str, Any] | None = None,
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
        try:
            self.rule, sizes = Rule(**(rule or {})), HeadSizes(**(heads or {}))
        except TypeError as error:
            raise ConfigError(
                f"model.init_args.rule or heads: {error}; see papers.mevt.step.Rule, student.HeadSizes"
            ) from None
        if not any(self.rule.weights):
            raise ConfigError("model.init_args.rule.weights: every term has weight 0, so nothing would be learned")
        self.student = Student(create(preset, **(changes or {})), sizes)
        # the teacher has no stochastic depth; its BatchNorms run on their own batches (mevt.md c.1)
        plain = Student(create(preset, **{**(changes or {}), "drop_path": 0.0}), sizes)
        self.teacher = EMATeacher(self.student, plain)
        self.norm = sizes.norm
        self.centre: Tensor
        self.register_buffer("centre", torch.zeros(sizes.global_prototypes))

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
        tokens = [name for name, _ in named if name.endswith(("token", "mask_token"))]
        return AdamW(decayed_groups(named, self.hparams["weight_decay"][0], tokens), self.hparams["lr"])

    def on_train_batch_start(self, batch: ViewsBatch, batch_idx: int) -> None:
        """Set rate and weight decay of this step."""
        h, step, total = self.hparams, self.global_step, self.steps
        rate = cosine_schedule(step, total, h["lr"], h["min_lr"], min(int(h["warmup"]), total))
        decay = cosine_schedule(step, total, *h["weight_decay"])
        for group in cast(AdamW, self.optimizers().optimizer).param_groups:  # type: ignore[union-attr]
            group["lr"] = rate
            group["weight_decay"] = decay if group["weight_decay"] else 0.0

    # ------------------------------------------------------------------ a step

    def terms(self, batch: ViewsBatch) -> Terms:
        """Losses and monitors of a batch at the present step."""
        h, world = self.hparams, self.trainer.world_size
        temperature = linear_warmup(self.global_step, int(h["temperature_steps"]), *h["teacher_temperature"])
        seeds = seeds_of(batch["id"], self.global_step, int(h["seed"]))
        reduce = self._reduce if world > 1 else None
        return run_step(self.student, self.teacher, batch, self.rule, self.centre, temperature, seeds, reduce, world)

    def training_step(self, batch: ViewsBatch, batch_idx: int) -> Tensor:
        """One batch of views.

        Raises:
            ConfigError: one image alone for heads with BatchNorm, whose statistics it would be.
        """
        if self.norm and len(batch["id"]) < 2:
            raise ConfigError("data.batch_size: heads with BatchNorm need 2 images; raise it, or set heads.norm false")
        terms = self.terms(batch)
        if terms.teacher_logits is not None:
            reduce: Reduce | None = self._reduce if self.trainer.world_size > 1 else None
            self.centre = update_centre(self.centre, terms.teacher_logits, reduce=reduce)
        told = {f"train/loss_{name}": value for name, value in terms.parts.items()} | {"train/loss": terms.total}
        self.log_dict(told | {f"train/{k}": v for k, v in terms.monitors.items()}, batch_size=len(batch["id"]))
        return terms.total

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        """Hold prototypes still in the first steps."""
        if self.global_step < self.hparams["frozen_steps"]:
            for prototypes in (self.student.global_prototypes, self.student.dense_prototypes):
                prototypes.weight.grad = None

    def on_train_batch_end(self, outputs: Any, batch: ViewsBatch, batch_idx: int) -> None:
        """Move the teacher."""
        # the step has been counted already
        momentum = cosine_schedule(self.global_step - 1, self.steps, float(self.hparams["momentum"]), 1.0)
        self.teacher.update(self.student, momentum)

    def _reduce(self, value: Tensor) -> Tensor:
        return cast(Tensor, self.trainer.strategy.reduce(value.clone(), reduce_op="sum"))
