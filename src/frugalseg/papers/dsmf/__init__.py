"""DSMF-Net: dual semantic metric learning fusion network for few-shot aerial segmentation (JSTARS 2025)."""

from frugalseg.papers.dsmf.baselines import ForegroundBaseline, PrototypeBaseline
from frugalseg.papers.dsmf.pretrain import BasePretrain
from frugalseg.papers.dsmf.task import DSMF

__all__ = ["DSMF", "BasePretrain", "ForegroundBaseline", "PrototypeBaseline"]
