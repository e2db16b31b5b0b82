"""DEVICES, NODES, LAUNCH, PRECISION, OVERLAYS and CACHE of the full-size experiments, from the plan that Make shows."""

import shutil
import subprocess

import pytest

from tests.conftest import REPOSITORY
from tests.test_makefile import commands, make

pytestmark = pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")

TRAINED = ("fit", "predict", "test", "validate")
SHARED = (*TRAINED, "crf", "walk")
TARGETS = ("sfc-voc", "cti-voc", "dsmf-isaid5i", "mevt-probe-voc")


@pytest.mark.parametrize("target", TARGETS)
def test_every_trainer_stage_is_given_processes_and_overlays(target):
    words = ["DEVICES=4", "PRECISION=bf16", "OVERLAYS=channels-last compile", "CACHE=/cache"]
    found = commands(make("-nB", target, "ROOT=/nowhere", "RUN=planned-launch", *words))
    fits = [line for verb, line in found if verb in TRAINED]
    assert fits
    for line in fits:
        assert "--trainer.devices 4 --trainer.num_nodes 1 --trainer.strategy ddp" in line
        # behind the stage's own files, which would win otherwise
        own = max(line.rfind(f"experiments/{paper}/") for paper in ("sfc", "cti", "dsmf", "mevt"))
        for overlay in ("bf16", "channels-last", "compile"):
            assert line.rfind(f"--config experiments/_base/{overlay}.yaml") > own >= 0
        assert "--data.init_args.cache /cache" in line


@pytest.mark.parametrize(
    "target", ["mevt-pretrain DATA=voc", "dsmf-isaid5i PRETRAIN=yes", "mini-mevt", "mevt-probe-voc PROTOCOL=L-cached"]
)
def test_an_overlay_is_given_once_and_fits_the_data(target):
    """A callback that stands twice would wrap what it has wrapped; kept features are no images to keep."""
    words = ["DEVICES=4", "OVERLAYS=recompute", "CACHE=/cache", "RUN=planned-launch"]
    found = make("-nB", *target.split(), "ROOT=/nowhere", *words).replace("\\\n", " ")
    parts = [part for line in found.splitlines() if "frugalseg" in line for part in line.split(" + ")]
    fits = [part for part in parts if " fit " in part or part.startswith("fit ")]
    assert fits
    for part in fits:
        assert part.count("--config experiments/_base/recompute.yaml") == 1 == part.count("--trainer.devices 4")
        assert part.count("--data.init_args.cache /cache") == ("CachedFeatures" not in part)


@pytest.mark.parametrize("target", TARGETS)
def test_all_work_that_can_be_shared_is_started_by_torchrun_or_slurm(target):
    plain = make("-nB", target, "ROOT=/nowhere", "RUN=planned-launch", "DEVICES=2").replace("\\\n", " ")
    assert "torch.distributed.run" not in plain and "sbatch" not in plain
    for launch, head in (
        ("torchrun", "torch.distributed.run --standalone --nproc-per-node 2 --max-restarts 3 -m frugalseg "),
        (
            "slurm",
            "sbatch --wait --nodes 3 --gpus-per-node 2 --cpus-per-gpu 8 experiments/_base/slurm/torchrun.sbatch ",
        ),
    ):
        words = ["DEVICES=2", f"LAUNCH={launch}", *(["NODES=3"] if launch == "slurm" else [])]
        plan = make("-nB", target, "ROOT=/nowhere", "RUN=planned-launch", *words).replace("\\\n", " ")
        # a plain command would be one process's
        assert not [line for line in plan.splitlines() if any(f"bin/frugalseg {verb} " in line for verb in SHARED)]
        started = [line for line in plan.splitlines() if head in line]
        assert len(started) == sum(any(f"bin/frugalseg {v} " in line for v in SHARED) for line in plain.splitlines())
        assert all(f"--trainer.num_nodes {3 if launch == 'slurm' else 1}" in x for x in started if f"{head}fit" in x)


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["LAUNCH=mpi"], "write local, torchrun or slurm"),
        (["LAUNCH=torchrun"], "DEVICES= is not set"),
        (["DEVICES=8", "NODES=2"], "NODES=2: several machines need LAUNCH=slurm"),
        (["PRECISION=fp8"], "experiments/_base/fp8.yaml: there is no such overlay"),
        (["OVERLAYS=channels-first"], "channels-first.yaml: there is no such overlay"),
    ],
)
def test_what_cannot_be_started_is_refused_in_one_line(words, named):
    refused = subprocess.run(
        ["make", "-n", "sfc-voc", "ROOT=/nowhere", *words], cwd=REPOSITORY, capture_output=True, text=True, check=False
    )
    assert refused.returncode != 0
    assert named in refused.stderr
    assert refused.stderr.count("\n") == 1
