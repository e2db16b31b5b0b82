import errno
import hashlib
import json
import logging
import os
from pathlib import Path
from types import SimpleNamespace

import pooch
import pytest

from frugalseg.data import fetch as module
from frugalseg.data.fetch import check_space, fetch, in_units, writing
from frugalseg.data.sources import Source
from frugalseg.errors import DiskFullError, DownloadError
from tests.data.web import Served, serve

CONTENT = bytes(range(256)) * 2000  # 512,000 bytes; every place is told from its neighbours
OTHER = CONTENT[::-1]
NAME = "data.bin"


@pytest.fixture
def web():
    with serve() as running:
        yield running


@pytest.fixture(autouse=True)
def _quick(monkeypatch):
    monkeypatch.setattr(module, "PAUSE", 0.0)
    monkeypatch.setattr(module, "CHUNK", 10_000)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")


@pytest.fixture
def source(web):
    """Serve content under `/data.bin` and describe it."""

    def build(content=CONTENT, digest=CONTENT, size=512_000, **settings):
        web.files[f"/{NAME}"] = Served(content, **settings)
        return Source(web.url(f"/{NAME}"), NAME, digest and f"sha256:{hashlib.sha256(digest).hexdigest()}", size)

    return build


def one_line(caught) -> str:
    message = str(caught.value)
    assert "\n" not in message
    return message


