"""Same seed, same bytes; interrupted writers go on; foreign folders are left alone."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from frugalseg.errors import ConfigError, DatasetError
from frugalseg.miniature.attributes import write_attribute_world
from frugalseg.miniature.voc import write_voc_world
from frugalseg.miniature.writing import DONE_MARK, STARTED_MARK
from tests.miniature.reading import tree


class StopError(Exception):
    pass


def stop_after(pictures: int) -> Callable[[int, int], None]:
    def progress(done: int, total: int) -> None:
        if done == pictures:
            raise StopError

    return progress


@pytest.mark.parametrize("write", [write_voc_world, write_attribute_world])
def test_same_seed_same_bytes(write: Callable[..., Path], tmp_path: Path) -> None:
    first, again, other = (
        write(tmp_path / name, 8, seed=seed, images_val=4) for name, seed in zip("abc", (1, 1, 2), strict=True)
    )
    assert tree(first) == tree(again)
    differing = [name for name, content in tree(first).items() if tree(other)[name] != content]
    assert len([name for name in differing if name.startswith("JPEGImages")]) == 12


def test_a_longer_world_begins_with_the_shorter_one(tmp_path: Path) -> None:
    short, long = (tree(write_voc_world(tmp_path / str(count), count, 3)) for count in (4, 9))
    pictures = {name: content for name, content in short.items() if name.count("/") == 1 and "ImageSets" not in name}
    assert len(pictures) == 5 * 7
    assert all(long[name] == content for name, content in pictures.items())


def test_going_on_after_an_interruption_gives_the_same_bytes(tmp_path: Path) -> None:
    whole = write_voc_world(tmp_path / "whole", 10, 4, seed=3)
    with pytest.raises(StopError):
        write_voc_world(tmp_path / "cut", 10, 4, seed=3, progress=stop_after(6))
    assert not (tmp_path / "cut" / DONE_MARK).exists()
    assert (tmp_path / "cut" / STARTED_MARK).exists()
    kept = tmp_path / "cut/JPEGImages/2012_000002.jpg"
    (tmp_path / "cut/Parts/2012_000004.png").unlink()  # a picture that was cut in the middle
    before = kept.stat().st_mtime_ns
    write_voc_world(tmp_path / "cut", 10, 4, seed=3)
    assert tree(tmp_path / "cut") == tree(whole)
    assert kept.stat().st_mtime_ns == before, "complete pictures are kept"


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


@pytest.mark.parametrize("wrong", [{"size": 32}, {"seed": -1}, {"images_train": 0}])
def test_impossible_settings_are_refused(wrong: dict[str, int], tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=next(iter(wrong))):
        write_voc_world(tmp_path / "w", **wrong)
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
