"""Where a result comes from: code, versions, machine, seed, data and command."""

import os
import platform
import subprocess
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.loggers import WandbLogger

from frugalseg import limits
from frugalseg.callbacks.effective_batch import tell_batch
from frugalseg.run import read_json, write_json

PACKAGES = (
    "torch",
    "torchvision",
    "lightning",
    "timm",
    "numpy",
    "albumentations",
    "pillow",
    "torchmetrics",
    "frugalseg",
)


def describe(seed: int, command: Sequence[str]) -> dict[str, Any]:
    """Facts about code, machine and command, for `provenance.json`.

    Args:
        seed: the run's seed.
        command: words of the command line.
    """
    return {
        "command": [*command, *limits.now().words],
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "seed": seed,
        "git": _git_revision(),
        "versions": {"python": platform.python_version(), **{name: _version(name) for name in PACKAGES}},
        "hardware": {
            "machine": platform.machine(),
            "processor": _processor(),
            "cores": os.cpu_count(),
            "gpus": [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())],
        },
    }


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _git_revision() -> dict[str, Any] | None:
    """Commit and whether files differ from it; None outside a checkout."""
    here = Path(__file__).parent

    def git(*words: str) -> str:
        command = ["git", "-C", str(here), *words]
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=20).stdout.strip()  # noqa: S603

    try:
        return {
            "commit": git("rev-parse", "HEAD"),
            "changed": bool(git("status", "--porcelain", "--untracked-files=no")),
        }
    except (OSError, subprocess.SubprocessError):
        return None


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next(
        (line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.processor()
    )


class Provenance(Callback):
    """Complete `provenance.json` with what is known once data and model exist, and hand the settings to W&B.

    Args:
        config: the resolved configuration; values linked at instantiation are added from the model's hyperparameters.
    """

    def __init__(self, config: dict[str, Any]) -> None:
        self.config = config

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Add data digest, resolved hyperparameters, devices and parameter counts."""
        if torch.cuda.is_available():
            # stages that `+` joins share a process: each tells its own
            torch.cuda.reset_peak_memory_stats()
        if not trainer.is_global_zero:
            return
        data = getattr(trainer, "datamodule", None)
        parameters = list(pl_module.parameters())
        facts = {
            "data": getattr(data, "digest", None),
            "splits": getattr(data, "split_sizes", None),
            "hyperparameters": dict(pl_module.hparams),
            "parameters": sum(p.numel() for p in parameters),
            "trainable_parameters": sum(p.numel() for p in parameters if p.requires_grad),
            "devices": {"accelerator": type(trainer.accelerator).__name__, "world_size": trainer.world_size},
            "precision": trainer.precision,
            **({"batch": tell_batch(trainer, self.config.get("run") or {})} if stage == "fit" else {}),
        }
        path = Path(trainer.default_root_dir) / "provenance.json"
        record = read_json(path) if path.is_file() else {}
        write_json(path, {**record, **facts})
        for logger in trainer.loggers:
            if isinstance(logger, WandbLogger):
                # Lightning's own hand-over loses the nested settings of subclasses in offline runs
                logger.experiment.config.update({"config": self.config, **facts}, allow_val_change=True)

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Add the largest memory that tensors took on a GPU, over all resumptions; `done.json` has the rest."""
        if not trainer.is_global_zero or not torch.cuda.is_available():
            return
        path = Path(trainer.default_root_dir) / "provenance.json"
        record = read_json(path) if path.is_file() else {}
        key, peak = "peak_gpu_memory_bytes", torch.cuda.max_memory_allocated()
        write_json(path, {**record, key: max(peak, int(record.get(key) or 0))})
