"""What few-shot validation looks at (`val_classes`): counts by an oracle that reads the packaged lists by itself."""

import gzip
import json
import re
from collections import Counter

import pytest

from frugalseg.data import DLRSD, Episodes, ISAID5i, Segment
from frugalseg.data.base import Pair
from frugalseg.data.dlrsd import FOLDS
from frugalseg.data.isaid5i import fold_classes
from frugalseg.data.lists import packaged, read_ids
from frugalseg.errors import ConfigError, DatasetError, DatasetNotFoundError
from tests.data.episode_tiles import NAMES, SIDE, write_tiles

EPISODES = Episodes(size=SIDE)


def listed(name):
    """Pairs of a packaged list, with the list's own numbers."""
    lines = gzip.decompress((packaged() / f"{name}.txt.gz").read_bytes()).decode().split()
    return {(line.split("/")[-1].rstrip("0123456789").rstrip("_"), int(line.rsplit("_", 1)[1])) for line in lines}


def said(numbers):
    return " / ".join(f"{number:,}" for number in numbers)


def doc(module):
    return " ".join(module.__doc__.split())


def isaid(fold, protocol):
    """Base pairs of val on tiles without any listed novel class."""
    p1 = [listed(f"isaid5i/p1_pairs_val_fold{number}") for number in range(3)]
    shown = {name for name, _ in p1[fold]}
    others = set().union(*(p1[number] for number in range(3) if number != fold))
    if protocol == "P2":
        lists = json.loads(gzip.decompress((packaged() / "isaid5i/class_lists256_val.json.gz").read_bytes()))
        others &= {(name, int(class_id)) for class_id, names in lists.items() for name in names}
    return {Pair(*pair) for pair in others if pair[0] not in shown}


@pytest.mark.parametrize("protocol", ["P1", "P2"])
def test_isaid_validates_base_classes_on_tiles_that_no_test_episode_has(protocol, tmp_path):
    pairs, tiles = [], []
    for fold in range(3):
        data = ISAID5i(tmp_path, EPISODES, fold=fold, protocol=protocol)
        found = data.pairs("val")
        assert set(found) == isaid(fold, protocol)
        assert len(found) == len(set(found))
        assert {pair.class_id for pair in found} == set(range(1, 16)) - set(fold_classes(fold))
        assert not {pair.id for pair in found} & {pair.id for pair in data.pairs("test")}
        novel = ISAID5i(tmp_path, EPISODES, fold=fold, protocol=protocol, val_classes="novel")
        assert novel.pairs("val") == novel.pairs("test") == data.pairs("test")
        assert novel.pairs("train") == data.pairs("train")
        pairs.append(len(found))
        tiles.append(len({pair.id for pair in found}))
    assert f"{said(pairs)}{' pairs' if protocol == 'P1' else ''} ({protocol})" in doc(ISAID5i)
    assert f"both on {said(tiles)} tiles" in doc(ISAID5i)


@pytest.mark.parametrize("protocol", ["D1", "D2"])
def test_dlrsd_holds_the_images_of_val_out(protocol, tmp_path):
    held, counts = set(read_ids("dlrsd", "val")), {}
    kept = [c for five in FOLDS["D2"] for c in five]
    for fold in range(3):
        data = DLRSD(tmp_path, EPISODES, fold=fold, protocol=protocol)
        parts = {part: [listed(f"dlrsd/{protocol.lower()}_pairs_{part}_fold{f}") for f in range(3) if f != fold]
                 for part in ("trn", "val")}  # fmt: skip
        train, every = set().union(*parts["trn"]), set().union(*parts["trn"], *parts["val"])

        def decoded(found):
            return {Pair(name, number - 1 if protocol == "D1" else kept[number - 1]) for name, number in found}

        val = {pair for pair in every if pair[0] in held}
        assert set(data.pairs("val")) == decoded(val)
        assert set(data.pairs("train")) == decoded({pair for pair in train if pair[0] not in held})
        assert len(data.pairs("val")) == len(val)
        novel = DLRSD(tmp_path, EPISODES, fold=fold, protocol=protocol, val_classes="novel")
        assert set(novel.pairs("train")) == decoded(train)
        assert novel.pairs("val") == novel.pairs("test") == data.pairs("test")
        images, tested = {name for name, _ in val}, {pair.id for pair in data.pairs("test")}
        row = {"kept": len(data.pairs("train")), "all": len(train), "val": len(val), "images": len(images),
               "tested": len(images & tested)}  # fmt: skip
        for key, number in row.items():
            counts.setdefault(key, []).append(number)
        assert {data.splits[role] for role in ("train", "test")} == {"all"}
        assert (data.splits["val"], novel.splits["val"]) == ("val", "all")
    assert f"{said(counts['kept'])} of {said(counts['all'])}" in doc(DLRSD)
    assert re.search(f"validates (the other )?{said(counts['val'])} \\(on {said(counts['images'])} images", doc(DLRSD))
    assert said(counts["tested"]) in doc(DLRSD)


