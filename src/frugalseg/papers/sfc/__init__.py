"""SFC: shared feature calibration in weakly supervised semantic segmentation (AAAI 2024, arXiv 2401.11719).

Tasks are imported when they are first asked for: nets are used without Lightning too.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from frugalseg.papers.sfc.task import SFC

__all__ = ["SFC"]


def __getattr__(name: str) -> Any:
    """Import the module of a name and keep the name here.

    Raises:
        AttributeError: the package has no such name.
    """
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from frugalseg.papers.sfc import task

    globals()[name] = value = getattr(task, name)
    return value
