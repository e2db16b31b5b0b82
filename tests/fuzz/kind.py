"""What a kind of input is, and how one attempt ends."""

from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any, NamedTuple

from frugalseg.errors import FrugalsegError


class Kind(NamedTuple):
    """Inputs of one kind.

    Attributes:
        name: of the row.
        what: the readers that it is for.
        share: parts of ten thousand inputs.
        prepare: called once, with a folder for good files; gives what `attempt` starts from.
        attempt: makes one malformed input in an empty folder, reads it, and checks what was accepted. It returns, or
            raises a FrugalsegError; anything else is a defect.
    """

    name: str
    what: str
    share: int
    prepare: Callable[[Path], Any]
    attempt: Callable[[Any, Path, Random], None]


class Refused(FrugalsegError):
    """A command that ended with code 2 and one line."""


def outcome(error: BaseException | None) -> tuple[str, str]:
    """("accepted" | "refused" | "failure", what to say)."""
    if error is None:
        return "accepted", ""
    told = str(error)
    if not isinstance(error, FrugalsegError):
        return "failure", f"{type(error).__name__}: {told[:300]}"
    if not told.strip() or len(told) > 5000:
        return "failure", f"{type(error).__name__}: a message of {len(told)} characters"
    return "refused", told[:200]


def leftovers(place: Path) -> list[str]:
    """Files that were begun and not finished."""
    return [str(path.relative_to(place)) for path in place.rglob(".*.tmp")]
