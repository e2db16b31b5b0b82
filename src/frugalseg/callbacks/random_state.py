"""Keep the random generators' state in checkpoints: a resumed fit draws the numbers the uninterrupted one would."""

import random
from typing import Any

import numpy as np
import torch
from lightning.pytorch import Callback, LightningModule, Trainer


class RandomState(Callback):
    """Save and restore the states of torch, NumPy and Python as plain tensors and numbers (safe to load).

    The state is put back when the first resumed batch starts: set-up before it may draw numbers too.
    """

    def __init__(self) -> None:
        self._pending: dict[str, Any] | None = None

    def state_dict(self) -> dict[str, Any]:
        """States of all generators, as tensors, lists and numbers; those that are still to be put back come first."""
        if self._pending is not None:
            return self._pending
        name, keys, *rest = np.random.get_state(legacy=True)  # noqa: NPY002 - libraries use it
        version, internal, gauss = random.getstate()
        return {
            "torch": torch.get_rng_state(),
            "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
            "numpy": [str(name), torch.as_tensor(np.asarray(keys, dtype=np.int64)), *map(float, rest)],
            "python": [version, list(internal), gauss],
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Remember the states until training goes on."""
        self._pending = state_dict

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Put the states back, once."""
        if self._pending is None:
            return
        state, self._pending = self._pending, None
        torch.set_rng_state(state["torch"].cpu())
        if state["cuda"] and torch.cuda.is_available():
            torch.cuda.set_rng_state_all([s.cpu() for s in state["cuda"]])
        name, keys, position, has_gauss, gauss = state["numpy"]
        np.random.set_state((name, keys.numpy().astype(np.uint32), int(position), int(has_gauss), gauss))  # noqa: NPY002
        version, internal, gauss_next = state["python"]
        random.setstate((version, tuple(internal), gauss_next))
