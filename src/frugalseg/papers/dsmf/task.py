"""DSMF-Net as a LightningModule: episodic training over a frozen backbone; `EpisodeTask` scores it."""

from collections.abc import Sequence
from typing import Any, ClassVar, Literal, NamedTuple

import torch
from lightning.pytorch.utilities.types import OptimizerLRSchedulerConfig
from torch import Tensor
from torch.optim import SGD, AdamW, Optimizer
from torch.optim.lr_scheduler import LambdaLR

from frugalseg.batch import EpisodeBatch
from frugalseg.errors import ConfigError
from frugalseg.nn.dilated import Early, Stages
from frugalseg.nn.ranks import over_ranks
from frugalseg.nn.weights import load_backbone_weights
from frugalseg.optim import fused, poly_factor, trainable
from frugalseg.papers.dsmf.cache import SupportCache, joined
from frugalseg.papers.dsmf.features import FeatureCache, Last, features_of
from frugalseg.papers.dsmf.leaks import novel_classes, refuse_taught_backbone
from frugalseg.papers.dsmf.losses import auxiliary_loss, episode_loss
from frugalseg.papers.dsmf.model import DSMFNet, Episode, Support
from frugalseg.papers.dsmf.scoring import EpisodeTask


class Losses(NamedTuple):
    """Terms of one step and their sum."""

    main: Tensor
    auxiliary: Tensor
    total: Tensor


