import errno
import re

import pytest
import torch

from frugalseg.data import Episodes, ISAID5i
from frugalseg.data.episode_files import EpisodeRow, read_episodes, write_episodes
from frugalseg.errors import DatasetError, DatasetNotFoundError, DiskFullError
from tests.data.episode_tiles import NAMES, SIDE, write_tiles

ROWS = [EpisodeRow(7, 2, "a", ("b", "c")), EpisodeRow(0, 1, "b", ("d", "d")), EpisodeRow(3, 2, "c", ("a", "d"))]
TEXT = "# of what\nnumber,class_id,query,support_1,support_2\n7,2,a,b,c\n0,1,b,d,d\n3,2,c,a,d\n"


@pytest.fixture(scope="module")
def tiles(tmp_path_factory):
    return write_tiles(tmp_path_factory.mktemp("tiles"))


@pytest.fixture
def file(tmp_path):
    return tmp_path / "episodes.csv"


def read(path, shots=2):
    return read_episodes(path, shots, {"a": 0, "b": 1, "c": 2, "d": 3}, {1: (), 2: ()}, "split val of here")


def loader(root, role="test", fold=0, **settings):
    data = ISAID5i(root, Episodes(size=SIDE, **settings), fold=fold, val_classes="novel", num_workers=0)
    data.setup(role if role == "test" else "validate")
    return getattr(data, f"{role}_dataloader")()


def export(root, path, **settings):
    """Write what a loader would run."""
    items = loader(root, **settings).dataset
    drawn = [items.pick(index) for index in range(len(items))]
    rows = [EpisodeRow(e.number, e.class_id, e.id, tuple(s.id for s in e.supports)) for e in drawn]
    write_episodes(path, rows, "")
    return rows


def assert_same(found, expected):
    found, expected = list(found), list(expected)
    assert len(found) == len(expected) > 0
    for a, b in zip(found, expected, strict=True):
        assert a.keys() == b.keys()
        for key in a:
            assert torch.equal(a[key], b[key]) if isinstance(a[key], torch.Tensor) else a[key] == b[key], key


# ---------------------------------------------------------------------- the file


def test_what_is_written_is_read(file, caplog):
    write_episodes(file, ROWS, "of what")
    assert file.read_text() == TEXT
    with caplog.at_level("INFO"):
        assert read(file) == ROWS
    assert f"split val of here: 3 episodes from {file} (of what)" in caplog.text


def test_more_supports_than_shots_are_cut(file):
    file.write_text(TEXT)
    assert [row.supports for row in read(file, shots=1)] == [("b",), ("d",), ("a",)]
    # what is cut off is not looked at: neither an image of another list nor a gap
    file.write_text(TEXT.replace("a,b,c", "a,b,elsewhere").replace("b,d,d", "b,d,"))
    assert [row.supports for row in read(file, shots=1)] == [("b",), ("d",), ("a",)]


def test_what_editors_make_of_a_file_is_read(file):
    edited = "\ufeff# one\r\n#two\r\n\r\n" + TEXT.partition("\n")[2].replace("\n", "\r\n").replace(",", ", ")
    file.write_bytes((edited.replace("0, 1, b", '\r\n"0", 1, "b"') + "\r\n").encode())
    assert read(file) == ROWS
    file.write_text(TEXT.partition("\n")[2])  # without comments
    assert read(file) == ROWS


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("a,b,c", "a,b,x", "line 3: 1 images of the file are not in split val of here, first x; take the split"),
        ("3,2,c", "3,3,c", "line 5: class 3 is not tested in split val of here, but 1, 2; set data.fold"),
        ("0,1,b,d,d", "0,1,b,d,b", "line 4: the query b is among its own supports; remove"),
        ("0,1,b,d,d", "0,1,b,d,", "line 4: has 1 supports, but recipe.shots is 2; lower recipe.shots"),
        ("0,1,b,d,d", "0,1,b,d", "line 4: has 4 values, the header 5; mend"),
        ("0,1,b,d,d", "0,1,b,d,d,d", "line 4: has 6 values, the header 5; mend"),
        ("3,2,c", "7,2,c", "line 5: number 7 occurs a second time; number each"),
        ("3,2,c", "three,2,c", "line 5: 'three' is no whole number; mend"),
        ("3,2,c", f"{10**20},2,c", f"line 5: '{10**20}' is no whole number; mend"),
        ("3,2,c", "3,-1,c", "line 5: '-1' is no whole number; mend"),
        ("3,2,c", '3,2,"c', "line 5: unexpected end of data; mend"),
        ("support_1", "support_3", "line 2: is not the header number,class_id,query,support_1,support_2; write it"),
        (
            TEXT,
            "",
            "line 1: is not the header number,class_id,query,support_1,support_2; write it anew with: frugalseg",
        ),
        (TEXT[TEXT.index("7,2") :], "", "line 2: holds no episode; write it anew"),
        ("of what", "\0", "it holds zero bytes"),
    ],
)
def test_faults_are_named_with_file_line_and_mend(file, old, new, said):
    text = TEXT.replace(old, new)
    assert text != TEXT
    file.write_text(text)
    with pytest.raises(DatasetError, match=re.escape(said)) as caught:
        read(file)
    assert str(caught.value).startswith(f"{file}")
    assert "\n" not in str(caught.value)


