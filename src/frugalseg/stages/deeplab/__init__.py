"""Semantic segmentation with the DeepLab family, on true masks or pseudo labels.

Tasks are imported when they are first asked for: nets are used without Lightning too.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from frugalseg.stages.deeplab.inference import Inference
    from frugalseg.stages.deeplab.task import DeepLab

__all__ = ["DeepLab", "Inference"]


def __getattr__(name: str) -> Any:
    """Import the module of a name and keep the name here.

    Raises:
        AttributeError: the package has no such name.
    """
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from frugalseg.stages.deeplab import task

    globals()[name] = value = getattr(task, name)
    return value
