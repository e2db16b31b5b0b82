"""Instances jsons and folders of masks that are damaged, contradict themselves, or were left by a killed process."""

import json
import os
import shutil
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as rle

from frugalseg.data.coco_masks import SETTINGS, make_masks
from frugalseg.data.coco_tags import parse_instances
from frugalseg.data.io import read_mask
from frugalseg.errors import DatasetError
from tests.data.coco_files import OWN, box, runs, write_json

# pycocotools 2.0.11 under NumPy 2
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

SIZE = (10, 12)


@pytest.fixture
def source(tmp_path):
    return write_json(tmp_path, "train2014", [1, 2], [box(5, 1, 4, 0, 0, 4, 4), box(6, 2, 7, 0, 0, 4, 4)], OWN, SIZE)


def change(source, edit):
    content = json.loads(source.read_text())
    edit(content)
    source.write_text(json.dumps(content))


def corners(root):
    folder = root / "SegmentationClass" / "train2014"
    return [int(read_mask(path, 255)[0, 0]) for path in sorted(folder.glob("*.png"))]


def refused(call, *messages):
    with pytest.raises(DatasetError) as error:
        call()
    text = str(error.value)
    assert "\n" not in text
    assert len(text) < 500
    for message in messages:
        assert message in text


# ---------------------------------------------------------------------- whose masks these are


def test_masks_of_another_json_of_the_same_size_are_refused(source, tmp_path):
    make_masks(tmp_path, "train2014", workers=1)
    size = source.stat().st_size
    change(source, lambda c: c["annotations"][0].update(category_id=7))
    assert source.stat().st_size == size
    refused(lambda: make_masks(tmp_path, "train2014", workers=1), "holds masks made with sha256", "move them away")
    assert corners(tmp_path) == [1, 2]


def test_a_copy_of_the_json_keeps_its_masks(source, tmp_path):
    make_masks(tmp_path, "train2014", workers=1)
    copied = shutil.copy(source, tmp_path / "copy.json")
    source.unlink()
    copied.rename(source)
    os.utime(source, (1, 1))
    assert make_masks(tmp_path, "train2014", workers=1) == 0


@pytest.mark.parametrize("content", [b"{", b"[1]", b"null", b"\xff\xfe"])
def test_a_damaged_record_of_the_masks(source, tmp_path, content):
    make_masks(tmp_path, "train2014", workers=1)
    record = tmp_path / "SegmentationClass/train2014" / SETTINGS
    record.write_bytes(content)
    refused(lambda: make_masks(tmp_path, "train2014", workers=1), f"{record}: is damaged")


def test_what_a_killed_process_left_is_removed(source, tmp_path):
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    folder = tmp_path / "SegmentationClass/train2014"
    folder.mkdir(parents=True)
    dead, alive = (folder / f".a.png.{number}.tmp" for number in (gone.pid, os.getpid()))
    other = folder / ".a.png.tmp"
    for path in (dead, alive, other):
        path.write_bytes(b"half")
    for _ in range(2):  # the first run, and one that goes on
        make_masks(tmp_path, "train2014", workers=1)
        assert [path.exists() for path in (dead, alive, other)] == [False, True, True]
        dead.write_bytes(b"half")


# ---------------------------------------------------------------------- contradictions


def test_a_category_twice_counts_once_in_masks_and_tags(source, tmp_path):
    change(source, lambda c: c["categories"].insert(0, c["categories"][0]))
    assert list(parse_instances(source).tags().values()) == [(0,), (1,)]
    make_masks(tmp_path, "train2014", workers=1)
    assert corners(tmp_path) == [1, 2]


def test_an_image_twice_counts_once(source, tmp_path):
    change(source, lambda c: c["images"].append(c["images"][0]))
    assert len(parse_instances(source).stems) == make_masks(tmp_path, "train2014", workers=1) == 2


