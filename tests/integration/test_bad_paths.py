"""Paths and settings that cannot be used, met through the command line: one line, exit code 2, nothing half-written."""

import errno
import os
from pathlib import Path

import pytest
import yaml

from frugalseg.cli import main
from frugalseg.miniature.coco import write_coco_world
from frugalseg.miniature.voc import write_voc_world
from tests.integration.test_bad_data import one_line, show, tree

CROP = "--data.init_args.recipe.init_args.crop=32"


def refuse(monkeypatch, method, path):
    """Make one file or folder unreadable; the suite may run as root, to whom nothing is."""
    usual = getattr(Path, method)

    def guarded(self, *args, **kwargs):
        if self == path:
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(self))
        return usual(self, *args, **kwargs)

    monkeypatch.setattr(Path, method, guarded)


@pytest.mark.parametrize("verb", ["check", "stats"])
@pytest.mark.parametrize(
    ("method", "name"),
    [("iterdir", "JPEGImages"), ("read_bytes", "ImageSets/Segmentation/train.txt"), ("is_dir", "JPEGImages")],
)
def test_data_that_may_not_be_read(capsys, monkeypatch, tmp_path, world, verb, method, name):
    refuse(monkeypatch, method, world / name)
    words = ["data", verb, "voc", "--root", world, *(["--out", tmp_path / "stats"] if verb == "stats" else [])]
    line = one_line(capsys, words)
    assert line == (
        f"frugalseg: error: {world / name}: Permission denied; give yourself the right to it, or name another place"
    )
    assert tree(tmp_path) == []


@pytest.mark.parametrize("verb", ["check", "stats"])
def test_annotations_that_may_not_be_read(capsys, monkeypatch, tmp_path, verb):
    root = write_coco_world(tmp_path / "coco", images_train=10, images_val=10)
    annotations = root / "annotations/instances_val2014.json"
    refuse(monkeypatch, "open", annotations)
    line = one_line(capsys, ["data", verb, "coco2014", "--root", root])
    assert line.startswith(f"frugalseg: error: {annotations}: cannot be read (Permission denied); ")


def test_a_read_only_folder_to_write_to(capsys, monkeypatch, tmp_path, world):
    out = tmp_path / "out"
    refuse(monkeypatch, "mkdir", out)
    for words in (
        ["miniature", "voc", "--root", out, "--images", "2", "--images-val", "1"],
        ["data", "stats", "voc", "--root", world, "--out", out, "--workers", "1"],
        show("VOC", world, "Tags", CROP, "--out", out / "a.png"),
    ):
        assert f"{out}: Permission denied; give yourself the right to it" in one_line(capsys, words)
    assert tree(tmp_path) == []


def test_a_read_only_folder_that_is_there_already(capsys, monkeypatch, tmp_path, world):
    """What cannot be opened is the temporary file; the message names the one that was asked for."""
    refuse(monkeypatch, "open", tmp_path / f".world.unfinished.json.{os.getpid()}.tmp")
    refuse(monkeypatch, "write_bytes", tmp_path / f".world.unfinished.json.{os.getpid()}.tmp")
    line = one_line(capsys, ["miniature", "voc", "--root", tmp_path, "--images", "2", "--images-val", "1"])
    assert line.startswith(f"frugalseg: error: {tmp_path}/world.unfinished.json: Permission denied; ")


@pytest.mark.parametrize("below", ["", "x", "x/y"])
def test_a_file_where_a_folder_is_wanted(capsys, tmp_path, world, below):
    file = tmp_path / "file"
    file.write_text("precious")
    for words in (
        ["miniature", "voc", "--root", file / below, "--images", "2", "--images-val", "1"],
        ["data", "stats", "voc", "--root", world, "--out", file / below, "--workers", "1"],
        show("VOC", world, "Tags", CROP, "--out", file / below / "a.png"),
    ):
        line = one_line(capsys, words)
        assert str(file) in line
        assert line.endswith("but a file is in its place: name another path, or move the file away")
    assert file.read_text() == "precious"


def test_a_folder_where_a_file_is_wanted(capsys, tmp_path, world):
    for name, words in (
        ("a.png", show("VOC", world, "Tags", CROP, "--out", tmp_path / "a.png")),
        ("voc-train.csv", ["data", "stats", "voc", "--root", world, "--out", tmp_path, "--workers", "1"]),
    ):
        (tmp_path / name).mkdir()
        line = one_line(capsys, words)
        assert line == (
            f"frugalseg: error: {tmp_path / name}: Is a directory;"
            " a file is wanted here: name another path, or move the folder away"
        )
    assert tree(tmp_path) == ["a.png", "voc-train.csv"]


