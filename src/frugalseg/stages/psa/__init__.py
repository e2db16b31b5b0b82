"""PSA: affinity of near places learned from seed labels, for the random walk that refines class maps."""

from frugalseg.stages.psa.task import PSA

__all__ = ["PSA"]
