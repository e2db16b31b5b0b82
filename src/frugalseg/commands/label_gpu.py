"""Labels on a GPU: batches of images of one shape; threads read ahead and write behind it."""

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from math import prod
from typing import TypeVar

import torch

from frugalseg.commands.label_work import Batch, Labeller, Made, Target, of_images
from frugalseg.data.base import Sample
from frugalseg.data.meeting import Place
from frugalseg.data.parallel import Progress
from frugalseg.data.team import Team

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
    team: Team | None = None,
) -> dict[int, Made]:
    """Make the labels of those samples that are dealt to this process and have none.

    Args:
        labeller: of the verb.
        target: where they go.
        samples: of the split.
        device: where it is computed.
        workers: threads; None lets Python choose.
        size: images of a batch.
        progress: called with (images done by all processes as far as we know, images in all).
        team: processes that share the work; None for this one alone.

    Returns:
        What is known of the labels, by position of the sample.

    Raises:
        FrugalsegError: something is wrong with the inputs.
    """
    with ThreadPoolExecutor(workers) as pool:
        shapes = list(pool.map(labeller.shape, samples))
        # of all samples, whether or not they have labels: groups must be the same for all processes
        groups = batches(shapes, size)
        deal = (team or Team(Place())).deal([len(group) * prod(shapes[group[0]]) for group in groups])
        made: dict[int, Made] = {}
        writing: dict[int, Future[Made]] = {}
        try:
            load = partial(_load, labeller, target, samples)
            for before, there, todo, batch in ahead(pool, load, ((n, groups[group]) for n, group in deal)):
                made |= there
                if batch is not None:
                    files = _compute(labeller, target, [samples[place] for place in todo], batch, device, pool)
                    writing |= dict(zip(todo, files, strict=True))
                progress(len(samples) * (before + 1) // len(groups), len(samples))
            return made | {place: future.result() for place, future in writing.items()}
        finally:
            pool.shutdown(cancel_futures=True)


def _load(
    labeller: Labeller, target: Target, samples: Sequence[Sample], dealt: tuple[int, list[int]]
) -> tuple[int, dict[int, Made], list[int], Batch | None]:
    """How many groups were dealt before this one, what it has already, what is left of it, and the inputs of that."""
    before, group = dealt
    found = {place: target.present(samples[place]) for place in group}
    there = {place: made for place, made in found.items() if made is not None}
    todo = [place for place in group if place not in there]
    return before, there, todo, labeller.load([samples[place] for place in todo]) if todo else None


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
