"""One of our files under the names of others: the way back of `ours`."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from frugalseg._version import __version__
from frugalseg.convert.matching import OPTIONAL
from frugalseg.convert.ours import sensible
from frugalseg.convert.reading import RawFile, read_raw
from frugalseg.convert.record import CARRIED, KEY, Record, read_record
from frugalseg.convert.report import Report
from frugalseg.convert.source import BACKBONE, Plan, Request, Settings, Source, same_class
from frugalseg.convert.sources import SOURCES, find_source, source_named
from frugalseg.data.io import write_atomic
from frugalseg.errors import CheckpointError, ConfigError
from frugalseg.run import file_digest, write_json

ENDINGS = (".pth", ".pt")


def to_official(path: Path, out: Path, request: Request | None = None) -> Report:
    """Write one of our files as its authors would have: their names, as often as they register a tensor, their wrapper.

    A file that was converted once goes back into exactly the names it came with, and what ours has no use for comes
    along again. Others get all names of the released layout, and what that has and ours has not gets a filler that
    nothing reads. The new file holds nothing of its origin, because authors load all that is in it; the report beside
    it does.

    Args:
        path: a checkpoint of a task, or the weights of a backbone.
        out: to write, `.pth` or `.pt`. What is there is replaced.
        request: `source` says whose names, where the file does not.

    Raises:
        CheckpointError: the file is not ours, of no source here, or holds what the authors' net has no place for.
        ConfigError: no such source, or `out` has the wrong ending.
    """
    request = request or Request()
    if out.suffix not in ENDINGS:
        raise ConfigError(f"--out {out}: files of this kind end with {' or '.join(ENDINGS)}; name it so")
    raw = read_raw(path)
    try:
        record = read_record(raw)
        bare, carried = _parts(raw)
        raw = replace(raw, tensors=bare)
        source, reason = _source_of(raw, record, request)
        plan = source.plan(sensible(lambda: _settings_of(raw, source)))
        whole = record if record is not None and record.names and record.source == source.name else None
        named, used = _recorded(whole, bare, carried) if whole else _released(plan, bare)
        _check(plan, bare, used)
    except CheckpointError as error:
        line = str(error)
        raise CheckpointError(line if line.startswith(str(path)) else f"{path}: {line}") from error
    content: Any = named
    for key in reversed(whole.wrapper if whole else source.wrapper):
        content = {key: content}
    write_atomic(out, lambda stream: torch.save(content, stream))
    return _report(raw, out, source, reason, plan, named, used, "" if whole else source.lacks)


def _parts(raw: RawFile) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Our tensors, and those that only travel along.

    Raises:
        CheckpointError: the latter are damaged.
    """
    record = raw.content.get(KEY)
    carried = dict(record.get("carried") or {}) if isinstance(record, Mapping) else {}
    if not all(isinstance(tensor, Tensor) for tensor in carried.values()):
        raise CheckpointError("its record of the conversion is damaged; convert the file again")
    carried |= {n.removeprefix(CARRIED): t for n, t in raw.tensors.items() if n.startswith(CARRIED)}
    return {n: t for n, t in raw.tensors.items() if not n.startswith(CARRIED)}, carried


def _source_of(raw: RawFile, record: Record | None, request: Request) -> tuple[Source, str]:
    """Whose names are wanted, and what shows it.

    Raises:
        CheckpointError: the file says nothing that any source knows.
        ConfigError: no such source, or one that the file cannot become.
    """
    if raw.task is None:
        if record is not None and record.names and request.source in (None, record.source):
            return source_named(record.source), f"it was converted from {record.file}"
        return find_source(raw, request.source)
    for source in SOURCES.values():
        if any(path is not None and same_class(path, raw.task) for path in source.tasks.values()):
            if request.source not in (None, source.name):
                raise ConfigError(
                    f"--from {request.source}: {raw.path} holds {raw.task}, whose names are {source.name}'s"
                )
            return source, f"it holds {raw.task}"
    known = sorted({path for source in SOURCES.values() for path in source.tasks.values() if path})
    raise CheckpointError(f"holds {raw.task}, which no authors here have names for; give one of {', '.join(known)}")


def _settings_of(raw: RawFile, source: Source) -> Settings:
    """Settings of the net.

    Raises:
        CheckpointError: the file is of the authors; a backbone's names are the same on both sides.
    """
    official = raw.task is None and BACKBONE not in source.tasks
    settings = None if official else source.of_ours(raw.task, raw.content.get("hyper_parameters", {}), raw.tensors)
    if settings is None or (raw.task is None and settings.task is not None):
        raise CheckpointError(f"is not ours: it holds the names of {source.name} already")
    return settings


def _recorded(
    record: Record, ours: Mapping[str, Tensor], carried: Mapping[str, Tensor]
) -> tuple[dict[str, Tensor], set[str]]:
    """Exactly the names that the file came with.

    Raises:
        CheckpointError: one of them has nothing behind it any more.
    """
    named: dict[str, Tensor] = {}
    for theirs, name in record.names.items():
        tensor = ours.get(name) if name else carried.get(theirs)
        if tensor is None:
            raise CheckpointError(f"has nothing for {theirs} of {record.file} any more; convert that file again")
        named[record.prefix + theirs] = tensor
    return named, {name for name in record.names.values() if name}


def _released(plan: Plan, ours: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], set[str]]:
    """All names of the released layout: first every tensor's first name, then every second one, as modules register.

    Raises:
        CheckpointError: ours lacks a tensor of that net.
    """
    if missing := [name for name in plan.names if name not in ours and not name.endswith(OPTIONAL)]:
        raise CheckpointError(f"holds no {missing[0]}; give a whole checkpoint")
    named: dict[str, Tensor] = {}
    for rank in range(max(map(len, plan.names.values()))):
        for name, all_ in plan.names.items():
            if rank < len(all_) and name in ours:
                named[all_[rank]] = ours[name]
    return {**named, **plan.filler}, set(plan.names)


def _check(plan: Plan, ours: Mapping[str, Tensor], used: set[str]) -> None:
    """Refuse to lose a tensor without a word.

    Raises:
        CheckpointError: one has no place on the other side.
    """
    # counters of normalisation are new where the file had none; no net here uses them
    lost = [name for name in ours if name not in used and name not in plan.own and not name.endswith(OPTIONAL)]
    if lost:
        raise CheckpointError(
            f"{lost[0]}{f' and {len(lost) - 1} more' if len(lost) > 1 else ''} has no place in the authors' net; "
            "only nets with their settings can be written as theirs"
        )


def _report(
    raw: RawFile,
    out: Path,
    source: Source,
    reason: str,
    plan: Plan,
    named: Mapping[str, Tensor],
    used: set[str],
    lacks: str,
) -> Report:
    filled = [name for name, value in plan.filler.items() if named.get(name) is value]
    kept = {name: why for name, why in plan.own.items() if name in raw.tensors}
    kept |= dict.fromkeys(filled, "not in ours; written with a value that nothing reads")
    from_file = len(named) - len(filled)
    became = f"{len(named)} tensors under the names of {source.name}, {from_file} of them from the file"
    if lacks:
        became += f"; without {lacks}, which ours has not: load it with strict=False"
    report = Report(
        "official", source.name, reason, str(raw.path), file_digest(raw.path), str(out), __version__, became,
        len(raw.tensors), len(plan.names), len(used), from_file - len(used), {}, (), kept, raw.beside,
    )  # fmt: skip
    write_json(out.with_name(f"{out.name}.json"), report.as_dict())
    return report
