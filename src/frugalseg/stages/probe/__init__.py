"""Linear probing: what a small head can read off frozen features."""

from frugalseg.stages.probe.cache import CachedSplit, CacheWriter, cache_digest
from frugalseg.stages.probe.cached import CachedFeatures, fill
from frugalseg.stages.probe.index import CacheIndex, read_index
from frugalseg.stages.probe.task import LinearProbe

__all__ = [
    "CacheIndex",
    "CacheWriter",
    "CachedFeatures",
    "CachedSplit",
    "LinearProbe",
    "cache_digest",
    "fill",
    "read_index",
]
