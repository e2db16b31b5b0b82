"""What is in an archive, read entry by entry, so that one that claims too much is refused before it is read on."""

import bz2
import gzip
import lzma
import posixpath
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO, Any, NamedTuple, cast

from frugalseg.errors import DownloadError

SUFFIXES = (".zip", ".tar", ".tar.gz", ".tgz")
"""Names of archives that can be unpacked."""
CHUNK = 1 << 20
HEADER = 1 << 20
"""Bytes of one header of a tar, such as a long name; tarfile reads it at once, whatever length it claims."""
TAIL = 1 << 26
"""Bytes behind the end: writers fill the last record, which a tape may want large."""
PATH = 4096
"""Bytes of what a link leads to."""
_PACKED: dict[bytes, Callable[..., Any]] = {b"\x1f\x8b": gzip.open, b"BZh": bz2.open, b"\xfd7zXZ": lzma.open}
"""First bytes of a compressed tar, whatever its name says -> what reads it."""
_UNPACKED = {zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA}
_DAMAGE = (
    zipfile.BadZipFile,
    tarfile.TarError,
    zlib.error,
    lzma.LZMAError,
    EOFError,
    OSError,
    NotImplementedError,  # a compression that zipfile lacks
    RuntimeError,  # an encrypted member
    ValueError,
    OverflowError,
    LookupError,  # tarfile, of damaged lists of holes
    AssertionError,
    AttributeError,  # tarfile, of a damaged size
    MemoryError,
)


class Bounds(NamedTuple):
    """How much an archive may hold.

    The largest that we fetch is COCO's train2017.zip: 19.3 GB in 118,288 entries; most are pictures, which hardly
    shrink. What shrinks most are COCO's annotations, about 4 times.

    Attributes:
        size: bytes of all files.
        files: files, links and folders.
        ratio: how many times larger than the archive its files may be together, and than its packed bytes each file of
            a zip. Below `small` bytes nothing is said about ratios.
        small: bytes.
    """

    size: int = 64 * 10**9
    files: int = 1_000_000
    ratio: int = 100
    small: int = 16 * 10**6

    def check(self, archive: Path, size: int, files: int, packed: int | None = None, name: str = "") -> None:
        """Refuse what is beyond.

        Args:
            archive: for the message, and its length.
            size: bytes so far.
            files: entries so far.
            packed: bytes that they have in the archive; None for all of the archive.
            name: of a file, where one is meant.

        Raises:
            DownloadError: it is beyond.
        """
        packed = archive.stat().st_size if packed is None else packed
        if files > self.files:
            what, mend = f"holds more than {self.files:,} entries", f"--max-files {self.files * 2}"
        elif size > self.size:
            what, mend = f"holds {size:,} bytes or more, of at most {self.size:,}", f"--max-bytes {size}"
        elif size > self.small and size > self.ratio * packed:
            member = f" in {name!r}" if name else ""
            what, mend = f"claims {size:,} bytes{member}, packed in {packed:,}, as bombs do", ""
        else:
            return
        raise DownloadError(
            f"{archive}: {what}, so nothing was unpacked; do not use it, fetch it from its publisher"
            + (f", or if it is meant to be so large give {mend}" if mend else "")
        )


class Member(NamedTuple):
    """One entry of an archive.

    Attributes:
        name: as written.
        size: bytes, as claimed.
        open: gives the content; None for folders and links.
        link: name, relative to the root, that a link leads to.
    """

    name: str
    size: int
    open: Callable[[], IO[bytes]] | None
    link: str | None = None

    def content(self) -> IO[bytes]:
        """Open it.

        Raises:
            ValueError: it has none.
        """
        if self.open is None:
            raise ValueError(f"{self.name!r} has no content")
        return self.open()


@contextmanager
def reading(archive: Path) -> Iterator[None]:
    """Turn what goes wrong while reading an archive into one line.

    Raises:
        DownloadError: it did.
    """
    try:
        yield
    except _DAMAGE as error:
        reason = " ".join(str(error).split())[:120] or type(error).__name__
        raise DownloadError(
            f"{archive}: not a whole archive ({reason}); delete it and run the command again to fetch it anew"
        ) from None


