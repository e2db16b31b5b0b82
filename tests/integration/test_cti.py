"""CTI from the command line: continuing inside an epoch, maps to labels, and input that it refuses."""

import json

import numpy as np
import pytest
import torch

from frugalseg.cli import main
from frugalseg.miniature.voc import write_voc_world
from frugalseg.papers.cti import CTI
from tests.conftest import REPOSITORY

EXPERIMENTS = REPOSITORY / "experiments"


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """Every class occurs: the memory fills up."""
    folder = tmp_path_factory.mktemp("world") / "VOC2012"
    return write_voc_world(folder, images_train=40, images_val=6, seed=3, balanced=True)


@pytest.fixture
def words(world, tmp_path):
    """Command-line words of the miniature CTI, shrunk to a few steps; `extra` settings win."""

    def build(command, *extra, overlays=()):
        names = [
            "_base/trainer",
            "miniature/cti/classify",
            *(f"miniature/cti/{name}" for name in overlays),
            "_base/cpu",
        ]
        settings = {
            "trainer.max_steps": 10, "trainer.log_every_n_steps": 1, "run.root": tmp_path / "runs", "run.save_every": 2,
            "run.name": "full", "data.init_args.root": world, "data.init_args.batch_size": 4,
            "data.init_args.limit": 40, "model.init_args.memory_size": 1,
        }  # fmt: skip
        configs = [word for name in names for word in ("--config", str(EXPERIMENTS / f"{name}.yaml"))]
        return [command, *configs, *[w for k, v in settings.items() for w in (f"--{k}", str(v))], *extra]

    return build


def state(tmp_path, name, file="last"):
    path = tmp_path / f"runs/mini-cti-{name}/seed0/classify/checkpoints/{file}.ckpt"
    return torch.load(path, weights_only=True)


class Unplugged(Exception):
    pass


def test_a_fit_continued_inside_an_epoch_has_the_same_memory(words, tmp_path, monkeypatch):
    """40 images in batches of 4 are 10 steps an epoch: stopped in step 5, continued from the file of step 4."""
    extra = ["--trainer.max_steps", "12", "--model.init_args.drop_path", "0.2", "--model.init_args.memory_size", "3"]
    assert main(words("fit", *extra, "--run.name", "whole")) == 0
    step = CTI.training_step

    def unplug(self, batch, batch_idx):
        if self.global_step == 5:
            raise Unplugged
        return step(self, batch, batch_idx)

    monkeypatch.setattr(CTI, "training_step", unplug)
    with pytest.raises(Unplugged):
        main(words("fit", *extra, "--run.name", "stopped"))
    assert state(tmp_path, "stopped")["global_step"] == 4
    before = state(tmp_path, "stopped")["state_dict"]["memory.count"]
    monkeypatch.setattr(CTI, "training_step", step)
    torch.manual_seed(999)  # a resumed process does not start with the old random state
    assert main(words("fit", *extra, "--run.name", "stopped")) == 0
    whole, resumed = (state(tmp_path, name) for name in ("whole", "stopped"))
    different = [n for n, t in whole["state_dict"].items() if not torch.equal(t, resumed["state_dict"][n])]
    assert different == []
    assert int(whole["state_dict"]["memory.count"].sum()) > int(before.sum()) > 0
    moments = [[s["exp_avg"] for s in c["optimizer_states"][0]["state"].values()] for c in (whole, resumed)]
    assert len(moments[0]) > 20 and all(torch.equal(a, b) for a, b in zip(*moments, strict=True))


@pytest.fixture
def trained(words, tmp_path):
    assert main(words("fit", "--trainer.limit_val_batches", "4", "--trainer.check_val_every_n_epoch", "1")) == 0
    return tmp_path / "runs/mini-cti-full/seed0/classify/checkpoints/last.ckpt"


