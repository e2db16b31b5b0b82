"""What the VOC-like world promises to those who train on it."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from frugalseg.miniature.looks import CLASS_NAMES, HEAD, LOOKS, MIDDLE, PAIRS, TAIL
from frugalseg.miniature.scene import BODY, TIP
from frugalseg.miniature.voc import VOCWorld, write_voc_world
from frugalseg.ops.palette import voc_palette
from tests.miniature.reading import array, class_names, ids, image_counts, objects


def sfc_weights(counts: np.ndarray, extra: float = 83) -> np.ndarray:
    """Section 4.2 of the SFC specification, with the bank draws of 500 steps."""
    demand = np.abs(counts[:, None] - counts[None]).sum(axis=0)
    quotient = demand / (counts + extra)
    return quotient / quotient.mean()


def test_the_long_tail_has_three_groups_and_learnable_rare_classes(long_tail: Path) -> None:
    order = np.argsort(-image_counts(long_tail))
    groups = (range(4), range(4, 8), range(8, 12))
    assert [set(third) for third in order.reshape(3, 4)] == [set(group) for group in groups]
    assert image_counts(long_tail).min() >= 15
    counts = image_counts(long_tail)
    assert all(counts[head - 1] > 3 * counts[tail - 1] for head, tail in PAIRS)


def test_class_weights_are_u_shaped(long_tail: Path) -> None:
    counts = image_counts(long_tail)
    weights = sfc_weights(counts)
    assert weights[counts.argmax()] > 1.2
    assert weights[counts.argmin()] > 1.2
    assert weights[1:8].max() < 1


def test_the_tail_stays_a_tail_with_every_seed() -> None:
    for seed in range(1, 4):
        world, counts = VOCWorld(seed=seed), np.zeros(13)
        for index in range(150):
            counts[list(world.picture("train", index).class_ids)] += 1
        assert counts[1] == counts.max()
        assert counts[1:5].sum() > 2 * counts[5:9].sum() > 2.5 * counts[9:].sum()


def test_the_balanced_twin_is_nearly_uniform(balanced: Path, long_tail: Path) -> None:
    counts = image_counts(balanced)
    assert counts.max() < 1.6 * counts.min()
    assert counts.sum() == image_counts(long_tail).sum(), "as many objects as in the long-tailed world"


def test_twins_share_their_grounds() -> None:
    for index in range(20):
        tail, even = (VOCWorld(seed=5, balanced=flag).picture("train", index) for flag in (False, True))
        ground = (tail.mask == 0) & (even.mask == 0)
        assert ground.any()
        np.testing.assert_array_equal(tail.scene.image[ground], even.scene.image[ground])


def test_masks_hold_exactly_the_annotated_classes(long_tail: Path) -> None:
    names = class_names(long_tail)
    for name in ids(long_tail, "trainval"):
        mask = array(long_tail / f"SegmentationClass/{name}.png")
        found = {names[number]: int(area) for number, area in enumerate(np.bincount(mask.ravel())) if number and area}
        annotated = objects(long_tail, name)
        assert sorted(found) == sorted(label for label, _ in annotated), "one object per class, none forgotten"
        assert min(found.values()) >= 25
        for label, (xmin, ymin, xmax, ymax) in annotated:
            rows, columns = np.nonzero(mask == names.index(label))
            assert (xmin, ymin, xmax, ymax) == (columns.min() + 1, rows.min() + 1, columns.max() + 1, rows.max() + 1)


def test_every_object_shows_body_and_tip(long_tail: Path) -> None:
    for name in ids(long_tail, "train")[:200]:
        mask = array(long_tail / f"SegmentationClass/{name}.png")
        parts = array(long_tail / f"Parts/{name}.png")
        np.testing.assert_array_equal(mask > 0, parts > 0)
        for class_id in np.unique(mask[mask > 0]):
            areas = np.bincount(parts[mask == class_id], minlength=3)
            assert areas[BODY] >= 50
            assert areas[TIP] >= 25


def test_files_open_as_voc_does(long_tail: Path) -> None:
    name = ids(long_tail, "train")[0]
    assert name == "2012_000001"
    for folder in ("SegmentationClass", "SegmentationClassAug"):
        with Image.open(long_tail / folder / f"{name}.png") as mask:
            assert mask.mode == "P"
            assert mask.size == (64, 64)
            palette = np.array(mask.getpalette()).reshape(-1, 3)
            np.testing.assert_array_equal(palette[:13], voc_palette()[:13])
    with Image.open(long_tail / f"Parts/{name}.png") as parts:
        assert parts.mode == "L"
    with Image.open(long_tail / f"JPEGImages/{name}.jpg") as image:
        assert image.mode == "RGB"
        assert image.size == (64, 64)


def test_lists_name_every_picture_once(long_tail: Path) -> None:
    train, val, both = (ids(long_tail, split) for split in ("train", "val", "trainval"))
    assert ids(long_tail, "trainaug") == train
    assert (len(train), len(val)) == (700, 20)
    assert both == sorted(train + val)
    assert len(set(both)) == 720
    for folder in ("JPEGImages", "SegmentationClass", "SegmentationClassAug", "Parts", "Annotations"):
        assert sorted(path.stem for path in (long_tail / folder).iterdir()) == both


def test_jpeg_keeps_the_colours(long_tail: Path) -> None:
    drawn = VOCWorld(seed=0).picture("train", 0).scene.image.astype(float)
    read = array(long_tail / "JPEGImages/2012_000001.jpg").astype(float)
    assert np.abs(drawn - read).mean() < 4


def test_paired_classes_share_the_body_and_differ_by_the_tip() -> None:
    assert PAIRS == ((1, 9), (2, 10), (3, 11), (4, 12))
    for head, tail in PAIRS:
        assert LOOKS[head - 1].body == LOOKS[tail - 1].body
        assert LOOKS[head - 1].shape != LOOKS[tail - 1].shape
        assert LOOKS[head - 1].tip.first != LOOKS[tail - 1].tip.first
    assert len({look.body for look in HEAD + MIDDLE}) == len(HEAD) + len(MIDDLE)
    assert len({(look.shape, look.tip.first) for look in LOOKS}) == len(LOOKS) == len(HEAD + MIDDLE + TAIL)


def mean_body_colours(root: Path, pictures: int) -> dict[int, np.ndarray]:
    sums, areas = np.zeros((13, 3)), np.zeros(13)
    for name in ids(root, "train")[:pictures]:
        mask = array(root / f"SegmentationClass/{name}.png")
        body = array(root / f"Parts/{name}.png") == BODY
        image = array(root / f"JPEGImages/{name}.jpg")
        for class_id in np.unique(mask[body]):
            here = body & (mask == class_id)
            sums[class_id] += image[here].sum(axis=0)
            areas[class_id] += here.sum()
    return {class_id: sums[class_id] / areas[class_id] for class_id in range(1, 13)}


def test_paired_bodies_look_alike_on_disk(balanced: Path) -> None:
    means = mean_body_colours(balanced, pictures=400)
    for head, tail in PAIRS:
        gaps = {other: np.linalg.norm(means[tail] - means[other]) for other in range(1, 9)}
        assert min(gaps, key=gaps.__getitem__) == head
        assert gaps[head] < 12


@pytest.mark.parametrize("size", [64, 96])
def test_geometry_scales_with_the_size(size: int, tmp_path: Path) -> None:
    write_voc_world(tmp_path / "w", 6, 2, seed=3, size=size)
    mask = array(tmp_path / "w/SegmentationClass/2012_000001.png")
    assert mask.shape == (size, size)
    coarse, fine = (VOCWorld(seed=3, size=side).picture("train", 0) for side in (64, size))
    assert coarse.class_ids == fine.class_ids
    assert abs((coarse.mask > 0).mean() - (fine.mask > 0).mean()) < 0.01
    # a picture that was seen through coarser pixels: most of the difference is pixel noise
    shrunk = np.asarray(Image.fromarray(fine.scene.image).resize((64, 64), Image.Resampling.BOX), dtype=float)
    assert np.abs(shrunk - coarse.scene.image).mean() < 16


def test_class_names_are_plain_words() -> None:
    assert CLASS_NAMES[:2] == ("background", "orange-stripe_red-disc")
    assert len(set(CLASS_NAMES)) == 13
    assert all(name.replace("-", "").replace("_", "").isalpha() for name in CLASS_NAMES)
