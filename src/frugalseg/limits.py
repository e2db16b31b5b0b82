"""What files from elsewhere may ask for: packages whose classes settings may name, pixels of an image, nodes of a YAML.

`--allow` and `--max-pixels` are words of every command. `frugalseg.cli` takes them out with `take` before the command
sees its words: readers of images are plain functions in many places, so the limit is the process's, not an argument of
each. Processes that start from the command line read the words again, and workers get `carried()`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from frugalseg.errors import ConfigError

PACKAGES = ("frugalseg", "torch", "lightning", "albumentations")
"""Their classes may be named in settings without `--allow`."""
MAX_PIXELS = 500_000_000
"""Pixels of an image or mask: aerial scenes of 20,000 x 20,000 (DOTA, iSAID) pass, and decode to 1.5 GB."""
BEYOND = "more than --max-pixels {most}; raise that if the image is meant to be so large, else take it away"


@dataclass(frozen=True)
class Limits:
    """What holds in this process.

    Attributes:
        allowed: packages of `--allow`.
        max_pixels: largest height times width that is decoded.
        words: the words of the command line that said so, for provenance.
    """

    allowed: tuple[str, ...] = ()
    max_pixels: int = MAX_PIXELS
    words: tuple[str, ...] = ()


_now = Limits()


def now() -> Limits:
    """What holds in this process."""
    return _now


def use(limits: Limits) -> Limits:
    """Let other limits hold in this process; for workers, which get `now()` of the process that starts them.

    Returns:
        What held before.
    """
    global _now
    before, _now = _now, limits
    return before


def take(words: Sequence[str]) -> list[str]:
    """Take `--allow NAME[,NAME]` and `--max-pixels N` out of a command's words, and let them hold.

    Args:
        words: of one command; both may stand anywhere in it.

    Returns:
        The other words.

    Raises:
        ConfigError: a value is missing, no name of a package, or no number of pixels.
    """
    rest, given, values = list[str](), list[str](), dict[str, list[str]]({"--allow": [], "--max-pixels": []})
    coming = iter(words)
    for word in coming:
        name, equals, value = word.partition("=")
        if name not in values:
            rest.append(word)
            continue
        given.append(word)
        if not equals:
            value = next(coming, "")
            given.append(value)
        values[name].append(value)
    pixels = values["--max-pixels"][-1:]
    use(Limits(_packages(values["--allow"]), _pixels(pixels[0]) if pixels else MAX_PIXELS, tuple(given)))
    return rest


def _packages(values: Sequence[str]) -> tuple[str, ...]:
    """Names of packages of all `--allow`."""
    names = [name.strip() for value in values for name in value.split(",")]
    for name in names:
        if not is_dotted(name) or name.split(".")[0] == "jsonargparse":  # which decides what is imported
            raise ConfigError(f"--allow {name!r}: is no package that can be allowed; give names such as mylab.models")
    return tuple(dict.fromkeys(names))


def _pixels(value: str) -> int:
    if not (value.isascii() and value.isdecimal()) or len(value) > 15 or int(value) < 1:
        raise ConfigError(f"--max-pixels {value!r}: is no number of pixels; give height times width, such as 400000000")
    return int(value)


def is_dotted(name: str) -> bool:
    """Whether a text is a Python name, or several joined by dots."""
    return all(part.isidentifier() for part in name.split("."))


def permits(path: str) -> bool:
    """Whether settings may name a class.

    Args:
        path: dotted, `package.module.Class` or `package.module:Class`.
    """
    path = path.replace(":", ".")
    return any(path == name or path.startswith(f"{name}.") for name in (*PACKAGES, *_now.allowed))


def check_class_path(path: object, place: str) -> None:
    """Refuse to import from packages that nobody has named; to be called before anything is imported.

    Args:
        path: dotted path of a class; a name without dots is one of ours, and passes.
        place: file or key, for the message.

    Raises:
        ConfigError: it is of another package, or no text.
    """
    if not isinstance(path, str):
        raise ConfigError(f"{place}: a class_path must be a text such as frugalseg.data.VOC; mend it")
    if ("." in path or ":" in path) and not permits(path):
        raise ConfigError(refusal(path, place))


def refusal(path: str, place: str) -> str:
    """What to say of a class path that is not permitted.

    Args:
        path: as given.
        place: file or key.
    """
    path = path[:200]
    return (
        f"{place}: {path} is not of {', '.join(PACKAGES)}, so it was not imported; mend the class path, or if you trust"
        f" that package add --allow {path.replace(':', '.').split('.')[0] or 'NAME'}"
    )


def check_class_paths(content: Any, place: str, key: str = "") -> None:
    """Refuse what `check_class_path` refuses anywhere in nested settings.

    Args:
        content: what a YAML holds; it must be a tree of bounded depth, see `yaml_text`.
        place: the file, or the words that it came from.
        key: where in it, for the message.

    Raises:
        ConfigError: a class path is not permitted.
    """
    if isinstance(content, dict):
        for name, value in content.items():
            inner = f"{key}.{name}" if key else str(name)
            if name == "class_path" and value is not None:
                check_class_path(value, f"{place}: {inner}")
            else:
                check_class_paths(value, place, inner)
    elif isinstance(content, list):
        for number, value in enumerate(content):
            check_class_paths(value, place, f"{key}[{number}]")


def too_large(height: int, width: int) -> str | None:
    """Why an image is not decoded, or None where it may be.

    Args:
        height: pixels, from the header.
        width: pixels.
    """
    if height * width <= _now.max_pixels:
        return None
    return f"has {height}x{width} (HxW), {height * width:,} pixels, {BEYOND.format(most=_now.max_pixels)}"
