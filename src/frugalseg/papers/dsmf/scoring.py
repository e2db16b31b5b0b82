"""Scores of fixed episodes: whole numbers, summed over everything, divided last.

They do not depend on workers, ranks or the order of episodes, and every base seed of a test has its own.
"""

import time
from abc import abstractmethod
from typing import Any, cast

import numpy as np
import torch
from lightning.pytorch import LightningModule
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from frugalseg.batch import EpisodeBatch
from frugalseg.errors import ConfigError
from frugalseg.ops.few_shot import ClassSums, class_iou, count_episode, fb_iou, mean_iou
from frugalseg.papers.dsmf.leaks import novel_classes, refuse_trained_classes
from frugalseg.papers.dsmf.model import Episode

COLUMNS = 5
"""Per class: episodes, intersection of background and of foreground, union of background and of foreground."""


class EpisodeTask(LightningModule):
    """A LightningModule that answers episodes; what it says of itself is the same for nets and baselines.

    Args:
        num_classes: K of the benchmark, background included.
    """

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.num_classes = num_classes
        self._sums: dict[int, Tensor] = {}
        self._seeds: dict[int, int] = {}
        self._began = 0.0
        self._shape: tuple[int, ...] = ()
        self._found: dict[int, Tensor] = {}
        # kept in checkpoints: what this net may never be tested on
        self.register_buffer("trained", torch.zeros(num_classes, dtype=torch.bool))
        self._ddp_params_and_buffers_to_ignore = ["trained"]

    @abstractmethod
    def answer(self, batch: EpisodeBatch) -> Episode:
        """Answer N episodes.

        Args:
            batch: of N episodes.
        """

    @abstractmethod
    def answer_cold(self, query: Tensor, supports: Tensor, masks: Tensor) -> Episode:
        """Answer without anything that was kept before, to count what an episode costs.

        Args:
            query: (N, 3, H, W).
            supports: (N, K, 3, H, W).
            masks: (N, K, H, W).
        """

    def forget(self) -> None:
        """Drop what was kept of supports: the net has changed since."""

    def note_trained(self, batch: EpisodeBatch) -> None:
        """Keep in mind which classes training has drawn.

        Args:
            batch: of training episodes.
        """
        cast(Tensor, self.trained)[batch["class_id"]] = True

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Write down what all ranks have drawn; each has seen its own share.

        Args:
            checkpoint: that is being written.
        """
        if self.trainer.world_size > 1:
            drawn = self.trainer.strategy.reduce(cast(Tensor, self.trained).long(), reduce_op="sum")
            checkpoint["state_dict"]["trained"] = cast(Tensor, drawn) > 0

    # ------------------------------------------------------------------ counting

    def _begin(self) -> None:
        self._sums, self._seeds, self._shape = {}, {}, ()
        self._began = time.perf_counter()
        self.forget()

    def _count(self, batch: EpisodeBatch, loader: int) -> dict[str, Any]:
        """Answer a batch and add its pixels to the counts of its loader."""
        episode = self.answer(batch)
        if loader not in self._sums:
            self._sums[loader] = self._nothing(episode.logits)
        if "base_seed" in batch:
            self._seeds[loader] = int(batch["base_seed"][0])
        self._shape = tuple(batch["support_images"].shape[1:])
        for logits, target, class_id in zip(episode.logits, batch["query_mask"], batch["class_id"], strict=True):
            self._sums[loader][int(class_id)] += count_row(logits.argmax(dim=0), target)
        return {"logits": episode.logits, "graph_maps": episode.graph_maps, "prior": episode.prior}

    def _nothing(self, like: Tensor) -> Tensor:
        return torch.zeros(self.num_classes, COLUMNS, dtype=torch.int64, device=like.device)

    def _summed(self, loaders: int) -> dict[int, Tensor]:
        """Base seed -> counts of all ranks; a rank that had no episode of a loader adds nothing."""
        found: dict[int, Tensor] = {}
        for loader in range(loaders):
            sums = self._sums.get(loader, self._nothing(torch.empty(0, device=self.device)))
            # of a rank without episodes: neither a seed nor a vote on it
            seed = sums.new_tensor([self._seeds[loader], 1] if loader in self._seeds else [0, 0])
            if self.trainer.world_size > 1:
                sums = cast(Tensor, self.trainer.strategy.reduce(sums.clone(), reduce_op="sum"))
                seed = cast(Tensor, self.trainer.strategy.reduce(seed, reduce_op="sum"))
            total, votes = seed.tolist()
            found[total // votes if votes else loader] = sums.cpu()
        return found

    def episode_counts(self) -> dict[str, NDArray[np.int64]]:
        """Counts of the last evaluation over all ranks: `seeds` (S,), and `sums` (S, K, 5), see `COLUMNS`.

        Raises:
            ConfigError: there was none: Lightning leaves an evaluation of no batches out.
        """
        if not self._found:
            raise ConfigError("trainer: no episode was answered; raise limit_test_batches (or limit_val_batches)")
        sums = torch.stack(list(self._found.values())).numpy()
        return {"seeds": np.array(list(self._found), np.int64), "sums": sums}

    # ------------------------------------------------------------------ validation

    def on_validation_epoch_start(self) -> None:
        """Begin with empty counts."""
        self._begin()

    def validation_step(self, batch: EpisodeBatch, batch_idx: int) -> dict[str, Any]:
        """Count one batch of episodes; pictures are drawn of what is returned.

        Raises:
            CheckpointError: the episodes are those of a test, and the net was trained on their class.
        """
        novel = set(novel_classes(self._trainer)) & set(batch["class_id"].tolist())
        refuse_trained_classes(cast(Tensor, self.trained), novel)
        return self._count(batch, 0)

    def on_validation_epoch_end(self) -> None:
        """Log the scores."""
        self._found = self._summed(1)
        (sums,) = self._found.values()
        self.log_dict({f"val/{key}": value for key, value in scores(sums, "val").items()}, rank_zero_only=False)

    # ------------------------------------------------------------------ test

    def on_test_epoch_start(self) -> None:
        """Begin with empty counts."""
        self._begin()

    def test_step(self, batch: EpisodeBatch, batch_idx: int, dataloader_idx: int = 0) -> dict[str, Any]:
        """Count one batch of episodes; a loader holds those of one base seed.

        Raises:
            CheckpointError: a class is tested that the net was trained on.
        """
        refuse_trained_classes(cast(Tensor, self.trained), batch["class_id"].tolist())
        return self._count(batch, dataloader_idx)

    def on_test_epoch_end(self) -> None:
        """Log scores of every base seed, their mean and spread, and what the net and an episode cost."""
        self._found = self._summed(len(self.trainer.num_test_batches))
        by_seed = {seed: scores(sums, "test") for seed, sums in self._found.items()}
        took = time.perf_counter() - self._began
        answered = sum(found["episodes"] for found in by_seed.values())
        found = over_seeds(by_seed) | {"episodes_per_second": answered / max(took, 1e-9)}
        self.log_dict({f"test/{key}": value for key, value in found.items()}, rank_zero_only=False)
        self.log_dict(self._costs(), rank_zero_only=False)

    def _costs(self) -> dict[str, Tensor]:
        """Parameters, and floating-point operations of one episode that knows nothing yet."""
        parameters = list(self.parameters())
        costs = {"model/parameters": sum(p.numel() for p in parameters)}
        if learns := sum(p.numel() for p in parameters if p.requires_grad):
            costs["model/parameters_trainable"] = learns
        if self._shape:
            shots, channels, *size = self._shape
            blank = next(iter(self._sums.values())).new_zeros(
                1, shots, channels, *size, dtype=cast(torch.dtype, self.dtype)
            )
            masks = torch.ones(1, shots, *size, device=self.device, dtype=torch.int64)
            with FlopCounterMode(display=False) as counter:
                self.answer_cold(blank[:, 0], blank, masks)
            costs["model/flops"] = counter.get_total_flops()
        # Lightning would make float32 of a plain number, which not every whole number beyond 2^24 is
        return {key: torch.tensor(value, dtype=torch.float64) for key, value in costs.items()}


def count_row(pred: Tensor, target: Tensor) -> Tensor:
    """What one episode adds to the counts of its class.

    Args:
        pred: (H, W) of 0 and 1.
        target: (H, W) of 0, 1 and 255.

    Returns:
        (5,) int64, see `COLUMNS`.
    """
    counts = count_episode(pred, target)
    return torch.cat([counts.intersection.new_ones(1), counts.intersection, counts.union])


def class_sums(sums: Tensor) -> ClassSums:
    """The counts of the classes that had an episode.

    Args:
        sums: (K, 5), see `COLUMNS`.
    """
    classes = sums[:, 0].nonzero().flatten()
    rows = sums[classes]
    return ClassSums(tuple(classes.tolist()), rows[:, 0], rows[:, 1:3], rows[:, 3:5])


def scores(sums: Tensor, split: str) -> dict[str, float]:
    """Scores of the episodes of one base seed.

    Args:
        sums: (K, 5), see `COLUMNS`.
        split: for the message.

    Returns:
        `miou`, `fb_iou`, `classes`, `episodes` and `iou/<class id>` of every class that had an episode.

    Raises:
        ConfigError: no episode was answered.
    """
    counts = class_sums(sums)
    if not counts.classes:
        raise ConfigError(f"data: no episode of split {split} was answered; raise trainer.limit_{split}_batches")
    return {
        "miou": mean_iou(counts),
        "fb_iou": fb_iou(counts),
        "classes": float(len(counts.classes)),
        "episodes": float(counts.episodes.sum()),
        **{f"iou/{c}": float(value) for c, value in zip(counts.classes, class_iou(counts), strict=True)},
    }


def over_seeds(by_seed: dict[int, dict[str, float]]) -> dict[str, float]:
    """Mean and sample standard deviation over base seeds, and the scores of each.

    Args:
        by_seed: base seed -> `scores`.

    Returns:
        `miou`, `miou_std` and so on; the deviations are left out where there is one seed. `episodes` are those of the
        first seed, `classes` the fewest that any seed has.
    """
    rows = list(by_seed.values())
    found = {
        "seeds": float(len(rows)),
        "episodes": rows[0]["episodes"],
        "classes": min(row["classes"] for row in rows),
    }
    for key in dict.fromkeys(key for row in rows for key in row if key not in ("episodes", "classes")):
        values = np.array([row[key] for row in rows if key in row])
        head, slash, class_id = key.partition("/")
        found[key] = float(values.mean())
        if len(values) > 1:
            found[f"{head}_std{slash}{class_id}"] = float(values.std(ddof=1))
    each = {
        f"seed{seed}/{key}": value for seed, row in by_seed.items() for key, value in row.items() if key != "classes"
    }
    return found | each
