import errno
import io
import os
import stat
import tarfile
import zipfile
from pathlib import Path

import pytest

from frugalseg.data import fetch
from frugalseg.data.unpack import unpack
from frugalseg.errors import DiskFullError, DownloadError

FILES = {
    "VOC/Images/a.jpg": b"a" * 3000,
    "VOC/Images/b.jpg": b"b" * 10,
    "VOC/list.txt": b"",
    "c.bin": os.urandom(50_000),
}
KINDS = [".zip", ".tar", ".tar.gz", ".tgz"]
SMALL = {"inside/a": b"a"}


def pack(path: Path, files=FILES, extra=()) -> Path:
    """Write an archive of files and of `extra` entries (ZipInfo with content, or TarInfo)."""
    if path.suffix == ".zip":
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, content in files.items():
                archive.writestr(name, content)
            for info, content in extra:
                archive.writestr(info, content)
        return path
    with tarfile.open(path, "w:gz" if path.name.endswith("gz") else "w") as archive:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
        for info in extra:
            archive.addfile(info)
    return path


def zip_entry(name, mode=0, content=b"", orig=None):
    info = zipfile.ZipInfo(name)
    info.external_attr = mode << 16
    return info, content


def tar_entry(name, kind=tarfile.REGTYPE, link=""):
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, link
    return info


def tree(root: Path) -> dict[str, bytes]:
    return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def refusal(archive: Path, root: Path) -> str:
    """The message of a refusal, which must come before anything is written."""
    with pytest.raises(DownloadError) as caught:
        unpack(archive, root)
    assert not root.exists() or list(root.iterdir()) == []
    message = str(caught.value)
    assert "\n" not in message
    assert message.startswith(f"{archive}: ")
    return message


@pytest.mark.parametrize("kind", KINDS)
def test_unpack(tmp_path, kind):
    seen = []
    archive, root = pack(tmp_path / f"x{kind}"), tmp_path / "root"
    assert unpack(archive, root, lambda *numbers: seen.append(numbers)) == len(FILES)
    assert tree(root) == FILES
    assert seen == [(n, len(FILES)) for n in range(1, len(FILES) + 1)]
    assert unpack(archive, root) == 0


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_missing_or_cut_is_written_and_nothing_else(tmp_path, kind):
    archive, root = pack(tmp_path / f"x{kind}"), tmp_path / "root"
    unpack(archive, root)
    (root / "c.bin").write_bytes(b"half")
    (root / "VOC/Images/b.jpg").unlink()
    old = (root / "VOC/Images/a.jpg").stat().st_mtime_ns
    assert unpack(archive, root) == 2
    assert tree(root) == FILES
    assert (root / "VOC/Images/a.jpg").stat().st_mtime_ns == old


@pytest.mark.parametrize("kind", KINDS)
def test_an_interrupted_unpacking_continues(tmp_path, kind):
    archive, root = pack(tmp_path / f"x{kind}"), tmp_path / "root"

    def stop(done, _):
        if done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        unpack(archive, root, stop)
    assert len(tree(root)) == 2
    assert unpack(archive, root) == len(FILES) - 2
    assert tree(root) == FILES


def test_empty_folders_are_made(tmp_path):
    unpack(pack(tmp_path / "x.tar", {}, [tar_entry("./a/b", tarfile.DIRTYPE)]), tmp_path / "tar")
    unpack(pack(tmp_path / "x.zip", {}, [zip_entry("a/b/")]), tmp_path / "zip")
    assert (tmp_path / "tar/a/b").is_dir()
    assert (tmp_path / "zip/a/b").is_dir()


BAD_NAMES = ["../evil", "a/../../evil", "/tmp/evil", "C:evil", "C:\\evil", "a\\..\\..\\evil", "..", "a/.."]


@pytest.mark.parametrize("name", BAD_NAMES)
@pytest.mark.parametrize("kind", KINDS)
def test_names_that_lead_outside(tmp_path, kind, name):
    entry = zip_entry(name, content=b"!") if kind == ".zip" else tar_entry(name)
    archive = pack(tmp_path / f"x{kind}", SMALL, [entry])
    assert f"{name!r} leads outside the folder" in refusal(archive, tmp_path / "root")


@pytest.mark.parametrize("kind", KINDS)
def test_a_null_byte_in_a_name(tmp_path, kind):
    """Some readers end the name there, others go on: what is checked would not be what is written."""
    archive = tmp_path / f"x{kind}"
    if kind == ".zip":
        pack(archive, SMALL, [zip_entry("inside/evilX.sh", content=b"!")])
        archive.write_bytes(archive.read_bytes().replace(b"evilX", b"evil\0"))
    else:
        entry = tar_entry("inside/evil")
        entry.pax_headers = {"path": "inside/evil\0.sh"}
        pack(archive, SMALL, [entry])
    assert r"'inside/evil\x00.sh' leads outside" in refusal(archive, tmp_path / "root")