def read_members(archive: Path, opened: ExitStack, bounds: Bounds) -> list[Member]:
    """All entries.

    Args:
        archive: the file.
        opened: closes what stays open for reading the entries.
        bounds: looked at after each entry.

    Raises:
        DownloadError: more than the bounds.
        zipfile.BadZipFile: it is damaged; of damaged archives nearly anything is raised, see `reading`.
    """
    found, size = list[Member](), 0
    entries = _zip_members(archive, opened, bounds) if archive.suffix == ".zip" else _tar_members(archive, opened)
    for member in entries:
        found.append(member)
        size += member.size
        bounds.check(archive, size, len(found))
    return found


def _zip_members(path: Path, opened: ExitStack, bounds: Bounds) -> Iterator[Member]:
    archive = opened.enter_context(zipfile.ZipFile(path))
    names = set[str]()
    for info in archive.infolist():
        kind = stat.S_IFMT(info.external_attr >> 16)
        name = info.orig_filename  # as written: zipfile cuts `filename` at a null byte
        if kind not in (0, stat.S_IFREG, stat.S_IFDIR, stat.S_IFLNK):
            raise zipfile.BadZipFile(f"{name} is a device or a pipe")
        if name in names and not info.is_dir():
            raise zipfile.BadZipFile(f"{name!r} is in it twice")
        names.add(name)
        if info.flag_bits & 0x1 or info.compress_type not in _UNPACKED:
            raise zipfile.BadZipFile(f"{name!r} is encrypted, or packed by method {info.compress_type}")
        bounds.check(path, info.file_size, 1, info.compress_size, name)
        link = None
        if kind == stat.S_IFLNK:
            if info.file_size > PATH:
                raise zipfile.BadZipFile(f"the link {name!r} is {info.file_size} bytes long")
            link = posixpath.join(posixpath.dirname(name), archive.read(info).decode())
        opener = None if info.is_dir() or link is not None else _zip_opener(archive, info)
        yield Member(name, 0 if opener is None else info.file_size, opener, link)


def _zip_opener(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> Callable[[], IO[bytes]]:
    return lambda: archive.open(info)


class _Stream:
    """A seekable file that gives no more at once than a reader can mean: tarfile believes what a header claims."""

    def __init__(self, file: Any) -> None:
        self.file = file
        self.seek, self.tell, self.close = file.seek, file.tell, file.close

    def read(self, size: int = -1) -> bytes:
        if size > CHUNK + HEADER:
            raise tarfile.ReadError(f"a header claims to be {size} bytes long")
        return cast(bytes, self.file.read(size))


def _tar_members(path: Path, opened: ExitStack) -> Iterator[Member]:
    with path.open("rb") as file:
        start = file.read(6)
    opener = next((opener for mark, opener in _PACKED.items() if start.startswith(mark)), open)
    stream = _Stream(opened.enter_context(opener(path, "rb")))
    archive = opened.enter_context(tarfile.open(fileobj=cast(Any, stream), mode="r:"))  # noqa: SIM115
    for info in archive:
        yield _tar_member(archive, info)
    _check_end(archive)


def _tar_member(archive: tarfile.TarFile, info: tarfile.TarInfo) -> Member:
    if info.issym():
        return Member(info.name, 0, None, posixpath.join(posixpath.dirname(info.name), info.linkname))
    if info.islnk():
        return Member(info.name, 0, None, info.linkname)
    if info.isdir():
        return Member(info.name, 0, None)
    if not info.isreg():
        raise tarfile.ReadError(f"{info.name} is a device or a pipe")
    if info.size < 0:
        raise tarfile.ReadError(f"{info.name!r} has a size below zero")

    def content() -> IO[bytes]:
        stream = archive.extractfile(info)
        if stream is None:
            raise tarfile.ReadError(f"{info.name!r} has no content")
        return stream

    return Member(info.name, info.size, content)


def _check_end(archive: tarfile.TarFile) -> None:
    """Read to the end: tarfile takes a header that is cut short, or none at all, for the end of the archive."""
    stream = archive.fileobj
    if stream is None:
        raise tarfile.ReadError("closed")
    stream.seek(archive.offset)
    if stream.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
        raise tarfile.ReadError("its end is missing")
    left = TAIL  # a compressed stream has its checksum at the end
    while chunk := stream.read(CHUNK):
        left -= len(chunk)
        if left < 0:
            raise tarfile.ReadError("it goes on behind its end")
