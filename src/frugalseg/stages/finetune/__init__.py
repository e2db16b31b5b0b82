"""Fine-tuning: the whole net learns, with its own decoder or with one that others are compared with.

Tasks are imported when they are first asked for: nets are used without Lightning too.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from frugalseg.stages.finetune.inference import Testing
    from frugalseg.stages.finetune.optimiser import Optimiser
    from frugalseg.stages.finetune.task import FineTune

__all__ = ["FineTune", "Optimiser", "Testing"]


def __getattr__(name: str) -> Any:
    """Import the module of a name and keep the name here.

    Raises:
        AttributeError: the package has no such name.
    """
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from frugalseg.stages.finetune import task

    globals()[name] = value = getattr(task, name)
    return value
