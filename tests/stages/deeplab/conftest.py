"""A tiny world with pseudo labels, and the command lines that train and predict on it."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from frugalseg.cli import main
from frugalseg.data.io import read_mask, write_mask
from frugalseg.data.voc import index
from frugalseg.ops.palette import voc_palette
from frugalseg.stages.deeplab import DeepLab
from tests.conftest import REPOSITORY

EXPERIMENTS = REPOSITORY / "experiments"
CLASSES = 13


@pytest.fixture(scope="session")
def labels(world, tmp_path_factory):
    """Pseudo labels: true masks shifted by two pixels, unsure along the border."""
    folder = tmp_path_factory.mktemp("labels") / "pseudo"
    for sample in index(world, "trainaug"):
        ids = np.roll(read_mask(sample.mask, CLASSES), 2, axis=1)
        ids[:2] = 255
        write_mask(folder / f"{sample.id}.png", ids, voc_palette())
    return folder


def command_words(world, labels, root):
    """Command-line words of the miniature segmenter, shrunk to a few steps; `extra` settings win."""

    def build(command, *extra):
        configs = ["_base/trainer.yaml", "miniature/sfc/segment.yaml"]
        configs += ["miniature/sfc/predict.yaml"] if command == "predict" else []
        settings = {
            "trainer.max_steps": 3,
            "trainer.val_check_interval": 3,
            "trainer.log_every_n_steps": 1,
            "run.root": root,
            "run.wandb": False,
            "run.save_every": 1,
            "data.init_args.root": world,
            "data.init_args.batch_size": 4,
            # pixels of a training mask can be found again in its file
            "data.init_args.recipe.init_args.scale": [1.0, 1.0],
            "data.init_args.recipe.init_args.flip": 0.0,
        }
        settings |= {"data.init_args.pseudo_labels": labels} if command == "fit" else {}
        flags = [word for key, value in settings.items() for word in (f"--{key}", str(value))]
        paths = [str(EXPERIMENTS / config) for config in [*configs, "_base/cpu.yaml"]]
        return [command, *[word for path in paths for word in ("--config", path)], *flags, *extra]

    return build


@pytest.fixture
def words(world, labels, tmp_path):
    return command_words(world, labels, tmp_path / "runs")


@dataclass(frozen=True)
class Trained:
    """A finished fit that tests share; each predicts into a stage of its own."""

    run: Path
    words: Callable
    seen: dict
    """Masks that the training steps saw."""

    @property
    def checkpoint(self) -> Path:
        return self.run / "segment/checkpoints/last.ckpt"

    def predict(self, stage, *extra):
        return self.words("predict", "--ckpt_path", str(self.checkpoint), "--run.stage", stage, *extra)


@pytest.fixture(scope="session")
def trained(world, labels, tmp_path_factory):
    root, seen, step = tmp_path_factory.mktemp("trained"), {}, DeepLab.training_step

    def watch(self, batch, batch_idx):
        seen.update(zip(batch["id"], batch["mask"], strict=True))
        return step(self, batch, batch_idx)

    build = command_words(world, labels, root)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(DeepLab, "training_step", watch)
        assert main(build("fit")) == 0
    return Trained(root / "mini-sfc/seed0", build, seen)
