"""Every task of the suite with a tiny net on a tiny world, and a fit of a few steps, for `test_precision`."""

import os
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from types import FrameType
from typing import Any, NamedTuple

import torch
from lightning.pytorch import Callback, LightningDataModule, LightningModule, Trainer
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.data import DataLoader

import frugalseg
from frugalseg.data import DLRSD, VOC, Episodes, MultiScale, Segment, Tags, Views
from frugalseg.nn.features import Backbone
from frugalseg.nn.inputs import resized
from frugalseg.papers.cti import CTI
from frugalseg.papers.dsmf import DSMF, BasePretrain, ForegroundBaseline, PrototypeBaseline
from frugalseg.papers.mevt import Pretrain
from frugalseg.papers.sfc import SFC
from frugalseg.stages.cluster import Clustering
from frugalseg.stages.deeplab import DeepLab
from frugalseg.stages.finetune import FineTune
from frugalseg.stages.irn import IRN
from frugalseg.stages.probe import LinearProbe
from frugalseg.stages.probe.protocols import target
from frugalseg.stages.psa import PSA
from frugalseg.stages.retrieval import Retrieval
from frugalseg.stages.tags import TagClassifier

SIDE = 48
RESNET: dict[str, Any] = {
    "backbone": "resnet18", "strides": [2, 1, 2, 1, 1],
    "backbone_options": {"layers": [1, 1, 1, 1], "channels": [8, 16, 24, 32], "stem_type": "deep", "stem_width": 8},
}  # fmt: skip
DILATED: dict[str, Any] = {
    "backbone": "resnet18",
    "backbone_options": {"strides": [2, 2, 2], "dilations": [2, 2], "options": RESNET["backbone_options"]},
}
VIT = Backbone("vit_tiny_patch16_224", options={"depth": 2, "embed_dim": 24, "num_heads": 2})
HEADS = {
    "global_hidden": [16], "prototype_hidden": [16], "pixel_hidden": [16], "outputs": 8, "pixel_outputs": 8,
    "global_prototypes": 12, "dense_prototypes": 40, "norm": True,
}  # fmt: skip
RULE = {"sides": [4, 3], "pixel_points": 60, "queue": 300}
MASKED = {"masked": 0.5, "region": 0.5}
SMALL: dict[str, Any] = {
    "widths": [16, 16, 24, 32], "blocks": [1, 1, 1, 1], "heads": [1, 1, 2, 2], "dim": 16, "decoder_heads": 2,
    "drop_path": 0.0,
}  # fmt: skip
THIN: dict[str, Any] = {"channels": [8, 16, 24, 32], "stem_width": 8}
CLASSES = 13
"""Of the VOC world."""
QUIET: dict[str, Any] = {
    "accelerator": "cpu", "devices": 1, "logger": False, "enable_progress_bar": False, "enable_model_summary": False,
    "use_distributed_sampler": False, "num_sanity_val_steps": 0, "enable_checkpointing": False,
}  # fmt: skip

Data = Callable[[Mapping[str, Path]], Any]


def voc(recipe: Any, batch: int = 2, **more: Any) -> Data:
    """The VOC world under a recipe; the rest are arguments of `MultiScale`."""
    return lambda worlds: VOC(
        worlds["voc"], recipe, predict_recipe=MultiScale(**more), val_split="val", predict_split="val", batch_size=batch,
        num_workers=0, seed=0,
    )  # fmt: skip


def dlrsd(recipe: Any, batch: int = 2) -> Data:
    """The DLRSD world under a recipe."""
    return lambda worlds: DLRSD(worlds["dlrsd"], recipe, val_classes="novel", batch_size=batch, num_workers=0, seed=0)


def kept(worlds: Mapping[str, Path]) -> DataLoader[Any]:
    """Batches as `frugalseg cache` keeps them: features of float16, worked out in float32."""
    torch.manual_seed(0)
    net, found = LinearProbe(CLASSES, VIT, "L", input_size=64, grid=16).backbone, []
    for batch in voc(Segment(crop=None, scale=None, flip=0.0), batch=1)(worlds).val_dataloader():
        features, mask = net.dense(resized(batch["image"], (64, 64))).half(), target(batch["mask"], 64, 16)
        found.append({"id": batch["id"], "features": features, "mask": mask})
    return DataLoader(found * 10, batch_size=None)


