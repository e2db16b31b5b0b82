"""`python -m tests.studies.decoding`: which decoder, which scaled decoding, which form of a cache.

Times are CPU milliseconds an image, the median of interleaved rounds in one process; files lie in the page cache unless it says cold.
Libraries that are no requirement of the package (simplejpeg, lmdb, webdataset) are left out where they cannot be imported:
put a folder that has them on PYTHONPATH. Writes one JSON and prints it as tables in Markdown.
"""

import argparse
import io
import json
import os
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from hashlib import sha256
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torchvision.io import ImageReadMode, decode_jpeg

from frugalseg.data.io import read_image
from tests.benchmark.measure import interleave
from tests.conftest import REAL

Pixels = NDArray[np.uint8]
Decode = Callable[[bytes], Pixels]
CROP, SIDE = 512, (1024, 2048)
FLAGS = cv2.IMREAD_COLOR_RGB | cv2.IMREAD_IGNORE_ORIENTATION
REDUCED = {2: cv2.IMREAD_REDUCED_GRAYSCALE_2, 4: cv2.IMREAD_REDUCED_GRAYSCALE_4, 8: cv2.IMREAD_REDUCED_GRAYSCALE_8}
"""Together with `IMREAD_COLOR_RGB`: the flags named REDUCED_COLOR say BGR, and both at once are refused."""


def optional(name: str) -> Any:
    """A module, or None."""
    try:
        return import_module(name)
    except (ImportError, OSError):
        return None


def genuine(limit: int) -> dict[str, list[bytes]]:
    """Kind -> encoded files: genuine ones, and Cityscapes frames saved as JPEG for the want of other big JPEGs."""
    kinds = {
        "VOC 500x375 JPEG": "VOCdevkit/VOC2012/JPEGImages/*.jpg",
        "COCO 640x480 JPEG": "coco/*2017/*.jpg",
        "Cityscapes 2048x1024 PNG": "cityscapes/leftImg8bit/train/*/*.png",
    }
    files = {kind: [path.read_bytes() for path in sorted(REAL.glob(at))[:limit]] for kind, at in kinds.items()}
    files["2048x1024 JPEG (of that PNG)"] = [as_jpeg(Image.open(io.BytesIO(b))) for b in files[list(kinds)[-1]]]
    return {kind: found for kind, found in files.items() if found}


def as_jpeg(image: Image.Image) -> bytes:
    stream = io.BytesIO()
    image.convert("RGB").save(stream, "JPEG", quality=92)
    return stream.getvalue()


