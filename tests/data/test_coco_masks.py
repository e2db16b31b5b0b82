"""Masks from instances.

The oracle takes pycocotools' own reader and rasteriser (`COCO.annToMask`), so which pixels a polygon covers is not
checked independently; which annotation wins a pixel, crowds and class ids are: by explicit priorities at every pixel
instead of painting one over the other.
"""

import contextlib
import errno
import io
import json
import os
import resource
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as rle
from pycocotools.coco import COCO as Reader

from frugalseg.data.coco_masks import SETTINGS, make_masks
from frugalseg.data.io import read_mask
from frugalseg.errors import DatasetError, DatasetNotFoundError, DiskFullError
from tests.conftest import REAL, REPOSITORY, hear_ctrl_c
from tests.data.coco_files import OWN, box, runs, write_json

# pycocotools 2.0.11 under NumPy 2
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

SIZE = (10, 12)
NAMES = [f"COCO_train2014_{n:012d}" for n in (1, 2, 3, 4)]


def column_runs(mask):
    """Uncompressed run lengths, zeros first, by hand."""
    counts, value = [0], 0
    for pixel in mask.ravel(order="F").tolist():
        if pixel != value:
            counts.append(0)
            value = pixel
        counts[-1] += 1
    return counts


@pytest.fixture
def root(tmp_path):
    crowd = np.zeros(SIZE, int)
    crowd[2:9, 1:11] = 1
    annotations = [
        # image 1: small on large, whatever the order in the file
        box(10, 1, 90, 3, 3, 2, 2), box(11, 1, 4, 1, 1, 8, 7), box(12, 1, 7, 2, 2, 5, 4),
        # image 2: equal areas, the later id on top; an annotation without a region
        box(22, 2, 4, 0, 0, 4, 4), box(21, 2, 7, 2, 0, 4, 4), box(23, 2, 90, 0, 0, 1, 1, segmentation=[]),
        # image 3: a crowd is beneath even where its `area` is the smallest
        box(30, 3, 7, 0, 0, 6, 6), runs(31, 3, 90, SIZE, column_runs(crowd), area=1),
    ]  # fmt: skip
    write_json(tmp_path, "train2014", [1, 2, 3, 4], annotations, OWN, SIZE)
    return tmp_path


def masks(root, folder="train2014"):
    return {path.stem: read_mask(path, 255) for path in sorted((root / "SegmentationClass" / folder).glob("*.png"))}


@pytest.mark.parametrize(("crowd", "value"), [("class", 3), ("ignore", 255)])
def test_hand_made_overlaps(root, crowd, value):
    assert make_masks(root, "train2014", workers=1, crowd=crowd) == 4
    expected = np.zeros((4, *SIZE), np.uint8)
    expected[0, 1:8, 1:9], expected[0, 2:6, 2:7], expected[0, 3:5, 3:5] = 1, 2, 3
    expected[1, :4, 2:6], expected[1, :4, :4] = 2, 1
    expected[2, 2:9, 1:11], expected[2, :6, :6] = value, 2
    made = masks(root)
    assert list(made) == NAMES
    for mask, right in zip(made.values(), expected, strict=True):
        np.testing.assert_array_equal(mask, right)
    with Image.open(root / f"SegmentationClass/train2014/{NAMES[3]}.png") as opened:
        assert opened.mode == "P"


def test_compressed_run_lengths(root):
    crowd = np.zeros(SIZE, np.uint8)
    crowd[4:, 5:] = 1
    code = rle.encode(np.asfortranarray(crowd))
    annotation = {**runs(1, 1, 7, SIZE, []), "segmentation": {**code, "counts": code["counts"].decode()}}
    write_json(root, "train2014", [1], [annotation], OWN, SIZE)
    make_masks(root, "train2014", workers=1)
    np.testing.assert_array_equal(masks(root)[NAMES[0]], 2 * crowd)


