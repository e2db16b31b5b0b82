import logging
from collections import Counter

import numpy as np
import pytest
from PIL import Image

from frugalseg.data.base import Pair
from frugalseg.data.episodes import Episodes
from frugalseg.data.io import read_mask
from frugalseg.data.isaid5i import (
    COLOURS,
    COUNTS,
    NAMES,
    SUFFIX,
    ISAID5i,
    class_table,
    fold_classes,
    index,
    locate,
    pairs,
    training_tiles,
)
from frugalseg.data.lists import read_ids
from frugalseg.data.recipes import Segment
from frugalseg.errors import ConfigError, DatasetError, DatasetNotFoundError
from tests.conftest import REAL
from tests.data.conftest import picture

# counted in the lists; the table in our notes on the protocols has classes 2 and 3 the wrong way round, see the test
PER_CLASS_P1_TRAIN = [4335, 961, 542, 2592, 660, 1478, 246, 3931, 5302, 78, 243, 219, 2131, 1890, 3624]
PER_CLASS_P1_VAL = [1592, 280, 240, 813, 183, 547, 96, 1190, 1814, 10, 74, 54, 738, 1000, 1432]
PER_CLASS_P2_VAL = [1392, 269, 221, 767, 160, 517, 91, 789, 781, 6, 45, 45, 682, 990, 1361]
TRAIN = [f"P0000_0_256_{x}_{x + 256}" for x in (0, 206, 412)]
VAL = ["P0001_0_256_0_256", "P0001_0_256_206_462"]


@pytest.fixture
def root(tmp_path):
    """Five tiles, with lists for all folds."""
    for split, names in (("train", TRAIN), ("val", VAL)):
        for folder in ("images", "semantic_png", f"{split}_list"):
            (tmp_path / split / folder).mkdir(parents=True)
        for number, name in enumerate(names):
            Image.fromarray(picture(256, 256, number)).save(tmp_path / f"{split}/images/{name}.png")
            ids = np.full((256, 256), 0, np.uint8)
            ids[:9], ids[9:100], ids[100:200] = 255, 1 + number, 6 + number
            Image.fromarray(ids).save(tmp_path / f"{split}/semantic_png/{name}_instance_color_RGB.png")
        for fold in range(3):
            lines = [f"{name}_instance_color_RGB.png_{5 * fold + 1 + n:02}" for n, name in enumerate(names) if fold < 2]
            (tmp_path / f"{split}/{split}_list/split{fold}_{split}.txt").write_text("\n".join(lines))
    return tmp_path


def per_class(found):
    counts = Counter(pair.class_id for pair in found)
    return [counts[class_id] for class_id in sorted(counts)]


def test_classes():
    table = class_table()
    assert (table.num_classes, table.foreground, table.names) == (16, 15, NAMES)
    assert len(np.unique(COLOURS, axis=0)) == 16
    assert table.palette[NAMES.index("harbor")].tolist() == [0, 100, 155]
    assert table.palette[NAMES.index("roundabout")].tolist() == [0, 191, 127]
    assert [NAMES[c] for c in fold_classes(0)] == [
        "ship",
        "storage tank",
        "baseball diamond",
        "tennis court",
        "basketball court",
    ]
    assert [NAMES[c] for c in fold_classes(1)] == [
        "ground track field",
        "bridge",
        "large vehicle",
        "small vehicle",
        "helicopter",
    ]
    assert [NAMES[c] for c in fold_classes(2)] == [
        "swimming pool",
        "roundabout",
        "soccer ball field",
        "plane",
        "harbor",
    ]


def test_packaged_tiles(tmp_path):
    for split, scenes in (("train", 1098), ("val", 364)):
        tiles = read_ids("isaid5i", f"tiles256_{split}")
        assert len(tiles) == COUNTS[split]
        assert len({name.split("_")[0] for name in tiles}) == scenes
        listed = {pair.id for fold in range(3) for pair in pairs(tmp_path, split, fold, novel=True)}
        assert listed == set(tiles)


def test_p1_pairs_are_the_published_ones(tmp_path):
    for split, counts in (("train", PER_CLASS_P1_TRAIN), ("val", PER_CLASS_P1_VAL)):
        for fold in range(3):
            assert per_class(pairs(tmp_path, split, fold, novel=True)) == counts[5 * fold : 5 * fold + 5]
    val = [pairs(tmp_path, "val", fold, novel=True) for fold in range(3)]
    assert [len(found) for found in val] == [3108, 3657, 3298]
    assert [len({pair.id for pair in found}) for found in val] == [3010, 2826, 3273]


