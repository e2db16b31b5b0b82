"""Dense nearest-neighbour retrieval: what frozen features say without any training."""

from frugalseg.stages.retrieval.task import Retrieval

__all__ = ["Retrieval"]
