"""Semantic segmentation with the DeepLab family, on true masks or pseudo labels."""

from frugalseg.stages.deeplab.inference import Inference
from frugalseg.stages.deeplab.task import DeepLab

__all__ = ["DeepLab", "Inference"]