class Case(NamedTuple):
    """A task and what it is run on.

    Attributes:
        task: makes it.
        data: makes its data module, or loader, of the worlds.
        after: what follows a fit: `validate`, `predict` or `test`.
        learns: whether a step has a gradient.
        fits: whether there is a fit.
        dear: whether 50 steps take longer than others' do.
    """

    task: Callable[[], LightningModule]
    data: Data
    after: tuple[str, ...] = ("validate",)
    learns: bool = True
    fits: bool = True
    dear: bool = False


TAGS, PAIRS = Tags(crop=SIDE), Tags(crop=SIDE, views=2, area=(0.5, 1.1), randaugment=None)
MASKS = Segment(crop=SIDE, scale=None)
EPISODES = Episodes(size=48, per_epoch=8, test_episodes=4, scale=None, rotate=0.0, allow_missing_classes=True)
VIEWS = Views(64, 32, 1, global_area=(0.5, 1.0))
TWO = Views(64, 32, 0, global_area=(0.5, 1.0))
SMALLEST = Views(32, 32, 0, global_area=(0.5, 1.0))
ONE_SCALE = {"scales": (1.0,)}

CASES: dict[str, Case] = {
    "sfc": Case(
        lambda: SFC(
            CLASSES, side=(8, 8, 16, 16), weights=None, lr=0.02, head_lr=0.2, bank_draws=2, bank_bonus=4.0, **RESNET
        ),
        voc(TAGS, 4, scales=(1.0, 0.5)), ("validate", "predict"), dear=True,
    ),
    "sfc baseline": Case(
        lambda: SFC(
            CLASSES, side=(8, 8, 16, 16), weights=None, lr=0.02, head_lr=0.2, bank_draws=0, prototype_weight=0.0,
            scale_weight=0.0, **RESNET
        ),
        voc(TAGS, 4), (), dear=True,
    ),
    "cti": Case(
        lambda: CTI(
            CLASSES, dim=24, depth=3, heads=2, grid=3, drop_path=0.0, infusion=0, weights=None, lr=1e-3, warmup=0,
            schedule="step", memory_size=1, cross="paired", save_parts=True, save_views=True,
        ),
        voc(PAIRS, 4, **ONE_SCALE), ("validate", "predict"),
    ),
    "dsmf": Case(
        lambda: DSMF(
            18, weights=None, dim=16, nodes=4, states=8, sff_levels=2, query_dropout=0.0, lr=1e-3, optimiser="adamw",
            **DILATED
        ),
        dlrsd(EPISODES), ("test",), dear=True,
    ),
    "dsmf, kept features": Case(
        lambda: DSMF(18, weights=None, dim=16, unit="grid", fusion="fem", sff_levels=2, feature_bytes=1 << 28,
                     **DILATED),
        dlrsd(EPISODES), (), dear=True,
    ),
    "dsmf pretrain": Case(lambda: BasePretrain(18, novel=[1, 2], **DILATED), dlrsd(MASKS, 4)),
    "dsmf prototype": Case(
        lambda: PrototypeBaseline(18, weights=None, **DILATED), dlrsd(EPISODES), ("validate",), learns=False
    ),
    "dsmf foreground": Case(lambda: ForegroundBaseline(18), dlrsd(EPISODES), ("test",), learns=False, fits=False),
    "mevt": Case(
        lambda: Pretrain(
            "mevt_tiny", changes={**SMALL, "mask_token": True}, heads=HEADS, rule={**RULE, **MASKED}, momentum=0.9
        ),
        voc(VIEWS, 4), (), dear=True,
    ),
    "dino": Case(lambda: Pretrain("vit_tiny_patch16_224", "dino", {"depth": 2, "embed_dim": 24}, HEADS), voc(VIEWS, 4), (), dear=True),
    "densecl": Case(lambda: Pretrain("resnet10t", "densecl", THIN, HEADS, {"grid": 4, "queue": 30}), voc(TWO, 4), (), dear=True),
    "pixpro": Case(lambda: Pretrain("mevt_tiny", "pixpro", SMALL, HEADS, {"grid": 4}), voc(SMALLEST, 4), (), dear=True),
    "tags": Case(lambda: TagClassifier(CLASSES, half_every=0, **RESNET), voc(TAGS, 4)),
    "irn": Case(
        lambda: IRN(weights=None, displacement=True, radius=3, lr=0.02, displacement_lr=0.2, pad_to=64, **RESNET),
        voc(MASKS, **ONE_SCALE), ("validate", "predict"), dear=True,
    ),
    "psa": Case(
        lambda: PSA(trained_from="layer2", embedding=(4, 8, 8), radius=4, lr=0.01, **RESNET),
        voc(MASKS, **ONE_SCALE), ("validate", "predict"), dear=True,
    ),
    "deeplab": Case(
        lambda: DeepLab(
            CLASSES, weights=None, head="v2", train_scales=(1.0, 0.5), lr=1e-3, frozen_norm=False,
            head_options={"rates": (1, 2)}, **RESNET
        ),
        voc(MASKS, scales=(1.0, 0.5)), ("validate", "predict"), dear=True,
    ),
    "probe L": Case(lambda: LinearProbe(CLASSES, VIT, "L", input_size=64, grid=16), voc(MASKS)),
    "probe M": Case(lambda: LinearProbe(CLASSES, VIT, "M"), voc(MASKS)),
    "probe cached": Case(lambda: LinearProbe(CLASSES, VIT, "L-cached", "fcn", 64, 16, channels=8), kept),
    "cluster": Case(
        lambda: Clustering(CLASSES, VIT, seeds=1, restarts=1, input_size=96, mirror=True), voc(MASKS), learns=False, fits=False
    ),
    "retrieval": Case(lambda: Retrieval(CLASSES, VIT, input_size=64, memory_size=400), voc(MASKS), (), learns=False),
    "finetune": Case(lambda: FineTune(CLASSES, Backbone("resnet10t", options=THIN), "upernet", {"channels": 16}), voc(MASKS), dear=True),
}  # fmt: skip
"""By name: every task, in every form that computes other things."""


