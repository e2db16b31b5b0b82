"""Pretraining from the command line: resumed to the bit, overfitting, and what mevt.md g.7 and g.8 ask of a short run."""

import csv
import math

import pytest
import torch
import yaml

from frugalseg.cli import main
from frugalseg.data import ADE20K, Segment
from frugalseg.miniature.ade20k import write_ade20k_world
from frugalseg.papers.mevt import Pretrain
from frugalseg.papers.mevt.model import create
from tests.integration.conftest import EXPERIMENTS
from tests.integration.mevt_probe import c9_probe

KP, POINTS = 64, 768


class Unplugged(Exception):
    pass


@pytest.fixture(scope="module")
def ade(tmp_path_factory):
    return write_ade20k_world(tmp_path_factory.mktemp("world") / "ade20k", images_train=64, images_val=4, seed=3)


def words(command, folder, root, overlay=None, stage="pretrain", **settings):
    """A command line of the miniature; the overlay is laid over its YAML."""
    configs = [
        EXPERIMENTS / "_base/trainer.yaml",
        EXPERIMENTS / f"miniature/mevt/{stage}.yaml",
        EXPERIMENTS / "_base/cpu.yaml",
    ]
    if overlay:
        folder.mkdir(parents=True, exist_ok=True)
        configs.append(folder / f"{stage}-{len(list(folder.glob('*.yaml')))}.yaml")
        configs[-1].write_text(yaml.safe_dump(overlay))
    given = {
        "trainer.log_every_n_steps": 1,
        "run.root": folder / "runs",
        "data.init_args.root": root,
        **settings,
    }
    flags = [word for key, value in given.items() for word in (f"--{key}", str(value))]
    return [command, *[word for config in configs for word in ("--config", str(config))], *flags]


def place(folder, stage="pretrain", name=""):
    return folder / "runs" / (f"mini-mevt-{name}" if name else "mini-mevt") / "seed0" / stage


def curve(run, column="train/loss_pixel"):
    with (run / "metrics.csv").open() as file:
        return [float(row[column]) for row in csv.DictReader(file) if row.get(column)]


def mean(values):
    return sum(values) / len(values)


# ---------------------------------------------------------------------- resuming

SMALL = {
    "global_hidden": [16], "prototype_hidden": [16], "pixel_hidden": [16], "outputs": 8, "pixel_outputs": 8,
    "global_prototypes": 12, "dense_prototypes": 60, "norm": True,
}  # fmt: skip
METHODS = {
    # 60 prototypes ask for 600 points, and there are some 200: Sinkhorn's queue is in use
    "mevt": {
        "rule": {"sides": [4, 3], "pixel_points": 60, "eps": 0.02, "queue": 500, "masked": 0.5, "region": 0.5},
        "changes": {"mask_token": True},
    },
    "densecl": {"rule": {"queue": 30}},
    "dino": {"preset": "resnet10t", "rule": {}},
}


