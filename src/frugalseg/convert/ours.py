"""A file of somebody else as one of ours: a checkpoint of a task, or a backbone's weights."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import lightning
import torch
from lightning.pytorch import LightningModule
from safetensors.torch import save
from torch import Tensor

from frugalseg._version import __version__
from frugalseg.convert.matching import Match, checked, match
from frugalseg.convert.reading import RawFile, read_raw
from frugalseg.convert.record import CARRIED, KEY, META, Record, record_of
from frugalseg.convert.report import Report
from frugalseg.convert.source import Plan, Request, Settings, Source
from frugalseg.convert.sources import class_path_of, find_source
from frugalseg.data.io import write_atomic
from frugalseg.data.normalise import IMAGENET_MEAN, IMAGENET_STD
from frugalseg.errors import CheckpointError, ConfigError
from frugalseg.run import write_json

NO_CLASSES = ("frugalseg.stages.irn.IRN", "frugalseg.stages.psa.PSA")
"""Tasks whose nets do not depend on the number of classes."""


def planned(raw: RawFile, request: Request) -> tuple[Source, str, Plan, Match]:
    """Source of a file, what shows it, its net, and what its tensors are.

    Raises:
        CheckpointError: the file is ours already, of no known source, or contradicts itself or the request.
        ConfigError: no such source or task.
    """
    if raw.task is not None or META in raw.metadata:
        what = raw.task or "a converted backbone"
        raise CheckpointError(
            f"{raw.path}: is ours already ({what}); give it to fit or predict, or write --to official"
        )
    source, reason = find_source(raw, request.source)
    try:
        task = class_path_of(source, request.task)
        settings = sensible(lambda: source.settings(raw.tensors, request, task))
        plan = source.plan(settings)
    except CheckpointError as error:
        raise CheckpointError(f"{raw.path}: {error}") from error
    count = settings.arguments.get("num_classes")
    if request.classes is not None and settings.task not in (None, *NO_CLASSES) and count != request.classes:
        raise CheckpointError(
            f"{raw.path}: holds {count} classes with the background, not {request.classes}; "
            "give the file of that benchmark, or leave --classes out"
        )
    return source, reason, plan, match(raw.tensors, plan, source)


def sensible(find: Callable[[], Settings]) -> Settings:
    """Settings of a net that can be built.

    Args:
        find: reads them off a file, which may hold anything.

    Raises:
        CheckpointError: shapes that no net has, or a number of classes that masks of one byte cannot hold.
    """
    try:
        settings = find()
        count = settings.arguments.get("num_classes")
        if count is not None and not 2 <= int(count) <= 255:
            raise CheckpointError(f"is of {count} classes with the background, not of 2 to 255; give another file")
    except (IndexError, KeyError, TypeError, ValueError) as error:
        line = str(error) or type(error).__name__
        raise CheckpointError(f"its tensors have shapes that no such net has ({line}); give another file") from error
    return settings


def to_ours(path: Path, out: Path, request: Request | None = None) -> Report:
    """Convert a file; a report lies beside the new one under its name with `.json` behind it.

    Args:
        path: of the authors.
        out: to write; `.ckpt` for a task, `.safetensors` for a backbone. What is there is replaced.
        request: what the user asks for besides.

    Raises:
        CheckpointError: see `planned`; or a tensor is missing, has another shape, or is there twice unequally.
        ConfigError: no such source or task, or `out` has the wrong ending.
    """
    request = request or Request()
    raw = read_raw(path, request.part)
    source, reason, plan, found = planned(raw, request)
    ending = ".safetensors" if plan.settings.task is None else ".ckpt"
    if out.suffix != ending:
        raise ConfigError(f"--out {out}: {_told(plan)} is written as {ending}; name it so")
    try:
        tensors = checked(raw.tensors, plan, found, source)
    except CheckpointError as error:
        raise CheckpointError(f"{path}: {error}") from error
    record = record_of(raw, source.name, found, not plan.partial)
    carried = {} if plan.partial else {name: raw.tensors[name].clone() for name in (*found.left, *found.unknown)}
    if plan.task is None:
        _write_backbone(out, tensors, carried, record)
    else:
        _write_checkpoint(out, plan.task, str(plan.settings.task), tensors, carried, record)
    report = Report(
        "ours", source.name, reason, str(path), record.sha256, str(out), __version__, _told(plan), len(raw.tensors),
        len(plan.names), len(found.groups), found.repeated, found.left, tuple(found.unknown), plan.own, raw.beside,
    )  # fmt: skip
    write_json(out.with_name(f"{out.name}.json"), report.as_dict())
    return report


def _told(plan: Plan) -> str:
    """What becomes of it, in words."""
    known = {k: v for k, v in plan.settings.arguments.items() if v is not None and k not in ("weights", "backbone")}
    settings = ", ".join(f"{key} {value}" for key, value in known.items())
    what = plan.settings.task or f"backbone {plan.settings.arguments['backbone']}"
    return f"{what} ({settings})" if settings else what


def _write_checkpoint(
    out: Path,
    task: LightningModule,
    class_path: str,
    tensors: Mapping[str, Tensor],
    carried: Mapping[str, Tensor],
    record: Record,
) -> None:
    """A checkpoint as `frugalseg fit` writes it, without an optimiser."""
    state = {**task.state_dict(), **tensors}
    content: dict[str, Any] = {
        "state_dict": state,
        "hyper_parameters": {**task.hparams, "_class_path": class_path},
        "pytorch-lightning_version": lightning.__version__,
        "epoch": 0,
        "global_step": 0,
        # of all authors here: colours of ImageNet
        "normalisation": {"mean": list(IMAGENET_MEAN), "std": list(IMAGENET_STD)},
        KEY: {**record.as_dict(), "carried": dict(carried)},
    }
    write_atomic(out, lambda stream: torch.save(content, stream))


def _write_backbone(out: Path, tensors: Mapping[str, Tensor], carried: Mapping[str, Tensor], record: Record) -> None:
    """Weights alone, as `weights:` of tasks takes them."""
    everything = {**tensors, **{f"{CARRIED}{name}": tensor.contiguous() for name, tensor in carried.items()}}
    metadata = {"format": "pt", META: json.dumps(record.as_dict())}
    write_atomic(out, lambda stream: stream.write(save(everything, metadata)))
