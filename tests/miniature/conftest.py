"""Worlds that several tests read; nobody may write to them."""

from pathlib import Path

import pytest

from frugalseg.miniature.attributes import write_attribute_world
from frugalseg.miniature.voc import write_voc_world


@pytest.fixture(scope="session")
def long_tail(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_voc_world(tmp_path_factory.mktemp("long_tail"), 700, 20, seed=0)


@pytest.fixture(scope="session")
def balanced(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_voc_world(tmp_path_factory.mktemp("balanced"), 700, 20, seed=0, balanced=True)


@pytest.fixture(scope="session")
def attributes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_attribute_world(tmp_path_factory.mktemp("attributes"), 60, seed=0, images_val=10)
