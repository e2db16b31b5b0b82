"""Sliding windows: equal to the whole image for a pointwise net, and to a count of windows per pixel for any other."""

import pytest
import torch
from torch import nn

from frugalseg.stages.finetune.inference import Testing, averaged, predict, scaled_size


@pytest.mark.parametrize("size", [(64, 96), (50, 70), (20, 100), (32, 32)])
@pytest.mark.parametrize("step", [7, 21, 32])
def test_a_pointwise_net_gives_the_same_through_windows(size, step):
    net = nn.Conv2d(3, 4, 1)
    image = torch.randn(2, 3, *size)
    whole = predict(net, image, 32, Testing())
    torch.testing.assert_close(whole, net(image))
    torch.testing.assert_close(predict(net, image, 32, Testing(window=32, step=step)), whole)


def test_windows_end_at_the_border_and_weigh_the_same():
    """Side 100, windows of 40 every 25 pixels: they begin at 0, 25, 50 and 60."""
    seen = []

    def number(part):
        seen.append(part[0, 0, 0].tolist())
        return torch.full((1, 1, 1, 1), float(len(seen))).expand(1, 1, *part.shape[-2:])

    image = torch.arange(100.0).expand(1, 1, 30, 100)
    found = averaged(number, image, 40, 25)
    assert [row[0] for row in seen] == [0, 25, 50, 60] and {len(row) for row in seen} == {40}
    wanted = [[i + 1 for i, begin in enumerate((0, 25, 50, 60)) if begin <= x < begin + 40] for x in range(100)]
    torch.testing.assert_close(found[0, 0, 7], torch.tensor([sum(w) / len(w) for w in wanted]))


def test_published_windows():
    """mmseg's 512 with stride 341 on its 683 x 512 images: two windows."""
    counted = []
    averaged(lambda part: counted.append(part.shape) or part[:, :1], torch.zeros(1, 3, 512, 683), 512, 341)
    assert len(counted) == 2


def test_the_short_side_is_scaled_and_the_long_one_limited():
    assert scaled_size((300, 400), None) == (300, 400)
    assert scaled_size((300, 400), 600) == (600, 800)
    assert scaled_size((100, 1000), 50) == (20, 200)
