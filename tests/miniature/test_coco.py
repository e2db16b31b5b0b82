"""The COCO-like world, read with pycocotools: regions, crowds, overlaps, gaps and empty pictures."""

import contextlib
import io
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO

from frugalseg.miniature.coco import CATEGORY_IDS, COCOWorld, write_coco_world
from frugalseg.miniature.cocofiles import annotation, polygons, run_lengths
from frugalseg.miniature.looks import LOOKS
from tests.miniature.reading import array

TRAIN, VAL = 60, 12
# pycocotools 2.0.11 has not followed NumPy 2 yet
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_coco_world(tmp_path_factory.mktemp("coco"), TRAIN, VAL)


def opened(root: Path, split: str) -> COCO:
    with contextlib.redirect_stdout(io.StringIO()):
        return COCO(str(root / f"annotations/instances_{split}2014.json"))


def decode(record: dict, size: tuple[int, int]) -> np.ndarray:
    """As `COCO.annToMask` does."""
    found = record["segmentation"]
    rle = coco_mask.frPyObjects(found, *size)
    return coco_mask.decode(coco_mask.merge(rle) if isinstance(found, list) else rle).astype(bool)


def test_layout(root: Path) -> None:
    assert sorted(path.name for path in root.iterdir()) == ["annotations", "train2014", "val2014", "world.json"]
    images: list[int] = []
    annotations: list[int] = []
    for split, count in (("train", TRAIN), ("val", VAL)):
        document = json.loads((root / f"annotations/instances_{split}2014.json").read_text())
        assert list(document) == ["info", "licenses", "images", "annotations", "categories"]
        names = [image["file_name"] for image in document["images"]]
        assert names == [f"COCO_{split}2014_{image['id']:012d}.jpg" for image in document["images"]]
        assert sorted(path.name for path in (root / f"{split}2014").iterdir()) == names
        assert len(names) == count
        images += [image["id"] for image in document["images"]]
        annotations += [record["id"] for record in document["annotations"]]
    assert len(set(images)) == len(images) == TRAIN + VAL, "the splits share no image"
    assert len(set(annotations)) == len(annotations)


def test_categories_have_gaps_and_ranks_are_the_looks(root: Path) -> None:
    coco = opened(root, "train")
    ids = sorted(coco.getCatIds())
    assert tuple(ids) == CATEGORY_IDS
    assert ids != list(range(1, 13))
    assert [coco.cats[number]["name"] for number in ids] == [look.name for look in LOOKS]
    assert {coco.cats[number]["supercategory"] for number in ids} == {"stripe", "check", "dots", "rings"}


@pytest.mark.parametrize("split", ["train", "val"])
def test_pycocotools_decodes_exactly_the_drawn_regions(split: str, root: Path) -> None:
    coco, world = opened(root, split), COCOWorld()
    for index, image in enumerate(coco.imgs.values()):
        picture = world.picture(split, index)
        records = coco.imgToAnns[image["id"]]
        assert [record["category_id"] for record in records] == [CATEGORY_IDS[rank - 1] for rank, _ in picture.objects]
        painted = np.zeros_like(picture.mask)
        for record in sorted(records, key=lambda one: -one["area"]):
            region = coco.annToMask(record).astype(bool)
            painted[region] = 1 + CATEGORY_IDS.index(record["category_id"])
            assert record["area"] == region.sum()
            rle = coco.annToRLE(record)
            assert record["bbox"] == coco_mask.toBbox(rle).tolist()
        # the smaller on top: that is what the picture shows
        np.testing.assert_array_equal(painted, picture.mask)
        for record, (_, region) in zip(records, picture.objects, strict=True):
            drawn = coco.annToMask(record).astype(bool)
            assert (drawn & region).sum() / (drawn | region).sum() == 1


def test_two_pictures_of_each_split_have_no_annotation(root: Path) -> None:
    for split in ("train", "val"):
        coco = opened(root, split)
        assert [index for index, number in enumerate(coco.imgs) if not coco.imgToAnns[number]] == [2, 5]


