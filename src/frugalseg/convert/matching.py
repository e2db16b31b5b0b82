"""Whose tensor is which: names, duplicates, shapes."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from frugalseg.convert.source import Plan, Source, Tensors
from frugalseg.errors import CheckpointError

OPTIONAL = "num_batches_tracked"
"""Ending of counters that old files lack, and that no net here uses."""


@dataclass(frozen=True)
class Match:
    """What a file's tensors are.

    Attributes:
        groups: our name -> their names of the same tensor, in the file's order.
        left: their name -> why it is left out on purpose.
        unknown: their names that no rule knows.
        missing: our names that the file has nothing for, but for counters.
    """

    groups: Mapping[str, Sequence[str]]
    left: Mapping[str, str]
    unknown: Sequence[str]
    missing: Sequence[str]

    @property
    def repeated(self) -> int:
        """Names beyond the first of each tensor."""
        return sum(len(names) - 1 for names in self.groups.values())


def match(tensors: Tensors, plan: Plan, source: Source) -> Match:
    """Find every tensor's place.

    Args:
        tensors: of the file.
        plan: of the net.
        source: of the file.
    """
    places, rules = plan.by_their_name(), (*plan.left, *source.left)
    groups: dict[str, list[str]] = {}
    left: dict[str, str] = {}
    unknown: list[str] = []
    for name in tensors:
        if (ours := places.get(name)) is not None:
            groups.setdefault(ours, []).append(name)
        elif reason := next((why for pattern, why in rules if re.fullmatch(pattern, name)), None):
            left[name] = reason
        else:
            unknown.append(name)
    missing = [name for name in plan.names if name not in groups and not name.endswith(OPTIONAL)]
    return Match(groups, left, unknown, missing)


def checked(tensors: Tensors, plan: Plan, found: Match, source: Source) -> dict[str, Tensor]:
    """Tensors under our names.

    Raises:
        CheckpointError: one is missing, has another shape, or is there twice with unequal numbers.
    """
    for names in found.groups.values():
        for other in names[1:]:
            if not same(tensors[names[0]], tensors[other]):
                raise CheckpointError(
                    f"{names[0]} and {other} should be one tensor, but differ; "
                    "the file was put together of several nets: give the authors' own"
                )
    if found.missing:
        first, count = plan.names[found.missing[0]][0], len(found.missing)
        raise CheckpointError(
            f"holds no {first}{f' and {count - 1} more' if count > 1 else ''} of the {len(plan.names)} tensors that "
            f"{plan.settings.task or source.name} has; give the whole file, or see --table"
        )
    for ours, names in found.groups.items():
        wanted, there = tuple(plan.state[ours].shape), tuple(tensors[names[0]].shape)
        if wanted != there:
            raise CheckpointError(
                f"{names[0]} has shape {there}, not {wanted} as the rest of the file asks for; "
                "give a file of one net, or see --table"
            )
    # a copy of its own: what shares memory with more would take the more along into the new file
    return {ours: tensors[names[0]].detach().clone().contiguous() for ours, names in found.groups.items()}


def same(one: Tensor, other: Tensor) -> bool:
    """Whether two tensors are equal bit by bit; NaN equals itself here."""
    if one.shape != other.shape or one.dtype != other.dtype:
        return False
    if one.data_ptr() == other.data_ptr() and one.stride() == other.stride():
        return True
    a, b = (each.contiguous().reshape(-1).view(torch.uint8) for each in (one, other))
    return torch.equal(a, b)