@pytest.mark.parametrize("method", ["mevt", *(pytest.param(m, marks=pytest.mark.slow) for m in ("densecl", "dino"))])
def test_a_fit_that_stopped_inside_an_epoch_goes_on_to_the_bit(ade, tmp_path, monkeypatch, method):
    """20 images in batches of 4 are 5 steps an epoch: stopped in step 8, going on from step 6, inside the second epoch."""
    model = {"init_args": {"method": method, "heads": SMALL, "teacher_temperature": [0.04, 0.07], "temperature_steps": 9,
                           "frozen_steps": 7, **METHODS[method]}}  # fmt: skip
    views = {"init_args": {"local_views": 0 if method == "densecl" else 1}}
    overlay = {"model": model, "data": {"init_args": {"recipe": views, "batch_size": 4, "limit": 20}}}
    settings = {"trainer.max_steps": 9, "run.save_every": 3}

    def command(name):
        return words("fit", tmp_path, ade, overlay, **settings, **{"run.name": name})

    assert main(command("whole")) == 0
    step = Pretrain.training_step

    def unplug(self, batch, batch_idx):
        if self.global_step == 8:
            raise Unplugged
        return step(self, batch, batch_idx)

    monkeypatch.setattr(Pretrain, "training_step", unplug)
    with pytest.raises(Unplugged):
        main(command("stopped"))
    runs = [place(tmp_path, name=name) for name in ("whole", "stopped")]
    assert torch.load(runs[1] / "checkpoints/last.ckpt", weights_only=True)["global_step"] == 6
    seen = []

    def watch(self, batch, batch_idx):
        seen.append(self.global_step)
        return step(self, batch, batch_idx)

    monkeypatch.setattr(Pretrain, "training_step", watch)
    torch.manual_seed(999)  # a new process does not start with the old random state
    assert main(command("stopped")) == 0
    assert seen == [6, 7, 8]

    whole, resumed = (torch.load(run / "checkpoints/last.ckpt", weights_only=True) for run in runs)
    assert whole["global_step"] == resumed["global_step"] == 9
    ours, theirs = whole["state_dict"], resumed["state_dict"]
    assert ours.keys() == theirs.keys() and [n for n in ours if not torch.equal(ours[n], theirs[n])] == []
    memory = {
        "mevt": ("centre", "cell_centre", "region_centre", "queue.rows"),
        "dino": ("centre",),
        "densecl": ("images.rows", "means.rows"),
    }
    assert all(ours[f"method.{name}"].abs().max() > 0 for name in memory[method])
    students = {name.removeprefix("student."): value for name, value in ours.items() if name.startswith("student.")}
    assert any(not torch.equal(value, ours[f"teacher.module.{name}"]) for name, value in students.items())
    states = [checkpoint["optimizer_states"][0]["state"].values() for checkpoint in (whole, resumed)]
    assert len(states[0]) > 10
    assert all(torch.equal(a[key], b[key]) for a, b in zip(*states, strict=True) for key in ("exp_avg", "exp_avg_sq"))

    rows = [(run / "metrics.csv").read_text().splitlines() for run in runs]
    assert rows[0][0] == rows[1][0] and set(rows[0]) == set(rows[1])
    assert len(set(curve(runs[0], "train/loss"))) == 9


# ---------------------------------------------------------------------- bad input


@pytest.mark.parametrize(
    ("overlay", "settings", "said"),
    [
        ({}, {"data.init_args.batch_size": 1}, "data.batch_size: heads with BatchNorm need 2 images"),
        (
            {"data": {"init_args": {"recipe": {"init_args": {"global_size": 60}}}}},
            {},
            "data.recipe.global_size is 60; this net needs a multiple of 32",
        ),
        (
            {"model": {"init_args": {"method": "densecl", "rule": {"queue": 30}}}},
            {},
            "data.recipe.local_views: densecl sees the two global views alone",
        ),
        ({"model": {"init_args": {"method": "moco"}}}, {}, "moco"),
        ({"model": {"init_args": {"preset": "mevt_huge"}}}, {}, "mevt_huge"),
        ({"model": {"init_args": {"rule": {"side": 7}}}}, {}, "'side'"),
        ({"model": {"init_args": {"rule": {"weights": [1.0, 1.0]}}}}, {}, "weights"),
        ({"model": {"init_args": {"weights": "nowhere.ckpt"}}}, {}, "nowhere.ckpt: no such weights file"),
    ],
)
def test_bad_settings_are_one_line(ade, tmp_path, capsys, overlay, settings, said):
    settings = {"trainer.max_steps": 2, "data.init_args.batch_size": 4, **settings}
    assert main(words("fit", tmp_path, ade, overlay, **settings)) == 2
    last = [line for line in capsys.readouterr().err.splitlines() if line.strip()][-1]
    assert last.startswith("frugalseg: error: ") and said in last


