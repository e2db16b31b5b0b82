import inspect
import pickle
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms.v2 import functional as F

from frugalseg.data import MultiScale, Segment, Tags
from frugalseg.data.io import write_mask
from frugalseg.data.normalise import IMAGENET_MEAN, IMAGENET_STD
from frugalseg.data.recipes import tags_vector
from frugalseg.data.sampler import draw_rng
from frugalseg.data.voc import index
from frugalseg.errors import ConfigError, DatasetError, MaskError
from frugalseg.ops.palette import voc_palette


def reference(image: Image.Image) -> torch.Tensor:
    tensor = torch.from_numpy(np.asarray(image.convert("RGB")).copy()).permute(2, 0, 1).float() / 255
    return F.normalize(tensor, list(IMAGENET_MEAN), list(IMAGENET_STD))


def test_tags_batch(voc_root):
    samples = index(voc_root, "trainaug")
    recipe = Tags(crop=48)
    batch = recipe.collate([recipe.train_item(sample, 21, draw_rng(0, i)) for i, sample in enumerate(samples)])
    assert batch["id"] == [sample.id for sample in samples]
    assert (batch["image"].shape, batch["image"].dtype) == ((7, 3, 48, 48), torch.float32)
    assert (batch["tags"].shape, batch["tags"].dtype) == ((7, 20), torch.float32)
    assert (batch["box"].shape, batch["box"].dtype) == ((7, 4), torch.int64)
    assert "mask" not in batch
    for sample, image, tags, box in zip(samples, batch["image"], batch["tags"], batch["box"].tolist(), strict=True):
        assert tuple(tags.nonzero().flatten().tolist()) == sample.tags
        y0, x0, y1, x1 = box
        outside = torch.ones(48, 48, dtype=torch.bool)
        outside[y0:y1, x0:x1] = False
        assert not image[:, outside].any()
        # the box is tight: the pixels on its four edges come from the image, which holds no value that normalises to 0
        assert image[:, y0].any()
        assert image[:, y1 - 1].any()
        whole = reference(Image.open(sample.image))
        cut = image[:, y0:y1, x0:x1]
        height, width = cut.shape[1:]
        places = whole.unfold(1, height, 1).unfold(2, width, 1).permute(1, 2, 0, 3, 4)
        assert (places == cut).flatten(2).all(2).sum() == 1


@pytest.mark.parametrize("recipe", [Tags(crop=48, flip=0.5), Segment(crop=48)])
def test_a_batch_is_its_items(voc_root, recipe):
    samples = index(voc_root, "train")
    items = [recipe.train_item(sample, 21, draw_rng(4, i)) for i, sample in enumerate(samples)]
    expected = recipe.collate(items)
    batch = recipe.train_batch(samples, 21, [draw_rng(4, i) for i in range(7)])
    assert batch.keys() == expected.keys()
    assert batch["id"] == expected["id"]
    assert all(torch.equal(batch[key], expected[key]) for key in batch if key != "id")


def test_segment_keeps_image_and_mask_together(voc_root):
    samples = index(voc_root, "trainaug")
    recipe = Segment(crop=40, scale=None, flip=0.5)
    mirrored = 0
    for draw in range(30):
        sample = samples[draw % 7]
        item = recipe.train_item(sample, 21, draw_rng(1, draw))
        y0, x0, y1, x1 = item["box"].tolist()
        assert item["mask"].dtype == torch.int64
        whole, ids = reference(Image.open(sample.image)), torch.from_numpy(np.array(Image.open(sample.mask))).long()
        cut, mask = item["image"][:, y0:y1, x0:x1], item["mask"][y0:y1, x0:x1]
        found = False
        for turn in (False, True):
            picture, labels = (whole.flip(2), ids.flip(1)) if turn else (whole, ids)
            places = picture.unfold(1, cut.shape[1], 1).unfold(2, cut.shape[2], 1).permute(1, 2, 0, 3, 4)
            for y, x in (places == cut).flatten(2).all(2).nonzero().tolist():
                assert torch.equal(labels[y : y + mask.shape[0], x : x + mask.shape[1]], mask)
                found, mirrored = True, mirrored + turn
        assert found
        outside = torch.ones(40, 40, dtype=torch.bool)
        outside[y0:y1, x0:x1] = False
        assert (item["mask"][outside] == 255).all()
    assert 5 < mirrored < 25


def test_segment_scales_image_and_mask_alike(voc_root):
    (sample, *_) = index(voc_root, "train")
    for draw in range(10):
        item = Segment(crop=64, colour=0.2).train_item(sample, 21, draw_rng(0, draw))
        y0, x0, y1, x1 = item["box"].tolist()
        inside = item["mask"][y0:y1, x0:x1]
        assert (inside < 21).any()
        assert set(inside.unique().tolist()) <= {*range(21), 255}
        assert item["image"].shape == (3, 64, 64)