def test_maps_become_scores_pictures_and_labels(words, world, trained, tmp_path):
    """Every kind of map, the sweep over all, a picture with the kinds below one another, and a CRF's labels."""
    metrics = json.loads((trained.parents[1] / "metrics.json").read_text())
    assert 0 < metrics["val/miou"] < 1 and 0 < metrics["val/threshold"] < 1
    assert main(words("predict", "--ckpt_path", str(trained), "--data.init_args.limit", "7", overlays=["cam"])) == 0
    maps = tmp_path / "runs/mini-cti-full/seed0/cam/maps"
    files = sorted(maps.glob("*.npz"))
    assert len(files) == 7
    for file in files:
        with np.load(file) as arrays:
            assert set(arrays.files) == {"keys", "cam", "r", "mt", "f", "q", "infused"}
            assert arrays["keys"][0] == 0 and arrays["cam"].shape == (len(arrays["keys"]), 64, 64)
            assert arrays["cam"].dtype == np.float16 and 0 <= arrays["cam"].min() <= arrays["cam"].max() <= 1
    common = ["--root", str(world), "--split", "train", "--limit", "7", "--maps", str(maps)]
    out = tmp_path / "score"
    assert main(["evaluate", *common, "--sweep", "r,f,q", "--out", str(out), "--pictures", "1", "--quiet"]) == 0
    scores = json.loads((out / "metrics.json").read_text())
    assert all(0 < scores[f"train/miou_{kind}_best"] < 1 for kind in "rfq")
    assert all(0 <= scores[f"train/false_positive_{kind}_best"] <= 1 for kind in "rfq")
    assert len(list((out / "pictures").iterdir())) == 1
    seeds = [
        "crf", "--config", str(EXPERIMENTS / "cti/voc/seeds.yaml"), "--maps", str(maps), "--split", "train",
        "--data.init_args.root", str(world), "--data.init_args.limit", "7", "--out", str(tmp_path / "seeds"),
    ]  # fmt: skip
    assert main(seeds) == 0
    assert len(list((tmp_path / "seeds/seed_labels").glob("*.png"))) == 7


def test_validation_scores_what_evaluate_scores(words, world, trained, tmp_path):
    """The same threshold and mIoU from memory and from files, in a second validation too."""
    limits = ["--data.init_args.limit", "7", "--ckpt_path", str(trained)]
    assert main(words("predict", *limits, "--model.init_args.seed_map", "f", overlays=["cam"])) == 0
    maps, out = tmp_path / "runs/mini-cti-full/seed0/cam/maps", tmp_path / "score"
    common = ["--root", str(world), "--split", "train", "--limit", "7", "--maps", str(maps)]
    thresholds = ["--sweep", "cam", "--thresholds", "0.01:0.99:0.01"]
    assert main(["evaluate", *common, *thresholds, "--out", str(out), "--quiet", "--no-figures"]) == 0
    scores = json.loads((out / "metrics.json").read_text())
    again = [
        "--trainer.limit_val_batches",
        "1.0",
        "--trainer.check_val_every_n_epoch",
        "1",
        "--trainer.max_epochs",
        "2",
    ]
    still = ["--model.init_args.lr", "1e-20", "--model.init_args.weights", str(trained), "--trainer.max_steps", "-1"]
    limits = ["--data.init_args.limit", "7", "--run.name", "still", "--model.init_args.weight_decay", "0"]
    assert main(words("fit", *still, *again, *limits)) == 0
    found = json.loads((tmp_path / "runs/mini-cti-still/seed0/classify/metrics.json").read_text())
    # float16 on disk
    assert found["val/miou"] == pytest.approx(scores["train/miou_cam_best"], abs=2e-3)
    assert found["val/threshold"] == pytest.approx(scores["train/threshold_cam"], abs=0.0101)
    with np.load(out / "confusion.npz") as counts:
        total = int(counts["cam_best"].sum())
    assert total == 7 * 64 * 64