def by_pillow(data: bytes, factor: int = 1) -> Pixels:
    with Image.open(io.BytesIO(data)) as image:
        if factor > 1:
            image.draft("RGB", (image.width // factor, image.height // factor))
        return np.asarray(image.convert("RGB"))


def by_opencv(data: bytes, factor: int = 1) -> Pixels:
    flags = FLAGS if factor == 1 else FLAGS | REDUCED[factor]
    return np.asarray(cv2.imdecode(np.frombuffer(data, np.uint8), flags))


def by_torchvision(data: bytes) -> Pixels:
    encoded = torch.frombuffer(bytearray(data), dtype=torch.uint8)
    return decode_jpeg(encoded, mode=ImageReadMode.RGB).permute(1, 2, 0).contiguous().numpy()


def decoders() -> dict[str, Decode]:
    """Name and version -> decoder of JPEG."""
    found: dict[str, Decode] = {
        f"Pillow {version('pillow')}": by_pillow,
        f"OpenCV {cv2.__version__}": by_opencv,
        f"torchvision {version('torchvision')}": by_torchvision,
    }
    if (simple := optional("simplejpeg")) is not None:
        found[f"simplejpeg {version('simplejpeg')}"] = lambda data: simple.decode_jpeg(data, "RGB")
        found["simplejpeg, fast DCT and upsampling"] = lambda data: simple.decode_jpeg(
            data, "RGB", fastdct=True, fastupsample=True
        )
    return found


def each(work: Callable[[Any], object], items: Sequence[Any]) -> None:
    for item in items:
        work(item)


def milliseconds(sides: dict[str, Callable[[], object]], images: int, rounds: int) -> dict[str, float]:
    """CPU milliseconds an image of each side."""
    times = interleave(sides, rounds)
    return {name: round(1000 * median(cpu for _, cpu in found) / images, 3) for name, found in times.items()}


def compare_decoders(files: dict[str, list[bytes]], rounds: int) -> list[dict[str, Any]]:
    """Time and equality with Pillow of each decoder on each kind of file."""
    rows = []
    for kind, encoded in files.items():
        known = {k: f for k, f in decoders().items() if "JPEG" in kind or k.startswith(("Pillow", "OpenCV"))}
        whole = {name: partial(each, decode, encoded) for name, decode in known.items()}
        cropped = {f"{name} crop": partial(each, lambda d, f=f: crop(f(d)), encoded) for name, f in known.items()}
        spent = milliseconds({**whole, **cropped}, len(encoded), rounds)
        for name, decode in known.items():
            apart = [difference(decode(data), by_pillow(data)) for data in encoded]
            rows.append({
                "images": kind, "decoder": name, "ms": spent[name], "ms_crop": spent[f"{name} crop"],
                "per_cpu_second": round(1000 / spent[name]), "identical": f"{apart.count(0)}/{len(apart)}", "largest": max(apart),
            })  # fmt: skip
    return rows


def crop(pixels: Pixels) -> Pixels:
    """The upper left 512x512, copied as a training item copies it."""
    return pixels[:CROP, :CROP].copy()


def difference(found: Pixels, expected: Pixels) -> int:
    """Largest difference of a pixel; 256 where the sizes differ."""
    return int(np.abs(found.astype(int) - expected).max()) if found.shape == expected.shape else 256


def compare_scaled(files: dict[str, list[bytes]], rounds: int) -> list[dict[str, Any]]:
    """Time of decoding at 1/2, 1/4, 1/8, and how far the pixels are from a box average of the whole image."""
    rows = []
    for kind, encoded in files.items():
        if "JPEG" not in kind:
            continue
        for factor in (1, 2, 4, 8):
            both = {"p": partial(by_pillow, factor=factor), "o": partial(by_opencv, factor=factor)}
            sides: dict[str, Callable[[], object]] = {name: partial(each, f, encoded) for name, f in both.items()}
            spent = milliseconds(sides, len(encoded), rounds)
            same = sum(difference(by_opencv(d, factor), by_pillow(d, factor)) == 0 for d in encoded)
            apart = [averaged_difference(by_opencv(d, factor), by_opencv(d), factor) for d in encoded]
            rows.append({
                "images": kind, "scale": f"1/{factor}", "ms_pillow": spent["p"], "ms_opencv": spent["o"],
                "identical": f"{same}/{len(encoded)}", "mean_difference_to_box_average": round(float(np.mean(apart)), 2),
            })  # fmt: skip
    return rows


def averaged_difference(small: Pixels, whole: Pixels, factor: int) -> float:
    """Mean absolute difference in grey levels, where the average has all its pixels."""
    h, w = whole.shape[0] // factor, whole.shape[1] // factor
    mean = whole[: h * factor, : w * factor].reshape(h, factor, w, factor, 3).mean((1, 3))
    return float(np.abs(small[:h, :w] - mean).mean())


class Stores:
    """Decoded images in every form that is compared, in a folder of their own."""

    def __init__(self, folder: Path, encoded: Sequence[bytes], suffix: str) -> None:
        self.folder, self.images = folder, [np.ascontiguousarray(by_opencv(data)) for data in encoded]
        self.sources = [folder / f"s{i}{suffix}" for i in range(len(encoded))]
        self.plain = [folder / f"p{i}.npy" for i in range(len(encoded))]
        self.quick = [folder / f"q{i}.png" for i in range(len(encoded))]
        self.offsets = np.cumsum([0, *(image.nbytes for image in self.images)])
        for number, (data, pixels) in enumerate(zip(encoded, self.images, strict=True)):
            self.sources[number].write_bytes(data)
            np.save(self.plain[number], pixels)
            cv2.imwrite(str(self.quick[number]), pixels, [cv2.IMWRITE_PNG_COMPRESSION, 1])
        (folder / "packed").write_bytes(b"".join(image.tobytes() for image in self.images))
        self.packed = np.memmap(folder / "packed", np.uint8, "r")
        self.lmdb = self._lmdb()
        self._tar()

    def _lmdb(self) -> Any:
        if (lmdb := optional("lmdb")) is None:
            return None
        base = lmdb.open(str(self.folder / "lmdb"), map_size=2 * int(self.offsets[-1]) + (64 << 20))
        with base.begin(write=True) as transaction:
            for number, pixels in enumerate(self.images):
                transaction.put(b"%d" % number, pixels.tobytes())
        base.close()
        return lmdb.open(str(self.folder / "lmdb"), readonly=True, lock=False, readahead=False).begin(buffers=True)

    def _tar(self) -> None:
        if (web := optional("webdataset")) is not None:
            with web.TarWriter(str(self.folder / "samples.tar")) as writer:
                for number, pixels in enumerate(self.images):
                    writer.write({"__key__": f"{number:06d}", "npy": pixels})

    def readers(self, order: Sequence[int]) -> dict[str, Callable[[], list[Pixels]]]:
        """Form -> reading all images into arrays of their own; the tar alone keeps its order."""

        def mapped(number: int) -> Pixels:
            return np.load(self.plain[number], mmap_mode="r")

        def packed(number: int) -> Pixels:
            return self.packed[self.offsets[number] : self.offsets[number + 1]].reshape(self.images[number].shape)

        found = {
            "source, decoded by OpenCV": lambda: [by_opencv(self.sources[i].read_bytes()) for i in order],
            "npy, one file an image": lambda: [np.load(self.plain[i]) for i in order],
            "npy, mapped": lambda: [np.array(mapped(i)) for i in order],
            "npy, mapped, crop of 512": lambda: [crop(mapped(i)) for i in order],
            "one packed file, mapped": lambda: [np.array(packed(i)) for i in order],
            "one packed file, mapped, crop of 512": lambda: [crop(packed(i)) for i in order],
            "PNG of level 1": lambda: [by_opencv(self.quick[i].read_bytes()) for i in order],
        }  # fmt: skip
        if self.lmdb is not None:
            found["LMDB"] = lambda: [self._record(i).copy() for i in order]
            found["LMDB, crop of 512"] = lambda: [crop(self._record(i)) for i in order]
        if (self.folder / "samples.tar").is_file():
            web = optional("webdataset")
            found["WebDataset tar, in its order"] = lambda: [
                s["npy"] for s in web.WebDataset(str(self.folder / "samples.tar"), shardshuffle=False).decode()
            ]
        return found

    def _record(self, number: int) -> Pixels:
        return np.frombuffer(self.lmdb.get(b"%d" % number), np.uint8).reshape(self.images[number].shape)

    def size_of(self, form: str) -> int:
        """Bytes on disk of a form."""
        files = {"source": self.sources, "npy": self.plain, "PNG": self.quick, "one": [self.folder / "packed"]}
        files |= {"LMDB": [self.folder / "lmdb" / "data.mdb"], "WebDataset": [self.folder / "samples.tar"]}
        return sum(path.stat().st_size for path in files[form.split(",")[0].split()[0]])

    def forget(self) -> None:
        """Drop the files from the page cache; what is mapped stays, so mapped forms are not timed cold."""
        os.sync()
        for path in self.folder.rglob("*"):
            if path.is_file():
                with path.open("rb") as stream:
                    os.posix_fadvise(stream.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def compare_caches(files: dict[str, list[bytes]], rounds: int) -> list[dict[str, Any]]:
    """CPU time warm, wall time cold, and bytes of each form."""
    rows = []
    for kind in [kind for kind in files if "COCO" not in kind]:
        with tempfile.TemporaryDirectory() as folder:
            stores = Stores(Path(folder), files[kind], ".png" if kind.endswith("PNG") else ".jpg")
            count = len(files[kind])
            readers = stores.readers(np.random.default_rng(0).permutation(count).tolist())
            spent = milliseconds(dict(readers), count, rounds)
            for form, read in readers.items():
                row = {
                    "images": kind,
                    "form": form,
                    "ms": spent[form],
                    "kB": round(stores.size_of(form) / count / 1000),
                }
                if "mapped" not in form and "LMDB" not in form:
                    stores.forget()
                    began = time.perf_counter()
                    read()
                    row["ms_cold_wall"] = round(1000 * (time.perf_counter() - began) / count, 2)
                rows.append(row)
    return rows


def compare_keys(files: dict[str, list[bytes]], rounds: int) -> list[dict[str, Any]]:
    """What it costs to know that a cached image is that of its source: its bytes' SHA-256, or size and time."""
    rows = []
    for kind, encoded in files.items():
        with tempfile.TemporaryDirectory() as folder:
            paths = [Path(folder) / str(i) for i in range(len(encoded))]
            for path, data in zip(paths, encoded, strict=True):
                path.write_bytes(data)
            sides: dict[str, Callable[[], object]] = {
                "ms_of_bytes": lambda paths=paths: [sha256(path.read_bytes()).hexdigest() for path in paths],
                "ms_of_stat": lambda paths=paths: [
                    sha256(repr((str(path), (s := path.stat()).st_size, s.st_mtime_ns)).encode()).hexdigest()
                    for path in paths
                ],
                "ms_read_image": lambda paths=paths: [read_image(path) for path in paths],
            }
            rows.append({"images": kind, **milliseconds(sides, len(paths), rounds)})
    return rows


def table(rows: Sequence[dict[str, Any]]) -> str:
    """Rows in Markdown."""
    keys = list(dict.fromkeys(key for row in rows for key in row))
    lines = [f"| {' | '.join(keys)} |", "|" + "---|" * len(keys)]
    return "\n".join([*lines, *(f"| {' | '.join(str(row.get(key, '-')) for key in keys)} |" for row in rows)]) + "\n"


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.studies.decoding", description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("runs/decoding.json"), help="JSON that is written")
    parser.add_argument("--images", type=int, default=60, help="files of each kind, at most")
    parser.add_argument("--rounds", type=int, default=5)
    given = parser.parse_args(argv)
    cv2.setNumThreads(0)
    torch.set_num_threads(1)
    files = genuine(given.images)
    if not files:
        parser.error(f"no genuine images at {REAL}; set FRUGALSEG_REAL_DATA")
    found = {
        name: work(files, given.rounds)
        for name, work in (("decoders", compare_decoders), ("scaled", compare_scaled), ("caches", compare_caches), ("keys", compare_keys))
    }  # fmt: skip
    given.out.parent.mkdir(parents=True, exist_ok=True)
    given.out.write_text(json.dumps({"images": {k: len(v) for k, v in files.items()}, **found}, indent=1) + "\n")
    for name, rows in found.items():
        print(f"## {name}\n\n{table(rows)}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
