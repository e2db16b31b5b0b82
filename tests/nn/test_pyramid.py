"""Backbones that learn: four maps of any net, unread parameters asleep, batch normalisation frozen on demand."""

import pytest
import torch
from torch import nn

from frugalseg.errors import ConfigError
from frugalseg.nn.features import Backbone
from frugalseg.nn.pyramid import TimmPyramid, TrainableBackbone, rescale
from tests.stages.finetune.nets import TINY_MEVT, TINY_RESNET, TINY_SWIN, TINY_VIT


def test_a_plain_transformers_quarters_come_at_four_strides():
    """Blocks 3, 6, 9 and 12 of 12 without the final norm: the third as it is, others by deconvolution or maximum."""
    options = {**TINY_VIT.options, "depth": 12}
    net = TimmPyramid(TINY_VIT.name, options).eval()
    assert (net.stages, net.multiple, net.pyramid_widths) == ([2, 5, 8, 11], 32, (16,) * 4)
    image = torch.randn(1, 3, 64, 96)
    found = net.pyramid(image)
    assert [tuple(each.shape[-2:]) for each in found] == [(16, 24), (8, 12), (4, 6), (2, 3)]
    taken = {}
    for index, block in enumerate(net.net.blocks):
        block.register_forward_hook(lambda *a, index=index: taken.__setitem__(index, a[2]))
    net.pyramid(image)
    grids = [taken[i][:, 1:].transpose(1, 2).unflatten(2, (4, 6)) for i in (2, 5, 8, 11)]
    torch.testing.assert_close(found[2], grids[2])
    torch.testing.assert_close(found[3], nn.functional.max_pool2d(grids[3], 2))
    torch.testing.assert_close(found[1], net.adapt[1](grids[1]))
    kinds = [[type(layer).__name__ for layer in adapt.children()] for adapt in net.adapt[:2]]
    assert kinds == [["ConvTranspose2d", "BatchNorm2d", "GELU", "ConvTranspose2d"], ["ConvTranspose2d"]]


@pytest.mark.parametrize(("patch", "multiple", "sizes"), [(8, 32, [16, 8, 4, 2]), (32, 32, [16, 8, 4, 2])])
def test_other_patches_come_at_the_same_strides(patch, multiple, sizes):
    net = TimmPyramid(TINY_VIT.name, {**TINY_VIT.options, "patch_size": patch})
    assert net.multiple == multiple
    assert [each.shape[-1] for each in net.pyramid(torch.randn(1, 3, 64, 64))] == sizes


def test_a_hierarchical_nets_stages_are_taken_as_they_leave():
    net, image = TimmPyramid(TINY_RESNET.name, TINY_RESNET.options).eval(), torch.randn(1, 3, 64, 64)
    x, wanted = net.net.maxpool(net.net.act1(net.net.bn1(net.net.conv1(image)))), []
    for layer in (net.net.layer1, net.net.layer2, net.net.layer3, net.net.layer4):
        x = layer(x)
        wanted.append(x)
    for found, each in zip(net.pyramid(image), wanted, strict=True):
        torch.testing.assert_close(found, each)
    swin = TimmPyramid(TINY_SWIN.name, TINY_SWIN.options)
    maps = swin.pyramid(torch.randn(1, 3, 64, 96))
    assert [tuple(m.shape[1:]) for m in maps] == [(16, 16, 24), (32, 8, 12), (64, 4, 6), (128, 2, 3)]
    assert all(m.mean(dim=1).abs().max() < 1e-5 for m in maps)  # normed


def test_what_is_not_read_does_not_learn():
    def asleep(*settings):
        return {name for name, p in TrainableBackbone(*settings).named_parameters() if not p.requires_grad}

    assert asleep(TINY_MEVT) == set()
    decoder = asleep(TINY_MEVT, True)
    assert decoder and all(name.startswith("net.decoder.") for name in decoder)
    assert asleep(TINY_VIT, True) == {"net.net.norm.weight", "net.net.norm.bias"}
    assert asleep(TINY_VIT) == asleep(TINY_RESNET, True) == set()


def test_batch_normalisation_is_frozen_on_demand():
    image = torch.randn(4, 3, 64, 64)
    for frozen in (True, False):
        net = TrainableBackbone(TINY_RESNET, True, frozen_norm=frozen).train()
        norm = net.net.net.bn1
        before = norm.running_mean.clone()
        net(image)
        assert torch.equal(norm.running_mean, before) == frozen == (not norm.weight.requires_grad)
        assert norm.training != frozen


def test_building_leaves_no_trace():
    """The small image that finds out what is read changes neither statistics nor gradients."""
    net = TrainableBackbone(TINY_RESNET, True)
    assert net.training and all(p.grad is None for p in net.parameters())
    assert not net.net.net.bn1.running_mean.any() and not net.net.net.bn1.num_batches_tracked


def test_activations_can_be_made_again():
    torch.manual_seed(0)
    plain = TrainableBackbone(TINY_VIT, True)
    saving = TrainableBackbone(Backbone(TINY_VIT.name, options={**TINY_VIT.options, "checkpointing": True}), True)
    saving.load_state_dict(plain.state_dict())
    assert saving.net.net.grad_checkpointing and not plain.net.net.grad_checkpointing
    image = torch.randn(2, 3, 32, 32)
    for net in (plain, saving):
        net.eval()
        torch.stack([each.square().sum() for each in net(image)]).sum().backward()
    for (name, p), q in zip(plain.named_parameters(), saving.parameters(), strict=True):
        if p.requires_grad:
            torch.testing.assert_close(p.grad, q.grad, msg=name)


def test_rescaling():
    x = torch.randn(1, 4, 8, 8)
    assert [rescale(4, power, "group")(x).shape[-1] for power in (3, 2, 1, 0, -1, -2)] == [64, 32, 16, 8, 4, 2]


def test_too_shallow_nets_are_refused():
    with pytest.raises(ConfigError, match="has 2 stages, this head needs 4; choose linear or fcn"):
        TimmPyramid(TINY_VIT.name, {**TINY_VIT.options, "depth": 2})
