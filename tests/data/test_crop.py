import numpy as np
import pytest
import torch
from torchvision.transforms.v2 import functional as F

from frugalseg.data.crop import place_mask, random_placement, whole
from frugalseg.data.normalise import IMAGENET_MEAN, IMAGENET_STD, Normaliser


def reference(image: np.ndarray) -> torch.Tensor:
    tensor = torch.from_numpy(image).permute(2, 0, 1).float() / 255
    return F.normalize(tensor, list(IMAGENET_MEAN), list(IMAGENET_STD))


@pytest.mark.parametrize("size", [(20, 30), (50, 50), (90, 20), (20, 90), (70, 80), (50, 1)])
def test_crop_holds_exactly_the_cut_pixels(size):
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (*size, 3)).astype(np.uint8)
    normaliser = Normaliser(IMAGENET_MEAN, IMAGENET_STD)
    for _ in range(20):
        placement = random_placement(size, 50, rng)
        y0, x0, y1, x1 = placement.box
        assert (y1 - y0, x1 - x0) == (min(size[0], 50), min(size[1], 50))
        canvas = normaliser.onto_canvas(image, placement)
        assert canvas.shape == (3, 50, 50)
        expected = reference(image[placement.source].copy()).numpy()
        assert np.array_equal(canvas[:, y0:y1, x0:x1], expected)
        outside = np.ones((50, 50), bool)
        outside[y0:y1, x0:x1] = False
        assert not canvas[:, outside].any()
        mask = place_mask(image[..., 0], placement, 255)
        assert mask.dtype == np.int64
        assert np.array_equal(mask[y0:y1, x0:x1], image[..., 0][placement.source])
        assert (mask[outside] == 255).all()


def test_every_offset_occurs_and_axes_are_independent():
    rng = np.random.default_rng(1)
    seen = {(p.target[0].start, p.source[1].start) for p in (random_placement((3, 7), 5, rng) for _ in range(400))}
    assert seen == {(y, x) for y in range(3) for x in range(3)}


def test_whole_image():
    placement = whole((4, 9))
    assert placement.box == (0, 0, 4, 9)
    assert placement.size == (4, 9)


def test_pair_is_image_and_mirror():
    image = np.random.default_rng(2).integers(0, 256, (11, 13, 3)).astype(np.uint8)
    pair = Normaliser(IMAGENET_MEAN, IMAGENET_STD).pair(image)
    assert np.array_equal(pair[0], reference(image).numpy())
    assert np.array_equal(pair[1], reference(image[:, ::-1].copy()).numpy())


def test_views_with_negative_strides_and_own_statistics():
    image = np.random.default_rng(3).integers(0, 256, (8, 6, 3)).astype(np.uint8)
    found = Normaliser((0.5, 0.5, 0.5), (0.25, 0.25, 0.25)).onto_canvas(image[:, ::-1], whole((8, 6)))
    assert np.allclose(found, (image[:, ::-1].transpose(2, 0, 1) / 255 - 0.5) / 0.25, atol=1e-6)


@pytest.mark.parametrize("size", [(50, 90), (10, 90), (20, 20)])
def test_a_pixel_that_must_be_kept_is_kept(size):
    rng = np.random.default_rng(0)
    seen = set()
    for _ in range(300):
        keep = int(rng.integers(size[0])), int(rng.integers(size[1]))
        placement = random_placement(size, 20, rng, keep)
        assert all(part.start <= point < part.stop for part, point in zip(placement.source, keep, strict=True))
        assert placement.source[1].stop - placement.source[1].start == min(20, size[1])
        seen.add(keep[1] - placement.source[1].start)
    assert len(seen) > 15  # and not always in the middle
