"""Plain multi-label classification: the miniature's stand-in for ImageNet pre-training."""

from frugalseg.stages.tags.task import TagClassifier

__all__ = ["TagClassifier"]
