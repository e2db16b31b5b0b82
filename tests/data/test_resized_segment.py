"""`ResizedSegment` against Pillow and against a plain loop over pixels."""

import inspect

import numpy as np
import pytest
import torch
from PIL import Image

from frugalseg.batch import IGNORE_INDEX
from frugalseg.data import VOC, ResizedSegment, Segment
from frugalseg.data.io import read_mask
from frugalseg.data.loader import TrainItems, TrainLoader
from frugalseg.data.resized_crop import crop_box
from frugalseg.data.resized_segment import nearest
from frugalseg.data.sampler import TrainSampler, draw_rng
from frugalseg.data.voc import index
from frugalseg.errors import ConfigError, DatasetError
from tests.data.conftest import picture

PLAIN = {"mean": (0.0, 0.0, 0.0), "std": (1.0, 1.0, 1.0)}


def nearest_by_hand(ids, side):
    """Pixel by pixel: the centre of cell i lies at (i + 1/2) * length / side."""
    found = np.empty((side, side), ids.dtype)
    for row in range(side):
        for column in range(side):
            found[row, column] = ids[int((row + 0.5) / side * ids.shape[0]), int((column + 0.5) / side * ids.shape[1])]
    return found


def draws(sample, recipe, count):
    """Items with what they were drawn from: the box, and whether it is mirrored."""
    for number in range(count):
        rng = draw_rng(0, number)
        height, width = read_mask(sample.mask, 21).shape
        box, flipped = crop_box((height, width), recipe.area, recipe.aspect, rng), rng.random() < recipe.flip
        yield recipe.train_item(sample, 21, draw_rng(0, number)), box, flipped


def test_defaults_are_those_of_the_protocol():
    """papers/mevt.md d.2."""
    recipe = ResizedSegment()
    assert (recipe.side, recipe.area, recipe.aspect, recipe.flip) == (448, (0.8, 1.0), (3 / 4, 4 / 3), 0.5)


@pytest.mark.parametrize("side", [24, 48, 96])
def test_image_and_mask_show_the_drawn_box(voc_root, side):
    seen = set()
    for sample in index(voc_root, "train")[:4]:
        image, ids = Image.open(sample.image).convert("RGB"), np.asarray(Image.open(sample.mask))
        for item, (x0, y0, x1, y1), flipped in draws(sample, ResizedSegment(side, (0.3, 1.0), **PLAIN), 6):
            view = np.asarray(image.crop((x0, y0, x1, y1)).resize((side, side), Image.Resampling.BICUBIC)).astype(int)
            mask = nearest_by_hand(ids[y0:y1, x0:x1], side)
            if flipped:
                view, mask = view[:, ::-1], mask[:, ::-1]
            levels = (item["image"] * 255).round().permute(1, 2, 0).numpy().astype(int)
            assert np.abs(levels - view).max() <= 2  # torch's weights have fewer bits than Pillow's
            assert np.array_equal(item["mask"].numpy(), mask)
            assert item["box"].tolist() == [0, 0, side, side]
            seen |= {flipped, "smaller" if y1 - y0 < ids.shape[0] else "whole"}
    assert {True, False, "smaller"} <= seen


def test_masks_follow_their_images(tmp_path, voc_root):
    """Where the class is painted in its own grey, image and mask still agree after cutting, resizing and mirroring."""
    (sample, *_) = index(voc_root, "train")
    ids = np.kron(np.arange(20).reshape(4, 5), np.ones((12, 12), int)).astype(np.uint8)
    Image.fromarray(np.repeat(ids[..., None] * 12, 3, axis=2)).save(sample.image, format="PNG")
    Image.fromarray(ids).save(sample.mask)
    agree = []
    for item, _, _ in draws(sample, ResizedSegment(60, (0.4, 1.0), **PLAIN), 40):
        grey = (item["image"][0] * 255 / 12).round().long()
        agree.append((grey == item["mask"]).float().mean())
        assert (grey == item["mask"].flip(1)).float().mean() < 0.5
    assert torch.stack(agree).min() > 0.85  # not between two blocks, where greys mix


@pytest.mark.parametrize("shape", [(1, 1), (1, 7), (5, 3), (60, 41), (375, 500)])
@pytest.mark.parametrize("side", [1, 9, 32, 100])
def test_nearest_by_hand(shape, side):
    ids = np.random.default_rng(0).integers(0, 256, shape).astype(np.uint8)
    rows, columns = (np.floor((2 * np.arange(side) + 1) * length / (2 * side)).astype(int) for length in shape)
    assert np.array_equal(nearest(ids, side), ids[rows][:, columns])
    picture = Image.fromarray(ids).resize((side, side), Image.Resampling.NEAREST)
    ties = [(2 * np.arange(side) + 1) * length % (2 * side) == 0 for length in shape]  # Pillow's sums fall either way
    assert np.array_equal(nearest(ids, side)[~ties[0]][:, ~ties[1]], np.asarray(picture)[~ties[0]][:, ~ties[1]])


