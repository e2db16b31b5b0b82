"""What the DLRSD world promises: layouts of UC Merced and DLRSD, no unlabelled pixel, lists that fit its masks."""

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from frugalseg.errors import ConfigError
from frugalseg.miniature.dlrsd import CLASS_NAMES, FOLDERS, FOLDS, DlrsdWorld, write_dlrsd_world
from tests.miniature.reading import array, tree

OFFICIAL_FOLDERS = """agricultural airplane baseballdiamond beach buildings chaparral denseresidential forest freeway
golfcourse harbor intersection mediumresidential mobilehomepark overpass parkinglot river runway sparseresidential
storagetanks tenniscourt"""
# the colours of shared/datasets.md, section 7, from class 1 on
OFFICIAL_COLOURS = """166,202,240 128,128,0 0,0,128 255,0,0 0,128,0 128,0,0 255,233,233 160,160,164 0,128,128
90,87,255 255,255,0 255,192,0 0,0,255 255,0,192 128,0,128 0,255,0 0,255,255"""
PER_FOLDER = 6


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_dlrsd_world(tmp_path_factory.mktemp("dlrsd") / "w", PER_FOLDER, seed=0, size=96)


def stems() -> list[str]:
    return [f"{folder}/{folder}{number:02d}" for folder in FOLDERS for number in range(PER_FOLDER)]


def mask(root: Path, stem: str) -> np.ndarray:
    return array(root / f"DLRSD/Images/{stem}.png")


def pairs(root: Path, fold: int, split: str = "trn") -> list[tuple[str, int]]:
    lines = (root / f"lists/d1_pairs_{split}_fold{fold}.txt").read_text().split()
    return [(name, int(class_id)) for name, class_id in (line.split("__") for line in lines)]


def test_layout(world: Path) -> None:
    assert list(FOLDERS) == OFFICIAL_FOLDERS.split()
    expected = {f"UCMerced_LandUse/Images/{stem}.tif" for stem in stems()}
    expected |= {f"DLRSD/Images/{stem}.png" for stem in stems()}
    expected |= {f"lists/d1_pairs_{split}_fold{fold}.txt" for split in ("trn", "val") for fold in range(3)}
    expected |= {"splits/train.txt", "splits/val.txt", "world.json"}
    assert set(tree(world)) == expected


def test_images_are_rgb_and_masks_palette_ids_in_official_colours(world: Path) -> None:
    colours = [tuple(int(level) for level in colour.split(",")) for colour in OFFICIAL_COLOURS.split()]
    for stem in stems():
        with (
            Image.open(world / f"UCMerced_LandUse/Images/{stem}.tif") as image,
            Image.open(world / f"DLRSD/Images/{stem}.png") as labels,
        ):
            assert (image.format, image.mode, labels.format, labels.mode) == ("TIFF", "RGB", "PNG", "P")
            assert image.size == labels.size
            palette = np.array(labels.getpalette()).reshape(-1, 3)[1:18]
            assert [tuple(int(level) for level in row) for row in palette] == colours


def test_every_pixel_is_labelled_and_all_classes_occur(world: Path) -> None:
    areas = np.zeros(256, dtype=np.int64)
    for stem in stems():
        areas += np.bincount(mask(world, stem).ravel(), minlength=256)
    assert (areas[1:18] > 0).all()
    assert areas.sum() == areas[1:18].sum()


def test_scenes_show_what_they_are_named_after(world: Path) -> None:
    typical = {
        "agricultural": "field",
        "airplane": "airplane",
        "baseballdiamond": "bare soil",
        "beach": "sea",
        "buildings": "buildings",
        "chaparral": "chaparral",
        "forest": "trees",
        "freeway": "cars",
        "golfcourse": "sand",
        "harbor": "dock",
        "mobilehomepark": "mobile home",
        "parkinglot": "cars",
        "river": "water",
        "runway": "pavement",
        "storagetanks": "tanks",
        "tenniscourt": "court",
    }
    for folder, name in typical.items():
        for number in range(PER_FOLDER):
            shown = mask(world, f"{folder}/{folder}{number:02d}") == CLASS_NAMES.index(name) + 1
            assert shown.mean() > 0.003, (folder, number)


