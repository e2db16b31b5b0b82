"""CRF, walks, tiling and feature caching by several ranks: what they write is what one rank writes."""

import json
import os
import signal
import subprocess
import sys
import time
from functools import partial

import numpy as np
import pytest
from PIL import Image

from frugalseg.cli import main
from frugalseg.commands import labelling
from frugalseg.data import tiling
from frugalseg.data.isaid5i import COLOURS
from frugalseg.miniature.voc import write_voc_world
from tests.conftest import REPOSITORY
from tests.data.ranks import free_port, run_ranks
from tests.integration.conftest import EXPERIMENTS
from tests.integration.labelling import make_folders, write_config
from tests.integration.test_dense_evaluation import TINY

SPEEDS = ("train/seconds_",)
"""Measurements of this run; everything else must be equal."""


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    world = write_voc_world(tmp_path_factory.mktemp("world") / "VOC2012", images_train=7, images_val=2, seed=5)
    return make_folders(world, world.parent)


def files_of(folder):
    """Every result below a folder; records of when and how fast are left out."""
    found = {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}
    for name in ("provenance.json", "done.json"):
        found.pop(name, None)
    if "metrics.json" in found:
        metrics = json.loads(found["metrics.json"])
        found["metrics.json"] = {key: value for key, value in metrics.items() if not key.startswith(SPEEDS)}
    return found


VERBS = {"crf": ["--crf.iterations=2"], "walk": ["--walk.steps=16"]}


@pytest.mark.parametrize("verb", list(VERBS))
def test_labels_of_one_two_and_three_ranks(folders, tmp_path, verb):
    results = {}
    for world in (1, 2, 3):
        out = tmp_path / f"ranks{world}"
        ended = run_ranks(world, main, folders.words(verb, *VERBS[verb], out=out), folder=tmp_path)
        assert [end.code for end in ended] == [0] * world, ended
        results[world] = files_of(out)
    assert sum(name.endswith(".png") for name in results[1]) == 2 * len(folders.samples)
    assert results[1]["metrics.json"]["train/images"] == len(folders.samples)
    assert results[1] == results[2] == results[3]


def test_groups_of_a_gpu_are_shared_out_too(folders, tmp_path):
    """With the processor in place of the GPU."""
    results = {}
    for world in (1, 2):
        out = tmp_path / f"ranks{world}"
        words = folders.words("crf", "--crf.iterations=2", "--batch=2", out=out)
        ended = run_ranks(world, partial(as_on_a_gpu, words), folder=tmp_path)
        assert [end.code for end in ended] == [0] * world, ended
        results[world] = files_of(out)
    assert results[1] == results[2]


def as_on_a_gpu(words):
    def label(request, labeller, target, device, team):
        return labelling.label_on_gpu(labeller, target, request.samples, device, 2, 2, lambda *_: None, team)

    labelling._label = label  # this process ends after it
    return main(words)


def test_scores_of_one_two_and_three_ranks(folders, tmp_path):
    results = {}
    for world in (1, 2, 3):
        out = tmp_path / f"ranks{world}"
        words = ["evaluate", "--maps", folders.maps, "--root", folders.world, "--train-split=train", "--sweep=sum"]
        words += ["--split=train", "--no-figures", "--quiet", "--out", out]
        ended = run_ranks(world, main, [str(word) for word in words], folder=tmp_path)
        assert [end.code for end in ended] == [0] * world, ended
        results[world] = files_of(out)
    assert {"metrics.json", "confusion.npz", "boundary.npz", "sweep.csv"} <= results[1].keys()
    assert results[1] == results[2] == results[3]


def test_a_chain_of_two_verbs(folders, tmp_path):
    """The second begins when the first has its done.json, or ranks would see other inputs."""
    crf = folders.words("crf", "--crf.iterations=1", out=tmp_path / "crf")
    walk = folders.words("walk", "--walk.steps=4", out=tmp_path / "walk")
    ended = run_ranks(2, main, [*crf, "+", *walk], folder=tmp_path)
    assert [end.code for end in ended] == [0, 0], ended
    assert all((tmp_path / verb / "done.json").is_file() for verb in VERBS)
    again = run_ranks(2, main, [*crf, "+", *walk], folder=tmp_path)
    assert [end.code for end in again] == [0, 0], again
    assert again[0].said.count("up to date") == 2
    assert "up to date" not in again[1].said