class Notes(Callback):
    """Keeps the loss of every step and the gradient of the first."""

    def __init__(self) -> None:
        self.losses: list[float] = []
        self.gradient: dict[str, Tensor] = {}

    def on_before_optimizer_step(self, trainer: Trainer, pl_module: LightningModule, optimizer: Any) -> None:
        """Copy the gradient, once."""
        if not self.gradient:
            named = pl_module.named_parameters()
            self.gradient = {n: p.grad.clone() for n, p in named if p.grad is not None}

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, outputs: Any, *_: Any) -> None:
        """Note the loss, where there is one."""
        if outputs:
            self.losses.append(float(outputs["loss"]))


class Saved(Callback):
    """Writes a checkpoint after a number of steps, and the fit goes on."""

    def __init__(self, path: Path, step: int) -> None:
        self.path, self.step = path, step

    def on_train_batch_end(self, trainer: Trainer, *_: Any) -> None:
        """Write it, with all that resuming needs."""
        if trainer.global_step == self.step:
            trainer.save_checkpoint(self.path, weights_only=False)


class EightBits(Callback):
    """Rounds weights, inputs and outputs of convolutions and linears to bfloat16, and their gradients on the way back.

    Under float32 this is what mixed precision cannot avoid: products of numbers of 8 bits, and nothing else.
    """

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Put hooks on all of them."""
        for module in pl_module.modules():
            if isinstance(module, nn.Conv2d | nn.Linear):
                module.weight.data = _rounded(module.weight.data)
                module.register_forward_pre_hook(lambda _, given: tuple(map(_rounded, given)))
                module.register_forward_hook(lambda _, __, out: _rounded(out))

    on_predict_start = on_train_start


def _rounded(x: Tensor) -> Tensor:
    return x.bfloat16().to(x.dtype)


PRODUCTS = {"mm", "bmm", "addmm", "baddbmm", "convolution", "einsum", "linear"}
ISLANDS = {"affinity", "propagate", "propagate_in_blocks", "refine", "reason", "nearest_labels", "closeness"}
"""Functions of nets and stages whose products are float32; so are all in `ops` and in files of losses."""
PACKAGE = f"{Path(frugalseg.__file__).parent}{os.sep}"


class HalfOperations(TorchDispatchMode):
    """Notes the operations that get a tensor of half precision, as autocast hands them out."""

    def __init__(self) -> None:
        super().__init__()
        self.found: set[str] = set()
        self.on_islands: set[str] = set()
        """Products where there should be none in half precision: file and function."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Look, and go on."""
        given = [x for x in (*args, *(kwargs or {}).values()) if isinstance(x, Tensor)]
        if any(x.dtype in (torch.float16, torch.bfloat16) for x in given):
            name = func.overloadpacket.__name__
            self.found.add(name)
            if name in PRODUCTS:
                self._place()
        return func(*args, **(kwargs or {}))

    def _place(self) -> None:
        """Note the innermost function of the package, where it is an island."""
        frame: FrameType | None = sys._getframe()
        while frame is not None and not frame.f_code.co_filename.startswith(PACKAGE):
            frame = frame.f_back
        if frame is not None:
            file, function = frame.f_code.co_filename.removeprefix(PACKAGE), frame.f_code.co_name
            if file.startswith("ops") or "loss" in Path(file).stem or function in ISLANDS:
                self.on_islands.add(f"{file} {function}")


