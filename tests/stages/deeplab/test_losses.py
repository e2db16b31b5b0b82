"""The loss against loops and against a hand-written sum over scales."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from frugalseg.stages.deeplab.losses import pixel_loss, reduce_labels, scales_logits, scales_loss


@pytest.fixture
def generator():
    return torch.Generator().manual_seed(0)


@pytest.mark.parametrize(
    "size", [((321, 321), (41, 41)), ((321, 240), (21, 31)), ((375, 500), (47, 63)), ((64, 64), (16, 16))]
)
def test_reduced_labels_are_those_of_pillow(size, generator):
    """deeplab-pytorch reduces labels with Pillow's nearest."""
    (height, width), grid = size
    mask = torch.randint(0, 256, (2, height, width), generator=generator)
    expected = [
        np.asarray(Image.fromarray(m.numpy().astype(np.uint8)).resize((grid[1], grid[0]), Image.Resampling.NEAREST))
        for m in mask
    ]
    assert np.array_equal(reduce_labels(mask, grid).numpy(), np.stack(expected))


def naive(logits, mask):
    losses = []
    for n, y, x in np.ndindex(*mask.shape):
        if mask[n, y, x] != 255:
            row = logits[n, :, y, x] - logits[n, :, y, x].max()
            losses.append(np.log(np.exp(row).sum()) - row[mask[n, y, x]])
    return np.mean(losses)


def test_pixel_loss(generator):
    logits = 3 * torch.randn(2, 4, 5, 6, generator=generator)
    mask = torch.randint(0, 4, (2, 5, 6), generator=generator)
    mask[0, :2] = 255
    expected = naive(logits.double().numpy(), mask.numpy())
    assert float(pixel_loss(logits, mask)) == pytest.approx(expected, rel=1e-5)
    large = mask.repeat_interleave(8, 1).repeat_interleave(8, 2)
    assert float(pixel_loss(logits, large)) == pytest.approx(expected, rel=1e-5)
    resized = F.interpolate(logits, size=(40, 48), mode="bilinear", align_corners=False)
    assert float(pixel_loss(logits, large, at_mask_size=True)) == pytest.approx(
        naive(resized.double().numpy(), large.numpy()), rel=1e-5
    )


def test_a_batch_without_labels_trains_nothing():
    logits = torch.randn(1, 3, 2, 2, requires_grad=True)
    loss = pixel_loss(logits, torch.full((1, 16, 16), 255))
    loss.backward()
    assert float(loss.detach()) == 0
    assert float(logits.grad.abs().max()) == 0


def test_the_loss_is_in_float32_under_autocast(generator):
    logits = 30 * torch.randn(1, 3, 4, 4, generator=generator)
    mask = torch.randint(0, 3, (1, 4, 4), generator=generator)
    with torch.autocast("cpu", torch.bfloat16):
        loss = pixel_loss(logits.bfloat16(), mask)
    assert loss.dtype == torch.float32
    assert torch.equal(loss, pixel_loss(logits.bfloat16().float(), mask))


class Grid(torch.nn.Module):
    """A linear net of stride 8 that remembers the sizes it saw."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(1)
        self.layer = torch.nn.Conv2d(3, 4, 9, 8, padding=4)
        self.sizes = []

    def forward(self, image):
        self.sizes.append(tuple(image.shape[-2:]))
        return self.layer(image)


@pytest.mark.parametrize("at_mask_size", [False, True])
def test_scales_and_maximum_are_summed(at_mask_size, generator):
    """As deeplab-pytorch trains: logits at 1, 0.5, 0.75 and their maximum on the first grid, four losses added up."""
    net, image = Grid(), torch.randn(2, 3, 65, 97, generator=generator)
    mask = torch.randint(0, 4, (2, 65, 97), generator=generator)
    mask[:, :9] = 255
    logits = scales_logits(net, image, (1.0, 0.5, 0.75))
    assert net.sizes == [(65, 97), (32, 48), (48, 72)]  # int(0.5 * 65), int(0.75 * 65)

    def small(height, width):
        return net.layer(F.interpolate(image, size=(height, width), mode="bilinear", align_corners=False))

    def up(x):
        return F.interpolate(x, size=(9, 13), mode="bilinear", align_corners=False)

    one, half, most = net.layer(image), small(32, 48), small(48, 72)
    largest = torch.max(torch.max(one, up(half)), up(most))
    expected = 0.0
    for each in (one, half, most, largest):
        h, w = each.shape[-2:]
        if at_mask_size:
            full = F.interpolate(each, size=(65, 97), mode="bilinear", align_corners=False)
            expected = expected + F.cross_entropy(full, mask, ignore_index=255)
        else:
            rows = ((torch.arange(h) + 0.5) * 65 / h).long()
            columns = ((torch.arange(w) + 0.5) * 97 / w).long()
            expected = expected + F.cross_entropy(each, mask[:, rows][:, :, columns], ignore_index=255)
    loss = scales_loss(logits, mask, at_mask_size)
    assert len(logits) == 4
    torch.testing.assert_close(loss, expected, rtol=1e-5, atol=1e-6)
    loss.backward()
    ours = net.layer.weight.grad.clone()
    net.zero_grad()
    expected.backward()
    torch.testing.assert_close(ours, net.layer.weight.grad, rtol=1e-4, atol=1e-5)


def test_one_scale_is_the_plain_loss(generator):
    net, image = Grid(), torch.randn(1, 3, 64, 64, generator=generator)
    mask = torch.randint(0, 4, (1, 64, 64), generator=generator)
    logits = scales_logits(net, image, (1.0,))
    assert len(logits) == 1
    assert torch.equal(scales_loss(logits, mask), pixel_loss(net(image), mask))
