"""Progress as plain lines, for logs and for several processes that share one terminal."""

import sys
import time
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import ProgressBar


class LineProgress(ProgressBar):
    """Print one line now and then: stage, batches done, rate, time left.

    Args:
        label: put in front of every line.
        every: seconds between lines.
    """

    def __init__(self, label: str = "", every: float = 15.0) -> None:
        super().__init__()
        self.label, self.every = label, every
        self.enabled = True
        self._began = self._last = 0.0
        self._first = 0

    def disable(self) -> None:
        """Say nothing (Lightning calls this on all ranks but the first)."""
        self.enabled = False

    def enable(self) -> None:
        """Speak again."""
        self.enabled = True

    def _line(self, what: str, done: int, total: float, force: bool = False) -> None:
        now = time.monotonic()
        if not self.enabled or (now - self._last < self.every and not force):
            return
        self._last = now
        rate = (done - self._first) / max(now - self._began, 1e-6)
        known = total != float("inf")
        left = f", {max(total - done, 0) / rate:.0f} s left" if known and rate > 0 else ""
        print(
            f"{self.label} {what} {done}/{int(total) if known else '?'} ({rate:.1f}/s{left})",
            file=sys.stderr,
            flush=True,
        )

    def _start(self, first: int) -> None:
        self._began = self._last = time.monotonic()
        self._first = first

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Begin timing."""
        self._start(trainer.global_step)

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *args: Any) -> None:
        """Maybe print."""
        self._line("train", trainer.global_step, trainer.estimated_stepping_batches)

    def on_predict_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Begin timing."""
        self._start(0)

    def on_predict_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int, *args: Any
    ) -> None:
        """Maybe print."""
        total = sum(trainer.num_predict_batches)
        self._line("predict", batch_idx + 1, total, force=batch_idx + 1 == total)
