"""Episodes as a CSV file, so that others run exactly the same ones.

    # benchmark ISAID5i, split val, protocol P1, fold 0, shots 2, base seed 0
    number,class_id,query,support_1,support_2
    0,1,P0003_0_256_0_256,P0161_206_462_0_256,P1397_0_256_412_668

Images go by their names in the split's list: without folder and suffix.
"""

import csv
import io
import logging
import re
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from frugalseg.data.base import first_five
from frugalseg.data.io import write_atomic
from frugalseg.data.lists import read_text_file
from frugalseg.errors import DatasetError, DatasetNotFoundError

log = logging.getLogger(__name__)

SEED = "{seed}"
"""Stands for the base seed in the name of a file."""

_FIRST = ["number", "class_id", "query"]
_EXPORT = "write it anew with: frugalseg episodes"


class EpisodeRow(NamedTuple):
    """An episode by the names of its images.

    Attributes:
        number: of the episode, unlike that of any other.
        class_id: value of the class in the (decoded) mask.
        query: name of the query.
        supports: names of the K supports.
    """

    number: int
    class_id: int
    query: str
    supports: tuple[str, ...]


def file_of(path: str | Path, seed: int) -> Path:
    """The file of one base seed.

    Args:
        path: may hold `{seed}`, once or more.
        seed: what takes its place.
    """
    return Path(str(path).replace(SEED, str(seed)))


def files_of(path: str | Path | None, seeds: int | Sequence[int]) -> dict[int, Path]:
    """The files of several base seeds.

    Args:
        path: may hold `{seed}`; None for no files. jsonargparse (4.53) hands a `null` of the command line to a class
            inside of another class as the text `None`, so that is no file either.
        seeds: one or more.

    Returns:
        Base seed -> file.
    """
    if path is None or str(path) == "None":
        return {}
    return {seed: file_of(path, seed) for seed in ([seeds] if isinstance(seeds, int) else seeds)}


def write_episodes(path: Path, rows: Sequence[EpisodeRow], about: str) -> None:
    """Write episodes, so that the file appears whole or not at all.

    Args:
        path: target; its folder is made.
        rows: at least one, all with the same number of supports.
        about: one line that says what they are episodes of.

    Raises:
        DiskFullError: there is no room; nothing is left behind.
    """
    text = io.StringIO()
    text.write(f"# {about}\n")
    table = csv.writer(text, lineterminator="\n")
    table.writerow(_header(len(rows[0].supports)))
    table.writerows([row.number, row.class_id, row.query, *row.supports] for row in rows)
    write_atomic(path, lambda stream: stream.write(text.getvalue().encode()))


def read_episodes(
    path: Path, shots: int, images: Collection[str], classes: Collection[int], where: str
) -> list[EpisodeRow]:
    """Read episodes. That their images show the class is not checked: it would cost reading every mask.

    Args:
        path: what `write_episodes` wrote, or a file of the same form.
        shots: K; of more supports the first K are taken.
        images: names of the split's images.
        classes: ids of the classes that may be tested.
        where: the split, for messages.

    Returns:
        The episodes in the file's order.

    Raises:
        DatasetNotFoundError: there is no such file.
        DatasetError: it has another form, fewer supports, a class that is not tested, an image that the split has not,
            a query among its own supports, or a number twice.
    """
    if not path.is_file():
        raise DatasetNotFoundError(f"{path}: no such file of episodes; mend recipe.episodes_file, or {_EXPORT}")
    lines = read_text_file(path).splitlines()
    start = next((n for n, line in enumerate(lines) if line.strip() and not line.startswith("#")), len(lines))
    rows: dict[int, EpisodeRow] = {}
    unknown: dict[str, int] = {}
    for line, row in _rows(path, lines, start, shots):
        here = f"{path}, line {line}"
        if row.number in rows:
            raise DatasetError(f"{here}: number {row.number} occurs a second time; number each episode differently")
        if row.class_id not in classes:
            tested = ", ".join(map(str, sorted(classes)))
            raise DatasetError(
                f"{here}: class {row.class_id} is not tested in {where}, but {tested}; set data.fold to the file's"
            )
        if row.query in row.supports:
            raise DatasetError(f"{here}: the query {row.query} is among its own supports; remove the line")
        rows[row.number] = row
        for name in (row.query, *row.supports):
            if name not in images:
                unknown.setdefault(name, line)
    if unknown:
        raise DatasetError(
            f"{path}, line {min(unknown.values())}: {len(unknown)} images of the file are not in {where}, first"
            f" {first_five(unknown)}; take the split and the tiles that the file was written for"
        )
    if not rows:
        raise DatasetError(f"{path}, line {len(lines)}: holds no episode; {_EXPORT}")
    about = "; ".join(line.lstrip("# ") for line in lines[:start] if line.strip())
    log.info("%s: %d episodes from %s (%s)", where, len(rows), path, about or "it does not say of what")
    return list(rows.values())


def _header(shots: int) -> list[str]:
    return [*_FIRST, *(f"support_{number}" for number in range(1, shots + 1))]


def _rows(path: Path, lines: Sequence[str], start: int, shots: int) -> Iterator[tuple[int, EpisodeRow]]:
    """Line numbers and episodes, of `shots` supports each; their form is right, their contents may be wrong."""
    table = csv.reader(lines[start:], strict=True, skipinitialspace=True)
    try:
        header = next(table, [])
        supports = len(header) - len(_FIRST)
        if supports < 1 or header != _header(supports):
            raise DatasetError(f"{path}, line {start + 1}: is not the header {','.join(_header(shots))}; {_EXPORT}")
        for cells in table:
            if not cells:
                continue
            here = f"{path}, line {start + table.line_num}"
            if len(cells) != len(header):
                raise DatasetError(f"{here}: has {len(cells)} values, the header {len(header)}; mend the line")
            if (found := sum(map(bool, cells[len(_FIRST) :]))) < shots:
                raise DatasetError(
                    f"{here}: has {found} supports, but recipe.shots is {shots}; lower recipe.shots, or {_EXPORT}"
                )
            if wrong := next((cell for cell in cells[:2] if not re.fullmatch(r"\d{1,18}", cell)), None):
                raise DatasetError(f"{here}: {wrong!r} is no whole number; mend the line, or {_EXPORT}")
            number, class_id, query, *names = cells
            yield start + table.line_num, EpisodeRow(int(number), int(class_id), query, tuple(names[:shots]))
    except csv.Error as error:
        raise DatasetError(f"{path}, line {start + table.line_num}: {error}; mend the line, or {_EXPORT}") from None
