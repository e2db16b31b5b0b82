"""Fine-tuning from the command line: the experiment's own settings, a pretrained checkpoint, the protocol in the result."""

import json

import pytest
import torch

from frugalseg.cli import main
from frugalseg.miniature.ade20k import write_ade20k_world
from frugalseg.papers.mevt.model import create
from tests.conftest import REPOSITORY

EXPERIMENTS = REPOSITORY / "experiments"
SMALL = {
    "trainer.max_steps": 2, "trainer.val_check_interval": 2, "trainer.log_every_n_steps": 1, "run.wandb": "false",
    "model.init_args.optimiser.warmup": 1, "data.init_args.batch_size": 2, "data.init_args.recipe.init_args.crop": 40,
}  # fmt: skip


@pytest.fixture(scope="module")
def ade20k(tmp_path_factory):
    return write_ade20k_world(tmp_path_factory.mktemp("ade") / "world", images_train=4, images_val=2, size=64)


@pytest.fixture
def words(ade20k, tmp_path):
    """A teacher of mevt_tiny as `Pretrain` leaves it, and the words that fine-tune it."""
    torch.manual_seed(3)
    source = create("mevt_tiny").state_dict()
    torch.save({"state_dict": {f"teacher.module.backbone.{k}": v for k, v in source.items()}}, tmp_path / "ssl.ckpt")

    def build(stage, **more):
        net = {"weights": tmp_path / "ssl.ckpt", "options.preset": "mevt_tiny"}
        given = {**SMALL, "run.root": tmp_path / "runs", "data.init_args.root": ade20k, **more}
        given = {**given, **{f"model.init_args.backbone.{key}": value for key, value in net.items() if value}}
        configs = ["_base/trainer.yaml", f"mevt/ade20k/{stage}.yaml", "_base/cpu.yaml"]
        flags = [word for key, value in given.items() for word in (f"--{key}", str(value))]
        return ["fit", *[word for name in configs for word in ("--config", str(EXPERIMENTS / name))], *flags]

    return build


def test_a_fit_of_the_own_decoder(words, tmp_path):
    assert main(words("finetune")) == 0
    folder = tmp_path / "runs/mevt-ade20k/seed0/finetune"
    metrics = json.loads((folder / "metrics.json").read_text())
    stated = {key.split("/")[1]: value for key, value in metrics.items() if key.startswith("protocol/")}
    assert stated == {"finetune": 1, "linear": 1, "whole": 1, "short_side": 512, "width": 64}
    assert 0 <= metrics["val/miou"] <= metrics["val/miou_best"] <= 1
    state = torch.load(folder / "checkpoints/last.ckpt", weights_only=True)
    told = state["hyper_parameters"]
    assert told["head"] == "linear" and told["features"]["options"]["preset"] == "mevt_tiny" and told["width"] == 64
    # two small steps away from where it began
    began = torch.load(tmp_path / "ssl.ckpt", weights_only=True)["state_dict"]
    name = "encoder.stages.0.embed.weight"
    away = (state["state_dict"][f"net.backbone.net.{name}"] - began[f"teacher.module.backbone.{name}"]).abs().max()
    assert 0 < away < 1e-3


def test_a_head_from_the_command_line_and_a_wrong_file(words, tmp_path, capsys):
    small = {"model.init_args.head_options.channels": 8, "model.init_args.testing.window": 32}
    small["model.init_args.testing.step"], small["model.init_args.testing.short_side"] = 21, 48
    assert main(words("upernet", **small)) == 0
    metrics = json.loads((tmp_path / "runs/mevt-ade20k/seed0/upernet/metrics.json").read_text())
    assert metrics["protocol/upernet"] == 1 and (metrics["protocol/window"], metrics["protocol/step"]) == (32, 21)
    assert metrics["train/loss_auxiliary"] > 0 and "protocol/width" not in metrics
    torch.save({"state_dict": {"other": torch.zeros(1)}}, tmp_path / "ssl.ckpt")
    capsys.readouterr()
    assert main(words("finetune")) == 2
    (line,) = [x for x in capsys.readouterr().err.splitlines() if x.startswith("frugalseg: error:")]
    assert "ssl.ckpt" in line and "give the checkpoint of the same net" in line
