"""Which images of a folder cannot be used: found once, before training, and remembered.

ImageNet takes one core half an hour to decode, so the answer is kept in a small file whose name is a digest of all
names, sizes and times: the next start reads no image.
"""

import json
import logging
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Literal

from frugalseg.data.image_files import ImageFile, files_digest
from frugalseg.data.io import image_size, read_image, write_atomic
from frugalseg.data.meeting import cores, find_place
from frugalseg.data.parallel import Progress
from frugalseg.errors import ImageError

log = logging.getLogger(__name__)

Verify = Literal["decode", "header", "none"]
"""Decode every image; only open it, which does not notice one that is cut off; or trust them all."""

_CHUNK = 64
"""Images that a thread takes at once; Ctrl-C waits for no more."""
_SAVE_EVERY = 30.0
"""Seconds between two writes of what has been found so far."""
_SAY_EVERY = 5.0


@dataclass
class Verdict:
    """What is known about the images of a split.

    Attributes:
        path: the file that remembers it; none is written where nothing is read.
        files: number of images.
        checked: how many have been read, from the first on.
        left_out: name -> why it cannot be used.
    """

    path: Path
    files: int
    checked: int = 0
    left_out: dict[str, str] = field(default_factory=dict)

    def save(self, **about: object) -> None:
        """Write the file, whole or not at all."""
        content = {**about, "files": self.files, "checked": self.checked, "left_out": self.left_out}
        text = json.dumps(content, indent=1) + "\n"
        write_atomic(self.path, lambda stream: stream.write(text.encode()))


def judge(
    root: Path,
    files: Sequence[ImageFile],
    verdicts: Path,
    verify: Verify = "decode",
    min_side: int = 32,
    progress: Progress | None = None,
) -> Verdict:
    """Find the images that are broken, empty or too small; goes on where an earlier call was stopped.

    Decoding leaves Python's lock, so threads do it: one per core.

    Args:
        root: what the names are relative to.
        files: the split.
        verdicts: folder of what is remembered.
        verify: how closely to look.
        min_side: the shorter side has at least so many pixels.
        progress: called with (files done, files in all); None logs a line now and then.

    Returns:
        The verdict on all files.

    Raises:
        ImageError: the operating system refuses a file (rights, a failing disk): that is no property of the image, and
            is not remembered.
        DiskFullError: no room for the verdict.
    """
    found = Verdict(verdicts / f"{files_digest(files, True, verify, min_side)}.json", len(files))
    if verify == "none":
        found.checked = len(files)
        return found
    _recall(found)
    if found.checked == len(files):
        return found
    save = partial(found.save, root=str(root), verify=verify, min_side=min_side)
    chunks = [files[start : start + _CHUNK] for start in range(found.checked, len(files), _CHUNK)]
    progress, saved = progress or _say(root, found.checked), time.monotonic()
    pool = ThreadPoolExecutor(cores(find_place()))
    try:
        for chunk, wrong in zip(chunks, pool.map(partial(_look, root, verify, min_side), chunks), strict=True):
            found.left_out |= wrong
            found.checked += len(chunk)
            progress(found.checked, len(files))
            if time.monotonic() - saved > _SAVE_EVERY:
                save()
                saved = time.monotonic()
    finally:  # also after Ctrl-C
        pool.shutdown(cancel_futures=True)
        save()
    return found


def _recall(verdict: Verdict) -> None:
    """Take over what an earlier call has found."""
    try:
        known: Any = json.loads(verdict.path.read_bytes())
        checked, left_out = known["checked"], dict(known["left_out"])
    except (OSError, ValueError, KeyError, TypeError):
        return  # none, or damaged: look again
    if known.get("files") == verdict.files and isinstance(checked, int) and 0 <= checked <= verdict.files:
        verdict.checked, verdict.left_out = checked, left_out


def _look(root: Path, verify: Verify, min_side: int, files: Sequence[ImageFile]) -> dict[str, str]:
    """Name -> what is wrong with it."""
    reasons = ((file.name, _reason(root / file.name, file.size, verify, min_side)) for file in files)
    return {name: reason for name, reason in reasons if reason is not None}


def _reason(path: Path, size: int, verify: Verify, min_side: int) -> str | None:
    if size <= 0:
        return "is empty" if size == 0 else "is a link that leads nowhere"
    try:
        height, width = read_image(path).shape[:2] if verify == "decode" else image_size(path)
    except ImageError as error:
        if isinstance(error.__context__, OSError) and error.__context__.errno is not None:
            raise
        return str(error).removeprefix(f"{path}: ")
    if min(height, width) < min_side:
        return f"is {height}x{width} (HxW), a side below data.min_side = {min_side}"
    return None


def _say(root: Path, first: int) -> Callable[[int, int], None]:
    """Log a line now and then."""
    began = last = time.monotonic()

    def report(done: int, total: int) -> None:
        nonlocal last
        now = time.monotonic()
        if now - last >= _SAY_EVERY:
            last = now
            left = (now - began) / (done - first) * (total - done)
            log.info("%s: looked at %d of %d images, %.0f s left", root, done, total, left)

    return report