def test_p1_training_pairs_are_those_of_the_other_folds(tmp_path):
    base = [pairs(tmp_path, "train", fold) for fold in range(3)]
    novel = [pairs(tmp_path, "train", fold, novel=True) for fold in range(3)]
    assert [len(found) for found in base] == [19142, 17197, 20125]
    assert [len(found) for found in novel] == [9090, 11035, 8107]
    tiles = [{pair.id for pair in found} for found in base]
    assert [len(names) for names in tiles] == [14155, 13168, 15191]
    assert [len(tiles[fold] & {pair.id for pair in novel[fold]}) for fold in range(3)] == [4857, 3510, 5138]
    for fold in range(3):
        assert not {pair.class_id for pair in base[fold]} & set(fold_classes(fold))


def test_p2_pairs_are_p1_pairs(tmp_path):
    """Both number the classes alike: 894 tiles show at least 2048 pixels of class 2, so P1 lists it 961 times, not 542."""
    for split in ("train", "val"):
        p1 = {pair for fold in range(3) for pair in pairs(tmp_path, split, fold, novel=True)}
        if split == "val":
            assert {pair for fold in range(3) for pair in pairs(tmp_path, split, fold, "P2", novel=True)} < p1
        else:
            assert {pair for fold in range(3) for pair in pairs(tmp_path, split, fold, "P2")} < p1
    sized = Counter(pair.class_id for pair in pairs(tmp_path, "train", 0, "P2", novel=True))
    assert (sized[2], sized[3]) == (894, 473)


def test_p2_sizes_are_the_published_ones(tmp_path):
    assert [len(training_tiles(tmp_path, fold)) for fold in range(3)] == [9298, 9658, 10053]
    val = [pairs(tmp_path, "val", fold, "P2", novel=True) for fold in range(3)]
    assert [len({pair.id for pair in found}) for found in val] == [2752, 2024, 3122]
    assert [count for found in val for count in per_class(found)] == PER_CLASS_P2_VAL
    for fold in range(3):
        found = pairs(tmp_path, "train", fold, "P2")
        assert {pair.id for pair in found} == training_tiles(tmp_path, fold)
        assert {pair.class_id for pair in found} == set(range(1, 16)) - set(fold_classes(fold))
        novel = {pair.id for pair in pairs(tmp_path, "train", fold, novel=True)}
        assert not novel & {pair.id for pair in found}


def test_index(root, caplog):
    caplog.set_level(logging.INFO)
    samples = index(root, "train")
    assert [sample.id for sample in samples] == TRAIN
    assert "train: 3 ids from 3 lists" in caplog.text
    for sample in samples:
        assert sample.image == root / f"train/images/{sample.id}.png"
        assert sample.mask == root / f"train/semantic_png/{sample.id}_instance_color_RGB.png"
        assert sample.tags is None
        assert set(np.unique(read_mask(sample.mask, 16, (256, 256), sample.image, sample.code))) <= {*range(16), 255}
    label = root / f"val/semantic_png/{VAL[0]}_instance_color_RGB.png"
    label.rename(label.with_name(f"{VAL[0]}.png"))
    assert index(root, "val")[0].mask.name == f"{VAL[0]}.png"


def test_own_list_wins_and_names_tiles_of_either_split(root):
    (root / "splits").mkdir()
    (root / "splits/train.txt").write_text(TRAIN[2])
    (root / "splits/mini.txt").write_text(f"{VAL[1]}\n{TRAIN[0]}.png\n")
    assert [sample.id for sample in index(root, "train")] == TRAIN[2:]
    assert [sample.mask.parts[-3] for sample in index(root, "mini")] == ["val", "train"]
    with pytest.raises(DatasetNotFoundError, match=r"nothing.txt: no such split"):
        index(root, "nothing")


def test_packaged_list_where_none_is_on_disk(root):
    for path in (root / "val/val_list").iterdir():
        path.unlink()
    with pytest.raises(DatasetError, match=r"6363 of 6363 images are missing.*frugalseg data prepare isaid5i"):
        index(root, "val")


def test_pairs_on_disk_win(root):
    assert pairs(root, "val", 0, novel=True) == [Pair(VAL[0], 1), Pair(VAL[1], 2)]
    assert pairs(root, "train", 2) == [
        *(Pair(n, 1 + i) for i, n in enumerate(TRAIN)),
        *(Pair(n, 6 + i) for i, n in enumerate(TRAIN)),
    ]
    (root / "val/val_list/split0_val.txt").write_text(f"{VAL[0]}_instance_color_RGB.png_06")
    with pytest.raises(
        DatasetError, match=r"split0_val.txt: names class 6 for P0001_0_256_0_256, but fold 0 has \(1, 2"
    ):
        pairs(root, "val", 0, novel=True)


