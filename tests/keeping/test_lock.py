"""One process at a time in a run folder, however the others have ended."""

import errno
import fcntl
import logging
import os
import signal
import subprocess
import time

import pytest

from frugalseg.errors import RunFolderError
from frugalseg.keeping import hand_over, leave, lock, take


def in_child(work):
    """Fork; gives the child's exit code: 0, or 3 where a RunFolderError was raised."""
    if (process := os.fork()) == 0:
        code = 1
        try:
            work()
            code = 0
        except RunFolderError:
            code = 3
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])


@pytest.fixture
def folder(tmp_path):
    yield tmp_path
    leave(tmp_path)


def test_another_process_is_refused_until_the_first_lets_go(folder):
    take(folder)
    take(folder)  # its own stage may begin again
    assert in_child(lambda: take(folder)) == 3
    leave(folder)
    assert not (folder / lock.NAME).exists()
    assert in_child(lambda: take(folder)) == 0
    take(folder)


def test_the_refusal_names_the_process_in_one_line(folder):
    reader, writer = os.pipe()

    def hold():
        take(folder)
        os.write(writer, b"x")
        time.sleep(60)

    if (process := os.fork()) == 0:
        hold()
        os._exit(0)
    os.read(reader, 1)
    with pytest.raises(
        RunFolderError, match=rf"{folder}: another process works there \(process {process} on "
    ) as caught:
        take(folder)
    assert "\n" not in str(caught.value)
    os.kill(process, signal.SIGKILL)
    os.waitpid(process, 0)
    take(folder)  # the kernel has dropped it
    assert f"process {os.getpid()} " in (folder / lock.NAME).read_text()


def test_a_worker_that_outlives_its_parent_holds_nothing(folder):
    reader, writer = os.pipe()

    def parent():
        take(folder)
        if (worker := os.fork()) == 0:
            time.sleep(60)
            os._exit(0)
        program = subprocess.Popen(["sleep", "60"])
        os.write(writer, f"{worker} {program.pid}\n".encode())
        os.kill(os.getpid(), signal.SIGKILL)

    assert in_child(parent) == -signal.SIGKILL
    others = [int(word) for word in os.read(reader, 100).split()]
    try:
        take(folder)
    finally:
        for process in others:
            os.kill(process, signal.SIGKILL)


def test_a_lock_whose_file_was_taken_away_is_taken_anew(folder):
    take(folder)
    (folder / lock.NAME).unlink()
    take(folder)
    assert in_child(lambda: take(folder)) == 3


def test_a_moved_folder_is_let_go_and_the_new_one_held(tmp_path):
    folder, moved = tmp_path / "stage", tmp_path / "stage.old"
    folder.mkdir()
    take(folder)
    folder.rename(moved)
    hand_over(folder, moved)
    assert in_child(lambda: take(folder)) == 3 and in_child(lambda: take(moved)) == 0
    leave(folder)


@pytest.mark.parametrize("code", [errno.ENOSYS, errno.ENOTSUP, errno.ENOLCK])
def test_a_disk_without_locks_is_told_and_used(folder, monkeypatch, caplog, code):
    def unknown(file, how):
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(fcntl, "flock", unknown)
    with caplog.at_level(logging.WARNING):
        take(folder)
    assert [record.getMessage() for record in caplog.records] == [
        f"{folder}: its disk knows no locks, so see yourself that only one process works there"
    ]
    assert not list(folder.iterdir())


def test_a_folder_that_cannot_be_written_to_is_named(folder, monkeypatch):
    def refuse(path, *_):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))

    monkeypatch.setattr(os, "open", refuse)
    with pytest.raises(OSError, match="Permission denied") as caught:
        take(folder)
    assert caught.value.filename == str(folder)
