"""Where a converted file came from; kept inside it, so that the way back is exact."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from frugalseg._version import __version__
from frugalseg.convert.matching import Match
from frugalseg.convert.reading import RawFile
from frugalseg.errors import CheckpointError
from frugalseg.nn.weights import LEFT_OUT
from frugalseg.run import file_digest

KEY = "converted"
"""Of a checkpoint, where the record is."""
META = "frugalseg_converted"
"""Of a safetensors file's metadata."""
CARRIED = LEFT_OUT
"""Before the names of tensors in safetensors that travel along; `nn.weights` does not read them."""


@dataclass(frozen=True)
class Record:
    """Origin of a converted file.

    Attributes:
        source: its kind.
        file: its name, without folders of the machine.
        sha256: of it.
        version: of this package.
        wrapper: keys that led to its tensors.
        prefix: before all its names.
        names: its names, in its order -> ours; empty for those that travel along unused.
    """

    source: str
    file: str
    sha256: str
    version: str
    wrapper: tuple[str, ...]
    prefix: str
    names: Mapping[str, str]

    def as_dict(self) -> dict[str, Any]:
        """For a checkpoint: plain values."""
        return {**asdict(self), "wrapper": list(self.wrapper), "names": dict(self.names)}


def record_of(raw: RawFile, source: str, found: Match, whole: bool) -> Record:
    """The record of a conversion.

    Args:
        raw: what was converted.
        source: its kind.
        found: what its tensors are.
        whole: whether the way back shall be the whole file; otherwise only its origin is told.
    """
    ours = {theirs: name for name, group in found.groups.items() for theirs in group}
    names = {theirs: ours.get(theirs, "") for theirs in raw.tensors} if whole else {}
    return Record(source, raw.path.name, file_digest(raw.path), __version__, raw.wrapper, raw.prefix, names)


def read_record(raw: RawFile) -> Record | None:
    """The record of one of our files; None where it was not converted.

    Raises:
        CheckpointError: it is damaged.
    """
    told = raw.metadata.get(META)
    try:
        content = json.loads(told) if told is not None else raw.content.get(KEY)
        if content is None:
            return None
        known = {key: content[key] for key in Record.__dataclass_fields__}
        if not all(isinstance(each, str) for pair in known["names"].items() for each in pair):
            raise TypeError("names")
        if not all(isinstance(known[key], str) for key in ("source", "file", "sha256", "version", "prefix")):
            raise TypeError("record")
        return Record(**{**known, "wrapper": tuple(map(str, known["wrapper"]))})
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise CheckpointError(f"{raw.path}: its record of the conversion is damaged; convert the file again") from error
