"""The ADE20K-like world: files, classes without a background, and true lists."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from frugalseg.analysis.thin_classes import class_shapes, shape_groups
from frugalseg.errors import DatasetError
from frugalseg.miniature.ade20k import CLASS_NAMES, ADE20KWorld, write_ade20k_world
from tests.miniature.reading import array


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_ade20k_world(tmp_path_factory.mktemp("ade20k"), 30, 10)


def masks(root: Path, folder: str) -> list[np.ndarray]:
    return [array(path) for path in sorted((root / "annotations" / folder).iterdir())]


def test_layout(root: Path) -> None:
    for folder, split, count in (("training", "train", 30), ("validation", "val", 10)):
        stems = [f"ADE_{split}_{number:08d}" for number in range(1, count + 1)]
        assert sorted(path.name for path in (root / "images" / folder).iterdir()) == [f"{stem}.jpg" for stem in stems]
        found = sorted(path.name for path in (root / "annotations" / folder).iterdir())
        assert found == [f"{stem}.png" for stem in stems]
    with Image.open(root / "annotations/training/ADE_train_00000001.png") as mask:
        assert (mask.mode, mask.size) == ("L", (96, 96))
    assert array(root / "images/training/ADE_train_00000001.jpg").shape == (96, 96, 3)


def test_object_info_counts_what_the_masks_hold(root: Path) -> None:
    lines = (root / "objectInfo150.txt").read_text().splitlines()
    assert lines[0].split("\t") == ["Idx", "Ratio", "Train", "Val", "Name"]
    train, val = masks(root, "training"), masks(root, "validation")
    pixels = np.bincount(np.concatenate(train + val).ravel(), minlength=7)
    for number, line in enumerate(lines[1:], start=1):
        index, ratio, in_train, in_val, name = line.split("\t")
        assert (int(index), name) == (number, CLASS_NAMES[number - 1])
        assert float(ratio) == pytest.approx(pixels[number] / pixels[1:].sum(), abs=1e-4)
        assert int(in_train) == sum(bool((mask == number).any()) for mask in train)
        assert int(in_val) == sum(bool((mask == number).any()) for mask in val)
    assert len(lines) == 7


def test_scene_categories_name_every_picture(root: Path) -> None:
    lines = [line.split() for line in (root / "sceneCategories.txt").read_text().splitlines()]
    assert [name for name, _ in lines] == [f"ADE_train_{n:08d}" for n in range(1, 31)] + [
        f"ADE_val_{n:08d}" for n in range(1, 11)
    ]
    assert {scene for _, scene in lines} == {"2_regions", "3_regions", "4_regions"}


def test_masks_are_those_of_the_drawing(root: Path) -> None:
    world = ADE20KWorld()
    for index, mask in enumerate(masks(root, "validation")):
        picture = world.picture("val", index)
        np.testing.assert_array_equal(mask, picture.mask)
        read = array(root / f"images/validation/ADE_val_{index + 1:08d}.jpg").astype(float)
        assert np.abs(read - picture.image).mean() < 5


def test_classes_are_balanced_and_void_is_a_thin_line() -> None:
    world = ADE20KWorld(seed=1)
    all_masks = [world.picture("train", index).mask for index in range(60)]
    shares = np.bincount(np.concatenate(all_masks).ravel(), minlength=7) / (60 * 96 * 96)
    assert 0.005 < shares[0] < 0.06
    assert 0.4 < shares[1] < 0.75
    assert shares[2:].min() > 0.03
    assert shares[2:].max() < 2.5 * shares[2:].min()
    finer = np.mean([ADE20KWorld(seed=1, size=192).picture("train", index).mask == 0 for index in range(60)])
    assert 0.4 < finer / shares[0] < 0.6, "lines of one pixel, whatever the size"


def test_contrast_is_inside_regions_and_not_on_the_ground() -> None:
    """Labels fit the pixels: textures vary strongly, the ground does not."""
    world = ADE20KWorld(seed=2)
    for index in range(20):
        picture = world.picture("train", index)
        grey = picture.image.mean(axis=2)
        steps = np.abs(np.diff(grey, axis=1))
        same = picture.mask[:, :-1] == picture.mask[:, 1:]
        on_ground = steps[same & (picture.mask[:, 1:] == 1)]
        on_texture = steps[same & (picture.mask[:, 1:] > 1)]
        assert on_ground.mean() < 12 < on_texture.mean()


def test_size_changes_the_pixels_only() -> None:
    for index in range(5):
        coarse, fine = (ADE20KWorld(size=size).picture("train", index) for size in (96, 192))
        assert coarse.regions == fine.regions
        agree = (fine.mask[::2, ::2] == coarse.mask)[(coarse.mask > 0) & (fine.mask[::2, ::2] > 0)]
        assert agree.mean() > 0.99


# ---------------------------------------------------------------------- with forms


def test_forms_are_thin_and_small_by_the_masks_and_turn_with_the_seed() -> None:
    for seed in (0, 3):
        world = ADE20KWorld(seed=seed, forms=True)
        drawn = [world.picture("train", index) for index in range(40)]
        # classes in the order of forms: blocks, blocks, bars, rings, dots
        order = [2 + (form + seed) % 5 for form in range(5)]
        groups = shape_groups(class_shapes([picture.mask for picture in drawn], range(1, 7)))
        assert groups == {"thin": sorted(order[2:4]), "small": [order[4]], "other": sorted([1, *order[:2]])}
        assert {picture.regions for picture in drawn} <= set(range(7, 12))
        shares = np.bincount(np.concatenate([picture.mask for picture in drawn]).ravel(), minlength=7) / (40 * 96 * 96)
        assert 0.4 < shares[1] < 0.7
        assert shares[2:].min() > 0.03


def test_a_world_without_forms_is_what_it_was(root: Path, tmp_path: Path) -> None:
    """Neither its facts nor its pictures know of them; one with forms is another world."""
    assert "forms" not in json.loads((root / "world.json").read_text())
    plain, forms = (ADE20KWorld(forms=f).picture("val", 0).mask for f in (False, True))
    np.testing.assert_array_equal(plain, array(root / "annotations/validation/ADE_val_00000001.png"))
    assert (plain != forms).any()
    write_ade20k_world(tmp_path / "w", 1, 1, forms=True)
    assert json.loads((tmp_path / "w/world.json").read_text())["forms"] is True
    with pytest.raises(DatasetError):
        write_ade20k_world(tmp_path / "w", 1, 1)
