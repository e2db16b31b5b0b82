"""CTI as a LightningModule: the training step with its four passes, validation with a full sweep, seed maps."""

from typing import Any, ClassVar, Literal, NamedTuple, cast

import numpy as np
import torch
from lightning.pytorch import LightningModule
from lightning.pytorch.utilities.types import OptimizerLRSchedulerConfig
from numpy.typing import NDArray
from torch import Tensor
from torch.optim import AdamW
from torch.optim.lr_scheduler import LambdaLR

from frugalseg.batch import ScalesBatch, TagBatch
from frugalseg.errors import ConfigError, ImageError
from frugalseg.ops.confusion import mean_iou
from frugalseg.ops.thresholds import cumulate, histogram
from frugalseg.optim import decayed_groups, fused, warmup_cosine
from frugalseg.papers.cti import losses
from frugalseg.papers.cti.inference import seed_maps
from frugalseg.papers.cti.memory import ClassMemory, paired_tokens
from frugalseg.papers.cti.model import CTIViT
from frugalseg.papers.cti.second_view import view_arrays
from frugalseg.papers.cti.seeds import KINDS, Fit
from frugalseg.papers.cti.settings import check_settings
from frugalseg.papers.cti.weights import load_weights

THRESHOLDS = tuple(i / 100 for i in range(1, 100))
"""Backgrounds tried in validation: all of them, since a search that begins high ranks epochs wrongly (trap 10)."""


class Losses(NamedTuple):
    """Terms of one step, each with its weight, and their sum (cti.md 4.5)."""

    classification: Tensor
    background: Tensor
    intra: Tensor
    cross: Tensor
    total: Tensor


