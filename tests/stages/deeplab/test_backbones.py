"""Backbones: strides, dilation, names of weights, frozen normalisation."""

import pytest
import timm
import torch
from torch import nn

from frugalseg.errors import WeightsError
from frugalseg.nn.weights import load_backbone_weights
from frugalseg.stages.deeplab.backbones import Backbone, build_backbone

SMALL = {"layers": [1, 2, 2, 2], "channels": [8, 8, 16, 24]}


@pytest.mark.parametrize(
    ("name", "settings", "channels", "strides"),
    [
        ("resnet18", {"output_stride": 8, "options": SMALL}, (8, 24), (4, 8)),
        ("resnet18", {"output_stride": 16, "options": SMALL}, (8, 24), (4, 16)),
        ("resnet18", {"strides": [2, 1, 2, 1, 1], "options": {**SMALL, "layers": [1, 1, 1, 1]}}, (8, 24), (2, 4)),
        ("resnet38d", {"options": {"width": 0.05}}, (26, 205), (8, 8)),
        ("convnext_atto", {"output_stride": 8}, (40, 320), (4, 8)),
        ("regnety_002", {"output_stride": 16}, (24, 368), (4, 16)),
        ("hrnet_w18_small", {"output_stride": 32}, (128, 1024), (4, 32)),
        ("test_vit", {"output_stride": 16, "options": {"dynamic_img_size": True}}, (64, 64), (16, 16)),
    ],
)
@pytest.mark.parametrize("size", [(64, 96), (65, 33)])
def test_features_have_the_depth_and_stride_that_heads_are_told(name, settings, channels, strides, size):
    backbone = build_backbone(name, **settings).eval()
    assert (backbone.channels, backbone.strides) == (channels, strides)
    with torch.no_grad():
        found = backbone(torch.randn(1, 3, *size))
    for x, depth, stride in zip(found, channels, strides, strict=True):
        assert x.shape == (1, depth, *(-(-side // stride) for side in size))


def test_low_features_of_a_transformer_come_after_a_quarter_of_its_blocks():
    depth = len(timm.create_model("test_vit", num_classes=0).blocks)
    assert depth >= 4
    assert build_backbone("test_vit", 16, options={"dynamic_img_size": True}).taken == [depth // 4, depth - 1]


def dilations(backbone, layer):
    return [
        m.dilation[0]
        for n, m in backbone.net.named_modules()
        if n.startswith(layer) and isinstance(m, nn.Conv2d) and m.kernel_size == (3, 3)
    ]


def test_dilation_takes_the_place_of_strides():
    eight = build_backbone("resnet50", 8)
    assert dilations(eight, "layer2") == [1] * 4
    assert dilations(eight, "layer3") == [1, 2, 2, 2, 2, 2]
    assert dilations(eight, "layer4") == [2, 4, 4]
    sixteen = build_backbone("resnet50", 16)
    assert dilations(sixteen, "layer3") == [1] * 6
    assert dilations(sixteen, "layer4") == [1, 2, 2]


@pytest.mark.parametrize("name", ["resnet18", "convnext_atto", "test_vit"])
def test_dilated_features_are_those_of_timm(name):
    options = {"dynamic_img_size": True} if "vit" in name else {}
    stride = 16 if "vit" in name else 8
    backbone = build_backbone(name, stride, options=options).eval()
    extra = {} if "vit" in name else {"output_stride": 8}
    plain = timm.create_model(name, num_classes=0, **extra, **options).eval()
    plain.load_state_dict(backbone.net.state_dict(), strict=False)
    image = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        expected = plain.forward_intermediates(image, intermediates_only=True)[-1]
        assert torch.equal(backbone(image).high, expected)


@pytest.mark.parametrize(("name", "stride"), [("convnext_atto", 8), ("test_vit", 16)])
@torch.no_grad()
def test_images_are_filled_up_below_and_to_the_right(name, stride):
    backbone = build_backbone(name, stride, options={"dynamic_img_size": True} if "vit" in name else {}).eval()
    image = torch.randn(1, 3, 65, 41)
    filled = backbone(nn.functional.pad(image, (0, -41 % stride, 0, -65 % stride)))
    for found, whole, step in zip(backbone(image), filled, backbone.strides, strict=True):
        assert torch.equal(found, whole[..., : -(-65 // step), : -(-41 // step)])


@pytest.mark.parametrize("prefix", ["", "net.backbone.", "net.backbone.net.", "module."])
def test_files_with_the_usual_names_load(tmp_path, prefix):
    source = timm.create_model("resnet18", num_classes=10, **SMALL)
    torch.save({f"{prefix}{n}": t for n, t in source.state_dict().items()}, tmp_path / "weights.pth")
    backbone = build_backbone("resnet18", 8, options=SMALL)
    assert load_backbone_weights(backbone.net, str(tmp_path / "weights.pth")) > 30
    theirs = source.state_dict()
    for name, tensor in backbone.net.state_dict().items():
        assert torch.equal(tensor, theirs[name]) or name.endswith("num_batches_tracked"), name


def test_weights_of_another_net_are_refused(tmp_path):
    torch.save(timm.create_model("resnet18").state_dict(), tmp_path / "weights.pth")
    with pytest.raises(WeightsError, match=r"weights\.pth"):
        load_backbone_weights(build_backbone("resnet18", 8, options=SMALL).net, str(tmp_path / "weights.pth"))


def norms(backbone: Backbone):
    return [m for m in backbone.modules() if isinstance(m, nn.BatchNorm2d)]


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("resnet18", {"options": SMALL}),
        ("resnet18", {"strides": [2, 1, 2, 1, 1], "options": {**SMALL, "layers": [1, 1, 1, 1]}}),
        ("resnet38d", {"options": {"width": 0.05}}),
    ],
)
def test_frozen_normalisation_is_a_constant(name, settings):
    frozen, free = (build_backbone(name, frozen_norm=f, **settings).train() for f in (True, False))
    before = {n: t.clone() for n, t in frozen.state_dict().items() if "running" in n}
    for backbone in (frozen, free):
        backbone(torch.randn(2, 3, 33, 33)).high.sum().backward()
    assert len(norms(frozen)) > 5
    assert all(not m.training and m.weight.grad is None and m.bias.grad is None for m in norms(frozen))
    assert all(torch.equal(frozen.state_dict()[n], t) for n, t in before.items())
    learning = [m for m in norms(free) if m.training and m.weight.grad is not None]
    assert learning and norms(free)[-1] in learning
    assert frozen.eval().train() is frozen and not norms(frozen)[0].training
    convolutions = [m for m in frozen.modules() if isinstance(m, nn.Conv2d)]
    assert convolutions[-1].weight.grad is not None


@pytest.mark.parametrize(
    ("name", "settings", "frozen"),
    [
        ("resnet18", {"options": SMALL}, ()),
        ("resnet18", {"strides": [2, 1, 2, 1, 1], "options": {**SMALL, "layers": [1, 1, 1, 1]}}, ()),
        ("resnet38d", {"options": {"width": 0.05}}, ("conv1a", "b2")),
        ("resnet38d", {"options": {"width": 0.05, "trained_from": "conv1a"}}, ()),
    ],
)
def test_all_convolutions_learn_but_those_that_are_left_out(name, settings, frozen):
    backbone = build_backbone(name, frozen_norm=False, **settings).train()
    sum(x.square().mean() for x in backbone(torch.randn(2, 3, 33, 33))).backward()
    learning = {n: p.grad is not None for n, p in backbone.net.named_parameters() if p.dim() == 4}
    assert {n: value for n, value in learning.items() if not value}.keys() == {
        n for n in learning if n.split(".")[0].split("_")[0] in frozen
    }


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"name": "resnet51"}, "resnet51"),
        ({"name": "resnet18", "options": {"layerz": 1}}, "layerz"),
        ({"name": "resnet18", "output_stride": 7}, "output stride 7"),
        ({"name": "vit_tiny_patch16_224", "output_stride": 16}, "any size"),
        ({"name": "resnet38d", "options": {"layerz": 1}}, "layerz"),
        ({"name": "resnet38d", "output_stride": 16}, "stride 8"),
        ({"name": "resnet18", "strides": [3, 1, 1, 1, 1]}, "strides"),
    ],
)
def test_nets_that_cannot_be_are_refused(settings, words):
    with pytest.raises(ValueError, match=words):
        build_backbone(**settings)
