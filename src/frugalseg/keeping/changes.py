"""What distinguishes the settings and inputs of two runs, in words."""

import json
import re
from collections.abc import Iterator
from typing import Any

SHOWN = 5
"""Changes that are told one by one."""
_LONGEST = 60
_ABSENT = "(none)"


def changes(before: Any, now: Any) -> str:
    """Dotted keys whose values differ, each with the old and the new value; empty where nothing does.

    Args:
        before: identity of the older run: nested dictionaries of what JSON knows.
        now: that of the newer one.
    """
    # what is kept has been through JSON, which knows neither tuples nor paths
    old, new = (dict(_leaves(json.loads(json.dumps(each, default=str)))) for each in (before, now))
    found = [
        f"{key} {_told(old.get(key, _ABSENT))} -> {_told(new.get(key, _ABSENT))}"
        for key in sorted({*old, *new})
        if old.get(key, _ABSENT) != new.get(key, _ABSENT)
    ]
    more = len(found) - SHOWN
    return ", ".join(found[:SHOWN]) + (f" and {more} more" if more > 0 else "")


def _leaves(content: Any, key: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(content, dict) and content:
        for name, value in content.items():
            yield from _leaves(value, f"{key}.{name}" if key else str(name))
    else:
        yield key or "identity", content


def _told(value: Any) -> str:
    if value == _ABSENT:
        return _ABSENT
    text = value if isinstance(value, str) else json.dumps(value)
    if re.fullmatch(r"[0-9a-f]{64}", text):
        return text[:8]  # a digest
    return text if len(text) <= _LONGEST else text[: _LONGEST - 3] + "..."
