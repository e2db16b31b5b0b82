"""Checkpoints of MEVT's pre-training as `frugalseg fit` writes them, without the fit: a net of random numbers."""

import json
from pathlib import Path
from typing import Any

import torch

from frugalseg.papers.mevt import Pretrain

HEADS = {"global_hidden": [8], "prototype_hidden": [8], "pixel_hidden": [8], "outputs": 8, "pixel_outputs": 8}
HEADS |= {"global_prototypes": 8, "dense_prototypes": 8, "norm": True}


def pretraining(preset: str = "mevt_tiny", changes: dict[str, Any] | None = None, seed: int = 0) -> Pretrain:
    """The task; student and teacher differ, so that a mistake between them shows."""
    torch.manual_seed(seed)
    task = Pretrain(preset=preset, changes=changes, heads=HEADS)
    with torch.no_grad():
        for parameter in task.teacher.parameters():
            parameter.add_(0.02 * torch.randn_like(parameter))
    return task


def write_checkpoint(run: Path, task: Pretrain, recipe: dict[str, Any] | None = None) -> Path:
    """`checkpoints/last.ckpt` of a run folder; with `recipe`, its settings of Views, also the run's records."""
    path = run / "checkpoints" / "last.ckpt"
    path.parent.mkdir(parents=True)
    known = {**task.hparams, "_class_path": "frugalseg.papers.mevt.Pretrain"}
    content = {"state_dict": task.state_dict(), "hyper_parameters": known, "global_step": 7, "epoch": 1}
    torch.save(content, path)
    if recipe is not None:
        data = {"class_path": "frugalseg.data.VOC", "init_args": {"recipe": {"init_args": recipe}}}
        record = {"experiment": "some", "stage": "pretrain", "seed": 3, "digest": "d" * 64, "identity": {"data": data}}
        record |= {"git": {"commit": "c" * 40, "changed": True}, "versions": {"torch": "0"}, "splits": {"train": 11}}
        (run / "provenance.json").write_text(json.dumps(record))
        (run / "metrics.json").write_text(json.dumps({"train/loss": 1.25, "train/row_entropy": 0.5}))
    return path
