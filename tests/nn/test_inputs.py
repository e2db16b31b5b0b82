"""Sizes of images and masks against Pillow and loops."""

import numpy as np
import pytest
import torch
from PIL import Image

from frugalseg.nn.inputs import middle, nearest, padded, resized, squared


@pytest.mark.parametrize(("pixels", "cells"), [((37, 50), (20, 31)), ((13, 9), (30, 30)), ((125, 75), (112, 64))])
def test_nearest_by_both_rules(pixels, cells):
    mask = torch.randint(0, 21, pixels)
    corner, centre = nearest(mask, cells), nearest(mask, cells, centred=True)
    for y in range(cells[0]):
        for x in range(cells[1]):
            assert corner[y, x] == mask[y * pixels[0] // cells[0], x * pixels[1] // cells[1]]
    image = Image.fromarray(mask.numpy().astype(np.uint8)).resize(cells[::-1], Image.Resampling.NEAREST)
    assert np.array_equal(centre.numpy(), np.asarray(image))


def test_the_grid_of_protocol_l_is_torchs():
    mask = torch.randint(0, 21, (1, 448, 448))
    wanted = torch.nn.functional.interpolate(mask[None].double(), (100, 100), mode="nearest")[0].long()
    assert torch.equal(nearest(mask, (100, 100)), wanted)


def test_images_are_resized_as_pillow_does():
    image = torch.randint(0, 256, (1, 3, 61, 83))
    found = resized(image.float(), (32, 32))[0]
    for channel in range(3):
        plane = Image.fromarray(image[0, channel].numpy().astype(np.float32))
        wanted = np.asarray(plane.resize((32, 32), Image.Resampling.BILINEAR))
        assert np.abs(found[channel].numpy() - wanted).max() < 1e-2
    assert resized(found[None], (32, 32)).data_ptr() == found.data_ptr()


def test_the_middle_is_cut_out():
    mask = torch.zeros(1, 20, 60, dtype=torch.int64)
    mask[:, :, 20:40] = 7
    image = mask[:, None].expand(-1, 3, -1, -1).float()
    found, ids = middle(image, mask, 20)
    assert (found == 7).all() and (ids == 7).all() and found.shape == (1, 3, 20, 20)
    assert middle(image.transpose(2, 3), mask.transpose(1, 2), 20)[1].eq(7).all()
    assert squared(image, mask, 24)[0].shape == (1, 3, 24, 24)


def test_padding_is_below_and_to_the_right():
    image = torch.ones(1, 3, 5, 8)
    found = padded(image, 4)
    assert found.shape == (1, 3, 8, 8) and found[..., :5, :].eq(1).all() and found[..., 5:, :].eq(0).all()
    assert padded(found, 4) is found