def test_unknown_images_are_counted_and_five_named(file):
    write_episodes(file, [ROWS[0]] + [EpisodeRow(n, 1, f"q{n}", ("a", "s")) for n in range(8, 16)], "")
    with pytest.raises(DatasetError, match=r"line 4: 9 images .* first q8, s, q9, q10, q11; take"):
        read(file)


def test_too_few_supports_in_the_header(file):
    file.write_text(TEXT)
    with pytest.raises(DatasetError, match=r"line 3: has 2 supports, but recipe\.shots is 5"):
        read(file, shots=5)


def test_no_file(file):
    with pytest.raises(
        DatasetNotFoundError, match=r"episodes.csv: no such file of episodes; mend recipe.episodes_file"
    ):
        read(file)


def test_a_full_disk_leaves_the_old_file(file, monkeypatch):
    file.write_text("old")

    def full(*_):
        raise OSError(errno.ENOSPC, "full")

    monkeypatch.setattr("pathlib.Path.replace", full)
    with pytest.raises(DiskFullError):
        write_episodes(file, ROWS, "")
    assert [path.name for path in file.parent.iterdir()] == [file.name]
    assert file.read_text() == "old"


# ---------------------------------------------------------------------- the recipe


@pytest.mark.parametrize("role", ["val", "test"])
@pytest.mark.parametrize("settings", [{}, {"shots": 3, "test_seed": 4}, {"test_episodes": 9}, {"test_episodes": 60}])
def test_a_file_gives_the_very_items_that_drawing_gives(tiles, file, role, settings):
    rows = export(tiles, file, **settings)
    assert len(rows) == settings.get("test_episodes", 48)
    drawn = list(loader(tiles, role, **settings))
    # another seed and number of episodes would be drawn: they come from the file
    given = {"episodes_file": file, "shots": settings.get("shots", 1), "test_seed": 1, "test_episodes": 9}
    found = list(loader(tiles, role, **given))
    # the seed then is but a name
    assert {int(b.pop("base_seed")) for b in found} == {1}
    assert {int(b.pop("base_seed")) for b in drawn} == {settings.get("test_seed", 0)}
    assert_same(found, drawn)
    del given["episodes_file"]
    assert [b["support_id"] for b in loader(tiles, role, **given)] != [b["support_id"] for b in drawn[:9]]


def test_fewer_shots_than_the_file_has_are_those_that_are_drawn(tiles, file):
    export(tiles, file, shots=4)
    assert_same(loader(tiles, shots=2, episodes_file=file), loader(tiles, shots=2))


def test_the_file_says_what_runs_and_in_which_order(tiles, file):
    rows = [EpisodeRow(5, 3, NAMES[2], (NAMES[7], NAMES[7])), EpisodeRow(1, 1, NAMES[10], (NAMES[5], NAMES[0]))]
    write_episodes(file, rows, "")
    batches = list(loader(tiles, shots=2, episodes_file=file, allow_missing_classes=True))
    found = [(int(b["number"]), int(b["class_id"]), b["id"][0], tuple(b["support_id"][0])) for b in batches]
    assert found == rows


def test_a_file_of_another_fold_is_refused(tiles, file):
    export(tiles, file)
    with pytest.raises(
        DatasetError, match=r"line 3: class 1 is not tested in split val of .*, but 6, 7, 8, 9, 10; set"
    ):
        loader(tiles, fold=1, episodes_file=file)


def test_training_does_not_look_at_the_file(tiles, file):
    data = ISAID5i(tiles, Episodes(size=SIDE, episodes_file=file), train_split="val", batch_size=2, num_workers=0)
    data.pairs = lambda role: ISAID5i.pairs(data, "test")  # the tree has no training tiles
    assert len(list(data.train_dataloader())) == 24
