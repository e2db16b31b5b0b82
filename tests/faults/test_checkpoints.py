"""Checkpoints after a fault: cut off, empty, on a full disk; the curve beside them."""

import errno
import os
from types import SimpleNamespace

import pytest
import torch
from lightning.pytorch.loggers import CSVLogger

from frugalseg.callbacks import checkpoints
from frugalseg.callbacks.checkpoints import Scores, WholeFiles
from frugalseg.callbacks.curve import Curve, trim
from frugalseg.callbacks.loggers import csv_logger
from frugalseg.callbacks.random_state import RandomState
from frugalseg.cli import main
from frugalseg.commands.checkpoints import Start, find_start
from frugalseg.errors import CheckpointError, DiskFullError, RunFolderError
from frugalseg.papers.sfc import SFC
from tests.integration.conftest import words, world  # noqa: F401 - fixtures
from tests.integration.test_resume import Unplugged, state

TASK = "frugalseg.papers.sfc.SFC"


def save(path, step, owner=TASK):
    loops = {"fit_loop": {"epoch_loop.state_dict": {"_batches_that_stepped": step}}}
    content = {"hyper_parameters": {"_class_path": owner}, "loops": loops, "step": torch.tensor(step)}
    WholeFiles().save_checkpoint(content, path)


def step_of(path):
    return int(torch.load(path, weights_only=True)["step"])


@pytest.fixture
def last(tmp_path):
    """`last.ckpt` of step 4 beside `previous.ckpt` of step 2."""
    path = tmp_path / "checkpoints/last.ckpt"
    save(path, 2)
    save(path, 4)
    return path


