import hashlib
from collections import Counter
from itertools import pairwise

import numpy as np
import pytest
from PIL import Image

from frugalseg.data.base import Pair
from frugalseg.data.dlrsd import (
    CODE,
    COLOURS,
    COUNTS,
    DLRSD,
    NAMES,
    class_table,
    fold_classes,
    fold_pairs,
    index,
    odd_sizes,
    pairs,
)
from frugalseg.data.episodes import Episodes
from frugalseg.data.io import read_mask
from frugalseg.data.lists import read_ids
from frugalseg.data.recipes import Segment
from frugalseg.errors import ConfigError, DatasetError, DatasetNotFoundError, MaskError
from frugalseg.ops.palette import voc_palette
from tests.data.conftest import picture

PER_CLASS = {
    "airplane": 100, "bare soil": 754, "buildings": 713, "cars": 897, "chaparral": 116, "court": 105, "dock": 100,
    "field": 103, "grass": 977, "mobile home": 102, "pavement": 1331, "sand": 291, "sea": 101, "ship": 103, "tanks": 100,
    "trees": 1021, "water": 208,
}  # fmt: skip
STORED = np.repeat(np.arange(1, 18, dtype=np.uint8), 256 * 256 // 16)[: 256 * 256].reshape(256, 256)


def as_palette(stored):
    image = Image.fromarray(stored)
    image.putpalette(np.concatenate([[(0, 0, 0)], COLOURS]).astype(np.uint8).tobytes())
    return image


def as_colours(stored):
    return Image.fromarray(np.concatenate([[(0, 0, 0)], COLOURS]).astype(np.uint8)[stored])


def write(root, name, label, image=".tif", size=(256, 256), flat=False, folder="Images", end=".png"):
    images = root / "DLRSD/Images" if flat else root / "UCMerced_LandUse/Images" / name[:-2]
    labels = root / "DLRSD" / folder / name[:-2]
    for place in (images, labels):
        place.mkdir(parents=True, exist_ok=True)
    Image.fromarray(picture(*size, len(name))).save(images / f"{name}{image}")
    label.save(labels / f"{name}{end}")


def split(root, name, ids):
    (root / "splits").mkdir(exist_ok=True)
    (root / f"splits/{name}.txt").write_text("\n".join(ids))


def read(sample):
    with Image.open(sample.image) as image:
        return read_mask(sample.mask, 17, (image.height, image.width), sample.image, sample.code)


def test_classes():
    table = class_table()
    assert (table.num_classes, table.foreground, table.background) == (17, 17, False)
    assert table.palette[NAMES.index("tanks")].tolist() == [128, 0, 128]
    assert len(np.unique(COLOURS, axis=0)) == 17
    assert [NAMES[c] for c in fold_classes(1, "D1")] == ["court", "dock", "field", "grass", "mobile home"]
    assert [NAMES[c] for c in fold_classes(1, "D2")] == ["court", "dock", "grass", "mobile home", "pavement"]
    assert [NAMES[c] for c in fold_classes(2, "D1")] == ["pavement", "sand", "sea", "ship", "tanks"]
    assert [NAMES[c] for c in fold_classes(2, "D2")] == ["sand", "ship", "tanks", "trees", "water"]
    assert fold_classes(0, "D1") == fold_classes(0, "D2") == (0, 1, 2, 3, 4)
    with pytest.raises(ConfigError, match="D3"):
        fold_classes(0, "D3")


def test_d1_lists_are_the_published_ones(tmp_path):
    lists = [fold_pairs(tmp_path, fold, "D1", "val") for fold in range(3)]
    assert lists == [fold_pairs(tmp_path, fold, "D1", "trn") for fold in range(3)]
    assert [len(found) for found in lists] == [2580, 1387, 1926]
    assert [len({pair.id for pair in found}) for found in lists] == [1485, 1232, 1600]
    counts = Counter(NAMES[pair.class_id] for found in lists for pair in found)
    assert counts == {name: count for name, count in PER_CLASS.items() if name not in ("trees", "water")}
    for fold, (overlap, tested) in enumerate([(1350, 1485), (1119, 1232), (1440, 1600)]):
        train, test = ({pair.id for pair in pairs(tmp_path, fold, "D1", novel)} for novel in (False, True))
        assert (len(train & test), len(test)) == (overlap, tested)


def test_d2_lists_are_the_published_ones(tmp_path):
    train, test = ([fold_pairs(tmp_path, fold, "D2", part) for fold in range(3)] for part in ("trn", "val"))
    assert [len(found) for found in train] == [1808, 1832, 1208]
    assert [len(found) for found in test] == [772, 783, 515]
    counts = Counter(NAMES[pair.class_id] for found in train + test for pair in found)
    assert counts == {name: count for name, count in PER_CLASS.items() if name not in ("field", "sea")}
    assert not {pair for found in train for pair in found} & {pair for found in test for pair in found}
    for fold, (overlap, tested) in enumerate([(552, 674), (587, 687), (353, 476)]):
        base, novel = ({pair.id for pair in pairs(tmp_path, fold, "D2", novel)} for novel in (False, True))
        assert (len(base & novel), len(novel)) == (overlap, tested)


def test_both_protocols_say_the_same_of_the_classes_that_both_keep(tmp_path):
    shared = set(NAMES) - {"field", "sea", "trees", "water"}
    d1 = {
        pair for fold in range(3) for pair in fold_pairs(tmp_path, fold, "D1", "trn") if NAMES[pair.class_id] in shared
    }
    d2 = {pair for fold in range(3) for part in ("trn", "val") for pair in fold_pairs(tmp_path, fold, "D2", part)}
    assert d1 == {pair for pair in d2 if NAMES[pair.class_id] in shared}


@pytest.mark.parametrize("protocol", ["D1", "D2"])
def test_training_pairs_leave_the_fold_out(tmp_path, protocol):
    for fold in range(3):
        novel = set(fold_classes(fold, protocol))
        assert {pair.class_id for pair in pairs(tmp_path, fold, protocol, novel=True)} == novel
        base = {pair.class_id for pair in pairs(tmp_path, fold, protocol)}
        assert len(base) == 10
        assert not base & novel


def test_packaged_split_is_the_documented_one():
    ids = {name: read_ids("dlrsd", name) for name in ("train", "val")}
    assert {name: len(found) for name, found in ids.items()} == {name: COUNTS[name] for name in ids}
    everything = sorted(ids["train"] + ids["val"])
    assert len(set(everything)) == COUNTS["all"]
    rank = {name: hashlib.sha256(f"frugalseg dlrsd 0 {name}".encode()).hexdigest() for name in everything}
    for scene in {name[:-2] for name in everything}:
        ranked = sorted((f"{scene}{number:02}" for number in range(100)), key=rank.__getitem__)
        assert set(ranked[:20]) == {name for name in ids["val"] if name[:-2] == scene}
    assert all(a < b for a, b in pairwise(dict.fromkeys(name[:-2] for name in ids["val"])))


@pytest.mark.parametrize("encode", [Image.fromarray, as_palette, as_colours])
@pytest.mark.parametrize("end", [".png", ".tif"])
@pytest.mark.parametrize("folder", ["Images", "Labels"])
def test_encodings_and_layouts(tmp_path, encode, end, folder):
    write(tmp_path, "beach00", encode(STORED), end=end, folder=folder)
    write(tmp_path, "river07", encode(STORED), image=".png", end=end, folder=folder)
    write(tmp_path, "river08", encode(STORED), image=".jpg", end=end, folder=folder)
    write(tmp_path, "forest99", encode(STORED), flat=True, end=end, folder=folder)
    split(tmp_path, "val", ["beach00", "river07", "river08", "forest99"])
    samples = index(tmp_path, "val")
    assert [sample.image.suffix for sample in samples] == [".tif", ".png", ".jpg", ".tif"]
    for sample in samples:
        assert np.array_equal(read(sample), STORED - 1)
        assert (sample.tags, sample.code) == (None, CODE)


@pytest.mark.parametrize("encode", [Image.fromarray, as_palette])
def test_0_and_18_are_unlabelled_and_19_is_an_error(tmp_path, encode):
    stored = STORED.copy()
    stored[0], stored[1] = 0, 18
    write(tmp_path, "beach00", encode(stored))
    split(tmp_path, "val", ["beach00"])
    (sample,) = index(tmp_path, "val")
    ids = read(sample)
    assert (ids[:2] == 255).all()
    assert np.array_equal(ids[2:], STORED[2:] - 1)
    stored[5, 7] = 19
    write(tmp_path, "beach00", encode(stored))
    with pytest.raises(MaskError, match=r"beach00.png: value 19 in 1 pixels, first at row 5, column 7"):
        read(sample)


def test_colours(tmp_path):
    colours = np.array(as_colours(STORED))
    colours[3, 4] = 0
    write(tmp_path, "beach00", Image.fromarray(colours))
    split(tmp_path, "val", ["beach00"])
    (sample,) = index(tmp_path, "val")
    assert read(sample)[3, 4] == 255
    colours[3, 4] = 1, 255, 0
    write(tmp_path, "beach00", Image.fromarray(colours))
    with pytest.raises(MaskError, match=r"beach00.png: colour \(1, 255, 0\) \(RGB\) at row 3, column 4"):
        read(sample)


def test_images_of_other_sizes(tmp_path):
    write(tmp_path, "beach00", Image.fromarray(STORED), size=(247, 256))
    write(tmp_path, "beach01", Image.fromarray(STORED[:253, :254]), size=(253, 254))
    write(tmp_path, "beach02", Image.fromarray(STORED))
    write(tmp_path, "beach03", Image.fromarray(STORED), size=(239, 256))
    split(tmp_path, "train", ["beach00", "beach01"])
    split(tmp_path, "val", ["beach02", "beach03"])
    seen = []
    assert odd_sizes(tmp_path, progress=lambda *p: seen.append(p)) == {
        (247, 256): ["beach00"],
        (253, 254): ["beach01"],
        (239, 256): ["beach03"],
    }
    assert seen[-1] == (4, 4)
    stretched, same = (read(sample) for sample in index(tmp_path, "train"))
    assert stretched.shape == (247, 256)
    assert np.array_equal(np.unique(stretched), np.unique(STORED - 1))
    assert np.array_equal(same, STORED[:253, :254] - 1)
    with pytest.raises(MaskError, match="is 256x256"):
        read(index(tmp_path, "val")[1])


def test_splits(tmp_path):
    for name in ("beach00", "beach01"):
        write(tmp_path, name, Image.fromarray(STORED))
    missing = len(set(read_ids("dlrsd", "val")) - {"beach00", "beach01"})
    with pytest.raises(DatasetError, match=f"{missing} of 420 images are missing"):
        index(tmp_path, "val")
    split(tmp_path, "train", ["beach01"])
    split(tmp_path, "val", ["beach00"])
    assert [sample.id for sample in index(tmp_path, "all")] == ["beach00", "beach01"]
    with pytest.raises(DatasetNotFoundError, match=r"other.txt: no such split"):
        index(tmp_path, "other")
    with pytest.raises(DatasetNotFoundError, match="1 folder too low"):
        index(tmp_path / "DLRSD", "val")


def test_lists_on_disk_win(tmp_path):
    (tmp_path / "lists").mkdir()
    (tmp_path / "lists/d1_pairs_val_fold1.txt").write_text("beach00__8\n")
    with pytest.raises(DatasetError, match="lists: has lists, but none of protocol D2"):
        pairs(tmp_path, 1, "D2", novel=True)
    (tmp_path / "lists/d2_pairs_val_fold1.txt").write_text("beach/beach00_8\n")
    assert pairs(tmp_path, 1, "D1", novel=True) == [Pair("beach00", NAMES.index("field"))]
    assert pairs(tmp_path, 1, "D2", novel=True) == [Pair("beach00", NAMES.index("grass"))]
    (tmp_path / "lists/d2_pairs_val_fold1.txt").write_text("beach/beach00_11\n")
    with pytest.raises(DatasetError, match=r"names class 11 for beach00, but fold 1 of D2 has \[6, 7, 8, 9, 10\]"):
        pairs(tmp_path, 1, "D2", novel=True)


def test_module(tmp_path):
    for name in ("airplane00", "airplane01"):
        write(tmp_path, name, as_palette(STORED))
    split(tmp_path, "train", ["airplane00"])
    split(tmp_path, "val", ["airplane01"])
    data = DLRSD(tmp_path, Segment(crop=64), batch_size=1, num_workers=0)
    assert [[s.id for s in data.samples(role)] for role in ("train", "val")] == [["airplane00"], ["airplane01"]]
    (batch,) = data.train_dataloader()
    assert batch["mask"].unique().tolist()[-1] in (*range(17), 255)
    few = DLRSD(tmp_path, Episodes(), fold=0, protocol="D2", num_workers=0)
    assert (few.fold, few.fold_classes, few.num_classes) == (0, (0, 1, 2, 3, 4), 17)
    assert [s.id for s in few.samples("train")] == [s.id for s in few.samples("test")] == ["airplane00", "airplane01"]
    assert not {pair.class_id for pair in few.pairs("train")} & set(few.fold_classes)
    assert {pair.class_id for pair in few.pairs("test")} == set(few.fold_classes)
    with pytest.raises(ConfigError, match=r"data.fold 3"):
        DLRSD(tmp_path, Episodes(), fold=3)


def test_a_palette_of_class_colours_in_any_order(tmp_path):
    """Saved from colours, a palette image numbers the colours as they come."""
    ids = np.random.default_rng(0).integers(0, 17, (20, 30)).astype(np.uint8)
    used = COLOURS[:17][ids]
    shuffled = np.random.default_rng(1).permutation(17)
    image = Image.fromarray(np.argsort(shuffled)[ids].astype(np.uint8))
    image.putpalette(COLOURS[shuffled].tobytes())
    assert (np.asarray(image.convert("RGB")) == used).all()
    image.save(tmp_path / "shuffled.png")
    assert (read_mask(tmp_path / "shuffled.png", 17, code=CODE) == ids).all()
    other = Image.fromarray(ids + 1)
    other.putpalette(voc_palette().tobytes())  # other colours: then the numbers count
    other.save(tmp_path / "voc.png")
    assert (read_mask(tmp_path / "voc.png", 17, code=CODE) == ids).all()
