"""Checkpoints of small segmenters of random numbers, and photos for `frugalseg segment`."""

import json
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from frugalseg.stages.deeplab import DeepLab

NET = {
    "backbone": "resnet18",
    "strides": [2, 1, 2, 1, 1],
    "backbone_options": {"layers": [1, 1, 1, 1], "channels": [4, 8, 8, 8], "stem_type": "deep", "stem_width": 4},
    "weights": None,
    "frozen_norm": True,
    "head": "largefov",
    "head_options": {"hidden": [16], "dilation": 1},
}
"""Settings of a net small enough for tests."""


def small_segmenter(seed: int = 0, num_classes: int = 21) -> DeepLab:
    """A net that sees many classes in any image: each one's logits have mean 0 over noise."""
    torch.manual_seed(seed)
    task = DeepLab(num_classes=num_classes, **NET).eval()
    with torch.no_grad():
        logits = task.net(torch.randn(2, 3, 64, 64))
        head = [module for module in task.net.modules() if isinstance(module, torch.nn.Conv2d)][-1]
        assert head.out_channels == num_classes and head.bias is not None
        deviation = logits.std(dim=(0, 2, 3))
        head.weight.div_(deviation[:, None, None, None])
        head.bias.copy_((head.bias - logits.mean(dim=(0, 2, 3))) / deviation)
    return task


def write_segmenter(run: Path, task: DeepLab | None = None, data: str = "frugalseg.data.VOC") -> Path:
    """`checkpoints/last.ckpt` of a run folder with its provenance, as `frugalseg fit` leaves them."""
    task = task or small_segmenter()
    path = run / "checkpoints" / "last.ckpt"
    path.parent.mkdir(parents=True)
    known = {**task.hparams, "_class_path": "frugalseg.stages.deeplab.DeepLab"}
    normalisation = {"mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]}
    content = {"state_dict": task.state_dict(), "hyper_parameters": known, "normalisation": normalisation}
    torch.save({**content, "global_step": 7, "epoch": 1}, path)
    identity = {"data": {"class_path": data, "init_args": {"root": str(run / "nowhere")}}}
    (run / "provenance.json").write_text(json.dumps({"experiment": "some", "stage": "segment", "identity": identity}))
    return path


def photo(height: int, width: int, seed: int = 0) -> np.ndarray:
    """Blobs of colour, (H, W, 3) uint8."""
    rng = np.random.default_rng(seed)
    coarse = Image.fromarray(rng.integers(0, 256, (-(-height // 12), -(-width // 12), 3), dtype=np.uint8))
    fine = np.asarray(coarse.resize((width, height), Image.Resampling.BICUBIC)).astype(np.int16)
    return np.clip(fine + rng.integers(-20, 21, fine.shape), 0, 255).astype(np.uint8)


def save(path: Path, height: int, width: int, seed: int = 0) -> Path:
    """Write a photo."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(photo(height, width, seed)).save(path)
    return path


def damage_tile(path: Path, number: int) -> None:
    """Overwrite the first bytes of a tile; TIFFs have no checksums, and damage further on may just be other pixels."""
    with Image.open(path) as image:
        begin = image.tag_v2[324][number]
    data = bytearray(path.read_bytes())
    data[begin : begin + 16] = b"\xff" * 16
    path.write_bytes(data)