def test_a_few_images_are_smaller(world: Path) -> None:
    shapes = Counter(mask(world, stem).shape for stem in stems())
    assert shapes[(96, 96)] >= 110
    smaller = [shape for shape in shapes if shape != (96, 96)]
    assert 3 <= sum(shapes[shape] for shape in smaller) <= 12
    assert all(max(shape) == 96 and min(shape) >= 93 for shape in smaller)
    nominal = DlrsdWorld(size=256)
    sides = {nominal.shape(folder, number) for folder in FOLDERS for number in range(100)}
    assert min(min(shape) for shape in sides) == 247
    assert all(max(shape) == 256 for shape in sides)


def test_lists_agree_with_the_masks(world: Path) -> None:
    expected: list[list[tuple[str, int]]] = [[], [], []]
    for stem in stems():
        ids = mask(world, stem)
        for class_id in range(1, 16):
            if (ids == class_id).sum() >= 100 * ids.size / 256**2:
                expected[(class_id - 1) // 5].append((stem.split("/")[1], class_id))
    for fold in range(3):
        assert pairs(world, fold) == expected[fold]
        assert pairs(world, fold, "val") == pairs(world, fold), "D1 tests on the images it trains on"


@pytest.mark.parametrize("seed", [0, 1])
def test_every_class_has_enough_pictures_for_five_shots(seed: int, world: Path, tmp_path: Path) -> None:
    root = world if seed == 0 else write_dlrsd_world(tmp_path / "w", PER_FOLDER, seed, 96)
    for fold, class_ids in enumerate(FOLDS):
        counts = Counter(class_id for _, class_id in pairs(root, fold))
        assert set(counts) == set(class_ids)
        assert min(counts.values()) >= 6


def test_the_last_sixth_of_each_folder_is_for_validation(world: Path, tmp_path: Path) -> None:
    train, val = ((world / f"splits/{split}.txt").read_text().split() for split in ("train", "val"))
    assert val == [f"{folder}05" for folder in FOLDERS]
    assert sorted(train + val) == sorted(stem.split("/")[1] for stem in stems())
    few = write_dlrsd_world(tmp_path / "few", 2, 0, 64)
    assert (few / "splits/val.txt").read_text().split() == [f"{folder}01" for folder in FOLDERS]


def test_bytes_depend_on_the_seed_alone(tmp_path: Path) -> None:
    first, again, other, longer = (
        tree(write_dlrsd_world(tmp_path / name, count, seed, 64))
        for name, count, seed in (("a", 2, 1), ("b", 2, 1), ("c", 2, 2), ("d", 3, 1))
    )
    assert first == again
    images = [name for name in first if name.endswith(".tif")]
    assert len(images) == 42
    assert all(first[name] != other[name] for name in images)
    assert all(first[name] == longer[name] for name in first if name.endswith((".tif", ".png")))


def test_an_interrupted_world_is_finished(tmp_path: Path) -> None:
    def stop(done: int, total: int) -> None:
        if done == 20:
            raise KeyboardInterrupt

    whole = write_dlrsd_world(tmp_path / "whole", 2, 0, 64)
    with pytest.raises(KeyboardInterrupt):
        write_dlrsd_world(tmp_path / "cut", 2, 0, 64, stop)
    assert not (tmp_path / "cut/lists").exists()
    assert tree(write_dlrsd_world(tmp_path / "cut", 2, 0, 64)) == tree(whole)


@pytest.mark.parametrize("count", [1, 101])
def test_wrong_numbers_of_pictures_are_refused(count: int, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=f"images_per_folder is {count}"):
        write_dlrsd_world(tmp_path / "w", count)
    assert not (tmp_path / "w").exists()
