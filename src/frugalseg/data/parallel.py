"""Doing one thing to many files on all cores."""

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from typing import TypeVar

import cv2

T = TypeVar("T")
R = TypeVar("R")


def each(
    work: Callable[[T], R],
    items: Sequence[T],
    workers: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> list[R]:
    """Apply a function to every item.

    The first error, or Ctrl-C, ends it: items that have been started are finished, the rest is left.

    Args:
        work: can be pickled: a function of a module, or a `partial` of one.
        items: what it is applied to.
        workers: processes; None for all cores, 1 for none beside this one.
        progress: called with (items done, items in all).

    Returns:
        Results in the order of the items.
    """
    workers = min(workers or len(os.sched_getaffinity(0)), len(items))
    if workers <= 1:
        results = []
        for done, item in enumerate(items, 1):
            results.append(work(item))
            if progress:
                progress(done, len(items))
        return results
    with ProcessPoolExecutor(workers, initializer=cv2.setNumThreads, initargs=(0,)) as pool:
        futures = [pool.submit(work, item) for item in items]
        try:
            for done, future in enumerate(as_completed(futures), 1):
                future.result()
                if progress:
                    progress(done, len(items))
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
        return [future.result() for future in futures]
