"""Overlays of class maps for a fixed handful of images, to disk and to every logger that takes pictures."""

from pathlib import Path
from typing import Any

import numpy as np
from lightning.pytorch import Callback, LightningModule, Trainer
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from frugalseg.ops.palette import colourise, heat, overlay


def unnormalise(image: Tensor) -> NDArray[np.uint8]:
    """Stretch one normalised image (3, H, W) to (H, W, 3) uint8; the darkest value becomes 0, the brightest 255."""
    pixels = image.detach().float().cpu().permute(1, 2, 0).numpy()
    low, high = float(pixels.min()), float(pixels.max())
    stretched: NDArray[np.uint8] = ((pixels - low) / max(high - low, 1e-6) * 255).round().astype(np.uint8)
    return stretched


def cam_panel(image: NDArray[np.uint8], maps: NDArray[np.floating], keys: NDArray[np.integer]) -> NDArray[np.uint8]:
    """Image, one heat overlay per foreground class, and the labels of the argmax, side by side.

    Args:
        image: (H, W, 3).
        maps: (k, H, W) in [0, 1], background first.
        keys: (k,) class ids.

    Returns:
        (H, W·(k + 1), 3) uint8.
    """
    labels = np.asarray(keys)[maps.argmax(axis=0)]
    heats = [overlay(image, heat(m)) for m in maps[1:]]
    return np.concatenate([image, *heats, overlay(image, colourise(labels), 0.6)], axis=1)


class Pictures(Callback):
    """After each validation, draw the first images of the validation split: always the same ones.

    The task's `validation_step` returns `maps` (k, H, W) and `keys` (k,).

    Args:
        count: how many images.
    """

    def __init__(self, count: int = 6) -> None:
        self.count = count
        self._panels: list[tuple[str, NDArray[np.uint8]]] = []

    def on_validation_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Forget the last validation's pictures."""
        self._panels = []

    def on_validation_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Draw, for the first few images of rank 0."""
        if (
            batch_idx >= self.count
            or not trainer.is_global_zero
            or not isinstance(outputs, dict)
            or "maps" not in outputs
        ):
            return
        maps = outputs["maps"].float().cpu().numpy()
        panel = cam_panel(unnormalise(batch["image"][0]), maps, outputs["keys"].cpu().numpy())
        self._panels.append((batch["id"][0], panel))

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write the panels to `pictures/` of the run folder and hand them to loggers."""
        if trainer.sanity_checking or not self._panels:
            return
        folder = Path(trainer.default_root_dir) / "pictures"
        folder.mkdir(parents=True, exist_ok=True)
        for name, panel in self._panels:
            path = folder / f"{name}_step{trainer.global_step:06d}.png"
            Image.fromarray(panel).save(path)
        for logger in trainer.loggers:
            if hasattr(logger, "log_image"):
                for name, panel in self._panels:  # one key each: a W&B panel wants pictures of one size
                    logger.log_image(f"val/maps/{name}", [Image.fromarray(panel)])