@pytest.mark.parametrize("name", ["../evil/", "/tmp/evil/"])
def test_folders_that_lead_outside(tmp_path, name):
    assert "leads outside" in refusal(pack(tmp_path / "x.zip", SMALL, [zip_entry(name)]), tmp_path / "root")
    entry = tar_entry(name, tarfile.DIRTYPE)
    assert "leads outside" in refusal(pack(tmp_path / "x.tar", SMALL, [entry]), tmp_path / "root")


OUTSIDE = ["/etc/passwd", "../../etc/passwd", "../..", "C:\\x"]


@pytest.mark.parametrize("target", OUTSIDE)
def test_links_that_lead_outside(tmp_path, target):
    entries = {
        "zip": zip_entry("inside/link", stat.S_IFLNK | 0o777, target.encode()),
        "tar": tar_entry("inside/link", tarfile.SYMTYPE, target),
        "tgz": tar_entry("inside/link", tarfile.LNKTYPE, target),
    }
    for kind, entry in entries.items():
        archive = pack(tmp_path / f"x.{kind}", SMALL, [entry])
        assert "'inside/link' leads outside the folder" in refusal(archive, tmp_path / "root")


def test_a_link_to_a_folder_and_a_file_behind_it(tmp_path):
    # the classic escape: first a link to elsewhere, then a file that goes through it
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    archive = pack(tmp_path / "x.tar", {}, [tar_entry("d", tarfile.SYMTYPE, str(elsewhere)), tar_entry("d/evil")])
    assert "leads outside" in refusal(archive, tmp_path / "root")
    assert list(elsewhere.iterdir()) == []


def test_links_to_nothing_in_the_archive(tmp_path):
    archive = pack(tmp_path / "x.tar", SMALL, [tar_entry("link", tarfile.SYMTYPE, "inside")])
    assert "the link 'link' leads to 'inside', which is no file of the archive" in refusal(archive, tmp_path / "root")


def test_links_inside_become_copies(tmp_path):
    soft, hard = tar_entry("inside/s", tarfile.SYMTYPE, "a"), tar_entry("h", tarfile.LNKTYPE, "inside/a")
    assert unpack(pack(tmp_path / "x.tar", SMALL, [soft, hard]), tmp_path / "tar") == 3
    assert tree(tmp_path / "tar") == {"inside/a": b"a", "inside/s": b"a", "h": b"a"}
    assert not (tmp_path / "tar/inside/s").is_symlink()
    link = zip_entry("s", stat.S_IFLNK | 0o777, b"./inside/a")
    assert unpack(pack(tmp_path / "x.zip", SMALL, [link]), tmp_path / "zip") == 2
    assert tree(tmp_path / "zip") == {"inside/a": b"a", "s": b"a"}


@pytest.mark.parametrize("kind", [tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE])
def test_devices_and_pipes(tmp_path, kind):
    archive = pack(tmp_path / "x.tar", SMALL, [tar_entry("inside/dev", kind)])
    assert "inside/dev is a device or a pipe" in refusal(archive, tmp_path / "root")


def test_a_pipe_in_a_zip(tmp_path):
    archive = pack(tmp_path / "x.zip", SMALL, [zip_entry("inside/fifo", stat.S_IFIFO)])
    assert "inside/fifo is a device or a pipe" in refusal(archive, tmp_path / "root")


@pytest.mark.parametrize("kind", [".zip", ".tar"])
def test_links_on_the_disk_let_nothing_escape(tmp_path, kind):
    root, elsewhere = tmp_path / "root", tmp_path / "elsewhere"
    for folder in (root, elsewhere):
        folder.mkdir()
    (root / "VOC").symlink_to(elsewhere)
    with pytest.raises(DownloadError, match=f"is a link to {elsewhere}.*, outside"):
        unpack(pack(tmp_path / f"x{kind}"), root)
    assert tree(root) == tree(elsewhere) == {}


def test_a_link_on_the_disk_that_stays_inside(tmp_path):
    root = tmp_path / "root"
    (root / "real").mkdir(parents=True)
    (root / "VOC").symlink_to(root / "real")
    unpack(pack(tmp_path / "x.zip"), root)
    assert (root / "real/Images/b.jpg").read_bytes() == FILES["VOC/Images/b.jpg"]


