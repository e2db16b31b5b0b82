"""States of stages: each kind of damage is told in words, and takes nothing else along."""

import os
import time

import pytest

from frugalseg.analysis.html.experiments import read_experiment
from frugalseg.analysis.html.states import FRESH, State, read_stage
from tests.analysis.html.runs import write_experiment, write_fit, write_stage, write_world


@pytest.fixture
def world(tmp_path):
    return write_world(tmp_path / "world", 0)


def test_a_finished_fit_is_done(tmp_path, world):
    stage = read_stage(write_fit(tmp_path / "seed0/classify", world, 0), None, 0)
    assert (stage.state, stage.reasons, stage.metrics) == (State.DONE, (), {"val/miou": 0.5})
    assert stage.log.last_step == 39


DAMAGE = {
    "no done": (lambda f: (f / "done.json").write_text("{"), "done.json: not readable"),
    "metrics gone": (lambda f: (f / "metrics.json").unlink(), "no metrics.json"),
    "metrics cut": (lambda f: (f / "metrics.json").write_text('{"a": 1'), "metrics.json: not readable"),
    "no number": (lambda f: (f / "metrics.json").write_text('{"a": "b"}'), "'b', not a number"),
    "a list": (lambda f: (f / "metrics.json").write_text("[]"), "not a JSON object"),
    "record gone": (lambda f: (f / "provenance.json").unlink(), "no provenance.json"),
    "record cut": (lambda f: (f / "provenance.json").write_text("{"), "provenance.json: not readable"),
    "record binary": (lambda f: (f / "provenance.json").write_bytes(b"\xff\xfe\x00"), "provenance.json: not readable"),
    "curve cut": (lambda f: os.truncate(f / "metrics.csv", (f / "metrics.csv").stat().st_size - 4), "cut short"),
    "curve binary": (lambda f: (f / "metrics.csv").write_bytes(b"\x00\xff\xfe"), "metrics.csv"),
    "curve empty": (lambda f: (f / "metrics.csv").write_text(""), "metrics.csv is empty"),
    "checkpoint gone": (lambda f: (f / "checkpoints/last.ckpt").unlink(), "last.ckpt is missing"),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_damage_is_told(tmp_path, world, damage):
    folder = write_fit(tmp_path / "seed0/classify", world, 0)
    spoil, words = DAMAGE[damage]
    spoil(folder)
    stage = read_stage(folder, None, 0)
    assert stage.state is State.BROKEN
    assert any(words in reason for reason in stage.reasons), stage.reasons
    assert not any(str(tmp_path) in reason for reason in stage.reasons)


def test_a_cut_curve_keeps_the_rest(tmp_path, world):
    folder = write_fit(tmp_path / "seed0/classify", world, 0)
    os.truncate(folder / "metrics.csv", (folder / "metrics.csv").stat().st_size - 4)
    assert len(read_stage(folder, None, 0).log.curves["train/loss_total"]) == 40


def test_a_net_that_is_not_trained_lacks_no_checkpoint(tmp_path, world):
    folder = write_fit(tmp_path / "seed0/foreground", world, 0, trainable_parameters=0)
    (folder / "checkpoints/last.ckpt").unlink()
    assert read_stage(folder, None, 0).state is State.DONE


def test_settings_that_keep_no_checkpoint_lack_none(tmp_path, world):
    folder = write_fit(tmp_path / "seed0/classify", world, 0)
    (folder / "checkpoints/last.ckpt").unlink()
    (folder / "config.yaml").write_text("trainer:\n  enable_checkpointing: false\n")
    assert read_stage(folder, None, 0).state is State.DONE


@pytest.mark.parametrize(("ago", "state"), [(5.0, State.RUNNING), (FRESH + 60, State.HALF)])
def test_unfinished(tmp_path, world, ago, state):
    folder = write_fit(tmp_path / "seed0/classify", world, 0, done=False)
    then = time.time() - ago
    for path in [folder, *folder.rglob("*")]:
        os.utime(path, (then, then))
    stage = read_stage(folder, None, 0)
    assert stage.state is state
    assert "after 40 steps" in stage.reasons[0]


def test_a_line_that_is_being_written_is_no_damage(tmp_path, world):
    folder = write_fit(tmp_path / "seed0/classify", world, 0, done=False)
    os.truncate(folder / "metrics.csv", (folder / "metrics.csv").stat().st_size - 4)
    assert read_stage(folder, None, 0).state is State.RUNNING


def test_an_empty_folder_is_broken(tmp_path):
    (tmp_path / "seed0/classify").mkdir(parents=True)
    stage = read_stage(tmp_path / "seed0/classify", None, 0)
    assert (stage.state, stage.reasons) == (State.BROKEN, ("is empty",))


def test_an_experiment_has_the_gravest_state(tmp_path):
    folder = write_experiment(tmp_path / "runs")
    assert read_experiment(folder).state is State.DONE
    (folder / "seed1/cam-val/done.json").unlink()
    assert read_experiment(folder).state is State.RUNNING
    (folder / "seed0/cam-val/metrics.json").unlink()
    found = read_experiment(folder)
    assert found.state is State.BROKEN
    assert [(stage.place, stage.name) for stage, _ in found.troubles] == [("seed 0", "cam-val"), ("seed 1", "cam-val")]


def test_strays_and_old_runs_are_no_stages(tmp_path, world):
    folder = write_experiment(tmp_path / "runs", seeds=(0,))
    count = len(read_experiment(folder).stages)
    (folder / "seed0/notes.txt").write_text("mine")
    (folder / "notes").mkdir()
    write_stage(folder / "seed0/classify.old-12345678", world, {"val/miou": 9.0})
    found = read_experiment(folder)
    assert (len(found.stages), found.aside, len(found.strays)) == (count, 1, 1)
    assert "notes.txt" in found.strays[0]


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda p: p.write_text(""), "is a file"),
        (lambda p: p.mkdir(), "no seed"),
        (lambda p: (p / ".settings").mkdir(parents=True), "no stage has started"),
        (lambda p: None, "is not there"),
    ],
)
def test_what_is_no_experiment(tmp_path, make, reason):
    make(tmp_path / "x")
    assert reason in read_experiment(tmp_path / "x")


def test_folds_and_seeds(tmp_path, world):
    for fold in (1, 0):
        write_fit(tmp_path / f"x/fold{fold}/seed3/train", world, 0)
    found = read_experiment(tmp_path / "x")
    assert {(stage.fold, stage.seed, stage.full_name) for stage in found.stages} == {
        (0, 3, "fold0/train"), (1, 3, "fold1/train"),
    }  # fmt: skip
