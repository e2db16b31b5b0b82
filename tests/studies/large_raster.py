"""`python -m tests.studies.large_raster`: a large tiled GeoTIFF through `frugalseg segment`, in a process of its own.

The image (noise and gradients, RGB, tiles of 512, deflate) is written by parts, so that nothing here holds it whole
either. The net is a small DeepLab of random numbers with VOC's 21 classes: what is measured is reading, windows and
writing, and a user's net comes on top. Time and peak memory are those of the child, imports included. Afterwards some
windows are compared with what the net says of them by themselves, size and place with the image's, and areas with the
mask's pixels.

Writes one JSON to `--out`.
"""

import argparse
import json
import os
import resource
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import numpy as np

import frugalseg
from frugalseg.commands.segment_work import OVERLAP, WINDOW
from frugalseg.predictor.windows import ArraySource, Windows
from frugalseg.predictor.windows_raster import RasterSource, import_rasterio
from frugalseg.run import write_json
from tests.benchmark.rows import machine
from tests.commands.segmenting import photo, write_segmenter

TILE, STEP = 512, 4096
PLACE = (0.3, 0.0, 500_000.0, 0.0, -0.3, 5_400_000.0)
"""Pixels of 0.3 m in a UTM zone."""
CHECKED = 12
"""Windows that are compared."""


def write_scene(path: Path, side: int) -> None:
    """Write the image by parts."""
    rasterio = import_rasterio()
    base = photo(min(STEP, side), min(STEP, side), seed=1)
    profile = {"driver": "GTiff", "height": side, "width": side, "count": 3, "dtype": "uint8", "photometric": "rgb"}
    profile |= {"tiled": True, "blockxsize": TILE, "blockysize": TILE, "compress": "deflate", "zlevel": 1}
    place = {"crs": "EPSG:32632", "transform": rasterio.Affine(*PLACE)}
    with rasterio.Env(GDAL_CACHEMAX=2**27), rasterio.open(path, "w", bigtiff="if_safer", **place, **profile) as file:
        for number, top in enumerate(range(0, side, TILE)):
            rows = min(TILE, side - top)
            for left in range(0, side, STEP):
                columns = min(STEP, side - left)
                # another part of the base, in another order of channels
                shifted = np.roll(base, (-top - 37 * number, -left // 7), axis=(0, 1))[:rows, :columns]
                part = shifted[..., np.roll(np.arange(3), number + left // STEP)].transpose(2, 0, 1)
                file.write(part, window=((top, top + rows), (left, left + columns)))


def measure(words: Sequence[str], threads: int) -> dict[str, Any]:
    """Seconds and peak memory of a command in a process of its own."""
    # settings of the allocator that tests run with are none of a user's
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MALLOC_")}
    environment["OMP_NUM_THREADS"] = str(threads)
    began, load = time.monotonic(), os.getloadavg()[0]
    child = subprocess.Popen([sys.executable, "-m", "frugalseg", *words], env=environment)
    _, status, usage = os.wait4(child.pid, 0)
    child.returncode = os.waitstatus_to_exitcode(status)
    scale = 1 if sys.platform == "darwin" else 1024
    return {
        "seconds": round(time.monotonic() - began, 1),
        "cpu_seconds": round(usage.ru_utime + usage.ru_stime, 1),
        "peak_bytes": usage.ru_maxrss * scale,
        "load_before": round(load, 1),
        "exit": child.returncode,
    }


def check(scene: Path, out: Path, checkpoint: Path, windows: Windows) -> dict[str, Any]:
    """Compare what was written with the image and the net."""
    rasterio, mask = import_rasterio(), out / "masks" / f"{scene.stem}.tif"
    net = frugalseg.load(checkpoint)
    rng = np.random.default_rng(0)
    with rasterio.open(mask) as ids, rasterio.open(scene) as image:
        area = json.loads((out / "areas.json").read_text())["images"][scene.stem]
        side, cuts = image.height, windows.cuts(image.height)
        wrong = 0
        for row, column in ((cuts[i], cuts[j]) for i, j in rng.integers(0, len(cuts), (CHECKED, 2))):
            whole = ((row.window.begin, row.window.end), (column.window.begin, column.window.end))
            answer = net(ArraySource(image.read(window=whole).transpose(1, 2, 0)).pixels.copy())
            core = ((row.core.begin, row.core.end), (column.core.begin, column.core.end))
            inside = [
                slice(cut.core.begin - cut.window.begin, cut.core.end - cut.window.begin) for cut in (row, column)
            ]
            wrong += int((ids.read(1, window=core) != answer[tuple(inside)]).sum())
        return {
            "windows_compared": CHECKED,
            "pixels_that_differ": wrong,
            "same_size": (ids.height, ids.width) == (side, image.width),
            "same_place": ids.crs == image.crs and ids.transform == image.transform,
            "areas_sum_to_pixels": sum(each["pixels"] for each in area["areas"]) == side * image.width,
            "mask_bytes": mask.stat().st_size,
        }


def main(argv: Sequence[str] | None = None) -> int:
    """Make the image, segment it, compare, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--side", type=int, default=20_000)
    parser.add_argument("--window", type=int, default=WINDOW)
    parser.add_argument("--overlap", type=int, default=OVERLAP)
    parser.add_argument("--threads", type=int, default=1, help="of the net")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--keep", type=Path, help="folder for image and results; a temporary one, removed, without it")
    options = parser.parse_args(argv)
    folder = options.keep or Path(mkdtemp(prefix="frugalseg-raster-"))
    try:
        scene, checkpoint = folder / "scene.tif", write_segmenter(folder / "run")
        write_scene(scene, options.side)
        words = [
            "segment",
            str(scene),
            "--checkpoint",
            str(checkpoint),
            "--out",
            str(folder / "out"),
            "--device",
            "cpu",
        ]
        words += ["--window", str(options.window), "--overlap", str(options.overlap)]
        found = measure(words, options.threads)
        if found["exit"]:
            return int(found["exit"])
        with RasterSource(scene) as source:
            windows = Windows(options.window, options.overlap, frugalseg.load(checkpoint).multiple)
            count = windows.count(source.height, source.width)
        pixels = options.side**2
        found |= {"side": options.side, "pixels": pixels, "image_bytes": scene.stat().st_size, "windows": count}
        found |= {"window": options.window, "overlap": options.overlap, "threads": options.threads}
        found |= {"megapixels_per_second": round(pixels / 1e6 / found["seconds"], 3)}
        found |= {"checks": check(scene, folder / "out", checkpoint, windows)}
        write_json(options.out, {**found, "machine": machine(), "own_peak_bytes": own_peak()})
    finally:
        if options.keep is None:
            shutil.rmtree(folder, ignore_errors=True)
    print(f"{options.out}: {found['seconds']} s, {found['peak_bytes'] / 2**30:.2f} GiB, {count} windows")
    return 0


def own_peak() -> int:
    """Peak memory of this process, which made the image and compared."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


if __name__ == "__main__":
    sys.exit(main())
