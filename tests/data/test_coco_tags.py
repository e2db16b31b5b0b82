import json
import logging

import numpy as np
import pytest

from frugalseg.data import coco_tags
from frugalseg.data.base import Sample
from frugalseg.data.coco_tags import annotation_file, load_instances, parse_instances
from frugalseg.data.tags import check_tags, read_tags
from frugalseg.errors import DatasetError, DatasetNotFoundError, DiskFullError
from tests.conftest import REAL
from tests.data.coco_files import OWN, box, runs, write_json

STEMS = [f"COCO_train2014_{n:012d}" for n in (9, 25, 30)]


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def restart():
    """As a new process does: without what has been read in this one."""
    coco_tags._load.cache_clear()


@pytest.fixture
def source(tmp_path):
    """Image 25 twice category 90 and once 4, image 9 a crowd of 7, image 30 nothing; ids out of order."""
    annotations = [box(5, 25, 90, 0, 0, 2, 2), box(1, 25, 4, 0, 0, 2, 2), box(3, 25, 90, 1, 1, 2, 2),
                   runs(8, 9, 7, (10, 12), [0, 5, 115])]  # fmt: skip
    return write_json(tmp_path, "train2014", [30, 9, 25], annotations, OWN)


def same(a, b):
    return all(np.array_equal(value, vars(b)[key]) for key, value in vars(a).items())


def test_classes_are_ranks_of_the_category_ids(source):
    found = parse_instances(source)
    assert found.tags() == dict(zip(STEMS, [(1,), (0, 2), ()], strict=True))
    assert found.categories.tolist() == [4, 7, 90]
    assert found.names.tolist() == ["disc", "ring", "star"]
    assert found.sizes.tolist() == [[10, 12]] * 3


def test_the_second_start_reads_the_cache(source, monkeypatch):
    first = load_instances(source)
    cache = source.parent / ".frugalseg" / "instances_train2014.npz"
    with np.load(cache, allow_pickle=False) as arrays:  # would refuse objects
        assert {arrays[key].dtype.kind for key in arrays} == {"i", "u", "U"}
    monkeypatch.setattr(coco_tags, "parse_instances", lambda path: pytest.fail("parsed again"))
    restart()
    assert same(load_instances(source), first)


def test_another_json_or_a_damaged_cache_is_parsed_anew(source):
    load_instances(source)
    cache = source.parent / ".frugalseg" / "instances_train2014.npz"
    write_json(source.parent.parent, "train2014", [9], [], OWN)
    assert load_instances(source).tags() == {STEMS[0]: ()}
    whole = cache.read_bytes()
    for damaged in (b"", b"no zip", whole[: len(whole) // 2], whole[:200] + bytes(50) + whole[250:]):
        cache.write_bytes(damaged)
        restart()
        assert load_instances(source).tags() == {STEMS[0]: ()}
        assert cache.read_bytes() == whole


def test_a_read_only_folder_is_cached_for_the_user_else_not_at_all(source, tmp_path, monkeypatch, caplog):
    caplog.set_level(logging.INFO)
    (source.parent / ".frugalseg").write_text("a file where the folder should be")
    first = load_instances(source)
    assert [path.suffix for path in (tmp_path / "cache" / "frugalseg").iterdir()] == [".npz"]
    assert ".frugalseg/instances_train2014.npz: cannot be written" in caplog.text
    restart()
    with monkeypatch.context() as patched:
        patched.setattr(coco_tags, "parse_instances", lambda path: pytest.fail("parsed again"))
        assert same(load_instances(source), first)
    monkeypatch.setenv("XDG_CACHE_HOME", str(source))
    restart()
    assert same(load_instances(source), first)
    assert "every start parses it" in caplog.text


def test_without_any_cache_a_process_parses_once(source, monkeypatch, caplog):
    caplog.set_level(logging.INFO)
    (source.parent / ".frugalseg").write_text("a file where the folder should be")
    monkeypatch.setenv("XDG_CACHE_HOME", str(source))
    first = load_instances(source)
    assert all(same(load_instances(source), first) for _ in range(3))
    assert caplog.text.count("read for the first time") == 1
    write_json(source.parent.parent, "train2014", [9], [], OWN)
    assert load_instances(source).tags() == {STEMS[0]: ()}


def rewrite(path, change):
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c.pop("categories"), "lacks 'categories'"),
        (lambda c: c["annotations"][0].pop("image_id"), "lacks 'image_id'"),
        (lambda c: c["annotations"][0].update(image_id=77), "1 annotations name a image .* first id 77"),
        (lambda c: c["annotations"][0].update(category_id=5), "1 annotations name a category .* first id 5"),
        (lambda c: c["images"].clear(), "0 images and 3 classes"),
        (lambda c: c.update(categories=[{"id": n, "name": str(n)} for n in range(300)]), "3 images and 300 classes"),
    ],
)
def test_other_files_are_refused_in_one_line(source, change, message):
    rewrite(source, change)
    with pytest.raises(DatasetError, match=message) as error:
        load_instances(source)
    assert str(error.value).startswith(str(source))
    assert "\n" not in str(error.value)


def test_a_truncated_json(source):
    source.write_bytes(source.read_bytes()[:-40])
    with pytest.raises(DatasetError, match="is not JSON"):
        load_instances(source)


def test_places_of_the_json(source, tmp_path):
    assert annotation_file(tmp_path, "train2014") == source
    assert annotation_file(tmp_path, "val2014") is None
    (tmp_path / "coco2014").mkdir()
    (tmp_path / "annotations").rename(tmp_path / "coco2014" / "annotations")
    assert annotation_file(tmp_path, "train2014") == tmp_path / "coco2014/annotations/instances_train2014.json"