def test_void_stays_void_and_nothing_is_added(voc_root):
    """255 is the top rows of these masks; a view whose box leaves them out has none."""
    found = set()
    for sample in index(voc_root, "train"):
        for item, (_, y0, _, y1), _ in draws(sample, ResizedSegment(40, (0.5, 1.0)), 5):
            void = item["mask"] == IGNORE_INDEX
            assert bool(void.any()) == (int(0.5 / 40 * (y1 - y0)) + y0 < 3)
            assert bool(void[0].all()) == bool(void.any())
            found.add(bool(void.any()))
    assert found == {True, False}


def test_boxes_keep_area_and_aspect(voc_root):
    (sample, *_) = index(voc_root, "train")
    height, width = 900, 1100
    Image.fromarray(picture(height, width, 0)).save(sample.image)
    Image.fromarray(np.zeros((height, width), np.uint8)).save(sample.mask)
    boxes = np.array([box for _, box, _ in draws(sample, ResizedSegment(8), 60)])
    w, h = (boxes[:, 2:] - boxes[:, :2]).T
    assert (w * h / (height * width) > 0.798).all()  # sides are whole pixels
    assert ((w / h > 0.748) & (w / h < 1.336)).all()
    assert len({tuple(box) for box in boxes.tolist()}) > 50


def test_a_draw_is_a_pure_function_of_its_number(voc_root):
    (sample, *_), recipe = index(voc_root, "train"), ResizedSegment(32)
    items = [recipe.train_item(sample, 21, draw_rng(3, number)) for number in (0, 1, 0)]
    assert torch.equal(items[0]["image"], items[2]["image"])
    assert torch.equal(items[0]["mask"], items[2]["mask"])
    assert not torch.equal(items[0]["image"], items[1]["image"])


def test_batches_do_not_depend_on_workers(voc_root):
    items = TrainItems(index(voc_root, "train"), ResizedSegment(32), 21, seed=5)

    def batches(workers):
        sampler = TrainSampler(7, 4, 5, drop_last=False)
        return list(TrainLoader(items, sampler=sampler, batch_size=None, num_workers=workers))

    alone, spread = batches(0), batches(2)
    assert len(alone) == 2
    for one, two in zip(alone, spread, strict=True):
        assert one["id"] == two["id"]
        assert all(torch.equal(one[key], two[key]) for key in one if key != "id")


def test_a_batch_is_its_items(voc_root):
    samples, recipe = index(voc_root, "train"), ResizedSegment(32)
    batch = recipe.train_batch(samples, 21, [draw_rng(4, number) for number in range(7)])
    expected = recipe.collate([recipe.train_item(s, 21, draw_rng(4, number)) for number, s in enumerate(samples)])
    assert (batch["image"].shape, batch["mask"].shape, batch["mask"].dtype) == (
        (7, 3, 32, 32),
        (7, 32, 32),
        torch.int64,
    )
    assert batch.keys() == expected.keys()
    assert all(torch.equal(batch[key], expected[key]) for key in batch if key != "id")


def test_evaluation_is_that_of_segment(voc_root):
    (sample, *_) = index(voc_root, "val")
    ours, theirs = (recipe.evaluation_item(sample, 21) for recipe in (ResizedSegment(32), Segment(32)))
    assert all(torch.equal(ours[key], theirs[key]) for key in ("image", "mask", "box"))


def test_in_a_data_module(voc_root):
    data = VOC(voc_root, ResizedSegment(32), batch_size=3, num_workers=0)
    data.setup("fit")
    batch = next(iter(data.train_dataloader()))
    assert batch["image"].shape == (3, 3, 32, 32)
    (voc_root / "SegmentationClass/2007_000032.png").unlink()
    with pytest.raises(DatasetError, match="2007_000032"):
        VOC(voc_root, ResizedSegment(32)).setup("fit")


@pytest.mark.parametrize(
    ("settings", "word"),
    [
        ({"crop": 0}, "recipe.crop"),
        ({"area": (0.8, 1.2)}, "recipe.area"),
        ({"area": (0.0, 1.0)}, "recipe.area"),
        ({"aspect": (2.0, 1.0)}, "recipe.aspect"),
        ({"flip": 1.5}, "recipe.flip"),
        ({"std": (0.0, 1.0, 1.0)}, "recipe.std"),
    ],
)
def test_settings_that_no_image_can_have_are_refused(settings, word):
    with pytest.raises(ConfigError, match=word):
        ResizedSegment(**settings)
    assert next(iter(settings)) in inspect.signature(ResizedSegment).parameters
