"""Unpacking archives: nothing leaves the root, no file is ever half-written, and an interrupted unpacking continues."""

import posixpath
import re
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO, NamedTuple

from frugalseg.data.fetch import check_space, writing
from frugalseg.data.io import write_atomic
from frugalseg.data.parallel import Progress
from frugalseg.errors import DownloadError

SUFFIXES = (".zip", ".tar", ".tar.gz", ".tgz")
"""Names of archives that `unpack` reads."""
CHUNK = 1 << 20
_DAMAGE = (
    zipfile.BadZipFile,
    tarfile.TarError,
    zlib.error,
    EOFError,
    OSError,
    NotImplementedError,  # a compression that zipfile lacks
    RuntimeError,  # an encrypted member
    ValueError,
)


class _Member(NamedTuple):
    """One entry of an archive; `open` gives its content, and None marks a folder."""

    name: str
    size: int
    open: Callable[[], IO[bytes]] | None
    link: str | None = None


def unpack(archive: Path, root: Path, progress: Progress | None = None) -> int:
    """Unpack an archive; files that are there with the right size are left alone.

    Links to files of the archive become copies of them; owners, modes and times are not kept.

    Args:
        archive: zip, tar, tar.gz or tgz.
        root: folder that the names in the archive are relative to.
        progress: called with (files done, files to do).

    Returns:
        Number of files that were written.

    Raises:
        DownloadError: the archive is cut short or damaged, or holds a name, a link or a device that could do harm
            outside `root`; in the latter case nothing is written.
        DiskFullError: the files do not fit.
    """
    with ExitStack() as opened:
        with _reading(archive):
            members = _members(archive, opened)
        files = _files(archive, members)
        folders = {root / member.name for member in members if not member.open and not member.link}
        _check_parents(archive, root, folders | {(root / name).parent for name in files})
        missing = {name: file for name, file in files.items() if not _is_there(root / name, file.size)}
        with writing(root):
            for folder in (root, *folders):
                folder.mkdir(parents=True, exist_ok=True)
            check_space(root, sum(file.size for file in missing.values()))
            for done, (name, file) in enumerate(missing.items(), 1):
                _write(archive, root / name, file)
                if progress:
                    progress(done, len(missing))
    return len(missing)


@contextmanager
def _reading(archive: Path) -> Iterator[None]:
    """Turn what goes wrong while reading an archive into one line."""
    try:
        yield
    except _DAMAGE as error:
        reason = " ".join(str(error).split())[:120] or type(error).__name__
        raise DownloadError(
            f"{archive}: not a whole archive ({reason}); delete it and run the command again to fetch it anew"
        ) from None


def _members(archive: Path, opened: ExitStack) -> list[_Member]:
    if archive.suffix == ".zip":
        return list(_zip_members(opened.enter_context(zipfile.ZipFile(archive))))
    tar = opened.enter_context(tarfile.open(archive, "r:*"))  # noqa: SIM115 - `opened` closes it
    members = [_tar_member(tar, info) for info in tar.getmembers()]
    _check_end(tar)
    return members


def _zip_members(archive: zipfile.ZipFile) -> Iterator[_Member]:
    for info in archive.infolist():
        kind = stat.S_IFMT(info.external_attr >> 16)
        name = info.orig_filename  # as written: zipfile cuts `filename` at a null byte
        if kind not in (0, stat.S_IFREG, stat.S_IFDIR, stat.S_IFLNK):
            raise zipfile.BadZipFile(f"{name} is a device or a pipe")
        link = archive.read(info).decode() if kind == stat.S_IFLNK else None
        link = link and posixpath.join(posixpath.dirname(name), link)
        opener = None if info.is_dir() or link else lambda info=info: archive.open(info)
        yield _Member(name, info.file_size, opener, link)


def _tar_member(archive: tarfile.TarFile, info: tarfile.TarInfo) -> _Member:
    if info.issym():
        return _Member(info.name, 0, None, posixpath.join(posixpath.dirname(info.name), info.linkname))
    if info.islnk():
        return _Member(info.name, 0, None, info.linkname)
    if info.isdir():
        return _Member(info.name, 0, None)
    if not info.isreg():
        raise tarfile.ReadError(f"{info.name} is a device or a pipe")

    def content() -> IO[bytes]:
        stream = archive.extractfile(info)
        if stream is None:
            raise tarfile.ReadError(f"{info.name} has no content")
        return stream

    return _Member(info.name, info.size, content)


def _check_end(archive: tarfile.TarFile) -> None:
    """Read to the end: tarfile takes a header that is cut short, or none at all, for the end of the archive."""
    stream = archive.fileobj
    if stream is None:
        raise tarfile.ReadError("closed")
    stream.seek(archive.offset)
    if stream.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
        raise tarfile.ReadError("its end is missing")
    while stream.read(CHUNK):  # a compressed stream has its checksum at the end
        pass


def _files(archive: Path, members: list[_Member]) -> dict[str, _Member]:
    """Files to write by their plain names, links resolved.

    Raises:
        DownloadError: a name or a link leads outside, or a link leads to nothing in the archive.
    """
    for member in members:
        if not _is_safe(member.name) or (member.link and not _is_safe(posixpath.normpath(member.link))):
            raise DownloadError(
                f"{archive}: {member.name!r} leads outside the folder that it is unpacked in, so nothing was unpacked;"
                " do not use this archive, fetch it from its publisher"
            )
    files = {posixpath.normpath(member.name): member for member in members if member.open}
    for member in members:
        if member.link:
            target = files.get(posixpath.normpath(member.link))
            if target is None:
                raise DownloadError(
                    f"{archive}: the link {member.name!r} leads to {member.link!r}, which is no file of the archive, so"
                    " nothing was unpacked; fetch it from its publisher"
                )
            files[posixpath.normpath(member.name)] = target
    return files


def _is_safe(name: str) -> bool:
    odd = "\\" in name or "\0" in name or re.match("[A-Za-z]:", name)
    return bool(name) and not odd and not name.startswith("/") and ".." not in name.split("/")


def _check_parents(archive: Path, root: Path, folders: set[Path]) -> None:
    """Refuse links on the disk that lead out of the root; checked before anything is written.

    Raises:
        DownloadError: a folder that files go into is, through a link, somewhere else.
    """
    inside = root.resolve()
    for folder in sorted(folders):
        if not (real := folder.resolve()).is_relative_to(inside):
            raise DownloadError(
                f"{folder}: is a link to {real}, outside {root}, so {archive.name} was not unpacked;"
                " remove the link, or give the folder that it leads to as root"
            )


def _is_there(path: Path, size: int) -> bool:
    return path.is_file() and path.stat().st_size == size


def _write(archive: Path, path: Path, file: _Member) -> None:
    """Write one file whole or not at all."""

    def copy(out: IO[bytes]) -> None:
        for chunk in _content(archive, file):
            out.write(chunk)

    write_atomic(path, copy)


def _content(archive: Path, file: _Member) -> Iterator[bytes]:
    """What a file holds: exactly as many bytes as the archive declares.

    Raises:
        DownloadError: the archive is damaged here.
    """
    left = file.size
    with _reading(archive):
        if file.open is None:
            raise tarfile.ReadError(f"{file.name} has no content")
        with file.open() as stream:
            while chunk := stream.read(CHUNK):
                left -= len(chunk)
                if left < 0:
                    break
                yield chunk
        if left:
            raise zipfile.BadZipFile(f"{file.name} is not {file.size} bytes long")
