"""Scores of a validation from whole numbers: what tasks share whose answer is a class per pixel."""

from typing import cast

import torch
from lightning.pytorch import LightningModule
from torch import Tensor

from frugalseg.batch import IGNORE_INDEX
from frugalseg.ops.confusion import confusion_matrix, iou, mean_iou, pixel_accuracy


class CountsPixels(LightningModule):
    """Counts pixels by true and predicted class over a validation, on all ranks, and divides last.

    A task calls `begin_counting` when it is built and `count` for every batch, and says how by `protocol_metrics`.
    """

    confusion: Tensor
    best: Tensor

    def begin_counting(self, num_classes: int) -> None:
        """Make room for the counts, and remember the best score in checkpoints.

        Args:
            num_classes: K.
        """
        self.register_buffer("confusion", torch.zeros(num_classes, num_classes, dtype=torch.int64), persistent=False)
        self.register_buffer("best", torch.tensor(float("-inf"), dtype=torch.float64))

    def count(self, prediction: Tensor, truth: Tensor) -> None:
        """Count the pixels of a batch; ignored ones count nowhere.

        Args:
            prediction: (N, H, W) class ids.
            truth: (N, H, W) class ids and 255.
        """
        counts = confusion_matrix(prediction, truth, len(self.confusion), IGNORE_INDEX)
        self.confusion += counts.to(self.confusion.device)

    def protocol_metrics(self) -> dict[str, float]:
        """The protocol under which the scores are won, as metrics."""
        return {}

    def on_validation_epoch_start(self) -> None:
        """Begin with empty counts."""
        self.confusion.zero_()

    def on_validation_epoch_end(self) -> None:
        """Sum the integer counts over ranks, then divide: exact however the images were dealt out."""
        counts = self.confusion
        if self.trainer.world_size > 1:
            counts = cast(Tensor, self.trainer.strategy.reduce(counts.clone(), reduce_op="sum"))
        self._counts, score = counts, mean_iou(counts)
        if not self.trainer.sanity_checking:
            self.best.fill_(max(float(self.best), score))
        best = float(self.best) if torch.isfinite(self.best) else score
        scores = {"val/miou": score, "val/miou_best": best, "val/accuracy": pixel_accuracy(counts)}
        # a class that neither occurs nor is predicted has none
        found = enumerate(iou(counts).tolist())
        scores |= {f"val/iou/{number}": value for number, value in found if value == value}
        self.log_dict({**scores, **self.protocol_metrics()}, rank_zero_only=False, sync_dist=False)
