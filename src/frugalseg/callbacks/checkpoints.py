"""Checkpoints from which a fit goes on as if nothing had happened: whole files, the one before the last, and scores."""

import os
from pathlib import Path
from typing import Any, BinaryIO

import torch
from lightning.fabric.plugins.io.torch_io import TorchCheckpointIO
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger
from lightning.pytorch.trainer.states import TrainerFn

from frugalseg.run import draft

LAST, PREVIOUS = "last.ckpt", "previous.ckpt"
"""The newest checkpoint of a fit, and the one that it took the place of."""


class WholeFiles(TorchCheckpointIO):
    """Checkpoints that are whole or not there, in their folder from the first byte on.

    Lightning writes to the folder of temporary files first: from another disk the file is copied, so that a process
    that is killed leaves half of it under its final name, and the copy for ever. Here a full disk is told in one line,
    the file is on the disk before its name is, and `last.ckpt` stays as `previous.ckpt` when a newer one comes.
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None) -> None:
        """Write one.

        Args:
            checkpoint: its content.
            path: its final name.
            storage_options: of other disks than this machine's; not known here.

        Raises:
            DiskFullError: there is no room; what was there stays.
        """
        if storage_options is not None or "://" in str(path):
            super().save_checkpoint(checkpoint, path, storage_options)
            return
        path = Path(path)
        with draft(path) as temporary:
            with temporary.open("wb") as file:
                stream = _Stream(file)
                try:
                    torch.save(checkpoint, stream)  # type: ignore[arg-type]  # it asks for no more than this
                except RuntimeError as error:
                    # torch tells of a disk that is full by the place in the file that it should have come to
                    raise stream.failure or error from None
                file.flush()
                os.fsync(file.fileno())
            if path.name == LAST and path.is_file():
                _keep(path)


class _Stream:
    """A file that remembers why it could not be written."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.failure: OSError | None = None

    def write(self, content: bytes) -> int:
        try:
            return self._file.write(content)
        except OSError as error:
            self.failure = self.failure or error
            raise

    def flush(self) -> None:
        self._file.flush()


def _keep(last: Path) -> None:
    """Give `last.ckpt` a second name; where the disk knows no second names, that alone."""
    previous = last.with_name(PREVIOUS)
    try:
        with draft(previous) as second:
            second.hardlink_to(last)
    except OSError:
        last.replace(previous)


class LastCheckpoint(ModelCheckpoint):
    """`last.ckpt`, every so many steps and after each validation.

    One that was written between a step and the validation after it would not know that this is still to be done, nor
    the best score so far; so it is written after that alone.
    """

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Take care of how checkpoints are written, unless somebody has chosen another way."""
        super().setup(trainer, pl_module, stage)
        if type(trainer.strategy.checkpoint_io) is TorchCheckpointIO:
            trainer.strategy.checkpoint_io = WholeFiles()

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Write it every so many steps."""
        if not _validates_next(trainer):
            super().on_train_batch_end(trainer, pl_module, outputs, batch, batch_idx)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write it once the best checkpoint has been dealt with (callbacks run in order)."""
        super().on_validation_end(trainer, pl_module)
        if trainer.state.fn == TrainerFn.FITTING and not trainer.sanity_checking and not is_dry(trainer):
            # not the weights alone: what resuming needs too; without the word Lightning logs a line about it
            trainer.save_checkpoint(Path(str(self.dirpath)) / LAST, weights_only=False)

    def _save_checkpoint(self, trainer: Trainer, filepath: str) -> None:
        _log_row(trainer)
        super()._save_checkpoint(trainer, filepath)


class Scores(Callback):
    """Keep what has been logged in checkpoints: a fit that is resumed after its last validation logs it no more."""

    def __init__(self) -> None:
        self._trainer: Trainer | None = None
        self.before: dict[str, float] = {}
        """Metrics of the steps before the checkpoint."""

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Remember whose they are."""
        self._trainer = trainer

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Forget what came with a checkpoint of another run."""
        given = trainer.ckpt_path
        if given and Path(given).resolve().parent != Path(trainer.default_root_dir).resolve() / "checkpoints":
            self.before = {}

    def state_dict(self) -> dict[str, Any]:
        """Metrics by name, as numbers."""
        return {"metrics": self.all()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take those of the process that was stopped."""
        self.before = dict(state_dict["metrics"])

    def all(self) -> dict[str, float]:
        """Metrics so far, the newest of each name; of a fit alone those before the checkpoint too."""
        if self._trainer is None:
            return {}
        before = self.before if self._trainer.state.fn == TrainerFn.FITTING else {}
        return before | {name: float(value) for name, value in self._trainer.callback_metrics.items()}


def is_dry(trainer: Trainer) -> bool:
    """Whether this is `fast_dev_run`: it must leave nothing that looks like a result."""
    return bool(getattr(trainer, "fast_dev_run", False))


def _validates_next(trainer: Trainer) -> bool:
    """Whether the step that ends now is followed by a validation, which another checkpoint follows."""
    loop = trainer.fit_loop
    fetcher = loop._data_fetcher
    return bool(fetcher is not None and trainer.enable_validation and loop.epoch_loop._should_check_val_fx(fetcher))


def _log_row(trainer: Trainer) -> None:
    """Write the row of the step that ends now: Lightning does so after the checkpoint, which may be too late."""
    connector = trainer._logger_connector
    if not trainer.training or not connector.should_update_logs or trainer._results is None:
        return
    loggers = [logger for logger in trainer.loggers if isinstance(logger, CSVLogger)]
    row: dict[str, Any] = {name: float(value) for name, value in connector.metrics["log"].items()}
    for logger in loggers if row else []:
        # as Lightning's own row, which `loggers.Curve` then leaves out
        step = int(row.get("step", trainer.fit_loop.epoch_loop._batches_that_stepped))
        rest = {name: value for name, value in row.items() if name != "step"}
        logger.log_metrics(rest if "step" in row else {"epoch": trainer.current_epoch} | rest, step)
        logger.save()