CONTRADICTIONS = [
    (lambda c: c["categories"].append({"id": 4, "name": "cube"}), "category id 4 has two names, 'disc' and 'cube'"),
    (lambda c: c["images"][1].update(id=1), "two different images have the id 1"),
    (lambda c: c["images"][1].update(file_name=c["images"][0]["file_name"]), "two different images have the stem"),
    (lambda c: c.update(categories=[{"id": n, "name": "x"} for n in range(300)]), "2 images and 300 classes"),
]

# ---------------------------------------------------------------------- types; what tags need, too

BOTH = [
    *[(lambda c, v=v: c["images"][0].update(height=v), f"image 1 is damaged: height is {v!r}, but a whole number")
      for v in ("a", 0, -3, 10**12, None, 10.0, True)],
    *[(lambda c, v=v: c["images"][0].update(id=v), f"image {v!r} is damaged: id is") for v in ("1", None, [1], 2**70)],
    *[(lambda c, v=v: c["images"][0].update(file_name=v), "image 1 is damaged: file_name is") for v in (5, "", None)],
    (lambda c: c["images"][0].pop("width"), "image 1 lacks 'width'"),
    (lambda c: c["images"][0].pop("file_name"), "entry 0 of images (id 1) lacks 'file_name'"),
    *[(lambda c, k=k, v=v: c["annotations"][1].update({k: v}), f"annotation 6 is damaged: {k} is {v!r}")
      for k in ("image_id", "category_id") for v in ("2", None, 2.0)],
    (lambda c: c["annotations"][1].pop("image_id"), "annotation 6 lacks 'image_id'"),
    (lambda c: c["annotations"][1].pop("category_id"), "entry 1 of annotations (id 6) lacks 'category_id'"),
    *[(lambda c, k=k: c[k].append(None), m) for k, m in (
        ("images", "entry 2 of images"), ("annotations", "entry 2 of annotations"), ("categories", "category None has"))],
    *[(lambda c, k=k, v=v: c.update({k: v}), f"lacks {k!r} or has no list there")
      for k in ("images", "annotations", "categories") for v in (None, {}, 5)],
    (lambda c: c["categories"][0].update(id="4"), "has no whole number as id"),
    (lambda c: c["categories"][0].pop("name"), "has no whole number as id, or no name"),
]  # fmt: skip


@pytest.mark.parametrize(("edit", "message"), CONTRADICTIONS + BOTH)
def test_damage_is_refused_by_tags_and_masks_alike(source, tmp_path, edit, message):
    change(source, edit)
    refused(lambda: parse_instances(source), str(source), message, "; give")
    refused(lambda: make_masks(tmp_path, "train2014", workers=1), str(source), message)
    assert not (tmp_path / "SegmentationClass").exists()


@pytest.mark.parametrize("text", ["[]", "null", "[" * 100_000, '{"id": 1, "category_id": 2}'])
def test_another_json(source, text):
    source.write_text(text)
    refused(lambda: parse_instances(source), str(source))


# ---------------------------------------------------------------------- what masks need

FORMS = [
    *[({"segmentation": v}, m) for v, m in [
        (None, "segmentation is None"), ({}, "segmentation is {}"),
        ("text", "segmentation is 'text'"), ([1, 2, 3, 4, 5, 6], "segmentation is [1, 2, 3"),
        ([[0, 0, 5, 5, 5, 0, 1]], "a polygon has 7 numbers"),
        ([[0, 0, None, 5, 5, 0]], "but lists of numbers"), ([["0", 0, 1, 5, 5, 0]], "but lists of numbers"),
        ({"counts": 5, "size": [10, 12]}, "segmentation is {'counts': 5"), ({"counts": [120]}, "segmentation is {"),
        ({"counts": [120], "size": None}, "segmentation is {"),
    ]],
    ({"id": "6"}, "annotation '6' is damaged: id is '6'"),
    ({"area": "12"}, "area is '12'"), ({"area": None}, "area is None"), ({"area": float("nan")}, "area is nan"),
    ({"iscrowd": "0"}, "iscrowd '0'"),
]  # fmt: skip


