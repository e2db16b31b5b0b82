"""The table and the picture of `make demo`, from run folders as its stages leave them."""

import json
import os
import shutil
import subprocess

import numpy as np
import pytest
import yaml
from PIL import Image

from frugalseg.analysis.demo_picture import first_row, poster, row
from frugalseg.cli import main
from frugalseg.errors import MapsError
from tests.conftest import REPOSITORY

VALUES = {"without": 0.25, "with": 0.5}


def stage_with(runs, words, fold, seed, values):
    for stage in words["stage"]:
        folder = runs / words["run"] / (f"fold{fold}" if "fold" in words else "") / f"seed{seed}" / stage
        folder.mkdir(parents=True, exist_ok=True)
        known = json.loads((folder / "metrics.json").read_text()) if (folder / "metrics.json").is_file() else {}
        (folder / "metrics.json").write_text(json.dumps({**known, **values}))
        (folder / "done.json").write_text("{}")


@pytest.fixture
def finished(tmp_path):
    """Scores of every comparison of experiments/demo.yaml, for seed 3 and fold 2."""
    for claim in yaml.safe_load((REPOSITORY / "experiments" / "demo.yaml").read_text())["claims"]:
        for side, value in (("baseline", 0.25), ("treatment", 0.5)):
            own = {"run": claim[side]} if isinstance(claim[side], str) else claim[side]
            words = {**{k: claim[k] for k in ("run", "stage", "metric", "fold") if k in claim}, **own}
            words["stage"] = [words["stage"]]
            stage_with(tmp_path / "runs", words, 2, 3, {words["metric"]: value})
    return tmp_path / "runs"


def demo(runs, tmp_path, *more):
    words = ["--file", str(REPOSITORY / "experiments" / "demo.yaml"), "--out", str(tmp_path / "demo.png"), *more]
    return main(["demo", "--runs", str(runs), *words])


def test_the_table_has_a_row_for_every_paper_and_misses_no_number(finished, tmp_path, capsys):
    demo(finished, tmp_path, "--seed", "3", "--fold", "2")
    said = capsys.readouterr().out
    for name in ("SFC", "CTI", "DSMF-Net", "MEVT"):
        assert name in said
    rows = [line for line in said.splitlines() if "mIoU, %" in line]
    claims = yaml.safe_load((REPOSITORY / "experiments" / "demo.yaml").read_text())["claims"]
    assert len(rows) == len(claims)
    # sides that share a stage's metric with another row take the later value
    assert sum("25.0" in line and "50.0" in line and "+25.0" in line for line in rows) >= len(claims) - 2


def test_an_unfinished_demo_says_how_to_go_on(finished, tmp_path, capsys):
    shutil.rmtree(finished / "mini-mevt-init")
    assert demo(finished, tmp_path, "--seed", "3", "--fold", "2") == 2
    err = capsys.readouterr().err
    assert "mini-mevt-init" in err
    assert "run make demo again" in err
    assert not (tmp_path / "demo.png").exists()


def test_runs_without_their_records_end_in_one_line(finished, tmp_path, capsys):
    assert demo(finished, tmp_path, "--seed", "3", "--fold", "2") == 2
    assert "provenance.json" in capsys.readouterr().err


def test_rows_of_other_widths_are_scaled_to_one_width():
    wide = row("a", [np.zeros((20, 40, 3), np.uint8)] * 4)
    narrow = row("b", [np.zeros((20, 40, 3), np.uint8)] * 2)
    drawn = poster([wide, narrow])
    assert drawn.shape[1] == wide.shape[1]
    assert drawn.shape[0] == wide.shape[0] + round(narrow.shape[0] * wide.shape[1] / narrow.shape[1])


def test_the_upper_half_of_a_panel(tmp_path):
    picture = np.zeros((40, 30, 3), np.uint8)
    picture[:20] = 200
    Image.fromarray(picture).save(tmp_path / "panel.png")
    assert (first_row(tmp_path / "panel.png") == 200).all()
    (tmp_path / "panel.png").write_bytes(b"no picture")
    with pytest.raises(MapsError, match=r"panel\.png"):
        first_row(tmp_path / "panel.png")


@pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")
def test_the_demo_has_all_stages_that_its_plan_makes():
    """The stages that are counted are those that Make would run."""
    asked = subprocess.run(
        ["make", "-C", str(REPOSITORY), "--no-print-directory", "-pn", "demo"],
        capture_output=True,
        text=True,
        timeout=120,
    ).stdout
    listed = next(line for line in asked.splitlines() if line.startswith("DEMO_COUNTED := ")).split()[2:]
    plan = subprocess.run(
        ["make", "-C", str(REPOSITORY), "--no-print-directory", "-n", "-B", "demo-scores"],
        capture_output=True,
        text=True,
        timeout=120,
    ).stdout.replace("\\\n", " ")
    verbs = ("fit", "predict", "test", "validate", "crf", "walk", "evaluate")
    parts = [
        part
        for line in plan.splitlines()
        if "bin/frugalseg " in line
        for part in line.split("bin/frugalseg ", 1)[1].split(" + ")
    ]
    assert len(listed) == len(set(listed))
    assert len(listed) == sum(part.split()[0] in verbs for part in parts)


@pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")
@pytest.mark.parametrize("target", ["demo", "claims"])
@pytest.mark.parametrize(
    ("flags", "dry"),
    [([], False), (["-k"], False), (["-j3"], False), (["SEEDS=1"], False), (["-kn"], True), (["-n"], True)],
)
def test_progress_is_shown_unless_only_the_plan_is_asked_for(target, flags, dry, tmp_path):
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("MAKE", "MFLAGS"))}
    words = ["FS=echo FS", "MAKE=echo SUB", "READY=ready", "--no-print-directory", *flags, target]
    (tmp_path / "Makefile").symlink_to(REPOSITORY / "Makefile")
    (tmp_path / "experiments").symlink_to(REPOSITORY / "experiments")
    for name in ("requirements.lock", "pyproject.toml", "ready"):
        (tmp_path / name).touch()
    done = subprocess.run(["make", *words], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    said = done.stdout.splitlines()
    follows = [line for line in said if line.startswith("FS follow")]
    assert bool(follows) != dry
    if follows:
        assert follows[0].endswith(f"-- echo SUB --no-print-directory -j2 {target}-scores")
