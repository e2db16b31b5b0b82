"""Progress of verbs: one line now and then, on standard error."""

import sys
import time
from collections.abc import Callable


def counter(what: str, every: float = 5.0) -> Callable[[int, int], None]:
    """A callback (done, total) that prints at most one line in `every` seconds, and none for quick work."""
    began = last = time.monotonic()

    def report(done: int, total: int) -> None:
        nonlocal last
        now = time.monotonic()
        if now - last < every:
            return
        last = now
        left = (now - began) / max(done, 1) * (total - done)
        print(f"{what} {done}/{total}, {left:.0f} s left", file=sys.stderr, flush=True)

    return report
