"""Panels of a fixed handful of few-shot episodes, to disk and to every logger that takes pictures."""

from collections import Counter
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from lightning.pytorch import Callback, LightningModule, Trainer
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from frugalseg.batch import EpisodeBatch
from frugalseg.callbacks.episode_panel import Drawn, episode_panel
from frugalseg.callbacks.pictures import unnormalise
from frugalseg.errors import ConfigError
from frugalseg.run import draft


class _Kept(NamedTuple):
    """A panel and its place in the order of choice."""

    place: tuple[int, int]
    name: str
    panel: NDArray[np.uint8]


class EpisodePictures(Callback):
    """After each validation and each test, draw a few episodes: always the same ones, of all classes in turn.

    The first episode of each class comes before any second one, whatever the order of the split is; a class later in
    the split takes the place of a repeated one. Only the first loader is drawn, which holds the episodes of the first
    base seed, and of them only those of rank 0: the choice depends on the number of processes, scores do not.

    The task's step returns `logits` (N, 2, H, W), `prior` (N, 1, h, w) or None, and `graph_maps`, a list, perhaps an
    empty one, of (N, 1, h_l, w_l). Other outputs and batches are passed over.

    Args:
        count: how many episodes.
        classes: False takes the first `count` episodes instead, whatever their classes are.

    Raises:
        ConfigError: fewer than no episodes.
    """

    def __init__(self, count: int = 6, classes: bool = True) -> None:
        if count < 0:
            raise ConfigError(f"EpisodePictures.count is {count}: set it to 0 or more")
        self.count, self.classes = count, classes
        self._kept: list[_Kept] = []
        self._seen: Counter[int] = Counter()

    def on_validation_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Forget the last validation's pictures."""
        self._begin()

    def on_test_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Forget the last test's pictures."""
        self._begin()

    def on_validation_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Draw those of the batch that are chosen."""
        self._look(trainer, outputs, batch, dataloader_idx)

    def on_test_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Draw those of the batch that are chosen."""
        self._look(trainer, outputs, batch, dataloader_idx)

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write the panels to `pictures/` of the run folder, one file per validation, and hand them to loggers."""
        self._write(trainer, "val", f"_step{trainer.global_step:06d}")

    def on_test_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write the panels to `pictures/` of the run folder and hand them to loggers."""
        self._write(trainer, "test", "")

    def _begin(self) -> None:
        self._kept, self._seen = [], Counter()

    def _look(self, trainer: Trainer, outputs: Any, batch: Any, loader: int) -> None:
        """Keep the panels of the episodes that come first in the order of choice."""
        ours = trainer.is_global_zero and not trainer.sanity_checking and loader == 0
        if not ours or not isinstance(outputs, dict) or "logits" not in outputs or "query_image" not in batch:
            return
        for n, class_id in enumerate(batch["class_id"].tolist()):
            key = class_id if self.classes else 0
            place = (self._seen[key], key)
            self._seen[key] += 1
            if len(self._kept) < self.count or any(place < kept.place for kept in self._kept):
                name = f"class{class_id:02d}_episode{int(batch['number'][n]):05d}"
                panel = episode_panel(drawn(batch, outputs, n, getattr(trainer, "datamodule", None)))
                self._kept = sorted([*self._kept, _Kept(place, name, panel)], key=lambda k: k.place)[: self.count]

    def _write(self, trainer: Trainer, split: str, suffix: str) -> None:
        folder = Path(trainer.default_root_dir) / "pictures"
        for _, name, panel in self._kept:
            with draft(folder / f"{split}_{name}{suffix}.png") as temporary:
                Image.fromarray(panel).save(temporary, format="PNG")
        for logger in trainer.loggers:
            if hasattr(logger, "log_image"):
                for _, name, panel in self._kept:  # one key each, so that an episode can be followed over steps
                    logger.log_image(f"{split}/episodes/{name}", [Image.fromarray(panel)])


def drawn(batch: EpisodeBatch, outputs: dict[str, Any], n: int, data: Any = None) -> Drawn:
    """Take one episode out of a batch and its answers.

    Args:
        batch: of N episodes.
        outputs: of the task's step.
        n: which episode.
        data: the data module, which knows the names of classes and how colours were normalised; None for neither.
    """
    class_id, prior = int(batch["class_id"][n]), outputs.get("prior")
    names = getattr(data, "class_names", None)
    return Drawn(
        _colours(batch["query_image"][n], data),
        batch["query_mask"][n].cpu().numpy(),
        np.stack([_colours(image, data) for image in batch["support_images"][n]]),
        batch["support_masks"][n].cpu().numpy(),
        outputs["logits"][n].argmax(dim=0).cpu().numpy(),
        None if prior is None else _map(prior[n]),
        [_map(found[n]) for found in outputs.get("graph_maps", [])],
        str(class_id) if names is None else f"{class_id} {names[class_id]}",
    )


def _map(scores: Tensor) -> NDArray[np.float32]:
    """(1, h, w) -> (h, w)."""
    return np.asarray(scores[0].detach().float().cpu().numpy(), np.float32)


def _colours(image: Tensor, data: Any) -> NDArray[np.uint8]:
    """The image as it was before the recipe normalised it; stretched by itself where no recipe is known."""
    normaliser = getattr(getattr(data, "recipe", None), "normaliser", None)
    if normaliser is None:
        return unnormalise(image)
    pixels = image.detach().float().cpu().permute(1, 2, 0).numpy() * normaliser.std + normaliser.mean
    return np.asarray((np.clip(pixels, 0, 1) * 255).round(), np.uint8)
