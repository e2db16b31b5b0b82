"""Names in archives: which of them are files, and whether all of them stay where they belong."""

import os
import posixpath
import re
import unicodedata
from collections.abc import Iterable
from pathlib import Path, PurePosixPath

from frugalseg.data.archive import Member
from frugalseg.errors import DownloadError

NAME, PATH = 230, 4000
"""Bytes of a file's name, which has 255 with what a temporary name adds, and of a whole path."""
_ODD = re.compile("[\x00-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069]")
"""Signs that hide in a name what it is."""


def plain_files(archive: Path, root: Path, members: list[Member]) -> tuple[dict[str, Member], set[str]]:
    """Files and folders to write by their plain names, links resolved.

    Args:
        archive: for messages.
        root: where they will be.
        members: of the archive; of files of one name in a tar the last counts, as with every reader of tars.

    Returns:
        name -> file, and names of folders.

    Raises:
        DownloadError: a name or a link leads outside, is too long, or is of a file and a folder, or a link leads to
            nothing in the archive; nothing has been written.
    """
    for member in members:
        shown = repr(member.name[:200])
        if not _is_safe(member.name, member.open is not None) or not _stays(member.link):
            raise DownloadError(
                f"{archive}: {shown} leads outside the folder that it is unpacked in, so nothing was unpacked;"
                " do not use this archive, fetch it from its publisher"
            )
    files = {posixpath.normpath(member.name): member for member in members if member.open}
    folders = {posixpath.normpath(member.name) for member in members if not member.open and member.link is None}
    for member in members:
        if member.link is not None:
            target = files.get(posixpath.normpath(member.link))
            if target is None:
                raise DownloadError(
                    f"{archive}: the link {member.name[:200]!r} leads to {member.link[:200]!r}, which is no file of the"
                    " archive, so nothing was unpacked; fetch it from its publisher"
                )
            files[posixpath.normpath(member.name)] = target
    _check_places(archive, root, files, folders)
    return files, folders


def _check_places(archive: Path, root: Path, files: Iterable[str], folders: set[str]) -> None:
    """Refuse names for which no disk has a place.

    Raises:
        DownloadError: a name is too long, or of a file and a folder.
    """
    files, base = set(files), len(os.fsencode(root.absolute()))
    for name in sorted({*files, *folders}):
        parts = name.split("/")
        encoded = name.encode("utf-8", "surrogateescape")
        if base + len(encoded) > PATH or max(len(part) for part in encoded.split(b"/")) > NAME:
            raise DownloadError(
                f"{archive}: the name {name[:60]!r}... has {len(encoded)} bytes, more than a disk takes, so nothing was"
                " unpacked; do not use this archive, fetch it from its publisher"
            )
        above = ("/".join(parts[:count]) for count in range(1, len(parts) + (name in folders)))
        if both := next((place for place in above if place in files), None):
            raise DownloadError(
                f"{archive}: {both[:200]!r} is a file and a folder in it, so nothing was unpacked; fetch it from its"
                " publisher"
            )


def _is_safe(name: str, is_file: bool) -> bool:
    """Whether a name leads nowhere else, under any spelling that a system might take for the same."""
    if not name or (is_file and PurePosixPath(posixpath.normpath(name)) == PurePosixPath()):
        return False
    for spelling in (name, unicodedata.normalize("NFKC", name)):
        odd = "\\" in spelling or _ODD.search(spelling) or re.match("[A-Za-z]:", spelling)
        if odd or spelling.startswith("/") or ".." in spelling.split("/"):
            return False
    return True


def _stays(link: str | None) -> bool:
    """Whether what a link leads to lies inside."""
    return link is None or _is_safe(posixpath.normpath(link), False)
