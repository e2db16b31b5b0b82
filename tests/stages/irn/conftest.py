"""A tiny world with made-up seed labels, and the command lines that train and predict on it."""

import numpy as np
import pytest

from frugalseg.data.io import read_mask, write_mask
from frugalseg.data.voc import index
from frugalseg.ops.palette import voc_palette
from tests.conftest import REPOSITORY

EXPERIMENTS = REPOSITORY / "experiments"
CLASSES = 13


@pytest.fixture(scope="session")
def seeds(world, tmp_path_factory):
    """True masks, unsure near every boundary."""
    folder = tmp_path_factory.mktemp("seeds") / "seed_labels"
    for sample in index(world, "trainaug"):
        ids = read_mask(sample.mask, CLASSES)
        padded = np.pad(ids, 2, mode="edge")
        near = np.stack([padded[y : y + ids.shape[0], x : x + ids.shape[1]] for y in range(5) for x in range(5)])
        write_mask(
            folder / f"{sample.id}.png", np.where((near == ids).all(0), ids, 255).astype(np.uint8), voc_palette()
        )
    return folder


@pytest.fixture
def words(world, seeds, tmp_path):
    """Command-line words of the miniature IRN, shrunk to a few steps; `extra` settings win."""

    def build(command, *extra, stage="irn"):
        configs = ["_base/trainer.yaml", "miniature/sfc/irn.yaml"]
        configs += [f"miniature/sfc/{stage}.yaml"] if stage != "irn" else []
        settings = {
            "trainer.max_steps": 3,
            "trainer.val_check_interval": 3,
            "trainer.log_every_n_steps": 1,
            "run.root": tmp_path / "runs",
            "run.wandb": False,
            "data.init_args.root": world,
            "data.init_args.pseudo_labels": seeds,
            "data.init_args.batch_size": 4,
        }
        flags = [word for key, value in settings.items() for word in (f"--{key}", str(value))]
        paths = [str(EXPERIMENTS / config) for config in [*configs, "_base/cpu.yaml"]]
        return [command, *[word for path in paths for word in ("--config", path)], *flags, *extra]

    return build
