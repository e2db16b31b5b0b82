"""Small nets of every task that gives masks, their checkpoints as `frugalseg fit` writes them, and pictures."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning.pytorch import LightningModule
from numpy.typing import NDArray
from torch import nn

from frugalseg.nn.features import Backbone
from frugalseg.papers.cti import CTI
from frugalseg.papers.dsmf import DSMF, PrototypeBaseline
from frugalseg.papers.mevt.model import PRESETS
from frugalseg.papers.sfc import SFC
from frugalseg.stages.deeplab import DeepLab
from frugalseg.stages.finetune import FineTune, Testing
from frugalseg.stages.probe import LinearProbe

MEAN, STD = [0.4, 0.5, 0.6], [0.2, 0.25, 0.3]
NAMES = ("background", "aeroplane", "bicycle", "bird")
CLASSES = len(NAMES)
STRIDED: dict[str, Any] = {"backbone": "resnet18", "weights": None, "strides": [2, 1, 2, 1, 1]}
SMALL = {"layers": [1, 1, 1, 1], "channels": [8, 16, 24, 32], "stem_type": "deep", "stem_width": 8}
VIT = {"depth": 2, "embed_dim": 48, "num_heads": 3}
OWN = Backbone("frugalseg.papers.mevt.model:MEVT", options=dict(PRESETS["mevt_tiny"]))
PLAIN = Backbone("vit_tiny_patch16_224", options=VIT)


def _deeplab(**settings: Any) -> DeepLab:
    return DeepLab(CLASSES, **{**STRIDED, "backbone_options": SMALL, "frozen_norm": False, **settings})


def _dilated(name: str, **settings: Any) -> DeepLab:
    return DeepLab(CLASSES, name, None, frozen_norm=False, **settings)


TASKS: dict[str, tuple[str, Callable[[], LightningModule]]] = {
    "largefov": (
        "stages.deeplab.DeepLab",
        lambda: _deeplab(head="largefov", head_options={"hidden": [16], "dilation": 2}),
    ),
    "v2": (
        "stages.deeplab.task.DeepLab",
        lambda: _dilated("resnet18", head="v2", output_stride=8, backbone_options=SMALL),
    ),
    "v3plus": (
        "stages.deeplab.DeepLab",
        lambda: _dilated(
            "resnet18", head="v3plus", output_stride=16, backbone_options=SMALL, head_options={"width": 16}
        ),
    ),
    "deeplab-vit": (
        "stages.deeplab.DeepLab",
        lambda: _dilated(
            "vit_tiny_patch16_224", head="v2", output_stride=16, backbone_options={**VIT, "dynamic_img_size": True}
        ),
    ),
    "finetune": ("stages.finetune.FineTune", lambda: FineTune(CLASSES, OWN)),
    "finetune-upernet": (
        "stages.finetune.FineTune",
        lambda: FineTune(CLASSES, OWN, "upernet", {"channels": 16}, auxiliary=0.4),
    ),
    "finetune-window": (
        "stages.finetune.FineTune",
        lambda: FineTune(CLASSES, PLAIN, "fcn", {"channels": 16}, testing=Testing(window=64, step=32)),
    ),
    "probe-l": (
        "stages.probe.LinearProbe",
        lambda: LinearProbe(CLASSES, PLAIN, "L", input_size=64, grid=20),
    ),
    "probe-m": (
        "stages.probe.LinearProbe",
        lambda: LinearProbe(CLASSES, OWN, "M", head="fcn", channels=16),
    ),
    "sfc": (
        "papers.sfc.SFC",
        lambda: SFC(CLASSES, side=[8, 8, 16, 16], backbone_options=SMALL, centre_features=True, **STRIDED),
    ),
    "cti": ("papers.cti.CTI", lambda: CTI(CLASSES, 48, 3, 3, grid=4, infusion=1, weights=None, memory_size=2)),
    "cti-stem": (
        "papers.cti.CTI",
        lambda: CTI(
            CLASSES, 48, 3, 3, grid=4, infusion=1, weights=None, background_token=False, background_weight=0,
            seed_map="f", fit="pad", memory_size=2,
            stem={"backbone": "resnet18", "strides": [2, 1, 2, 1, 1], "options": SMALL},
        ),
    ),
    "dsmf": (
        "papers.dsmf.DSMF",
        lambda: DSMF(CLASSES, "resnet18", None, {"options": SMALL}, 16, 8, 8),
    ),
    "prototype": (
        "papers.dsmf.PrototypeBaseline",
        lambda: PrototypeBaseline(CLASSES, "resnet18", None, {"options": SMALL}, stage=3),
    ),
}  # fmt: skip
"""Name -> task path below `frugalseg.`, and the task."""
SEGMENTERS = [name for name, (path, _) in TASKS.items() if path.startswith("stages.")]
SEEDS = ["sfc", "cti", "cti-stem"]
FEW_SHOT = ["dsmf", "prototype"]


def make(name: str, seed: int = 0) -> LightningModule:
    """A task of random numbers whose answers vary over an image, in evaluation mode."""
    torch.manual_seed(seed)
    task = TASKS[name][1]()
    with torch.no_grad():
        for key, parameter in task.named_parameters():
            if parameter.ndim > 1 and "backbone" not in key:
                nn.init.normal_(parameter, std=2.0 / parameter[0].numel() ** 0.5)
        for module in task.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.running_mean.normal_(0, 0.1)
                module.running_var.uniform_(0.5, 2.0)
    if name == "prototype":
        task.threshold.fill_(0.45)
    return task.eval()


def write(run: Path, name: str, task: LightningModule, record: bool = True, **metrics: float) -> Path:
    """`checkpoints/last.ckpt` of a run folder, with the run's records where they are asked for."""
    path = run / "checkpoints" / "last.ckpt"
    path.parent.mkdir(parents=True)
    known = {**task.hparams, "_class_path": f"frugalseg.{TASKS[name][0]}", "_instantiator": "x", "novel": (1, 2)}
    content = {"state_dict": task.state_dict(), "hyper_parameters": known, "global_step": 7, "epoch": 1}
    torch.save(content, path)
    if record:
        root = run / "voc"
        (root / "ImageSets").mkdir(parents=True)
        (root / "ImageSets" / "classes.txt").write_text("\n".join(NAMES))
        recipe = {"init_args": {"mean": MEAN, "std": STD, "size": 64}}
        data = {"class_path": "frugalseg.data.VOC", "init_args": {"root": str(root), "recipe": recipe, "fold": 0}}
        facts = {"experiment": "some", "stage": "fit", "seed": 3, "digest": "d" * 64, "splits": {"train": 11}}
        facts |= {"identity": {"data": data}, "versions": {"torch": "0"}}
        (run / "provenance.json").write_text(json.dumps(facts))
        (run / "metrics.json").write_text(json.dumps(metrics))
    return path


def picture(height: int, width: int, seed: int = 0) -> NDArray[np.uint8]:
    """Random blocks of colour, so that neighbours agree and places differ."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (-(-height // 9), -(-width // 9), 3), dtype=np.uint8)
    return np.ascontiguousarray(coarse.repeat(9, axis=0).repeat(9, axis=1)[:height, :width])


def normalised(image: NDArray[np.uint8]) -> torch.Tensor:
    """(1, 3, H, W): the oracle, in float64 before it is rounded."""
    values = (image / 255 - np.array(MEAN)) / np.array(STD)
    return torch.from_numpy(values.transpose(2, 0, 1)[None].astype(np.float32))