@pytest.mark.parametrize(
    "defect", [OSError("odd"), BrokenPipeError(errno.EPIPE, "odd"), OSError(errno.EBADF, "odd", 3)]
)
def test_what_is_no_matter_of_a_file_keeps_its_traceback(monkeypatch, defect):
    def fail(_):
        raise defect

    monkeypatch.setattr("frugalseg.commands.report.run", fail)
    with pytest.raises(OSError, match="odd"):
        main(["report", "x"])


# ---------------------------------------------------------------------- encodings


def test_a_list_in_another_encoding(capsys, tmp_path):
    root = write_voc_world(tmp_path / "w", images_train=2, images_val=1)
    listed = root / "ImageSets/Segmentation/train.txt"
    text = listed.read_text()
    listed.write_bytes(text.encode("utf-16"))
    assert f"{listed}: is not UTF-8 text" in one_line(capsys, ["data", "stats", "voc", "--root", root])
    assert main(["data", "check", "voc", "--root", str(root)]) == 1  # a finding among others
    assert f"{listed}: is not UTF-8 text" in capsys.readouterr().out
    listed.write_bytes(text.replace("\n", "\r\n").encode("utf-8-sig"))
    assert main(["data", "check", "voc", "--root", str(root)]) == 0


def config(tmp_path, world, encoding, name="VOC"):
    settings = {"root": str(world), "num_workers": 0, "batch_size": 2,
                "recipe": {"class_path": "Tags", "init_args": {"crop": 32}}}  # fmt: skip
    text = "# café\r\n" + yaml.safe_dump({"data": {"class_path": name, "init_args": settings}})
    path = tmp_path / "experiment.yaml"
    path.write_bytes(text.encode(encoding))
    return ["show", "--config", path, "--count", "2", "--out", tmp_path / "a.png"]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_show_reads_what_windows_editors_write(tmp_path, world, encoding):
    assert main([str(word) for word in config(tmp_path, world, encoding)]) == 0
    assert (tmp_path / "a.png").is_file()


def test_show_refuses_a_config_in_latin_1(capsys, tmp_path, world):
    line = one_line(capsys, config(tmp_path, world, "latin-1"))
    assert f"{tmp_path / 'experiment.yaml'}: not readable (" in line
    assert line.endswith("give an experiment's YAML, in UTF-8")


# ---------------------------------------------------------------------- settings


@pytest.mark.parametrize(
    ("setting", "told"),
    [
        ("--data.init_args.fold=9", "data.fold: 9 is none of the 4 folds 0 to 3 of PASCAL-5i"),
        ("--data.init_args.batch_size=0", "data.batch_size and data.limit must be at least 1,"),
        ("--data.init_args.seed=-1", "data.seed is -1: set it to a number from 0 upward"),
        ("--data.init_args.recipe.init_args.crop=0", "recipe.crop is 0: set it to a number from 1 upward"),
        ("--data.init_args.recipe.init_args.crop=big", "Parser key \"crop\": Expected a <class 'int'>"),
        ("--data.init_args.recipe.init_args.kropp=3", "Option 'kropp' is not accepted"),
        ("--data.init_args.recipe=Tagz", "Tagz"),
    ],
)
def test_show_tells_in_one_line_what_a_class_refuses(capsys, tmp_path, world, setting, told):
    line = one_line(capsys, show("VOC", world, "Tags", setting, "--out", tmp_path / "a.png"))
    assert told in line
    assert not any(noise in line for noise in ("Union", "Subtypes", "Namespace", "NestedArg"))


@pytest.mark.parametrize(("error", "told"), [(ValueError("too\nodd"), "too odd; mend"), (TypeError("no"), "no; mend")])
def test_show_makes_one_line_of_a_class_that_complains(capsys, monkeypatch, world, error, told):
    def refused(*_):
        raise error

    monkeypatch.setattr("frugalseg.data.voc.fold_classes", refused)
    assert told in one_line(capsys, show("VOC", world, "Tags"))


def test_show_keeps_the_traceback_of_a_defect(monkeypatch, world):
    monkeypatch.setattr("frugalseg.data.voc.fold_classes", lambda *_: {}["absent"])
    with pytest.raises(KeyError, match="absent"):
        main(show("VOC", world, "Tags"))


def test_fit_names_the_setting_too(capsys, words):
    line = one_line(capsys, words("fit", "--data.init_args.recipe.init_args.flip", "2"))
    assert "recipe.flip is 2.0: set it to a probability, 0 to 1" in line
