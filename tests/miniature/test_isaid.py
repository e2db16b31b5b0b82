"""What the iSAID world promises: official layout, official colours, all classes, scenes that are hard to tile."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from frugalseg.errors import ConfigError, DatasetError
from frugalseg.miniature.isaid import CLASS_NAMES, COLOURS, IsaidWorld, scene_id, write_isaid_world
from tests.miniature.reading import array, tree

# the table of shared/datasets.md, section 6, in the order of class ids
OFFICIAL = """0,0,0 0,0,63 0,63,63 0,63,0 0,63,127 0,63,191 0,63,255 0,127,63 0,127,127 0,0,127 0,0,191 0,0,255
0,191,127 0,127,191 0,127,255 0,100,155"""


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_isaid_world(tmp_path_factory.mktemp("isaid") / "w", 6, 4, seed=0, size=240)


def masks(root: Path, split: str) -> list[Path]:
    return sorted((root / split / "Semantic_masks/images").iterdir())


def decode(mask: np.ndarray) -> np.ndarray:
    """Class ids of a coloured mask; fails on a colour that is not in the table."""
    codes = {(r << 16) + (g << 8) + b: class_id for class_id, (r, g, b) in enumerate(COLOURS)}
    flat = mask.astype(np.int64) @ (1 << 16, 1 << 8, 1)
    assert set(np.unique(flat)) <= set(codes)
    return np.vectorize(codes.get)(flat)


def test_colours_are_the_official_ones() -> None:
    assert [tuple(int(level) for level in colour.split(",")) for colour in OFFICIAL.split()] == list(COLOURS)
    assert len(set(COLOURS)) == len(CLASS_NAMES) == 16


def test_layout(world: Path) -> None:
    found = set(tree(world))
    expected = {"world.json"}
    for split, count in (("train", 6), ("val", 4)):
        for name in (scene_id(split, index) for index in range(count)):
            expected |= {f"{split}/images/{name}.png"}
            expected |= {f"{split}/Semantic_masks/images/{name}_instance_color_RGB.png"}
    assert found == expected


def test_no_scene_id_occurs_twice() -> None:
    ids = [scene_id("train", index) for index in range(60)] + [scene_id("val", index) for index in range(20)]
    assert sorted(ids) == [f"P{number:04d}" for number in range(80)]


def test_masks_hold_the_drawn_classes_in_colours(world: Path) -> None:
    drawn = IsaidWorld(seed=0, size=240)
    for split, count in (("train", 6), ("val", 4)):
        for index in range(count):
            image, ids = drawn.scene(split, index)
            name = scene_id(split, index)
            with Image.open(world / f"{split}/images/{name}.png") as stored:
                assert stored.mode == "RGB"
                np.testing.assert_array_equal(np.asarray(stored), image)
            mask = array(world / f"{split}/Semantic_masks/images/{name}_instance_color_RGB.png")
            np.testing.assert_array_equal(decode(mask), ids)


def test_every_class_occurs_in_both_splits(world: Path) -> None:
    for split in ("train", "val"):
        areas = sum(np.bincount(decode(array(path)).ravel(), minlength=16) for path in masks(world, split))
        assert areas.shape == (16,)
        assert areas[1:].min() > 100
        assert areas[0] > areas[1:].sum(), "most of a scene is background"


@pytest.mark.parametrize("size", [64, 240, 480])
def test_scenes_are_not_square_and_no_multiples_of_the_step(size: int) -> None:
    drawn = IsaidWorld(seed=3, size=size)
    shapes = [drawn.shape(split, index) for split in ("train", "val") for index in range(8)]
    assert all(height != width for height, width in shapes)
    assert all(abs(height - width) <= max(8, height // 8) for height, width in shapes)
    assert all(width % 2 for _, width in shapes)
    assert len({width for _, width in shapes}) > (1 if size < 100 else 5)
    tiny = [(split, index) for split in ("train", "val") for index in range(8) if drawn.shape(split, index)[0] < size]
    assert tiny == ([("train", 5)] if size > 64 else [])


def test_about_half_of_the_tiles_show_a_tenth_of_foreground() -> None:
    drawn, tile = IsaidWorld(seed=0, size=480), 96
    shares = []
    for index in range(5):
        mask = drawn.scene("train", index)[1]
        rows, columns = (range(0, length - tile, tile) for length in mask.shape)
        shares += [(mask[y : y + tile, x : x + tile] > 0).mean() for y in rows for x in columns]
    assert 0.35 < np.mean(np.array(shares) > 0.1) < 0.7


def test_bytes_depend_on_the_seed_alone(tmp_path: Path) -> None:
    first, again, other = (
        tree(write_isaid_world(tmp_path / name, 2, 1, seed, 96)) for name, seed in zip("abc", (1, 1, 2), strict=True)
    )
    assert first == again
    assert all(other[name] != content for name, content in first.items())
    longer = tree(write_isaid_world(tmp_path / "d", 3, 2, 1, 96))
    assert all(longer[name] == content for name, content in first.items() if name != "world.json")


def test_going_on_after_a_loss_gives_the_same_bytes(tmp_path: Path) -> None:
    root = write_isaid_world(tmp_path / "w", 2, 1, 0, 96)
    before = tree(root)
    masks(root, "train")[1].unlink()
    assert tree(write_isaid_world(root, 2, 1, 0, 96)) == before


def test_wrong_numbers_and_other_worlds_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="size of a miniature world is 40"):
        write_isaid_world(tmp_path / "a", size=40)
    root = write_isaid_world(tmp_path / "b", 1, 1, 0, 64)
    with pytest.raises(DatasetError, match="holds another world"):
        write_isaid_world(root, 1, 1, 1, 64)
