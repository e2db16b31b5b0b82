"""What Lightning's loop and our callbacks and loggers cost: `Trainer.fit`, as a stage runs it, over a loop written by hand.

Both take the full training steps of SFC on one batch in memory, in turn, a block of steps each: between two blocks of
the Trainer a callback runs a block of the other loop. Logging and checkpoints fall where a run has them.
"""

import os
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from copy import deepcopy
from itertools import count
from statistics import median
from types import SimpleNamespace
from typing import Any, NamedTuple, cast
from unittest.mock import patch

import yaml
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor
from torch.nn.utils import clip_grad_norm_
from torch.utils.data import DataLoader

from frugalseg.callbacks.loggers import csv_logger, hush, wandb_logger
from frugalseg.callbacks.provenance import describe
from frugalseg.callbacks.wandb_runs import close_run
from frugalseg.papers.sfc.task import SFC
from frugalseg.run import Run, RunFolder
from frugalseg.training import SuiteCLI
from tests.benchmark import sfc
from tests.benchmark.measure import REPOSITORY, Measured, Times, ratio

Work = Callable[[], object]
CLIP, RATE = 1.0, 1e-9
"""Random weights must not run away, and a step costs the same at any rate."""
SAVE_EVERY = 50
"""Steps between checkpoints, so that every round of the small one has one; in a run they are a hundred."""


class Made(NamedTuple):
    """A task and a batch in memory."""

    task: SFC
    batch: dict[str, Tensor]


def make(small: bool) -> Made:
    """The miniature's net, batch and classes, or ResNet-50 on 256 pixels, 2 fresh images and 20 classes."""
    rates: dict[str, Any] = {"lr": RATE, "head_lr": RATE, "use_class_weights": False}
    if not small:
        return Made(sfc.make_task(256, **rates), sfc.make_batch(256)._asdict())
    given = yaml.safe_load((REPOSITORY / "experiments/miniature/sfc/classify.yaml").read_text())
    data, classes = given["data"]["init_args"], 12
    crop = data["recipe"]["init_args"]["crop"]
    whole = {"calibration_start": 0, "bank_start": 0}  # all terms from the first step
    task = sfc.make_task(crop, counts=[100] * classes, **given["model"]["init_args"] | rates | whole)
    return Made(task, sfc.make_batch(crop, fresh=data["batch_size"], classes=classes)._asdict())


class Blocks(Callback):
    """Run the plain loop between blocks of the Trainer's steps, and time both.

    Args:
        plain: one step of the loop written by hand.
        length: steps of a block.
        together: blocks that are one round; a round should hold a checkpoint, so that each has the same to do.
    """

    def __init__(self, plain: Work, length: int, together: int) -> None:
        self.plain, self.length, self.together = plain, length, together
        self.blocks: Times = {"trainer": [], "plain": []}
        self._since: tuple[float, float] | None = None

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *given: Any) -> None:
        if trainer.global_step % self.length:
            return
        if self._since is not None:  # before the first block there is set-up
            self.blocks["trainer"].append(_between(self._since, _clocks()))
            began = _clocks()
            for _ in range(self.length):
                self.plain()
            self.blocks["plain"].append(_between(began, _clocks()))
        self._since = _clocks()

    def rounds(self) -> Times:
        """Sums over the blocks of a round; the first block, which warms up, and an unfinished round are left out."""
        found: Times = {}
        for name, blocks in self.blocks.items():
            kept = [blocks[n : n + self.together] for n in range(1, len(blocks) - self.together + 1, self.together)]
            found[name] = [(sum(wall for wall, _ in part), sum(cpu for _, cpu in part)) for part in kept]
        return found


def _between(began: tuple[float, float], ended: tuple[float, float]) -> tuple[float, float]:
    return ended[0] - began[0], ended[1] - began[1]


def _clocks() -> tuple[float, float]:
    return time.perf_counter(), time.process_time()


