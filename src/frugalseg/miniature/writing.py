"""Writing a world to disk so that an interrupted writer can simply be started again.

Every file appears under its name only when it is complete. `world.unfinished.json` is the first file and names the
world that is being written; `world.json` is the last one and means that the world is complete.
"""

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from frugalseg.data import io
from frugalseg.data.parallel import Progress
from frugalseg.errors import ConfigError, DatasetError

GENERATOR_VERSION: Final = 1  # raise it whenever the same seed no longer gives the same files
DONE_MARK: Final = "world.json"
STARTED_MARK: Final = "world.unfinished.json"


@dataclass(frozen=True)
class World:
    """A world to be written, in any layout; all paths are relative to its root, with `/`.

    Attributes:
        facts: What the world is, as JSON values; two worlds with equal facts are the same world. Holds at least
            `world` (its kind), `seed` and `size`.
        images: Number of pictures per split.
        paths: (split, index) -> the files of a picture, known without drawing it; `index` counts from 0.
        make: (split, index) -> {path: content}, one entry for each of `paths`.
        extras: Gives {path: content} of what is written after the pictures: lists and annotations.

    Raises:
        ConfigError: With these sizes and counts no world can be made.
    """

    facts: Mapping[str, object]
    images: Mapping[str, int]
    paths: Callable[[str, int], Sequence[str]]
    make: Callable[[str, int], Mapping[str, bytes]]
    extras: Callable[[], Mapping[str, bytes]]

    def __post_init__(self) -> None:
        """Refuses sizes and counts with which no world can be made."""
        counts = {f"images_{split}": (count, 1) for split, count in self.images.items()}
        numbers = {"size": (self.facts["size"], 64), "seed": (self.facts["seed"], 0), **counts}
        for key, (value, least) in numbers.items():
            if not isinstance(value, int) or value < least:
                raise ConfigError(f"{key} of a miniature world is {value}: use a whole number from {least} upward")


def facts_of(world: str, seed: int, size: int, images: Mapping[str, int], **more: object) -> dict[str, object]:
    """What every world says of itself.

    Args:
        world: Its kind.
        seed: Seed of everything.
        size: Side in pixels.
        images: Pictures for `train` and `val`.
        **more: What this kind of world says besides.

    Returns:
        `World.facts`.
    """
    counts = {f"images_{split}": count for split, count in images.items()}
    return {"world": world, "seed": seed, "size": size, **counts, **more}


def write_world(root: Path, world: World, progress: Progress | None = None) -> Path:
    """Writes what is missing of a world.

    Args:
        root: Folder of the world; new, empty, or holding the same world, complete or not.
        world: The world.
        progress: Called as `progress(done, total)` after every picture.

    Returns:
        `root`.

    Raises:
        DatasetError: `root` holds another world or something else.
    """
    facts = json.loads(json.dumps({"generator_version": GENERATOR_VERSION, **world.facts}))
    _claim(root, facts)
    total, done = sum(world.images.values()), 0
    paths: list[str] = []
    for split, count in world.images.items():
        for index in range(count):
            paths += _write_picture(root, world, split, index)
            done += 1
            if progress is not None:
                progress(done, total)
    paths += _write_files(root, world.extras())
    _write_json(root / DONE_MARK, {**facts, "digest": _digest(root, paths)})
    (root / STARTED_MARK).unlink(missing_ok=True)
    return root


def _claim(root: Path, facts: Mapping[str, object]) -> None:
    """Makes sure that the folder is free or holds this very world, and says so on disk."""
    marks = [root / name for name in (DONE_MARK, STARTED_MARK) if (root / name).is_file()]
    for mark in marks:
        try:
            found = json.loads(mark.read_text(encoding="utf-8"))
        except ValueError:
            raise DatasetError(f"{mark} is damaged: remove the folder of this world and write it again") from None
        found.pop("digest", None)
        differing = sorted(key for key in facts.keys() | found.keys() if facts.get(key) != found.get(key))
        if differing:
            key = differing[0]
            raise DatasetError(
                f"{root} holds another world ({key} {found.get(key)}, not {facts.get(key)}):"
                " name another folder or remove this one"
            )
    if not marks and root.exists() and any(not entry.name.startswith(".") for entry in root.iterdir()):
        raise DatasetError(f"{root} holds files that are no miniature world: name a new folder")
    if not marks:
        _write_json(root / STARTED_MARK, facts)


def _write_picture(root: Path, world: World, split: str, index: int) -> Sequence[str]:
    paths = world.paths(split, index)
    if not all((root / path).is_file() for path in paths):
        _write_files(root, world.make(split, index))
    return paths


def _write_files(root: Path, files: Mapping[str, bytes]) -> Sequence[str]:
    for path, content in files.items():
        write_atomic(root / path, content)
    return list(files)


def _digest(root: Path, paths: Iterable[str]) -> str:
    """SHA-256 over names and contents of all files; differs where another libjpeg or zlib wrote them."""
    total = hashlib.sha256()
    for path in sorted(root / path for path in paths):
        total.update(path.relative_to(root).as_posix().encode())
        total.update(hashlib.sha256(path.read_bytes()).digest())
    return total.hexdigest()


def _write_json(path: Path, content: Mapping[str, object]) -> None:
    write_atomic(path, (json.dumps(content, indent=2) + "\n").encode())


def write_atomic(path: Path, content: bytes) -> None:
    """Writes a file that is either absent (or old) or complete; makes its folder.

    Raises:
        DiskFullError: There is no room.
    """
    io.write_atomic(path, lambda stream: stream.write(content))
