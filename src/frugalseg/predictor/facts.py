"""What the run folder of a checkpoint knows of it: how images were normalised, names and colours of its classes."""

import logging
import pkgutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from frugalseg.data.normalise import IMAGENET_MEAN, IMAGENET_STD
from frugalseg.errors import FrugalsegError
from frugalseg.ops.palette import voc_palette
from frugalseg.run import read_json

log = logging.getLogger(__name__)

Triple = tuple[float, float, float]
NOT_OF_CLASSES = ("batch_size", "cache", "fold", "limit", "num_workers", "predict_recipe", "pseudo_labels", "recipe")
"""Settings of data that change no class, some of which open files."""


class Classes(NamedTuple):
    """Names and colours by class id."""

    names: tuple[str, ...]
    palette: NDArray[np.uint8]


def run_facts(checkpoint: Path) -> dict[str, Any]:
    """`provenance` and `metrics` of the run whose folder a checkpoint lies in; empty where it lies elsewhere.

    Args:
        checkpoint: the file.

    Raises:
        RunFolderError: one of the files is damaged.
    """
    run = checkpoint.resolve().parent.parent
    files = {name: run / f"{name}.json" for name in ("provenance", "metrics")}
    return {name: read_json(file) for name, file in files.items() if file.is_file()}


def settings_of(facts: Mapping[str, Any], *keys: str) -> Mapping[str, Any]:
    """A part of the configuration that a run noted; empty where there is none.

    Args:
        facts: of `run_facts`.
        *keys: the path to it, such as `data`, `init_args`, `recipe`, `init_args`.
    """
    content: Any = facts.get("provenance") or {}
    for key in ("identity", *keys):
        content = (content.get(key) if isinstance(content, Mapping) else None) or {}
    return content if isinstance(content, Mapping) else {}


def normalisation(path: Path, content: Mapping[str, Any], facts: Mapping[str, Any]) -> tuple[Triple, Triple]:
    """Mean and deviation of the images that a net has learned from, on the scale 0..1.

    Args:
        path: the checkpoint, for messages.
        content: what is in it; older ones do not say it themselves.
        facts: of `run_facts`.
    """
    recipe = content.get("normalisation") or settings_of(facts, "data", "init_args", "recipe", "init_args")
    if not recipe:
        log.warning("%s: does not say how images were normalised, nor does a run folder; taking ImageNet's", path)
    return tuple(recipe.get("mean") or IMAGENET_MEAN), tuple(recipe.get("std") or IMAGENET_STD)


def classes_of(path: Path, facts: Mapping[str, Any], count: int) -> Classes:
    """Names and colours of the classes that a net tells apart.

    Read from the data of its run, whose folder need not be there any more: most benchmarks know their classes anyway.

    Args:
        path: the checkpoint, for messages.
        facts: of `run_facts`.
        count: K of the net.

    Returns:
        No names, and VOC's colours, where they are not known.
    """
    data = settings_of(facts, "data")
    try:
        found = _described(data)
    except (FrugalsegError, TypeError, ValueError) as error:
        log.warning("%s: its data do not say how their classes are called (%s)", path, error)
        found = None
    if found is not None and len(found.names) == count:
        return found
    if found is not None and found.names:
        root = (data.get("init_args") or {}).get("root")
        log.warning("%s: has %d classes, but %s names %d; going on without names", path, count, root, len(found.names))
    return Classes((), voc_palette())


def _described(data: Mapping[str, Any]) -> Classes | None:
    """What a data module of the suite says of its classes; None for other data."""
    name = str(data.get("class_path", ""))
    if not name.startswith("frugalseg.data."):  # nothing else is imported because a file says so
        return None
    # Lightning takes seconds to import, and packages, which know their classes, do without
    from frugalseg.data.module import SegmentationData
    from frugalseg.data.recipes import MultiScale

    try:
        kind = pkgutil.resolve_name(name)
    except (ImportError, AttributeError):
        return None
    if not (isinstance(kind, type) and issubclass(kind, SegmentationData)):
        return None
    settings = {key: value for key, value in (data.get("init_args") or {}).items() if key not in NOT_OF_CLASSES}
    table = kind(recipe=MultiScale(), **settings).classes
    return Classes(tuple(table.names), table.palette)