class CTI(LightningModule):
    """Train CTI from image tags, score its seed maps, and write them.

    The rows of the ablation are switches of this task: a weight of 0 leaves a term and its pass out, and
    `background_token: false` leaves out the token too.

    Args:
        num_classes: K, background included; the command line links it to the data.
        dim: D.
        depth: number of blocks.
        heads: attention heads.
        patch: side of a patch in pixels.
        grid: side of the table of positions in patches; training at another size resizes it.
        drop_path: rate of stochastic depth in the last block.
        infusion: block (from 0) behind which tokens are infused.
        fused_blocks: so many last blocks make the maps of L_bg; null for half of them.
        background_token: whether there is one.
        stem: settings of a frozen ResNet stem for small nets, see `papers.cti.embed.StemEmbed`; null for patches.
        weights: timm name of a DeiT, file, or null; read when a new fit begins.
        stem_weights: the same for the stem.
        lr: peak rate; 5e-4 * 64 / 512 in the authors' code.
        warmup_lr: rate at the beginning.
        min_lr: rate at the end.
        warmup: duration of the rise, in the schedule's unit.
        schedule: whether the rate changes per epoch (as the authors') or per step.
        weight_decay: AdamW's.
        background_weight: factor of L_bg (W0).
        intra_weight: factor of L_intra (W1).
        cross_weight: factor of L_cross (W2).
        terms_from_epoch: first epoch, from 0, in which the three terms count; 2 on COCO.
        detach_foreground: no gradient to R of the classes in L_bg; the authors' COCO branch.
        cross: where C-CTI's tokens come from: `memory`, the authors' code, or `paired`, another image of the batch.
        memory_size: entries per class.
        unlabelled: what an image without tags means in L_bg: `background` all of it (as the authors'), `skip` nothing.
        seed_map: map that becomes the seed: `q` the refined one, `f` the fused one, `r` the head's.
        save_parts: write all kinds of maps beside the seed, for analysis.
        save_views: write class tokens and maps of the image and of another view of it, see `papers.cti.second_view`.
        fit: pixels that fill no patch: `crop` (as the authors'), `pad` or `resize`.
        max_pixels: larger images are shrunk for the net; their maps keep full size.
    """

    monitor: ClassVar[str] = "val/miou"
    mode: ClassVar[str] = "max"

    def __init__(
        self,
        num_classes: int = 21,
        dim: int = 384,
        depth: int = 12,
        heads: int = 6,
        patch: int = 16,
        grid: int = 14,
        drop_path: float = 0.1,
        infusion: int = 3,
        fused_blocks: int | None = None,
        background_token: bool = True,
        stem: dict[str, Any] | None = None,
        weights: str | None = "deit_small_patch16_224.fb_in1k",
        stem_weights: str | None = None,
        lr: float = 6.25e-5,
        warmup_lr: float = 1e-6,
        min_lr: float = 1e-5,
        warmup: int = 5,
        schedule: Literal["epoch", "step"] = "epoch",
        weight_decay: float = 0.05,
        background_weight: float = 0.1,
        intra_weight: float = 1.0,
        cross_weight: float = 1.0,
        terms_from_epoch: int = 0,
        detach_foreground: bool = False,
        cross: Literal["memory", "paired"] = "memory",
        memory_size: int = 30,
        unlabelled: Literal["background", "skip"] = "background",
        seed_map: Literal["q", "f", "r"] = "q",
        save_parts: bool = False,
        save_views: bool = False,
        fit: Fit = "crop",
        max_pixels: int = 1_500_000,
    ) -> None:
        super().__init__()
        self.save_hyperparameters()
        check_settings(self.hparams)
        self.net = CTIViT(
            num_classes, dim, depth, heads, patch, grid, 4.0, drop_path, infusion, fused_blocks, background_token, stem
        )
        self.memory = ClassMemory(num_classes - 1, dim, memory_size)
        # all ranks keep the same memory by themselves: DDP need not send it around with every step
        kept = [f"memory.{name}" for name, _ in self.memory.named_buffers()]
        self._ddp_params_and_buffers_to_ignore = [*kept, "counts"]
        self.register_buffer(
            "counts", torch.zeros(num_classes, num_classes, len(THRESHOLDS) + 1, dtype=torch.int64), False
        )
        self._memory_is_full = False

    # ------------------------------------------------------------------ set-up

    def on_fit_start(self) -> None:
        """Read initial weights when a new fit begins; a resumed one has them in its checkpoint."""
        if self.trainer.ckpt_path is None:
            load_weights(self.net, self.hparams["weights"], self.hparams["stem_weights"])

    def configure_optimizers(self) -> OptimizerLRSchedulerConfig:
        """AdamW with warm-up and cosine (section 5); the class token is not decayed, the other tokens are.

        Raises:
            ConfigError: a schedule by epochs whose length is not known.
        """
        h = self.hparams
        by_epoch = h["schedule"] == "epoch"
        length = (self.trainer.max_epochs or 0) if by_epoch else self.trainer.estimated_stepping_batches
        if not 0 < length < float("inf"):
            key = "max_epochs (or model.init_args.schedule to step)" if by_epoch else "max_steps or max_epochs"
            raise ConfigError(f"model.init_args.schedule: its length is not known; set trainer.{key}")

        def factor(time: int) -> float:
            return warmup_cosine(time, length, h["warmup"], h["lr"], h["warmup_lr"], h["min_lr"]) / float(h["lr"])

        groups = decayed_groups(self.net.named_parameters(), h["weight_decay"], exempt=("cls_token",))
        optimiser = fused(AdamW(groups, lr=h["lr"]))
        return {
            "optimizer": optimiser,
            "lr_scheduler": {"scheduler": LambdaLR(optimiser, factor), "interval": h["schedule"]},
        }

    # ------------------------------------------------------------------ training

    def losses(
        self, view1: Tensor, view2: Tensor, tags: Tensor, extra: bool = True, show_cross: bool = False
    ) -> Losses:
        """All terms of one step over one batch (section 4); the class memory is updated.

        Args:
            view1: (B, 3, H, W), the weak view.
            view2: (B, 3, H, W), the strong view.
            tags: (B, C) 0/1.
            extra: False leaves all terms but the classification at 0.
            show_cross: compute L_cross before the memory is full, as the authors do; it is not in the total then.

        Returns:
            `Losses`.
        """
        h = self.hparams
        factors = [h[f"{name}_weight"] if extra else 0.0 for name in ("background", "intra", "cross")]
        trunk = self.net.trunk(view1, view2, background=factors[0] > 0)
        own = trunk.view1[:, self.net.first : self.net.tokens]
        prototypes = self._cross_tokens(own, tags, show_cross) if factors[2] > 0 else None
        found = self.net.branches(trunk, factors[1] > 0, prototypes)
        with torch.autocast(view1.device.type, enabled=False):
            plain = found.plain1.maps
            logits = (found.plain1.token_logits, found.plain1.patch_logits, *found.plain2[:2])
            classification = torch.stack([losses.classification_loss(part, tags) for part in logits]).sum()
            background = intra = cross = classification.new_zeros(())
            if found.rows is not None and found.patches is not None:
                options = (h["detach_foreground"], h["unlabelled"] == "skip")
                background = factors[0] * losses.background_loss(plain, found.rows, found.patches, tags, *options)
            if found.intra is not None:
                intra = factors[1] * losses.intra_loss(plain, found.intra)
            if found.cross is not None and found.cross_rows is not None:
                classes = [maps[:, self.net.first :] for maps in (plain, found.cross, found.cross_rows)]
                cross = factors[2] * losses.cross_loss(*classes)
            counted = cross if h["cross"] == "paired" or self._memory_is_full else torch.zeros_like(cross)
        # separate tensors: the authors' logs show the total under the name of the first term (trap 1)
        return Losses(classification, background, intra, cross, classification + background + intra + counted)

    def _cross_tokens(self, own: Tensor, tags: Tensor, show: bool) -> Tensor | None:
        """What C-CTI infuses, (B, C, D) without gradient; None while the memory is filling up.

        With several processes the memory is one, kept alike on all: it sees the tokens of all ranks in rank order.
        """
        tokens, labels, rank = own.detach(), tags, 0
        if self._trainer is not None and self._trainer.world_size > 1:
            tokens, labels = (cast(Tensor, self.all_gather(part)).flatten(0, 1) for part in (tokens, labels))
            rank = self.global_rank
        if self.hparams["cross"] == "paired":
            return paired_tokens(tokens, labels)[rank * len(own) : (rank + 1) * len(own)]
        self.memory.update(tokens, labels)
        # once full it stays full: the device is asked no more
        self._memory_is_full = self._memory_is_full or self.memory.is_full()
        return self.memory.infusion(own, tags) if self._memory_is_full or show else None

    def training_step(self, batch: TagBatch, batch_idx: int) -> Tensor:
        """The four passes over both views.

        Raises:
            ConfigError: the batch has one view only.
        """
        if "strong" not in batch:
            raise ConfigError(
                "data.init_args.recipe.init_args.views: CTI trains on two views of each image; set it to 2"
            )
        extra = self.current_epoch >= self.hparams["terms_from_epoch"]
        terms = self.losses(batch["image"], batch["strong"], batch["tags"], extra)
        values = {f"train/loss_{name}": value for name, value in terms._asdict().items()}
        self.log_dict(values, batch_size=len(batch["tags"]))
        return terms.total

    # ------------------------------------------------------------------ maps of whole images

    def seeds(self, pairs: list[Tensor], tags: Tensor, size: tuple[int, int], parts: bool = False) -> dict[str, Tensor]:
        """Maps of one image from the image and its mirror image at one scale or several (section 6).

        Args:
            pairs: per scale (2, 3, H_s, W_s).
            tags: (C,) 0/1.
            size: (H, W) of the image.
            parts: all kinds of maps beside the seed.

        Returns:
            `keys` (k,) class ids, 0 first; `cam` (k, H, W) in 0..1, its first row the background token's map; with
            `parts` also `r`, `mt`, `f`, `q` and, once the class memory is filled, `infused`.
        """
        h, kind = self.hparams, self.hparams["seed_map"]
        kinds, memory = (list(KINDS), self.memory) if parts else ([kind], None)
        keys, maps = seed_maps(self.net, pairs, tags, size, kinds, h["fit"], h["max_pixels"], memory)
        return {"keys": keys, "cam": maps[kind], **(maps if parts else {})}

    # ------------------------------------------------------------------ validation

    def on_validation_epoch_start(self) -> None:
        """Begin with empty counts."""
        cast(Tensor, self.counts).zero_()

    def validation_step(self, batch: TagBatch, batch_idx: int) -> dict[str, Tensor]:
        """Score the seed of a whole image at every background threshold.

        Returns:
            `maps` (k, H, W), the first a constant 0.4, and `keys` (k,) for the pictures callback.
        """
        image = batch["image"]
        pair = torch.cat([image, image.flip(-1)])
        found = self._seeds_of(batch["id"][0], [pair], batch["tags"][0], (image.shape[-2], image.shape[-1]))
        keys, maps = found["keys"], found["cam"]
        if "mask" in batch:
            thresholds = torch.tensor(THRESHOLDS, device=maps.device)
            counts = cast(Tensor, self.counts)
            counts += histogram(maps[1:], keys[1:], batch["mask"][0], thresholds, len(counts))
        return {"maps": torch.cat([torch.full_like(maps[:1], 0.4), maps[1:]]), "keys": keys}

    def on_validation_epoch_end(self) -> None:
        """Sum the integer counts over ranks, then take the best threshold."""
        counts = cast(Tensor, self.counts)
        if self.trainer.world_size > 1:
            counts = self.trainer.strategy.reduce(counts.clone(), reduce_op="sum")
        matrices = cumulate(counts).cpu()
        scores = np.nan_to_num([mean_iou(matrix) for matrix in matrices])
        best = int(scores.argmax())
        self.log_dict({"val/miou": float(scores[best]), "val/threshold": THRESHOLDS[best]}, rank_zero_only=False)
        self._best = matrices[best]

    def confusion_counts(self) -> dict[str, NDArray[np.int64]]:
        """Counts (K, K) of the last validation at its best threshold; row = true class."""
        return {"cam": self._best.numpy()}

    # ------------------------------------------------------------------ seeds

    def on_predict_start(self) -> None:
        """Fold the tokenizer: tokens do not depend on the image."""
        self.net.fold()

    def predict_step(self, batch: ScalesBatch, batch_idx: int) -> dict[str, Any]:
        """Seed maps at image size of the classes in the image's tags.

        Returns:
            `id` and `arrays`: `keys` (k,) uint8 with 0 first, `cam` and, with `save_parts`, further maps (k, H, W)
            float16 as of `seeds`; with `save_views` those of `view_arrays` of the k - 1 classes, from the first scale.

        Raises:
            ConfigError: the data have no image-level labels.
            ImageError: the image is smaller than one patch.
        """
        if "tags" not in batch:
            raise ConfigError("class maps need image-level labels; choose a split that has them")
        parts = bool(self.hparams["save_parts"])
        found = self._seeds_of(batch["id"][0], batch["images"], batch["tags"][0], batch["size"], parts)
        if self.hparams["save_views"]:
            image, limit = batch["images"][0][:1], self.hparams["max_pixels"]
            found |= view_arrays(self.net, image, found["keys"][1:], limit)
        arrays = {name: maps.half().cpu().numpy() for name, maps in found.items() if name != "keys"}
        return {"id": batch["id"][0], "arrays": {"keys": found["keys"].to(torch.uint8).cpu().numpy(), **arrays}}

    def _seeds_of(self, name: str, *args: Any) -> dict[str, Tensor]:
        """`seeds`, whose error names the image."""
        try:
            return self.seeds(*args)
        except ImageError as error:
            raise ImageError(f"{name}: {error}") from error
