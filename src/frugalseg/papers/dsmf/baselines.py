"""What one gets without training a net: a prototype's cosine map with a threshold, and everything foreground."""

from typing import Any

import torch
from torch import Tensor

from frugalseg.batch import EpisodeBatch
from frugalseg.errors import ConfigError
from frugalseg.nn.dilated import Stages, dilated
from frugalseg.nn.weights import load_backbone_weights
from frugalseg.ops.cam import resize
from frugalseg.ops.few_shot import mean_iou
from frugalseg.ops.prototypes import foreground, scaled_cosine_map, weighted_average_pool
from frugalseg.papers.dsmf.features import FeatureCache, features_of
from frugalseg.papers.dsmf.leaks import novel_classes, refuse_taught_backbone
from frugalseg.papers.dsmf.model import Episode
from frugalseg.papers.dsmf.scoring import COLUMNS, EpisodeTask, class_sums, count_row


class PrototypeBaseline(EpisodeTask):
    """A prototype of frozen features, its cosine with the query's, min-max scaled, above a threshold.

    Nothing learns but the threshold, which a fit chooses by the mean IoU of its training episodes, so by base classes.

    Args:
        num_classes: K of the benchmark, background included; the command line links it to the data.
        backbone: a timm ResNet, or `vgg16_bn`.
        weights: timm name, file, or null; read when a new fit begins.
        backbone_options: see `DSMFNet`.
        stage: 1 to 4, whose features are compared.
        steps: thresholds 1/steps, 2/steps and so on below 1 are tried.
        feature_bytes: see `DSMF`.
    """

    def __init__(
        self,
        num_classes: int = 16,
        backbone: str = "resnet50",
        weights: str | None = "resnet50.tv_in1k",
        backbone_options: dict[str, Any] | None = None,
        stage: int = 3,
        steps: int = 40,
        feature_bytes: int = 0,
    ) -> None:
        super().__init__(num_classes)
        self.save_hyperparameters()
        if not 1 <= stage <= 4:
            raise ConfigError(f"model.init_args.stage is {stage}: set it to a stage from 1 to 4")
        if steps < 2:
            raise ConfigError(f"model.init_args.steps is {steps}: set it to 2 or more")
        # counts are made by hand and nothing has a gradient
        self.automatic_optimization = False
        self.backbone = dilated(backbone, backbone_options)
        self.stage, self.feature_bytes = stage, feature_bytes
        self.features: FeatureCache | None = None
        self.thresholds = [step / steps for step in range(1, steps)]
        self.register_buffer("threshold", torch.tensor(float("nan")))
        self._tried: list[Tensor] = []

    def configure_optimizers(self) -> None:
        """None: nothing learns by a gradient."""

    def setup(self, stage: str) -> None:
        """Refuse several processes before they are wired together.

        Args:
            stage: of the Trainer.

        Raises:
            ConfigError: a fit on several; DDP takes no module without gradients.
        """
        if stage == "fit" and self.trainer.world_size > 1:
            raise ConfigError(f"trainer.devices: {type(self).__name__} is fitted by one process; set it to 1")

    def on_fit_start(self) -> None:
        """Read the backbone's weights when a new fit begins.

        Raises:
            WeightsError: they cannot be read, or have learned classes that the fold tests.
        """
        if self.trainer.ckpt_path is None:
            refuse_taught_backbone(self.hparams["weights"], novel_classes(self.trainer), self.num_classes)
            load_backbone_weights(self.backbone, self.hparams["weights"])

    def forget(self) -> None:
        """Find kept features of the backbone as it is now.

        Raises:
            ConfigError: no fit has chosen the threshold.
        """
        if not torch.isfinite(self.threshold):
            raise ConfigError(
                "there is no threshold yet, which a fit chooses at its end: set trainer.limit_val_batches=0 in a fit,"
                " and give the checkpoint of one that ran to its end to everything else"
            )
        self.features = features_of(self, self.backbone, self.feature_bytes)

    # ------------------------------------------------------------------ choosing the threshold

    def on_train_start(self) -> None:
        """Begin with empty counts of every threshold."""
        self.features = features_of(self, self.backbone, self.feature_bytes)
        self._tried = [torch.zeros(self.num_classes, COLUMNS, dtype=torch.int64) for _ in self.thresholds]

    def training_step(self, batch: EpisodeBatch, batch_idx: int) -> None:
        """Count what every threshold makes of a batch of episodes."""
        self.note_trained(batch)
        with torch.no_grad():
            maps = self.maps(batch["query_image"], batch["support_images"], batch["support_masks"])
        for probability, target, class_id in zip(maps[:, 0], batch["query_mask"], batch["class_id"], strict=True):
            for threshold, sums in zip(self.thresholds, self._tried, strict=True):
                sums[int(class_id)] += count_row((probability > threshold).long(), target).cpu()

    def on_train_end(self) -> None:
        """Keep the threshold with the highest mean IoU over the classes that were trained on."""
        counts = [class_sums(rows) for rows in self._tried]
        if not counts[0].classes or self.trainer.interrupted:
            return
        found = [mean_iou(rows) for rows in counts]
        best = max(range(len(found)), key=found.__getitem__)
        self.threshold = torch.tensor(self.thresholds[best], device=self.device)
        self.trainer.callback_metrics["train/threshold"] = torch.tensor(self.thresholds[best])
        self.trainer.callback_metrics["train/miou"] = torch.tensor(found[best])

    # ------------------------------------------------------------------ answering

    def maps(self, query: Tensor, supports: Tensor, masks: Tensor) -> Tensor:
        """Scaled cosine maps (N, 1, H, W) in 0..1 at the size of the query.

        Args:
            query: (N, 3, H, W) normalised.
            supports: (N, K, 3, H, W).
            masks: (N, K, H, W) of 0, 1 and 255.
        """
        own = self._stages(query)[self.stage - 1]
        theirs = self._stages(supports.flatten(0, 1))[self.stage - 1]
        soft = foreground(masks.flatten(0, 1)[:, None], (theirs.shape[-2], theirs.shape[-1]))
        pooled = weighted_average_pool(theirs, soft)
        prototypes = pooled.reshape(len(query), -1, pooled.shape[-1]).mean(dim=1)
        found = scaled_cosine_map(own, prototypes)
        return resize(found, (query.shape[-2], query.shape[-1]), align_corners=True)

    def _stages(self, images: Tensor) -> Stages:
        if self.features is not None:
            return self.features.stages(images, self.backbone)
        found: Stages = self.backbone(images)
        return found

    def answer(self, batch: EpisodeBatch) -> Episode:
        """Answer episodes; `prior` is the map. Each is worked out by itself, see `FeatureCache`.

        Args:
            batch: of N episodes.
        """
        parts = zip(batch["query_image"], batch["support_images"], batch["support_masks"], strict=True)
        return self._episode(
            torch.cat([self.maps(query[None], images[None], masks[None]) for query, images, masks in parts])
        )

    def answer_cold(self, query: Tensor, supports: Tensor, masks: Tensor) -> Episode:
        """The same without kept features."""
        kept, self.features = self.features, None
        found = self._episode(self.maps(query, supports, masks))
        self.features = kept
        return found

    def _episode(self, maps: Tensor) -> Episode:
        # the greater of map and threshold wins
        threshold = self.threshold.to(maps)
        return Episode(torch.cat([threshold.expand_as(maps), maps], dim=1), [], [], maps)


class ForegroundBaseline(EpisodeTask):
    """Everything is the class: what a score has to beat before it means anything.

    Args:
        num_classes: K of the benchmark, background included; the command line links it to the data.
    """

    training_free = True
    """There is no checkpoint to test."""

    def __init__(self, num_classes: int = 16) -> None:
        super().__init__(num_classes)
        self.save_hyperparameters()

    def configure_optimizers(self) -> None:
        """None: there is nothing to learn."""

    def answer(self, batch: EpisodeBatch) -> Episode:
        """Answer episodes without looking at them.

        Args:
            batch: of N episodes.
        """
        return self.answer_cold(batch["query_image"], batch["support_images"], batch["support_masks"])

    def answer_cold(self, query: Tensor, supports: Tensor, masks: Tensor) -> Episode:
        """The class everywhere."""
        size = (len(query), 1, *query.shape[-2:])
        return Episode(torch.cat([query.new_zeros(size), query.new_ones(size)], dim=1), [], [], query.new_ones(size))
