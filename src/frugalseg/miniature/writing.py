"""Writing a world to disk in VOC's layout so that an interrupted writer can simply be started again.

Every file appears under its name only when it is complete. `world.unfinished.json` is the first file and names the
world that is being written; `world.json` is the last one and means that the world is complete.
"""

import hashlib
import io
import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from frugalseg.errors import ConfigError, DatasetError
from frugalseg.ops.palette import voc_palette

GENERATOR_VERSION: Final = 1  # raise it whenever the same seed no longer gives the same files
DONE_MARK: Final = "world.json"
STARTED_MARK: Final = "world.unfinished.json"

Progress = Callable[[int, int], None]
Box = tuple[int, int, int, int]
_YEARS: Final = {"train": "2012", "val": "2011"}  # two years keep the ids of the splits apart


@dataclass(frozen=True)
class Plan:
    """A world to be written.

    Attributes:
        facts: What the world is, as JSON values; two worlds with equal facts are the same world.
        class_names: Content of `ImageSets/classes.txt`, background first.
        images: Number of pictures per split: `train` and `val`.
        folders: The files of a picture, as {folder: suffix}.
        make: (split, index) -> {folder: bytes}, one entry for each of `folders`.
    """

    facts: Mapping[str, object]
    class_names: Sequence[str]
    images: Mapping[str, int]
    folders: Mapping[str, str]
    make: Callable[[str, int], Mapping[str, bytes]]

    def __post_init__(self) -> None:
        """Refuses sizes and counts with which no world can be made."""
        smallest = {"size": 64, "seed": 0, "images_train": 1, "images_val": 1}
        for key, least in smallest.items():
            value = self.facts[key]
            if not isinstance(value, int) or value < least:
                raise ConfigError(f"{key} of a miniature world is {value}: use a whole number from {least} upward")


def picture_id(split: str, index: int) -> str:
    """Name of a picture, in the style of VOC's: `2012_000001`; `index` counts from 0."""
    return f"{_YEARS[split]}_{index + 1:06d}"


def write_plan(root: Path, plan: Plan, progress: Progress | None = None) -> Path:
    """Writes what is missing of a world.

    Args:
        root: Folder of the world; new, empty, or holding the same world, complete or not.
        plan: The world.
        progress: Called as `progress(done, total)` after every picture.

    Returns:
        `root`.

    Raises:
        DatasetError: `root` holds another world or something else.
    """
    facts = json.loads(json.dumps({"generator_version": GENERATOR_VERSION, **plan.facts}))
    _claim(root, facts)
    total, done = sum(plan.images.values()), 0
    paths: list[Path] = []
    for split, count in plan.images.items():
        for index in range(count):
            paths += _write_picture(root, plan, split, index)
            done += 1
            if progress is not None:
                progress(done, total)
    paths += _write_lists(root, plan)
    _write_json(root / DONE_MARK, {**facts, "digest": _digest(root, paths)})
    (root / STARTED_MARK).unlink(missing_ok=True)
    return root


def _claim(root: Path, facts: Mapping[str, object]) -> None:
    """Makes sure that the folder is free or holds this very world, and says so on disk."""
    marks = [root / name for name in (DONE_MARK, STARTED_MARK) if (root / name).is_file()]
    for mark in marks:
        found = json.loads(mark.read_text(encoding="utf-8"))
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


def _write_picture(root: Path, plan: Plan, split: str, index: int) -> list[Path]:
    name = picture_id(split, index)
    paths = {folder: root / folder / f"{name}{suffix}" for folder, suffix in plan.folders.items()}
    if not all(path.is_file() for path in paths.values()):
        for folder, content in plan.make(split, index).items():
            write_atomic(paths[folder], content)
    return list(paths.values())


def _write_lists(root: Path, plan: Plan) -> list[Path]:
    ids = {split: [picture_id(split, index) for index in range(count)] for split, count in plan.images.items()}
    lists = {**ids, "trainaug": ids["train"], "trainval": sorted(ids["train"] + ids["val"])}
    texts = {root / "ImageSets" / "Segmentation" / f"{name}.txt": lines for name, lines in lists.items()}
    texts[root / "ImageSets" / "classes.txt"] = list(plan.class_names)
    for path, lines in texts.items():
        write_atomic(path, "".join(f"{line}\n" for line in lines).encode())
    return list(texts)


def _digest(root: Path, paths: Sequence[Path]) -> str:
    """SHA-256 over names and contents of all files; differs where another libjpeg or zlib wrote them."""
    total = hashlib.sha256()
    for path in sorted(paths):
        total.update(path.relative_to(root).as_posix().encode())
        total.update(hashlib.sha256(path.read_bytes()).digest())
    return total.hexdigest()


def _write_json(path: Path, content: Mapping[str, object]) -> None:
    write_atomic(path, (json.dumps(content, indent=2) + "\n").encode())


def write_atomic(path: Path, content: bytes) -> None:
    """Writes a file that is either absent (or old) or complete; makes its folder.

    `frugalseg.data.io` has the same, but importing it imports torch, which a generator should not wait for.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    # The process id keeps two writers of the same world apart; the dot hides what a killed writer leaves.
    draft = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        draft.write_bytes(content)
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)


def encode_jpeg(image: NDArray[np.uint8]) -> bytes:
    """RGB as JPEG without chroma subsampling, which would wash out textures of 5 pixels."""
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "JPEG", quality=95, subsampling=0)
    return buffer.getvalue()


@cache
def _palette_bytes() -> bytes:
    return voc_palette().tobytes()


def encode_png(values: NDArray[np.uint8], *, palette: bool) -> bytes:
    """Ids as PNG: mode P with VOC's colours, or mode L."""
    picture = Image.fromarray(values)
    if palette:
        picture.putpalette(_palette_bytes())
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    return buffer.getvalue()


def bounding_box(region: NDArray[np.bool_]) -> Box:
    """VOC's xmin, ymin, xmax, ymax of a region that is not empty: counted from 1, both ends inside."""
    rows, columns = np.flatnonzero(region.any(axis=1)), np.flatnonzero(region.any(axis=0))
    return int(columns[0]) + 1, int(rows[0]) + 1, int(columns[-1]) + 1, int(rows[-1]) + 1


def annotation_xml(name: str, size: int, objects: Sequence[tuple[str, Box]], *, segmented: bool) -> bytes:
    """An annotation in VOC's form; class names need no escaping because generators use plain words."""
    lines = [
        "<annotation>",
        "\t<folder>VOC2012</folder>",
        f"\t<filename>{name}.jpg</filename>",
        "\t<source><database>frugalseg miniature</database></source>",
        f"\t<size><width>{size}</width><height>{size}</height><depth>3</depth></size>",
        f"\t<segmented>{int(segmented)}</segmented>",
    ]
    for label, box in objects:
        corners = "".join(f"<{tag}>{at}</{tag}>" for tag, at in zip(("xmin", "ymin", "xmax", "ymax"), box, strict=True))
        lines += [
            "\t<object>",
            f"\t\t<name>{label}</name>",
            "\t\t<pose>Unspecified</pose>",
            "\t\t<truncated>0</truncated>",
            "\t\t<difficult>0</difficult>",
            f"\t\t<bndbox>{corners}</bndbox>",
            "\t</object>",
        ]
    return ("\n".join([*lines, "</annotation>"]) + "\n").encode()
