"""Labels on a GPU: batches of images of one shape; threads read ahead and write behind it."""

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

import torch

from frugalseg.commands.label_work import Batch, Labeller, Made, Target, of_images
from frugalseg.data.base import Sample
from frugalseg.data.parallel import Progress

T = TypeVar("T")
R = TypeVar("R")
AHEAD = 3
"""Batches that are read before the GPU asks for them."""


def batches(shapes: Sequence[tuple[int, ...]], size: int) -> list[list[int]]:
    """Positions of equal shapes in groups of at most `size`, in the order of the first of each."""
    groups: dict[tuple[int, ...], list[int]] = {}
    for place, shape in enumerate(shapes):
        groups.setdefault(shape, []).append(place)
    return [places[i : i + size] for places in groups.values() for i in range(0, len(places), size)]


def ahead(pool: ThreadPoolExecutor, work: Callable[[T], R], items: Iterable[T], count: int = AHEAD) -> Iterator[R]:
    """Results in order, of which at most `count` more than were asked for are computed."""
    waiting: deque[Future[R]] = deque()
    for item in items:
        waiting.append(pool.submit(work, item))
        if len(waiting) > count:
            yield waiting.popleft().result()
    while waiting:
        yield waiting.popleft().result()


def label_on_gpu(
    labeller: Labeller,
    target: Target,
    samples: Sequence[Sample],
    device: torch.device,
    workers: int | None,
    size: int,
    progress: Progress,
) -> list[Made]:
    """Make the labels of all samples that have none.

    Args:
        labeller: of the verb.
        target: where they go.
        samples: of the split.
        device: where it is computed.
        workers: threads; None lets Python choose.
        size: images of a batch.
        progress: called with (images done, images in all).

    Raises:
        FrugalsegError: something is wrong with the inputs.
    """
    with ThreadPoolExecutor(workers) as pool:
        there = list(pool.map(target.present, samples))
        made = [found for found in there if found is not None]
        todo = [sample for sample, found in zip(samples, there, strict=True) if found is None]
        shapes = list(pool.map(labeller.shape, todo))
        groups = [[todo[place] for place in places] for places in batches(shapes, size)]
        written: list[Future[Made]] = []
        try:
            for group, batch in zip(groups, ahead(pool, labeller.load, groups), strict=True):
                written += _compute(labeller, target, group, batch, device, pool)
                progress(len(made) + len(written), len(samples))
            return made + [future.result() for future in written]
        finally:
            pool.shutdown(cancel_futures=True)


def _compute(
    labeller: Labeller,
    target: Target,
    samples: Sequence[Sample],
    batch: Batch,
    device: torch.device,
    pool: ThreadPoolExecutor,
) -> list[Future[Made]]:
    """Label a batch and hand the files to the pool."""
    began = time.perf_counter()
    with of_images(samples):
        batch = labeller.prepare(batch, device)
        _wait(device)
        labels, seconds, last = {}, {}, time.perf_counter()
        seconds["setup"] = (last - began) / len(samples)
        for kind in labeller.kinds:
            labels[kind] = labeller.label(batch, kind).to("cpu", torch.uint8).numpy()  # waits for the GPU
            now = time.perf_counter()
            seconds[kind], last = (now - last) / len(samples), now
    return [
        pool.submit(target.write, sample, {kind: ids[i] for kind, ids in labels.items()}, batch.bare, seconds)
        for i, sample in enumerate(samples)
    ]


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