def plain_step(task: SFC, batch: dict[str, Tensor], steps: int) -> Work:
    """What one writes without a framework: the optimiser and its schedule are those of the task."""
    task._trainer = cast(Trainer, SimpleNamespace(estimated_stepping_batches=steps))  # what the schedule asks for
    made = cast(dict[str, Any], task.configure_optimizers())
    task._trainer = None
    optimiser, schedule = made["optimizer"], made["lr_scheduler"]["scheduler"]
    numbers = count()

    def run() -> None:
        image, tags, box = task.extend_from_bank(batch["image"], batch["tags"], batch["box"], next(numbers))
        loss = task.losses(image, tags, box).total
        optimiser.zero_grad()
        loss.backward()
        clip_grad_norm_(task.parameters(), CLIP)
        optimiser.step()
        schedule.step()

    return run


def callbacks_of_a_run(folder: RunFolder, run: Run, task: LightningModule) -> list[Callback]:
    """Those that the command line adds to a fit."""
    stand_in = SimpleNamespace(config_dump={}, run_settings=run, run_folder=folder, subcommand="fit", model=task)
    return SuiteCLI._own_callbacks(cast(SuiteCLI, stand_in), {})


def fit_as_a_run(made: Made, steps: int, watch: Callback, wandb: bool = False) -> None:
    """Fit with what the command line adds, in a folder that is thrown away.

    Args:
        made: task and batch.
        steps: of the fit.
        watch: one more callback.
        wandb: log to W&B too, offline.
    """
    hush()
    with tempfile.TemporaryDirectory() as temporary, wandb_offline(wandb):
        run = Run(root=temporary, save_every=SAVE_EVERY)
        folder = RunFolder(run.folder(0), run.experiment, run.stage, {})
        folder.claim(describe(0, ["benchmark"]))
        tracker = wandb_logger(folder.path) if wandb else None
        trainer = Trainer(
            accelerator="cpu", devices=1, max_steps=steps, max_epochs=-1, gradient_clip_val=CLIP,
            log_every_n_steps=10, num_sanity_val_steps=0, use_distributed_sampler=False, enable_model_summary=False,
            default_root_dir=str(folder.path), limit_val_batches=0,
            logger=[csv_logger(folder.path), *([tracker] if tracker else [])],
            callbacks=[*callbacks_of_a_run(folder, run, made.task), watch],
        )  # fmt: skip
        trainer.fit(made.task, DataLoader([made.batch] * steps, batch_size=None))
        close_run()


def over_plain(small: bool, length: int, together: int, rounds: int, wandb: bool = False) -> Measured:
    """Measure one size.

    Args:
        small: see `make`.
        length: steps of a block.
        together: blocks of a round.
        rounds: that count.
        wandb: see `fit_as_a_run`.
    """
    made = make(small)
    steps = (rounds * together + 2) * length
    watch = Blocks(plain_step(deepcopy(made.task), made.batch, steps), length, together)
    fit_as_a_run(made, steps, watch, wandb)
    found = watch.rounds()
    if len(found["plain"]) != rounds:
        raise RuntimeError(f"{len(found['plain'])} rounds of {rounds}")
    measured = ratio(found, "trainer", "plain")
    step = median(wall for wall, _ in found["plain"]) / length / together
    return Measured(measured.value, f"a plain step takes {1000 * step:.0f} ms", measured.extra)


@contextmanager
def wandb_offline(wanted: bool) -> Iterator[None]:
    """W&B as in a run without a key, and silent."""
    with patch.dict(os.environ, {"WANDB_MODE": "offline", "WANDB_SILENT": "true"} if wanted else {}):
        yield


def over_plain_loop(quick: bool) -> dict[str, Measured]:
    """Rounds of fifty steps, in each five rows of the log and one checkpoint."""
    sizes = {"length": 1, "together": 2, "rounds": 1} if quick else {"length": 5, "together": 10, "rounds": 3}
    return {
        "trainer.over_plain_loop": over_plain(True, **sizes),
        "trainer.over_plain_loop_wandb": over_plain(True, **sizes, wandb=True),
    }


def over_plain_loop_large(quick: bool) -> dict[str, Measured]:
    """No checkpoint, which a run writes after a hundred steps of such length; quick, it is the small one again."""
    sizes = {"length": 1, "together": 1, "rounds": 1 if quick else 5}
    return {"trainer.over_plain_loop_large": over_plain(quick, **sizes)}
