"""Reading YAML that others wrote: safe tags only, and no text that grows beyond bounds when it is read.

An alias costs nothing to load but is the same object again: nine lines of them stand for a billion entries to whoever
walks, copies or writes the content. So nodes are counted as often as they are meant before anything is built.
"""

from pathlib import Path
from typing import Any

import yaml

from frugalseg.errors import ConfigError

MAX_BYTES, MAX_NODES, MAX_DEPTH, MAX_WORD = 2 << 20, 200_000, 60, 2_000
"""Of one text; the last are the characters of a value without spaces or quotes, which may be a number.

The largest experiment has 6 KB, 150 nodes and 9 levels, the list of claims 30 KB."""
PLAIN = {f"tag:yaml.org,2002:{kind}" for kind in ("str", "int", "float", "bool", "null", "map", "seq")}
LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class TooMuchError(yaml.YAMLError):
    """A text is beyond the limits, or has tags that ask for objects."""


def read_yaml(path: Path, loader: Any = LOADER) -> Any:
    """Contents of a YAML file.

    Args:
        path: the file, in UTF-8, with or without a byte order mark.
        loader: a subclass of a safe loader.

    Raises:
        ConfigError: it is not there, no YAML, asks for objects by a tag, or is too large, nested or repetitive.
    """
    try:
        if path.stat().st_size > MAX_BYTES:
            raise ConfigError(f"{path}: has {path.stat().st_size:,} bytes, settings have at most {MAX_BYTES:,}; cut it")
        data = path.read_bytes()  # bytes: yaml knows byte order marks
    except OSError as error:
        raise ConfigError(f"{path}: not readable ({error.strerror}); give a YAML file") from error
    try:
        return load_yaml(data, loader)
    except yaml.YAMLError as error:
        told = " ".join(str(error).split())[:200]
        raise ConfigError(f"{path}: not readable ({told}); give an experiment's YAML, in UTF-8") from error


def load_yaml(text: str | bytes, loader: Any = LOADER) -> Any:
    """Contents of a YAML text.

    Args:
        text: the document.
        loader: a subclass of a safe loader.

    Raises:
        yaml.YAMLError: no YAML, a tag that would build objects, or beyond the limits.
    """
    check_bounds(text)
    try:
        content = yaml.load(text, Loader=loader)  # noqa: S506 - a safe loader
    except (ValueError, TypeError, OverflowError, RecursionError, AttributeError, LookupError) as error:
        # a date such as 2026-13-45, a number of 5,000 digits, a key that is a list
        raise yaml.YAMLError(f"a value cannot be read ({' '.join(str(error).split())[:120]})") from error
    check_strings(content)
    return content


def check_strings(content: Any, seen: set[int] | None = None) -> None:
    """Refuse bombs in the strings of a content: the parser of settings takes some of them for YAML again.

    Args:
        content: of a bounded text, or a word of the command line.
        seen: ids of parts that have been checked; aliases of one string are the same object, and are read once.

    Raises:
        TooMuchError: a string is beyond the limits, if read as YAML.
    """
    seen = set() if seen is None else seen
    if id(content) in seen:
        return
    seen.add(id(content))
    if isinstance(content, str):
        if "&" in content and "*" in content:
            try:
                check_bounds(content)
            except TooMuchError:
                raise
            except yaml.YAMLError:  # just a string
                pass
    elif isinstance(content, dict):
        for key, value in content.items():
            check_strings(key, seen)
            check_strings(value, seen)
    elif isinstance(content, list):
        for value in content:
            check_strings(value, seen)


def check_bounds(text: str | bytes) -> None:
    """Refuse a text that is too large, too deeply nested, or stands for too much.

    Raises:
        yaml.YAMLError: it is, or its syntax is wrong.
    """
    if len(text) > MAX_BYTES:
        raise TooMuchError(f"{len(text):,} bytes, of at most {MAX_BYTES:,}")
    try:
        _count(text)
    except (ValueError, RecursionError) as error:  # bytes that are no UTF-8
        raise yaml.YAMLError(" ".join(str(error).split())[:120]) from error


def _count(text: str | bytes) -> None:
    """Count what a text stands for, from its events: nothing is built."""
    sizes: dict[str, int] = {}  # anchor -> nodes that an alias to it stands for
    open_: list[tuple[str | None, int]] = []  # of each open mapping or list: its anchor, and nodes counted before it
    count = 0
    for event in yaml.parse(text, Loader=LOADER):
        if isinstance(event, yaml.CollectionStartEvent):
            _check_tag(event.tag)
            open_.append((event.anchor, count))
            count += 1
            if len(open_) > MAX_DEPTH:
                raise TooMuchError(f"nested more than {MAX_DEPTH} levels deep")
        elif isinstance(event, yaml.CollectionEndEvent):
            anchor, before = open_.pop()
            if anchor is not None:
                sizes[anchor] = count - before
        elif isinstance(event, yaml.ScalarEvent):
            _check_tag(event.tag)
            count += 1
            if event.implicit[0] and len(event.value) > MAX_WORD and len(event.value.split(None, 1)) == 1:
                raise TooMuchError(f"a value of {len(event.value):,} characters without quotes")
            if event.anchor is not None:
                sizes[event.anchor] = 1
        elif isinstance(event, yaml.AliasEvent):
            if event.anchor in {anchor for anchor, _ in open_}:
                raise TooMuchError(f"alias *{event.anchor} stands inside what it stands for")
            count += sizes.get(str(event.anchor), 1)
        if count > MAX_NODES:
            raise TooMuchError(f"stands for more than {MAX_NODES:,} values")


def _check_tag(tag: str | None) -> None:
    if tag is not None and tag not in PLAIN and tag != "!":
        raise TooMuchError(f"the tag {tag} asks for an object, and settings are plain values")
