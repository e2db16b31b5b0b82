"""DSMF-Net: dual semantic metric learning fusion network for few-shot aerial segmentation (JSTARS 2025).

Tasks are imported when they are first asked for: nets are used without Lightning too.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from frugalseg.papers.dsmf.baselines import ForegroundBaseline, PrototypeBaseline
    from frugalseg.papers.dsmf.pretrain import BasePretrain
    from frugalseg.papers.dsmf.task import DSMF

__all__ = ["DSMF", "BasePretrain", "ForegroundBaseline", "PrototypeBaseline"]


def __getattr__(name: str) -> Any:
    """Import the module of a name and keep the name here.

    Raises:
        AttributeError: the package has no such name.
    """
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from frugalseg.papers.dsmf import baselines, pretrain, task

    home = next(module for module in (baselines, pretrain, task) if hasattr(module, name))
    globals()[name] = value = getattr(home, name)
    return value
