"""The miniature world is learnt: minutes, so `make test-slow` runs it."""

import json

import pytest

from frugalseg.cli import main
from frugalseg.miniature.attributes import write_attribute_world
from frugalseg.miniature.voc import write_voc_world
from tests.integration.conftest import EXPERIMENTS

pytestmark = pytest.mark.slow


def test_maps_beat_chance_and_painted_tags(tmp_path):
    attributes = write_attribute_world(tmp_path / "attributes", 2400, images_val=20, seed=11)
    world = write_voc_world(tmp_path / "world", 700, 10, seed=11)
    common = ["--config", str(EXPERIMENTS / "_base/cpu.yaml"), "--run.root", str(tmp_path / "runs")]

    def files(*names):
        return [w for n in names for w in ("--config", str(EXPERIMENTS / n))]

    pretrain = [
        "fit",
        *files("_base/trainer.yaml", "miniature/sfc/pretrain.yaml"),
        *common,
        "--data.init_args.root",
        str(attributes),
    ]
    assert main(pretrain) == 0
    weights = str(tmp_path / "runs/mini-pretrain/seed0/tags/checkpoints/last.ckpt")
    settings = [*common, "--data.init_args.root", str(world), "--model.init_args.weights", weights]
    classify = files("_base/trainer.yaml", "miniature/sfc/classify.yaml")
    assert main(["fit", *classify, *settings]) == 0
    run = tmp_path / "runs/mini-sfc/seed0"
    checkpoint = ["--ckpt_path", str(run / "classify/checkpoints/last.ckpt")]
    assert main(["predict", *classify, *files("miniature/sfc/cam.yaml"), *settings, *checkpoint]) == 0
    words = [
        "--maps",
        str(run / "cam/maps"),
        "--root",
        str(world),
        "--limit",
        "240",
        "--out",
        str(run / "score"),
        "--quiet",
    ]
    assert main(["evaluate", *words]) == 0
    metrics = json.loads((run / "score/metrics.json").read_text())
    floor = max(metrics["train/miou_tags"], metrics["train/miou_chance"])
    assert 0 < floor < 0.2
    for rule in ("m0", "mw", "sum"):
        assert metrics[f"train/miou_{rule}"] > 2 * floor, rule
