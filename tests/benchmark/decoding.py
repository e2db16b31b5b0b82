"""Reading images: decoders, scaled decoding, the cache of decoded images, workers, and what of a step is waiting for data."""

import io
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from statistics import median

import numpy as np
from PIL import Image

from frugalseg.data.base import Sample
from frugalseg.data.io import read_image, read_mask
from frugalseg.data.kept import Kept
from frugalseg.data.loader import TrainItems, TrainLoader, quiet_worker
from frugalseg.data.recipes import Recipe, Segment, Tags
from frugalseg.data.sampler import TrainSampler, draw_rng
from frugalseg.data.views import Views
from tests.benchmark.data import CLASSES, CROP, REAL, find_images, mask_of
from tests.benchmark.device import gpu_device, wait_for
from tests.benchmark.measure import Measured, interleave, ratio
from tests.benchmark.sfc import FRESH, Batch, make_batch, make_task, sfc_step

FRAME = (2048, 1024)
"""Width and height of Cityscapes' frames."""


@contextmanager
def photos(quick: bool, count: int) -> Iterator[tuple[list[Sample], str]]:
    """VOC images with masks, and a remark on where they are from."""
    with tempfile.TemporaryDirectory() as folder:
        paths, note = find_images(Path(folder), 4 if quick else count)
        yield [Sample(path.stem, path, mask_of(path, Path(folder)), (0, 3)) for path in paths], note


@contextmanager
def frames(quick: bool, suffix: str) -> Iterator[tuple[list[Sample], str]]:
    """Frames of 2048x1024 with masks: Cityscapes' genuine ones, or as JPEGs, else enlarged photos."""
    genuine = sorted((REAL / "cityscapes/leftImg8bit").glob("*/*/*.png"))[: 1 if quick else 2]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        sources = genuine or find_images(folder, 1 if quick else 2)[0]
        samples = []
        for source in sources:
            path = folder / f"frame-{source.stem}.{suffix}"
            Image.open(source).convert("RGB").resize(FRAME).save(path)
            samples.append(Sample(path.stem, path, mask_of(path, folder), (0, 3)))
        yield samples, f"{len(samples)} {'genuine' if genuine else 'NOT genuine'} frames of 2048x1024 as {suffix}"


def items(recipe: Recipe, samples: list[Sample]) -> None:
    """One training item of each sample, always with the same random numbers."""
    for number, sample in enumerate(samples):
        recipe.train_item(sample, CLASSES, draw_rng(0, number))


def kept(samples: list[Sample], folder: Path) -> list[Sample]:
    """The same samples with a cache."""
    return [Sample(s.id, s.image, s.mask, s.tags, s.code, Kept(folder)) for s in samples]


def decode_over_pil(quick: bool) -> dict[str, Measured]:
    """Our reader against Pillow's."""
    found = {}
    for name, source in (("", photos(quick, 60)), ("_png", frames(quick, "png"))):
        with source as (samples, note):

            def ours(samples: list[Sample] = samples) -> None:
                for sample in samples:
                    read_image(sample.image)

            def pil(samples: list[Sample] = samples) -> None:
                for sample in samples:
                    np.asarray(Image.open(io.BytesIO(sample.image.read_bytes())).convert("RGB"))

            times = interleave({"ours": ours, "pil": pil}, 1 if quick else 5)
        value = ratio(times, "pil", "ours")
        speed = len(samples) / median(cpu for _, cpu in times["ours"])
        found[f"data.decode{name}_over_pil"] = Measured(value.value, note, value.extra)
        found[f"data.decode{name}_images_per_s"] = Measured(speed, note)
    return found


def scaled_over_whole(quick: bool) -> dict[str, Measured]:
    """Items whose views are much smaller than the image, decoded at a part of its size or whole."""
    small = {"global_size": 64, "local_size": 32, "local_views": 4, "colour": "device"}
    usual = {"colour": "device"}
    found = {}
    for name, source, settings, repeats in (
        ("scaled_over_whole", photos(quick, 60), small, 1),
        ("scaled_over_whole_frames", frames(quick, "jpg"), usual, 8),
    ):
        with source as (samples, note):
            sides = {
                key: partial(items, Views(**settings, scaled=key == "scaled"), samples) for key in ("scaled", "whole")
            }
            times = interleave(sides, 1 if quick else 5, dict.fromkeys(sides, 1 if quick else repeats))
        value = ratio(times, "whole", "scaled")
        found[f"data.{name}"] = Measured(value.value, note, value.extra)
    return found


