"""The work of `frugalseg segment`: images in, masks, overlays and areas out."""

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from frugalseg.commands.segment_inputs import Photo
from frugalseg.commands.segment_overlay import draw
from frugalseg.commands.segment_record import MASKS, OVERLAYS, Record, areas, state_of
from frugalseg.data.io import image_size, read_image, write_atomic, write_mask
from frugalseg.errors import ConfigError, ImageError
from frugalseg.limits import too_large
from frugalseg.predictor import windows_raster
from frugalseg.predictor.windows import ArraySource, Pixels, Source, Windows, bands, decimated, shrunk, sliding_mask
from frugalseg.predictor.windows_partial import PartialMask
from frugalseg.run import digest_of

WHOLE = 2048 * 2048
"""Pixels of the largest image that goes through the net whole where no window is asked for."""
WINDOW, OVERLAP = 512, 64
"""Of larger ones, in pixels."""
PREVIEW = 2048
"""Longer side of the largest overlay."""
QUALITY = 90
"""Of overlays, which are JPEGs."""

Net = Callable[[Sequence[Photo], list[Pixels]], Sequence[Pixels]]
"""Images and their pixels (H, W, 3) of one size -> masks (H, W)."""
Report = Callable[[int, int], None]


@dataclass(frozen=True)
class Plan:
    """How images are passed through the net.

    Args:
        window: side of the sliding window; None for `WINDOW` where an image has more than `WHOLE` pixels.
        overlap: pixels that windows share.
        align: sides that the net takes.
        slides: whether the net may look at parts: what needs the whole image to judge gets it.
        batch_size: images, or windows, that go through together.
    """

    window: int | None = None
    overlap: int = OVERLAP
    align: int = 1
    slides: bool = True
    batch_size: int = 1

    def windows(self, height: int, width: int) -> Windows:
        """The windows of an image; a single one where it goes through whole."""
        whole = height * width <= WHOLE if self.window is None else max(height, width) <= self.window
        if whole or not self.slides:
            return Windows(max(height, width, self.align), 0, self.align)
        return self.sliding()

    def sliding(self) -> Windows:
        """The windows of an image that does not go through whole.

        Raises:
            ConfigError: the net does not take such windows.
        """
        return Windows(self.window or WINDOW, self.overlap, self.align)


