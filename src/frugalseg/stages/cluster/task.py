"""Unsupervised clustering of frozen features as a LightningModule that only validates."""

from dataclasses import asdict
from typing import ClassVar

import numpy as np
import torch
from lightning.pytorch import LightningModule
from numpy.typing import NDArray
from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from torch import Tensor

from frugalseg.batch import IGNORE_INDEX, SegBatch
from frugalseg.errors import ConfigError
from frugalseg.nn.features import Backbone, FrozenBackbone
from frugalseg.nn.inputs import middle, nearest, squared
from frugalseg.ops.cam import resize
from frugalseg.ops.clustering import cluster_counts
from frugalseg.stages.cluster.kmeans import Init, closeness, fit_centres
from frugalseg.stages.cluster.points import FeatureStore, fit_reduction, reduced_points
from frugalseg.stages.cluster.protocols import PROTOCOLS, Name, scores_of
from frugalseg.stages.cluster.refine import colours, refined, teller


class Clustering(LightningModule):
    """Cluster the features of the whole validation set and compare clusters with classes (mevt.md d.5).

    Nothing learns from labels: they only say which cluster is called what. Scores are means over seeds of k-means, with
    `val/miou_std` beside them.

    Args:
        num_classes: C; the command line links it to the data.
        backbone: whose features.
        protocol: `K1` or `K2`; its name goes with the scores.
        clusters: K; null for as many as classes. K1 takes more.
        seeds: runs of k-means, seeds 0, 1, ...
        restarts: starts of each.
        iterations: Lloyd steps of each start.
        per_cluster: points per cluster that k-means is fitted on; null for all points.
        init: see `fit_centres`.
        dimensions: principal components that K1 keeps.
        mirror: average the features of the image and of its mirror image.
        crf: K2 only: also score the clusters after a dense CRF, as `val/miou_crf` and `val/accuracy_crf`.
        mean: of the recipe's normalisation, on the scale 0..1; the CRF needs the image's colours.
        std: likewise.
        input_size: side of the images instead of the protocol's.
        grid: side of the masks instead of the protocol's.
        memory_limit: bytes that the features may take in half precision.

    Raises:
        ConfigError: an unknown protocol, fewer clusters than classes or more than K2 can match, a CRF for K1, or no
            such backbone.
    """

    monitor: ClassVar[str] = "val/miou"
    mode: ClassVar[str] = "max"
    training_free: ClassVar[bool] = True
    """`validate` asks for no checkpoint."""

    def __init__(
        self,
        num_classes: int = 21,
        backbone: Backbone = Backbone(),  # noqa: B008 - it cannot be changed
        protocol: Name = "K1",
        clusters: int | None = None,
        seeds: int = 5,
        restarts: int = 5,
        iterations: int = 50,
        per_cluster: int | None = 256,
        init: Init = "points",
        dimensions: int = 50,
        mirror: bool = False,
        crf: bool = False,
        mean: tuple[float, float, float] = IMAGENET_DEFAULT_MEAN,
        std: tuple[float, float, float] = IMAGENET_DEFAULT_STD,
        input_size: int | None = None,
        grid: int | None = None,
        memory_limit: int = 8 << 30,
    ) -> None:
        super().__init__()
        self.clusters = clusters or num_classes
        self._check(protocol, num_classes, seeds, restarts, crf)
        self.save_hyperparameters(ignore=["backbone"])
        self.protocol = PROTOCOLS[protocol]
        self.input_size, self.grid = input_size or self.protocol.input_size, grid or self.protocol.grid
        self.backbone = FrozenBackbone(backbone)
        if self.input_size % self.backbone.multiple:
            raise ConfigError(
                f"model.input_size is {self.input_size}; backbone {backbone.name} needs a multiple of "
                f"{self.backbone.multiple}"
            )
        resolved = {"input_size": self.input_size, "grid": self.grid, "width": self.backbone.width}
        self.save_hyperparameters({"features": asdict(backbone), **resolved})

    def _check(self, protocol: str, num_classes: int, seeds: int, restarts: int, crf: bool) -> None:
        """Refuse what cannot be meant."""
        if protocol not in PROTOCOLS:
            raise ConfigError(f"model.protocol is {protocol!r}; set it to K1 or K2")
        if self.clusters < num_classes or (protocol == "K2" and self.clusters != num_classes):
            wanted = "as many as" if protocol == "K2" else "at least as many as"
            raise ConfigError(f"model.clusters is {self.clusters}; {protocol} needs {wanted} the {num_classes} classes")
        if min(seeds, restarts) < 1:
            raise ConfigError(f"model.seeds is {seeds} and model.restarts {restarts}; set both to at least 1")
        if crf and protocol != "K2":
            raise ConfigError(f"model.crf: {protocol} has no CRF, K2 has; set model.protocol or model.crf")

    def setup(self, stage: str) -> None:
        """Read the backbone's weights.

        Raises:
            ConfigError: several processes, of which none would have all features.
            WeightsError: the weights do not fit.
        """
        if self.trainer.world_size > 1:
            raise ConfigError("trainer.devices: clustering needs all features in one process; set it to 1")
        if self.trainer.ckpt_path is None:
            self.backbone.load()

    def configure_optimizers(self) -> None:
        """Nothing learns."""

    def on_validation_epoch_start(self) -> None:
        """Begin without features."""
        images = self.trainer.num_val_batches
        expected = int(sum(images) if isinstance(images, list) else images)
        self._store = FeatureStore(expected, self.hparams["memory_limit"])
        self._masks: list[Tensor] = []
        self._pixels: list[Tensor] = []

    def validation_step(self, batch: SegBatch, batch_idx: int) -> None:
        """Keep the features and masks of images."""
        prepare = middle if self.protocol.cropped else squared
        image, mask = prepare(batch["image"], batch["mask"], self.input_size)
        features = self.backbone.dense(image).float()
        if self.hparams["mirror"]:
            features = (features + self.backbone.dense(image.flip(-1)).float().flip(-1)) / 2
        for each in features:
            self._store.add(each)
        if self.hparams["crf"]:
            self._pixels += [colours(each, self.hparams["mean"], self.hparams["std"]).cpu() for each in image]
        mask = mask if self.grid is None else nearest(mask, (self.grid, self.grid))
        self._masks += list(mask.to("cpu", torch.uint8))

    def on_validation_epoch_end(self) -> None:
        """Cluster, match, and log scores with their protocol."""
        h = self.hparams
        points = reduced_points(self._store, fit_reduction(self._store, self.protocol.reduction, h["dimensions"]))
        centres = [
            fit_centres(points, self.clusters, seed, h["restarts"], h["iterations"], h["per_cluster"], h["init"])
            for seed in range(h["seeds"])
        ]
        self._counts = {"": [self._count(points, each).numpy() for each in centres]}
        if h["crf"]:
            self._counts["_crf"] = list(self._count_refined(points, centres).numpy())
        for ending, counts in self._counts.items():
            self._log_scores(ending, counts)
        stated = {
            key: h[key] for key in ("width", "input_size", "grid", "seeds", "mirror", "crf") if h[key] is not None
        }
        stated |= {self.protocol.name: 1, "clusters": self.clusters, "points_dimensions": points.shape[1]}
        self.log_dict({f"protocol/{key}": float(value) for key, value in stated.items()})

    def _log_scores(self, ending: str, counts: list[NDArray[np.int64]]) -> None:
        """Mean and deviation over the seeds of k-means."""
        scores = [scores_of(each, self.protocol.name) for each in counts]
        for key in ("miou", "accuracy"):
            values = np.array([score[key] for score in scores])
            self.log_dict({
                f"val/{key}{ending}": float(values.mean()),
                f"val/{key}{ending}_std": float(values.std()),
            })  # fmt: skip

    def _count(self, points: Tensor, centres: Tensor) -> Tensor:
        """(C, K) counts of all images."""
        height, width = self._store.grid
        total = torch.zeros(self.hparams["num_classes"], self.clusters, dtype=torch.int64)
        for index, mask in enumerate(self._masks):
            cells = height * width
            close = closeness(points[index * cells : (index + 1) * cells], centres)
            if self.protocol.smooth:
                maps = resize(close.T.reshape(1, -1, height, width), (mask.shape[0], mask.shape[1]))
                found = maps[0].argmax(dim=0)
            else:
                found = nearest(close.argmax(dim=1).view(height, width), (mask.shape[0], mask.shape[1]))
            total += cluster_counts(found, mask.long(), self.clusters, len(total), IGNORE_INDEX)
        return total

    def _count_refined(self, points: Tensor, centres: list[Tensor]) -> Tensor:
        """(S, C, K) counts of all images after the CRF, for S sets of centres."""
        height, width = self._store.grid
        cells, tell = height * width, teller("clusters after the CRF", len(self._masks))
        total = torch.zeros(len(centres), self.hparams["num_classes"], self.clusters, dtype=torch.int64)
        for index, (mask, pixels) in enumerate(zip(self._masks, self._pixels, strict=True)):
            own = points[index * cells : (index + 1) * cells]
            close = torch.stack([closeness(own, each).T.reshape(-1, height, width) for each in centres])
            found = refined(pixels.to(self.device), close.to(self.device)).cpu()
            for counts, clusters in zip(total, found, strict=True):
                at_mask = nearest(clusters, (mask.shape[0], mask.shape[1]))
                counts += cluster_counts(at_mask, mask.long(), self.clusters, len(counts), IGNORE_INDEX)
            tell(index + 1)
        return total

    def confusion_counts(self) -> dict[str, NDArray[np.int64]]:
        """(C, K) counts of each seed; row = true class, column = cluster, before any matching."""
        found: dict[str, NDArray[np.int64]] = {}
        for ending, counts in self._counts.items():
            found |= {f"cluster{ending}_{seed}": each for seed, each in enumerate(counts)}
        return found