class Watch(Callback):
    """`HalfOperations` of the first training step and of all steps of an evaluation."""

    def __init__(self) -> None:
        self.half, self._looks = HalfOperations(), False

    def on_train_batch_start(self, trainer: Trainer, *_: Any) -> None:
        """Begin with the first step."""
        if trainer.global_step == 0:
            self._begin()

    def on_before_backward(self, trainer: Trainer, *_: Any) -> None:
        """End before the gradient, whose operations have other names."""
        self._end()

    def _begin(self, *_: Any) -> None:
        self.half.__enter__()
        self._looks = True

    def _end(self, *_: Any) -> None:
        """Look no more; a mode that stayed would keep `torch.compile` from compiling in later tests."""
        if self._looks:
            self.half.__exit__(None, None, None)
            self._looks = False

    on_train_batch_end = _end  # where nothing is learned, there is no backward pass
    on_validation_batch_start = _begin
    on_validation_batch_end = _end

    on_test_batch_start = on_predict_batch_start = on_validation_batch_start
    on_test_batch_end = on_predict_batch_end = on_validation_batch_end


def trainer_of(precision: str, steps: int = 1, *callbacks: Callback, **more: Any) -> Trainer:
    """A Trainer without validation while it fits."""
    given = {**QUIET, "max_steps": steps, "max_epochs": -1, **more}
    return Trainer(precision=precision, callbacks=[*callbacks], **given)


def fit(case: Case, data: Any, precision: str, steps: int, *callbacks: Callback, **more: Any) -> tuple[Any, Any, Notes]:
    """Make the task from seed 0 and fit it: the Trainer, the task and what was noted."""
    torch.manual_seed(0)
    task, notes = case.task(), Notes()
    # what has no gradient takes no step: its fit is an epoch
    length = {} if case.learns else {"max_epochs": 1, "max_steps": -1}
    trainer = trainer_of(precision, steps, notes, *callbacks, limit_val_batches=0, **length, **more)
    torch.manual_seed(1)
    run(trainer, "fit", task, data)
    return trainer, task, notes


def run(trainer: Trainer, command: str, task: LightningModule, data: Any, **more: Any) -> Any:
    """Hand data over in the way that their kind needs."""
    if isinstance(data, LightningDataModule):
        return getattr(trainer, command)(task, datamodule=data, **more)
    return getattr(trainer, command)(task, data, **more)


def distance(one: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> float:
    """Length of the difference of two gradients over the length of the second.

    Raises:
        ValueError: they are not of the same parameters.
    """
    if one.keys() != other.keys():
        raise ValueError(f"only one of both has gradients of {one.keys() ^ other.keys()}")
    difference = sum(float((one[name] - other[name]).double().square().sum()) for name in other)
    return float((difference / sum(float(g.double().square().sum()) for g in other.values())) ** 0.5)