def cached_over_uncached(quick: bool) -> dict[str, Measured]:
    """Training items from decoded images against those from files."""
    found = {}
    for name, source, recipe in (
        ("", photos(quick, 60), Tags(crop=CROP)),
        ("_segment", photos(quick, 60), Segment(crop=CROP)),
        ("_png", frames(quick, "png"), Segment(crop=CROP, scale=None)),
    ):
        with source as (samples, note), tempfile.TemporaryDirectory() as folder:
            sides = {
                "files": partial(items, recipe, samples),
                "kept": partial(items, recipe, kept(samples, Path(folder))),
            }
            times = interleave(sides, 1 if quick else 5)  # the untimed round fills the cache
        value = ratio(times, "files", "kept")
        found[f"data.cached_over_uncached{name}"] = Measured(value.value, note, value.extra)
    return found


def item_shares(quick: bool) -> dict[str, Measured]:
    """What of making a training batch, which is laid straight into its memory, is decoding."""
    found = {}
    with photos(quick, 60) as (samples, note):
        for name, recipe in (("tags", Tags(crop=CROP)), ("segment", Segment(crop=CROP)), ("views", Views())):
            sides = {
                "decode": partial(decode, samples, recipe.needs_masks),
                "batches": partial(batches, samples, recipe),
            }
            spent = {k: median(cpu for _, cpu in v) for k, v in interleave(sides, 1 if quick else 5).items()}
            found[f"data.decode_share_{name}"] = Measured(100 * spent["decode"] / spent["batches"], note)
    return found


def decode(samples: list[Sample], masks: bool) -> None:
    for sample in samples:
        read_image(sample.image)
        if masks and sample.mask is not None:
            read_mask(sample.mask, CLASSES)


def batches(samples: list[Sample], recipe: Recipe) -> None:
    for at in range(0, len(samples), 4):
        part = samples[at : at + 4]
        recipe.train_batch(part, CLASSES, [draw_rng(0, at + number) for number in range(len(part))])


def loader(samples: list[Sample], recipe: Recipe, batch: int, workers: int, steps: int) -> TrainLoader:
    """The data module's loader, over as many samples as the steps take."""
    repeated = [samples[i % len(samples)] for i in range(steps * batch)]
    data = TrainItems(repeated, recipe, CLASSES, 0)
    sampler = TrainSampler(len(data), batch, 0)
    return TrainLoader(
        data, sampler=sampler, batch_size=None, num_workers=workers, worker_init_fn=quiet_worker,
        persistent_workers=workers > 0,
    )  # fmt: skip


def workers(quick: bool) -> dict[str, Measured]:
    """Images a second through the loader in wall time, the workers already started."""
    batch, steps = (2, 2) if quick else (8, 12)
    with photos(quick, 60) as (samples, note):
        loaders = {n: loader(samples, Tags(crop=CROP), batch, n, steps) for n in (0, 1, 2)}
        times = interleave({str(n): partial(_drain, each) for n, each in loaders.items()}, 1 if quick else 3)
    speed = {n: steps * batch / median(wall for wall, _ in found) for n, found in times.items()}
    rows = {f"data.loader_images_per_s_{n}": Measured(value, note) for n, value in speed.items()}
    return {**rows, "data.two_workers_over_none": Measured(speed["2"] / speed["0"], note)}


def _drain(batches: TrainLoader) -> None:
    for _ in batches:
        pass


def loading_share(quick: bool) -> dict[str, Measured]:
    """Part of SFC's training steps that is waiting for the next batch, on a CPU whatever else is there."""
    return {f"data.loading_share{name}": found for name, found in _shares("cpu", quick, 3).items()}


def gpu(quick: bool) -> dict[str, Measured]:
    """The same of steps on a GPU, which leave the loader less time."""
    return {f"data.gpu_loading_share{name}": found for name, found in _shares(gpu_device(), quick, 30).items()}


def _shares(device: str, quick: bool, steps: int) -> dict[str, Measured]:
    """With one worker (no suffix) and without."""
    crop, steps = (64, 2) if quick else (256, steps)
    found = {}
    with photos(quick, 60) as (samples, note):
        task = make_task(crop, device)
        for name, count in (("", 1), ("_no_worker", 0)):
            share = _waiting(
                sfc_step(task, make_batch(crop, device)),
                loader(samples, Tags(crop=crop), FRESH, count, steps + 1),
                device,
            )
            remark = f"{note}; ResNet-50, {crop} pixels, {FRESH} fresh images a step, on {device}"
            found[name] = Measured(100 * share, remark)
    return found


def _waiting(step: Callable[[], None], batches: TrainLoader, device: str) -> float:
    """Seconds of waiting over all seconds; the first step, which starts the worker, is left out."""
    clock, waited, began = time.perf_counter, 0.0, 0.0
    fresh = iter(batches)
    for number in range(len(batches)):
        asked = clock()
        batch = next(fresh)
        for key in Batch._fields:  # the step's own batch has the same shapes
            batch[key].to(device, non_blocking=True)
        if number == 0:
            step()
            wait_for(device)
            began = clock()
            continue
        waited += clock() - asked
        step()
        wait_for(device)
    return waited / (clock() - began)
