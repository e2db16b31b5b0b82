"""Whether two run folders hold the same: byte by byte, but for what tells of time and of resuming."""

import csv
import io
import json
import re
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

TIMES = {
    "provenance.json": {"started", "claimed", "seconds_earlier", "resumed", "git"},
    "done.json": {"finished", "seconds", "peak_memory_bytes"},
}
"""What may differ of these files: when, how long and how often."""
DIGESTS = {"provenance.json": {"digest", "identity"}, "done.json": {"digest", "inputs"}}
"""What differs besides where the stages before were run again: their `done.json`, which tells when, is part of it."""


def files_of(folder: Path) -> dict[str, Path]:
    """All files that count as results or records."""
    return {
        path.relative_to(folder).as_posix(): path
        for path in sorted(folder.rglob("*"))
        if path.is_file() and not path.name.startswith(".")
    }


def differences(one: Path, other: Path, rerun: bool = False) -> tuple[list[str], dict[str, str]]:
    """Compare two folders.

    Args:
        one: of the undisturbed run.
        other: of the other one.
        rerun: whether the stages before were run again too, so that digests of their records differ.

    Returns:
        What must not be, and for each file that differs as it may: why.
    """
    ours, theirs = files_of(one), files_of(other)
    wrong = [f"{name}: is missing" for name in ours if name not in theirs]
    wrong += [f"{name}: should not be there" for name in theirs if name not in ours]
    excused = dict[str, str]()
    for name in ours.keys() & theirs.keys():
        first, second = ours[name].read_bytes(), theirs[name].read_bytes()
        if first != second:
            said, may = _compare(Path(name), first, second, rerun)
            wrong += [f"{name}: {each}" for each in said]
            if not said:
                excused[name] = may
    return sorted(wrong), excused


def _compare(name: Path, one: bytes, other: bytes, rerun: bool) -> tuple[list[str], str]:
    if name.name in TIMES:
        left = TIMES[name.name] | (DIGESTS[name.name] if rerun else set())
        pair = [{k: v for k, v in json.loads(each).items() if k not in left} for each in (one, other)]
        keys = [key for key in {*pair[0], *pair[1]} if pair[0].get(key) != pair[1].get(key)]
        return [f"{key} differs" for key in keys], f"times and resumptions{', digests of records' if rerun else ''}"
    if name.name == "config.yaml":
        pair = [re.sub(rb"(?m)^ckpt_path: .*$", b"", each) for each in (one, other)]
        return ["differs"] * (pair[0] != pair[1]), "names the checkpoint that a resumed fit went on from"
    if name.suffix == ".ckpt":
        return _checkpoints(one, other)
    if name.suffix == ".png" and rerun:
        same = _pixels(one) == _pixels(other)
        return ["pixels differ"] * (not same), "the header names the run, whose digest is that of records with times"
    if name.name == "metrics.json":
        pair = [_timeless(json.loads(each)) for each in (one, other)]
        return [
            f"{key} differs" for key in pair[0].keys() | pair[1].keys() if pair[0].get(key) != pair[1].get(key)
        ], SPEED
    if name.name == "metrics.csv":
        rows = [[_timeless(row) for row in csv.DictReader(io.StringIO(each.decode()))] for each in (one, other)]
        return ["rows differ"] * (rows[0] != rows[1]), SPEED
    return ["differs"], ""


def _timeless(row: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in row.items() if not _SPEEDS.search(key)}


def _pixels(png: bytes) -> list[bytes]:
    """Chunks of a PNG without its texts."""
    chunks, place = [], 8
    while place < len(png):
        (length,) = struct.unpack(">I", png[place : place + 4])
        chunk = png[place : place + 12 + length]
        if chunk[4:8] != b"tEXt":
            chunks.append(chunk)
        place += 12 + length
    return chunks


def _checkpoints(one: bytes, other: bytes) -> tuple[list[str], str]:
    pair = [dict(_leaves(torch.load(io.BytesIO(each), weights_only=True))) for each in (one, other)]
    wrong, passed = [], set[str]()
    for key in sorted({*pair[0], *pair[1]}):
        a, b = pair[0].get(key), pair[1].get(key)
        if type(a) is type(b) and (torch.equal(a, b) if isinstance(a, torch.Tensor) else a == b or (a != a and b != b)):
            continue
        if _COUNTERS.search(key):
            passed.add("counters and positions at the end of a fit, from which nobody goes on")
        elif key.endswith("/current_score"):
            passed.add("the newest score, which Lightning does not restore, as it does nothing with it")
        else:
            wrong.append(f"{key} is {_told(a)} and {_told(b)}")
    return wrong, "; ".join(sorted(passed)) or "the same content, packed otherwise"


SPEED = "how fast it was"
_SPEEDS = re.compile(r"per_second|seconds|(^|[/_])ms($|[/_])")
_COUNTERS = re.compile(r"^loops/|^epoch$|/ahead$")


def _leaves(content: Any, key: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(content, dict) and content:
        for name, value in content.items():
            yield from _leaves(value, f"{key}/{name}" if key else str(name))
    elif isinstance(content, list | tuple) and content:
        for number, value in enumerate(content):
            yield from _leaves(value, f"{key}/{number}")
    else:
        yield key, content


def _told(value: Any) -> str:
    return f"a tensor {tuple(value.shape)}" if isinstance(value, torch.Tensor) else repr(value)[:60]
