"""`frugalseg miniature`: every world has its verb, and what is not said keeps the writer's default."""

import json
from pathlib import Path

import pytest

from frugalseg.commands import miniature
from frugalseg.miniature.writing import DONE_MARK

COUNTS = {
    "voc": ["--images", "2", "--images-val", "1"],
    "attributes": ["--images", "2", "--images-val", "1"],
    "coco": ["--images", "2", "--images-val", "1"],
    "ade20k": ["--images", "2", "--images-val", "1"],
    "cityscapes": ["--images", "2", "--images-val", "1"],
}


@pytest.mark.parametrize("world", COUNTS)
def test_the_verb_writes_its_world(world: str, tmp_path: Path) -> None:
    assert miniature.run([world, "--root", str(tmp_path / "w"), "--seed", "3", *COUNTS[world]]) == 0
    facts = json.loads((tmp_path / "w" / DONE_MARK).read_text())
    assert (facts["world"], facts["seed"], facts["images_train"], facts["images_val"]) == (world, 3, 2, 1)
    assert facts["size"] == (96 if world == "ade20k" else 64), "the writer's own default"


@pytest.mark.parametrize("world", ["voc", "coco"])
def test_twins(world: str, tmp_path: Path) -> None:
    miniature.run([world, "--root", str(tmp_path / "w"), *COUNTS[world], "--size", "72", "--balanced"])
    facts = json.loads((tmp_path / "w" / DONE_MARK).read_text())
    assert (facts["balanced"], facts["size"]) == (True, 72)


def test_forms(tmp_path: Path) -> None:
    miniature.run(["ade20k", "--root", str(tmp_path / "w"), *COUNTS["ade20k"], "--forms"])
    assert json.loads((tmp_path / "w" / DONE_MARK).read_text())["forms"] is True


@pytest.mark.parametrize("argv", [[], ["imagenet"], ["voc"], ["ade20k", "--root", "w", "--balanced"]])
def test_wrong_words_are_refused(argv: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        miniature.run(argv)
    assert "usage: frugalseg miniature" in capsys.readouterr().err


def test_help_names_all_worlds(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        miniature.run(["--help"])
    shown = capsys.readouterr().out
    assert all(world in shown for world in (*COUNTS, "isaid", "dlrsd"))
