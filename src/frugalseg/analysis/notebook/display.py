"""What a notebook shows: a table, a picture, or a line that says why there is neither."""

import html
import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import wraps
from typing import Any, ParamSpec, TypeVar

from PIL import Image as Pillow
from rich.table import Table as RichTable
from rich.text import Text

from frugalseg.analysis.few_shot_grid import Grid
from frugalseg.analysis.pictures import Picture
from frugalseg.errors import FrugalsegError

P = ParamSpec("P")
T = TypeVar("T")
_CELL = "padding:.2em .7em;border-bottom:1px solid #8884"


@dataclass(frozen=True)
class Note:
    """Why something is not shown, in one line.

    Attributes:
        text: plain.
    """

    text: str

    def __repr__(self) -> str:
        return f"not shown: {self.text}"

    def _repr_html_(self) -> str:
        return f"<p><em>{html.escape(repr(self))}</em></p>"


@dataclass(frozen=True)
class Sheet:
    """A table of text.

    Attributes:
        title: above it.
        columns: headings.
        rows: of as many cells.
        notes: lines below it.
        wordy: how many columns, from the left, hold words; the others hold numbers.
    """

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    notes: Sequence[str] = ()
    wordy: int = 1

    def __repr__(self) -> str:
        lines = [list(self.columns), *map(list, self.rows)]
        widths = [max(len(line[place]) for line in lines) for place in range(len(self.columns))]
        text = ["  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) for line in lines]
        return "\n".join([self.title, *(line.rstrip() for line in text), *self.notes])

    def _repr_html_(self) -> str:
        head = "".join(self._cell("th", place, text) for place, text in enumerate(self.columns))
        body = "".join(
            f"<tr>{''.join(self._cell('td', place, text) for place, text in enumerate(row))}</tr>" for row in self.rows
        )
        notes = "".join(f"<br><small>{html.escape(note)}</small>" for note in self.notes)
        caption = f"<caption style='text-align:left'><b>{html.escape(self.title)}</b>{notes}</caption>"
        return f"<table>{caption}<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"

    def _cell(self, tag: str, place: int, text: str) -> str:
        side = "left" if place < self.wordy else "right"
        # names and numbers stay whole; what is between them may take several lines
        space = "normal" if 0 < place < self.wordy else "nowrap"
        return f"<{tag} style='{_CELL};text-align:{side};white-space:{space}'>{html.escape(text)}</{tag}>"


def sheet_of(table: RichTable) -> Sheet:
    """A terminal's table for the notebook: the same cells."""
    rows = zip(*([_plain(cell) for cell in column.cells] for column in table.columns), strict=True)
    wordy = next((place for place, c in enumerate(table.columns) if c.justify == "right"), len(table.columns))
    notes = [_plain(table.caption)] if table.caption else []
    return Sheet(_plain(table.title or ""), [_plain(c.header) for c in table.columns], list(rows), notes, wordy)


def sheet_of_grid(grid: Grid) -> Sheet:
    """A few-shot table for the notebook."""
    return Sheet(grid.title, grid.columns, grid.rows, grid.notes)


def _plain(text: Any) -> str:
    return text.plain if isinstance(text, Text) else Text.from_markup(str(text)).plain


@dataclass(frozen=True)
class Plate:
    """A picture.

    Attributes:
        png: the file's bytes.
        text: what it shows, for those who do not see it.
    """

    png: bytes
    text: str

    def __repr__(self) -> str:
        return f"picture: {self.text}"

    def _repr_png_(self) -> bytes:
        return self.png


def plate_of(picture: Picture, text: str) -> Plate:
    """A picture for the notebook.

    Args:
        picture: (H, W, 3) uint8.
        text: what it shows.
    """
    file = io.BytesIO()
    Pillow.fromarray(picture).save(file, format="PNG")
    return Plate(file.getvalue(), text)


def shown(function: Callable[P, T]) -> Callable[P, T | Note]:
    """Turn what a user can mend into a note; what is given a note in place of its input shows that note again."""

    @wraps(function)
    def wrapped(*args: P.args, **kwargs: P.kwargs) -> T | Note:
        if before := [value for value in (*args, *kwargs.values()) if isinstance(value, Note)]:
            return before[0]
        try:
            return function(*args, **kwargs)
        except FrugalsegError as error:
            return Note(str(error))

    return wrapped
