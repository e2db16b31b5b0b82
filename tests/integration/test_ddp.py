"""Two gloo processes give what one gives: the same files, the same integers."""

import os
import subprocess
import sys

import numpy as np
import pytest
import torch

from frugalseg.cli import main
from tests.conftest import REPOSITORY

TWO = ["--trainer.devices", "2", "--trainer.strategy", "ddp"]


def run(words):
    """In processes of their own: Lightning starts the second one from the command line."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "WANDB_MODE": "disabled"}
    done = subprocess.run(
        [sys.executable, "-m", "frugalseg", *words],
        cwd=REPOSITORY,
        env=environment,
        capture_output=True,
        text=True,
        timeout=400,
    )
    assert done.returncode == 0, done.stderr[-3000:]


@pytest.fixture
def checkpoint(words, tmp_path):
    assert main(words("fit")) == 0
    return str(tmp_path / "runs/mini-sfc/seed0/classify/checkpoints/last.ckpt")


@pytest.mark.slow  # `test_ddp_tasks` shows the same of every task without the command line
def test_predict_writes_each_id_once_and_the_same_maps(words, checkpoint, tmp_path):
    # 23 images do not divide by two
    common = ["--ckpt_path", checkpoint, "--data.init_args.limit", "23"]
    assert main(words("predict", *common, "--run.name", "one", cam=True)) == 0
    run(words("predict", *common, "--run.name", "two", *TWO, cam=True))
    one, two = (tmp_path / f"runs/mini-sfc-{n}/seed0/cam/maps" for n in ("one", "two"))
    names = sorted(p.name for p in one.iterdir())
    assert len(names) == 23 and sorted(p.name for p in two.iterdir()) == names
    for name in names:
        a, b = np.load(one / name), np.load(two / name)
        assert all(np.array_equal(a[key], b[key]) for key in a.files), name


@pytest.mark.slow
def test_validate_counts_every_pixel_once(words, checkpoint, tmp_path):
    common = ["--ckpt_path", checkpoint, "--data.init_args.limit", "23", "--trainer.limit_val_batches", "1.0"]
    assert main(words("validate", *common, "--run.name", "one")) == 0
    run(words("validate", *common, "--run.name", "two", *TWO))
    one, two = (np.load(tmp_path / f"runs/mini-sfc-{n}/seed0/classify-validate/confusion.npz") for n in ("one", "two"))
    assert set(one.files) == {"m0", "mw", "mp", "sum"}
    for rule in one.files:
        assert one[rule].sum() == 23 * 64 * 64  # the world has no void pixels
        assert np.array_equal(one[rule], two[rule]), rule


def test_confusion_is_int64(words, checkpoint, tmp_path):
    assert main(words("validate", "--ckpt_path", checkpoint)) == 0
    counts = np.load(tmp_path / "runs/mini-sfc/seed0/classify-validate/confusion.npz")
    assert {counts[r].dtype for r in counts.files} == {np.dtype(np.int64)}
    assert torch.tensor(counts["m0"]).sum() == 24 * 64 * 64


def test_joined_commands_start_their_ranks_anew(words, tmp_path):
    """The first command's process group must not keep the second one waiting for ranks that have gone."""
    steps = [
        "--trainer.max_steps",
        "1",
        "--trainer.val_check_interval",
        "1",
        "--model.init_args.calibration_start",
        "0",
    ]
    checkpoint = str(tmp_path / "runs/mini-sfc/seed0/classify/checkpoints/last.ckpt")
    predict = words("predict", *TWO, "--ckpt_path", checkpoint, "--data.init_args.limit", "5", cam=True)
    run([*words("fit", *TWO, *steps), "+", *predict])
    assert len(list((tmp_path / "runs/mini-sfc/seed0/cam/maps").glob("*.npz"))) == 5
