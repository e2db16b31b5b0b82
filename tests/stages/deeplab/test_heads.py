"""Heads against plain convolutions, and shapes on the sizes that papers use."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from frugalseg.stages.deeplab.backbones import Features
from frugalseg.stages.deeplab.heads import ASPPSum, LargeFOV, V3Plus, build_head
from frugalseg.stages.deeplab.model import DeepLabNet


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def features(low=(6, 21, 30), high=(5, 11, 15), count=2):
    return Features(torch.randn(count, *low), torch.randn(count, *high))


def naive_dilated(x, weight, bias, rate):
    """A 3x3 convolution as nine shifted products."""
    _, _, height, width = x.shape
    padded = F.pad(x, (rate,) * 4)
    total = bias[None, :, None, None].expand(len(x), -1, height, width).clone()
    for i in range(3):
        for j in range(3):
            window = padded[:, :, i * rate : i * rate + height, j * rate : j * rate + width]
            total += torch.einsum("ndhw,kd->nkhw", window, weight[:, :, i, j])
    return total


def test_v2_is_the_sum_of_its_dilated_convolutions():
    head = ASPPSum((6, 5), (4, 8), 3, rates=(1, 2, 6)).double()
    for branch in head.branches:
        nn.init.normal_(branch.bias)
    given = Features(*(x.double() for x in features()))
    expected = sum(
        naive_dilated(given.high, b.weight.detach(), b.bias.detach(), r)
        for b, r in zip(head.branches, (1, 2, 6), strict=True)
    )
    torch.testing.assert_close(head(given).detach(), expected, rtol=0, atol=1e-12)


def test_v2_begins_undecided():
    head = ASPPSum((6, 2048), (4, 8), 21)
    assert [b.dilation for b in head.branches] == [(6, 6), (12, 12), (18, 18), (24, 24)]
    assert all(float(b.bias.detach().abs().max()) == 0 for b in head.branches)
    deviations = torch.stack([b.weight.detach().std() for b in head.branches])
    torch.testing.assert_close(deviations, torch.full((4,), 0.01), rtol=0.02, atol=0)


def test_largefov_of_cti_is_two_dilated_convolutions():
    head = LargeFOV((6, 5), (8, 8), 3, hidden=(7,), dilation=2).double()
    given = Features(*(x.double() for x in features()))
    first, second = (m for m in head.modules() if isinstance(m, nn.Conv2d))
    for convolution in (first, second):
        nn.init.normal_(convolution.bias)
    middle = naive_dilated(given.high, first.weight.detach(), first.bias.detach(), 2).clamp(min=0)
    expected = naive_dilated(middle, second.weight.detach(), second.bias.detach(), 2)
    torch.testing.assert_close(head(given).detach(), expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    ("options", "kinds"),
    [
        ({}, [("conv", 3, 12, 512), "relu", ("conv", 3, 12, 21)]),
        ({"hidden": []}, [("conv", 3, 12, 21)]),
        (
            {"hidden": [512, 512], "dilated": 1, "norm": True, "dropout": 0.5},
            [("conv", 3, 12, 512), "norm", "relu", ("conv", 1, 1, 512), "norm", "relu", "dropout", ("conv", 1, 1, 21)],
        ),
    ],
)
def test_published_forms_of_largefov(options, kinds):
    names = {nn.ReLU: "relu", nn.BatchNorm2d: "norm", nn.Dropout: "dropout"}
    head = build_head("largefov", (512, 64), (8, 8), 21, options)
    found = [
        ("conv", m.kernel_size[0], m.dilation[0], m.out_channels) if isinstance(m, nn.Conv2d) else names[type(m)]
        for m in head.modules()
        if isinstance(m, nn.Conv2d) or type(m) in names
    ]
    assert found == kinds
    assert head.eval()(Features(torch.zeros(1, 1, 1, 1), torch.randn(1, 64, 9, 5))).shape == (1, 21, 9, 5)


def test_v3plus_equals_its_parts():
    head = V3Plus((6, 5), (4, 8), 3, rates=(2, 3), width=8, low_width=4).eval()
    for norm in (m for m in head.modules() if isinstance(m, nn.BatchNorm2d)):
        nn.init.normal_(norm.running_mean)
        nn.init.uniform_(norm.running_var, 0.5, 2)
    given = features()

    def unit(block, x):
        c, n = block[0], block[1]
        x = F.conv2d(x, c.weight, None, padding=c.padding, dilation=c.dilation)
        return ((x - n.running_mean[:, None, None]) / (n.running_var[:, None, None] + n.eps).sqrt()).relu()

    high = given.high
    parts = [unit(branch, high) for branch in head.branches]
    pooled = unit(head.pool, F.adaptive_avg_pool2d(high, 1))
    context = unit(head.project[0], torch.cat([*parts, pooled.repeat(1, 1, *high.shape[-2:])], dim=1))
    context = F.interpolate(context, size=given.low.shape[-2:], mode="bilinear", align_corners=False)
    x = torch.cat([context, unit(head.reduce, given.low)], dim=1)
    expected = head.classify(unit(head.decode[1], unit(head.decode[0], x)))
    torch.testing.assert_close(head(given), expected, rtol=1e-5, atol=1e-5)


def test_v3plus_is_built_as_published():
    for stride, rates in ((16, (6, 12, 18)), (8, (12, 24, 36))):
        head = V3Plus((256, 2048), (4, stride), 21)
        assert [b[0].dilation[0] for b in head.branches] == [1, *rates]
        assert head.branches[0][0].kernel_size == (1, 1)
    assert head.reduce[0].out_channels == 48
    assert head.decode[0][0].in_channels == 256 + 48


@pytest.mark.parametrize("size", [(321, 321), (375, 500), (65, 33)])
@pytest.mark.parametrize(
    ("head", "output_stride", "stride"), [("v3plus", 16, 4), ("v3plus", 8, 4), ("v2", 8, 8), ("largefov", 16, 16)]
)
def test_odd_sizes(size, head, output_stride, stride):
    small = {"width": 8, "low_width": 4} if head == "v3plus" else {"rates": [6]} if head == "v2" else {"hidden": [4]}
    net = DeepLabNet(
        4, "resnet18", head, output_stride, head_options=small,
        backbone_options={"layers": [1, 1, 1, 1], "channels": [8, 8, 16, 16]},
    ).eval()  # fmt: skip
    with torch.no_grad():
        logits = net(torch.randn(1, 3, *size))
    assert logits.shape == (1, 4, *(-(-side // stride) for side in size))
    assert (net.stride, net.align) == (stride, output_stride)


@pytest.mark.parametrize(
    ("name", "options", "words"),
    [("v4", None, "largefov, v2, v3plus"), ("v2", {"rate": 3}, "rate"), ("v2", {"rates": []}, "rates")],
)
def test_unknown_heads_and_options_are_refused(name, options, words):
    with pytest.raises(ValueError, match=words):
        build_head(name, (2, 2), (4, 8), 3, options)
