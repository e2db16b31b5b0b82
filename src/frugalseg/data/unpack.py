"""Unpacking archives: nothing leaves the root or grows beyond bounds, no file is half-written, and it can go on."""

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import IO

from frugalseg.data.archive import CHUNK, SUFFIXES, Bounds, Member, read_members, reading
from frugalseg.data.archive_names import plain_files
from frugalseg.data.fetch import check_space, writing
from frugalseg.data.io import write_atomic
from frugalseg.data.parallel import Progress
from frugalseg.errors import DownloadError

__all__ = ["SUFFIXES", "Bounds", "unpack"]


def unpack(archive: Path, root: Path, progress: Progress | None = None, bounds: Bounds | None = None) -> int:
    """Unpack an archive; files that are there with the right size are left alone.

    Links to files of the archive become copies of them; owners, modes and times are not kept.

    Args:
        archive: zip, tar, tar.gz or tgz.
        root: folder that the names in the archive are relative to.
        progress: called with (files done, files to do).
        bounds: how much it may hold; None for the defaults of `Bounds`.

    Returns:
        Number of files that were written.

    Raises:
        DownloadError: the archive is cut short or damaged, holds more than the bounds, or a name, a link or a device
            that could do harm outside `root`; in the latter two cases nothing is written.
        DiskFullError: the files do not fit.
    """
    bounds = bounds or Bounds()
    with ExitStack() as opened:
        with reading(archive):
            members = read_members(archive, opened, bounds)
        files, folders = plain_files(archive, root, members)
        # links are copies: each counts with what it leads to
        bounds.check(archive, sum(file.size for file in files.values()), len(files) + len(folders))
        places = {root / name for name in folders}
        _check_parents(archive, root, places | {(root / name).parent for name in files})
        missing = {name: file for name, file in files.items() if not _is_there(root / name, file.size)}
        with writing(root):
            for folder in (root, *places):
                folder.mkdir(parents=True, exist_ok=True)
            check_space(root, sum(file.size for file in missing.values()))
            for done, (name, file) in enumerate(missing.items(), 1):
                _write(archive, root / name, file)
                if progress:
                    progress(done, len(missing))
    return len(missing)


def _check_parents(archive: Path, root: Path, folders: set[Path]) -> None:
    """Refuse links on the disk that lead out of the root, and files where folders are wanted, before writing anything.

    Raises:
        DownloadError: a folder that files go into is, through a link, somewhere else, or is a file.
    """
    inside = root.resolve()
    for folder in sorted(folders):
        try:
            real = folder.resolve()
        except (OSError, RuntimeError):  # a link that leads to itself; Python 3.12 raises OSError
            real = Path("itself")
        if not real.is_relative_to(inside):
            raise DownloadError(
                f"{folder}: is a link to {real}, outside {root}, so {archive.name} was not unpacked;"
                " remove the link, or give the folder that it leads to as root"
            )
        if blocking := next((place for place in (real, *real.parents) if place.is_file()), None):
            raise DownloadError(
                f"{blocking}: is a file where {archive.name} has a folder, so nothing was unpacked; move the file away"
            )


def _is_there(path: Path, size: int) -> bool:
    return path.is_file() and path.stat().st_size == size


def _write(archive: Path, path: Path, file: Member) -> None:
    """Write one file whole or not at all."""

    def copy(out: IO[bytes]) -> None:
        for chunk in _content(archive, file):
            out.write(chunk)

    write_atomic(path, copy)


def _content(archive: Path, file: Member) -> Iterator[bytes]:
    """What a file holds: exactly as many bytes as the archive declares.

    Raises:
        DownloadError: the archive is damaged here.
    """
    left = file.size
    with reading(archive):
        with file.content() as stream:
            while chunk := stream.read(CHUNK):
                left -= len(chunk)
                if left < 0:
                    break
                yield chunk
        if left:
            raise ValueError(f"{file.name!r} is not {file.size} bytes long")
