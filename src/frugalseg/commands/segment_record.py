"""What `frugalseg segment` keeps: `segment.json`, how masks were made, and `areas.json`, what is in them."""

import shutil
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from frugalseg.batch import IGNORE_INDEX
from frugalseg.commands.segment_inputs import Photo
from frugalseg.data.image_files import printable
from frugalseg.data.io import remove_leftovers
from frugalseg.errors import RunFolderError
from frugalseg.keeping import lock
from frugalseg.run import digest_of, read_json, write_json

RECORD, AREAS, MASKS, OVERLAYS = "segment.json", "areas.json", "masks", "overlays"
FORMAT = "frugalseg-segment-1"
EVERY = 5.0
"""Seconds between writes of `areas.json`, at least; what is younger when a process is killed is made again."""


@dataclass
class Record:
    """The folder of results.

    Args:
        out: the folder.
        model: facts of the net.
        settings: all that masks depend on, beside net and images; a folder never holds masks of two settings.
        circumstances: what else is worth knowing, such as the device.
    """

    out: Path
    model: Mapping[str, Any]
    settings: Mapping[str, Any]
    circumstances: Mapping[str, Any] = field(default_factory=dict)
    entries: dict[str, dict[str, Any]] = field(default_factory=dict, init=False)
    failed: dict[str, str] = field(default_factory=dict, init=False)
    _written: float = field(default=0.0, init=False)
    _took: float = field(default=0.0, init=False)

    @property
    def digest(self) -> str:
        """Digest of net and settings; every mask carries it."""
        return digest_of([FORMAT, self.model["sha256"], self.settings])

    @contextmanager
    def working(self, photos: Sequence[Photo], overwrite: bool) -> Iterator[None]:
        """Hold the folder: go on where an earlier run stopped, or begin. What is known is written however it ends.

        Args:
            photos: what is going to be segmented.
            overwrite: begin anew; masks, overlays and records that are there are removed.

        Raises:
            RunFolderError: the folder holds something else, masks of another net or other settings, or masks of other
                images by these ids; or another process works there.
        """
        self._check_place()
        self.out.mkdir(parents=True, exist_ok=True)
        lock.take(self.out)
        try:
            self._begin(overwrite)
            self._refuse_strangers(photos)
            self._write_record(finished=False)
            finished = False
            try:
                yield
                finished = True
            finally:
                self._write_areas()
                self._write_record(finished)
        finally:
            lock.leave(self.out)

    def _check_place(self) -> None:
        """Refuse what is no folder of this verb, before anything is put into it."""
        record = self.out / RECORD
        if self.out.is_file():
            raise RunFolderError(f"{self.out}: is a file where a folder of masks belongs; give another --out")
        if record.is_file():
            if _known(record).get("format") != FORMAT:
                raise RunFolderError(f"{record}: is not of format {FORMAT}; give another --out")
        elif self.out.is_dir() and any(path.name[0] != "." for path in self.out.iterdir()):
            raise RunFolderError(f"{self.out}: holds files but no {RECORD}; give another --out")

    def _begin(self, overwrite: bool) -> None:
        for folder in {leftover.parent for leftover in self.out.rglob(".*.tmp")}:
            remove_leftovers(folder)
        if overwrite:
            self._clear()
        elif (self.out / RECORD).is_file():
            known = _known(self.out / RECORD)
            if known.get("digest") != self.digest:
                what = ", ".join(self._changes(known))
                raise RunFolderError(
                    f"{self.out}: its masks were made otherwise ({what}); give another --out, or --overwrite"
                )
            self.entries = self._earlier() if (self.out / AREAS).is_file() else {}

    def _earlier(self) -> dict[str, dict[str, Any]]:
        """What is known of images that are done.

        Raises:
            RunFolderError: the file is damaged.
        """
        found = _known(self.out / AREAS).get("images")
        if not isinstance(found, dict) or not all(_is_entry(entry) for entry in found.values()):
            raise RunFolderError(f"{self.out / AREAS}: is not as it was written; delete it, and masks are made again")
        return dict(found)

    def _changes(self, known: Mapping[str, Any]) -> list[str]:
        """What differs, as `name: old -> new`."""
        before = {**(known.get("settings") or {}), "checkpoint": (known.get("model") or {}).get("sha256")}
        now = {**self.settings, "checkpoint": self.model["sha256"]}
        names = [name for name in (*now, *before) if before.get(name) != now.get(name)]
        return [f"{name}: {str(before.get(name))[:40]} -> {str(now.get(name))[:40]}" for name in dict.fromkeys(names)]

    def _clear(self) -> None:
        # the records last: without them the folder would be nobody's if this were stopped in between
        for name in (MASKS, OVERLAYS):
            if (place := self.out / name).is_symlink():
                place.unlink()
            elif place.is_dir():
                shutil.rmtree(place)
        for name in (AREAS, RECORD):
            (self.out / name).unlink(missing_ok=True)

    def _refuse_strangers(self, photos: Sequence[Photo]) -> None:
        """Refuse ids that the folder has of other files."""
        for photo in photos:
            known = self.entries.get(photo.id, {}).get("image")
            if known is not None and known != str(photo.path):
                raise RunFolderError(
                    f"{self.out}: has a mask {photo.id} of {known}, and {photo.path} would take its place; give another"
                    " --out, or --overwrite"
                )

    def done(self, photo: Photo, overlays: bool) -> bool:
        """Whether an image, as it is now, has all its files.

        Args:
            photo: the image.
            overlays: whether an overlay is wanted.
        """
        entry = self.entries.get(photo.id)
        try:
            if entry is None or any(entry.get(key) != value for key, value in state_of(photo).items()):
                return False
        except OSError:  # a link that leads nowhere; reading it will say so
            return False
        wanted = [entry["mask"], *([entry["overlay"]] if overlays else [])]
        return all(name is not None and (self.out / name).is_file() for name in wanted)

    def size(self, photo: Photo) -> tuple[int, int]:
        """(H, W) of an image that is done."""
        return int(self.entries[photo.id]["height"]), int(self.entries[photo.id]["width"])

    def add(
        self,
        photo: Photo,
        state: Mapping[str, Any],
        size: tuple[int, int],
        counts: NDArray[np.int64],
        mask: str,
        overlay: str | None,
        windows: int,
    ) -> None:
        """Note an image whose files are written.

        Args:
            photo: the image.
            state: of the file before it was read (`state_of`): one that changes meanwhile is done again.
            size: (H, W).
            counts: (256,) pixels of each id.
            mask: file, below the folder.
            overlay: likewise; None for none.
            windows: how many the image was cut into.
        """
        files = {"mask": mask, "overlay": overlay, "height": size[0], "width": size[1], "windows": windows}
        self.entries[photo.id] = {**state, **files, "areas": areas(counts, self.model["class_names"])}
        # a large file may take long to write: at most a twentieth of the time
        if time.monotonic() - self._written > max(EVERY, 20 * self._took):
            self._write_areas()

    def fail(self, photo: Photo, reason: str) -> None:
        """Note an image that cannot be segmented; what was known of it is forgotten."""
        self.entries.pop(photo.id, None)
        self.failed[photo.id] = printable(reason)

    def _write_areas(self) -> None:
        began = time.monotonic()
        content = {"model": dict(self.model), "digest": self.digest, "images": self.entries, "totals": self.totals()}
        write_json(self.out / AREAS, content)
        self._written = time.monotonic()
        self._took = self._written - began

    def _write_record(self, finished: bool) -> None:
        known = {"format": FORMAT, "digest": self.digest, "model": dict(self.model), "settings": dict(self.settings)}
        state = {"finished": finished, "failed": self.failed, **self.circumstances}
        write_json(self.out / RECORD, {**known, **state})

    def totals(self) -> dict[str, Any]:
        """Areas of all images of the folder together."""
        counts: Counter[int] = Counter()
        for entry in self.entries.values():
            counts.update({area["id"]: area["pixels"] for area in entry["areas"]})
        array = np.zeros(256, dtype=np.int64)
        for index, pixels in counts.items():
            array[index] = pixels
        return {
            "images": len(self.entries),
            "pixels": int(array.sum()),
            "areas": areas(array, self.model["class_names"]),
        }


