"""Frozen backbones: sizes, dilation by phases of an undilated net, and that nothing in them ever changes."""

import itertools

import pytest
import timm
import torch
import torchvision
from torch import nn
from torch.nn import functional as F

from frugalseg.nn.dilated import DilatedResNet, DilatedVGG, Stages
from frugalseg.nn.weights import load_backbone_weights

THIN = {"layers": [1, 2, 2, 2], "channels": [4, 6, 8, 10]}
MINIATURE = {
    "name": "resnet18",
    "strides": (2, 2, 2),
    "dilations": (2, 2),
    "options": {"layers": [1, 1, 2, 1], "channels": [32, 64, 128, 192], "stem_type": "deep", "stem_width": 12},
}
"""miniature.md B.2."""
RESNET50, TRAINABLE, ALL = (256, 512, 1024, 2048), 6_082_824, 29_590_856
"""dsmf.md sections 3 and 4.9."""


def thin(name="resnet50", **settings):
    torch.manual_seed(0)
    return _unsettle(DilatedResNet(name, options=THIN, **settings))


def _unsettle(net):
    """Random running statistics; those of a new net are 0 and 1, and timm starts the last scale of a block at 0."""
    generator = torch.Generator().manual_seed(1)
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.1, generator=generator)
            module.running_var.uniform_(0.8, 1.2, generator=generator)
            nn.init.uniform_(module.weight, 0.5, 1.5, generator=generator)
    return net


@pytest.fixture(scope="module")
def resnet50():
    return DilatedResNet()


@pytest.fixture(scope="module")
def vgg():
    torch.manual_seed(0)
    return _unsettle(DilatedVGG())


def _sides(stages):
    return [tuple(stage.shape[-2:]) for stage in stages]


# ---------------------------------------------------------------- shapes


def test_depths_and_size_of_the_paper(resnet50):
    stages = resnet50(torch.zeros(1, 3, 256, 256))
    assert isinstance(stages, Stages)
    assert tuple(stage.shape[1] for stage in stages) == resnet50.channels == RESNET50
    assert _sides(stages) == [(64, 64), (32, 32), (32, 32), (32, 32)]
    assert sum(p.numel() for p in resnet50.parameters()) == ALL - TRAINABLE


@pytest.mark.parametrize(
    ("size", "fine", "coarse"),
    [
        ((256, 256), (64, 64), (32, 32)),
        ((257, 257), (65, 65), (33, 33)),
        ((473, 473), (119, 119), (60, 60)),
        ((97, 256), (25, 64), (13, 32)),
    ],
)
def test_sizes(size, fine, coarse):
    """dsmf.md section 3, and an image that is not square."""
    net = thin()
    stages = net(torch.zeros(1, 3, *size))
    assert _sides(stages) == [fine, coarse, coarse, coarse]
    assert tuple(stage.shape[1] for stage in stages) == net.channels


def test_miniature():
    net = DilatedResNet(**MINIATURE)
    stages = net(torch.zeros(2, 3, 96, 96))
    assert _sides(stages) == [(24, 24), (12, 12), (12, 12), (12, 12)]
    assert net.channels == (32, 64, 128, 192)
    assert net.layer1[0].conv1.in_channels == 24
    assert round(sum(p.numel() for p in net.parameters()) / 1e6, 2) == 1.18


@pytest.mark.parametrize(("size", "fine", "coarse"), [((256, 256), (64, 64), (16, 16)), ((97, 130), (24, 32), (6, 8))])
def test_sizes_of_vgg(vgg, size, fine, coarse):
    stages = vgg(torch.zeros(1, 3, *size))
    assert _sides(stages) == [fine, coarse, coarse, coarse]
    assert tuple(stage.shape[1] for stage in stages) == vgg.channels == (128, 256, 512, 512)


# ---------------------------------------------------------------- dilation


def _strides_and_dilations(layer):
    return [(m.kernel_size[0], m.stride[0], m.dilation[0], m.padding[0]) for m in _convolutions(layer)]


def _convolutions(module):
    return [m for m in module.modules() if isinstance(m, nn.Conv2d)]