def dies_at(words, rank, images, about_to):
    """A rank that is killed after so many images of its own, which the other one waits for with its first in hand.

    Args:
        words: of the command.
        rank: that dies.
        images: how many it makes.
        about_to: a file by which it says so.
    """
    real, made, dies = labelling.label_one, [], int(os.environ["RANK"]) == rank

    def label(*arguments):
        while not dies and not about_to.exists():
            time.sleep(0.01)
        made.append(real(*arguments))
        if dies and len(made) == images:
            about_to.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return made[-1]

    labelling.label_one = label
    return main(words)


def test_a_rank_that_is_killed_and_another_number_of_ranks(folders, tmp_path):
    out = tmp_path / "out"
    words = folders.words("crf", "--crf.iterations=2", out=out)
    ended = run_ranks(2, partial(dies_at, words, 1, 2, tmp_path / "about to die"), folder=tmp_path, patience=2)
    assert [end.code for end in ended] == [2, -signal.SIGKILL], ended
    line = ended[0].said.strip().splitlines()[-1]
    assert line.startswith("frugalseg: error: rank 1 of 2 has gone: ")
    assert "2 of 7 items are not known to be done" in line
    assert not (out / "done.json").exists()
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*.png")}
    assert len(before) == 2 * len(folders.samples)  # what the dead rank had written is whole
    (gone := next(iter(before))).unlink()
    assert [end.code for end in run_ranks(3, main, words, folder=tmp_path)] == [0, 0, 0]
    changed = {path.stem for path, stamp in before.items() if path.stat().st_mtime_ns != stamp}
    assert changed == {gone.stem}
    assert main(folders.words("crf", "--crf.iterations=2", out=tmp_path / "whole")) == 0
    assert files_of(out) == files_of(tmp_path / "whole")


def test_a_rank_that_sees_other_images(folders, tmp_path):
    other = write_voc_world(tmp_path / "other/VOC2012", images_train=6, images_val=2, seed=5)
    ours = folders.words("crf", "--crf.iterations=1", out=tmp_path / "out")

    def words(rank):
        return ([*ours, f"--data.init_args.root={other if rank else folders.world}"],)

    ended = run_ranks(2, main, folder=tmp_path, each=words)
    assert [end.code for end in ended] == [2, 2], ended
    assert "differs from rank 0 in inputs.ImageSets/Segmentation/train.txt; give all ranks" in ended[1].said
    assert "rank 1 of 2 failed: rank 1 of 2" in ended[0].said
    assert not (tmp_path / "out/done.json").exists()


# ---------------------------------------------------------------------- tiles and features