@pytest.mark.parametrize(("entry", "message"), FORMS)
def test_damaged_annotations(source, tmp_path, entry, message):
    change(source, lambda c: c["annotations"][1].update(entry))
    refused(lambda: make_masks(tmp_path, "train2014", workers=1), f"{source}: annotation ", "6", message, "; give")
    assert not (tmp_path / "SegmentationClass").exists()
    parse_instances(source)  # needs none of it


@pytest.mark.parametrize("key", ["id", "area", "segmentation"])
def test_annotations_that_lack_a_key(source, tmp_path, key):
    change(source, lambda c: c["annotations"][1].pop(key))
    refused(lambda: make_masks(tmp_path, "train2014", workers=1), f"{source}: annotation ", f"lacks '{key}'")


@pytest.mark.parametrize(
    ("region", "message"),
    [
        *[({"size": [10, 12], "counts": counts}, "has run lengths that do not fill its image") for counts in (
            [0, 5], [0, 500], [-5, 125], ["0", 120], [], "", "05", "zzzz~~\x7f", "é€", "Q", "P" * 99)],
        ({"size": [10**6, 10**6], "counts": [0, 10**12]}, "is 1000000x1000000 (HxW), its image 10x12"),
        ([[0, 0, 1e10, 0, 5, 5]], "has a point farther than 100000 pixels"),
        ([[0, 0, float("inf"), 0, 5, 5]], "has a point farther than 100000 pixels"),
        ([[0, 0, float("nan"), 0, 5, 5]], "has a point farther than 100000 pixels"),
    ],
)  # fmt: skip
def test_regions_that_cannot_be_painted(source, tmp_path, region, message):
    change(source, lambda c: c["annotations"][1].update(segmentation=region))
    where = f"{source}: image COCO_train2014_000000000002, annotation 6 {message}"
    refused(lambda: make_masks(tmp_path, "train2014", workers=1), where)


def test_compressed_run_lengths_of_any_shape(tmp_path):
    rng = np.random.default_rng(0)
    size = (150, 110)
    pictures = [rng.random(size) < share for share in (0.0, 0.02, 0.5, 0.98, 1.0)]
    pictures.append(np.add.outer(np.arange(150), np.arange(110)) > 130)  # long runs, both signs of their differences
    codes = [rle.encode(np.asfortranarray(picture, np.uint8))["counts"].decode() for picture in pictures]
    write_json(tmp_path, "train2014", range(1, 7), [runs(n, n, 7, size, c) for n, c in enumerate(codes, 1)], OWN, size)
    make_masks(tmp_path, "train2014", workers=1)
    made = sorted((tmp_path / "SegmentationClass/train2014").glob("*.png"))
    for path, picture in zip(made, pictures, strict=True):
        np.testing.assert_array_equal(read_mask(path, 255), 2 * picture)


@pytest.mark.parametrize("short", [[], [3.0, 3.0], [1.0, 1.0, 7.0, 7.0]])
def test_polygons_without_area_cover_nothing(source, tmp_path, short):
    """Four numbers would be a box to pycocotools; some releases hold such leftovers of annotators."""
    change(source, lambda c: c["annotations"][1].update(segmentation=[]))
    make_masks(tmp_path, "train2014", workers=1)
    folder = tmp_path / "SegmentationClass" / "train2014"
    expected = {path.name: np.asarray(Image.open(path)).tolist() for path in folder.glob("*.png")}
    shutil.rmtree(folder)
    change(source, lambda c: c["annotations"][1].update(segmentation=[short]))
    make_masks(tmp_path, "train2014", workers=1)
    assert {path.name: np.asarray(Image.open(path)).tolist() for path in folder.glob("*.png")} == expected
