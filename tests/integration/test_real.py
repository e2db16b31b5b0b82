"""Genuine VOC images through the same YAML that `make sfc-voc` runs, with a small net and few steps."""

import json

import numpy as np
import pytest

from frugalseg.cli import main
from frugalseg.data.voc import index
from tests.integration.conftest import EXPERIMENTS

pytestmark = pytest.mark.real


def test_train_map_and_score_on_real_images(real_voc, tmp_path):
    settings = {
        "trainer.accelerator": "cpu",
        "trainer.max_steps": 2,
        "trainer.val_check_interval": 2,
        "trainer.limit_val_batches": 2,
        "run.root": tmp_path / "runs",
        "data.init_args.root": real_voc,
        "data.init_args.batch_size": 2,
        "data.init_args.num_workers": 0,
        "data.init_args.limit": 4,
        "data.init_args.recipe.init_args.crop": 128,
        "data.init_args.predict_split": "val",
        "model.init_args.weights": "null",
        "model.init_args.backbone": "resnet18",
    }
    flags = [word for key, value in settings.items() for word in (f"--{key}", str(value))]
    configs = [
        "--config",
        str(EXPERIMENTS / "_base/trainer.yaml"),
        "--config",
        str(EXPERIMENTS / "sfc/voc/classify.yaml"),
    ]
    assert main(["fit", *configs, *flags]) == 0
    folder = tmp_path / "runs/sfc-voc/seed0"
    cam = [
        "--config",
        str(EXPERIMENTS / "sfc/voc/cam.yaml"),
        "--ckpt_path",
        str(folder / "classify/checkpoints/best.ckpt"),
    ]
    assert main(["predict", *configs, *cam, *flags]) == 0
    samples = index(real_voc, "val")[:4]
    for sample in samples:
        arrays = np.load(folder / f"cam/maps/{sample.id}.npz", allow_pickle=False)
        assert arrays["keys"].tolist() == [0, *[t + 1 for t in sample.tags]]
        assert arrays["mw"].shape[0] == len(arrays["keys"]) and np.isfinite(arrays["mw"]).all()
    words = ["evaluate", "--maps", str(folder / "cam/maps"), "--root", str(real_voc), "--split", "val", "--limit", "4"]
    assert main([*words, "--out", str(folder / "score"), "--pictures", "1", "--quiet"]) == 0
    metrics = json.loads((folder / "score/metrics.json").read_text())
    assert 0 < metrics["val/miou_sum"] < 1
    assert {f"val/miou_{rule}" for rule in ("m0", "mw", "mp", "sum", "seed", "walk", "tags", "chance")} <= set(metrics)
