"""Archives of ill will: bombs, headers that lie, links, names; one line each, and nothing is written."""

import bz2
import gzip
import io
import lzma
import os
import resource
import stat
import struct
import tarfile
import zipfile

import pytest

from frugalseg.cli import main
from frugalseg.data.sources import SOURCES
from frugalseg.data.unpack import Bounds, unpack
from frugalseg.errors import DownloadError
from tests.data.test_unpack import pack, refusal, tar_entry, tree, zip_entry

KINDS = [".zip", ".tar", ".tar.gz"]
TIGHT = Bounds(size=10_000, files=5, ratio=10, small=100)


def limited(archive, root, bounds=TIGHT):
    """The message of a refusal for its size."""
    with pytest.raises(DownloadError) as caught:
        unpack(archive, root, bounds=bounds)
    assert not root.exists()
    message = str(caught.value)
    assert message.startswith(f"{archive}: ") and "\n" not in message and "nothing was unpacked" in message
    return message


@pytest.mark.parametrize("kind", KINDS)
def test_at_the_bounds(tmp_path, kind):
    files = {f"{n}": os.urandom(2000) for n in range(5)}
    assert unpack(pack(tmp_path / f"x{kind}", files), tmp_path / "a", bounds=TIGHT) == 5
    assert "more than 5 entries" in limited(pack(tmp_path / f"x{kind}", {**files, "6": b""}), tmp_path / "b")
    files["4"] += b"x"
    message = limited(pack(tmp_path / f"x{kind}", files), tmp_path / "b")
    assert "10,001 bytes" in message and "--max-bytes 10001" in message


@pytest.mark.parametrize("kind", [".zip", ".tar.gz"])
def test_ratios(tmp_path, kind):
    message = limited(pack(tmp_path / f"x{kind}", {"a": bytes(9_000)}), tmp_path / "root")
    assert "as bombs do" in message
    assert unpack(pack(tmp_path / f"y{kind}", {"a": bytes(90)}), tmp_path / "root", bounds=TIGHT) == 1


def test_what_is_published_passes():
    """The defaults are far beyond every archive that we fetch."""
    largest = max(source.size or 0 for sources in SOURCES.values() for source in sources)
    assert Bounds().size > 3 * largest and Bounds().files > 5 * 118_288


def test_a_real_bomb_is_refused_before_it_is_unpacked(tmp_path):
    """A gigabyte in a megabyte, in each form, with the defaults; memory does not grow with it."""
    block, before = bytes(1 << 24), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    info = tarfile.TarInfo("a")
    info.size = 1 << 29
    for suffix, opener in ((".tar.gz", gzip.open), (".tgz", bz2.open)):
        with opener(tmp_path / f"x{suffix}", "wb") as stream:
            stream.write(info.tobuf())
            for _ in range(4):
                stream.write(block)
    with zipfile.ZipFile(tmp_path / "x.zip", "w", zipfile.ZIP_DEFLATED) as archive, archive.open("a", "w") as stream:
        for _ in range(4):
            stream.write(block)
    for suffix in (".tar.gz", ".tgz", ".zip"):
        assert "as bombs do" in limited(tmp_path / f"x{suffix}", tmp_path / "root", Bounds())
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 150_000  # KiB


def test_links_count_as_the_copies_that_they_become(tmp_path):
    links = [tar_entry(f"l{n}", tarfile.LNKTYPE, "a") for n in range(3)]
    assert "bytes or more" in limited(pack(tmp_path / "x.tar", {"a": os.urandom(4000)}, links), tmp_path / "root")


@pytest.mark.parametrize("kind", [b"L", b"K", b"x", b"g"])
def test_headers_that_claim_all_memory(tmp_path, kind):
    """tarfile reads a long name at once, however long it claims to be."""
    info = tarfile.TarInfo("x")
    info.type, info.size = kind, 6 << 30
    data = info.tobuf(tarfile.GNU_FORMAT) + bytes(1 << 20)
    for suffix, packer in ((".tar", bytes), (".tar.gz", gzip.compress), (".tgz", lzma.compress)):
        (tmp_path / f"x{suffix}").write_bytes(packer(data))
        assert "claims to be" in refusal(tmp_path / f"x{suffix}", tmp_path / "root")


