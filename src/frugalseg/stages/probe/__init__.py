"""Linear probing: what a small head can read off frozen features.

Tasks are imported when they are first asked for: nets are used without Lightning too.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
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


def __getattr__(name: str) -> Any:
    """Import the module of a name and keep the name here.

    Raises:
        AttributeError: the package has no such name.
    """
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from frugalseg.stages.probe import cache, cached, index, task

    home = next(module for module in (cache, cached, index, task) if hasattr(module, name))
    globals()[name] = value = getattr(home, name)
    return value
