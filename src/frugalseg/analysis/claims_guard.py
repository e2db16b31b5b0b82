"""Whether claims were fixed before the runs that settle them: when git last saw what decides each verdict change."""

import subprocess
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from frugalseg.analysis.claims import Claim, parse_claims
from frugalseg.errors import ConfigError

FIXED, LATE, UNKNOWN = "before the runs", "after the first run started", "not known"


def committed(path: Path, claims: Sequence[Claim]) -> dict[str, datetime | None]:
    """Since when git has had each claim as it is now; words that decide nothing may have changed since.

    Args:
        path: of the file of claims.
        claims: that it holds now.

    Returns:
        id -> time of the commit, None for what has not been committed, and outside a checkout.
    """
    since: dict[str, datetime | None] = {claim.id: None for claim in claims}
    open_ones = {claim.id: claim.digest for claim in claims}
    for commit, when in _commits(path):
        then = _digests(path, commit)
        # a claim that another commit had otherwise, or did not have, was fixed by the commit after that
        open_ones = {name: digest for name, digest in open_ones.items() if then.get(name) == digest}
        if not open_ones:
            break
        since |= dict.fromkeys(open_ones, when)
    return since


def standing(fixed: datetime | None, started: datetime | None) -> str:
    """Whether a claim is older than the first of its runs, as one of the three phrases.

    Args:
        fixed: since when git has had it.
        started: when the first of its runs did.
    """
    if fixed is None or started is None:
        return UNKNOWN
    return FIXED if fixed <= started else LATE


def _commits(path: Path) -> list[tuple[str, datetime]]:
    """Commits that touched the file, latest first."""
    lines = _git(path, "log", "--format=%H %ct", "--", path.name).splitlines()
    pairs = (line.split() for line in lines)
    return [(commit, datetime.fromtimestamp(int(seconds), UTC)) for commit, seconds in pairs]


def _digests(path: Path, commit: str) -> dict[str, str]:
    """What the file held then; nothing where it cannot be read by today's rules."""
    try:
        return {claim.id: claim.digest for claim in parse_claims(_git(path, "show", f"{commit}:./{path.name}"), "")}
    except ConfigError:
        return {}


def _git(path: Path, *words: str) -> str:
    """What git prints; nothing where it fails."""
    command = ["git", "-C", str(path.resolve().parent), *words]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=20).stdout  # noqa: S603
    except (OSError, subprocess.SubprocessError, UnicodeDecodeError):
        return ""