def test_a_sparse_file_that_is_mostly_holes(tmp_path):
    """GNU's form: a file of a terabyte in one block."""
    info = tarfile.TarInfo("a")
    header = bytearray(info.tobuf(tarfile.GNU_FORMAT))
    header[156:157] = b"S"
    header[483:495] = b"\x80" + struct.pack(">Q", 1 << 40).rjust(11, b"\0")
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    (tmp_path / "x.tar").write_bytes(bytes(header) + bytes(10240))
    limited(tmp_path / "x.tar", tmp_path / "root", Bounds())


def test_an_end_that_never_comes(tmp_path):
    """Zeros behind the end of a tar, packed by the million."""
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w"):
        pass
    with gzip.open(tmp_path / "x.tar.gz", "wb", 1) as packed:
        packed.write(stream.getvalue())
        for _ in range(5):
            packed.write(bytes(1 << 24))
    assert "behind its end" in refusal(tmp_path / "x.tar.gz", tmp_path / "root")


NAMES = {
    "backslash": "a\\b", "drive": "C:evil", "drive of one letter": "z:/x", "root": "/x", "parent": "a/../../x", "itself": "a/..",
    "wide dots": "．．/x", "wide slash": "．．／x", "one dot leader": "\u2025/x", "right to left": "a\u202egpj.exe", "escape": "a\x1b[2J",
    "line": "a\nb", "delete": "a\x7f", "next line": "a\x85b", "isolate": "a\u2066b",
}  # fmt: skip


@pytest.mark.parametrize("kind", [".zip", ".tar"])
@pytest.mark.parametrize("name", NAMES)
def test_names(tmp_path, kind, name):
    message = refusal(pack(tmp_path / f"x{kind}", {"ok": b"a", NAMES[name]: b"b"}), tmp_path / "root")
    assert "leads outside" in message and message.isprintable()


@pytest.mark.parametrize("kind", [".zip", ".tar"])
@pytest.mark.parametrize("name", ["x" * 231, "é" * 120, "a/" * 2100 + "b", "d" * 300 + "/x"])
def test_names_that_no_disk_takes(tmp_path, kind, name):
    message = refusal(pack(tmp_path / f"x{kind}", {"ok": b"a", name: b"b"}), tmp_path / "root")
    assert "more than a disk takes" in message and len(message) < 500


@pytest.mark.parametrize("kind", [".zip", ".tar"])
@pytest.mark.parametrize("names", [("a", "a/b"), ("a/b", "a"), ("a/b/c", "a/b"), ("a/b", "a/b/")])
def test_a_file_where_a_folder_is_wanted(tmp_path, kind, names):
    extra = [tar_entry(name.rstrip("/"), tarfile.DIRTYPE) for name in names if name.endswith("/")]
    extra = [zip_entry(name) for name in names if name.endswith("/")] if kind == ".zip" else extra
    files = {name: b"x" for name in names if not name.endswith("/")}
    assert "a file and a folder" in refusal(pack(tmp_path / f"x{kind}", files, extra), tmp_path / "root")


@pytest.mark.parametrize("kind", [".zip", ".tar"])
def test_a_file_on_the_disk_where_a_folder_is_wanted(tmp_path, kind):
    root = tmp_path / "root"
    root.mkdir()
    (root / "a").write_text("mine")
    with pytest.raises(DownloadError, match="is a file where") as caught:
        unpack(pack(tmp_path / f"x{kind}", {"b": b"1", "a/b/c": b"x"}), root)
    assert "\n" not in str(caught.value)
    assert tree(root) == {"a": b"mine"}


def test_a_link_on_the_disk_that_leads_to_itself(tmp_path):
    root = tmp_path / "root"
    root.mkdir()
    (root / "a").symlink_to("a")
    with pytest.raises(DownloadError, match="is a link"):
        unpack(pack(tmp_path / "x.tar", {"a/b": b"x"}), root)
    assert [path.name for path in root.iterdir()] == ["a"]