@pytest.mark.real
@pytest.mark.parametrize(("part", "images", "empty"), [
    ("train", 52, {"000000000250"}), ("val", 31, {"000000226111", "000000058636"}),
])  # fmt: skip
def test_genuine_json(part, images, empty):
    path = REAL / "coco" / "annotations" / f"instances_{part}2017.json"
    if not path.is_file():
        pytest.skip(f"no genuine COCO samples at {path}; set FRUGALSEG_REAL_DATA")
    content = json.loads(path.read_text())
    rank = sorted(category["id"] for category in content["categories"])
    names = {image["id"]: image["file_name"][:-4] for image in content["images"]}
    expected = {name: set() for name in names.values()}
    for annotation in content["annotations"]:
        expected[names[annotation["image_id"]]].add(rank.index(annotation["category_id"]))
    tags = parse_instances(path).tags()
    assert len(tags) == images
    assert tags == {name: tuple(sorted(found)) for name, found in expected.items()}
    assert {name for name, found in tags.items() if not found} == empty


# ---------------------------------------------------------------------- labels from a file

IDS = ["a", "b"]
LABELS = np.array([[0, 1, 1], [0, 0, 0], [1, 0, 0]], np.uint8)


@pytest.mark.parametrize("ids", [["b", "c", "a"], np.array([b"b", b"c", b"a"])])
def test_labels_by_name(tmp_path, ids):
    np.savez(tmp_path / "tags.npz", ids=ids, labels=LABELS)
    assert read_tags(tmp_path / "tags.npz", 3, IDS) == {"a": (0,), "b": (1, 2)}


def test_labels_by_number(tmp_path):
    np.savez(tmp_path / "tags.npz", ids=np.array([9, 25, 30]), labels=LABELS.astype(np.float32))
    found = read_tags(tmp_path / "tags.npz", 3, STEMS[:2], lambda name: f"COCO_train2014_{name}")
    assert found == {STEMS[0]: (1, 2), STEMS[1]: ()}


def save(path, kind):
    labels = {
        "two columns": LABELS[:, :2],
        "a threshold": LABELS * 0.5,
        "too few": LABELS[:2],
        "words": LABELS.astype(str),
    }.get(kind, LABELS)
    ids = {"other ids": ["2007_000032", "2007_000039", "b"], "twice": list("aba"), "square": np.ones((3, 3))}.get(
        kind, ["b", "c", "a"]
    )
    if kind == "pickle":
        np.save(path.open("wb"), dict(zip(ids, labels, strict=True)), allow_pickle=True)
    elif kind == "objects":
        np.savez(path, ids=np.array(ids, object), labels=labels)
    elif kind == "cut":
        np.savez(path, ids=ids, labels=labels)
        path.write_bytes(path.read_bytes()[:300])
    elif kind == "damaged":
        np.savez_compressed(path, ids=ids, labels=labels)
        whole = path.read_bytes()
        path.write_bytes(whole[:60] + bytes(30) + whole[90:])
    elif kind == "text":
        path.write_text("2007_000032 0 1 1\n" * 9)
    elif kind == "array":
        np.save(path.open("wb"), labels)
    elif kind == "raw":
        path.write_bytes(b"\x80\x04}q\x00." * 9)
    else:
        np.savez(path, ids=ids, labels=labels)


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("pickle", "is a pickle, which can run code and is not read; .*np.savez"),
        ("raw", "is a pickle"),
        ("objects", "is a pickle"),
        ("array", "no .npz with the arrays ids and labels"),
        ("two columns", r"shape \(3, 2\) .* 3 classes: these are another data set's labels"),
        ("too few", r"shape \(2, 3\) for 3 ids"),
        ("other ids", r"no labels of 1 of 2 ids, first a \(it has 2007_000032, .*another data set's"),
        ("a threshold", "must be 0 or 1"),
        ("words", "must be 0 or 1"),
        ("cut", r"cannot be read \(File is not a zip file\)"),
        ("damaged", r"cannot be read"),
        ("text", r"is neither \.npz nor \.npy"),
        ("twice", "has 1 ids more than once, first a;"),
        ("square", r"one row of names, but their shape is \(3, 3\)"),
    ],
)
def test_wrong_label_files(tmp_path, kind, message):
    path = tmp_path / "labels.npz"
    save(path, kind)
    with pytest.raises(DatasetError, match=message) as error:
        read_tags(path, 3, IDS)
    assert "\n" not in str(error.value)


def test_absent_label_file(tmp_path):
    with pytest.raises(DatasetNotFoundError, match=r"labels\.npz: no such file"):
        read_tags(tmp_path / "labels.npz", 3, IDS)


def test_images_without_any_class_are_refused_for_training(tmp_path):
    samples = [Sample(name, tmp_path, None, tags) for name, tags in [("a", (0,)), ("b", ()), ("c", None), ("d", ())]]
    with pytest.raises(
        DatasetError, match=r"split x: 2 of 4 images show no class at all, first b, d; .*train for 2014"
    ):
        check_tags(samples, "split x")
    check_tags([samples[0], samples[2]], "split x")


def test_a_full_disk_beside_the_json_is_no_error(source, tmp_path, monkeypatch):
    write = coco_tags.write_atomic

    def full(path, writer):
        if path.is_relative_to(source.parent):
            raise DiskFullError(f"{path}: the disk is full")
        write(path, writer)

    monkeypatch.setattr(coco_tags, "write_atomic", full)
    load_instances(source)
    assert len(list((tmp_path / "cache").rglob("*.npz"))) == 1
