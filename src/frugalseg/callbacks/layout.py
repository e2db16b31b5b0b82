"""Channels last in memory: how convolutions of a GPU's tensor cores want their maps."""

from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor, nn


class ChannelsLast(Callback):
    """Lay out the weights of 2D convolutions, and with them all maps, with channels last.

    Maps inherit the layout of the weights they meet, so that nothing else need be told; images are laid out anew once a
    batch, where every branch of a net would do it by itself. Blocks of transformers have no maps and stay as they are.
    Names, shapes and values do not change: a run goes on from a checkpoint of either layout, and results differ by
    rounding.
    """

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Lay out the weights: before the optimiser is made, whose averages take the layout of their parameters."""
        for module in pl_module.modules():
            if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
                module.to(memory_format=torch.channels_last)

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Lay out the images."""
        lay_out(batch)

    def on_validation_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        """Lay out the images."""
        lay_out(batch)

    def on_test_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        """Lay out the images."""
        lay_out(batch)

    def on_predict_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        """Lay out the images."""
        lay_out(batch)


def lay_out(batch: Any) -> None:
    """Give the images of a batch channels last, in place.

    Args:
        batch: a dictionary of `frugalseg.batch`; tensors (N, 3, H, W) in it, and in lists of it, are images.
    """
    for key, value in batch.items() if isinstance(batch, dict) else ():
        batch[key] = [_laid_out(each) for each in value] if isinstance(value, list) else _laid_out(value)


def _laid_out(value: Any) -> Any:
    if isinstance(value, Tensor) and value.ndim == 4 and value.shape[1] == 3 and value.is_floating_point():
        return value.contiguous(memory_format=torch.channels_last)
    return value