def test_class_ids_follow_the_category_ids_whatever_their_order_in_the_file(tmp_path):
    annotations = [box(1, 1, 4, 0, 0, 2, 2), box(2, 1, 7, 3, 0, 2, 2), box(3, 1, 90, 6, 0, 2, 2)]
    categories = {90: "star", 4: "disc", 7: "ring"}
    source = write_json(tmp_path, "train2014", [1], annotations, categories, SIZE)
    assert [entry["id"] for entry in json.loads(source.read_text())["categories"]] == [90, 4, 7]
    make_masks(tmp_path, "train2014", workers=1)
    assert masks(tmp_path)[NAMES[0]][0, [0, 3, 6]].tolist() == [1, 2, 3]


def test_an_annotation_is_the_union_of_its_polygons(tmp_path):
    pieces = [(1, 1, 3, 2), (3, 2, 3, 3), (9, 6, 2, 3)]  # the first two share pixels
    polygons = [box(0, 1, 4, *piece)["segmentation"][0] for piece in pieces]
    annotation = box(5, 1, 7, *pieces[0], segmentation=polygons)
    write_json(tmp_path, "train2014", [1], [annotation], OWN, SIZE)
    make_masks(tmp_path, "train2014", workers=1)
    expected = np.zeros(SIZE, np.uint8)
    for x, y, w, h in pieces:
        expected[y : y + h, x : x + w] = 2
    np.testing.assert_array_equal(masks(tmp_path)[NAMES[0]], expected)


def priorities(reader, image, crowd):
    """The winner at every pixel: not a crowd before a crowd, then the smaller area, then the larger id."""
    annotations = reader.imgToAnns[image["id"]]
    ids = sorted(reader.cats)
    winner = np.full((image["height"], image["width"]), -1)
    label = np.zeros_like(winner)
    for one in annotations:

        def beats(a, b=one):  # `one` lies above a
            return (b["iscrowd"], b["area"], -b["id"]) < (a["iscrowd"], a["area"], -a["id"])  # fmt: skip

        rank = sum(beats(other) for other in annotations)
        value = 255 if one["iscrowd"] and crowd == "ignore" else 1 + ids.index(one["category_id"])
        takes = (reader.annToMask(one) == 1) & (winner < rank)
        winner[takes], label[takes] = rank, value
    return label


@pytest.mark.real
@pytest.mark.parametrize(("folder", "crowd"), [("train2017", "class"), ("val2017", "ignore")])
def test_genuine_annotations_against_priorities(tmp_path, folder, crowd):
    source = REAL / "coco" / "annotations" / f"instances_{folder}.json"
    if not source.is_file():
        pytest.skip(f"no genuine COCO samples at {source}; set FRUGALSEG_REAL_DATA")
    (tmp_path / "annotations").symlink_to(source.parent)
    make_masks(tmp_path, folder, workers=1, crowd=crowd)
    made = masks(tmp_path, folder)
    with contextlib.redirect_stdout(io.StringIO()):
        reader = Reader(source)
    assert len(made) == len(reader.imgs)
    for image in reader.imgs.values():
        np.testing.assert_array_equal(made[image["file_name"][:-4]], priorities(reader, image, crowd))
    assert any(255 in mask for mask in made.values()) == (crowd == "ignore")


def test_processes_make_the_same_files_and_report_progress(root):
    seen = []
    make_masks(root, "train2014", workers=2, progress=lambda done, total: seen.append((done, total)))
    folder = root / "SegmentationClass/train2014"
    many = {path.name: path.read_bytes() for path in folder.iterdir()}
    folder.rename(root / "elsewhere")
    make_masks(root, "train2014", workers=1)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == many
    assert seen == [(n, 4) for n in (1, 2, 3, 4)]


def test_going_on_keeps_what_is_there(root):
    make_masks(root, "train2014", workers=1)
    folder = root / "SegmentationClass/train2014"
    before = masks(root)
    (folder / f"{NAMES[0]}.png").unlink()
    (folder / f"{NAMES[1]}.png").write_bytes(b"\x89PNG")
    Image.new("P", (3, 3)).save(folder / f"{NAMES[2]}.png")
    kept = (folder / f"{NAMES[3]}.png").stat().st_mtime_ns
    assert make_masks(root, "train2014", workers=1) == 3
    assert (folder / f"{NAMES[3]}.png").stat().st_mtime_ns == kept
    for name, mask in masks(root).items():
        np.testing.assert_array_equal(mask, before[name])
    assert make_masks(root, "train2014", workers=1) == 0