def test_names_twice(tmp_path):
    """In a zip readers differ on which counts; of a tar the last does, everywhere."""
    with pytest.warns(UserWarning, match="Duplicate"):
        archive = pack(tmp_path / "x.zip", {"a": b"one"}, [zip_entry("a", content=b"two")])
    assert "in it twice" in refusal(archive, tmp_path / "root")
    with tarfile.open(tmp_path / "x.tar", "w") as tar:
        for content in (b"one", b"three"):
            info = tarfile.TarInfo("a")
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    assert unpack(tmp_path / "x.tar", tmp_path / "root") == 1
    assert tree(tmp_path / "root") == {"a": b"three"}


LINKS = {
    "loop": [("a", "b"), ("b", "a")], "itself": [("a", "a")], "absolute": [("a", "/etc/passwd")], "folder": [("a", "inside")],
    "chain out": [("a", ".."), ("b", "a/x")], "nothing": [("a", "")], "far": [("a", "x/" * 3000)], "null": [("a", "b\0c")],
}  # fmt: skip


@pytest.mark.parametrize("name", LINKS)
def test_links_in_tars(tmp_path, name):
    for kind in (tarfile.SYMTYPE, tarfile.LNKTYPE):
        entries = [tar_entry(own, kind, target) for own, target in LINKS[name]]
        message = refusal(pack(tmp_path / "x.tar", {"inside/a": b"a"}, entries), tmp_path / "root")
        assert len(message) < 1000


@pytest.mark.parametrize("name", LINKS)
def test_links_in_zips(tmp_path, name):
    entries = [zip_entry(own, stat.S_IFLNK, target.encode()) for own, target in LINKS[name]]
    refusal(pack(tmp_path / "x.zip", {"inside/a": b"a"}, entries), tmp_path / "root")


def test_a_link_that_is_no_text(tmp_path):
    refusal(
        pack(tmp_path / "x.zip", {"inside/a": b"a"}, [zip_entry("l", stat.S_IFLNK, b"\xff\xfe")]), tmp_path / "root"
    )


def test_a_chain_of_links_to_a_file(tmp_path):
    """Each becomes a copy."""
    entries = [tar_entry("b", tarfile.SYMTYPE, "inside/a"), tar_entry("c", tarfile.LNKTYPE, "b")]
    assert unpack(pack(tmp_path / "x.tar", {"inside/a": b"a"}, entries), tmp_path / "root") == 3
    assert tree(tmp_path / "root") == {"inside/a": b"a", "b": b"a", "c": b"a"}
    assert not any(path.is_symlink() for path in (tmp_path / "root").rglob("*"))


@pytest.mark.parametrize("method", [1, 6, 9, 97, 99])
def test_methods_that_nobody_knows(tmp_path, method):
    archive = pack(tmp_path / "x.zip", {"a": b"a" * 100})
    data = bytearray(archive.read_bytes())
    for mark, place in ((b"PK\x03\x04", 8), (b"PK\x01\x02", 10)):
        start = data.index(mark) + place
        data[start : start + 2] = method.to_bytes(2, "little")
    archive.write_bytes(data)
    assert f"method {method}" in refusal(archive, tmp_path / "root")


def test_encryption_is_seen_before_anything_is_written(tmp_path):
    archive = pack(tmp_path / "x.zip", {"a": b"a" * 100, "b": b"b"})
    data = bytearray(archive.read_bytes())
    for mark, place in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        data[data.rindex(mark) + place] |= 1
    archive.write_bytes(data)
    assert "encrypted" in refusal(archive, tmp_path / "root")


def test_the_words_of_data_get(tmp_path, capsys):
    assert main(["data", "get", "voc", "--root", str(tmp_path), "--list", "--max-bytes", "1", "--max-files", "2"]) == 0
    with pytest.raises(SystemExit):
        main(["data", "get", "voc", "--root", str(tmp_path), "--max-bytes", "many"])
    assert "--max-bytes" in capsys.readouterr().err
