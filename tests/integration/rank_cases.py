"""Every task that learns or scores on several ranks, as small as it can be, for `test_ddp_tasks`.

`python -m tests.integration.rank_cases WORLDS OUT CASE...` plays cases on two ranks, as Lightning starts them, one after
the other: importing Lightning takes longer than most of them.
"""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import torch
from lightning.pytorch import Callback, LightningDataModule, LightningModule, Trainer
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.dropout import _DropoutNd

from frugalseg import limits
from frugalseg.data import VOC, Episodes, ISAID5i, MultiScale, Segment, Tags
from frugalseg.miniature.voc import write_voc_world
from frugalseg.nn.features import Backbone
from frugalseg.papers.cti import CTI
from frugalseg.papers.dsmf import DSMF, BasePretrain
from frugalseg.papers.sfc import SFC
from frugalseg.stages.deeplab import DeepLab
from frugalseg.stages.finetune import FineTune
from frugalseg.stages.irn import IRN
from frugalseg.stages.probe import CachedFeatures, LinearProbe
from frugalseg.stages.psa import PSA
from frugalseg.stages.tags import TagClassifier
from tests.integration.few_shot_runs import write_tiles
from tests.stages.probe.test_cache import GRID, kept
from tests.stages.toys import SIDE, own, world

BATCH, STEPS, IMAGES = 4, 3, 13
"""Images of one process's step; steps; images of a split, which two ranks cannot share evenly."""
OPTIONS = {"layers": [1, 1, 1, 1], "channels": [8, 12, 16, 24], "stem_type": "deep", "stem_width": 4}
NET = {"backbone": "resnet18", "strides": [2, 1, 2, 1, 1], "backbone_options": OPTIONS}
DILATED = {
    "backbone": "resnet18",
    "backbone_options": {
        "strides": [2, 2, 2],
        "dilations": [2, 2],
        "options": {**OPTIONS, "layers": [1, 1, 2, 1], "channels": [12, 16, 24, 32]},
    },
}
FEATURES = Backbone("resnet18", options={"layers": [1, 1, 1, 1], "channels": [8, 8, 16, 24]})
PADDED = {"crop": 64, "scale": (0.5, 1.0)}
"""Crops whose padding is ignored: of one rank more than of the other."""


class Case(NamedTuple):
    """One task with its data."""

    task: Callable[[int], LightningModule]
    """Of a number of classes."""
    data: Callable[[Path, int], LightningDataModule]
    """Of the folder of worlds and the images of a process's step."""
    verbs: tuple[str, ...] = ("validate", "fit")
    norms: str = "constant"
    """Whether BatchNorms are constants, or those of a rank see its own images."""
    precision: str = "64-true"
    steps: int = STEPS


def voc(recipe: Any, scales: tuple[float, ...] = (1.0,), **settings: Any) -> Callable[[Path, int], VOC]:
    """The tiny VOC; all roles are of its training split, whose masks are whole."""

    def build(root: Path, batch: int) -> VOC:
        given = {"val_split": "train", "limit": IMAGES, **settings}
        common = {"batch_size": batch, "num_workers": 0, "seed": 0, "predict_recipe": MultiScale(list(scales))}
        return VOC(root / "VOC2012", recipe=recipe, **common, **given)

    return build


def tiles(recipe: Any) -> Callable[[Path, int], ISAID5i]:
    """The tiny iSAID-5i, fold 0."""
    return lambda root, batch: ISAID5i(
        root / "tiles", recipe, fold=0, protocol="P2", batch_size=batch, num_workers=0, seed=0
    )


def kept_features(root: Path, batch: int) -> CachedFeatures:
    """Features that `write_worlds` has worked out."""
    return CachedFeatures(root / "cache.json", batch, seed=0)


def write_worlds(root: Path) -> Path:
    """Everything that the cases read."""
    write_voc_world(root / "VOC2012", images_train=24, images_val=6, seed=3, balanced=True)
    write_tiles(root)
    kept(root, world(IMAGES, 1), world(5, 2))
    return root


