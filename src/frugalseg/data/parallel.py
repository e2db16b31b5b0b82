"""Doing one thing to many files on all cores."""

import os
import signal
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, as_completed, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from typing import TypeVar

import cv2

from frugalseg import limits
from frugalseg.errors import FrugalsegError

Progress = Callable[[int, int], None]
"""Called with (files done, files in all)."""
T = TypeVar("T")
R = TypeVar("R")


def each(
    work: Callable[[T], R],
    items: Sequence[T],
    workers: int | None = None,
    progress: Progress | None = None,
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

    Raises:
        FrugalsegError: a process was killed.
    """
    workers = min(workers or os.cpu_count() or 1, len(items))
    if workers <= 1:
        results = []
        for done, item in enumerate(items, 1):
            results.append(work(item))
            if progress:
                progress(done, len(items))
        return results
    with _pool(workers) as pool:
        futures = [pool.submit(work, item) for item in items]
        for done, future in enumerate(as_completed(futures), 1):
            future.result()
            if progress:
                progress(done, len(items))
        return [future.result() for future in futures]


def each_dealt(
    work: Callable[[T], R],
    items: Sequence[T],
    deal: Iterable[tuple[int, int]],
    workers: int = 1,
    progress: Progress | None = None,
) -> dict[int, R]:
    """Apply a function to those items that are dealt to this process, each asked for when there is a core for it.

    Args:
        work: can be pickled.
        items: of all processes.
        deal: numbers of items dealt before, and positions of ours: `Team.deal`.
        workers: processes; 1 for none beside this one.
        progress: called with (items done by all processes as far as we know, items in all).

    Returns:
        Results by position.

    Raises:
        FrugalsegError: a process was killed.
    """
    results: dict[int, R] = {}
    if min(workers, len(items)) <= 1:
        for before, item in deal:
            results[item] = work(items[item])
            if progress:
                progress(before + 1, len(items))
        return results
    waiting: dict[Future[R], int] = {}
    dealt = 0

    def take(most: int) -> None:
        """Take in results until at most so many are waited for."""
        while len(waiting) > most:
            for future in wait(waiting, return_when=FIRST_COMPLETED).done:
                results[waiting.pop(future)] = future.result()
                if progress:
                    progress(dealt - len(waiting), len(items))

    with _pool(min(workers, len(items))) as pool:
        for before, item in deal:
            waiting[pool.submit(work, items[item])], dealt = item, before + 1
            take(workers)  # one more than work, so that nobody waits for us
        take(0)
    return results


@contextmanager
def _pool(workers: int) -> Iterator[ProcessPoolExecutor]:
    """Processes; what has been started is finished, whatever happens."""
    pool = ProcessPoolExecutor(workers, initializer=_quieten, initargs=(os.getpid(), limits.now()))
    try:
        yield pool
    except BrokenProcessPool:
        raise FrugalsegError(
            "a process was killed, perhaps for lack of memory; run the same command again with fewer --workers"
        ) from None
    finally:
        pool.shutdown(cancel_futures=True)  # waits for the items that have been started


def _quieten(parent: int, held: limits.Limits) -> None:
    """Keep to the parent's limits, leave Ctrl-C, which the terminal sends to all, to it, and start no threads."""
    limits.use(held)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    cv2.setNumThreads(0)
    threading.Thread(target=_end_with, args=(parent,), daemon=True).start()


def _end_with(parent: int) -> None:
    """End this process when the one that started it is gone: killed, it can tell nobody."""
    while os.getppid() == parent:
        time.sleep(0.5)
    os._exit(1)