def test_dlrsd_own_list_of_val_wins(tmp_path):
    (tmp_path / "splits").mkdir()
    (tmp_path / "splits/val.txt").write_text("airplane57\n")
    data = DLRSD(tmp_path, EPISODES, fold=1)
    assert {pair.id for pair in data.pairs("val")} == {"airplane57"}
    assert len(data.pairs("train")) == len(DLRSD(tmp_path, EPISODES, fold=1, val_classes="novel").pairs("train")) - len(
        data.pairs("val")
    )


def test_other_recipes_keep_their_splits(tmp_path):
    data = DLRSD(tmp_path, Segment())
    assert [data.splits[role] for role in ("train", "val", "test")] == ["train", "val", "val"]


@pytest.mark.parametrize("module", [ISAID5i, DLRSD])
def test_other_values_are_refused(module, tmp_path):
    with pytest.raises(ConfigError, match=r"^data\.val_classes is 'both'; set it to base or novel$"):
        module(tmp_path, EPISODES, val_classes="both")


def test_validation_runs_base_episodes_and_the_test_novel_ones(tmp_path, caplog):
    root = write_tiles(tmp_path)
    # tiles without a class of fold 1, on the lists and on disk alike
    path = root / "val/val_list/split1_val.txt"
    lines = path.read_text().split()
    path.write_text("\n".join(lines[:16]))
    recipe = Episodes(size=SIDE, test_seed=[4, 2], test_episodes=3, val_episodes=20, allow_missing_classes=True)
    data = ISAID5i(root, recipe, fold=1, num_workers=0)
    found = list(data.val_dataloader())
    assert len(found) == 20  # of 16 pairs: val_episodes, not test_episodes
    assert {b["id"][0] for b in found} == set(NAMES[16:])
    assert {int(b["class_id"]) for b in found} <= {1, 2, 3, 4, 5}
    assert {name for b in found for name in b["support_id"][0]} <= set(NAMES[16:])
    assert {int(b["base_seed"]) for b in found} == {4}
    tests = [list(loader) for loader in data.test_dataloader()]
    assert [len(batches) for batches in tests] == [3, 3]
    assert {int(b["class_id"]) for batches in tests for b in batches} <= {6, 7, 8, 9, 10}
    # a file of the tested episodes is none for base classes
    data = ISAID5i(root, Episodes(size=SIDE, test_seed=4, episodes_file=root / "none.csv"), fold=1, num_workers=0)
    assert Counter(b["id"][0] for b in data.val_dataloader()) == Counter(dict.fromkeys(NAMES[16:], 2))
    with pytest.raises(DatasetNotFoundError, match=r"none.csv: no such file"):
        data.test_dataloader()


def test_no_base_pair_is_left(tmp_path):
    data = ISAID5i(write_tiles(tmp_path), EPISODES, fold=1, num_workers=0)
    with pytest.raises(DatasetError, match=r"leaves no pair of base classes to validate on; .*data\.val_classes=novel"):
        data.val_dataloader()


def test_a_base_class_with_one_image_is_left_out_of_validation(tmp_path, caplog):
    root = write_tiles(tmp_path)
    (root / "val/val_list/split1_val.txt").write_text("")
    path = root / "val/val_list/split0_val.txt"
    lines = path.read_text().split()
    first = [line for line in lines if line.endswith("_01")]
    path.write_text("\n".join(line for line in lines if line not in first[1:]))
    data = ISAID5i(root, EPISODES, fold=2, num_workers=0)
    assert 1 not in {int(b["class_id"]) for b in data.val_dataloader()}
    assert "too few images for an episode of ship (1): it takes 2; left out" in caplog.text