def test_every_3x3_of_the_last_layers_is_dilated(resnet50):
    for layer, dilation, blocks in ((resnet50.layer3, 2, 6), (resnet50.layer4, 4, 3)):
        found = _strides_and_dilations(layer)
        assert found.count((3, 1, dilation, dilation)) == blocks
        # two of each block and the projection
        assert found.count((1, 1, 1, 0)) == 2 * blocks + 1 == len(found) - blocks
    before = [*_convolutions(resnet50.conv1), *_convolutions(resnet50.layer1), *_convolutions(resnet50.layer2)]
    assert len(before) == 1 + 10 + 13
    assert {m.dilation for m in before} == {(1, 1)}


def _undilated(name):
    """timm's own net with the last two layers at stride 1."""
    reference = timm.create_model(name, num_classes=0, **THIN)
    for convolution in (*_convolutions(reference.layer3), *_convolutions(reference.layer4)):
        assert convolution.dilation == (1, 1)
        convolution.stride = (1, 1)
    return reference.eval()


@pytest.mark.parametrize("name", ["resnet50", "resnet18"])
def test_a_dilated_layer_is_an_undilated_one_on_every_phase(name):
    """Dilation d couples only places that are d apart: each of the d x d phases is an image of its own."""
    net = thin(name)
    reference = _undilated(name)
    reference.load_state_dict(net.state_dict())
    stages = net(torch.randn(2, 3, 102, 75, generator=torch.Generator().manual_seed(2)))
    for before, after, layer, dilation in (
        (stages.c2, stages.c3, reference.layer3, 2),
        (stages.c3, stages.c4, reference.layer4, 4),
    ):
        assert after.std() > 0.1
        for row, column in itertools.product(range(dilation), repeat=2):
            phase = (..., slice(row, None, dilation), slice(column, None, dilation))
            with torch.no_grad():
                expected = layer(before[phase])
            torch.testing.assert_close(after[phase], expected, rtol=1e-5, atol=1e-5)


def test_timms_own_dilation_is_another_net():
    """Its first block keeps the dilation of the layer before, which is why `output_stride` is not used."""
    net = thin()
    timms = timm.create_model("resnet50", num_classes=0, output_stride=8, **THIN)
    timms.load_state_dict(net.state_dict())
    theirs = dict(timms.named_modules())
    convolutions = {name: m for name, m in net.named_modules() if isinstance(m, nn.Conv2d)}
    differ = [name for name, ours in convolutions.items() if ours.dilation != theirs[name].dilation]
    assert differ == ["layer3.0.conv2", "layer4.0.conv2"]


