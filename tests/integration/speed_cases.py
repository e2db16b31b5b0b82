"""Fits of a few steps of every task that learns, for the tests of compilation and of waiting for the device."""

from pathlib import Path
from typing import Any, NamedTuple

import torch
from lightning.pytorch import Callback, LightningDataModule, LightningModule, Trainer
from torch import Tensor

from frugalseg.miniature.dlrsd import write_dlrsd_world
from frugalseg.papers.cti import CTI
from tests.integration.precision_cases import CASES as PRECISION_CASES
from tests.integration.precision_cases import CLASSES, QUIET, Case, Notes

CASES: dict[str, Case] = {name: case for name, case in PRECISION_CASES.items() if case.fits and case.learns}
CASES["cti, drop path"] = CASES["cti"]._replace(
    task=lambda: CTI(
        CLASSES, dim=24, depth=3, heads=2, grid=3, drop_path=0.3, infusion=0, weights=None, lr=1e-3, warmup=0,
        schedule="step", memory_size=1, cross="paired",
    )
)  # fmt: skip


class Fitted(NamedTuple):
    """What a fit leaves."""

    task: LightningModule
    losses: list[float]
    gradient: dict[str, Tensor]
    """Of the first step."""


class _Losses(Notes):
    """Keeps losses as tensors: who looks for steps that wait must not wait."""

    def __init__(self) -> None:
        super().__init__()
        self.kept: list[Tensor] = []

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, outputs: Any, *_: Any) -> None:
        self.kept.append(outputs["loss"])


def write_worlds(root: Path, voc: Path) -> dict[str, Path]:
    """What the cases read: a world of tiles beside that of photos."""
    return {"voc": voc, "dlrsd": write_dlrsd_world(root / "dlrsd", 6, seed=0, size=64)}


def fit(
    case: Case, data: Any, steps: int, *callbacks: Callback, task: LightningModule | None = None, **more: Any
) -> Fitted:
    """Make the task from seed 0, unless it is given, and fit it without logging."""
    torch.manual_seed(0)
    task = task or case.task()
    notes = _Losses()
    trainer = Trainer(
        max_steps=steps, max_epochs=-1, callbacks=[*callbacks, notes], gradient_clip_val=1.0, log_every_n_steps=100,
        **{**QUIET, "limit_val_batches": 0, **more},
    )  # fmt: skip
    torch.manual_seed(1)
    if isinstance(data, LightningDataModule):
        trainer.fit(task, datamodule=data)
    else:
        trainer.fit(task, data)
    return Fitted(task, [float(loss) for loss in notes.kept], notes.gradient)


def distance(one: Fitted, other: Fitted) -> float:
    """Length of the difference of two gradients over the length of the second."""
    assert one.gradient.keys() == other.gradient.keys()
    flat = [torch.cat([g.double().flatten() for g in each.gradient.values()]) for each in (one, other)]
    return float((flat[0] - flat[1]).norm() / flat[1].norm())
