"""Settings of the Trainer that Lightning would change without a word that anybody reads."""

from collections.abc import Mapping
from typing import Any

from lightning.pytorch.accelerators import CUDAAccelerator, MPSAccelerator

from frugalseg.errors import ConfigError

HALF = ("16", "16-mixed", "16-true")
"""Precisions in float16, as Lightning takes them."""


def check_precision(trainer: Mapping[str, Any]) -> None:
    """Refuse float16 without a GPU: Lightning would compute in bfloat16, and the run would be called float16.

    Args:
        trainer: its settings as they were given.

    Raises:
        ConfigError: float16 on a CPU.
    """
    precision, accelerator = str(trainer.get("precision")), str(trainer.get("accelerator") or "auto")
    gpu = CUDAAccelerator.is_available() or MPSAccelerator.is_available()
    if precision in HALF and (accelerator == "cpu" or (accelerator == "auto" and not gpu)):
        raise ConfigError(
            f"trainer.precision is {precision}, which needs a GPU; on a CPU set it to bf16-mixed or 32-true"
            " (experiments/_base/bf16.yaml, fp32.yaml)"
        )
