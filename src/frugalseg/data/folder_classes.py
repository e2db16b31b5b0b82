"""Classes of a user's folder: `classes.txt`, or a CSV that also has colours, or the tags that were found."""

import csv
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from frugalseg.batch import IGNORE_INDEX
from frugalseg.data.base import ClassTable, first_five
from frugalseg.data.codes import MaskCode
from frugalseg.data.lists import read_text_file
from frugalseg.errors import DatasetError
from frugalseg.ops.palette import voc_palette

BACKGROUND, IGNORED = "background", "ignore"
SEPARATORS = ";|,"
"""Between the tags of an image; no class name may hold one."""
MOST = 255
"""Class ids are 0 to 254; 255 is ignored."""
_RGB = ("r", "g", "b")


@dataclass(frozen=True, eq=False)
class Classes:
    """What a class file says.

    Attributes:
        table: names and colours.
        code: how colours in masks become class ids; None where the file has no colours.
    """

    table: ClassTable
    code: MaskCode | None = None


def read_classes(path: Path, background: bool = True) -> Classes:
    """Read the names of classes, and their colours where the file has them.

    Args:
        path: a `.txt` with one name a line, or a `.csv` with the header `name` or `name,r,g,b`.
        background: put the background in front where the file does not name it; without, id 0 is the first line's.

    Returns:
        Names in the file's order. A last row `ignore` of a file with colours is what counts nowhere (id 255).

    Raises:
        DatasetError: no names, one twice, too many, a wrong colour or header, or a background that is not first.
    """
    text = read_text_file(path)
    names, colours = (
        _rows(path, text) if path.suffix.lower() == ".csv" else ([s.strip() for s in text.splitlines()], None)
    )
    if colours is None:
        names = [name for name in names if name]
    ignored = None
    if colours is not None and names and names[-1].lower() == IGNORED:
        ignored, colours, names = colours[-1], colours[:-1], names[:-1]
    if background and (not names or names[0].lower() != BACKGROUND):
        names = [BACKGROUND, *names]
        colours = None if colours is None else [(0, 0, 0), *colours]
    _check(path, names, background)
    palette = voc_palette()
    if colours is None:
        return Classes(ClassTable(tuple(names), palette, background))
    known = [*colours, *([ignored] if ignored else [])]
    if len(set(known)) < len(known):
        double = next(colour for colour in known if known.count(colour) > 1)
        raise DatasetError(
            f"{path}: colour {double} stands for two classes (background is (0, 0, 0) where it has none)"
        )
    palette[: len(colours)] = colours
    if ignored:
        palette[IGNORE_INDEX] = ignored
    return Classes(ClassTable(tuple(names), palette, background), _code(path, colours, ignored))


def classes_of(tags: Iterable[str], path: Path) -> Classes:
    """Classes where no file names them: the tags that were found, sorted, behind the background.

    Args:
        tags: names, in any order and number.
        path: where they are from, for messages.

    Raises:
        DatasetError: too many.
    """
    names = (BACKGROUND, *sorted(set(tags)))
    if len(names) > 1:
        _check(path, names, background=True)
    return Classes(ClassTable(names, voc_palette()))


def _check(path: Path, names: Sequence[str], background: bool) -> None:
    least = 2 if background else 1
    if not least <= len(names) <= MOST:
        raise DatasetError(
            f"{path}: names {len(names) - background} classes; write 1 to {MOST - background} different ones"
            " (ids are 8 bits, 255 is ignored)"
        )
    if background and BACKGROUND in (name.lower() for name in names[1:]):
        raise DatasetError(f"{path}: {BACKGROUND} is id 0, so that its line must be the first one")
    if twice := [name for place, name in enumerate(names) if name in names[:place]]:
        raise DatasetError(f"{path}: names {first_five(twice)} more than once; keep one line each")
    if wrong := [name for name in names if not name or any(c in SEPARATORS or not c.isprintable() for c in name)]:
        raise DatasetError(f"{path}: {wrong[0]!r} is no class name: write one without {' '.join(SEPARATORS)}")


def _rows(path: Path, text: str) -> tuple[list[str], list[tuple[int, ...]] | None]:
    """Names and colours of a CSV; None where it has no colours."""
    try:
        header, *rows = [[cell.strip() for cell in row] for row in csv.reader(text.splitlines(), strict=True) if row]
    except (csv.Error, ValueError):
        raise DatasetError(f"{path}: is no CSV with a header; write name,r,g,b in its first line") from None
    columns = [cell.lower() for cell in header]
    if columns not in (["name"], ["name", *_RGB]):
        raise DatasetError(f"{path}: begins with {','.join(header)!r}; write name or name,r,g,b in its first line")
    if wrong := [row for row in rows if len(row) != len(columns)]:
        raise DatasetError(f"{path}: row {','.join(wrong[0])!r} has {len(wrong[0])} cells, the header {len(columns)}")
    if len(columns) == 1:
        return [row[0] for row in rows], None
    colours: list[tuple[int, ...]] = []
    for row in rows:
        if not all(cell.isascii() and cell.isdigit() and len(cell) <= 3 and int(cell) < 256 for cell in row[1:]):
            raise DatasetError(
                f"{path}: row {','.join(row)[:60]!r} has no colour; write r, g and b as numbers from 0 to 255"
            )
        colours.append(tuple(int(cell) for cell in row[1:]))
    return [row[0] for row in rows], colours


def _code(path: Path, colours: Sequence[tuple[int, ...]], ignored: tuple[int, ...] | None) -> MaskCode:
    ids, table = {number: number for number in range(len(colours))}, np.array(colours, np.uint8)
    ids[IGNORE_INDEX] = IGNORE_INDEX
    if ignored is None:
        return MaskCode.of(ids, table)
    if len(colours) == MOST:
        raise DatasetError(f"{path}: leaves no number for {IGNORED}; name at most {MOST - 1} classes with it")
    # colours get their row as number, and numbers of classes mean classes in masks of ids too: the last one is free
    rest = np.repeat(np.array([ignored], np.uint8), MOST - len(colours), axis=0)
    ids[MOST - 1] = IGNORE_INDEX
    table = np.concatenate([table, rest])
    return MaskCode.of(ids, table)
