"""Unsupervised clustering: how far clusters of frozen features are classes."""

from frugalseg.stages.cluster.task import Clustering

__all__ = ["Clustering"]
