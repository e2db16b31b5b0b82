"""Several base seeds: a loader each, whose episodes do not hang on the other seeds."""

import pytest
import torch

from frugalseg.data import Episodes, ISAID5i
from frugalseg.data.episode_files import EpisodeRow, file_of, files_of, write_episodes
from frugalseg.data.loader import Loader
from frugalseg.errors import ConfigError, DatasetNotFoundError
from tests.data.episode_tiles import NAMES, SIDE, write_tiles


@pytest.fixture(scope="module")
def tiles(tmp_path_factory):
    return write_tiles(tmp_path_factory.mktemp("tiles"))


def data_of(root, **settings):
    return ISAID5i(root, Episodes(size=SIDE, shots=2, **settings), val_classes="novel", num_workers=0)


def rows(loader):
    return [(int(b["number"]), int(b["class_id"]), b["id"][0], *b["support_id"][0]) for b in loader]


def test_one_seed_is_a_plain_loader(tiles):
    for seed in (3, [3]):
        loader = data_of(tiles, test_seed=seed).test_dataloader()
        assert isinstance(loader, Loader)
        batch = next(iter(loader))
        assert batch["base_seed"].dtype == torch.int64
        assert batch["base_seed"].tolist() == [3]


@pytest.mark.parametrize("count", [None, 9])
def test_episodes_of_a_seed_do_not_hang_on_the_others(tiles, count):
    loaders = data_of(tiles, test_seed=[7, 0, 2], test_episodes=count).test_dataloader()
    assert [{int(b["base_seed"]) for b in loader} for loader in loaders] == [{7}, {0}, {2}]
    together = [rows(loader) for loader in loaders]
    alone = [rows(data_of(tiles, test_seed=seed, test_episodes=count).test_dataloader()) for seed in (7, 0, 2)]
    assert together == alone
    assert len({tuple(found) for found in together}) == 3
    assert {len(found) for found in together} == {count or 48}


def test_validation_takes_the_first_seed_and_its_own_number(tiles):
    found = list(data_of(tiles, test_seed=[7, 0], val_episodes=5).val_dataloader())
    assert len(found) == 5
    assert {int(b["base_seed"]) for b in found} == {7}
    few = rows(data_of(tiles, test_seed=7, test_episodes=5, allow_missing_classes=True).test_dataloader())
    assert rows(data_of(tiles, test_seed=[7, 0], val_episodes=5).val_dataloader()) == few
    assert len(data_of(tiles, test_seed=[7, 0], test_episodes=4).val_dataloader()) == 4


def test_each_seed_has_its_file(tiles, tmp_path):
    shown = [EpisodeRow(n, 1, NAMES[n], (NAMES[5], NAMES[10])) for n in (0, 15, 20)]
    for seed, number in ((1, 0), (4, 1)):
        write_episodes(tmp_path / f"s{seed}/e{seed}.csv", shown[number : number + 2], "")
    given = {"episodes_file": tmp_path / "s{seed}/e{seed}.csv", "allow_missing_classes": True}  # there is but one
    loaders = data_of(tiles, test_seed=[4, 1], **given).test_dataloader()
    assert [[row[0] for row in rows(loader)] for loader in loaders] == [[15, 20], [0, 15]]
    assert [next(iter(loader))["base_seed"].item() for loader in loaders] == [4, 1]
    with pytest.raises(DatasetNotFoundError, match=r"e9.csv: no such file"):
        data_of(tiles, test_seed=[4, 9], **given).test_dataloader()


def test_files_by_seed(tmp_path):
    assert file_of("a{seed}/{seed}.csv", 12) == tmp_path.__class__("a12/12.csv")
    assert {k: str(v) for k, v in files_of("e.csv", 3).items()} == {3: "e.csv"}
    assert {k: str(v) for k, v in files_of(tmp_path / "e{seed}.csv", [3, 1]).items()} == {
        3: f"{tmp_path}/e3.csv",
        1: f"{tmp_path}/e1.csv",
    }
    assert files_of(None, [3, 1]) == files_of("None", 0) == {}


@pytest.mark.parametrize("seeds", [[], -1, [0, -2], [1, 1]])
def test_seeds_that_are_none(seeds):
    with pytest.raises(
        ConfigError, match=r"recipe\.test_seed is .*: give a number from 0 upward, or several different"
    ):
        Episodes(test_seed=seeds)


@pytest.mark.parametrize("key", ["shots", "size", "per_epoch", "test_episodes", "val_episodes"])
def test_counts_below_1(key):
    with pytest.raises(ConfigError, match="must be at least 1"):
        Episodes(**{key: 0})


def test_one_file_for_several_seeds_is_refused():
    with pytest.raises(ConfigError, match=r"episodes_file: a\.csv is one file for 2 base seeds; put \{seed\} into"):
        Episodes(test_seed=[0, 1], episodes_file="a.csv")
