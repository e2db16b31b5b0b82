"""DSMF-Net as a LightningModule: episodic training over a frozen backbone, and exact scores of fixed episodes."""

from collections.abc import Sequence
from typing import Any, ClassVar, Literal, NamedTuple, cast

import torch
from lightning.pytorch import LightningModule
from lightning.pytorch.utilities.types import OptimizerLRSchedulerConfig
from torch import Tensor
from torch.optim import SGD, AdamW, Optimizer
from torch.optim.lr_scheduler import LambdaLR

from frugalseg.batch import EpisodeBatch
from frugalseg.errors import ConfigError
from frugalseg.nn.weights import load_backbone_weights
from frugalseg.ops.few_shot import ClassSums, class_iou, count_episode, fb_iou, mean_iou
from frugalseg.optim import poly_factor, trainable
from frugalseg.papers.dsmf.cache import SupportCache, joined
from frugalseg.papers.dsmf.losses import auxiliary_loss, episode_loss
from frugalseg.papers.dsmf.model import DSMFNet, Episode, Support


class Losses(NamedTuple):
    """Terms of one step and their sum."""

    main: Tensor
    auxiliary: Tensor
    total: Tensor


class DSMF(LightningModule):
    """Train DSMF-Net on episodes of base classes and score it on fixed ones.

    Scores are sums of whole numbers over all episodes, divided last: they do not depend on workers, ranks or order.

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
        cache_bytes: of supports that an evaluation keeps; 0 for none.
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
    ) -> None:
        super().__init__()
        self.save_hyperparameters()
        for key, value in (("lr", lr), ("foreground_weight", foreground_weight)):
            if value <= 0:
                raise ConfigError(f"model.init_args.{key} is {value}: set it to a number above 0")
        self.net = DSMFNet(
            backbone, backbone_options, dim, nodes, states, graph_stages, graph_impl, use_graph, use_maps, use_prior,
            fusion, sff_levels, sff_merge, query_dropout, prior_chunk,
        )  # fmt: skip
        self.cache = SupportCache(cache_bytes)
        # per class: episodes, intersection and union of background and foreground
        self.register_buffer("sums", torch.zeros(num_classes, 5, dtype=torch.int64), False)
        self._ddp_params_and_buffers_to_ignore = ["sums"]

    # ------------------------------------------------------------------ training

    def on_fit_start(self) -> None:
        """Read the backbone's weights when a new fit begins; a resumed one has them in its checkpoint."""
        if self.trainer.ckpt_path is None:
            load_backbone_weights(self.net.backbone, self.hparams["weights"])

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
        made: Optimizer = (
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
        weight = self.hparams["foreground_weight"]
        main = episode_loss(episode.logits, target, weight)
        auxiliary = self.hparams["auxiliary_weight"] * auxiliary_loss(episode.auxiliary, target, weight).to(main)
        return Losses(main, auxiliary, main + auxiliary)

    def training_step(self, batch: EpisodeBatch, batch_idx: int) -> Tensor:
        """One batch of episodes."""
        episode: Episode = self.net(batch["query_image"], batch["support_images"], batch["support_masks"])
        terms = self.losses(episode, batch["query_mask"])
        self.log_dict({f"train/loss_{k}": v for k, v in terms._asdict().items()}, batch_size=len(batch["id"]))
        return terms.total

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
        query = self.net.backbone(image)
        features = [own for own, _ in self.net.stage_features(query)]
        return self.net.answer(query, features, joined([known]), (image.shape[-2], image.shape[-1]))

    def _support(self, batch: EpisodeBatch, number: int, shot: int) -> Support:
        """One support of one episode, N = K = 1."""
        image, mask = batch["support_images"][number, shot][None], batch["support_masks"][number, shot][None]
        stages = self.net.backbone(image)
        features = [own for own, _ in self.net.stage_features(stages)]
        last, soft = self.net.masked_last(stages, mask)
        return Support(self.net.prototypes(features, mask)[:, None], last[:, None], soft[:, None])

    def _begin(self) -> None:
        """Empty counts, and no support of a net that has changed since."""
        cast(Tensor, self.sums).zero_()
        self.cache.clear()

    def _count(self, batch: EpisodeBatch) -> Episode:
        """Answer a batch and add its pixels to the counts."""
        episode = self.answer(batch)
        sums = cast(Tensor, self.sums)
        for logits, target, class_id in zip(episode.logits, batch["query_mask"], batch["class_id"], strict=True):
            counts = count_episode(logits.argmax(dim=0), target)
            row = torch.cat([counts.intersection.new_ones(1), counts.intersection, counts.union])
            sums[int(class_id)] += row
        return episode

    def _scores(self, split: str) -> dict[str, float]:
        """Scores of all ranks' episodes; those of a class without episodes are not silently left out.

        Raises:
            ConfigError: no episode was answered.
        """
        sums = cast(Tensor, self.sums)
        if self.trainer.world_size > 1:
            sums = self.trainer.strategy.reduce(sums.clone(), reduce_op="sum")
        rows = sums.cpu()
        classes = tuple(rows[:, 0].nonzero().flatten().tolist())
        if not classes:
            raise ConfigError(f"data: no episode of split {split} was answered; raise trainer.limit_{split}_batches")
        found = rows[list(classes)]
        counts = ClassSums(classes, found[:, 0], found[:, 1:3], found[:, 3:5])
        by_class = {f"{split}/iou/{c}": float(v) for c, v in zip(classes, class_iou(counts), strict=True)}
        scores = {
            f"{split}/miou": mean_iou(counts),
            f"{split}/fb_iou": fb_iou(counts),
            f"{split}/classes": len(classes),
        }
        return {**scores, **by_class, f"{split}/episodes": int(found[:, 0].sum())}

    def on_validation_epoch_start(self) -> None:
        """Begin with empty counts."""
        self._begin()

    def validation_step(self, batch: EpisodeBatch, batch_idx: int) -> None:
        """Count one batch of episodes."""
        self._count(batch)

    def on_validation_epoch_end(self) -> None:
        """Log the scores."""
        self.log_dict(self._scores("val"), rank_zero_only=False)

    def on_test_epoch_start(self) -> None:
        """Begin with empty counts."""
        self._begin()

    def test_step(self, batch: EpisodeBatch, batch_idx: int) -> None:
        """Count one batch of episodes."""
        self._count(batch)

    def on_test_epoch_end(self) -> None:
        """Log the scores."""
        self.log_dict(self._scores("test"), rank_zero_only=False)
