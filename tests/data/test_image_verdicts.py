"""What cannot be used is found, remembered, and not looked for twice."""

import errno
import json
import threading

import pytest

from frugalseg.data import image_verdicts
from frugalseg.data.image_files import find_images
from frugalseg.data.image_verdicts import judge
from frugalseg.errors import DiskFullError, ImageError
from tests.data.image_folder import touch_later, write_bad_ones, write_folder, write_image


@pytest.fixture
def reads(monkeypatch):
    """Paths of the images that were read."""
    seen = []
    for name in ("read_image", "image_size"):
        real = getattr(image_verdicts, name)
        monkeypatch.setattr(image_verdicts, name, lambda path, real=real: (seen.append(path.name), real(path))[1])
    return seen


@pytest.fixture
def folder(tmp_path):
    return write_folder(tmp_path / "images", 300)


def look(root, tmp_path, **settings):
    return judge(root, find_images(root, "train"), tmp_path / "verdicts", **settings)


def test_every_kind_is_found(tmp_path):
    root = write_folder(tmp_path / "images", 5)
    wanted = write_bad_ones(root)
    write_image(root / "fits.jpg", 32, 500)
    found = look(root, tmp_path)
    assert found.left_out.keys() == wanted.keys()
    for name, word in wanted.items():
        assert word in found.left_out[name]
        assert str(root) not in found.left_out[name]
    assert (found.checked, found.files) == (5 + len(wanted) + 1,) * 2


def test_headers_show_less_and_trust_shows_nothing(tmp_path):
    root = write_folder(tmp_path / "images", 2)
    wanted = write_bad_ones(root)
    missed = {"cut.jpg", "cut.png", "cut.bmp"}  # the header of a WebP says how long it is
    assert look(root, tmp_path, verify="header").left_out.keys() == wanted.keys() - missed
    trusted = look(root, tmp_path, verify="none")
    assert (trusted.left_out, trusted.checked) == ({}, trusted.files)
    assert not trusted.path.exists()


def test_the_next_start_reads_nothing(folder, tmp_path, reads):
    (folder / "00007.jpg").write_bytes(b"broken")
    first = look(folder, tmp_path)
    assert len(reads) == 300
    assert look(folder, tmp_path) == first
    assert len(reads) == 300
    assert [path.name for path in (tmp_path / "verdicts").iterdir()] == [first.path.name]
    kept = json.loads(first.path.read_text())
    assert kept["left_out"] == first.left_out
    assert (kept["root"], kept["verify"], kept["min_side"]) == (str(folder), "decode", 32)


@pytest.mark.parametrize(
    "change",
    [
        lambda root: touch_later(root / "00003.jpg"),
        lambda root: (root / "00003.jpg").write_bytes(b"other"),
        lambda root: (root / "00003.jpg").rename(root / "renamed.jpg"),
        lambda root: (root / "00003.jpg").unlink(),
        lambda root: write_image(root / "more.jpg"),
    ],
)
def test_a_changed_folder_is_read_again(folder, tmp_path, reads, change):
    before = look(folder, tmp_path).path
    change(folder)
    assert look(folder, tmp_path).path != before
    assert len(reads) >= 2 * 299


def test_other_demands_are_another_question(folder, tmp_path):
    write_image(folder / "small.jpg", 20, 20)
    assert list(look(folder, tmp_path).left_out) == ["small.jpg"]
    assert not look(folder, tmp_path, min_side=20).left_out
    assert len(look(folder, tmp_path, min_side=37).left_out) == 301
    assert len(list((tmp_path / "verdicts").iterdir())) == 3


def test_stopped_and_continued(folder, tmp_path, reads, monkeypatch):
    """Ctrl-C comes after the second of five chunks: they are kept, and not read again."""
    for name in ("00010.jpg", "00250.jpg"):
        (folder / name).write_bytes(b"broken")

    def stop(done, total):
        if done >= 128:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        look(folder, tmp_path, progress=stop)
    assert threading.active_count() < 20
    (kept,) = (tmp_path / "verdicts").glob("*.json")
    assert json.loads(kept.read_text())["checked"] == 128
    assert list(json.loads(kept.read_text())["left_out"]) == ["00010.jpg"]
    reads.clear()
    found = look(folder, tmp_path)
    assert sorted(reads) == [f"{number:05d}.jpg" for number in range(128, 300)]
    assert list(found.left_out) == ["00010.jpg", "00250.jpg"]
    assert found.checked == 300


@pytest.mark.parametrize(
    "content", ["", "{", "[]", '{"checked": 300}', '{"checked": 900, "left_out": {}, "files": 300}', '{"left_out": 3}']
)
def test_a_damaged_verdict_is_no_verdict(folder, tmp_path, content, reads):
    found = look(folder, tmp_path)
    found.path.write_text(content)
    assert look(folder, tmp_path) == found
    assert len(reads) == 600


def test_a_long_look_is_written_now_and_then(folder, tmp_path, monkeypatch):
    """So that a process that is killed loses half a minute."""
    monkeypatch.setattr(image_verdicts, "_SAVE_EVERY", 0.0)
    seen = []

    def note(done, total):
        seen.extend(json.loads(path.read_text())["checked"] for path in (tmp_path / "verdicts").glob("*.json"))

    look(folder, tmp_path, progress=note)
    assert seen == [64, 128, 192, 256]


def test_what_the_system_refuses_is_not_remembered(folder, tmp_path, monkeypatch):
    """Rights and failing disks say nothing about an image."""
    real = image_verdicts.Path.read_bytes

    def refused(self):
        if self.name == "00100.jpg":
            raise PermissionError(errno.EACCES, "Permission denied", str(self))
        return real(self)

    with monkeypatch.context() as patched:
        patched.setattr(image_verdicts.Path, "read_bytes", refused)
        with pytest.raises(ImageError, match=r"00100\.jpg.*Permission denied"):
            look(folder, tmp_path)
    assert not look(folder, tmp_path).left_out


def test_a_full_disk_leaves_no_half_verdict(folder, tmp_path, monkeypatch):
    def full(self, stream, *_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(image_verdicts.Path, "replace", full)
    with pytest.raises(DiskFullError, match="the disk is full"):
        look(folder, tmp_path)
    assert list((tmp_path / "verdicts").iterdir()) == []


def test_progress_is_said_now_and_then(folder, tmp_path, monkeypatch, caplog):
    caplog.set_level("INFO")
    monkeypatch.setattr(image_verdicts, "_SAY_EVERY", 0.0)
    look(folder, tmp_path)
    assert f"{folder}: looked at 64 of 300 images, " in caplog.text
    assert f"{folder}: looked at 300 of 300 images, 0 s left" in caplog.text


def test_several_threads_give_what_one_gives(folder, tmp_path, monkeypatch):
    for number in range(0, 300, 40):
        (folder / f"{number:05d}.jpg").write_bytes(b"broken")
    monkeypatch.setattr(image_verdicts, "cores", lambda _: 7)
    many = look(folder, tmp_path / "many")
    monkeypatch.setattr(image_verdicts, "cores", lambda _: 1)
    alone = look(folder, tmp_path / "alone")
    assert list(many.left_out.items()) == list(alone.left_out.items())
