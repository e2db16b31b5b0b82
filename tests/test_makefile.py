"""Make's plan, without running it."""

import os
import shutil
import subprocess

import pytest

from tests.conftest import REPOSITORY

pytestmark = pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")


def make(*words):
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("MAKE", "MFLAGS"))}
    done = subprocess.run(
        ["make", "-C", str(REPOSITORY), *words], env=environment, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_make_alone_prints_help():
    listed = make()
    for target in ("help", "setup", "demo", "test", "test-slow", "check", "benchmark", "clean", "sfc-voc", "mini-sfc"):
        assert f"\n  {target} " in f"\n{listed}", target


def test_the_plan_of_an_experiment_runs_every_stage_of_every_seed():
    plan = make("-n", "sfc-voc", "ROOT=/nowhere", "SEEDS=3 4", "RUN=planned", "ARGS=--trainer.max_steps 7")
    for seed in (3, 4):
        for split in ("train", "val"):
            assert f"--maps runs/sfc-voc-planned/seed{seed}/cam-{split}/maps" in plan
        assert plan.count(f"--seed_everything {seed} ") == 3  # one fit, maps of two splits
    fits = [line for line in plan.splitlines() if "frugalseg fit" in line]
    assert len(fits) == 2 and all(
        "--trainer.max_steps 7" in line and "--data.init_args.root /nowhere" in line for line in fits
    )
    assert "frugalseg report runs/sfc-voc-planned" in plan
    order = [
        plan.index(what) for what in ("frugalseg fit", "frugalseg predict", "frugalseg evaluate", "frugalseg report")
    ]
    assert order == sorted(order)


def test_seeds_worlds_and_methods_of_the_miniature():
    plan = make("-n", "mini-sfc", "SEEDS=8 9", "MINI_WORLDS=longtail")
    runs = [
        line
        for line in plan.splitlines()
        if "frugalseg fit" in line and "pretrain.yaml" not in line and "/sfc/classify" in line
    ]
    assert len(runs) == 4
    assert sum("baseline.yaml" in line for line in runs) == 2
    assert plan.count(" --root runs/worlds/voc-longtail-seed8 ") == 3  # the world itself and two scores
