"""What the tests of all stages train on."""

import pytest

from frugalseg.miniature.voc import write_voc_world


@pytest.fixture(scope="session")
def world(tmp_path_factory):
    """A tiny VOC world."""
    return write_voc_world(tmp_path_factory.mktemp("world") / "VOC2012", images_train=12, images_val=4, seed=5)
