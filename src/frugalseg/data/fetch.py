"""Fetching published files: a broken transfer continues where it stopped, and only what was published is kept.

pooch decides whether a file must be fetched and whether its checksum is right; it cannot continue a transfer, so the
bytes come through `_transfer`.
"""

import errno
import json
import logging
import os
import re
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import pooch
import requests
import urllib3

from frugalseg.data.io import write_atomic
from frugalseg.data.parallel import Progress
from frugalseg.data.sources import Source
from frugalseg.errors import DiskFullError, DownloadError

log = logging.getLogger(__name__)


ATTEMPTS = 5
"""Connections that may break one after the other."""
PAUSE = 2.0
"""Seconds before the second attempt; doubled for each further one."""
WORTH = 64 << 20
"""A connection that brought this many bytes is not counted as a failed attempt."""
TIMEOUT = (15.0, 60.0)
"""Seconds to connect, and seconds without a byte."""
CHUNK = 1 << 16
"""Bytes per read; at most this much is lost when a connection breaks."""
PASSING = {408, 429, 500, 502, 503, 504}
"""HTTP codes after which another attempt may succeed."""


class _Interrupted(Exception):  # noqa: N818 - never leaves this module
    """The transfer stopped early, but may be continued."""


BROKEN = (_Interrupted, requests.ConnectionError, requests.Timeout, urllib3.exceptions.HTTPError)


class _Mark(NamedTuple):
    """What a server says about a file; the same mark means the same file."""

    url: str
    etag: str | None
    modified: str | None
    length: int | None


class _Part:
    """The bytes that have come so far, and beside them the mark of the file that they are from."""

    def __init__(self, path: Path) -> None:
        self.path, self.note = path, path.with_name(f"{path.name}.json")

    @property
    def length(self) -> int:
        return self.path.stat().st_size if self.path.is_file() else 0

    def mark(self) -> _Mark | None:
        try:
            return _Mark(**json.loads(self.note.read_text()))
        except (OSError, ValueError, TypeError):
            return None

    def begin(self, mark: _Mark) -> None:
        self.discard()  # before the new mark: bytes of one file must never stand beside the mark of another
        write_atomic(self.note, lambda stream: stream.write(json.dumps(mark._asdict()).encode()))

    def discard(self) -> None:
        self.path.unlink(missing_ok=True)
        self.note.unlink(missing_ok=True)


def fetch(source: Source, folder: Path, progress: Progress | None = None) -> Path:
    """Fetch one file, continuing an earlier attempt; a file that is there and right is left alone.

    Until it is whole and right the file is called `<name>.part`.

    Args:
        source: what to fetch.
        folder: where it goes; made if need be.
        progress: called with (bytes there, bytes in all).

    Returns:
        The file.

    Raises:
        DownloadError: it is not there, the connection keeps breaking, or its size or checksum is not the published one;
            in the last case nothing of it is left.
        DiskFullError: it does not fit; what has come is kept.
    """
    part = _Part(folder / f"{source.name}.part")

    def download(_url: str, temporary: str, _pooch: object) -> None:
        _transfer(source, part, progress)
        log.info("%s: all %s are here, checking", source.name, in_units(part.length))
        _lend(part.path, Path(temporary))

    pooch.get_logger().setLevel(logging.WARNING)  # the command says what goes on
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        try:
            path: str = pooch.retrieve(source.url, source.digest, source.name, folder, downloader=download)
        except ValueError as error:
            part.discard()
            reason = str(error).partition(". ")[0]
            raise DownloadError(
                f"{source.url}: not what was published, removed ({reason}); run the command again, and if it says the"
                f" same, fetch {source.name} elsewhere into {folder}"
            ) from None
        part.discard()
    return Path(path)


def in_units(size: int) -> str:
    """Bytes for people: 1999639040 is `2.00 GB`."""
    for unit, scale in (("GB", 10**9), ("MB", 10**6), ("kB", 10**3)):
        if size >= scale:
            return f"{size / scale:.2f} {unit}"
    return f"{size} bytes"


@contextmanager
def writing(folder: Path) -> Iterator[None]:
    """Turn what goes wrong while writing under a folder into one line.

    Raises:
        DiskFullError: the disk or the quota is full.
        DownloadError: any other OSError.
    """
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise DiskFullError(
                f"{folder}: the disk or your quota is full ({in_units(_free(folder))} free); make room and run the"
                " same command again, it continues"
            ) from None
        raise DownloadError(f"{folder}: cannot be written ({error}); give a folder that you may write to") from None


def check_space(folder: Path, needed: int) -> None:
    """Refuse to begin what cannot end.

    Raises:
        DiskFullError: fewer than `needed` bytes are free.
    """
    if needed > (free := _free(folder)):
        raise DiskFullError(
            f"{folder}: {in_units(needed)} are needed and {in_units(free)} are free; make room and run the same command"
            " again, or give another root"
        )


