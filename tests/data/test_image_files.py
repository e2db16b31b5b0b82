"""Which files of a folder are its images, and what they are called."""

import os

import pytest

from frugalseg.data.image_files import files_digest, find_images, unique_ids
from frugalseg.errors import DatasetError, DatasetNotFoundError
from tests.data.image_folder import touch_later


def lay(root, *names):
    """Files of one byte: listing opens none."""
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"x")
    return root


def names(root, split="train"):
    return [file.name for file in find_images(root, split)]


def test_any_folder_at_any_depth(tmp_path):
    wanted = ["a.jpg", "b/c.JPEG", "b/d/e.png", "f.webp", "g.BMP", "h i.Jpg", "z.v2.jpeg"]
    lay(tmp_path, *wanted, "b/x.txt", "notes", "x.gif", "x.npy", ".hidden.jpg", ".git/x.png", "b/.cache/x.jpg", "jpg")
    (tmp_path / "folder.jpg").mkdir()
    assert names(tmp_path) == wanted


def test_the_order_does_not_depend_on_the_disk(tmp_path):
    wanted = [f"{folder}/{number}.jpg" for folder in "abc" for number in range(9)]
    lay(tmp_path / "one", *wanted)
    lay(tmp_path / "two", *reversed(wanted))
    assert names(tmp_path / "one") == names(tmp_path / "two") == wanted


@pytest.mark.parametrize(
    ("files", "split", "wanted"),
    [
        (["train/n01/a.JPEG", "train/n02/a.JPEG", "val/b.JPEG"], "train", ["train/n01/a.JPEG", "train/n02/a.JPEG"]),
        (["train/n01/a.JPEG", "val/b.JPEG"], "val", ["val/b.JPEG"]),
        (["train2017/1.jpg", "unlabeled2017/2.jpg", "val2017/3.jpg"], "train2017", ["train2017/1.jpg"]),
        (
            ["train2017/1.jpg", "unlabeled2017/2.jpg", "val2017/3.jpg"],
            "unlabeled2017+train2017",
            ["train2017/1.jpg", "unlabeled2017/2.jpg"],
        ),
        (["JPEGImages/1.jpg", "SegmentationClass/1.png"], "JPEGImages", ["JPEGImages/1.jpg"]),
        (["JPEGImages/1.jpg", "SegmentationClass/1.png"], ".", ["JPEGImages/1.jpg", "SegmentationClass/1.png"]),
        (["a/1.jpg", "a/b/2.jpg", "c/3.jpg"], "a+a/b", ["a/1.jpg", "a/b/2.jpg"]),
        (["a/1.jpg", "c/3.jpg"], "./a/", ["a/1.jpg"]),
    ],
)
def test_layouts(tmp_path, files, split, wanted):
    assert names(lay(tmp_path, *files), split) == wanted


@pytest.mark.parametrize("mark", ["JPEGImages", "train2017", "images/training", "leftImg8bit/train"])
def test_the_root_of_a_benchmark_is_not_taken_for_a_folder_of_images(tmp_path, mark):
    """Its masks would be trained on, and what it is tested on."""
    with pytest.raises(DatasetNotFoundError, match=f"set data.train_split to {mark}"):
        names(lay(tmp_path, f"{mark}/1.jpg", "masks/1.png"))


def test_what_is_not_there(tmp_path):
    lay(tmp_path, "a/1.jpg", "b/notes.txt")
    for split, word in (
        ("a+c", "c: no such folder"),
        ("val", "splits/val.txt"),
        ("../x", "no such"),
        ("/tmp", "no such"),
    ):
        with pytest.raises(DatasetNotFoundError, match=word):
            names(tmp_path, split)
    for split in (f"../{tmp_path.name}/a", str(tmp_path / "a")):  # are there, but ids begin at the root
        with pytest.raises(DatasetNotFoundError, match="folders below"):
            names(tmp_path, split)
    for split in ("b", "b+b"):
        with pytest.raises(DatasetError, match="holds no images"):
            names(tmp_path, split)
    for root in (tmp_path / "nowhere", tmp_path / "a/1.jpg"):
        with pytest.raises(DatasetNotFoundError, match=r"is not a folder; set data\.root"):
            names(root)


