"""IRN: class boundaries learned from seed labels, for the random walk that refines class maps."""

from frugalseg.stages.irn.task import IRN

__all__ = ["IRN"]
