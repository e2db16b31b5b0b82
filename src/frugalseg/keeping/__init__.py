"""What keeps a run folder whole: one process at a time, what a finished stage left, and what has changed since."""

from frugalseg.keeping.changes import changes
from frugalseg.keeping.lock import hand_over, leave, take
from frugalseg.keeping.outputs import clear_leftovers, count_outputs, missing_outputs, seconds_worked

__all__ = [
    "changes",
    "clear_leftovers",
    "count_outputs",
    "hand_over",
    "leave",
    "missing_outputs",
    "seconds_worked",
    "take",
]
