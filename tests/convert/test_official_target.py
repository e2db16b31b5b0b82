"""`make cti-official` and `make sfc-official`: the plan, and its commands on a few genuine images."""

import os
import re
import shlex
import shutil
import subprocess

import pytest

from frugalseg.cli import main
from frugalseg.run import read_json
from tests.conftest import REPOSITORY

pytestmark = pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")


def make(*words):
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("MAKE", "MFLAGS"))}
    return subprocess.run(
        ["make", "-n", "--no-print-directory", "-C", str(REPOSITORY), *words],
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
    )


def commands(plan):
    """Words of every command of the suite."""
    lines = plan.replace("\\\n", " ").splitlines()
    return [shlex.split(line)[1:] for line in lines if line.split(" ")[0].endswith("/frugalseg")]


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ((), "needs the file that the authors released: CKPT=FILE"),
        (("CKPT=/nowhere/x.pth",), "CKPT=/nowhere/x.pth: there is no such file"),
        (("CKPT=Makefile",), "needs the images and masks of PASCAL VOC 2012: ROOT=DIR"),
        (("CKPT=Makefile", "ROOT=/nowhere"), "ROOT=/nowhere: there is no such folder"),
    ],
)
@pytest.mark.parametrize("paper", ["cti", "sfc"])
def test_what_is_missing_is_said_in_one_line(paper, words, told):
    done = make(f"{paper}-official", *words)
    assert done.returncode == 2 and not done.stdout
    assert told in done.stderr and len(done.stderr.strip().splitlines()) == 1


@pytest.mark.parametrize("paper", ["cti", "sfc"])
def test_the_plan(paper, tmp_path):
    done = make(f"{paper}-official", "CKPT=Makefile", f"ROOT={tmp_path}", "RUN=planned")
    assert done.returncode == 0, done.stderr
    found = commands(done.stdout)
    assert [words[0] for words in found] == ["convert", "predict", "evaluate"]
    assert found[0][-1] == found[1][-1] == f"runs/{paper}-official-planned/converted.ckpt"
    assert f"runs/{paper}-official-planned/seed0/cam-train/maps" in found[2]
    assert all(str(tmp_path) in words for words in found[1:])
    assert done.stdout.strip().splitlines()[-1].startswith('echo "published')


def run_target(paper, theirs, root, place, monkeypatch):
    """What the target does, in this process and in a folder of its own; gives what it prints at the end."""
    done = make(
        f"{paper}-official", f"CKPT={theirs}", f"ROOT={root}", "LIMIT=2", "RUN=planned",
        "ARGS=--config experiments/_base/cpu.yaml --data.init_args.num_workers 0",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    monkeypatch.chdir(place)
    (place / "experiments").symlink_to(REPOSITORY / "experiments")
    for words in commands(done.stdout):
        assert main(words) == 0
    closing = done.stdout[done.stdout.rindex("awk ") :]
    return subprocess.run(["bash", "-c", closing], cwd=place, capture_output=True, text=True, check=True).stdout


@pytest.mark.real
@pytest.mark.slow
def test_cti_on_genuine_images(converted, real_voc, tmp_path, monkeypatch):
    printed = run_target("cti", converted("cti").theirs, real_voc, tmp_path, monkeypatch)
    metrics = read_json(tmp_path / "runs/cti-official-planned-2/seed0/score-train/metrics.json")
    ours, published = printed.splitlines()
    assert float(ours.split()[-1]) == pytest.approx(100 * metrics["train/miou_cam_best"], abs=0.005)
    assert re.match(r"published +train/miou_cam_best 69\.5 ", published)
    assert len(list((tmp_path / "runs/cti-official-planned-2/seed0/cam-train/maps").glob("*.npz"))) == 2


@pytest.mark.real
@pytest.mark.slow
def test_sfc_on_genuine_images(converted, real_voc, tmp_path, monkeypatch):
    printed = run_target("sfc", converted("sfc").theirs, real_voc, tmp_path, monkeypatch)
    metrics = read_json(tmp_path / "runs/sfc-official-planned-2/seed0/score-train/metrics.json")
    *ours, published = printed.splitlines()
    assert {line.split()[1] for line in ours} >= {f"train/miou_{kind}" for kind in ("mw", "mp", "sum", "mw_best")}
    for line in ours:
        assert float(line.split()[-1]) == pytest.approx(100 * metrics[line.split()[1]], abs=0.005)
    assert published.startswith("published  no figure")