def test_links(tmp_path):
    """A link to a folder is followed, a link back up ends, one that leads nowhere is found to be broken later."""
    lay(tmp_path / "elsewhere", "1.jpg")
    root = lay(tmp_path / "root", "a/2.jpg")
    (root / "linked").symlink_to(tmp_path / "elsewhere")
    (root / "a/up").symlink_to(root)
    (root / "gone.jpg").symlink_to(root / "nowhere.jpg")
    os.mkfifo(root / "pipe.jpg")
    found = find_images(root, "train")
    assert [file.name for file in found] == ["a/2.jpg", "gone.jpg", "linked/1.jpg"]
    assert [file.size for file in found] == [1, -1, 1]


# ---------------------------------------------------------------------- lists


def test_a_list_wins(tmp_path):
    lay(tmp_path, "train/a.jpg", "train/b.png", "train/c d.JPEG", "other/e.jpg", "f.jpg")
    lines = ["train/c d", "", "./f.jpg", "other\\e", "train/b.png"]
    (lay(tmp_path, "splits/x") / "splits/train.txt").write_text("\n".join(lines))
    assert names(tmp_path) == ["train/c d.JPEG", "f.jpg", "other/e.jpg", "train/b.png"]


@pytest.mark.parametrize(
    ("lines", "word"),
    [
        ("a\nb\nc\n", "2 of 3 images are missing .* first b, c;"),
        ("a\na.jpg", "occur twice, first a.jpg"),
        ("twin", "more than one file there; write it with its suffix"),
        ("\n", "the split is empty"),
        ("../a.jpg", "no path below"),
        ("/a.jpg", "no path below"),
    ],
)
def test_lists_that_are_wrong(tmp_path, lines, word):
    lay(tmp_path, "a.jpg", "twin.jpg", "twin.png", "splits/train.txt")
    (tmp_path / "splits/train.txt").write_text(lines)
    with pytest.raises(DatasetError, match=word):
        names(tmp_path)


def test_a_list_may_name_either_twin(tmp_path):
    lay(tmp_path, "twin.jpg", "twin.png", "twin.jpg.png", "splits/train.txt")
    (tmp_path / "splits/train.txt").write_text("twin.jpg\ntwin.png\ntwin.jpg.png")
    assert names(tmp_path) == ["twin.jpg", "twin.png", "twin.jpg.png"]


# ---------------------------------------------------------------------- ids and digests


@pytest.mark.parametrize(
    ("files", "ids"),
    [
        (["a.jpg", "b/a.jpg", "b/c.v1.png"], ["a", "b/a", "b/c.v1"]),
        (["a.jpg", "a.png", "b.jpg"], ["a.jpg", "a.png", "b"]),
        (["a.jpg", "a.jpg.png"], ["a", "a.jpg.png"]),
        (["a.jpg", "a.jpg.png", "a.png"], ["a.jpg", "a.jpg.png", "a.png"]),
        (["\udcff.jpg"], ["\\udcff"]),
    ],
)
def test_ids_are_unique_and_short(files, ids):
    assert unique_ids(files) == ids
    assert len(set(ids)) == len(files)
    "".join(ids).encode()


def test_digests_tell_what_they_should(tmp_path):
    lay(tmp_path, "a.jpg", "b.jpg")
    plain, timed = (files_digest(find_images(tmp_path, "train"), times) for times in (False, True))
    touch_later(tmp_path / "a.jpg")
    found = find_images(tmp_path, "train")
    assert files_digest(found, False) == plain
    assert files_digest(found, True) != timed
    assert files_digest(found, False, "other settings") != plain
    (tmp_path / "a.jpg").write_bytes(b"xx")
    assert files_digest(find_images(tmp_path, "train"), False) != plain
    assert files_digest(found[::-1], False) != plain
