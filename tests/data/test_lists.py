import hashlib
import re

import numpy as np
import pytest

from frugalseg.data import ade20k, isaid5i, voc
from frugalseg.data.lists import (
    packaged,
    packaged_splits,
    parse_ids,
    read_ids,
    read_labels,
    read_text_file,
    split_ids,
    split_pairs,
)
from frugalseg.data.voc import CLASS_COUNTS, COUNTS
from frugalseg.errors import DatasetError


def test_every_packaged_file_has_the_digest_that_provenance_names():
    text = (packaged() / "PROVENANCE.md").read_text()
    named = dict(re.findall(r"\| `([^`]+)` \| `([0-9a-f]{64})` \|", text))
    folders = [entry for entry in packaged().iterdir() if entry.is_dir()]
    there = {f"{folder.name}/{entry.name}" for folder in folders for entry in folder.iterdir()}
    assert set(named) == there
    for name, digest in named.items():
        assert hashlib.sha256((packaged() / name).read_bytes()).hexdigest() == digest, name


@pytest.mark.parametrize("split", list(COUNTS))
def test_packaged_counts_are_the_published_ones(split):
    ids = read_ids("voc12", split)
    assert len(ids) == len(set(ids)) == COUNTS[split]


def test_splits_relate_as_published():
    train, val, trainaug, aug_only, trainval, test = (
        set(read_ids("voc12", name)) for name in ("train", "val", "trainaug", "aug_only", "trainval", "test")
    )
    assert train < trainaug
    assert trainaug - train == aug_only
    assert not trainaug & val
    assert train | val == trainval
    assert not test & (trainaug | val)


def test_packaged_labels_give_the_published_class_counts():
    labels = read_labels("voc12")
    assert len(labels) == 12031
    counts = np.zeros(20, int)
    for name in read_ids("voc12", "trainaug"):
        assert labels[name] == tuple(sorted(set(labels[name])))
        assert labels[name], name
        counts[list(labels[name])] += 1
    assert tuple(counts) == CLASS_COUNTS


def test_unknown_list():
    assert "nothing" not in packaged_splits("voc12")
    with pytest.raises(KeyError):
        read_ids("voc12", "nothing")


@pytest.mark.parametrize(
    "line",
    [
        "2007_000032",
        "  2007_000032  ",
        "/JPEGImages/2007_000032.jpg /SegmentationClassAug/2007_000032.png",
        "JPEGImages/2007_000032.jpg SegmentationClassAug/2007_000032.png",
        "\\JPEGImages\\2007_000032.JPG",
        "2007_000032 -1",
    ],
)
def test_lines_are_stripped_to_ids(line):
    assert parse_ids(f"\n{line}\n\nv1.5_b\r\n", "list") == ["2007_000032", "v1.5_b"]


def test_repeated_ids_are_refused():
    with pytest.raises(DatasetError, match="mylist: 1 ids occur more than once, first a"):
        parse_ids("a\nb\na\n", "mylist")


# ---------------------------------------------------------------------- files that people have edited

FOREIGN = [("latin-1", "é"), ("utf-16", "a"), ("utf-16-le", "a")]


def put(root, name, data):
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path


READERS = {
    "ids.txt": ("{}_1\n{}_2\n", lambda root: split_ids("none", "train", [root / "ids.txt"])),
    "ImageSets/Segmentation/train.txt": ("{}_1\n{}_2\n", lambda root: voc.split_ids(root, "train")[0]),
    "ImageSets/classes.txt": ("{}_1\n{}_2\n", lambda root: list(voc.class_table(root).names)),
    "pairs.txt": ("{}_1__01\n{}_2__02\n", lambda root: [p.id for p in split_pairs("no", "no", [root / "pairs.txt"])]),
    "train/train_list/split0_train.txt": ("{}_1__01\n{}_2__02\n", lambda root: isaid5i._ids(root, "train")),
    "objectInfo150.txt": (
        "Idx\tRatio\tTrain\tVal\tName\n1\t0\t1\t1\t{}_1\n2\t0\t1\t1\t{}_2\n",
        lambda root: list(ade20k.class_table(root).names),
    ),
}


@pytest.mark.parametrize("name", READERS)
@pytest.mark.parametrize(("encoding", "ends"), [("utf-8", "\n"), ("utf-8-sig", "\n"), ("utf-8-sig", "\r\n")])
def test_byte_order_marks_and_line_ends_change_nothing(tmp_path, name, encoding, ends):
    text, read = READERS[name]
    put(tmp_path, name, text.replace("{}", "é").replace("\n", ends).encode(encoding))
    assert read(tmp_path) == ["é_1", "é_2"]


@pytest.mark.parametrize("name", READERS)
@pytest.mark.parametrize(("encoding", "letter"), FOREIGN)
def test_other_encodings_are_refused_by_name(tmp_path, name, encoding, letter):
    text, read = READERS[name]
    path = put(tmp_path, name, text.replace("{}", letter).encode(encoding))
    with pytest.raises(DatasetError) as caught:
        read(tmp_path)
    assert str(caught.value).startswith(f"{path}: is not UTF-8 text (")
    assert str(caught.value).endswith("; save it as UTF-8")


def test_a_text_file_keeps_its_words(tmp_path):
    assert read_text_file(put(tmp_path, "a.txt", "\ufeffa é\r\n".encode())) == "a é\r\n"
