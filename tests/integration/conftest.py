"""A tiny world and the command lines that run on it."""

from pathlib import Path

import pytest
import yaml

from frugalseg.miniature.voc import write_voc_world
from tests.conftest import REPOSITORY

EXPERIMENTS = REPOSITORY / "experiments"


@pytest.fixture(scope="session")
def world(tmp_path_factory) -> Path:
    return write_voc_world(tmp_path_factory.mktemp("world") / "VOC2012", images_train=24, images_val=6, seed=3)


@pytest.fixture
def words(world, tmp_path):
    """Command-line words of the miniature SFC classifier, shrunk to a few steps; `extra` settings win."""

    def build(command: str, *extra: str, cam: bool = False, stage: str = "classify") -> list[str]:
        configs = [EXPERIMENTS / "_base/trainer.yaml", EXPERIMENTS / f"miniature/sfc/{stage}.yaml"]
        configs += [EXPERIMENTS / "miniature/sfc/cam.yaml"] if cam else []
        configs += [EXPERIMENTS / "_base/cpu.yaml"]
        settings = {
            "trainer.max_steps": 5,
            "trainer.val_check_interval": 5,
            "trainer.log_every_n_steps": 1,
            "run.root": tmp_path / "runs",
            "run.save_every": 2,
            "data.init_args.root": world,
            "data.init_args.batch_size": 4,
            "data.init_args.limit": 24,
        }
        if stage == "classify":
            settings |= {"model.init_args.bank_start": 0, "model.init_args.calibration_start": 1}
        flags = [word for key, value in settings.items() for word in (f"--{key}", str(value))]
        return [command, *[w for c in configs for w in ("--config", str(c))], *flags, *extra]

    return build


@pytest.fixture
def read_yaml():
    return lambda path: yaml.safe_load(Path(path).read_text())