def damage(path, how):
    content = path.read_bytes()
    path.write_bytes({"cut off": content[: len(content) // 2], "empty": b"", "garbage": b"garbage" * 100}[how])


def test_the_checkpoint_before_the_last_is_kept(last):
    assert {p.name for p in last.parent.iterdir()} == {"last.ckpt", "previous.ckpt"}
    assert find_start(last, TASK, clear=True) == Start(last, 4)
    save(last.with_name("best.ckpt"), 9)
    assert step_of(last.with_name("previous.ckpt")) == 2


def test_a_disk_without_second_names_keeps_it_too(last, monkeypatch):
    def refuse(self, target):
        raise OSError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(type(last), "hardlink_to", refuse)
    save(last, 6)
    assert [step_of(last.with_name(name)) for name in ("last.ckpt", "previous.ckpt")] == [6, 4]


@pytest.mark.parametrize("how", ["cut off", "empty", "garbage"])
def test_a_damaged_checkpoint_is_told_and_the_one_before_it_taken(last, how, caplog):
    damage(last, how)
    previous = last.with_name("previous.ckpt")
    assert (
        find_start(last, TASK, clear=False) == Start(previous, 2) and last.exists()
    )  # of a rank that is not the first
    assert caplog.records == []
    assert find_start(last, TASK, clear=True) == Start(previous, 2)
    (record,) = caplog.records
    assert str(last) in record.getMessage() and str(previous) in record.getMessage() and "\n" not in record.getMessage()
    assert not last.exists()  # or it would become the one before the next
    save(last, 4)
    assert step_of(previous) == 2


def test_a_lost_checkpoint_is_replaced_by_the_one_before_it(last):
    last.unlink()
    assert find_start(last, TASK, clear=True) == Start(last.with_name("previous.ckpt"), 2)


@pytest.mark.parametrize("how", ["cut off", "empty", "garbage"])
def test_two_damaged_checkpoints_are_refused_in_one_line(last, how):
    damage(last, how)
    damage(last.with_name("previous.ckpt"), how)
    with pytest.raises(
        CheckpointError, match=rf"last\.ckpt: .*previous\.ckpt: .*delete {last.parent} to train"
    ) as caught:
        find_start(last, TASK, clear=True)
    assert "\n" not in str(caught.value) and last.exists()


def test_no_checkpoint_is_the_beginning_and_one_of_another_task_is_refused(tmp_path):
    last = tmp_path / "last.ckpt"
    assert find_start(last, TASK, clear=True) == Start(None, -1)
    save(last, 2, owner="frugalseg.papers.cti.CTI")
    with pytest.raises(CheckpointError, match=r"holds frugalseg\.papers\.cti\.CTI, but the configuration asks for"):
        find_start(last, TASK, clear=True)
    torch.save({"hyper_parameters": {"_class_path": TASK}}, last)  # of an older version of Lightning
    assert find_start(last, TASK, clear=True) == Start(last, None)


def test_a_full_disk_is_told_and_leaves_what_was_there(last, monkeypatch):
    """torch itself tells of a place in the file that it should have come to."""
    before = {p.name: p.read_bytes() for p in last.parent.iterdir()}

    class Full(checkpoints._Stream):
        def write(self, content):
            self.failure = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            raise self.failure

    monkeypatch.setattr(checkpoints, "_Stream", Full)
    with pytest.raises(DiskFullError, match=rf"{last}: the disk is full; free some space"):
        save(last, 6)
    assert {p.name: p.read_bytes() for p in last.parent.iterdir()} == before


def test_random_numbers_that_were_not_put_back_yet_are_saved_again():
    one, other = RandomState(), RandomState()
    torch.manual_seed(5)
    kept = one.state_dict()
    other.load_state_dict(kept)
    torch.manual_seed(6)
    assert torch.equal(other.state_dict()["torch"], kept["torch"])  # a fit that had no step left
    other.on_train_batch_start(None, None, None, 0)
    torch.rand(1)
    assert not torch.equal(other.state_dict()["torch"], kept["torch"])


# ---------------------------------------------------------------------- metrics.csv

ROWS = "epoch,step,loss\n0,0,1.5\n0,1,1.25\n0,2,1.125\n"


@pytest.mark.parametrize(
    ("text", "newest", "left"),
    [
        (ROWS, None, ROWS),
        (ROWS, 2, ROWS),
        (ROWS, 1, "epoch,step,loss\n0,0,1.5\n0,1,1.25\n"),
        (ROWS, -1, None),
        (ROWS + "0,3,0.0", 5, ROWS),  # a row of which half was written
        (ROWS + "0", None, ROWS),
        ("epoch,st", None, None),
        ("", 3, None),
    ],
)
def test_rows_that_are_written_again_go(tmp_path, text, newest, left):
    path = tmp_path / "metrics.csv"
    path.write_text(text)
    trim(path, newest)
    assert (path.read_text().replace("\r\n", "\n") if path.exists() else None) == left


@pytest.mark.parametrize("content", [b"\xff\xfe,\n", b"epoch,loss\n0,1.0\n", b"step\nx\n"])
def test_a_curve_that_cannot_be_read_is_told_in_one_line(tmp_path, content):
    (tmp_path / "metrics.csv").write_bytes(content)
    with pytest.raises(RunFolderError, match=r"metrics\.csv: not readable .*delete it to go on") as caught:
        csv_logger(tmp_path, 3)
    assert "\n" not in str(caught.value)


def test_a_curve_goes_on_in_the_same_file_at_every_moment(tmp_path):
    """Lightning deletes the file and keeps its rows in memory; a process that is killed then would lose them."""
    logger = csv_logger(tmp_path)
    logger.log_metrics({"loss": 1.5}, 0)
    logger.log_metrics({"loss": 1.5}, 0)  # written early for a checkpoint, then by Lightning
    logger.save()
    before = (tmp_path / "metrics.csv").read_text()
    assert len(before.splitlines()) == 2
    logger = csv_logger(tmp_path, 0)
    assert isinstance(logger, CSVLogger) and isinstance(logger.experiment, Curve)
    assert (tmp_path / "metrics.csv").read_text() == before
    logger.log_metrics({"loss": 1.25, "val": 0.5}, 1)
    logger.save()
    assert (tmp_path / "metrics.csv").read_text().split() == ["loss,step,val", "1.5,0,", "1.25,1,0.5"]


# ---------------------------------------------------------------------- a whole fit


def test_a_fit_whose_last_checkpoint_is_cut_off_ends_as_if_nothing_had_happened(words, tmp_path, monkeypatch, capsys):  # noqa: F811
    """Saved at steps 2, 4 (validated) and 6; stopped before step 7, gone on from 4 - and refused where both are damaged."""
    extra = ["--trainer.max_steps", "8", "--trainer.val_check_interval", "4"]
    assert main(words("fit", *extra, "--run.name", "whole")) == 0
    step = SFC.training_step

    def unplug(self, batch, batch_idx):
        if self.global_step == 7:
            raise Unplugged
        return step(self, batch, batch_idx)

    with monkeypatch.context() as patch:
        patch.setattr(SFC, "training_step", unplug)
        with pytest.raises(Unplugged):
            main(words("fit", *extra, "--run.name", "stopped"))
    whole, stopped = (tmp_path / f"runs/mini-sfc-{name}/seed0/classify" for name in ("whole", "stopped"))
    last, previous = (stopped / f"checkpoints/{name}.ckpt" for name in ("last", "previous"))
    assert [torch.load(p, weights_only=True)["global_step"] for p in (last, previous)] == [6, 4]
    damage(last, "cut off")
    kept = previous.read_bytes()
    damage(previous, "cut off")
    capsys.readouterr()
    assert main(words("fit", *extra, "--run.name", "stopped")) == 2
    (line,) = [row for row in capsys.readouterr().err.splitlines() if row.startswith("frugalseg: error:")]
    assert str(last) in line and "previous.ckpt" in line and "delete" in line
    previous.write_bytes(kept)
    assert main(words("fit", *extra, "--run.name", "stopped")) == 0
    (line,) = [row for row in capsys.readouterr().err.splitlines() if "previous.ckpt" in row]
    assert str(last) in line and "goes on from" in line
    assert {p.name for p in last.parent.iterdir()} == {"last.ckpt", "best.ckpt"}
    for file in ("last.ckpt", "best.ckpt"):
        one, other = (torch.load(f / "checkpoints" / file, weights_only=True) for f in (whole, stopped))
        assert [n for n, t in one["state_dict"].items() if not torch.equal(t, other["state_dict"][n])] == []
    for file in ("metrics.csv", "metrics.json"):
        assert (whole / file).read_text() == (stopped / file).read_text(), file
    assert state(whole)["global_step"] == 8


def test_a_row_without_a_number_is_written_once(tmp_path):
    curve = Curve(tmp_path)
    for _ in range(2):  # by `LastCheckpoint`, then by Lightning
        curve.log_metrics({"train/loss": float("nan")}, 4)
    curve.save()
    assert (tmp_path / "metrics.csv").read_text().splitlines() == ["step,train/loss", "4,nan"]


def test_scores_of_another_runs_checkpoint_are_not_ours(tmp_path):
    for given, kept in ((tmp_path / "checkpoints/last.ckpt", {"val/miou": 0.5}), (tmp_path / "other/last.ckpt", {})):
        scores = Scores()
        scores.load_state_dict({"metrics": {"val/miou": 0.5}})
        scores.on_fit_start(SimpleNamespace(ckpt_path=str(given), default_root_dir=str(tmp_path)), None)
        assert scores.before == kept