def write_lists(root, found):
    """SDM's lists of {(split, fold): pairs}."""
    for (split, fold), listed in found.items():
        path = root / split / f"{split}_list" / f"split{fold}_{split}.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("\n".join(f"{pair.id}_instance_color_RGB.png_{pair.class_id:02}" for pair in listed))


def test_p2_is_the_same_with_the_lists_of_the_release_on_disk(tmp_path):
    """SDM's archive brings P1's lists; P2 must not take them for its own."""
    folds = [(split, fold) for split in ("train", "val") for fold in range(3)]
    write_lists(tmp_path, {key: pairs("nowhere", *key, novel=True) for key in folds})
    for split, fold in folds:
        for novel in (False, True):
            on_disk = pairs(tmp_path, split, fold, "P2", novel)
            assert Counter(on_disk) == Counter(pairs("nowhere", split, fold, "P2", novel))
    for fold, tiles in enumerate((2752, 2024, 3122)):  # dsmf.md 5.3
        assert len({pair.id for pair in pairs(tmp_path, "val", fold, "P2", novel=True)}) == tiles


def test_p2_of_other_tiles_is_refused(tmp_path):
    own = {("train", f): [Pair(f"P0001_0_96_{n}_{n + 96}", 5 * f + 1) for n in range(7)] for f in range(3)}
    official = pairs("nowhere", "train", 2, novel=True)[:3]
    write_lists(tmp_path, {**own, ("train", 2): official})
    with pytest.raises(DatasetError) as caught:
        pairs(tmp_path, "train", 2, "P2")
    tiles = 7 + len({pair.id for pair in official})
    assert str(caught.value).startswith(f"{tmp_path}/train/train_list: data.protocol is P2, whose lists are of the")
    assert f"but 7 of {tiles} tiles on the lists there are none of them, first P0001_0_96_0_96, " in str(caught.value)
    assert "set data.protocol=P1, or cut the tiles with: frugalseg data prepare isaid5i" in str(caught.value)
    # which tiles a fold may train on is known without the sizes of objects
    assert training_tiles(tmp_path, 2) == {pair.id for pair in own["train", 0]} - {pair.id for pair in official}


def test_p2_lists_in_the_place_of_those_of_p1(tmp_path):
    wanted = [set(pairs("nowhere", "val", 1, "P2", novel)) for novel in (True, False)]
    sized = {(split, fold): pairs("nowhere", split, fold, "P2", novel=True) for split in COUNTS for fold in range(3)}
    write_lists(tmp_path, sized)
    for split in COUNTS:
        with pytest.raises(DatasetError) as caught:
            pairs(tmp_path, split, 1)
        path = tmp_path / f"{split}/{split}_list/split0_{split}.txt"
        assert str(caught.value) == (
            f"{path}: data.protocol is P1, but 3 of 3 lists there hold exactly P2's pairs (from 2048 pixels on); set"
            " data.protocol=P2, or restore the release's lists"
        )
    # P2 finds all that it needs: its rule drops tiles that show a tested class at any size
    assert [set(pairs(tmp_path, "val", 1, "P2", novel)) for novel in (True, False)] == wanted
    write_lists(tmp_path, {("val", 0): sized["val", 0][1:], **{("val", f): [] for f in (1, 2)}})
    assert len(pairs(tmp_path, "val", 0, novel=True)) == len(sized["val", 0]) - 1  # somebody's choice, not P2's list


def test_tiles_of_another_size_or_step_are_named(root):
    for path in (root / "val/val_list").iterdir():
        path.unlink()
    for name in VAL:
        new = root / f"val/images/{name.replace('256', '512')}.png"
        (root / f"val/images/{name}.png").rename(new)
    with pytest.raises(DatasetError, match=r"6363 of 6363 .*; the 2 tiles there, first P0001_0_512_0_512, .* no list"):
        index(root, "val")