@pytest.mark.parametrize("recipe", [Tags(), Segment()])
def test_evaluation_is_the_whole_image_with_mask(voc_root, recipe):
    for sample in index(voc_root, "val"):
        batch = recipe.collate([recipe.evaluation_item(sample, 21)])
        expected = reference(Image.open(sample.image))
        assert torch.equal(batch["image"], expected[None])
        assert batch["box"].tolist() == [[0, 0, *expected.shape[1:]]]
        assert np.array_equal(batch["mask"][0], np.array(Image.open(sample.mask)))


def test_evaluation_without_mask(voc_root):
    sample = replace(index(voc_root, "val")[0], mask=None)
    assert "mask" not in Tags().evaluation_item(sample, 21)
    assert (Segment().evaluation_item(sample, 21)["mask"] == 255).all()


def test_multiscale_sizes_mirror_and_resampling(voc_root):
    recipe = MultiScale()
    for sample in index(voc_root, "val"):
        batch = recipe.collate([recipe.evaluation_item(sample, 21)])
        image = Image.open(sample.image).convert("RGB")
        assert batch["size"] == (image.height, image.width)
        assert batch["tags"].shape == (1, 20)
        for scale, pair in zip((1.0, 0.5, 1.5, 2.0), batch["images"], strict=True):
            size = round(scale * image.width), round(scale * image.height)
            expected = reference(image.resize(size, Image.Resampling.BICUBIC) if scale != 1 else image)
            assert torch.equal(pair[0], expected)
            assert torch.equal(pair[1], expected.flip(2))


def test_multiscale_without_tags_and_its_limits(voc_root):
    sample = replace(index(voc_root, "val")[0], tags=None)
    recipe = MultiScale((0.5,))
    item = recipe.evaluation_item(sample, 21)
    assert "tags" not in recipe.collate([item])
    with pytest.raises(ConfigError, match="one image per batch"):
        recipe.collate([item, item])
    with pytest.raises(ConfigError, match="prediction"):
        recipe.train_item(sample, 21, draw_rng(0, 0))
    with pytest.raises(DatasetError, match=sample.id):
        tags_vector(sample, 20)


def test_whole_images_of_two_sizes_cannot_share_a_batch(voc_root):
    recipe = Tags(crop=None)
    items = [recipe.train_item(sample, 21, draw_rng(0, 0)) for sample in index(voc_root, "train")[:2]]
    with pytest.raises(ConfigError, match="2 sizes"):
        recipe.collate(items)
    assert recipe.collate(items[:1])["image"].shape == (1, 3, 40, 60)


def test_mask_of_another_size_is_refused(voc_root):
    (sample, *_) = index(voc_root, "val")
    write_mask(sample.mask, np.zeros((60, 40), np.uint8), voc_palette())
    with pytest.raises(MaskError, match="SegmentationClass"):
        Tags().evaluation_item(sample, 21)
    with pytest.raises(MaskError, match=r"JPEGImages/.*\.jpg"):
        Segment().train_item(sample, 21, draw_rng(0, 0))


@pytest.mark.parametrize("recipe", [Tags(long_side=(40, 50), flip=0.5), Segment(colour=0.1), MultiScale()])
def test_recipes_travel_to_spawned_workers(voc_root, recipe):
    (sample, *_) = index(voc_root, "val")
    there = pickle.loads(pickle.dumps(recipe))
    first, second = (r.evaluation_item(sample, 21) for r in (recipe, there))
    assert first["id"] == second["id"]


def test_defaults_are_sfc_published_recipe():
    defaults = {name: p.default for name, p in inspect.signature(Tags).parameters.items()}
    assert (defaults["crop"], defaults["long_side"], defaults["flip"]) == (512, None, 0.0)
    assert inspect.signature(MultiScale).parameters["scales"].default == (1.0, 0.5, 1.5, 2.0)


@pytest.mark.real
def test_real_items(real_voc):
    samples = index(real_voc, "trainaug")
    for number, sample in enumerate(samples[:40]):
        item = Segment(scale=None, flip=0).train_item(sample, 21, draw_rng(0, number))
        y0, x0, y1, x1 = item["box"].tolist()
        assert torch.equal(item["image"][:, y0:y1, x0:x1], reference(Image.open(sample.image)))
        assert np.array_equal(item["mask"][y0:y1, x0:x1], np.array(Image.open(sample.mask)))
