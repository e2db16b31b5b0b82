"""Dense nearest-neighbour retrieval as a LightningModule: an epoch of images fills the memory, validation asks it."""

from dataclasses import asdict
from typing import ClassVar

import numpy as np
import torch
from lightning.pytorch import LightningModule
from numpy.typing import NDArray
from torch import Tensor

from frugalseg.batch import IGNORE_INDEX, SegBatch
from frugalseg.errors import ConfigError
from frugalseg.nn.features import Backbone, FrozenBackbone
from frugalseg.nn.inputs import squared
from frugalseg.ops.cam import resize
from frugalseg.ops.confusion import confusion_matrix, mean_iou, pixel_accuracy
from frugalseg.stages.retrieval.memory import Memory, nearest_labels, soft_labels

GIB = 1 << 30


class Retrieval(LightningModule):
    """Label each place of an image as its nearest neighbours among training features are labelled (mevt.md d.6).

    Nothing is optimised: `fit` for one epoch over un-augmented images. Entries are drawn evenly from images and cells;
    the code of Hummingbird weighs cells by how rare their classes are.

    Args:
        num_classes: K; the command line links it to the data.
        backbone: whose features.
        input_size: side of the square that images are resized to.
        memory_size: largest number of entries.
        neighbours: entries that are asked per place.
        temperature: of the weights over cosines.
        chunk: entries that are compared at a time.
        seed: of the draws.
        memory_limit: bytes that the memory may take.

    Raises:
        ConfigError: a size that the backbone does not take, or a memory beyond the limit.
    """

    monitor: ClassVar[str] = "val/miou"
    mode: ClassVar[str] = "max"
    confusion: Tensor

    def __init__(
        self,
        num_classes: int = 21,
        backbone: Backbone = Backbone(),  # noqa: B008 - it cannot be changed
        input_size: int = 512,
        memory_size: int = 1_000_000,
        neighbours: int = 30,
        temperature: float = 0.02,
        chunk: int = 1 << 16,
        seed: int = 0,
        memory_limit: int = 8 << 30,
    ) -> None:
        super().__init__()
        self.save_hyperparameters(ignore=["backbone"])
        self.backbone = FrozenBackbone(backbone)
        self.save_hyperparameters({"features": asdict(backbone), "width": self.backbone.width})
        if input_size % self.backbone.multiple:
            raise ConfigError(
                f"model.input_size is {input_size}; backbone {backbone.name} needs a multiple of "
                f"{self.backbone.multiple}"
            )
        if (need := 4 * memory_size * (self.backbone.width + num_classes)) > memory_limit:
            raise ConfigError(
                f"model.memory_size: {memory_size} entries take {need} bytes ({need / GIB:.2f} GiB), more than "
                f"model.memory_limit = {memory_limit}; lower the one or raise the other"
            )
        self.automatic_optimization = False
        self.register_buffer("confusion", torch.zeros(num_classes, num_classes, dtype=torch.int64), persistent=False)
        self._memory: Memory | None = None

    def setup(self, stage: str) -> None:
        """Read the backbone's weights.

        Raises:
            ConfigError: several processes, of which none would have the whole memory; or no fit before validation.
            WeightsError: the weights do not fit.
        """
        if self.trainer.world_size > 1:
            raise ConfigError("trainer.devices: retrieval needs its memory in one process; set it to 1")
        if stage != "fit":
            raise ConfigError("retrieval keeps its memory in no checkpoint; run `fit`, which validates too")
        if self.trainer.ckpt_path is None:
            self.backbone.load()

    def configure_optimizers(self) -> None:
        """Nothing is optimised."""

    def _dense(self, image: Tensor) -> Tensor:
        return self.backbone.dense(image).float()

    def on_train_epoch_start(self) -> None:
        """Begin with no memory; the first batch says how many images share it."""
        self._memory = None

    def training_step(self, batch: SegBatch, batch_idx: int) -> None:
        """Put images into the memory.

        Raises:
            ConfigError: a fit that goes on inside the epoch, without what it knew.
        """
        if self._memory is None:
            if batch_idx:
                raise ConfigError(
                    "retrieval cannot go on inside its epoch: its memory is in no checkpoint; delete the run's "
                    "checkpoints, set trainer.enable_checkpointing to false and run again"
                )
            expected = int(self.trainer.num_training_batches) * len(batch["id"])
            self._memory = Memory(max(1, self.hparams["memory_size"] // expected), self.hparams["seed"])
        images, masks = squared(batch["image"], batch["mask"], self.hparams["input_size"])
        features = self._dense(images)
        for name, each, mask in zip(batch["id"], features, masks, strict=True):
            grid = (each.shape[-2], each.shape[-1])
            self._memory.add(name, each, soft_labels(mask, grid, len(self.confusion), IGNORE_INDEX))

    def on_validation_epoch_start(self) -> None:
        """Begin with empty counts, and put the memory together."""
        self.confusion.zero_()
        if self._memory is not None:
            self._entries = self._memory.entries()

    def validation_step(self, batch: SegBatch, batch_idx: int) -> None:
        """Ask the memory; the check before training finds none and is passed over."""
        if self._memory is None:
            return
        h = self.hparams
        images, masks = squared(batch["image"], batch["mask"], h["input_size"])
        for each, mask in zip(self._dense(images), masks, strict=True):
            said = nearest_labels(each.flatten(1).T, *self._entries, h["neighbours"], h["temperature"], h["chunk"])
            maps = resize(said.T.reshape(1, -1, *each.shape[-2:]), (h["input_size"], h["input_size"]))
            counts = confusion_matrix(maps[0].argmax(dim=0), mask, len(self.confusion), IGNORE_INDEX)
            self.confusion += counts.to(self.confusion.device)

    def on_validation_epoch_end(self) -> None:
        """Log scores and what they were won with."""
        if self._memory is None:
            return
        h = self.hparams
        stated = {key: float(h[key]) for key in ("width", "input_size", "neighbours", "temperature")}
        self.log_dict(
            {
                "val/miou": mean_iou(self.confusion),
                "val/accuracy": pixel_accuracy(self.confusion),
                "protocol/retrieval": 1.0,
                "protocol/memory": float(len(self._memory)),
                **{f"protocol/{key}": value for key, value in stated.items()},
            }
        )

    def confusion_counts(self) -> dict[str, NDArray[np.int64]]:
        """Counts (K, K) of the last validation; row = true class."""
        return {"retrieval": self.confusion.cpu().numpy()}