FEW = {"size": 96, "test_episodes": 5, "test_seed": [0, 1], "flip": 0.0, "allow_missing_classes": True}
ALL = ("validate", "predict", "fit")
SIZES = {"side": [4, 4, 8, 8], "centre_features": True, "bank_draws": 4, "use_class_weights": True, "bank_bonus": 5.0}
CASES = {
    "sfc": Case(lambda k: SFC(k, **NET, **SIZES, weights=None), voc(Tags(crop=64), (1.0, 0.5)), ALL),
    "cti": Case(
        lambda k: CTI(
            k, dim=16, depth=3, heads=2, grid=4, drop_path=0.0, infusion=1, weights=None, memory_size=2, lr=1e-3,
            schedule="step", warmup=0, seed_map="f",
        ),
        voc(Tags(crop=64, views=2, area=(0.5, 1.1), randaugment=None), (1.0, 1.5), limit=23), ALL, steps=20,
    ),
    "dsmf": Case(
        lambda k: DSMF(k, **DILATED, weights=None, dim=8, nodes=4, states=8, sff_levels=2, query_dropout=0.0,
                       foreground_weight=3.0),
        tiles(Episodes(1, **FEW)), ("validate", "test", "fit"),
    ),
    "dsmf, backbone": Case(
        lambda k: BasePretrain(k, [1, 2], **DILATED), tiles(Segment(crop=96, scale=(0.5, 1.0))),
    ),
    "tags": Case(lambda k: TagClassifier(k, **NET), voc(Tags(crop=64))),
    "tags, own norms": Case(lambda k: TagClassifier(k, **NET), voc(Tags(crop=64)), ("fit",), "own"),
    "irn": Case(lambda k: IRN(k, **NET, weights=None, radius=5, pad_to=64), voc(Segment(**PADDED)), ALL),
    "one image": Case(
        lambda k: IRN(k, **NET, weights=None, radius=5, pad_to=64), voc(Segment(**PADDED), limit=1), ("predict",)
    ),
    "psa": Case(
        lambda k: PSA(k, **NET, embedding=[4, 8, 16], border_pairs=True), voc(Segment(**PADDED)), ALL
    ),
    "deeplab": Case(
        lambda k: DeepLab(k, **NET, weights=None, head="largefov", head_options={"hidden": [8], "dilation": 2},
                          train_scales=[1.0, 0.5]),
        voc(Segment(**PADDED), (1.0, 0.75)), ALL,
    ),
    "probe": Case(lambda k: LinearProbe(k, FEATURES, "M", lr=1e-2), voc(Segment(**PADDED))),
    "kept features": Case(
        lambda k: LinearProbe(k, own("OneHot"), "L-cached", input_size=SIDE, grid=GRID, lr=1e-2), kept_features,
        precision="32-true",
    ),
    "finetune": Case(lambda k: FineTune(k, FEATURES, norm="group"), voc(Segment(**PADDED))),
}  # fmt: skip


class Notes(Callback):
    """Keeps ids and gradients of every step, and holds BatchNorms still where they are to be constants, and dropout."""

    def __init__(self, norms: str) -> None:
        self.norms, self.ids, self.gradients = norms, [], []

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        self.ids.append(list(batch["id"]))
        for module in pl_module.modules() if self.norms == "constant" else ():
            if isinstance(module, _BatchNorm | _DropoutNd):
                module.eval()

    def on_before_optimizer_step(self, trainer, pl_module, optimizer):
        self.gradients.append({n: p.grad.clone() for n, p in pl_module.named_parameters() if p.grad is not None})


def _trainer(ranks: int, **settings: Any) -> Trainer:
    return Trainer(
        accelerator="cpu", devices=ranks, strategy="ddp" if ranks > 1 else "auto", use_distributed_sampler=False,
        logger=False, enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False, **settings,
    )  # fmt: skip


def play(name: str, root: Path, ranks: int, accumulate: int = 1) -> dict[str, Any]:
    """Score, predict and fit; everything that came out on this rank.

    Args:
        name: of the case.
        root: of the worlds.
        ranks: processes; each takes its share of a step of `BATCH` images.
        accumulate: batches that one process takes for a step instead.
    """
    case, found = CASES[name], {}
    data = case.data(root, BATCH // ranks // accumulate)
    for verb in case.verbs:
        # another one for each: predicting may drop what only training needs
        torch.manual_seed(0)
        task = case.task(data.num_classes)
        if verb in ("validate", "test"):
            trainer = _trainer(ranks)
            getattr(trainer, verb)(task, datamodule=data, verbose=False)
            counts = getattr(task, "confusion_counts", None) or getattr(task, "episode_counts", None)
            found[verb] = {key: torch.as_tensor(value) for key, value in (counts() if counts else {}).items()}
            scores = {key: float(value) for key, value in trainer.callback_metrics.items() if "per_second" not in key}
            found[f"{verb} scores"] = scores
        if verb == "predict":
            rows = _trainer(ranks).predict(task, datamodule=data)
            found[verb] = {row["id"]: _tensors(row.get("arrays") or row["masks"]) for row in rows or []}
        if verb == "fit":
            notes = Notes(case.norms)
            trainer = _trainer(
                ranks, max_steps=case.steps, max_epochs=-1, limit_val_batches=0, precision=case.precision,
                accumulate_grad_batches=accumulate, callbacks=[notes],
            )  # fmt: skip
            trainer.fit(task, datamodule=data)
            found |= {"ids": notes.ids, "gradients": notes.gradients, "state": task.state_dict()}
    return found | {"rank": torch.distributed.get_rank() if ranks > 1 else 0}


def _tensors(arrays: dict[str, Any]) -> dict[str, torch.Tensor]:
    return {key: torch.as_tensor(value) for key, value in arrays.items()}


def main(words: list[str]) -> None:
    """Play cases on two ranks; each rank writes `OUT/<case>-<rank>.pt`."""
    torch.set_num_threads(1)
    for case in words[2:]:
        found = play(case, Path(words[0]), 2)
        torch.save(found, Path(words[1]) / f"{case}-{found['rank']}.pt")


if __name__ == "__main__":
    limits.use(limits.Limits(allowed=("tests",)))  # as with --allow tests
    main(sys.argv[1:])
