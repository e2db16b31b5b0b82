import hashlib
import re

import numpy as np
import pytest

from frugalseg.data.lists import packaged, packaged_splits, parse_ids, read_ids, read_labels
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
