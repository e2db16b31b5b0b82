"""CTI on genuine photographs: two views of real sizes, seeds at image size, a panel of every kind of map."""

import json

import numpy as np
import pytest
from PIL import Image

from frugalseg.cli import main
from tests.integration.conftest import EXPERIMENTS

pytestmark = pytest.mark.real


def test_two_steps_and_seeds_of_real_images(real_voc, tmp_path):
    """The experiment's own files with a small net: random weights show that sizes and files fit together, no more."""
    configs = ["_base/trainer", "cti/voc/classify", "_base/cpu"]
    words = [w for name in configs for w in ("--config", str(EXPERIMENTS / f"{name}.yaml"))]
    settings = {
        "run.root": tmp_path, "data.init_args.root": real_voc, "model.init_args.weights": "null", "model.init_args.dim": 48,
        "model.init_args.depth": 4, "model.init_args.heads": 3, "model.init_args.infusion": 1, "data.init_args.batch_size": 4,
        "data.init_args.limit": 8, "trainer.max_epochs": 1, "run.wandb": "false", "model.init_args.warmup": 0,
    }  # fmt: skip
    words += [w for key, value in settings.items() for w in (f"--{key}", str(value))]
    assert main(["fit", *words, "--trainer.check_val_every_n_epoch", "1", "--trainer.limit_val_batches", "2"]) == 0
    folder = tmp_path / "cti-voc/seed0"
    predict = ["--config", str(EXPERIMENTS / "cti/voc/cam.yaml"), "--data.init_args.predict_split", "val"]
    checkpoint = ["--ckpt_path", str(folder / "classify/checkpoints/best.ckpt"), "--model.init_args.save_parts", "true"]
    assert main(["predict", *words, *predict, *checkpoint, "--data.init_args.limit", "3"]) == 0
    files = sorted((folder / "cam/maps").glob("*.npz"))
    assert len(files) == 3
    for file in files:
        size = Image.open(real_voc / f"JPEGImages/{file.stem}.jpg").size
        with np.load(file) as maps:
            assert maps["cam"].shape[1:] == size[::-1]
            assert float(maps["mt"][1:].max()) > 0.9  # R, and so F and Q, may be empty from random weights
            assert all(0 <= maps[kind].min() <= maps[kind].max() <= 1 for kind in ("cam", "r", "f", "q"))
    score = ["--maps", str(folder / "cam/maps"), "--root", str(real_voc), "--split", "val", "--limit", "3", "--quiet"]
    assert main(["evaluate", *score, "--sweep", "cam,r", "--pictures", "1", "--out", str(tmp_path / "score")]) == 0
    metrics = json.loads((tmp_path / "score/metrics.json").read_text())
    assert 0 < metrics["val/miou_cam_best"] < 1 and 0 < metrics["val/miou_r_best"] < 1
    (panel,) = (tmp_path / "score/pictures").iterdir()
    assert Image.open(panel).height > 4 * size[1]