def test_wrong_roots(root, tmp_path):
    with pytest.raises(DatasetNotFoundError, match="1 folder too low"):
        locate(root / "train")
    raw = tmp_path / "raw"
    (raw / "train/images").mkdir(parents=True)
    (raw / "train/images/P0000_instance_color_RGB.png").write_bytes(b"")
    with pytest.raises(DatasetNotFoundError, match=f"frugalseg data prepare isaid5i --raw {raw} --root ROOT"):
        index(raw, "train")
    (raw / "train/images/P0000_instance_color_RGB.png").unlink()
    (raw / "val/Semantic_masks").mkdir(parents=True)
    with pytest.raises(DatasetNotFoundError, match="scenes of iSAID, not tiles"):
        index(raw, "val")


def test_module(root):
    data = ISAID5i(root, Episodes(), fold=1, num_workers=0, batch_size=1)
    assert (data.fold, data.fold_classes, data.num_classes) == (1, (6, 7, 8, 9, 10), 16)
    assert [pair.class_id for pair in data.pairs("train")] == [1, 2, 3]
    assert data.pairs("test") == [Pair(VAL[0], 6), Pair(VAL[1], 7)]
    assert (data.val_classes, data.pairs("val")) == ("base", [])  # both tiles show the fold
    assert [sample.id for sample in data.samples("val")] == VAL
    with pytest.raises(ConfigError, match=r"data.fold: 3 is none of the 3 folds"):
        ISAID5i(root, Episodes(), fold=3)
    with pytest.raises(ConfigError, match="P3"):
        pairs(root, "val", 0, "P3")


@pytest.mark.real
def test_real_tiles():
    if not (root := REAL / "iSAID_patches").is_dir():
        pytest.skip(f"no genuine iSAID tiles at {root}; set FRUGALSEG_REAL_DATA")
    for split in ("train", "val"):
        shown = {}
        for sample in index(root, split):
            ids = read_mask(sample.mask, 16, (256, 256), sample.image, sample.code)
            shown[sample.id] = {int(c) for c in np.unique(ids)} - {0, 255}
        listed = {pair for fold in range(3) for pair in pairs(root, split, fold, novel=True)}
        assert listed
        assert all(pair.class_id in shown[pair.id] for pair in listed)
        official = {pair for fold in range(3) for pair in pairs("nowhere", split, fold, novel=True)}
        # the official lists hold every class of these 42 tiles, however small (down to 293 pixels)
        assert {pair for pair in official if pair.id in shown} == {
            Pair(n, c) for n, classes in shown.items() for c in classes
        }


@pytest.fixture
def own_tiles(tmp_path):
    """Tiles that `data prepare` has cut in its own way: two listed for each class, the first of them for the next class too."""
    for split in ("train", "val"):
        for folder in ("images", "semantic_png", ".tiled", f"{split}_list"):
            (tmp_path / split / folder).mkdir(parents=True)
    listed = {fold: [] for fold in range(3)}
    for class_id in range(1, 16):
        for number in range(2):
            pair = Pair(f"P{class_id:04}_0_96_{number}_{number + 96}", class_id)
            Image.new("RGB", (8, 8)).save(tmp_path / f"train/images/{pair.id}.png")
            Image.new("L", (8, 8), class_id).save(tmp_path / f"train/semantic_png/{pair.id}{SUFFIX}.png")
            listed[(class_id - 1) // 5].append(pair)
            if number == 0:
                listed[class_id % 15 // 5].append(pair._replace(class_id=class_id % 15 + 1))
    write_lists(tmp_path, {("train", fold): found for fold, found in listed.items()})
    return tmp_path


def test_p2_of_tiles_of_ones_own_drops_tiles_and_says_that_sizes_do_not_count(own_tiles, caplog):
    found = pairs(own_tiles, "train", 0, "P2")
    assert "P2's rule of 2048 pixels is left out" in caplog.text
    # class 15's first tile shows class 1 too; class 5's first tile, which shows class 6, is dropped as well
    assert {pair.id[:5] for pair in found} == {f"P{c:04}" for c in range(6, 16)}
    assert "P0015_0_96_0_96" not in {pair.id for pair in found}
    assert Pair("P0005_0_96_0_96", 6) not in found and len(found) == 2 * 10 - 1 + 9


def test_other_recipes_train_on_the_tiles_of_the_protocol(own_tiles):
    def trained(**settings):
        data = ISAID5i(own_tiles, Segment(crop=8, scale=None), batch_size=1, num_workers=0, **settings)
        return {sample.id for sample in data.samples("train")}, data

    everything, _ = trained(protocol="P1", fold=0)
    kept, data = trained(protocol="P2", fold=0)
    assert len(everything) == 30 and kept == {pair.id for pair in pairs(own_tiles, "train", 0, "P2")}
    data.splits["predict"] = "train"
    assert {sample.id for sample in data.samples("predict")} == everything
