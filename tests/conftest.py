"""Fixtures and helpers that several test folders share."""

import os
import signal
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

from frugalseg import limits

REPOSITORY = Path(__file__).parent.parent
GOLDEN = Path(os.environ.get("FRUGALSEG_GOLDEN", REPOSITORY / "tests" / "golden"))
FACTS = Path(os.environ.get("FRUGALSEG_FACTS", REPOSITORY.parent / "shared"))
"""The project's facts, which are not part of the repository."""
REAL = Path(os.environ.get("FRUGALSEG_REAL_DATA", FACTS / "real"))

# W&B starts a service process of its own; the one test that needs it switches it on
os.environ.setdefault("WANDB_MODE", "disabled")


def load_golden(name: str) -> Mapping[str, NDArray[np.generic]]:
    """Arrays of `<set>/<file>` (without .npz) under the folder of golden vectors."""
    with np.load(GOLDEN / f"{name}.npz", allow_pickle=False) as archive:
        return {key: archive[key] for key in archive.files}


@pytest.fixture
def golden():
    return load_golden


@pytest.fixture
def real_voc() -> Path:
    root = REAL / "VOCdevkit" / "VOC2012"
    if not root.is_dir():
        pytest.skip(f"no genuine VOC samples at {root}; set FRUGALSEG_REAL_DATA")
    return root


def hear_ctrl_c() -> None:
    """`preexec_fn` of processes that are to be interrupted: whoever was started in the background ignores SIGINT, and
    so do all that it starts."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


@pytest.fixture(autouse=True, scope="session")
def _own_nets():
    """Settings may name the tests' own nets, as with `--allow tests`."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(limits, "PACKAGES", (*limits.PACKAGES, "tests"))
        yield


@pytest.fixture(autouse=True)
def _own_limit(monkeypatch):
    """What a test lets Pillow open is no other test's concern."""
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", limits.MAX_PIXELS)


@pytest.fixture(autouse=True)
def _one_thread():
    """Two cores are shared by test processes; results must not depend on the thread count either."""
    torch.set_num_threads(1)