def test_a_continued_fit_does_not_begin_with_the_weights_again(words, trained, tmp_path, monkeypatch):
    """Weights are where a new fit begins; a continued one has its own."""
    loaded = []
    monkeypatch.setattr("frugalseg.papers.cti.task.load_weights", lambda net, *names: loaded.append(names))
    extra = ["--run.name", "twice", "--model.init_args.weights", str(trained)]
    assert main(words("fit", *extra, "--trainer.max_steps", "4")) == 0
    assert loaded == [(str(trained), None)]
    checkpoint = tmp_path / "runs/mini-cti-twice/seed0/classify/checkpoints/last.ckpt"
    more = ["--run.name", "more", "--trainer.max_steps", "6", "--ckpt_path", str(checkpoint)]
    assert main(words("fit", *extra, *more)) == 0
    assert len(loaded) == 1


def test_a_stage_starts_from_another_ones_net(words, trained, tmp_path):
    """The rows of the miniature fork from one first phase: its net is taken over, its class memory is not."""
    still = [
        "--run.name",
        "fork",
        "--trainer.max_steps",
        "1",
        "--model.init_args.lr",
        "1e-20",
        "--model.init_args.weight_decay",
        "0",
    ]
    assert main(words("fit", *still, "--model.init_args.weights", str(trained))) == 0
    source, fork = torch.load(trained, weights_only=True)["state_dict"], state(tmp_path, "fork")["state_dict"]
    assert all(torch.equal(t, fork[name]) for name, t in source.items() if name.startswith("net."))
    assert int(fork["memory.count"].sum()) < int(source["memory.count"].sum())


def fails(command, capsys):
    assert main(command) == 2
    lines = [line for line in capsys.readouterr().err.splitlines() if "frugalseg: error:" in line]
    assert len(lines) == 1
    return lines[0]


def test_a_checkpoint_with_tokens_of_other_classes_is_refused(words, trained, tmp_path, capsys):
    other = write_voc_world(tmp_path / "other/VOC2012", images_train=4, images_val=2)
    (other / "ImageSets/classes.txt").write_text("one\ntwo\n")
    content = torch.load(trained, weights_only=True)
    for name in ("pos_embed_cls", "tokenizer.2.weight", "tokenizer.2.bias", "head.weight", "head.bias"):
        tensor = content["state_dict"][f"net.{name}"]
        axis = 1 if name == "pos_embed_cls" else 0
        content["state_dict"][f"net.{name}"] = tensor.narrow(axis, 0, tensor.shape[axis] * 11 // 13)
    torch.save(content, trained)
    line = fails(words("predict", "--ckpt_path", str(trained), overlays=["cam"]), capsys)
    assert "tokens for 10 classes, but there are 12: classes 11 to 12 have no token" in line
    assert str(trained) in line


def test_a_memory_of_another_size_is_refused(words, trained, capsys):
    line = fails(
        words("fit", "--run.name", "more", "--ckpt_path", str(trained), "--model.init_args.memory_size", "2"), capsys
    )
    assert "class memory holds 12 classes x 1 entries" in line and "2 entries" in line


def test_one_view_is_not_enough(words, capsys):
    recipe = "--data.init_args.recipe.init_args"
    line = fails(words("fit", f"{recipe}.views", "1", f"{recipe}.colour", "0"), capsys)
    assert "recipe.init_args.views" in line and "set it to 2" in line


def test_an_image_smaller_than_a_patch_is_named(words, trained, world, capsys):
    from PIL import Image

    name = (world / "ImageSets/Segmentation/train.txt").read_text().split()[0]
    path = world / f"JPEGImages/{name}.jpg"
    whole = path.read_bytes()
    try:
        Image.open(path).resize((64, 5)).save(path)
        line = fails(
            words("predict", "--ckpt_path", str(trained), "--data.init_args.limit", "1", overlays=["cam"]), capsys
        )
    finally:
        path.write_bytes(whole)
    assert name in line and "smaller than one patch of 8 x 8" in line
