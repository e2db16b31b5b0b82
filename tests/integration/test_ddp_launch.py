"""Two nodes on loopback, as SLURM and torchrun start them, do what one process does, in one run folder."""

import json
import os
import signal

import numpy as np
import pytest
import torch

from frugalseg.cli import main
from tests.integration.launched import sbatch, torchrun

NODES = ["--trainer.num_nodes", "2", "--trainer.devices", "1", "--trainer.strategy", "ddp"]
STEPS = ["--trainer.max_steps", "2", "--trainer.val_check_interval", "2", "--model.init_args.calibration_start", "0"]
EXACT = ["--trainer.precision", "64-true"]


def chain(words, tmp_path, name, *extra):
    """A fit, and maps of five images by what it has learned."""
    folder = tmp_path / f"runs/mini-sfc-{name}/seed0"
    predict = ["--ckpt_path", str(folder / "classify/checkpoints/last.ckpt"), "--data.init_args.limit", "5"]
    return [
        *words("fit", *STEPS, *EXACT, "--run.name", name, *extra), "+",
        *words("predict", *predict, "--run.name", name, *extra, cam=True),
    ]  # fmt: skip


def assert_same_runs(one, two):
    """Weights up to rounding, and maps of what are nearly the same weights."""
    states = [
        torch.load(folder / "classify/checkpoints/last.ckpt", weights_only=True)["state_dict"] for folder in (one, two)
    ]
    for name, value in states[0].items():
        torch.testing.assert_close(states[1][name], value, rtol=1e-9, atol=1e-9, msg=lambda m, n=name: f"{n}: {m}")
    names = sorted(path.name for path in (one / "cam/maps").iterdir())
    assert len(names) == 5 and sorted(path.name for path in (two / "cam/maps").iterdir()) == names
    for name in names:
        a, b = np.load(one / "cam/maps" / name), np.load(two / "cam/maps" / name)
        assert all(np.allclose(a[key], b[key], rtol=0, atol=2e-3) for key in a.files), name
    assert {path.name for path in two.parent.iterdir()} == {"seed0"}
    assert {path.name for path in two.iterdir()} == {"classify", "cam"}  # nothing was moved aside


@pytest.mark.slow
def test_two_nodes_of_slurm_and_torchrun(words, tmp_path):
    """`torchrun.sbatch` as it is; both commands of the chain on both nodes, and a second time there is nothing to do."""
    assert main(chain(words, tmp_path, "one", "--data.init_args.batch_size", "8")) == 0
    command = chain(words, tmp_path, "two", *NODES)
    job = sbatch("torchrun.sbatch", command, tmp_path)
    _, stderr = job.communicate(timeout=300)
    assert job.returncode == 0, stderr[-3000:]
    one, two = (tmp_path / f"runs/mini-sfc-{name}/seed0" for name in ("one", "two"))
    assert_same_runs(one, two)
    record = json.loads((two / "classify/provenance.json").read_text())
    assert record["resumed"] == [] and record["devices"]["world_size"] == 2
    assert record["batch"] == {"images": 8, "per_process": 4, "processes": 2, "nodes": 2, "accumulated": 1}
    assert stderr.count("a step takes 8 images: 4 x 2 processes x 1 accumulated batches") == 1


@pytest.mark.slow
def test_a_finished_stage_is_up_to_date_on_all_ranks(words, tmp_path):
    command = words("fit", *STEPS, "--trainer.devices", "2", "--trainer.strategy", "ddp")
    assert torchrun(command).returncode == 0
    before = (tmp_path / "runs/mini-sfc/seed0/classify/metrics.csv").read_text()
    again = torchrun(command)
    assert again.returncode == 0 and again.stderr.count("up to date") == 2
    assert (tmp_path / "runs/mini-sfc/seed0/classify/metrics.csv").read_text() == before


@pytest.mark.slow
def test_tasks_of_srun_without_torchrun(words, tmp_path):
    """`srun.sbatch`: Lightning finds the ranks in SLURM's variables."""
    assert main(chain(words, tmp_path, "one", "--data.init_args.batch_size", "8")) == 0
    job = sbatch("srun.sbatch", chain(words, tmp_path, "two", *NODES), tmp_path)
    _, stderr = job.communicate(timeout=300)
    assert job.returncode == 0, stderr[-3000:]
    assert_same_runs(*(tmp_path / f"runs/mini-sfc-{name}/seed0" for name in ("one", "two")))


@pytest.mark.parametrize("script", ["torchrun.sbatch", "srun.sbatch"])
def test_a_job_near_its_limit_is_queued_again(script, tmp_path):
    """SLURM sends the signal to the batch script alone."""
    job = sbatch(script, [], tmp_path, srun="echo up; exec sleep 20 > /dev/null 2>&1")
    assert job.stdout.readline() == "up\n"
    os.kill(job.pid, signal.SIGUSR1)
    _, stderr = job.communicate(timeout=20)
    assert job.returncode != 0 and "queued again" in stderr
    assert (tmp_path / "notes").read_text().startswith("requeue ")


@pytest.mark.parametrize(("code", "attempt", "again"), [(1, 0, True), (2, 0, False), (1, 3, False), (0, 0, False)])
def test_tasks_that_fail_are_queued_again_a_few_times(code, attempt, again, tmp_path, monkeypatch):
    """But for a mistake of the user's, which is code 2."""
    monkeypatch.setenv("SLURM_RESTART_COUNT", str(attempt))
    job = sbatch("srun.sbatch", [], tmp_path, srun=f"exit {code}")
    _, stderr = job.communicate(timeout=20)
    assert job.returncode == code and stderr.count("queued again") == again
    assert (tmp_path / "notes").exists() == again