def areas(counts: NDArray[np.int64], names: Sequence[str]) -> list[dict[str, Any]]:
    """The classes that occur, largest first.

    Args:
        counts: (256,) pixels of each id.
        names: of the classes by id; ids beyond them are called by their number, and 255 undecided.
    """
    total = max(1, int(counts.sum()))
    order = sorted(np.flatnonzero(counts).tolist(), key=lambda index: (-int(counts[index]), index))
    return [
        {"class": name_of(index, names), "id": index, "pixels": int(counts[index]), "share": int(counts[index]) / total}
        for index in order
    ]


def name_of(index: int, names: Sequence[str]) -> str:
    """What a class id is called."""
    if index < len(names):
        return names[index]
    return "undecided" if index == IGNORE_INDEX else str(index)


def _known(path: Path) -> dict[str, Any]:
    """A record.

    Raises:
        RunFolderError: it cannot be read.
    """
    try:
        return read_json(path)
    except RunFolderError:
        again = "delete it, and masks are made again" if path.name == AREAS else "give another --out"
        raise RunFolderError(f"{path}: is damaged; {again}") from None


def _is_entry(entry: Any) -> bool:
    """Whether this is what `add` notes of an image."""
    kinds = {"image": str, "mask": str, "overlay": str | None, "height": int, "width": int, "areas": list}
    if not isinstance(entry, dict) or not all(isinstance(entry.get(key), kind) for key, kind in kinds.items()):
        return False
    found = [area if isinstance(area, dict) else {} for area in entry["areas"]]
    return all(isinstance(area.get("pixels"), int) and area.get("id") in range(256) for area in found)


def state_of(photo: Photo) -> dict[str, Any]:
    """The file as it is now.

    Raises:
        OSError: it is not there.
    """
    status = photo.path.stat()
    return {"image": str(photo.path), "bytes": status.st_size, "changed": status.st_mtime_ns}
