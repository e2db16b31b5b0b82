"""One process at a time works in a run folder: a lock that the kernel drops when the process ends, however it ends."""

import errno
import fcntl
import logging
import os
import socket
from pathlib import Path

from frugalseg.errors import RunFolderError

log = logging.getLogger(__name__)

NAME = ".lock"
"""File in the run folder that is locked; it names the process, for people."""
_NO_LOCKS = {errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOTSUP, errno.ENOLCK, errno.EINVAL, errno.EBADF}
"""What file systems answer that know no locks."""
_held: dict[str, int] = {}
"""Folder -> open file, of this process."""


def take(folder: Path) -> None:
    """Lock a run folder for this process; nothing happens where it holds the lock already.

    A stage that failed may be begun again by the same process, as tests and notebooks do. Where the disk knows no
    locks, that is said, and the work goes on without.

    Args:
        folder: it exists.

    Raises:
        RunFolderError: another process works there.
        OSError: the folder cannot be written to.
    """
    key = str(folder.absolute())
    if key in _held and _is_file_of(_held[key], folder / NAME):
        return
    leave(folder)
    while True:
        file = _open(folder)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            who = os.pread(file, 200, 0).decode(errors="replace").strip()
            os.close(file)
            if error.errno in (errno.EWOULDBLOCK, errno.EACCES):
                raise RunFolderError(
                    f"{folder}: another process works there ({who or 'it has not said which'}); wait for its end, or"
                    " choose another RUN="
                ) from None
            if error.errno not in _NO_LOCKS:
                raise
            (folder / NAME).unlink(missing_ok=True)
            log.warning("%s: its disk knows no locks, so see yourself that only one process works there", folder)
            return
        if _is_file_of(file, folder / NAME):  # else who had it has just taken it away
            os.ftruncate(file, 0)
            os.pwrite(file, f"process {os.getpid()} on {socket.gethostname()}\n".encode(), 0)
            _held[key] = file
            return
        os.close(file)


def leave(folder: Path) -> None:
    """Let others in; nothing happens where this process holds no lock.

    Args:
        folder: that was locked.
    """
    file = _held.pop(str(folder.absolute()), None)
    if file is None:
        return
    if _is_file_of(file, folder / NAME):
        (folder / NAME).unlink(missing_ok=True)  # before it is let go: who opened it meanwhile sees that it has gone
    os.close(file)


def hand_over(folder: Path, moved: Path) -> None:
    """After a renaming: let go of the moved folder, and lock the new one in its place.

    Args:
        folder: name that was locked; made again where it is not there.
        moved: what the folder is called now.

    Raises:
        RunFolderError: another process was quicker.
    """
    file = _held.pop(str(folder.absolute()), None)
    if file is not None:
        (moved / NAME).unlink(missing_ok=True)
        os.close(file)
    folder.mkdir(parents=True, exist_ok=True)
    take(folder)


def _open(folder: Path) -> int:
    try:
        return os.open(folder / NAME, os.O_RDWR | os.O_CREAT, 0o666)
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(folder)) from None  # nobody knows the lock by its name


def _is_file_of(file: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(file), path.stat())
    except FileNotFoundError:
        return False


def _forget() -> None:
    """In a forked process: the lock is its parent's, and shall not outlive that for the sake of a loader's worker."""
    for file in _held.values():
        os.close(file)
    _held.clear()


os.register_at_fork(after_in_child=_forget)
