"""Tensors of a file by somebody else, however they are wrapped; nothing in the file is ever executed."""

import argparse
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor

from frugalseg.errors import CheckpointError

WRAPPERS = ("state_dict", "model", "net", "teacher", "student")
"""Keys under which training scripts put the tensors; DINO has a teacher and a student."""
HARMLESS: list[Any] = [argparse.Namespace]
"""What may be rebuilt besides tensors and plain values: scripts keep their command line in a Namespace (CTI and DINO
grew from such scripts). It has neither a constructor with effects nor a `__setstate__`: filling it sets attributes and
does nothing else. None of them is used here."""
DEEPEST = 3
"""Wrappers inside one another; more is no training script's, and a mapping may hold itself."""
LARGEST_VIEW = 2**28
"""Bytes up to which a tensor may claim more numbers than are stored for it, as one that repeats a row does."""
PARALLEL = "module."
"""What DataParallel puts before every name."""


@dataclass(frozen=True)
class RawFile:
    """What a file holds.

    Attributes:
        path: of the file.
        tensors: by the names of its authors, without `prefix`.
        wrapper: keys that lead to them.
        prefix: `module.` where every name began with it, else empty.
        beside: other things in the file (epoch, optimiser, ...), which are not read.
        task: class path where the file is a checkpoint of this package, else None.
        content: the whole of it, for checkpoints of this package; empty for others.
        metadata: of a safetensors file.
    """

    path: Path
    tensors: dict[str, Tensor]
    wrapper: tuple[str, ...]
    prefix: str
    beside: tuple[str, ...]
    task: str | None
    content: Mapping[str, Any]
    metadata: Mapping[str, str]


def read_raw(path: Path, part: str = "teacher") -> RawFile:
    """Read a file.

    Args:
        path: a state dict, plain or wrapped, a whole training checkpoint, or safetensors.
        part: which of `teacher` and `student` to take where there are both.

    Raises:
        CheckpointError: it is missing, damaged, holds objects that only unpickling could rebuild, or holds no tensors.
    """
    if not path.is_file():
        raise CheckpointError(f"{path}: no such file; give the file that the authors released, or one of ours")
    if path.suffix == ".safetensors":
        return _read_safetensors(path)
    content = _load(path)
    known = content.get("hyper_parameters") if isinstance(content, Mapping) else None
    task = known.get("_class_path") if isinstance(known, Mapping) else None
    wrapper: list[str] = []
    beside: list[str] = []
    inner = content
    while isinstance(inner, Mapping) and len(wrapper) < DEEPEST and (key := _wrapper_of(inner, part)) is not None:
        wrapper.append(key)
        beside += [str(other) for other in inner if other != key]
        inner = inner[key]
    named = inner.items() if isinstance(inner, Mapping) else ()
    tensors = {name: value for name, value in named if isinstance(name, str) and _is_plain(value)}
    if not tensors:
        raise CheckpointError(f"{path}: holds no tensors by name ({_told(content)}); give a file with a state dict")
    beside += [str(name) for name, _ in named if name not in tensors]
    _check_sizes(path, tensors)
    prefix = PARALLEL if all(name.startswith(PARALLEL) for name in tensors) else ""
    bare = {name[len(prefix) :]: tensor for name, tensor in tensors.items()}
    whole = content if task is not None else {}
    return RawFile(path, bare, tuple(wrapper), prefix, tuple(beside), task and str(task), whole, {})


def _is_plain(value: object) -> bool:
    """Whether something is a tensor of numbers in memory: neither sparse nor quantised nor without storage."""
    if not isinstance(value, Tensor):
        return False
    return value.layout == torch.strided and value.device.type == "cpu" and not value.is_quantized


def _check_sizes(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """Refuse tensors that would grow beyond all bounds when they are copied.

    Raises:
        CheckpointError: one claims far more numbers than the file stores for it.
    """
    for name, tensor in tensors.items():
        size = tensor.numel() * tensor.element_size()
        if size > max(LARGEST_VIEW, tensor.untyped_storage().nbytes()):
            raise CheckpointError(f"{path}: {name} claims {size >> 20} MB that the file does not store; fetch it again")


def _wrapper_of(content: Mapping[str, Any], part: str) -> str | None:
    """The key under which the tensors are, or None where they are here."""
    found = [key for key in WRAPPERS if isinstance(content.get(key), Mapping)]
    both = {"teacher", "student"} <= set(found)
    return part if both else (found[0] if found else None)


def _read_safetensors(path: Path) -> RawFile:
    try:
        with safe_open(path, framework="pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - it is no mapping
            metadata = dict(file.metadata() or {})
    except Exception as error:  # safetensors has an error class of its own, which it does not export everywhere
        raise CheckpointError(f"{path}: not a readable safetensors file ({_line(error)}); fetch it again") from error
    if not tensors:
        raise CheckpointError(f"{path}: holds no tensors; fetch it again")
    return RawFile(path, tensors, (), "", (), None, {}, metadata)


def _load(path: Path) -> Any:
    """What torch's safe reader makes of a file.

    Raises:
        CheckpointError: told apart: objects of other classes, or damage.
    """
    try:
        with torch.serialization.safe_globals(HARMLESS):
            return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # whatever the reader meets in a damaged file
        if strange := _strange_objects(path):
            raise CheckpointError(
                f"{path}: holds objects of {', '.join(strange[:3])} besides tensors; only unpickling could "
                "rebuild those, and that may run code; if you trust the file, save its state dict alone and give that"
            ) from None
        raise CheckpointError(f"{path}: not a readable checkpoint ({_line(error)}); fetch it again") from error


def _strange_objects(path: Path) -> list[str]:
    """Classes and functions that unpickling would need, found without unpickling; empty where that cannot be told."""
    try:
        with torch.serialization.safe_globals(HARMLESS):
            return sorted(torch.serialization.get_unsafe_globals_in_checkpoint(path))
    except Exception:  # a damaged file, or one of the time before zip archives
        return []


def _line(error: Exception) -> str:
    return str(error).splitlines()[0][:160] if str(error) else type(error).__name__


def _told(content: object) -> str:
    """What there is instead, in a few words."""
    if isinstance(content, Mapping):
        return f"a mapping with {', '.join(map(str, list(content)[:4])) or 'nothing in it'}"
    return f"a {type(content).__name__}"
