"""MEVT: self-supervised pre-training of a hierarchical encoder-decoder for dense prediction (CVIU 2025).

Tasks are imported when they are first asked for: nets are used without Lightning too.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from frugalseg.papers.mevt.task import Pretrain

__all__ = ["Pretrain"]


def __getattr__(name: str) -> Any:
    """Import the module of a name and keep the name here.

    Raises:
        AttributeError: the package has no such name.
    """
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from frugalseg.papers.mevt import task

    globals()[name] = value = getattr(task, name)
    return value
