"""Decoders against slow compositions of the same layers, shapes on every kind of backbone."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from frugalseg.nn.units import normalisation, unit
from frugalseg.stages.finetune.heads import SemanticFPN
from frugalseg.stages.finetune.net import FineTuneNet
from frugalseg.stages.finetune.upernet import UperNet
from tests.stages.finetune.nets import TINY_MEVT, TINY_RESNET, TINY_SWIN, TINY_VIT

WIDTHS = (3, 5, 6, 7)


def maps(finest=16, images=2):
    return [torch.randn(images, c, finest >> i, (finest + 8) >> i) for i, c in enumerate(WIDTHS)]


def enlarge(x, like, mode="bilinear"):
    return F.interpolate(x, size=like.shape[-2:], mode=mode)


def test_upernet_is_what_the_paper_draws():
    head, given = UperNet(WIDTHS, 4, "group", channels=8).eval(), maps()
    top = given[3]
    grids = [enlarge(head.pooling.pooled[i](F.adaptive_avg_pool2d(top, b)), top) for i, b in enumerate((1, 2, 3, 6))]
    p5 = head.pooling.join(torch.cat([top, *grids], 1))
    p4 = head.lateral[2](given[2]) + enlarge(p5, given[2])
    p3 = head.lateral[1](given[1]) + enlarge(p4, given[1])
    p2 = head.lateral[0](given[0]) + enlarge(p3, given[0])
    parts = [head.smooth[i](p) for i, p in enumerate((p2, p3, p4))] + [p5]
    joined = head.join(torch.cat([enlarge(p, p2) for p in parts], 1))
    torch.testing.assert_close(head(given), head.classify(joined))


def test_semantic_fpn_is_what_the_paper_draws():
    head, given = SemanticFPN(WIDTHS, 4, "group", width=8, channels=12).eval(), maps()
    assert [len(branch) for branch in head.branches] == [1, 1, 2, 3]
    p5 = head.lateral[3](given[3])
    p4 = head.lateral[2](given[2]) + enlarge(p5, given[2], "nearest")
    p3 = head.lateral[1](given[1]) + enlarge(p4, given[1], "nearest")
    p2 = head.lateral[0](given[0]) + enlarge(p3, given[0], "nearest")
    total = head.branches[0][0](head.smooth[0](p2))
    for level, p in ((1, p3), (2, p4), (3, p5)):
        x = head.smooth[level](p)
        for step in range(level):
            x = F.interpolate(head.branches[level][step](x), scale_factor=2, mode="bilinear")
        total = total + x
    torch.testing.assert_close(head(given), head.classify(total))


@pytest.mark.parametrize("kind", [UperNet, SemanticFPN])
def test_maps_need_not_be_twice_as_large_from_level_to_level(kind):
    """A ResNet of stride 16 has two maps of one size; sides may be odd."""
    given = [torch.randn(1, c, *size) for c, size in zip(WIDTHS, [(15, 9), (8, 5), (4, 3), (4, 3)], strict=True)]
    assert kind(WIDTHS, 4, "group", channels=8)(given).shape == (1, 4, 15, 9)


@pytest.mark.parametrize("backbone", [TINY_MEVT, TINY_VIT, TINY_SWIN, TINY_RESNET], ids=lambda b: b.name.split("_")[0])
@pytest.mark.parametrize("head", ["upernet", "semantic-fpn"])
def test_logits_are_at_a_quarter_of_the_image(backbone, head):
    net = FineTuneNet(4, backbone, head, {"channels": 8}, "group")
    image = torch.randn(1, 3, 2 * net.backbone.multiple, 3 * net.backbone.multiple)
    assert net(image).shape == (1, 4, image.shape[-2] // 4, image.shape[-1] // 4)


def test_new_convolutions_are_normalised_as_asked():
    for norm, kind in (("batch", nn.BatchNorm2d), ("group", nn.GroupNorm)):
        net = FineTuneNet(4, TINY_VIT, "upernet", {"channels": 8}, norm, auxiliary=True)
        other = nn.GroupNorm if norm == "batch" else nn.BatchNorm2d
        new = [net.head, net.auxiliary, net.backbone.net.adapt]
        assert all(any(isinstance(m, kind) for m in part.modules()) for part in new)
        assert not any(isinstance(m, other) for m in net.modules())


def test_groups_are_of_four_channels_at_least():
    assert [normalisation("group", c).num_groups for c in (512, 256, 128, 96, 64, 8, 6, 3)] == [
        32,
        32,
        32,
        16,
        16,
        2,
        1,
        1,
    ]
    assert torch.isfinite(unit(8, 8, 1, "group")(torch.randn(1, 8, 1, 1))).all()
