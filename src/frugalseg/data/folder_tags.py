"""Image-level labels of a user's folder: `tags.csv`, with tags in each row or a column of 0 and 1 for each class."""

import csv
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cached_property
from pathlib import Path

from frugalseg.data.base import first_five
from frugalseg.data.folder_classes import BACKGROUND, SEPARATORS
from frugalseg.data.folder_files import Files
from frugalseg.data.lists import read_text_file
from frugalseg.errors import DatasetError

IMAGE_COLUMN = frozenset({"image", "id", "path", "file", "filename", "name"})
"""What the first column may be called; it tells a header from a row."""
TAGS_COLUMN = frozenset({"tags", "tag", "labels", "label", "classes", "class"})
"""What the second one may be called where each row lists its tags."""
_SPLIT = re.compile(f"[{re.escape(SEPARATORS)}]")
_DELIMITERS = ",;\t"

TagNames = Mapping[str, tuple[str, ...]]
"""Name of an image as it is written -> its tags, sorted."""


@dataclass(frozen=True)
class TagTable:
    """What a file of tags says.

    Attributes:
        rows: image as it is written -> tags.
        named: classes that the header names, where each has a column; else none.
    """

    rows: TagNames
    named: tuple[str, ...] = ()

    @property
    def tags(self) -> set[str]:
        """All tags: those of the header, else those of the rows."""
        # rows with the same tags share one tuple, so that few are looked at
        return set(self.named) or {tag for tags in set(self.rows.values()) for tag in tags}


def read_tag_table(path: Path) -> TagTable:
    """Read a file of tags.

    Args:
        path: a CSV in UTF-8 with commas, semicolons or tabs. Its header is `image,tags`, and each row has an image and
            its tags, in cells of their own or separated by `;`, `|` or `,`; or `image` and the names of all classes,
            and each row has an image and a 0 or 1 for every class. No tags: the image shows none of the classes.

    Raises:
        DatasetError: no header, a row of another form, or an image that occurs twice.
    """
    lines = read_text_file(path).splitlines()
    rows = _rows(path, lines)
    header = [cell.strip() for cell in next(rows, (1, [""]))[1]]
    if len(header) < 2 or header[0].lower() not in IMAGE_COLUMN:
        raise DatasetError(
            f"{path}: has no header: its first line is {(lines[0] if lines else '')[:60]!r}; write image,tags there, or"
            " image and the name of every class"
        )
    if len(header) == 2 and header[1].lower() in TAGS_COLUMN:
        return TagTable(_listed(path, rows))
    return TagTable(_columns(path, header[1:], rows), tuple(header[1:]))


def _rows(path: Path, lines: Sequence[str]) -> Iterator[tuple[int, list[str]]]:
    """Numbered rows with the header, one by one, since all at once take much memory; blank ones are left out."""
    # the comma where there is none of them
    reader = csv.reader(lines, delimiter=max(_DELIMITERS, key=lines[0].count) if lines else ",", strict=True)
    try:
        for row in reader:
            if any(map(str.strip, row)):
                yield reader.line_num, row
    except csv.Error as error:
        raise DatasetError(f"{path}: line {reader.line_num} is no CSV ({error}); mend its quotes") from None


def _listed(path: Path, rows: Iterable[tuple[int, list[str]]]) -> TagNames:
    """Tags in each row."""
    found: dict[str, tuple[str, ...]] = {}
    known: dict[tuple[str, ...], tuple[str, ...]] = {}  # of as many rows as there are, few differ
    for line, (name, *cells) in rows:
        if not cells:
            raise DatasetError(f"{path}: line {line}, {name!r}, has no tags; write {name}, if it shows no class")
        written = tuple(cells)
        if (tags := known.get(written)) is None:
            parts = (tag.strip() for cell in cells for tag in _SPLIT.split(cell))
            tags = known[written] = tuple(sorted({tag for tag in parts if tag}))
        _add(path, line, found, name, tags)
    return found


