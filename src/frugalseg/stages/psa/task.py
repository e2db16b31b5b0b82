"""PSA as a LightningModule: train affinities on seed labels, and write those of whole images for the walk."""

from collections.abc import Sequence
from typing import Any

from lightning.pytorch import LightningModule
from lightning.pytorch.utilities.types import OptimizerLRSchedulerConfig
from torch import Tensor, nn
from torchmetrics.classification import BinaryAveragePrecision

from frugalseg.batch import ScalesBatch, SegBatch
from frugalseg.errors import ConfigError
from frugalseg.nn.ranks import over_ranks
from frugalseg.nn.weights import load_backbone_weights
from frugalseg.optim import poly_sgd
from frugalseg.stages.psa.losses import affinity_loss
from frugalseg.stages.psa.model import AffinityNet
from frugalseg.stages.psa.pairs import PairMasks, pair_masks, pool_labels


class PSA(LightningModule):
    """Learn which near cells belong together (Ahn and Kwak, CVPR 2018; settings of cti.md 8.2).

    Training takes masks of seed labels in which 255 is not labelled (`data.pseudo_labels`); validation scores the
    affinities of whole images against the true masks, for curves only: no checkpoint is chosen by them.

    Args:
        num_classes: K, background included; the command line links it to the data.
        backbone: `resnet38d`, or a timm ResNet.
        weights: file, timm name, or null; read when a new fit begins. ResNet-38 has no timm name: give a file.
        strides: of a timm ResNet's stem and layers.
        trained_from: first stage that learns; null takes the published one, see `AffinityNet`.
        embedding: depths of the head.
        radius: pairs are closer than that, in cells.
        border_pairs: see `AffinityNet`; false is the reference.
        backbone_options: further arguments of the backbone.
        lr: initial rate of the backbone's weights.
        head_factor: by how much the head learns faster.
        momentum: 5e-4 is what the authors' optimiser really uses, which passes the decay in its place (cti.md 9); 0.9
            would be a true momentum.
        weight_decay: L2 factor of weights.
        power: exponent of the polynomial decay.
    """

    def __init__(
        self,
        num_classes: int = 21,
        backbone: str = "resnet38d",
        weights: str | None = None,
        strides: Sequence[int] = (4, 1, 2, 1, 1),
        trained_from: str | None = None,
        embedding: Sequence[int] = (64, 128, 256),
        radius: int = 5,
        border_pairs: bool = False,
        backbone_options: dict[str, Any] | None = None,
        lr: float = 0.01,
        head_factor: float = 10.0,
        momentum: float = 5e-4,
        weight_decay: float = 5e-4,
        power: float = 0.9,
    ) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.net = AffinityNet(backbone, strides, trained_from, embedding, radius, border_pairs, backbone_options)
        # by bins, so that the pairs of all images need not be kept
        self.precision = BinaryAveragePrecision(thresholds=256)

    # ------------------------------------------------------------------ set-up

    def on_fit_start(self) -> None:
        """Read initial weights when a new fit begins; a resumed one has them in its checkpoint.

        Raises:
            WeightsError: the weights do not fit.
        """
        if self.trainer.ckpt_path is None:
            load_backbone_weights(self.net.backbone, self.hparams["weights"])

    def configure_optimizers(self) -> OptimizerLRSchedulerConfig:
        """SGD with polynomial decay per step; biases learn twice as fast as weights and are not decayed.

        ResNet-38 with fixed normalisation has no biases; those of other backbones are of their normalisation.
        """
        h = self.hparams
        groups = [
            (parameters, lr * (2 if bias else 1))
            for module, lr in ((self.net.backbone, h["lr"]), (self.net.head, h["lr"] * h["head_factor"]))
            for bias in (False, True)
            if (parameters := _learning(module, bias))
        ]
        optimiser, schedule = poly_sgd(
            groups, int(self.trainer.estimated_stepping_batches), h["weight_decay"], h["momentum"], h["power"]
        )
        biases = {id(p) for p in _learning(self.net, bias=True)}
        for group in optimiser.param_groups:
            if id(group["params"][0]) in biases:
                group["weight_decay"] = 0.0
        return {"optimizer": optimiser, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    # ------------------------------------------------------------------ training

    def pairs(self, mask: Tensor) -> PairMasks:
        """What masks (N, H, W) say about the pairs of their images."""
        label = pool_labels(mask, self.net.stride, self.hparams["num_classes"])
        return pair_masks(label, self.net.radius, self.net.border_pairs)

    def training_step(self, batch: SegBatch, batch_idx: int) -> Tensor:
        """Loss of one batch of crops.

        Raises:
            ConfigError: the crops are so small that there are no pairs.
        """
        pairs, radius = self.pairs(batch["mask"]), self.net.radius
        height, width = pairs.different.shape[-2:]
        if not self.net.border_pairs and (height < radius or width < 2 * radius - 1):
            raise ConfigError(
                f"data.recipe.crop: {height} x {width} cells hold no pairs of radius {radius}; take larger crops, or "
                "set model.init_args.border_pairs"
            )
        affinity = self.net(batch["image"])
        counts, average = pairs.counts(), over_ranks(self)
        if average is not None:
            counts = average(counts)
        terms = affinity_loss(affinity, pairs, counts)
        self.log_dict({f"train/loss_{n}": value for n, value in terms._asdict().items()}, batch_size=len(affinity))
        return terms.total

    # ------------------------------------------------------------------ validation

    def validation_step(self, batch: SegBatch, batch_idx: int) -> None:
        """Collect how well low affinity tells pairs across a boundary of the true mask."""
        pairs = self.pairs(batch["mask"])
        affinity = self.net(batch["image"])
        known = pairs.background | pairs.foreground | pairs.different
        self.precision.update(1 - affinity[known], pairs.different[known].long())

    def on_validation_epoch_end(self) -> None:
        """Log the average precision over the pairs of all images."""
        self.log("val/boundary_ap", self.precision.compute())
        self.precision.reset()

    # ------------------------------------------------------------------ affinities of whole images

    def predict_step(self, batch: ScalesBatch, batch_idx: int) -> dict[str, Any]:
        """Affinities of one image at its own size.

        Returns:
            `id` and `arrays`: `affinity` (P, h, w) float32, h = ceil(H / stride), in the order of `path_offsets`.

        Raises:
            ConfigError: the recipe does not give the image at scale 1 alone.
        """
        first = batch["images"][0]
        if len(batch["images"]) != 1 or tuple(first.shape[-2:]) != tuple(batch["size"]):
            raise ConfigError("data.predict_recipe.scales: affinities are those of one scale; give [1.0]")
        affinity = self.net(first[:1])[0]  # not of the mirror image
        return {"id": batch["id"][0], "arrays": {"affinity": affinity.float().cpu().numpy()}}


def _learning(module: nn.Module, bias: bool) -> list[nn.Parameter]:
    """The biases, or the other parameters, that may change."""
    return [p for name, p in module.named_parameters() if p.requires_grad and name.endswith("bias") == bias]