def left(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_fetch(source, web, tmp_path):
    seen = []
    path = fetch(source(), tmp_path / "new/folder", lambda *numbers: seen.append(numbers))
    assert path == tmp_path / "new/folder" / NAME
    assert path.read_bytes() == CONTENT
    assert left(path.parent) == [NAME]
    assert seen[-1] == (len(CONTENT), len(CONTENT))
    assert [done for done, _ in seen] == sorted({done for done, _ in seen})
    assert web.ranges() == [None]
    assert web.requests[0][2]["Accept-Encoding"] == "identity"
    umask = os.umask(0)
    os.umask(umask)
    assert path.stat().st_mode & 0o777 == 0o666 & ~umask  # readable for the group, unlike temporary files


def test_a_file_that_is_there_and_right_is_not_asked_for(source, web, tmp_path):
    (tmp_path / NAME).write_bytes(CONTENT)
    assert fetch(source(), tmp_path).read_bytes() == CONTENT
    assert web.requests == []


def test_a_file_that_is_there_and_wrong_is_replaced(source, tmp_path):
    (tmp_path / NAME).write_bytes(b"half a downlo")
    assert fetch(source(), tmp_path).read_bytes() == CONTENT


def test_a_dropped_connection_continues(source, web, tmp_path, caplog):
    caplog.set_level(logging.INFO)
    path = fetch(source(drops=[200_000, 200_000]), tmp_path)
    assert path.read_bytes() == CONTENT
    assert web.ranges() == [None, "bytes=200000-", "bytes=400000-"]
    assert [headers.get("If-Range") for _, _, headers in web.requests] == [None, '"one"', '"one"']
    assert "data.bin: stopped at 200.00 kB" in caplog.text
    assert left(tmp_path) == [NAME]


def test_a_connection_that_always_drops_ends_and_a_second_command_continues(source, web, tmp_path):
    flaky = source(drops=[50_000], forever=True)
    with pytest.raises(DownloadError) as caught:
        fetch(flaky, tmp_path)
    assert "the connection broke 5 times, 250.00 kB are here" in one_line(caught)
    assert "run the same command again" in one_line(caught)
    assert left(tmp_path) == [f"{NAME}.part", f"{NAME}.part.json"]
    web.files[f"/{NAME}"].drops.clear()
    web.requests.clear()
    assert fetch(flaky, tmp_path).read_bytes() == CONTENT
    assert web.ranges() == ["bytes=250000-"]


def test_connections_that_bring_much_are_no_failures(source, monkeypatch, tmp_path):
    monkeypatch.setattr(module, "WORTH", 50_000)
    assert fetch(source(drops=[50_000], forever=True), tmp_path).read_bytes() == CONTENT


def test_a_server_that_ignores_ranges_restarts(source, web, tmp_path):
    path = fetch(source(ranges=False, drops=[300_000]), tmp_path)
    assert path.read_bytes() == CONTENT
    assert web.ranges() == [None, "bytes=300000-"]


def test_no_server_at_all(tmp_path):
    with serve() as web:
        gone = Source(web.url("/x"), NAME, None, None)
    with pytest.raises(DownloadError, match="the connection broke 5 times, 0 bytes are here"):
        fetch(gone, tmp_path)


@pytest.mark.parametrize(
    "change",
    [
        {"etag": '"two"'},
        {"etag": 'W/"two"', "ranges": True},
        {"etag": None, "headers": {"Last-Modified": "Tue, 02 Jan 2024 00:00:00 GMT"}},
    ],
)
def test_a_file_that_changed_meanwhile_is_fetched_anew(source, web, tmp_path, change):
    flaky = source(drops=[100_000], forever=True)
    with pytest.raises(DownloadError):
        fetch(flaky, tmp_path)
    changed = source(OTHER, OTHER, **change)
    assert fetch(changed, tmp_path).read_bytes() == OTHER


def test_a_server_that_ignores_if_range_is_found_out(source, web, tmp_path):
    # the mark on the disk has no validator to send, so the answer is 206, with an ETag that was not there before
    flaky = source(drops=[100_000], forever=True, etag=None)
    with pytest.raises(DownloadError):
        fetch(flaky, tmp_path)
    web.requests.clear()
    assert fetch(source(OTHER, OTHER, etag='"two"'), tmp_path).read_bytes() == OTHER
    assert web.ranges() == ["bytes=500000-", None]


@pytest.mark.parametrize("modified", [None, "Tue, 02 Jan 2024 00:00:00 GMT"])
def test_a_weak_etag_is_not_sent(source, web, tmp_path, modified):
    # it stands for files that mean the same, not for the same bytes
    headers = {"Last-Modified": modified} if modified else {}
    assert fetch(source(etag='W/"one"', drops=[200_000], headers=headers), tmp_path).read_bytes() == CONTENT
    assert web.ranges() == [None, "bytes=200000-"]
    assert web.requests[1][2].get("If-Range") == modified


@pytest.mark.parametrize("digest", [CONTENT, None])
def test_a_drop_without_a_length_is_no_end(source, web, tmp_path, digest):
    # such a connection ends like a whole file; the published size says that it is none
    dropped = source(digest=digest, sized=False, drops=[200_000])
    assert fetch(dropped, tmp_path).read_bytes() == CONTENT
    assert web.ranges() == [None, "bytes=200000-"]


def test_a_part_of_a_longer_file_is_dropped(source, web, tmp_path):
    flaky = source(drops=[100_000], forever=True, etag=None)
    with pytest.raises(DownloadError):
        fetch(flaky, tmp_path)
    short = source(OTHER[:1000], OTHER[:1000], 1000, etag=None)
    web.requests.clear()
    assert fetch(short, tmp_path).read_bytes() == OTHER[:1000]
    assert web.ranges() == ["bytes=500000-", None]


@pytest.mark.parametrize(
    "note", [None, "{", "[]", '{"url": "other", "etag": null, "modified": null, "length": 512000}']
)
def test_a_part_without_a_fitting_note_is_not_trusted(source, web, tmp_path, note):
    (tmp_path / f"{NAME}.part").write_bytes(b"?" * 1000)
    if note:
        (tmp_path / f"{NAME}.part.json").write_text(note)
    assert fetch(source(), tmp_path).read_bytes() == CONTENT
    assert web.ranges() == [None]


def test_a_wrong_checksum_leaves_nothing(source, tmp_path):
    with pytest.raises(DownloadError) as caught:
        fetch(source(digest=OTHER), tmp_path)
    assert "not what was published, removed (SHA256 hash" in one_line(caught)
    assert hashlib.sha256(CONTENT).hexdigest() in one_line(caught)
    assert left(tmp_path) == []


def test_a_wrong_size_is_refused_before_the_transfer(source, tmp_path):
    with pytest.raises(DownloadError, match=r"is 512000 bytes long, but 512001 were published"):
        fetch(source(size=len(CONTENT) + 1), tmp_path)
    assert left(tmp_path) == []


def test_a_wrong_size_without_a_length(source, tmp_path):
    with pytest.raises(DownloadError, match=r"is 512000 bytes long, but 1000 were published"):
        fetch(source(size=1000, sized=False), tmp_path)
    assert left(tmp_path) == []


def test_neither_size_nor_checksum_is_published(source, tmp_path):
    assert fetch(source(digest=None, size=None, sized=False), tmp_path).read_bytes() == CONTENT


@pytest.mark.parametrize("code", [403, 404, 410])
def test_a_file_that_is_gone(source, web, tmp_path, code):
    with pytest.raises(DownloadError) as caught:
        fetch(source(statuses=[code]), tmp_path)
    assert one_line(caught).startswith(f"{web.url('/' + NAME)}: HTTP {code}")
    assert f"put {NAME} from elsewhere into {tmp_path}" in one_line(caught)
    assert len(web.requests) == 1


def test_a_server_that_is_busy_is_asked_again(source, web, tmp_path):
    assert fetch(source(statuses=[503, 429, 200]), tmp_path).read_bytes() == CONTENT
    assert len(web.requests) == 3


def test_a_packed_file_stays_packed(source, tmp_path):
    # as web servers describe a .tgz; unpacking it on the way would break its checksum
    assert fetch(source(headers={"Content-Encoding": "x-gzip"}), tmp_path).read_bytes() == CONTENT


def test_an_address_that_is_none(tmp_path):
    with pytest.raises(DownloadError, match="cannot be fetched"):
        fetch(Source("nowhere", NAME, None, None), tmp_path)


def test_too_little_space_is_seen_before(source, monkeypatch, tmp_path):
    monkeypatch.setattr(module.shutil, "disk_usage", lambda _: SimpleNamespace(free=1000))
    with pytest.raises(DiskFullError, match=r"512.00 kB are needed and 1.00 kB are free"):
        fetch(source(), tmp_path)
    assert not (tmp_path / f"{NAME}.part").exists()


class _Full:
    """A file on a disk on which `room` bytes are left."""

    def __init__(self, file, room, code):
        self.file, self.room, self.code = file, room, code

    def write(self, chunk):
        if len(chunk) > self.room:
            raise OSError(self.code, os.strerror(self.code))
        self.room -= len(chunk)
        return self.file.write(chunk)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.file.close()


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_keeps_what_came_and_continues(source, web, monkeypatch, tmp_path, code):
    genuine = Path.open

    def full(path, mode="r", *rest, **more):
        file = genuine(path, mode, *rest, **more)
        return _Full(file, 100_000, code) if mode == "ab" else file

    with monkeypatch.context() as patch:
        patch.setattr(Path, "open", full)
        with pytest.raises(DiskFullError) as caught:
            fetch(source(), tmp_path)
    assert one_line(caught).startswith(f"{tmp_path}: the disk or your quota is full (")
    assert (tmp_path / f"{NAME}.part").stat().st_size == 100_000
    web.requests.clear()
    assert fetch(source(), tmp_path).read_bytes() == CONTENT
    assert web.ranges() == ["bytes=100000-"]


def test_stopped_by_the_user_and_continued(source, web, tmp_path):
    def stop(done, _):
        if done == 100_000:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fetch(source(), tmp_path, stop)
    assert left(tmp_path) == [f"{NAME}.part", f"{NAME}.part.json"]
    assert fetch(source(), tmp_path).read_bytes() == CONTENT
    assert web.ranges() == [None, "bytes=100000-"]


def test_stopped_while_checking_loses_nothing(source, web, monkeypatch, tmp_path):
    def stop(*_, **__):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(pooch.core, "hash_matches", stop)
        with pytest.raises(KeyboardInterrupt):
            fetch(source(), tmp_path)
    assert left(tmp_path) == [f"{NAME}.part", f"{NAME}.part.json"]
    assert json.loads((tmp_path / f"{NAME}.part.json").read_text())["length"] == len(CONTENT)
    web.requests.clear()
    assert fetch(source(), tmp_path).read_bytes() == CONTENT
    assert web.requests == []


def test_without_hard_links(source, monkeypatch, tmp_path):
    def refuse(*_):
        raise OSError(errno.EPERM, "no links here")

    monkeypatch.setattr(module.os, "link", refuse)
    assert fetch(source(), tmp_path).read_bytes() == CONTENT
    assert left(tmp_path) == [NAME]


def test_a_folder_that_cannot_be_made(source, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(DownloadError, match="cannot be written"):
        fetch(source(), tmp_path / "file" / "folder")


def test_writing_names_the_nearest_disk(tmp_path):
    with pytest.raises(DiskFullError, match=r"free\)"), writing(tmp_path / "not" / "there"):
        raise OSError(errno.ENOSPC, "full")


def test_check_space(tmp_path):
    check_space(tmp_path, 0)
    with pytest.raises(DiskFullError, match="are needed"):
        check_space(tmp_path, 1 << 60)


def test_units():
    sizes = [0, 999, 1000, 2_500_000, 1_999_639_040]
    assert [in_units(n) for n in sizes] == ["0 bytes", "999 bytes", "1.00 kB", "2.50 MB", "2.00 GB"]