def test_early_stages_equal_torchvisions(resnet50):
    reference = torchvision.models.resnet50(weights=None).eval()
    theirs = {name: t for name, t in reference.state_dict().items() if not name.startswith("fc.")}
    assert {n: t.shape for n, t in resnet50.state_dict().items()} == {n: t.shape for n, t in theirs.items()}
    ours = DilatedResNet()
    ours.load_state_dict(theirs)
    image = torch.randn(1, 3, 65, 70, generator=torch.Generator().manual_seed(3))
    with torch.no_grad():
        stages = ours(image)
        c1 = reference.layer1(reference.maxpool(reference.relu(reference.bn1(reference.conv1(image)))))
        torch.testing.assert_close(stages.c1, c1, rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(stages.c2, reference.layer2(c1), rtol=1e-5, atol=1e-5)


# ---------------------------------------------------------------- VGG


def test_blocks_of_vgg_are_the_papers_ranges(vgg):
    """dsmf.md section 3: indices 0-6, 7-13, 14-23, 24-33, 34-42 of the feature list."""
    assert [*vgg.starts, len(vgg.features)] == [7, 14, 24, 34, 43]
    assert isinstance(vgg.features[-1], nn.ReLU)


def test_vgg_equals_torchvisions(vgg):
    reference = torchvision.models.vgg16_bn(weights=None, num_classes=1).features.eval()
    mine = {name.removeprefix("features."): t for name, t in vgg.state_dict().items()}
    assert list(reference[:43].state_dict()) == list(mine)
    reference.load_state_dict(mine)
    image = torch.randn(1, 3, 97, 130, generator=torch.Generator().manual_seed(4))
    with torch.no_grad():
        stages, outputs, x = vgg(image), [], image
        for index, layer in enumerate(reference[:43]):
            x = layer(x)
            outputs.append(x.clone() if index in (13, 23, 33, 42) else None)
    c1, c2, c3, c4 = (output for output in outputs if output is not None)
    resized = F.interpolate(c2, c3.shape[-2:], mode="bilinear", align_corners=True)
    assert c4.abs().max() > 0
    for actual, expected in zip(stages, (c1, resized, c3, c4), strict=True):
        torch.testing.assert_close(actual, expected, rtol=1e-5, atol=1e-5)


# ---------------------------------------------------------------- frozen


@pytest.mark.parametrize("build", [thin, lambda: _unsettle(DilatedVGG()), lambda: DilatedResNet(**MINIATURE)])
def test_a_training_step_around_it_changes_nothing(build):
    torch.manual_seed(5)
    net = build()
    whole = nn.ModuleDict({"backbone": net, "head": nn.Conv2d(net.channels[3], 2, 1)})
    before = {name: t.clone() for name, t in net.state_dict().items()}
    head = whole["head"].weight.clone()
    # even where somebody switches everything on
    whole.train().requires_grad_(True)
    optimiser = torch.optim.SGD(whole.parameters(), lr=1.0, weight_decay=0.0)
    stages = net(torch.randn(2, 3, 64, 64))
    c4 = net.last(stages.c3 * torch.ones(2, 1, 1, 1, requires_grad=True))
    assert not any(stage.requires_grad for stage in (*stages, c4))
    whole["head"](c4).square().mean().backward()
    assert all(p.grad is None for p in net.parameters())
    optimiser.step()
    assert all(torch.equal(t, before[name]) for name, t in net.state_dict().items())
    assert not torch.equal(whole["head"].weight, head)


def test_it_is_frozen_from_the_start():
    """Lightning trains a module in the mode it finds: nobody calls train() before the first step."""
    for net in (thin(), DilatedVGG()):
        assert not any(module.training for module in net.modules())
        assert not any(p.requires_grad for p in net.parameters())
        assert net.train() is net
        assert not any(module.training for module in net.modules())


def test_pretraining_thaws_everything():
    net = thin(frozen=False)
    assert all(module.training for module in net.modules())
    before = {name: t.clone() for name, t in net.named_buffers()}
    net(torch.randn(2, 3, 64, 64)).c4.square().mean().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in net.parameters())
    assert all(not torch.equal(t, before[name]) for name, t in net.named_buffers())
    assert not any(module.training for module in net.eval().modules())


@pytest.mark.parametrize("build", [thin, DilatedVGG])
def test_last_is_the_last_stage(build):
    net = build()
    stages = net(torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(6)))
    kept = stages.c3.clone()
    assert torch.equal(net.last(stages.c3), stages.c4)
    assert torch.equal(stages.c3, kept)
    assert not torch.equal(net.last(torch.zeros_like(kept)), stages.c4)


@pytest.mark.parametrize("build", [thin, DilatedVGG])
def test_the_last_stage_can_be_left_out(build, monkeypatch):
    net = build()
    image = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(8))
    stages = net(image)
    monkeypatch.setattr(net, "_last", lambda c3: pytest.fail("the last stage was run"))
    early = net.early(image)
    assert early._fields == stages._fields[:3]
    assert all(torch.equal(one, other) for one, other in zip(early, stages, strict=False))
    assert not any(stage.requires_grad for stage in early)


def test_images_of_a_batch_do_not_meet():
    net = thin()
    images = torch.randn(3, 3, 64, 64, generator=torch.Generator().manual_seed(7), dtype=torch.float64)
    net = net.double()
    for stage, alone in zip(net(images), net(images[1:2]), strict=True):
        torch.testing.assert_close(stage[1:2], alone, rtol=1e-12, atol=1e-12)


def test_usual_weight_files_fit(tmp_path):
    for reference, net in (
        (torchvision.models.resnet18(weights=None), DilatedResNet("resnet18")),
        (torchvision.models.vgg16_bn(weights=None, num_classes=2), DilatedVGG()),
    ):
        file = tmp_path / "weights.pth"
        torch.save({k: v for k, v in reference.state_dict().items() if not k.startswith("classifier.0")}, file)
        load_backbone_weights(net, str(file))
        theirs = reference.state_dict()
        assert all(torch.equal(t, theirs[name]) for name, t in net.state_dict().items())
        assert not any(p.requires_grad for p in net.parameters())


@pytest.mark.parametrize("settings", [{"strides": (4, 1, 2, 1)}, {"dilations": (2,)}, {"strides": (3, 1, 2)}])
def test_bad_settings_are_refused(settings):
    with pytest.raises(ValueError, match="strides"):
        thin(**settings)
