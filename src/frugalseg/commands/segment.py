"""`frugalseg segment`: masks, overlays and areas of images, by a trained net.

Images are read as they are stored: EXIF rotation is not applied. Images of more than 4 megapixels, or with a side above
`--window`, go through in overlapping windows; TIFFs are never whole in memory then (extra `rasters`), so that
`--max-pixels` does not bind them. A run that was stopped goes on with the same command.
"""

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from frugalseg._version import __version__
from frugalseg.commands.progress import counter
from frugalseg.commands.segment_inputs import TagTable, find_photos, read_supports, read_tags
from frugalseg.commands.segment_options import ON_GPU, check_kind, read_options
from frugalseg.commands.segment_record import AREAS, Record
from frugalseg.commands.segment_work import Net, Plan, Report, Worker
from frugalseg.errors import CheckpointError
from frugalseg.run import digest_of, file_digest

if TYPE_CHECKING:
    from frugalseg.predictor import Predictor


def run(argv: list[str]) -> int:
    """Segment images; those that cannot be read are listed at the end, and make the exit code 2."""
    options = read_options(argv, __doc__)
    photos = find_photos(options.images, options.out)
    tags, supports = read_tags(options.tags), read_supports(options.supports)
    predictor, facts = _opened(options.checkpoint, _device(options.device))
    check_kind(predictor, options)
    if tags is not None:
        tags.check(photos, predictor.class_names[1:])
    plan = _plan(predictor, options)
    circumstances = {"device": str(getattr(predictor, "device", options.device)), "batch_size": plan.batch_size}
    settings = {**_settings(options, tags, supports), **_ways(predictor)}
    record = Record(options.out.absolute(), facts, settings, circumstances)
    worker = Worker(
        _net(predictor, tags, supports, options, plan.batch_size),
        plan,
        record,
        predictor.palette,
        predictor.kind != "segmenter" or predictor.class_names[:1] == ("background",),
        options.overlay,
        _rows(options.quiet),
    )
    with record.working(photos, options.overwrite):
        before = worker.run(photos, _silent if options.quiet else counter("segment: images"))
    return _told(record, len(photos), before, options.quiet)


def _device(name: str) -> str:
    """What torch is to use."""
    if name != "auto":
        return name
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def _opened(checkpoint: Path, device: str) -> tuple["Predictor", dict[str, Any]]:
    """The net, and what results say of it.

    Raises:
        CheckpointError: it cannot be opened, or gives no masks.
    """
    # torch takes seconds to import: what is wrong with the words has been said by now
    from frugalseg import load
    from frugalseg.predictor.source import WEIGHTS

    predictor = load(checkpoint, device)
    if predictor.kind == "features":
        wanted = "a segmenter, a classifier or a few-shot net"
        raise CheckpointError(f"{checkpoint}: gives features, but no masks; give the checkpoint of {wanted}")
    weights = checkpoint / WEIGHTS if checkpoint.is_dir() else checkpoint
    facts = {"checkpoint": str(checkpoint), "sha256": file_digest(weights), "kind": predictor.kind}
    return predictor, {**facts, "class_names": list(predictor.class_names), "frugalseg": __version__}


def _plan(predictor: "Predictor", options: argparse.Namespace) -> Plan:
    """How images go through the net.

    Raises:
        ConfigError: the net does not take such windows.
    """
    device = str(getattr(predictor, "device", "cpu"))
    batch_size = options.batch_size or (1 if device == "cpu" else ON_GPU)
    if predictor.kind != "segmenter":
        return Plan(slides=False, batch_size=batch_size)
    plan = Plan(options.window, options.overlap, int(getattr(predictor, "multiple", 1)), True, batch_size)
    plan.sliding()  # refuses before anything is written
    return plan


def _settings(options: argparse.Namespace, tags: TagTable | None, supports: Sequence[Sequence[Path]]) -> dict[str, Any]:
    """What masks depend on, beside net and images; batch size and device change no more than rounding."""
    return {
        "scales": options.scales,
        "flip": options.flip,
        "tags": None if tags is None else digest_of([tags.every, tags.rows]),
        "supports": [[file_digest(path) for path in pair] for pair in supports],
        "window": options.window,
        "overlap": options.overlap,
    }


def _ways(predictor: "Predictor") -> dict[str, Any]:
    """How the net makes masks, which a run folder or a package says beside the weights; as JSON gives it back."""
    names = ("mean", "std", "inference", "threshold", "rule", "tag_threshold", "size")
    found = {name: getattr(predictor, name) for name in names if hasattr(predictor, name)}
    known: dict[str, Any] = json.loads(json.dumps(found, default=str))
    return known


def _net(
    predictor: Any, tags: TagTable | None, supports: Sequence[Any], options: argparse.Namespace, batch_size: int
) -> Net:
    """The net as `Worker` calls it."""
    if predictor.kind == "segmenter":
        scales = tuple(options.scales or (1.0,))
        if scales == (1.0,) and not options.flip:
            return lambda _, pixels: predictor.masks(pixels, batch_size=batch_size)
        return lambda _, pixels: [predictor(each, scales=scales, flip=options.flip) for each in pixels]
    if predictor.kind == "few-shot":
        return lambda _, pixels: [predictor(each, supports=supports) for each in pixels]
    predictor.scales = tuple(options.scales or predictor.scales)
    table = TagTable() if tags is None else tags
    return lambda photos, pixels: [
        predictor(each, tags=table.asked(photo, bool(predictor.class_names)))
        for photo, each in zip(photos, pixels, strict=True)
    ]


def _silent(done: int, total: int) -> None:
    """Says nothing."""


def _rows(quiet: bool) -> Callable[[str], Report]:
    """Makes what is told of a large image, from its name."""
    return lambda name: _silent if quiet else counter(f"segment: {name}, rows of windows")


def _told(record: Record, images: int, before: int, quiet: bool) -> int:
    """Say what was done, and list what could not be; the exit code."""
    failed = record.failed
    if not quiet:
        largest = ", ".join(f"{area['class']} {100 * area['share']:.1f} %" for area in record.totals()["areas"][:5])
        done = f"{images - len(failed)} of {images} images" + (f" ({before} of them before)" if before else "")
        print(f"{record.out}: {done}; {largest or 'no pixels'}; see {AREAS}")
    for reason in failed.values():
        print(f"frugalseg: error: {' '.join(reason.split())}", file=sys.stderr)
    return 2 if failed else 0