@pytest.fixture(scope="module")
def scenes(tmp_path_factory):
    """Five scenes of unequal size."""
    raw, rng = tmp_path_factory.mktemp("isaid"), np.random.default_rng(0)
    for number, side in enumerate((60, 200, 80, 120, 90)):
        folder = raw / ("val" if number == 4 else "train") / "images"
        folder.mkdir(parents=True, exist_ok=True)
        ids = np.kron(rng.integers(0, 16, (side // 20 + 1,) * 2), np.ones((20, 20), int))[:side, :side]
        Image.fromarray(rng.integers(0, 255, (side, side, 3), np.uint8)).save(folder / f"P{number:04}.png")
        Image.fromarray(COLOURS[ids]).save(folder / f"P{number:04}_instance_color_RGB.png")
    return raw


def tile_words(scenes, root):
    words = ["data", "prepare", "isaid5i", "--raw", scenes, "--root", root, "--tile", 32, "--step", 24, "--lists"]
    return [str(word) for word in (*words, "--workers", 1)]


def test_tiles_of_one_two_and_three_ranks(scenes, tmp_path):
    results = {}
    for world in (1, 2, 3):
        root = tmp_path / f"ranks{world}"
        ended = run_ranks(world, main, tile_words(scenes, root), folder=tmp_path)
        assert [end.code for end in ended] == [0] * world, ended
        results[world] = files_of(root)
    assert len(results[1]) > 100
    assert results[1] == results[2] == results[3]


def cuts(words, log):
    """Notes the scenes that this rank cuts."""
    real = tiling.tile_scene

    def cut(image, *rest):
        (log / image.stem).write_text(os.environ["RANK"])
        return real(image, *rest)

    tiling.tile_scene = cut
    return main(words)


def test_tiling_goes_on_with_what_is_missing(scenes, tmp_path):
    root, log = tmp_path / "tiles", tmp_path / "log"
    log.mkdir()
    assert main(tile_words(scenes, root)) == 0
    whole = files_of(root)
    (root / "train/.tiled/P0001.json").unlink()
    (root / "val/.tiled/P0004.json").unlink()
    ended = run_ranks(3, partial(cuts, tile_words(scenes, root), log), folder=tmp_path)
    assert [end.code for end in ended] == [0] * 3, ended
    assert {path.name for path in log.iterdir()} == {"P0001", "P0004"}
    assert files_of(root) == whole


def test_features_of_one_and_two_ranks(folders, tmp_path):
    results = {}
    config = write_config(
        tmp_path / "probe.yaml",
        model={"init_args": {"backbone": TINY, "input_size": 64, "grid": 16}},
        data={"init_args": {"root": str(folders.world), "num_workers": 0}},
    )
    for world in (1, 2):
        words = ["cache", "--config", EXPERIMENTS / "mevt/voc/probe-cached.yaml", "--config", config, "--device", "cpu"]
        words += ["--data.init_args.train_split=train", "--out", tmp_path / f"ranks{world}"]
        ended = run_ranks(world, main, [str(word) for word in words], folder=tmp_path)
        assert [end.code for end in ended] == [0] * world, ended
        results[world] = files_of(tmp_path / f"ranks{world}")
    assert sum(name.endswith("features.npy") for name in results[1]) == 2
    assert results[1] == results[2]


# ---------------------------------------------------------------------- a genuine launcher


@pytest.mark.slow
@pytest.mark.parametrize("nodes", [1, 2])
def test_torchrun(folders, tmp_path, nodes):
    """Two ranks, on one machine or on two that are this one."""
    words = folders.words("crf", "--crf.iterations=2", out=tmp_path / "out")
    common = [f"--nnodes={nodes}", f"--nproc-per-node={2 // nodes}", "--rdzv-backend=c10d"]
    common += [f"--rdzv-endpoint=127.0.0.1:{free_port()}", "-m", "frugalseg", *words]
    agents = [
        subprocess.Popen(
            [sys.executable, "-m", "torch.distributed.run", *common], cwd=REPOSITORY, text=True, stderr=subprocess.PIPE
        )
        for _ in range(nodes)
    ]
    told = [agent.communicate(timeout=300)[1] for agent in agents]
    assert [agent.returncode for agent in agents] == [0] * nodes, told
    assert main(folders.words("crf", "--crf.iterations=2", out=tmp_path / "whole")) == 0
    assert files_of(tmp_path / "out") == files_of(tmp_path / "whole")


def started_by_slurm(words):
    """As srun sets it up; where rank 0 is, the batch script may say itself."""
    place, world = os.environ.pop("RANK"), os.environ.pop("WORLD_SIZE")
    os.environ |= {"SLURM_PROCID": place, "SLURM_STEP_NUM_TASKS": world, "SLURM_JOB_ID": "120042"}
    return main(words)


def test_srun(folders, tmp_path):
    words = folders.words("crf", "--crf.iterations=1", out=tmp_path / "out")
    ended = run_ranks(2, started_by_slurm, words, folder=tmp_path)
    assert [end.code for end in ended] == [0, 0], ended
    assert main(folders.words("crf", "--crf.iterations=1", out=tmp_path / "whole")) == 0
    assert files_of(tmp_path / "out") == files_of(tmp_path / "whole")
