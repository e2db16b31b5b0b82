"""Listing COCO 2014's training split: the first start, which parses the instances json, and every later one."""

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from frugalseg.data.coco_index import index
from frugalseg.data.coco_names import CATEGORY_IDS, NAMES
from frugalseg.data.lists import read_ids
from tests.benchmark.measure import REPOSITORY, Measured, _status, peak_memory

PER_IMAGE = 7.3
"""Annotations per image of train2014: 604,907 of 82,783."""


def write_coco(root: Path, images: int) -> None:
    """A root with empty files for images and a json with as many annotations per image as train2014 has.

    Polygons have 62 numbers, so that the whole json is as big as the genuine one, 333 MB.
    """
    rng = np.random.default_rng(0)
    ids = [int(name) for name in read_ids("coco14", "train_all")][:images]
    folder = root / "train2014"
    folder.mkdir(parents=True)
    for number in ids:
        (folder / f"COCO_train2014_{number:012d}.jpg").touch()
    listed = {f"COCO_train2014_{number:012d}" for number in ids}
    (root / "splits").mkdir()
    train = [name for name in read_ids("coco14", "train") if name in listed]
    (root / "splits" / "train.txt").write_text("\n".join(train))
    # images of the list have at least one annotation, the others have none
    owners = np.array([int(name[-12:]) for name in train])
    owners = np.concatenate([owners, rng.choice(owners, int(images * PER_IMAGE) - len(owners))])
    (root / "annotations").mkdir()
    with (root / "annotations" / "instances_train2014.json").open("w") as stream:
        stream.write('{"info": {}, "licenses": [], "images": [')
        stream.write(", ".join(_image(number) for number in ids))
        stream.write('], "annotations": [')
        categories = rng.choice(CATEGORY_IDS, len(owners)).tolist()
        polygons = [json.dumps([rng.uniform(0, 400, 62).round(2).tolist()]) for _ in range(500)]
        for place, (owner, category) in enumerate(zip(owners.tolist(), categories, strict=True)):
            stream.write(", " * (place > 0) + _annotation(place, owner, category, polygons[place % 500]))
        named = [{"id": c, "name": name, "supercategory": "x"} for c, name in zip(CATEGORY_IDS, NAMES, strict=True)]
        stream.write(f'], "categories": {json.dumps(named)}}}')


def _image(number: int) -> str:
    name = f"COCO_train2014_{number:012d}.jpg"
    return json.dumps({"license": 1, "file_name": name, "coco_url": f"http://images.cocodataset.org/train2014/{name}",
                       "height": 480, "width": 640, "date_captured": "2013-11-14 11:18:45", "id": number})  # fmt: skip


def _annotation(place: int, owner: int, category: int, polygons: str) -> str:
    return (
        f'{{"segmentation": {polygons}, "area": 120057.13, "iscrowd": 0, "image_id": {owner},'
        f' "bbox": [1.08, 187.69, 611.59, 285.84], "category_id": {category}, "id": {place}}}'
    )


def index_coco(quick: bool) -> dict[str, Measured]:
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder) / "coco"
        write_coco(root, 300 if quick else 82783)
        size = (root / "annotations" / "instances_train2014.json").stat().st_size / 1e6
        first, *later = (_start(root) for _ in range(2 if quick else 4))
    note = f"generated json of {size:.0f} MB"
    middle = sorted(later, key=lambda start: start["seconds"])[len(later) // 2]
    memory = {"first_start": first["process"], "listing": middle["megabytes"], "imports": middle["imports"]}
    return {
        "data.index_coco": Measured(middle["seconds"], note, {"seconds": [start["seconds"] for start in later]}),
        "data.index_coco_memory": Measured(middle["process"], note, memory),
        "data.index_coco_first": Measured(first["seconds"], note),
    }


def _start(root: Path) -> dict[str, float]:
    """One start in a fresh process, see `main`."""
    command = [sys.executable, "-m", "tests.benchmark.coco", str(root)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "XDG_CACHE_HOME": str(root.parent / "cache")}
    done = subprocess.run(command, cwd=REPOSITORY, env=environment, capture_output=True, text=True, check=True)
    figures: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return figures


def main(root: Path) -> dict[str, float]:
    """Seconds of listing, MB by which it raises the peak, and peaks of imports and process in MB."""
    imports = _status("VmHWM")
    seconds = []

    def listing() -> None:
        start = time.perf_counter()
        samples = index(root, "train")
        seconds.append(time.perf_counter() - start)
        if not all(sample.tags for sample in samples):
            raise RuntimeError("an image without labels")

    peak = peak_memory(listing)
    process = max(imports, _status("VmHWM"))
    return {"seconds": round(seconds[0], 3), **{
        key: round(value / 1e6, 1) for key, value in (("megabytes", peak), ("imports", imports), ("process", process))
    }}  # fmt: skip


if __name__ == "__main__":
    print(json.dumps(main(Path(sys.argv[1]))))