@dataclass
class Worker:
    """Segments images and writes what is asked for.

    Args:
        net: gives masks.
        plan: how.
        record: the folder.
        palette: (256, 3).
        bare: whether class 0 is background, which is not tinted in overlays.
        overlays: whether they are written.
        of_rows: makes what is told of the rows of windows of a large image, from its name.
    """

    net: Net
    plan: Plan
    record: Record
    palette: NDArray[np.uint8]
    bare: bool
    overlays: bool
    of_rows: Callable[[str], Report]
    _states: dict[Photo, dict[str, Any]] = field(default_factory=dict, init=False, repr=False)

    def run(self, photos: Sequence[Photo], report: Report) -> int:
        """Segment all images; those that cannot be read are noted in the record, and the others done.

        Args:
            photos: the images.
            report: told the number of images that are through, and of all.

        Returns:
            How many images were done before.
        """
        before = {photo.id for photo in photos if self.record.done(photo, self.overlays)}
        through = 0
        for group in self._groups(photos):
            if left := [photo for photo in group if photo.id not in before]:
                self._batch(group, left)
            through += len(group)
            report(through, len(photos))
        return len(before)

    def _groups(self, photos: Sequence[Photo]) -> Iterator[list[Photo]]:
        """Images of one size that go through together.

        Those that are done keep their places, so that a run that goes on makes the batches of one that was not stopped.
        """
        waiting = defaultdict[tuple[int, int], list[Photo]](list)
        for photo in photos:
            size = self._size(photo)
            if size is None:
                yield [photo]
                continue
            waiting[size].append(photo)
            if len(waiting[size]) == self.plan.batch_size:
                yield waiting.pop(size)
        yield from waiting.values()

    def _size(self, photo: Photo) -> tuple[int, int] | None:
        """(H, W) of an image that may share a batch; None of one that goes through alone."""
        if self.plan.batch_size == 1 or _by_parts(photo):
            return None
        try:
            size = self.record.size(photo) if self.record.done(photo, False) else image_size(photo.path)
        except ImageError:
            return None  # reading it will say what is wrong
        return size if self.plan.windows(*size).count(*size) == 1 else None

    def _batch(self, group: list[Photo], left: list[Photo]) -> None:
        if _by_parts(group[0]):
            self._guarded(group[0], self._raster)
            return
        found = {photo: pixels for photo in group if (pixels := self._guarded(photo, _read)) is not None}
        if len({pixels.shape for pixels in found.values()}) != 1:  # none, or a file changed since its header was read
            groups = [[photo] for photo in found]
        else:
            groups = [list(found)]
        for photos in groups:
            for photo, ids in zip(photos, self._masks(photos, [found[photo] for photo in photos]), strict=True):
                if photo in left:
                    self._write(photo, ArraySource(found[photo]), ids)

    def _guarded(self, photo: Photo, work: Callable[[Photo], Any]) -> Any:
        """What `work` makes of an image; None where something is wrong with it, which is noted."""
        try:
            self._states[photo] = _state(photo)
            return work(photo)
        except ImageError as error:
            self.record.fail(photo, str(error))
            return None

    def _masks(self, photos: list[Photo], pixels: list[Pixels]) -> Sequence[Pixels]:
        """Masks of images of one size in main memory."""
        height, width = pixels[0].shape[:2]
        windows = self.plan.windows(height, width)
        if windows.count(height, width) == 1:
            return self._ask(photos, pixels)
        answer = self._answer(photos[0])
        return [sliding_mask(ArraySource(each), answer, windows, self.plan.batch_size) for each in pixels]

    def _answer(self, photo: Photo) -> Callable[[list[Pixels]], Sequence[Pixels]]:
        return lambda parts: self._ask([photo] * len(parts), parts)

    def _ask(self, photos: Sequence[Photo], pixels: list[Pixels]) -> Sequence[Pixels]:
        """What the net makes of images of one size.

        Raises:
            ConfigError: they do not fit into the device's memory.
        """
        try:
            return self.net(photos, pixels)
        except torch.OutOfMemoryError:
            raise ConfigError(
                f"{photos[0].path}: does not fit into the device's memory with {len(photos)} at once; give a smaller"
                " --batch-size or --window"
            ) from None

    def _raster(self, photo: Photo) -> None:
        """Segment a TIFF by parts; its rows are kept on disk until all are there."""
        with windows_raster.RasterSource(photo.path) as source:
            size = (source.height, source.width)
            windows = self.plan.windows(*size)
            if reason := too_large(*(min(side, windows.size) for side in size)):
                raise ImageError(f"{photo.path}: is read in windows, and one of them {reason}, or a smaller --window")
            path = self._place(MASKS, photo, ".tif")
            status = photo.path.stat()
            token = digest_of([self.record.digest, str(photo.path), status.st_size, status.st_mtime_ns])
            partial = PartialMask(path, size, windows, token)
            rows, report = len(windows.cuts(source.height)), self.of_rows(photo.id)
            try:
                made = bands(source, self._answer(photo), windows, self.plan.batch_size, partial.first)
                for number, (_, band) in enumerate(made, start=partial.first + 1):
                    partial.append(band)
                    report(number, rows)
                windows_raster.write_raster_mask(path, partial.ids(), self.palette, source, self.record.digest)
                self._write(photo, source, partial.ids(), path)
            except ImageError:
                partial.remove()  # a file that was fetched again is another one
                raise
            partial.remove()

    def _write(self, photo: Photo, source: Source, ids: Pixels, mask: Path | None = None) -> None:
        """Write what is still to be written of one image, and note it."""
        size = (source.height, source.width)
        counts = sum((np.bincount(row, minlength=256) for row in ids), np.zeros(256, dtype=np.int64))
        if mask is None:
            mask = self._place(MASKS, photo, ".png")
            write_mask(mask, ids, self.palette, self.record.digest)
        drawn = self._place(OVERLAYS, photo, ".jpg") if self.overlays else None
        if drawn is not None:
            small = shrunk(*size, PREVIEW)
            labels = [
                (area["id"], f"{area['class']} {100 * area['share']:.1f} %")
                for area in areas(counts, self.record.model["class_names"])
            ]
            picture = draw(source.preview(small), decimated(ids, small), self.palette, labels, self.bare)
            write_atomic(drawn, lambda stream: Image.fromarray(picture).save(stream, format="JPEG", quality=QUALITY))
        below = [None if path is None else path.relative_to(self.record.out).as_posix() for path in (mask, drawn)]
        self.record.add(
            photo, self._states.pop(photo), size, counts, str(below[0]), below[1], self.plan.windows(*size).count(*size)
        )

    def _place(self, folder: str, photo: Photo, suffix: str) -> Path:
        return self.record.out / folder / f"{photo.id}{suffix}"


def _state(photo: Photo) -> dict[str, Any]:
    """The file before it is read.

    Raises:
        ImageError: it is not there.
    """
    try:
        return state_of(photo)
    except OSError as error:
        raise ImageError(f"{photo.path}: {error.strerror or error}; restore it, or take it away") from None


def _by_parts(photo: Photo) -> bool:
    return photo.is_tiff and windows_raster.available()


def _read(photo: Photo) -> Pixels:
    """RGB of an image in main memory.

    Raises:
        ImageError: it cannot be read.
    """
    try:
        return read_image(photo.path)
    except ImageError as error:
        if not photo.is_tiff:
            raise
        raise ImageError(f"{error}; or read it by parts: pip install 'frugalseg[rasters]'") from None