def test_one_picture_of_each_split_is_grey(root: Path) -> None:
    for split in ("train", "val"):
        modes = [Image.open(path).mode for path in sorted((root / f"{split}2014").iterdir())]
        assert [index for index, mode in enumerate(modes) if mode == "L"] == [4]


def test_crowds_are_rare_and_have_run_lengths(root: Path) -> None:
    records = list(opened(root, "train").anns.values())
    crowds = [record for record in records if record["iscrowd"]]
    assert 0.01 < len(crowds) / len(records) < 0.05
    for crowd in crowds:
        assert isinstance(crowd["segmentation"]["counts"], list)
        assert sum(crowd["segmentation"]["counts"]) == 64 * 64
    outlined = [record for record in records if isinstance(record["segmentation"], list)]
    assert len(outlined) > 0.9 * len(records)


def test_some_small_objects_lie_inside_bigger_ones(root: Path) -> None:
    coco = opened(root, "train")
    inside = 0
    for number in coco.imgs:
        regions = [coco.annToMask(record).astype(bool) for record in coco.imgToAnns[number]]
        if len(regions) > 1 and any((regions[0] & other).sum() == regions[0].sum() for other in regions[1:]):
            assert regions[0].sum() < min(other.sum() for other in regions[1:] if (regions[0] & other).any())
            inside += 1
    assert inside == len(range(6, TRAIN, 8))


def test_the_tail_is_that_of_the_voc_world() -> None:
    def counts(*, balanced: bool) -> np.ndarray:
        world = COCOWorld(seed=1, balanced=balanced)
        ranks = [rank for index in range(200) for rank, _ in world.picture("train", index).objects]
        return np.bincount(ranks, minlength=13)[1:]

    tail, even = counts(balanced=False), counts(balanced=True)
    assert tail[0] == tail.max()
    assert tail[:4].sum() > 2 * tail[4:8].sum() > 2.5 * tail[8:].sum()
    assert even.max() < 3 * even.min()
    assert tail.max() > 8 * tail.min()


def test_pictures_differ_from_those_of_the_voc_world(root: Path, long_tail: Path) -> None:
    ours = array(root / "train2014/COCO_train2014_000000000009.jpg").astype(float)
    theirs = array(long_tail / "JPEGImages/2012_000001.jpg").astype(float)
    assert np.abs(ours - theirs).mean() > 10


def test_any_region_without_holes_survives_as_polygons() -> None:
    rng = np.random.default_rng(0)
    holes = 0
    for density in np.linspace(0.05, 0.95, 60):
        region = rng.random((9, 13)) < density
        region[4, 6] = True
        record = annotation(region, 1, 1, 1, crowd=False)
        holes += isinstance(record["segmentation"], dict)
        np.testing.assert_array_equal(decode(dict(record), region.shape), region)
    assert 5 < holes < 55, "both ways were tried"


def test_a_ring_needs_run_lengths() -> None:
    region = np.zeros((5, 6), dtype=bool)
    region[1:4, 1:4] = True
    assert len(polygons(region) or ()) == 1
    region[2, 2] = False
    assert polygons(region) is None
    assert run_lengths(region) == {"counts": [6, 3, 2, 1, 1, 1, 2, 3, 11], "size": [5, 6]}
    assert run_lengths(np.ones((2, 2), dtype=bool))["counts"] == [0, 4]


def test_a_picture_does_not_depend_on_where_memory_lies():
    """Two places of the biggest object are equally broad here: OpenCV's distances once chose by the last bit."""
    world, rng, kept, seen = COCOWorld(seed=0, size=64), np.random.default_rng(0), [], set()
    for _ in range(40):
        kept.append(np.zeros(int(rng.integers(1, 5000)), np.uint8))
        seen.add(world.picture("train", 174).mask.tobytes())
    assert len(seen) == 1