def test_other_settings_and_other_masks_are_refused(root):
    make_masks(root, "train2014", workers=1)
    with pytest.raises(DatasetError, match="holds masks made with crowd class, not with crowd ignore") as error:
        make_masks(root, "train2014", workers=1, crowd="ignore")
    assert "\n" not in str(error.value)
    write_json(root, "train2014", [1], [], OWN, SIZE)
    with pytest.raises(DatasetError, match=r"holds masks made with bytes \d+"):
        make_masks(root, "train2014", workers=1)
    (root / "SegmentationClass/train2014" / SETTINGS).unlink()
    with pytest.raises(DatasetError, match="holds masks of another origin"):
        make_masks(root, "train2014", workers=1)
    assert masks(root).keys() == set(NAMES)


def test_wrong_input_leaves_nothing(root):
    with pytest.raises(DatasetNotFoundError, match=r"annotations/instances_val2014\.json; unpack .*2014\.zip"):
        make_masks(root, "val2014")
    source = write_json(root, "train2014", [1], [box(7, 2, 4, 0, 0, 1, 1)], OWN, SIZE)
    with pytest.raises(DatasetError, match="annotation 7 names an image or a category that is not"):
        make_masks(root, "train2014")
    source.write_text("{")
    with pytest.raises(DatasetError, match="is not JSON"):
        make_masks(root, "train2014")
    assert not (root / "SegmentationClass").exists()
    write_json(root, "train2014", [1], [runs(8, 1, 4, (4, 4), [0, 16])], OWN, SIZE)
    with pytest.raises(DatasetError, match=r"annotation 8 is 4x4 \(HxW\), its image 10x12"):
        make_masks(root, "train2014", workers=1)


def test_a_full_disk(root, monkeypatch):
    def full(_image, stream, **_):
        stream.write(b"half")
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(Image.Image, "save", full)
        with pytest.raises(DiskFullError) as error:
            make_masks(root, "train2014", workers=1)
    assert "\n" not in str(error.value)
    assert [path.name for path in (root / "SegmentationClass/train2014").iterdir()] == [SETTINGS]
    assert make_masks(root, "train2014", workers=1) == 4


def test_a_write_that_fails_half_way(root):
    """The system itself ends the write: no file may grow beyond 200 bytes."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (200, limits[1]))
    try:
        with pytest.raises(DatasetError, match="cannot be written") as error:
            make_masks(root, "train2014", workers=1)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert "\n" not in str(error.value)
    assert [path.name for path in (root / "SegmentationClass/train2014").iterdir()] == [SETTINGS]


def test_ctrl_c_leaves_whole_masks_and_the_next_run_goes_on(tmp_path):
    images = range(1, 1001)
    annotations = [box(n, n, 4, n % 300, n % 200, 50, 60) for n in images]
    write_json(tmp_path, "train2014", images, annotations, OWN, (480, 640))
    code = "import sys; from frugalseg.data.coco_masks import make_masks; make_masks(sys.argv[1], 'train2014', 2)"
    run = subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], cwd=REPOSITORY, start_new_session=True, preexec_fn=hear_ctrl_c,
                           stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)  # fmt: skip
    folder = tmp_path / "SegmentationClass/train2014"
    try:
        started = time.monotonic()
        while len(list(folder.glob("*.png"))) < 20 and run.poll() is None and time.monotonic() - started < 120:
            time.sleep(0.01)
        os.killpg(run.pid, signal.SIGINT)  # as a terminal does: to all processes of the group
        assert run.wait(20) != 0
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(run.pid, signal.SIGKILL)
    there = masks(tmp_path)
    assert 20 <= len(there) < 1000
    assert all(mask.shape == (480, 640) for mask in there.values())
    assert not list(folder.glob("*.tmp")) + list(folder.glob(".*.tmp"))
    json.loads((folder / SETTINGS).read_text())
    assert make_masks(tmp_path, "train2014", workers=1) == 1000 - len(there)
