import logging

import pytest

from frugalseg.data.base import Pair
from frugalseg.data.lists import read_ids, read_labels
from frugalseg.data.voc import (
    CLASS_COUNTS,
    COUNTS,
    NAMES,
    class_table,
    fold_classes,
    index,
    pairs,
    read_annotation,
    split_ids,
)
from frugalseg.errors import ConfigError, DatasetError, DatasetNotFoundError
from tests.data.conftest import TRAIN, VAL


def annotate(root, name, classes):
    folder = root / "Annotations"
    folder.mkdir(exist_ok=True)
    objects = "".join(
        f"<object><name>{c}</name><difficult>1</difficult><part><name>head</name></part></object>" for c in classes
    )
    (folder / f"{name}.xml").write_text(f"<annotation><filename>x</filename>{objects}</annotation>")


def test_constants():
    assert len(NAMES) == 21
    assert list(NAMES[1:]) == sorted(NAMES[1:])
    assert len(CLASS_COUNTS) == 20
    assert COUNTS["trainval"] == COUNTS["train"] + COUNTS["val"]


def test_index(voc_root, caplog):
    caplog.set_level(logging.INFO)
    samples = index(voc_root, "trainaug")
    assert [sample.id for sample in samples] == TRAIN
    labels = read_labels("voc12")
    for sample in samples:
        assert sample.image == voc_root / f"JPEGImages/{sample.id}.jpg"
        assert sample.mask == voc_root / f"SegmentationClassAug/{sample.id}.png"
        assert sample.tags == labels[sample.id]
    assert f"trainaug: 7 ids from {voc_root}/ImageSets/Segmentation/trainaug.txt" in caplog.text
    assert "image-level labels: 7 packaged, 0 from Annotations, 0 ids have none" in caplog.text


def test_masks_folder(voc_root):
    assert {s.mask.parent.name for s in index(voc_root, "val")} == {"SegmentationClass"}
    assert {s.mask.parent.name for s in index(voc_root, "val", "SegmentationClassAug")} == {"SegmentationClassAug"}
    (voc_root / f"SegmentationClass/{VAL[0]}.png").unlink()
    assert [s.mask is None for s in index(voc_root, "val")] == [True, False, False]
    (voc_root / "SegmentationClassAug").rename(voc_root / "elsewhere")
    assert all(s.mask is None for s in index(voc_root, "trainaug"))


def test_lists_with_pairs(voc_root, write_split):
    write_split("val", [f"/JPEGImages/{name}.jpg /SegmentationClassAug/{name}.png" for name in VAL])
    assert [sample.id for sample in index(voc_root, "val")] == VAL


def test_packaged_list_where_none_is_on_disk(voc_root, caplog):
    caplog.set_level(logging.INFO)
    (voc_root / "ImageSets/Segmentation/val.txt").unlink()
    ids, on_disk = split_ids(voc_root, "val")
    assert (len(ids), on_disk) == (1449, None)
    assert "val: 1449 ids from the packaged list" in caplog.text


def test_test_split_has_neither_masks_nor_tags(voc_root, write_split):
    write_split("test", TRAIN[:2])
    assert [(s.mask, s.tags) for s in index(voc_root, "test")] == [(None, None)] * 2


def test_labels_from_annotations(voc_root, write_split):
    for name in ("new_1", "new_2"):
        (voc_root / f"JPEGImages/{name}.jpg").write_bytes(b"")
    annotate(voc_root, "new_1", ["person", "cat", "person"])
    annotate(voc_root, TRAIN[0], ["sofa"])  # packaged labels win
    write_split("own", [TRAIN[0], "new_1", "new_2"])
    assert [s.tags for s in index(voc_root, "own")] == [read_labels("voc12")[TRAIN[0]], (7, 14), None]


def test_own_classes_take_labels_from_annotations_alone(voc_root):
    (voc_root / "ImageSets/classes.txt").write_text("background\nround\nsquare\n\n")
    annotate(voc_root, TRAIN[0], ["square", "round"])
    annotate(voc_root, TRAIN[1], [])
    assert class_table(voc_root).names == ("background", "round", "square")
    assert [s.tags for s in index(voc_root, "train")] == [(0, 1), (), *[None] * 5]


@pytest.mark.parametrize("text", ["background\n", "background\na\na\n", ""])
def test_bad_class_lists(voc_root, text):
    (voc_root / "ImageSets/classes.txt").write_text(text)
    with pytest.raises(DatasetError, match=r"classes\.txt"):
        class_table(voc_root)


