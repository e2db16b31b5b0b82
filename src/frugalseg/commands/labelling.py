"""Labels of a whole split, one palette PNG per image and kind, on all cores or on a GPU.

It can stop anywhere: a file is whole or not there, and the same command goes on with the images that lack one.
"""

import logging
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from frugalseg.callbacks.provenance import describe
from frugalseg.callbacks.wandb_stages import log_stage
from frugalseg.commands.label_gpu import label_on_gpu
from frugalseg.commands.label_inputs import require_files
from frugalseg.commands.label_settings import Request
from frugalseg.commands.label_work import Labeller, Made, Target, of_images
from frugalseg.commands.progress import counter
from frugalseg.data.base import Sample, first_five
from frugalseg.data.io import remove_leftovers
from frugalseg.data.meeting import cores, find_place
from frugalseg.data.parallel import Progress, each_dealt
from frugalseg.data.team import Team
from frugalseg.errors import ConfigError
from frugalseg.run import RunFolder, data_digests, digest_of, folder_digest

log = logging.getLogger(__name__)


def label_split(request: Request, labeller: Labeller, settings: Any, inputs: Mapping[str, Path]) -> int:
    """Make the labels of a split, unless this has been done; writes `metrics.json` and `done.json`.

    Args:
        request: of the verb.
        labeller: of the verb.
        settings: dataclass of its section.
        inputs: "maps" and perhaps "edges", folders of files.

    Returns:
        The exit code.

    Raises:
        FrugalsegError: something is wrong with the inputs, the run folder belongs to another stage, or there is no GPU.
    """
    options, samples = request.options, request.samples
    device = device_of(options.device)
    for what, path in inputs.items():
        require_files(path, samples, what)
    identity = _identity(request, settings, inputs)
    folder = RunFolder(options.out, options.experiment, options.stage, identity)
    with Team() as team:
        if team.begin(identity, partial(_claim, folder, request, labeller), options.out, folder.is_done) is not None:
            target = Target(options.out, labeller.kinds, request.data.classes, folder.digest)
            found = team.gather(_label(request, labeller, target, device, team), len(samples))
            if found is not None:
                _finish(folder, request, [Made(*known) for known in found.values()])
                log_stage(options.out, list(inputs.values()))
        elif team.rank == 0:
            print(f"{options.out}: up to date", file=sys.stderr)
    return team.code


def _claim(folder: RunFolder, request: Request, labeller: Labeller) -> int | None:
    """Make the run folder ours; the number of images to label, None if that has been done."""
    if folder.is_done():
        return None
    provenance = describe(0, ["frugalseg", request.verb, *request.argv])
    folder.claim({name: value for name, value in provenance.items() if name != "seed"})  # nothing is drawn
    for kind in labeller.kinds:
        remove_leftovers(folder.path / kind)
    return len(request.samples)


def _label(request: Request, labeller: Labeller, target: Target, device: torch.device, team: Team) -> dict[int, Made]:
    """Make the labels of those images that are dealt to this process."""
    options, samples = request.options, request.samples
    progress = counter(f"{request.verb} {options.split}") if team.rank == 0 else _quiet
    if device.type == "cpu":
        return _on_cores(labeller, target, samples, options.workers or cores(team.place), progress, team)
    return label_on_gpu(labeller, target, samples, device, options.workers, options.batch, progress, team)


def _quiet(done: int, total: int) -> None:
    """Tell nothing: rank 0 does."""


def _finish(folder: RunFolder, request: Request, made: Sequence[Made]) -> None:
    """Say that the stage is done."""
    options = request.options
    if bare := [found.id for found in made if found.bare]:
        log.warning(
            "%s: %d of %d images show no class, first %s: they are background everywhere",
            options.out, len(bare), len(made), first_five(bare),
        )  # fmt: skip
    folder.finish(_metrics(options.split, made))


def device_of(name: str) -> torch.device:
    """The device that `--device` asks for; ranks that share a machine take its GPUs in turn.

    Args:
        name: "cpu", "cuda" or "auto".

    Raises:
        ConfigError: there is no GPU.
    """
    there = torch.cuda.is_available()
    if name == "cuda" and not there:
        raise ConfigError("--device cuda: no GPU is to be seen here; take cpu or auto")
    if not there or name == "cpu":
        return torch.device("cpu")
    place = find_place()
    return (
        torch.device("cuda", place.local_rank % torch.cuda.device_count()) if place.world > 1 else torch.device("cuda")
    )


def _identity(request: Request, settings: Any, inputs: Mapping[str, Path]) -> dict[str, Any]:
    """What the labels depend on: neither paths nor the device nor the number of processes."""
    data, split = request.data, request.options.split
    digests = {what: folder_digest(path, "*.npz") for what, path in inputs.items()}
    return {
        "settings": asdict(settings),
        "data": {"module": type(data).__name__, "classes": data.class_names, "split": split},
        "inputs": {
            **digests,
            "ids": digest_of([sample.id for sample in request.samples]),
            **data_digests(data.root, [split]),
        },
    }


def _on_cores(
    labeller: Labeller, target: Target, samples: Sequence[Sample], workers: int, progress: Progress, team: Team
) -> dict[int, Made]:
    """One process per core, each with one thread."""
    # a file of maps grows with the image and its classes, as the work does; alone, errors come in the split's order
    sizes = [0 if team.world == 1 else labeller.map_file(sample).stat().st_size for sample in samples]
    threads = torch.get_num_threads()
    try:
        return each_dealt(partial(label_one, labeller, target), samples, team.deal(sizes), workers, progress)
    finally:
        torch.set_num_threads(threads)  # with one worker it was this process that worked


def label_one(labeller: Labeller, target: Target, sample: Sample) -> Made:
    """Make the labels of one image on one core, unless they are there.

    Args:
        labeller: of the verb.
        target: where they go.
        sample: the image.

    Raises:
        FrugalsegError: something is wrong with its inputs.
    """
    torch.set_num_threads(1)  # the other cores have images of their own
    if (made := target.present(sample)) is not None:
        return made
    began = time.process_time()
    with of_images([sample]):
        batch = labeller.prepare(labeller.load([sample]), torch.device("cpu"))
        labels, seconds, last = {}, {}, time.process_time()
        seconds["setup"] = last - began
        for kind in labeller.kinds:
            labels[kind] = labeller.label(batch, kind).numpy().astype(np.uint8)[0]
            now = time.process_time()
            seconds[kind], last = now - last, now
    made = target.write(sample, labels, batch.bare, seconds)
    seconds["write"] = time.process_time() - last
    return made


def _metrics(split: str, made: Sequence[Made]) -> dict[str, float]:
    """Shares of unknown pixels over the split, and mean seconds of the images that this run of the command made."""
    pixels = sum(found.pixels for found in made)
    metrics = {f"{split}/images": float(len(made))}
    for kind in made[0].unknown:
        metrics[f"{split}/unknown_{kind}"] = sum(found.unknown[kind] for found in made) / pixels
    timed = [found.seconds for found in made if found.seconds]
    for name in timed[0] if timed else ():
        metrics[f"{split}/seconds_{name}"] = float(np.mean([seconds[name] for seconds in timed]))
    return metrics
