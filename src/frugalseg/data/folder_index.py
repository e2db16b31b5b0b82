"""The index of a user's folder: files, tags, classes and splits put together; needs neither torch nor Lightning."""

import logging
from dataclasses import dataclass, field
from pathlib import Path

from frugalseg.data.base import Sample
from frugalseg.data.codes import MaskCode
from frugalseg.data.folder_classes import Classes, classes_of, read_classes
from frugalseg.data.folder_files import Files, Layout, find_files
from frugalseg.data.folder_splits import choose
from frugalseg.data.folder_tags import Places, TagTable, match_tags, read_tag_table
from frugalseg.data.opening import open_image
from frugalseg.errors import DatasetError, ImageError

log = logging.getLogger(__name__)

Tags = list[tuple[int, ...] | None]


def read_words(layout: Layout, background: bool = True) -> tuple[Classes, TagTable | None]:
    """Read the files of classes and tags.

    Args:
        layout: where they are.
        background: whether id 0 is the background.

    Returns:
        The classes: those of their file, else the tags, sorted, else the background alone; and the tags.

    Raises:
        DatasetError: a file is wrong, or there are tags and no background.
    """
    table = read_tag_table(layout.tags) if layout.tags else None
    if table is not None and not background:
        raise DatasetError(
            f"{layout.tags}: tags need a background that none of them is about; set data.background to true, or"
            " data.tags_file to ''"
        )
    if layout.classes is not None:
        return read_classes(layout.classes, background), table
    if not background:
        raise DatasetError(
            f"{layout.root}: has no classes.txt, which data.background: false needs; name the classes in it"
        )
    return classes_of(table.tags if table else (), layout.tags or layout.root), table


@dataclass
class Index:
    """What a folder holds, found once and kept for all splits.

    Args:
        layout: where the parts are.
        classes: of the folder.
        table: the tags, where there are some.
    """

    layout: Layout
    classes: Classes
    table: TagTable | None
    files: Files = field(init=False)
    places: Places = field(init=False)
    tags: Tags = field(init=False)

    def __post_init__(self) -> None:
        """List images and masks.

        Raises:
            DatasetError: there are none, or masks or tags do not fit them.
        """
        layout = self.layout
        self.files = find_files(layout)
        self.places = Places(self.files, layout.prefix)
        count = len(self.files.names)
        if self.table is None or layout.tags is None:
            self.tags = [None] * count
        else:
            self.tags = match_tags(layout.tags, self.table, self.classes.table.names, self.places, count)
        if self.files.alone:
            log.warning(
                "%s: %d masks belong to no image, first %s", layout.masks, len(self.files.alone), self.files.alone[0]
            )

    def samples(self, split: str, val_share: float = 0.2, seed: int = 0) -> list[Sample]:
        """Samples of a split.

        Args:
            split: see `folder_splits.choose`.
            val_share: part of the images that val gets where nothing says which.
            seed: of that draw.

        Raises:
            DatasetNotFoundError: no such split.
            DatasetError: it is empty, or its list is wrong.
        """
        rows = choose(self.layout, self.files, self.places, self.tags, split, val_share, seed)
        return [self._sample(row) for row in rows]

    def every(self) -> list[Sample]:
        """Samples of all images, in the order of names, whatever lists say."""
        return [self._sample(row) for row in range(len(self.files.names))]

    def _sample(self, row: int) -> Sample:
        files, layout = self.files, self.layout
        mask = files.masks[row]
        # joined as text, as pathlib takes three times as long
        image = Path(f"{layout.images}/{files.names[row]}")
        code = self.classes.code
        return Sample(
            files.ids[row], image, None if mask is None else Path(f"{layout.masks}/{mask}"), self.tags[row], code
        )


def refuse_colours(samples: list[Sample], table: Path) -> None:
    """Refuse masks of colours without a table of them, by the first mask's header; others, when they are read.

    Args:
        samples: with or without masks.
        table: the file that would say what colours mean.

    Raises:
        DatasetError: the mask holds colours that nothing explains.
    """
    first = next((sample for sample in samples if sample.mask is not None), None)
    if first is None or first.mask is None or has_colours(first.code):
        return
    try:
        with open_image(first.mask) as mask:
            mode = mask.mode
    except (OSError, SyntaxError, ValueError, ImageError):
        return  # whoever reads it says what is wrong
    if mode in ("RGB", "RGBA"):
        raise DatasetError(
            f"{first.mask}: holds colours ({mode}) that nothing explains; write {table} with the header name,r,g,b and"
            " the colour of every class, or save masks as one class id per pixel"
        )


def has_colours(code: MaskCode | None) -> bool:
    """Whether colours in masks have a meaning."""
    return code is not None and code.colours is not None
