"""Classes without an episode: a test would be a mean over the other ones, from base seed to base seed over others."""

import logging

import pytest

from frugalseg.data import Episodes, ISAID5i
from frugalseg.data.episode_files import EpisodeRow, write_episodes
from frugalseg.data.episode_table import EpisodeTable
from frugalseg.errors import DatasetError
from tests.data.episode_tiles import NAMES, SIDE, write_tiles

ROWS = [EpisodeRow(0, 1, NAMES[0], (NAMES[5],)), EpisodeRow(1, 3, NAMES[2], (NAMES[7],))]
"""Episodes of two classes out of the five of fold 0."""


@pytest.fixture(scope="module")
def tiles(tmp_path_factory):
    return write_tiles(tmp_path_factory.mktemp("tiles"))


def data_of(root, fold=0, val_classes="novel", **settings):
    return ISAID5i(root, Episodes(size=SIDE, **settings), fold=fold, val_classes=val_classes, num_workers=0)


def names_without(data, loader, classes):
    """What the batches themselves do not show."""
    return [data.class_names[c] for c in sorted(set(classes) - {int(batch["class_id"]) for batch in loader})]


def warned(caplog):
    """Warnings alone: whether the rest of the log is heard depends on what ran before in this process."""
    return [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]


def test_a_test_without_a_class_is_refused_and_the_seed_named(tiles, caplog):
    settings = {"test_seed": [0, 3], "test_episodes": 9}
    allowed = data_of(tiles, allow_missing_classes=True, **settings)
    whole, lacking = (names_without(allowed, loader, range(1, 6)) for loader in allowed.test_dataloader())
    assert not whole and len(lacking) == 1  # else this said nothing about which seed is named
    what = f"split val of {tiles}: the 9 episodes of base seed 3 leave 1 of 5 classes out: {lacking[0]}"
    assert warned(caplog) == [f"{what}; the mean is over the other classes"]
    with pytest.raises(DatasetError) as caught:
        data_of(tiles, **settings).test_dataloader()
    assert str(caught.value) == f"{what}; raise recipe.test_episodes, or set recipe.allow_missing_classes"


def test_all_seeds_that_lack_classes_are_told_where_that_is_allowed(tiles, caplog):
    data = data_of(tiles, test_seed=[4, 6], test_episodes=2, allow_missing_classes=True)
    parts = [", ".join(names_without(data, loader, range(1, 6))) for loader in data.test_dataloader()]
    (message,) = warned(caplog)
    assert f"base seed 4 leave 4 of 5 classes out: {parts[0]}; split" in message
    assert f"base seed 6 leave 4 of 5 classes out: {parts[1]}; the mean" in message
    assert parts[0] != parts[1]


def test_a_file_that_holds_some_classes_is_refused(tiles, tmp_path, caplog):
    file = tmp_path / "some.csv"
    write_episodes(file, ROWS, "")
    with pytest.raises(DatasetError) as caught:
        data_of(tiles, episodes_file=file).test_dataloader()
    names = data_of(tiles).class_names
    assert str(caught.value) == (
        f"split val of {tiles}: the 2 episodes of base seed 0 in {file} leave 3 of 5 classes out:"
        f" {names[2]}, {names[4]}, {names[5]}; complete the file, or set recipe.allow_missing_classes"
    )
    assert len(data_of(tiles, episodes_file=file, allow_missing_classes=True).test_dataloader()) == 2
    caplog.clear()
    assert len(data_of(tiles, episodes_file=file).val_dataloader()) == 2
    assert f"in {file} leave 3 of 5 classes out" in caplog.text


@pytest.mark.parametrize(("fold", "val_classes", "classes"), [(0, "novel", range(1, 6)), (2, "base", range(1, 11))])
def test_validation_warns_once(tiles, fold, val_classes, classes, caplog):
    data = data_of(tiles, fold, val_classes, val_episodes=3)
    names = names_without(data, data.val_dataloader(), classes)
    data.val_dataloader()  # Lightning may ask again
    (message,) = warned(caplog)
    assert message == (
        f"split val of {tiles}: the 3 episodes of base seed 0 leave {len(names)} of {len(classes)} classes out:"
        f" {', '.join(names)}; the mean is over the other classes"
    )
    data_of(tiles, fold, val_classes, val_episodes=3).val_dataloader()
    assert len(warned(caplog)) == 2  # once for each data module


@pytest.mark.parametrize("count", [None, 20, 60])
def test_all_classes_are_no_matter_and_no_episode_is_drawn_to_know(tiles, count, caplog, monkeypatch):
    monkeypatch.setattr(EpisodeTable, "test", lambda *_: pytest.fail("an episode was drawn"))
    data = data_of(tiles, test_seed=[0, 3], test_episodes=count)
    assert [len(loader) for loader in data.test_dataloader()] == [count or 48] * 2
    assert len(data.val_dataloader()) == (count or 48)
    assert not warned(caplog)
