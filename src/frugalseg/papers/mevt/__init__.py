"""MEVT: self-supervised pre-training of a hierarchical encoder-decoder for dense prediction (CVIU 2025)."""

from frugalseg.papers.mevt.task import Pretrain

__all__ = ["Pretrain"]
