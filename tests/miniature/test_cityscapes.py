"""The Cityscapes-like world: official names and ids, and streets that obey perspective."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from frugalseg.miniature.canvas import IDS, Canvas
from frugalseg.miniature.cityscapes import CityscapesWorld, write_cityscapes_world
from frugalseg.miniature.things import Spot, add_bus, add_car, add_person, add_pole, add_tree
from tests.miniature.reading import array

# labels.py of cityscapesScripts; the official trainIds are those ids that are not void there
BENCHMARK = {7, 8, 11, 12, 13, 17, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 31, 32, 33}


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_cityscapes_world(tmp_path_factory.mktemp("cityscapes"), 7, 4)


def test_layout(root: Path) -> None:
    images = sorted(path.relative_to(root / "leftImg8bit").as_posix() for path in root.rglob("*_leftImg8bit.png"))
    assert images == [
        *(f"train/aachen/aachen_{number:06d}_000019_leftImg8bit.png" for number in range(4)),
        *(f"train/bochum/bochum_{number:06d}_000019_leftImg8bit.png" for number in range(3)),
        *(f"val/frankfurt/frankfurt_{number:06d}_000019_leftImg8bit.png" for number in range(2)),
        *(f"val/lindau/lindau_{number:06d}_000019_leftImg8bit.png" for number in range(2)),
    ]
    for image in images:
        with Image.open(root / "gtFine" / image.replace("leftImg8bit", "gtFine_labelIds")) as mask:
            assert (mask.mode, mask.size) == ("L", (128, 64))
        assert array(root / "leftImg8bit" / image).shape == (64, 128, 3)


def test_files_are_the_drawing_without_loss(root: Path) -> None:
    image, ids = CityscapesWorld().picture("val", 1)
    np.testing.assert_array_equal(array(root / "leftImg8bit/val/lindau/lindau_000000_000019_leftImg8bit.png"), image)
    np.testing.assert_array_equal(array(root / "gtFine/val/lindau/lindau_000000_000019_gtFine_labelIds.png"), ids)


def test_ids_are_official_and_all_of_them_occur() -> None:
    world = CityscapesWorld(seed=1)
    counts = np.zeros(34)
    for index in range(60):
        ids = world.picture("train", index)[1]
        counts += np.bincount(ids.ravel(), minlength=34) > 0
        assert ids[0].tolist() == ids[-1].tolist() == [3] * 128, "the frame is out of the region of interest"
        assert {7, 8, 11, 23, 1} <= set(np.unique(ids).tolist())
    assert set(np.flatnonzero(counts).tolist()) == set(IDS.values())
    assert len(BENCHMARK & set(IDS.values())) == 11
    assert set(IDS.values()) - BENCHMARK == {1, 3, 4}
    assert counts[26] > 30
    assert counts[24] > 30


def test_sky_is_above_and_road_below() -> None:
    for index in range(10):
        ids = CityscapesWorld().picture("train", index)[1]
        height = {label: np.nonzero(ids == label)[0].mean() for label in (23, 11, 7)}
        assert height[23] < height[11] < height[7]
        widths = [(ids[row] == 7).sum() for row in (38, 54)]
        assert widths[0] < widths[1], "the road gets narrower towards the horizon"


@pytest.mark.parametrize(("add", "label"), [(add_car, 26), (add_bus, 28), (add_person, 24), (add_tree, 21)])
def test_near_things_are_bigger(add, label: int) -> None:
    areas = []
    for scale in (0.25, 0.5, 0.75):
        canvas = Canvas(128, np.random.default_rng(0))
        add(canvas, Spot(64, 60, scale))
        assert set(np.unique(canvas.ids).tolist()) == {0, label}
        np.testing.assert_array_equal(canvas.image.any(axis=2), canvas.ids > 0)
        areas.append((canvas.ids == label).sum())
    assert areas[2] > 1.5 * areas[1] > 3 * areas[0]


def test_the_farthest_pole_is_still_visible() -> None:
    for x in np.linspace(50, 51, 7):
        canvas = Canvas(64, np.random.default_rng(0))
        add_pole(canvas, Spot(float(x), 40, 0.18))
        assert (canvas.ids == IDS["pole"]).sum() >= 4


def test_size_is_the_height() -> None:
    coarse, fine = (CityscapesWorld(size=size).picture("train", 0)[1] for size in (64, 128))
    assert fine.shape == (128, 256)
    assert (fine[::2, ::2] == coarse).mean() > 0.75
