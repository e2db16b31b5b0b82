"""What is printed about an evaluation: every cell against the number that it shows."""

import numpy as np
import pytest

from frugalseg.analysis.groups import GROUPS
from frugalseg.analysis.overview import by_class, print_overview, score_table
from frugalseg.analysis.scores import flat_scores
from frugalseg.analysis.tables import caption, names_of
from frugalseg.run import write_json
from tests.analysis.test_tables import rows_of

NAMES = ("background", "zebra", "ant")


@pytest.fixture
def metrics():
    rng = np.random.default_rng(0)
    order = ("crf", "mw_best", "tags", "", "mw", "own", "m0")
    counts = {name: rng.integers(1, 90, (3, 3)) for name in order}
    groups = {"head": np.array([1]), "tail": np.array([2])}
    boundary = {name: np.sort(rng.integers(1, 90, (3, 3)), axis=0) for name in ("mw", "")}
    found = flat_scores(counts, "val", NAMES, groups, boundary, {"crf": np.array([3, 40])})
    return {**found, "val/threshold_mw": 0.35, "train/miou_mp": 1.0}


def percent(value):
    return f"{100 * value:.1f}"


def test_every_score_has_its_cell(metrics):
    header, *lines = rows_of(score_table("title", metrics, "val"))
    columns = ["mIoU", "head", "tail", "background", "pixels", "boundary", "undecided", "threshold"]
    assert header == ["", *columns]  # no column for the middle, which has no classes
    keys = [
        "miou{}",
        "miou{}_head",
        "miou{}_tail",
        "iou{}/background",
        "pixel_accuracy{}",
        "boundary_iou{}",
        "ignored{}",
    ]
    for line, name in zip(lines, names_of(metrics, "val"), strict=True):
        assert line[0] == caption(name)
        for cell, key in zip(line[1:-1], keys, strict=True):
            value = metrics.get("val/" + key.format(f"_{name}" if name else ""))
            assert cell == ("-" if value is None else percent(value))
        assert line[-1] == ("0.35" if name == "mw_best" else "")
    assert "middle" in GROUPS


def test_classes_in_their_own_order(metrics):
    header, *lines = rows_of(by_class("title", metrics, "val", (*NAMES, "absent")))
    main = ["m0", "mw", "", "crf", "own"]
    assert header == ["class", *map(caption, main)]
    assert [line[0] for line in lines] == [*NAMES, "mean"]
    for line in lines:
        for cell, name in zip(line[1:], main, strict=True):
            end = f"_{name}" if name else ""
            assert cell == percent(metrics[f"val/miou{end}" if line[0] == "mean" else f"val/iou{end}/{line[0]}"])


def test_print(tmp_path, capsys, monkeypatch, metrics):
    monkeypatch.setenv("COLUMNS", "200")
    write_json(tmp_path / "metrics.json", metrics)
    print_overview(tmp_path, "val", NAMES)
    printed = capsys.readouterr().out
    assert percent(metrics["val/miou"]) in printed and "zebra" in printed


def test_false_positives_have_a_column_where_there_is_a_background():
    counts = {name: np.random.default_rng(3).integers(1, 90, (3, 3)) + len(name) for name in ("cam_best", "tags")}
    found = flat_scores(counts, "val", NAMES, background=True) | {"val/threshold_cam": 0.41}
    header, *lines = rows_of(score_table("title", found, "val"))
    assert header == ["", "mIoU", "background", "false positives", "pixels", "threshold"]
    for line, name in zip(lines, ("cam_best", "tags"), strict=True):
        assert line[0] == caption(name) and line[3] == percent(found[f"val/false_positive_{name}"])
    assert [line[-1] for line in lines] == ["0.41", ""]
    plain = {key: value for key, value in found.items() if "false_positive" not in key}
    assert "false positives" not in rows_of(score_table("title", plain, "val"))[0]
