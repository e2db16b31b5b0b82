"""Nets of ours whose tensors are to be named."""

import inspect
import pkgutil
from collections.abc import Mapping
from typing import Any

import torch
from lightning.pytorch import LightningModule

from frugalseg.errors import CheckpointError, ConfigError

LINKED = {"num_classes", "novel"}
"""What the command line gives from the data to tasks that take it, and notes in every checkpoint."""


def build_task(class_path: str, arguments: Mapping[str, Any]) -> LightningModule:
    """A task with random numbers, without weights of its own.

    Args:
        class_path: e.g. `frugalseg.papers.cti.CTI`; one of this package.
        arguments: its settings.

    Raises:
        CheckpointError: the task refuses them.
    """
    given = {key: value for key, value in arguments.items() if not key.startswith("_")}
    fill: dict[str, Any] = dict.fromkeys([key for key in ("weights", "stem_weights") if key in given])
    try:
        with torch.random.fork_rng(devices=[]):
            kind = pkgutil.resolve_name(class_path)
            for name in LINKED - inspect.signature(kind).parameters.keys():
                given.pop(name, None)
            task: LightningModule = kind(**{**given, **fill})
    except (ConfigError, TypeError, ValueError, RuntimeError) as error:
        line = " ".join(str(error).split())[:200]
        raise CheckpointError(f"{class_path} cannot be built with the file's settings ({line}); see --table") from error
    return task
