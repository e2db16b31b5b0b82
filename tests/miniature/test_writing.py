"""Same seed, same bytes; interrupted writers go on; foreign folders are left alone."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from frugalseg.errors import ConfigError, DatasetError
from frugalseg.miniature.ade20k import write_ade20k_world
from frugalseg.miniature.attributes import write_attribute_world
from frugalseg.miniature.cityscapes import write_cityscapes_world
from frugalseg.miniature.coco import write_coco_world
from frugalseg.miniature.voc import VOCWorld, write_voc_world
from frugalseg.miniature.writing import DONE_MARK, STARTED_MARK, World, write_world
from tests.miniature.reading import tree

WRITERS = [write_voc_world, write_attribute_world, write_coco_world, write_ade20k_world, write_cityscapes_world]


class StopError(Exception):
    pass


def stop_after(pictures: int) -> Callable[[int, int], None]:
    def progress(done: int, total: int) -> None:
        if done == pictures:
            raise StopError

    return progress


@pytest.mark.parametrize("write", WRITERS)
def test_same_seed_same_bytes(write: Callable[..., Path], tmp_path: Path) -> None:
    first, again, other = (
        write(tmp_path / name, 8, seed=seed, images_val=4) for name, seed in zip("abc", (1, 1, 2), strict=True)
    )
    assert tree(first) == tree(again)
    differing = [name for name, content in tree(first).items() if tree(other)[name] != content]
    pictures = [name for name in differing if name.endswith((".jpg", "leftImg8bit.png"))]
    assert len(pictures) == 12


@pytest.mark.parametrize("write", WRITERS)
def test_a_longer_world_begins_with_the_shorter_one(write: Callable[..., Path], tmp_path: Path) -> None:
    short, long = (tree(write(tmp_path / str(count), count, seed=1, images_val=3)) for count in (4, 9))
    pictures = {name: content for name, content in short.items() if name.endswith((".jpg", ".png"))}
    assert len(pictures) >= 7
    assert all(long[name] == content for name, content in pictures.items())


@pytest.mark.parametrize("write", WRITERS)
def test_going_on_after_an_interruption_gives_the_same_bytes(write: Callable[..., Path], tmp_path: Path) -> None:
    whole = write(tmp_path / "whole", 10, seed=3, images_val=4)
    cut = tmp_path / "cut"
    with pytest.raises(StopError):
        write(cut, 10, seed=3, images_val=4, progress=stop_after(6))
    assert not (cut / DONE_MARK).exists()
    assert (cut / STARTED_MARK).exists()
    lost, *kept = (cut / name for name in tree(cut) if name != STARTED_MARK)
    lost.unlink()  # a picture that was cut in the middle
    # pictures have one file or several, all of which are written again
    other_pictures = [path for path in kept if lost.stem.split("_gtFine")[0] not in path.stem]
    before = [path.stat().st_mtime_ns for path in other_pictures]
    write(cut, 10, seed=3, images_val=4)
    assert tree(cut) == tree(whole)
    assert [path.stat().st_mtime_ns for path in other_pictures] == before, "complete pictures are kept"
    assert len(other_pictures) >= 5


def test_lost_files_of_a_complete_world_are_mended(tmp_path: Path) -> None:
    root = write_voc_world(tmp_path / "w", 5, 2)
    before = tree(root)
    (root / "SegmentationClassAug/2012_000003.png").unlink()
    (root / "ImageSets/Segmentation/val.txt").unlink()
    assert tree(write_voc_world(root, 5, 2)) == before


@pytest.mark.parametrize("change", [{"seed": 1}, {"size": 96}, {"balanced": True}, {"images_val": 3}])
@pytest.mark.parametrize("complete", [True, False])
def test_another_world_is_refused(change: dict[str, int], complete: bool, tmp_path: Path) -> None:
    settings = {"images_train": 4, "images_val": 2, "seed": 0}
    if complete:
        write_voc_world(tmp_path / "w", **settings)
    else:
        with pytest.raises(StopError):
            write_voc_world(tmp_path / "w", **settings, progress=stop_after(2))
    before = tree(tmp_path / "w")
    with pytest.raises(DatasetError, match="holds another world") as caught:
        write_voc_world(tmp_path / "w", **{**settings, **change})
    assert "\n" not in str(caught.value)
    assert tree(tmp_path / "w") == before


def test_one_kind_of_world_does_not_overwrite_the_other(tmp_path: Path) -> None:
    write_voc_world(tmp_path / "w", 2, 1)
    with pytest.raises(DatasetError, match="another world"):
        write_attribute_world(tmp_path / "w", 2, images_val=1)


def test_foreign_files_are_not_touched(tmp_path: Path) -> None:
    (tmp_path / "JPEGImages").mkdir()
    with pytest.raises(DatasetError, match="no miniature world"):
        write_voc_world(tmp_path, 2, 1)


@pytest.mark.parametrize("write", [write_voc_world, write_coco_world, write_ade20k_world, write_cityscapes_world])
@pytest.mark.parametrize("wrong", [{"size": 32}, {"seed": -1}, {"images_train": 0}, {"images_val": 0}])
def test_impossible_settings_are_refused(write: Callable[..., Path], wrong: dict[str, int], tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=next(iter(wrong))):
        write(tmp_path / "w", **wrong)
    assert not (tmp_path / "w").exists()


def test_the_done_mark_describes_the_world(tmp_path: Path) -> None:
    calls = []
    root = write_voc_world(tmp_path / "w", 3, 2, seed=4, progress=lambda done, total: calls.append((done, total)))
    assert calls == [(done, 5) for done in range(1, 6)]
    facts = json.loads((root / DONE_MARK).read_text())
    assert facts["seed"] == 4
    assert facts["pairs"] == [[1, 9], [2, 10], [3, 11], [4, 12]]
    assert len(facts["weights"]) == 12
    assert len(facts["digest"]) == 64
    assert not (root / STARTED_MARK).exists()


def test_any_layout_can_be_written(tmp_path: Path) -> None:
    drawn = []

    def make(split: str, index: int) -> dict[str, bytes]:
        drawn.append((split, index))
        return {f"{split}/deep/{index}.txt": b"content"}

    facts = {"world": "text", "seed": 0, "size": 64}
    world = World(
        facts, {"a": 2, "b": 1}, lambda split, index: [f"{split}/deep/{index}.txt"], make, lambda: {"list.txt": b"all"}
    )
    write_world(tmp_path, world)
    assert sorted(tree(tmp_path)) == ["a/deep/0.txt", "a/deep/1.txt", "b/deep/0.txt", "list.txt", DONE_MARK]
    (tmp_path / "a/deep/1.txt").unlink()
    write_world(tmp_path, world)
    assert drawn == [("a", 0), ("a", 1), ("b", 0), ("a", 1)], "what is there is not drawn again"


def test_old_worlds_are_drawn_as_ever() -> None:
    """What `GENERATOR_VERSION` promises; pixels with a tolerance, since sines may differ in the last place."""
    picture = VOCWorld(seed=3).picture("train", 0)
    assert picture.class_ids == (5, 1)
    assert np.bincount(picture.scene.parts.ravel()).tolist() == [3099, 705, 292]
    means = picture.scene.image.mean(axis=(0, 1))
    np.testing.assert_allclose(means, [137.796, 135.586, 109.971], atol=0.01)