class DSMF(EpisodeTask):
    """Train DSMF-Net on episodes of base classes and score it on fixed ones.

    Args:
        num_classes: K of the benchmark, background included; the command line links it to the data.
        backbone: a timm ResNet, or `vgg16_bn`.
        weights: timm name, file, or null; read when a new fit begins.
        backbone_options: see `DSMFNet`.
        dim: d.
        nodes: of each graph.
        states: numbers per node.
        graph_stages: stages with a graph, a prototype and a map.
        graph_impl: `einsum` or `pyg`.
        use_graph: False: identity in place of the graph units.
        use_maps: False: no maps of the stages in the fusion.
        use_prior: False: no prior map.
        fusion: `sff`, or `fem`, the baseline.
        sff_levels: levels of the pyramid.
        sff_merge: intermediate scales.
        query_dropout: of the query's reduced features.
        prior_chunk: support places compared at a time; null for all.
        optimiser: `sgd` (momentum 0.9) or `adamw`.
        lr: initial rate of everything that learns.
        weight_decay: L2 factor of SGD, decoupled one of AdamW.
        power: exponent of the polynomial decay.
        warmup: steps of a linear rise.
        auxiliary_weight: lambda.
        foreground_weight: of the class's pixels in the loss; 1 in the paper's family.
        cache_bytes: of prototypes and foreground columns of supports that an evaluation keeps; 0 for none.
        feature_bytes: of frozen features that training and evaluation keep by image, and by image and mask; 0 for none.
            For training without augmentation, else nothing that is kept comes back.
        unit: `graph`, or `grid`, a control: see `DSMFNet`.
    """

    monitor: ClassVar[str] = "val/miou"
    mode: ClassVar[str] = "max"

    def __init__(
        self,
        num_classes: int = 16,
        backbone: str = "resnet50",
        weights: str | None = "resnet50.tv_in1k",
        backbone_options: dict[str, Any] | None = None,
        dim: int = 256,
        nodes: int = 64,
        states: int = 128,
        graph_stages: Sequence[int] = (1, 2, 3),
        graph_impl: Literal["einsum", "pyg"] = "einsum",
        use_graph: bool = True,
        use_maps: bool = True,
        use_prior: bool = True,
        fusion: Literal["sff", "fem"] = "sff",
        sff_levels: int = 4,
        sff_merge: bool = True,
        query_dropout: float = 0.5,
        prior_chunk: int | None = None,
        optimiser: Literal["sgd", "adamw"] = "sgd",
        lr: float = 5e-3,
        weight_decay: float = 1e-4,
        power: float = 0.9,
        warmup: int = 0,
        auxiliary_weight: float = 1.0,
        foreground_weight: float = 1.0,
        cache_bytes: int = 4 << 30,
        feature_bytes: int = 0,
        unit: Literal["graph", "grid"] = "graph",
    ) -> None:
        super().__init__(num_classes)
        self.save_hyperparameters()
        for key, value in (("lr", lr), ("foreground_weight", foreground_weight)):
            if value <= 0:
                raise ConfigError(f"model.init_args.{key} is {value}: set it to a number above 0")
        counts = {"dim": dim, "nodes": nodes, "states": states, "sff_levels": sff_levels, "prior_chunk": prior_chunk}
        for key, count in counts.items():
            if count is not None and count < 1:
                raise ConfigError(f"model.init_args.{key} is {count}: set it to 1 or more")
        for key, count in (("warmup", warmup), ("cache_bytes", cache_bytes), ("feature_bytes", feature_bytes)):
            if count < 0:
                raise ConfigError(f"model.init_args.{key} is {count}: set it to 0 or more")
        self.net = DSMFNet(
            backbone, backbone_options, dim, nodes, states, graph_stages, graph_impl, use_graph, use_maps, use_prior,
            fusion, sff_levels, sff_merge, query_dropout, prior_chunk, unit,
        )  # fmt: skip
        self.cache = SupportCache(cache_bytes)
        self.feature_bytes = feature_bytes
        self.features: FeatureCache | None = None

    # ------------------------------------------------------------------ training

    def on_fit_start(self) -> None:
        """Read the backbone's weights when a new fit begins; a resumed one has them in its checkpoint.

        Raises:
            WeightsError: they cannot be read, or have learned classes that the fold tests.
        """
        if self.trainer.ckpt_path is None:
            refuse_taught_backbone(self.hparams["weights"], novel_classes(self.trainer), self.num_classes)
            load_backbone_weights(self.net.backbone, self.hparams["weights"])

    def on_train_start(self) -> None:
        """Find kept features: by now the backbone has its weights, from a file or a checkpoint."""
        self.features = features_of(self, self.net.backbone, self.feature_bytes)

    def configure_optimizers(self) -> OptimizerLRSchedulerConfig:
        """One rate for all that learns, polynomial decay per step, after a linear rise where one is set.

        Raises:
            ConfigError: the number of steps is not known.
        """
        h = self.hparams
        total = self.trainer.estimated_stepping_batches
        if not 0 < total < float("inf"):
            raise ConfigError("trainer: the number of steps is not known; set max_steps or max_epochs")
        parameters = trainable(self.net.parameters())
        made: Optimizer = fused(
            SGD(parameters, h["lr"], momentum=0.9, weight_decay=h["weight_decay"])
            if h["optimiser"] == "sgd"
            else AdamW(parameters, h["lr"], weight_decay=h["weight_decay"])
        )

        def factor(step: int) -> float:
            rise = min(1.0, (step + 1) / max(1, int(h["warmup"])))
            return rise * poly_factor(step, int(total), float(h["power"]))

        return {"optimizer": made, "lr_scheduler": {"scheduler": LambdaLR(made, factor), "interval": "step"}}

    def losses(self, episode: Episode, target: Tensor) -> Losses:
        """Main and auxiliary loss of a batch of episodes.

        Args:
            episode: of the net in training mode.
            target: (N, H, W) of 0, 1 and 255.
        """
        given = (target, self.hparams["foreground_weight"], over_ranks(self))
        main = episode_loss(episode.logits, *given)
        auxiliary = self.hparams["auxiliary_weight"] * auxiliary_loss(episode.auxiliary, *given).to(main)
        return Losses(main, auxiliary, main + auxiliary)

    def training_step(self, batch: EpisodeBatch, batch_idx: int) -> Tensor:
        """One batch of episodes."""
        self.note_trained(batch)
        episode = self._episode(batch)
        terms = self.losses(episode, batch["query_mask"])
        self.log_dict({f"train/loss_{k}": v for k, v in terms._asdict().items()}, batch_size=len(batch["id"]))
        return terms.total

    def _episode(self, batch: EpisodeBatch) -> Episode:
        query, supports, masks = batch["query_image"], batch["support_images"], batch["support_masks"]
        if self.features is None:
            made: Episode = self.net(query, supports, masks)
            return made
        images, flat = supports.flatten(0, 1), masks.flatten(0, 1)
        stages = self._supports(images)
        known = self._last(images, flat, stages)
        return self.net.from_features(self._query(query), stages, masks, (query.shape[-2], query.shape[-1]), known)

    def _query(self, images: Tensor) -> Stages | Early:
        """Frozen features of queries, kept ones where there are any."""
        if self.features is None:
            return self.net.query_features(images)
        return self.features.stages(images, self.net.backbone)

    def _supports(self, images: Tensor) -> Stages | Early:
        """The same of supports. What is kept has all stages: a support is a query in the next episode."""
        if self.features is None:
            return self.net.support_features(images)
        return self.features.stages(images, self.net.backbone)

    def _last(self, images: Tensor, masks: Tensor, stages: Stages | Early) -> Last:
        """Masked last stage, kept ones where there are any."""
        # without the prior it has no depth: nothing to keep, and nothing that a net with one should find
        if self.features is None or not self.net.use_prior:
            return self.net.masked_last(stages, masks)

        def make(number: int) -> Last:
            one = slice(number, number + 1)
            return self.net.masked_last(Early(stages.c1[one], stages.c2[one], stages.c3[one]), masks[one])

        return self.features.last(images, masks, make)

    # ------------------------------------------------------------------ evaluation

    def answer(self, batch: EpisodeBatch) -> Episode:
        """Answer episodes, with supports from the cache; each image is worked out by itself.

        Args:
            batch: of N episodes.

        Returns:
            `Episode`.
        """
        found = [self._answer_one(batch, number) for number in range(len(batch["id"]))]
        maps = [torch.cat(parts) for parts in zip(*(e.graph_maps for e in found), strict=True)]
        return Episode(torch.cat([e.logits for e in found]), [], maps, torch.cat([e.prior for e in found]))

    def _answer_one(self, batch: EpisodeBatch, number: int) -> Episode:
        image, class_id = batch["query_image"][number : number + 1], int(batch["class_id"][number])
        known = [
            self.cache.get((name, class_id), lambda n=number, k=shot: self._support(batch, n, k))  # type: ignore[misc]
            for shot, name in enumerate(batch["support_id"][number])
        ]
        query = self._query(image)
        features = [own for own, _ in self.net.stage_features(query)]
        return self.net.answer(query, features, joined([known]), (image.shape[-2], image.shape[-1]))

    def _support(self, batch: EpisodeBatch, number: int, shot: int) -> Support:
        """One support of one episode, N = K = 1."""
        image, mask = batch["support_images"][number, shot][None], batch["support_masks"][number, shot][None]
        stages = self._supports(image)
        features = [own for own, _ in self.net.stage_features(stages)]
        last, soft = self._last(image, mask, stages)
        return Support(self.net.prototypes(features, mask)[:, None], last[:, None], soft[:, None])

    def answer_cold(self, query: Tensor, supports: Tensor, masks: Tensor) -> Episode:
        """The net's own forward pass."""
        made: Episode = self.net(query, supports, masks)
        return made

    def forget(self) -> None:
        """Drop prototypes and columns; frozen features stay true, unless the backbone is another."""
        self.cache.clear()
        self.features = features_of(self, self.net.backbone, self.feature_bytes)
