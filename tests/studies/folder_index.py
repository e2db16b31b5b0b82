"""`python -m tests.studies.folder_index`: what it takes to list a folder of many photos with masks and tags.

Makes a folder of hard links to a few small files in several sub-folders, and lists it in fresh processes, one for each way.
`seconds` are from the start of the call to the last sample, `with_imports` from the start of the process, both by the wall
clock, `cpu_seconds` those that the call computes; `peak_mb` is the largest resident set of that process in 10^6 bytes,
`imports_mb` that before the call. The files have just been written, so that the folders' entries lie in memory, unless `--cold`
has the system drop its caches before each process, which slows whatever else runs there. Writes one JSON.
"""

import argparse
import csv
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

REPOSITORY = Path(__file__).parents[2]  # tests.conftest, which has it too, imports torch
CLASSES = tuple(f"class{number:02d}" for number in range(20))
FOLDERS, SOURCES = 50, 64
WAYS = ("index", "module", "digest", "images", "pair_up")
BEGIN = "FRUGALSEG_STUDY_BEGIN"


def write_folder(root: Path, images: int) -> Path:
    """A folder of links: images, masks, tags.csv, classes.txt."""
    rng = np.random.default_rng(0)
    for kind, suffix in (("images", "jpg"), ("masks", "png")):
        for number in range(SOURCES):
            path = root / f".sources/{number}.{suffix}"
            path.parent.mkdir(parents=True, exist_ok=True)
            shape = (48, 64, 3) if kind == "images" else (48, 64)
            Image.fromarray(rng.integers(0, len(CLASSES) + 1, shape, np.uint8)).save(path)
        for number in range(FOLDERS):
            (root / kind / f"day{number:03d}").mkdir(parents=True, exist_ok=True)
        for number in range(images):
            # a file system allows some 65,000 links to one file
            os.link(root / f".sources/{number % SOURCES}.{suffix}", root / kind / f"{name_of(number)}.{suffix}")
    (root / "classes.txt").write_text("\n".join(CLASSES))
    with (root / "tags.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["image", "tags"])
        for number, tags in enumerate(rng.integers(0, len(CLASSES), (images, 2)).tolist()):
            writer.writerow([f"{name_of(number)}.jpg", ";".join(CLASSES[tag] for tag in tags)])
    return root


def name_of(number: int) -> str:
    """Path of a photo without suffix."""
    return f"day{number % FOLDERS:03d}/IMG_{number:06d}"


def by_index(root: Path) -> Callable[[], int]:
    """The index alone, which needs neither torch nor Lightning."""
    from frugalseg.data.folder_files import find_layout
    from frugalseg.data.folder_index import Index, read_words

    def run() -> int:
        layout = find_layout(root)
        index = Index(layout, *read_words(layout))
        return sum(len(index.samples(split)) for split in ("train", "val"))

    return run


def by_module(root: Path) -> Callable[[], int]:
    """The data module, as a fit sets it up."""
    from frugalseg.data import Folder, Tags

    def run() -> int:
        data = Folder(root, Tags())
        data.setup("fit")
        return sum(data.split_sizes.values())

    return run


def by_digest(root: Path) -> Callable[[], int]:
    """What says whether a run is up to date: sizes of all files too."""
    from frugalseg.data.folder_files import files_digest, find_layout

    return lambda: len(files_digest(find_layout(root)))


def by_images(root: Path) -> Callable[[], int]:
    """The listing of `Images`, with sizes and times."""
    from frugalseg.data.image_files import find_images, unique_ids

    return lambda: len(unique_ids([file.name for file in find_images(root, "images")]))


def by_pair_up(root: Path) -> Callable[[], int]:
    """The pairing that the benchmarks use: VOC's layout is that of one sub-folder."""
    from frugalseg.data.folders import pair_up

    ids = [path.relative_to(root / "images").with_suffix("").as_posix() for path in (root / "images").rglob("*.jpg")]

    def run() -> int:
        paths = {kind: lambda name, top=root / kind, end=end: [top / f"{name}{end}"]
                 for kind, end in (("images", ".jpg"), ("masks", ".png"))}  # fmt: skip
        return len(pair_up(ids, paths["images"], paths["masks"], "the study", "nothing to mend"))

    return run


def measure_here(way: str, root: Path) -> dict[str, Any]:
    """Measure in this process, which has just started."""
    call = globals()[f"by_{way}"](root)
    imported, start, cpu = peak_mb(), time.time(), time.process_time()
    found = call()
    end, cpu = time.time(), time.process_time() - cpu
    return {
        "way": way,
        "found": found,
        "seconds": round(end - start, 2),
        "cpu_seconds": round(cpu, 2),
        "with_imports": round(end - float(os.environ[BEGIN]), 2),
        "peak_mb": peak_mb(),
        "imports_mb": imported,
    }


def peak_mb() -> int:
    """Largest resident set of this process so far, in 10^6 bytes."""
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6)


def measure(way: str, root: Path, cold: bool = False) -> dict[str, Any]:
    """Measure in a fresh process."""
    dropped = cold and drop_caches()
    command = [sys.executable, "-m", "tests.studies.folder_index", "--way", way, "--root", str(root)]
    environment = {**os.environ, BEGIN: str(time.time())}
    done = subprocess.run(command, cwd=REPOSITORY, env=environment, capture_output=True, text=True, check=True)
    return {**json.loads(done.stdout.splitlines()[-1]), "caches_dropped": dropped}


def drop_caches() -> bool:
    """Have the system forget files and folders, where it lets us."""
    try:
        os.sync()
        Path("/proc/sys/vm/drop_caches").write_text("3")
    except OSError:
        return False
    return True


def main(argv: list[str] | None = None) -> int:
    """Measure, and write what was found."""
    parser = argparse.ArgumentParser("folder_index", description=__doc__)
    parser.add_argument("--images", type=int, default=100_000)
    parser.add_argument("--out", type=Path, default=Path("runs/folder_index.json"))
    parser.add_argument("--cold", action="store_true", help="drop the system's caches first, where it lets us")
    parser.add_argument("--way", choices=WAYS, help="measure one way in this process, on --root")
    parser.add_argument("--root", type=Path)
    options = parser.parse_args(argv)
    if options.way:
        print(json.dumps(measure_here(options.way, options.root)))
        return 0
    from tests.benchmark.rows import machine  # imports torch, which the measured processes do without

    with tempfile.TemporaryDirectory(prefix="folder-index-") as top:
        root = write_folder(Path(top), options.images)
        about = machine()  # its load is that before the rows
        rows = [measure(way, root, options.cold) for way in WAYS]
    found = {"images": options.images, "masks": options.images, "rows": rows, "machine": about}
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(found, indent=2, default=str) + "\n")
    for row in rows:
        print(
            f"{row['way']:<8} {row['seconds']:6.2f} s ({row['cpu_seconds']:.2f} s CPU), {row['with_imports']:6.2f} s with"
            f" imports, {row['peak_mb']} MB ({row['imports_mb']} MB imports)"
        )
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
