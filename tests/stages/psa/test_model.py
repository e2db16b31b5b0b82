"""Head and net against loops, and against the reference's vectors."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from frugalseg.nn.resnet38d import ResNet38
from frugalseg.ops.random_walk import feature_affinity, path_offsets
from frugalseg.stages.psa.model import AffinityHead, AffinityNet
from tests.conftest import load_golden
from tests.stages.psa import oracles

SMALL = {"backbone": "resnet38d", "backbone_options": {"width": 1 / 16}, "embedding": [4, 6, 8]}
TIMM = {
    "backbone": "resnet18",
    "strides": [2, 1, 2, 1, 1],
    "backbone_options": {"layers": [1, 1, 1, 1], "channels": [8, 12, 16, 20]},
    "embedding": [4, 6, 8],
}


def listed(radius=5):
    return [tuple(o) for o in path_offsets(radius).tolist()]


def net(settings, seed=0, **more):
    torch.manual_seed(seed)
    return AffinityNet(**settings, **more)


def matrices(head):
    return [layer.weight[:, :, 0, 0].detach().numpy() for layer in (head.f8_3, head.f8_4, head.f8_5, head.f9)]


@pytest.mark.golden
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 1e-5)])
def test_affinities_of_features_are_the_references(dtype, tolerance):
    golden = load_golden("cti/psa_affinity")
    maps = [torch.tensor(golden[name], dtype=dtype) for name in ("conv4", "conv5", "conv6")]
    weights = {f"{name}.weight": torch.tensor(golden[f"w_{name}"]) for name in ("f8_3", "f8_4", "f8_5", "f9")}
    head = AffinityHead([m.shape[1] for m in maps], [weights[f"{n}.weight"].shape[0] for n in ("f8_3", "f8_4", "f8_5")])
    head.to(dtype).load_state_dict(weights)
    with torch.no_grad():
        affinity = feature_affinity(head(maps), radius=5)
    size = affinity.shape[-2:]
    # the file says which cells make up each pair
    first, second = golden["ind_from"].astype(int), golden["ind_to"].astype(int)
    assert [(int(i) // size[1], int(i) % size[1]) for i in first] == oracles.reference_sources(size, 5)
    steps = [dy * size[1] + dx for dy, dx in oracles.reference_offsets(5)]
    np.testing.assert_array_equal(second - first, np.repeat(np.array(steps)[:, None], len(first), axis=1))
    actual = oracles.as_reference(affinity[0].numpy(), listed(), 5)
    np.testing.assert_allclose(actual, golden["aff_sparse"][0], rtol=0, atol=tolerance)


@pytest.mark.parametrize("border", [True, False])
@pytest.mark.parametrize("radius", [3, 5])
def test_affinities_of_an_image_against_loops(border, radius):
    model = net(SMALL, radius=radius, border_pairs=border).double().eval()
    image = torch.randn(2, 3, 90, 77, dtype=torch.float64)
    with torch.no_grad():
        affinity = model(image)
        maps = model.backbone(F.pad(image, (0, 3, 0, 6)))
    assert affinity.shape == (2, len(listed(radius)), 12, 10)
    *three, mixer = matrices(model.head)
    for n in range(2):
        features = oracles.embedded([m[n].numpy() for m in maps], three, mixer)
        expected = oracles.affinities(features, listed(radius), radius, border)
        assert expected[expected > 0].std() > 1e-3
        np.testing.assert_allclose(affinity[n].numpy(), expected, rtol=0, atol=1e-12)


def test_maps_on_finer_grids_meet_on_the_last_ones():
    torch.manual_seed(0)
    head = AffinityHead([3, 4, 5], [2, 3, 4]).double()
    maps = [torch.randn(1, d, *s, dtype=torch.float64) for d, s in ((3, (12, 16)), (4, (6, 8)), (5, (6, 8)))]
    with torch.no_grad():
        features = head(maps)
    *three, mixer = matrices(head)
    # halving a side bilinearly is the mean of 2 x 2; a 1x1 convolution without bias may come before or after
    halved = maps[0][0].reshape(3, 6, 2, 8, 2).mean(dim=(2, 4)).numpy()
    expected = oracles.embedded([halved, maps[1][0].numpy(), maps[2][0].numpy()], three, mixer)
    np.testing.assert_allclose(features[0].numpy(), expected, rtol=0, atol=1e-12)


def test_published_depths_and_start():
    head = AffinityHead((512, 1024, 4096))
    shapes = {name: tuple(p.shape) for name, p in head.named_parameters()}
    assert shapes == {
        "f8_3.weight": (64, 512, 1, 1),
        "f8_4.weight": (128, 1024, 1, 1),
        "f8_5.weight": (256, 4096, 1, 1),
        "f9.weight": (448, 448, 1, 1),
    }
    for layer in (head.f8_3, head.f8_4, head.f8_5):  # Kaiming, normal
        assert layer.weight.std().item() == pytest.approx((2 / layer.in_channels) ** 0.5, rel=0.03)
    bound = 4 * (6 / (448 + 448)) ** 0.5  # Xavier, uniform, gain 4
    assert bound * 0.999 < head.f9.weight.abs().max().item() <= bound


def test_resnet38_learns_what_the_paper_trains():
    model = net(SMALL)
    assert isinstance(model.backbone, ResNet38) and model.stride == 8
    fixed = {n.split(".")[1].split("_")[0] for n, p in model.named_parameters() if not p.requires_grad and ".conv" in n}
    learning = {n.split(".")[1].split("_")[0] for n, p in model.named_parameters() if p.requires_grad}
    assert fixed == {"conv1a", "b2"}
    assert learning == {"b3", "b4", "b5", "b6", "b7", "f8", "f9"}
    assert not any(m.training for m in model.train().modules() if isinstance(m, nn.BatchNorm2d))


@pytest.mark.parametrize(("settings", "stride"), [(SMALL, 8), (TIMM, 4)])
def test_padding_adds_nothing_where_the_stride_divides(settings, stride):
    model = net(settings).eval()
    assert model.stride == stride
    image = torch.randn(1, 3, 64, 80)
    with torch.no_grad():
        assert torch.equal(model.embed(image), model.head(model.backbone(image)[-3:]))
        part = image[:, :, : 64 - stride + 1, : 80 - 1]
        padded = F.pad(part, (0, 1, 0, stride - 1))
        assert torch.equal(model.embed(part), model.embed(padded))


def test_autocast_leaves_affinities_in_float32():
    model = net(TIMM, border_pairs=True).eval()
    image = torch.randn(1, 3, 48, 48)
    with torch.no_grad():
        exact = model(image)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            half = model(image)
    assert half.dtype == torch.float32
    assert 0 < float((half - exact).abs().max()) < 0.05


@pytest.mark.parametrize("backbone", ["resnet38d", "resnet18"])
def test_unknown_options_of_the_backbone_are_refused(backbone):
    with pytest.raises(ValueError, match=f"backbone_options of {backbone}: .*depth"):
        AffinityNet(backbone, backbone_options={"depth": 3})


@pytest.mark.parametrize("settings", [SMALL, TIMM])
def test_all_that_learns_gets_a_gradient(settings):
    model = net(settings, border_pairs=True).train()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.ones_(module.weight)  # timm begins with 0 at the end of each block, which would hide gradients
    model(torch.randn(2, 3, 48, 48)).square().sum().backward()
    without = [n for n, p in model.named_parameters() if p.requires_grad and (p.grad is None or not p.grad.any())]
    assert without == []
    assert all(p.grad is None for p in model.parameters() if not p.requires_grad)
