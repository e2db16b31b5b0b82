"""Loggers of a run folder: CSV always, Weights & Biases offline unless a key is present; and what is not logged."""

import logging
import warnings
from pathlib import Path

from lightning.fabric.utilities.rank_zero import rank_zero_only
from lightning.pytorch.loggers import CSVLogger, WandbLogger

from frugalseg.callbacks.curve import Curve, trim
from frugalseg.callbacks.wandb_runs import open_run

EXPECTED = (
    "Experiment logs directory .* exists and is not empty",
    "Checkpoint directory .* exists and is not empty",
    # predict and validate need no checkpoint callbacks
    ".*callbacks used to create the checkpoint need to be provided.*",
    # frozen normalisation is in evaluation mode on purpose
    "Found .* module.* in eval mode at the start of training",
    # pretraining without labels: other stages judge it
    "You passed in a `val_dataloader` but have no `validation_step`",
    # baselines that learn no weights
    ".*configure_optimizers` returned `None`",
    "LightningCLI's args parameter is intended to run from within Python",
    ".*isinstance.treespec, LeafSpec.*",
)
"""Warnings of Lightning about what is so on purpose."""


def csv_logger(folder: Path, newest: int | None = None) -> CSVLogger:
    """A CSV logger that writes `metrics.csv` and, in a continued run, keeps the rows that are there.

    Args:
        folder: the run folder.
        newest: last step whose rows are kept: that of the checkpoint from which a fit goes on; None for all.

    Raises:
        RunFolderError: an existing `metrics.csv` cannot be read.
    """
    logger = CSVLogger(folder, name="", version="")
    if not getattr(rank_zero_only, "rank", 0):
        trim(folder / "metrics.csv", newest)
        logger._experiment = Curve(folder)
    return logger


def wandb_logger(folder: Path) -> WandbLogger | None:
    """A W&B logger with a run id that stays the same when the run is continued; None where W&B is disabled.

    Args:
        folder: the run folder, claimed; see `open_run`.

    Raises:
        ConfigError: `WANDB_MODE` is none, or is online without a key.
    """
    run = open_run(folder)
    # Lightning's own way to an offline run sets WANDB_MODE for all that comes after it in this process
    return None if run is None else WandbLogger(save_dir=str(folder), id=run.id, project=run.project, experiment=run)


def hush() -> None:
    """Leave out what Lightning says about itself, and about what is so on purpose."""
    for name in (
        "lightning.pytorch.utilities.rank_zero",
        "lightning.fabric.utilities.rank_zero",
        "lightning.fabric.utilities.seed",
    ):
        # advertisements and facts that provenance.json records anyway
        logging.getLogger(name).setLevel(logging.WARNING)
    for message in EXPECTED:
        warnings.filterwarnings("ignore", message=message)