def test_annotation_errors(tmp_path):
    annotate(tmp_path, "a", ["cat", "unicorn"])
    with pytest.raises(DatasetError, match="unicorn"):
        read_annotation(tmp_path / "Annotations/a.xml", NAMES)
    (tmp_path / "a.xml").write_text("<annotation>")
    with pytest.raises(DatasetError, match="not XML"):
        read_annotation(tmp_path / "a.xml", NAMES)


def test_missing_root(tmp_path):
    with pytest.raises(DatasetNotFoundError, match="does not exist") as error:
        index(tmp_path / "a/b/c", "train")
    assert "VOCtrainval" in str(error.value)


@pytest.mark.parametrize(
    ("level", "distance"),
    [
        ("..", "1 folder too high"),
        ("../..", "2 folders too high"),
        ("JPEGImages", "1 folder too low"),
        ("ImageSets/Segmentation", "2 folders too low"),
    ],
)
def test_root_at_the_wrong_level_names_the_right_folder(voc_root, level, distance):
    wrong = (voc_root / level).resolve()
    with pytest.raises(DatasetNotFoundError) as error:
        index(wrong, "train")
    assert str(error.value) == f"{wrong}: has no folder JPEGImages: {distance}; set data.root: {voc_root} looks right"


def test_unknown_split(voc_root):
    with pytest.raises(DatasetNotFoundError, match=r"trian.txt: no such split.*trainaug"):
        index(voc_root, "trian")


def test_absent_images_are_counted(voc_root, write_split):
    write_split("train", [*TRAIN, *(f"no_{i}" for i in range(7))])
    with pytest.raises(DatasetError) as error:
        index(voc_root, "train")
    assert "7 of the 14 images of split train are missing, first no_0, no_1, no_2, no_3, no_4;" in str(error.value)
    assert "\n" not in str(error.value)


def test_empty_split(voc_root, write_split):
    write_split("train", ["", "  "])
    with pytest.raises(DatasetError, match=r"train\.txt: the split is empty"):
        index(voc_root, "train")


@pytest.mark.real
def test_real_sample(real_voc):
    samples = index(real_voc, "trainaug")
    assert samples
    for sample in samples:
        assert sample.mask.is_file()
        assert sample.tags


# ---------------------------------------------------------------------- PASCAL-5i


def test_folds_are_five_classes_each_and_disjoint():
    assert [fold_classes(f) for f in range(4)] == [tuple(range(5 * f + 1, 5 * f + 6)) for f in range(4)]
    with pytest.raises(ConfigError, match="-1 is none of the 4 folds"):
        fold_classes(-1)


@pytest.mark.parametrize("fold", range(4))
def test_packaged_pairs_of_a_fold(fold):
    novel = set(fold_classes(fold))
    train, val = pairs("nowhere", fold, training=True), pairs("nowhere", fold, training=False)
    assert {pair.class_id for pair in train} == set(range(1, 21)) - novel
    assert {pair.class_id for pair in val} == novel
    assert {pair.id for pair in train} <= set(read_ids("voc12", "trainaug"))
    assert {pair.id for pair in val} <= set(read_ids("voc12", "val"))
    labels = read_labels("voc12")
    # every pair is a label, but for the one validation image whose mask shows what its label lacks (datasets.md)
    assert sum(pair.class_id - 1 not in labels[pair.id] for pair in [*train, *val]) <= 1


def test_pairs_on_disk_win(voc_root, caplog):
    folder = voc_root / "ImageSets" / "FewShot"
    folder.mkdir()
    (folder / "val_fold0.txt").write_text(f"{VAL[0]}__03\n{VAL[1]}__05\n")
    with caplog.at_level("INFO", "frugalseg"):
        assert pairs(voc_root, 0, training=False) == [Pair(VAL[0], 3), Pair(VAL[1], 5)]
    assert "val_fold0: 2 pairs from " in caplog.text
    (folder / "val_fold0.txt").write_text("2007_000033\n")
    with pytest.raises(DatasetError, match=r"val_fold0.txt: line 1 is '2007_000033', not <id>__<class>"):
        pairs(voc_root, 0, training=False)
    (folder / "val_fold0.txt").write_text(f"{VAL[0]}__03\n{VAL[0]}__03\n")
    with pytest.raises(DatasetError, match="1 pairs occur more than once"):
        pairs(voc_root, 0, training=False)


def test_an_annotation_in_an_unknown_encoding(tmp_path):
    path = tmp_path / "a.xml"
    path.write_text('<?xml version="1.0" encoding="klingon"?><annotation></annotation>')
    with pytest.raises(DatasetError, match=r"a\.xml: is not XML"):
        read_annotation(path, NAMES)
