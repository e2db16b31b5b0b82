"""Archives: valid ones and ones of bad will, damaged, into a folder that must hold whole files alone."""

import bz2
import gzip
import io
import lzma
import stat
import tarfile
import zipfile
from pathlib import Path
from random import Random

from frugalseg.data.unpack import Bounds, unpack
from tests.fuzz.kind import Kind
from tests.fuzz.mutate import damaged

BOUNDS = Bounds(size=2_000_000, files=50, ratio=100, small=100_000)
NAMES = (
    "a/b.jpg", "a/c.png", "../x", "/x", "a/../../x", "a\\b", "C:x", "a\0b", "a/b.jpg/c", "a", ".", "..", "a/./b", "a//b", "x" * 300,
    "a/" * 100 + "b", "\u202egpj.exe", "．．/x", "\x1b[31m", "\ud800", "é", "A/B.jpg", "a/", "con", "~", "-rf", " ", "a\nb", "d/e",
)  # fmt: skip
LINKS = (
    "a/b.jpg",
    "b.jpg",
    "../x",
    "/etc/passwd",
    "a",
    "l",
    "../a/b.jpg",
    "",
    ".",
    "a/../a/b.jpg",
    "\0",
    "l/b.jpg",
    "x" * 5000,
)
TYPES = (tarfile.REGTYPE,) * 6 + (
    tarfile.DIRTYPE, tarfile.SYMTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE, tarfile.GNUTYPE_SPARSE, b"?"
)  # fmt: skip


def _content(rng: Random) -> bytes:
    return rng.choice((b"", b"x" * 10, rng.randbytes(700), bytes(300_000), bytes(5000)))


def a_tar(rng: Random, plain: bool = False) -> bytes:
    stream = io.BytesIO()
    form = rng.choice((tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT))
    with tarfile.open(fileobj=stream, mode="w", format=form) as archive:
        for _ in range(rng.choice((1, 2, 4, 60))):
            info = tarfile.TarInfo(rng.choice(NAMES[:3] if rng.random() < 0.6 else NAMES))
            info.type = rng.choice(TYPES)
            content = _content(rng) if info.isreg() else b""
            info.size = len(content)
            info.linkname = rng.choice(LINKS) if info.issym() or info.islnk() else ""
            try:
                archive.addfile(info, io.BytesIO(content))
            except (ValueError, UnicodeError):  # a name that this form cannot hold
                continue
    data = stream.getvalue()
    if plain:
        return data
    if rng.random() < 0.15:
        data = _claims(data, rng)
    return rng.choice((bytes, gzip.compress, gzip.compress, bz2.compress, lzma.compress))(data)


def _claims(data: bytes, rng: Random) -> bytes:
    """A first header of a type whose body is read at once, with a size that is not there; its checksum is right."""
    header = bytearray(data[:512])
    header[156:157] = rng.choice((b"L", b"K", b"x", b"g", b"S", b"0"))
    header[124:136] = rng.choice(
        (b"77777777777\0", b"\x80" + b"\0" * 6 + b"\x7f" * 5, b"\xff" * 12, b"-0000000001\0", b"00077777777\0")
    )
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    return bytes(header) + data[512:]


def a_zip(rng: Random) -> bytes:
    stream = io.BytesIO()
    how = rng.choice((zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA))
    with zipfile.ZipFile(stream, "w", how) as archive:
        for _ in range(rng.choice((1, 2, 4, 60))):
            info = zipfile.ZipInfo(
                rng.choice(NAMES[:3] if rng.random() < 0.6 else NAMES).encode("utf-8", "replace").decode()
            )
            info.compress_type = how
            kind = rng.choice((0,) * 6 + (stat.S_IFLNK, stat.S_IFIFO, stat.S_IFREG, stat.S_IFDIR))
            info.external_attr = kind << 16
            content = rng.choice(LINKS).encode() if kind == stat.S_IFLNK else _content(rng)
            archive.writestr(info, content)
    return stream.getvalue()


def nothing(_folder: Path) -> None:
    return None


def try_archive(_seed: None, place: Path, rng: Random) -> None:
    packed = rng.random() < 0.5
    data = a_zip(rng) if packed else a_tar(rng)
    if rng.random() < 0.5:
        data = damaged(data, rng)
    archive, root = place / ("x.zip" if packed else rng.choice(("x.tar", "x.tgz", "x.tar.gz"))), place / "root"
    archive.write_bytes(data)
    if rng.random() < 0.1:
        (place / "elsewhere").mkdir()
        root.mkdir()
        (root / "a").symlink_to(rng.choice(("../elsewhere", "a", "/", "missing")))
    before = {path for path in place.rglob("*") if not path.is_relative_to(root)}
    try:
        unpack(archive, root, bounds=BOUNDS)
    finally:
        outside = {path for path in place.rglob("*") if not path.is_relative_to(root)} - before
        assert not outside, f"written outside: {outside}"
        files = (
            [path for path in root.rglob("*") if path.is_file()]
            if root.is_dir() and not (root / "a").is_symlink()
            else []
        )
        assert sum(path.stat().st_size for path in files) <= BOUNDS.size and len(files) <= BOUNDS.files


KINDS = (Kind("archives", "zip, tar, tar.gz", 1400, nothing, try_archive),)
