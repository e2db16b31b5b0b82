"""IRN as a LightningModule: learn class boundaries from seed labels, then write the edges of whole images."""

import logging
from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from lightning.pytorch import LightningModule
from lightning.pytorch.utilities.types import OptimizerLRSchedulerConfig
from torch import Tensor

from frugalseg.batch import ScalesBatch, SegBatch
from frugalseg.errors import ConfigError
from frugalseg.nn.ranks import over_ranks
from frugalseg.nn.weights import load_backbone_weights
from frugalseg.ops.random_walk import affinity_from_edges
from frugalseg.optim import poly_sgd
from frugalseg.stages.irn import pairs
from frugalseg.stages.irn.losses import Terms, irn_loss
from frugalseg.stages.irn.model import IRNet, wide

log = logging.getLogger(__name__)

WALK_RADIUS = 5
"""Radius of the pairs that the random walk uses, and that validation looks at."""


class IRN(LightningModule):
    """Train IRN's edges (Ahn et al., CVPR 2019, as SFC uses it: sfc.md 7.2) and predict them (7.3).

    The data are a `Segment` recipe whose masks are seed labels (`data.pseudo_labels`), 255 where they are unsure. The
    validation split keeps its true masks: `val/boundary_ap` says how well low affinity finds the pairs of cells that
    lie across a true boundary. No checkpoint is chosen by it; the final weights count.

    With `displacement`, the mean displacement is measured anew in each validation, over the images of the validation
    split (the reference does it after training, over the train list), and kept in the checkpoint as the mean shift.

    Args:
        num_classes: K, background included; the command line links it to the data. The net does not depend on it.
        backbone: a timm ResNet; it never changes.
        weights: timm name, file, or null; read when a new fit begins.
        strides: step of stem and layers, see `IRNet`.
        backbone_options: further arguments of the timm model.
        displacement: train the displacement branch too, which instances need and semantic labels do not.
        radius: pairs closer than that many cells are trained on.
        lr: initial rate of the edge branches.
        displacement_lr: initial rate of the displacement branch.
        momentum: 1e-4 is what the authors' optimiser really uses (sfc.md, trap 2).
        weight_decay: L2 factor.
        power: exponent of the polynomial decay.
        pad_to: zeros are put to the right and below images up to this side before prediction, see `IRNet.pad`.
    """

    # pixel labels choose nothing: only last.ckpt is kept
    monitor: ClassVar[str | None] = None
    boundary: Tensor
    shift: Tensor

    def __init__(
        self,
        num_classes: int = 21,
        backbone: str = "resnet50",
        weights: str | None = "resnet50.tv_in1k",
        strides: Sequence[int] = (4, 1, 2, 2, 1),
        backbone_options: dict[str, Any] | None = None,
        displacement: bool = False,
        radius: int = 10,
        lr: float = 0.1,
        displacement_lr: float = 1.0,
        momentum: float = 1e-4,
        weight_decay: float = 1e-4,
        power: float = 0.9,
        pad_to: int = 512,
    ) -> None:
        super().__init__()
        self.save_hyperparameters()
        if not 2 <= num_classes <= 255 or radius < 2 or pad_to < 1:
            raise ConfigError("model.init_args: num_classes must be 2 to 255, radius at least 2, pad_to at least 1")
        self.net = IRNet(backbone, strides, displacement, backbone_options)
        self.register_buffer("boundary", torch.zeros(2, pairs.BINS, dtype=torch.int64), persistent=False)
        self.register_buffer("shift", torch.zeros(3), persistent=False)  # sums of dy, dx and images

    # ------------------------------------------------------------------ set-up

    def on_fit_start(self) -> None:
        """Read initial weights when a new fit begins; a resumed one has them in its checkpoint.

        Raises:
            WeightsError: the weights do not fit.
        """
        if getattr(getattr(self.trainer, "datamodule", None), "pseudo_labels", None) is None:
            log.warning("data.pseudo_labels is null: edges are learned from the benchmark's own masks, not from seeds")
        if self.net.displacement is not None and not self.trainer.enable_validation:
            log.warning("model.displacement without validation: the mean shift stays 0")
        if self.trainer.ckpt_path is None:
            load_backbone_weights(self.net.backbone, self.hparams["weights"])

    def configure_optimizers(self) -> OptimizerLRSchedulerConfig:
        """SGD, both branches at their own rates, polynomial decay per step."""
        h = self.hparams
        groups = [(list(self.net.edge.parameters()), h["lr"])]
        if self.net.displacement is not None:
            groups.append((list(self.net.displacement.parameters()), h["displacement_lr"]))
        steps = int(self.trainer.estimated_stepping_batches)
        optimiser, schedule = poly_sgd(groups, steps, h["weight_decay"], h["momentum"], h["power"])
        return {"optimizer": optimiser, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    # ------------------------------------------------------------------ training

    def losses(self, image: Tensor, mask: Tensor) -> Terms:
        """All terms of one pass (sfc.md 7.2).

        With several processes, pairs are counted over all of them: the number of processes does not alter the maths.

        Args:
            image: (N, 3, H, W).
            mask: (N, H, W) seed labels.

        Raises:
            ConfigError: the images are too small for the radius.
        """
        edge, displacement = self.net(image)
        label = pairs.reduce_labels(mask, self.net.stride, (edge.shape[-2], edge.shape[-1]))
        try:
            kinds = pairs.pair_kinds(label, self.hparams["radius"])
        except ValueError as error:
            raise ConfigError(f"model.init_args.radius: {error}; lower it or raise data.recipe.crop") from error
        counts, average = pairs.count_kinds(kinds), over_ranks(self)
        if average is not None:
            counts = average(counts)
        return irn_loss(edge, kinds, displacement, self.hparams["radius"], counts)

    def training_step(self, batch: SegBatch, batch_idx: int) -> Tensor:
        """One batch of crops with seed labels."""
        terms = self.losses(batch["image"], batch["mask"])
        named = {f"train/loss_{name}": value for name, value in terms._asdict().items() if value is not None}
        self.log_dict(named, batch_size=len(batch["image"]))
        return terms.total

    # ------------------------------------------------------------------ validation

    def on_validation_epoch_start(self) -> None:
        """Begin with empty sums."""
        self.boundary.zero_()
        self.shift.zero_()

    def validation_step(self, batch: SegBatch, batch_idx: int) -> None:
        """Count the affinities of pairs with true labels, without the mirror image; add up the displacement."""
        image, mask = batch["image"], batch["mask"]
        maps = self.net(self.net.pad(image, self.hparams["pad_to"]))
        if maps.displacement is not None and self.net.displacement is not None:
            moved = wide(maps.displacement).mean(dim=(0, 2, 3)) + self.net.displacement.mean_shift
            self.shift += torch.cat([moved, moved.new_ones(1)])
        height, width = self.net.grid(image)
        label = pairs.reduce_labels(mask, self.net.stride, (height, width))
        if height < WALK_RADIUS or width < 2 * WALK_RADIUS - 1:
            return
        affinity = affinity_from_edges(wide(maps.edge[:, :height, :width]).sigmoid(), WALK_RADIUS)
        kinds = pairs.pair_kinds(label, WALK_RADIUS)
        self.boundary += pairs.boundary_counts(pairs.at_sources(affinity, WALK_RADIUS), kinds)

    def on_validation_epoch_end(self) -> None:
        """Sum over ranks, then score: exact however the images were dealt out."""
        boundary, shift = self.boundary, self.shift
        if self.trainer.world_size > 1:
            boundary, shift = (self.trainer.strategy.reduce(t.clone(), reduce_op="sum") for t in (boundary, shift))
        scores = {f"val/{name}": value for name, value in pairs.boundary_scores(boundary).items()}
        self.log_dict(scores, rank_zero_only=False, sync_dist=False)
        if self.net.displacement is not None:
            self.net.displacement.mean_shift.copy_(shift[:2] / shift[2])

    # ------------------------------------------------------------------ edges of whole images

    def predict_step(self, batch: ScalesBatch, batch_idx: int) -> dict[str, Any]:
        """Edges on the grid of the net from the image and its mirror image (sfc.md 7.3).

        An image that is larger than `pad_to` is not cut as in the reference (trap 13) but padded to a multiple of the
        output stride.

        Returns:
            `id` and `arrays`: `edge` (h, w) float32 in [0, 1] with h = ceil(H / stride); `displacement` (2, h, w)
            float32 where that branch is on.

        Raises:
            ConfigError: the recipe's first scale is not 1.
        """
        pair = batch["images"][0]
        if tuple(pair.shape[-2:]) != tuple(batch["size"]):
            raise ConfigError("IRN predicts at image size; set data.predict_recipe.init_args.scales to [1.0]")
        found = self.net.infer(pair, self.hparams["pad_to"])
        arrays = {name: value.cpu().numpy() for name, value in found._asdict().items() if value is not None}
        return {"id": batch["id"][0], "arrays": arrays}
