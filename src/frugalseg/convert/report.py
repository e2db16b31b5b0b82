"""What a conversion did, as lines and as JSON; and the table of names."""

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from frugalseg.convert.matching import Match
from frugalseg.convert.source import Plan, Tensors

SHOWN = 8
"""Names that are told of a list; the JSON has all."""


@dataclass(frozen=True)
class Report:
    """Of one conversion.

    Attributes:
        direction: `ours` or `official`.
        source: kind of the authors' side.
        reason: what showed it.
        file: that was read.
        sha256: of it.
        out: that was written.
        version: of this package.
        became: what it is now, in words.
        tensors: names in the file.
        wanted: tensors that the net has, which the file must hold.
        matched: tensors that were found.
        repeated: further names of them, all equal.
        left: their name -> why it was left out.
        unknown: names that no rule knows; they travel along.
        kept: names of the other side without a counterpart -> why that does no harm.
        beside: what else the file held.
    """

    direction: str
    source: str
    reason: str
    file: str
    sha256: str
    out: str
    version: str
    became: str
    tensors: int
    wanted: int
    matched: int
    repeated: int
    left: Mapping[str, str]
    unknown: tuple[str, ...]
    kept: Mapping[str, str]
    beside: tuple[str, ...]

    def lines(self) -> Iterator[str]:
        """For people."""
        yield f"{self.file}: taken for {self.source}, {self.reason}; {self.tensors} tensors by name"
        yield f"  matched    {self.matched} of {self.wanted}, {self.repeated} further names of them hold the same"
        for reason, count in Counter(self.left.values()).items():
            names = [name for name, why in self.left.items() if why == reason]
            yield f"  left out   {count}: {reason} ({_some(names)})"
        if self.unknown:
            yield f"  not known  {len(self.unknown)}: {_some(self.unknown)}"
        for reason, count in Counter(self.kept.values()).items():
            names = [name for name, why in self.kept.items() if why == reason]
            yield f"  no match   {count}: {reason} ({_some(names)})"
        if self.beside:
            yield f"  not read   {_some(self.beside)}"
        yield f"{self.out}: {self.became}"

    def as_dict(self) -> dict[str, Any]:
        """For `write_json`."""
        plain = dict(vars(self))
        return {**plain, "left": dict(self.left), "kept": dict(self.kept), "unknown": list(self.unknown)}


def _some(names: Any) -> str:
    listed = [str(name) for name in names]
    return ", ".join(listed[:SHOWN]) + (f" and {len(listed) - SHOWN} more" if len(listed) > SHOWN else "")


def table(plan: Plan, tensors: Tensors | None = None, found: Match | None = None) -> Iterator[str]:
    """The table of names: theirs (all of them), ours, shape, and what a file has.

    Args:
        plan: of the net.
        tensors: of a file, or None.
        found: what they are.
    """
    groups = found.groups if found is not None else plan.names
    yield "theirs\tours\tshape\tstate"
    for ours, names in plan.names.items():
        state = "" if found is None else "matched" if ours in groups else "missing"
        yield f"{' = '.join(groups.get(ours, names))}\t{ours}\t{_shape(plan.state[ours])}\t{state}"
    for ours, reason in plan.own.items():
        yield f"-\t{ours}\t{_shape(plan.state[ours])}\t{reason}"
    if found is None:
        for name, value in plan.filler.items():
            yield f"{name}\t-\t{_shape(value)}\tnot used"
    elif tensors is not None:
        for name in [*found.left, *found.unknown]:
            yield f"{name}\t-\t{_shape(tensors[name])}\t{found.left.get(name, 'not known')}"


def _shape(tensor: Any) -> str:
    return "x".join(map(str, tensor.shape)) or "()"