def _columns(path: Path, names: Sequence[str], rows: Iterable[tuple[int, list[str]]]) -> TagNames:
    """A column for each class."""
    if wrong := [name for name, count in Counter(names).items() if count > 1 or not name]:
        raise DatasetError(f"{path}: the header has {wrong[0]!r} more than once, or empty; name every class once")
    found: dict[str, tuple[str, ...]] = {}
    known: dict[tuple[str, ...], tuple[str, ...]] = {}
    for line, (name, *cells) in rows:
        written = tuple(map(str.strip, cells))
        if (tags := known.get(written)) is None:
            if len(written) != len(names) or not set(written) <= {"0", "1"}:
                raise DatasetError(
                    f"{path}: line {line}, {name!r}, has {len(written)} cells for {len(names)} classes, or others than"
                    " 0 and 1; write a 0 or 1 for every class (or the header image,tags, and tags in each row)"
                )
            tags = known[written] = tuple(sorted(n for n, cell in zip(names, written, strict=True) if cell == "1"))
        _add(path, line, found, name, tags)
    return found


def _add(path: Path, line: int, found: dict[str, tuple[str, ...]], name: str, tags: tuple[str, ...]) -> None:
    key = plain(name)
    if not key:
        raise DatasetError(f"{path}: line {line} names no image; write its path in the first column")
    if key in found:
        raise DatasetError(f"{path}: line {line} is about {key!r} again; write all tags of an image in one row")
    found[key] = tags


def plain(name: str) -> str:
    """A path as we write it: slashes, no `./` in front."""
    return name.strip().replace("\\", "/").removeprefix("./")


class Places:
    """Where an image is among all: by its path with or without suffix, below the root or below `images`, or by its id.

    Args:
        files: the images.
        prefix: `Layout.prefix`.
    """

    def __init__(self, files: Files, prefix: str) -> None:
        self._files, self._prefix = files, prefix
        self._names = {name: place for place, name in enumerate(files.names)}

    @cached_property
    def _others(self) -> dict[str, int]:
        """Names without suffix, and ids: made when they are asked for, since most files of tags have whole names."""
        found: dict[str, int] = {}
        for place, name in enumerate(self._files.names):  # a path goes before an id that reads like one
            found.setdefault(name.rpartition(".")[0], place)
        for place, name in enumerate(self._files.ids):
            found.setdefault(name, place)
        return found

    def get(self, name: str) -> int | None:
        """Place of an image; None where there is no such image.

        Args:
            name: as `plain` gives it.
        """
        found = self._names.get(name)
        if found is None and self._prefix and name.startswith(self._prefix):
            found = self._names.get(name[len(self._prefix) :])
        if found is None:
            found = self._others.get(name)
        if found is None and self._prefix and name.startswith(self._prefix):
            found = self._others.get(name[len(self._prefix) :])
        return found


def match_tags(
    path: Path, table: TagTable, names: Sequence[str], places: Places, count: int
) -> list[tuple[int, ...] | None]:
    """Tags of every image as class numbers.

    Args:
        path: the file, for messages.
        table: what it says.
        names: of the classes, background first.
        places: of the images.
        count: number of images.

    Returns:
        Per image its sorted 0-based foreground classes; None where the file has no row for it.

    Raises:
        DatasetError: a row about no image, two about one, or a tag that is no class.
    """
    numbers = {name: number for number, name in enumerate(names[1:])}
    if unknown := sorted(table.tags - set(numbers)):
        raise DatasetError(f"{path}: {_about_tags(unknown, names)}")
    known = {tags: tuple(sorted(numbers[tag] for tag in tags)) for tags in set(table.rows.values())}
    rows = {name: places.get(name) for name in table.rows}
    if absent := [name for name, place in rows.items() if place is None]:
        raise DatasetError(
            f"{path}: {len(absent)} of {len(rows)} rows are about images that are not there, first"
            f" {first_five(absent)}; write their paths below data.root or data.image_dir, or remove the rows"
        )
    found: list[tuple[int, ...] | None] = [None] * count
    for name, place in rows.items():
        if place is not None and found[place] is not None:
            raise DatasetError(f"{path}: {name} is about an image that another row names too; keep one of them")
        if place is not None:
            found[place] = known[table.rows[name]]
    return found


def _about_tags(unknown: Sequence[str], names: Sequence[str]) -> str:
    what = f"{len(unknown)} tags are no class, first {first_five(unknown)}"
    if BACKGROUND in map(str.lower, unknown):
        return f"{what}; {BACKGROUND} is in every image and no tag: take it out"
    lower = {name.lower(): name for name in names[1:]}
    near = get_close_matches(unknown[0].lower(), list(lower), 1)
    told = f"; is {unknown[0]!r} {lower[near[0]]!r}?" if near else ";"
    return f"{what}{told} Mend them, or add them to the file of classes ({', '.join(names[1:6])}, ...)"