def test_checkpoints_of_another_net_are_one_line(ade, tmp_path, capsys):
    few = {"trainer.max_steps": 1, "data.init_args.batch_size": 4}
    assert main(words("fit", tmp_path, ade, **few)) == 0
    checkpoint = place(tmp_path) / "checkpoints/last.ckpt"
    for key, value in {"preset": "mevt_xs", "changes": {"context": False}}.items():
        for option in ("--ckpt_path", "--model.init_args.weights"):
            overlay = {"model": {"init_args": {key: value}}}
            command = words("fit", tmp_path, ade, overlay, **few, **{"run.name": key})
            code = main([*command, option, str(checkpoint)])
            if key == "changes" and option != "--ckpt_path":
                assert code == 0  # without the attention to the memory there is less to fill
                continue
            last = [line for line in capsys.readouterr().err.splitlines() if line.strip()][-1]
            assert code == 2 and last.startswith(f"frugalseg: error: {checkpoint}: ")
            assert (f"holds {key}" in last) == (option == "--ckpt_path")


def test_crops_larger_than_the_image_are_no_fault(tmp_path):
    """Images of 64 pixels, views of 96 and 64: the crops are enlarged."""
    root = write_ade20k_world(tmp_path / "small", images_train=8, images_val=1, seed=1, size=64)
    views = {"init_args": {"global_size": 96, "local_size": 64, "global_area": [0.9, 1.0], "local_area": [0.5, 1.0]}}
    overlay = {"data": {"init_args": {"recipe": views, "batch_size": 4}}}
    assert main(words("fit", tmp_path, root, overlay, **{"trainer.max_steps": 2})) == 0
    assert all(math.isfinite(value) for value in curve(place(tmp_path), "train/loss"))


# ---------------------------------------------------------------------- learning


def test_fifty_steps(ade, tmp_path):
    """mevt.md g.8, the version for every day: finite, and L_x lower than in the beginning."""
    assert main(words("fit", tmp_path, ade, **{"trainer.max_steps": 50, "data.init_args.batch_size": 8})) == 0
    run = place(tmp_path)
    for term in ("", "_global", "_prototype", "_pixel"):
        values = curve(run, f"train/loss{term}")
        assert len(values) == 50 and all(math.isfinite(value) for value in values)
    pixel = curve(run)
    assert mean(pixel[-5:]) < mean(pixel[:5]) - 0.5


@pytest.mark.slow
def test_sixteen_images_are_learned_by_heart(tmp_path):
    """mevt.md g.7: crops are the only augmentation; L_x falls below half of log M."""
    root = write_ade20k_world(tmp_path / "world", images_train=16, images_val=1, seed=0)
    views = {"init_args": {"colour": "none", "flip": 0.0}}
    overlay = {"data": {"init_args": {"recipe": views}}}
    assert main(words("fit", tmp_path, root, overlay, **{"trainer.max_steps": 200})) == 0
    pixel = curve(place(tmp_path))
    told = f"L_x {mean(pixel[:5]):.2f} -> {mean(pixel[-5:]):.2f}, half of log M is {math.log(POINTS) / 2:.2f}"
    print(told)
    assert mean(pixel[-5:]) < math.log(POINTS) / 2, told


@pytest.mark.slow
def test_five_hundred_steps(tmp_path):
    """mevt.md g.8: the run of c.9, and its linear probe of the teacher beside one of random numbers."""
    root = write_ade20k_world(tmp_path / "world", images_train=600, images_val=150, seed=0)
    assert main(words("fit", tmp_path, root)) == 0
    run = place(tmp_path)
    data = ADE20K(root, Segment(crop=96, scale=None))
    torch.manual_seed(0)
    net = create("mevt_tiny")
    before = c9_probe(net, data)
    teacher = "teacher.module.backbone."
    state = torch.load(run / "checkpoints/last.ckpt", weights_only=True)["state_dict"]
    net.load_state_dict({n.removeprefix(teacher): value for n, value in state.items() if n.startswith(teacher)})
    after = c9_probe(net, data)
    names = ("loss_pixel", "loss_prototype", "loss_global", "row_entropy")
    last = {name: mean(curve(run, f"train/{name}")[-20:]) for name in names}
    told = f"probe {before:.3f} -> {after:.3f}; {last}; log Kp {math.log(KP):.2f}"
    print(told)
    assert after >= before + 0.10, told
    assert last["loss_pixel"] < 5.6, told
    assert last["row_entropy"] < 0.6 * math.log(KP), told
    assert last["loss_prototype"] < 3.6, told