def _free(folder: Path) -> int:
    return shutil.disk_usage(next(place for place in (folder, *folder.absolute().parents) if place.exists())).free


def _lend(part: Path, temporary: Path) -> None:
    """Give the bytes to pooch, which deletes them when it is stopped while it computes the checksum; ours stay."""
    temporary.unlink()
    try:
        os.link(part, temporary)
    except OSError:  # a file system without hard links
        part.replace(temporary)


def _transfer(source: Source, part: _Part, progress: Progress | None) -> None:
    """Bring the rest of a file, over as many connections as it takes."""
    failures = 0
    with requests.Session() as session:
        while True:
            before = part.length
            try:
                return _pull(session, source, part, progress)
            except BROKEN as error:
                failures = 1 if part.length - before >= WORTH else failures + 1
                reason = " ".join(str(error).split())[:160]
                if failures >= ATTEMPTS:
                    raise DownloadError(
                        f"{source.url}: the connection broke {failures} times, {in_units(part.length)} are here"
                        f" ({reason}); run the same command again, it continues from there"
                    ) from None
                log.info("%s: stopped at %s (%s), going on", source.name, in_units(part.length), reason)
                time.sleep(PAUSE * 2 ** (failures - 1))
            except requests.RequestException as error:
                raise DownloadError(f"{source.url}: cannot be fetched ({error}); check the address") from None


def _pull(session: requests.Session, source: Source, part: _Part, progress: Progress | None) -> None:
    """Bring the rest of a file over one connection."""
    have, mark = part.length, part.mark()
    if mark is None or mark.url != source.url:
        part.discard()
        have, mark = 0, None
    if mark and have == mark.length:
        return
    # identity: some servers would pack or unpack a .tgz on the way, and its checksum would be wrong
    headers = {"Accept-Encoding": "identity", **(_continuation(have, mark) if mark and have else {})}
    with session.get(source.url, headers=headers, stream=True, timeout=TIMEOUT) as response:
        _check_status(response.status_code, source, part)
        start, now = _described(source.url, response)
        if response.status_code == 206 and (mark is None or start != have or not _same(now, mark)):
            part.discard()
            raise _Interrupted("the file has changed at its source, so it is fetched anew")
        if source.size is not None and now.length not in (None, source.size):
            part.discard()
            raise DownloadError(_wrong_size(source, now.length))
        if response.status_code != 206:
            part.begin(now)
        _receive(response.raw, source, part, now.length or source.size, progress)


def _same(now: _Mark, before: _Mark) -> bool:
    """Whether two marks are of one file; a response that does not say the length is no sign of another one."""
    lengths = {now.length, before.length} - {None}
    return len(lengths) < 2 and now._replace(length=before.length) == before


def _continuation(have: int, mark: _Mark) -> dict[str, str]:
    """Ask for the bytes from `have` on, and for the whole file if it is no longer the one that they are from."""
    strong = mark.etag if mark.etag and not mark.etag.startswith("W/") else None
    unchanged = strong or mark.modified
    return {"Range": f"bytes={have}-", **({"If-Range": unchanged} if unchanged else {})}


def _described(url: str, response: requests.Response) -> tuple[int, _Mark]:
    """First byte that a response brings, and the mark of the file."""
    start, length = 0, response.headers.get("Content-Length")
    if response.status_code == 206:
        found = re.fullmatch(r"bytes (\d+)-\d+/(\d+|\*)", response.headers.get("Content-Range", ""))
        start, length = (int(found[1]), found[2]) if found else (-1, None)
    total = int(length) if length and length.isdecimal() else None
    return start, _Mark(url, response.headers.get("ETag"), response.headers.get("Last-Modified"), total)


def _check_status(code: int, source: Source, part: _Part) -> None:
    if code == 416:  # we have more than there is: another file by now
        part.discard()
        raise _Interrupted("the file has changed at its source, so it is fetched anew")
    if code in PASSING:
        raise _Interrupted(f"HTTP {code}")
    if code >= 400:
        raise DownloadError(
            f"{source.url}: HTTP {code}, so the publisher has moved or closed it; put {source.name} from elsewhere into"
            f" {part.path.parent} and run the command again: it is checked and used"
        )


def _receive(raw: Any, source: Source, part: _Part, total: int | None, progress: Progress | None) -> None:
    """Append what comes to the part."""
    have = part.length
    check_space(part.path.parent, (total or have) - have)
    with part.path.open("ab") as file:
        for chunk in raw.stream(CHUNK, decode_content=False):
            have += file.write(chunk)
            if progress:
                progress(have, total or have)
    if total is not None and have < total:
        raise _Interrupted(f"{have} of {total} bytes came")
    if total is not None and have > total:
        part.discard()
        raise DownloadError(_wrong_size(source, have))


def _wrong_size(source: Source, size: int | None) -> str:
    return (
        f"{source.url}: is {size} bytes long, but {source.size} were published; it was not kept: fetch {source.name}"
        " elsewhere, or report the new size"
    )
