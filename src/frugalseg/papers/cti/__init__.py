"""CTI: class tokens infusion for weakly supervised semantic segmentation (CVPR 2024)."""

from frugalseg.papers.cti.task import CTI

__all__ = ["CTI"]
