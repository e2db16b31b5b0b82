"""Fine-tuning: the whole net learns, with its own decoder or with one that others are compared with."""

from frugalseg.stages.finetune.inference import Testing
from frugalseg.stages.finetune.optimiser import Optimiser
from frugalseg.stages.finetune.task import FineTune

__all__ = ["FineTune", "Optimiser", "Testing"]