def test_a_link_in_the_place_of_a_file_is_replaced_and_not_followed(tmp_path):
    root, victim = tmp_path / "root", tmp_path / "victim"
    root.mkdir()
    victim.write_bytes(b"mine")
    (root / "c.bin").symlink_to(victim)
    unpack(pack(tmp_path / "x.tar"), root)
    assert victim.read_bytes() == b"mine"
    assert tree(root) == FILES


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("share", [0.02, 0.5, 0.8])
def test_a_cut_archive(tmp_path, kind, share):
    archive = pack(tmp_path / f"x{kind}")
    whole = archive.read_bytes()
    archive.write_bytes(whole[: int(len(whole) * share)])
    message = refusal(archive, tmp_path / "root")
    assert "not a whole archive (" in message
    assert "delete it and run the command again" in message


def test_a_tar_cut_where_a_header_should_be(tmp_path):
    # tarfile itself takes this for the end of the archive
    archive = pack(tmp_path / "x.tar")
    with tarfile.open(archive) as tar:
        second = tar.getmembers()[1].offset
    for end in (second, second + 100):
        cut = tmp_path / f"cut{end}.tar"
        cut.write_bytes(archive.read_bytes()[:end])
        assert "its end is missing" in refusal(cut, tmp_path / "root")


@pytest.mark.parametrize("content", [b"", b"<html>please log in</html>", b"PK"])
@pytest.mark.parametrize("kind", KINDS)
def test_no_archive_at_all(tmp_path, kind, content):
    archive = tmp_path / f"x{kind}"
    archive.write_bytes(content)
    assert "not a whole archive" in refusal(archive, tmp_path / "root")


def test_a_damaged_member_is_not_written(tmp_path):
    archive = tmp_path / "x.zip"
    with zipfile.ZipFile(archive, "w") as stored:  # not compressed, so that the flipped byte is found by its checksum
        stored.writestr("good", b"g")
        stored.writestr("bad", b"content")
    archive.write_bytes(archive.read_bytes().replace(b"content", b"cantent"))
    with pytest.raises(DownloadError, match="not a whole archive"):
        unpack(archive, tmp_path / "root")
    assert tree(tmp_path / "root") == {"good": b"g"}


def test_a_damaged_gz(tmp_path):
    archive = pack(tmp_path / "x.tgz")
    content = bytearray(archive.read_bytes())
    content[-5] ^= 1  # its checksum
    archive.write_bytes(content)
    assert "not a whole archive" in refusal(archive, tmp_path / "root")


def test_an_encrypted_member(tmp_path):
    archive = pack(tmp_path / "x.zip", SMALL)
    content = archive.read_bytes()
    for mark, place in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        at = content.index(mark) + place
        content = content[:at] + b"\x01" + content[at + 1 :]
    archive.write_bytes(content)
    with pytest.raises(DownloadError, match="encrypted"):
        unpack(archive, tmp_path / "root")
    assert tree(tmp_path / "root") == {}


@pytest.mark.parametrize("declared", [100, 5_000_100])
def test_another_size_than_a_zip_declares(tmp_path, declared):
    archive = tmp_path / "x.zip"
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as packed:
        packed.writestr("bomb", b"0" * 5_000_000)
    true, false = ((n).to_bytes(4, "little") for n in (5_000_000, declared))
    assert archive.read_bytes().count(true) == 2
    archive.write_bytes(archive.read_bytes().replace(true, false))
    with pytest.raises(DownloadError, match="not a whole archive"):
        unpack(archive, tmp_path / "root")
    assert tree(tmp_path / "root") == {}


def test_too_little_space_is_seen_before(tmp_path, monkeypatch):
    monkeypatch.setattr(fetch, "_free", lambda _: 10_000)
    with pytest.raises(DiskFullError, match=r"53.01 kB are needed and 10.00 kB are free"):
        unpack(pack(tmp_path / "x.zip"), tmp_path / "root")
    assert tree(tmp_path / "root") == {}


@pytest.mark.parametrize("kind", KINDS)
def test_a_full_disk_leaves_nothing_half_written(tmp_path, monkeypatch, kind):
    archive, root = pack(tmp_path / f"x{kind}"), tmp_path / "root"
    genuine = Path.replace

    def full(path, target):
        if Path(target).name == "b.jpg":
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return genuine(path, target)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", full)
        with pytest.raises(DiskFullError) as caught:
            unpack(archive, root)
    assert str(caught.value).startswith(str(root))
    assert "is full" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert tree(root) == {"VOC/Images/a.jpg": FILES["VOC/Images/a.jpg"]}
    assert unpack(archive, root) == len(FILES) - 1
    assert tree(root) == FILES


def test_a_folder_in_the_place_of_a_file(tmp_path):
    (tmp_path / "root/c.bin").mkdir(parents=True)
    with pytest.raises(DownloadError, match="cannot be written"):
        unpack(pack(tmp_path / "x.zip"), tmp_path / "root")
