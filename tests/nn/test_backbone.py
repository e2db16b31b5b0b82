"""The ResNet in five stages: shapes, frozen parts, and torchvision's ResNet as the measure."""

import pytest
import torch
import torchvision
from torch import nn

from frugalseg.nn.backbone import STAGES, ResNetStages

SMALL = {"layers": [1, 1, 1, 1], "channels": [8, 12, 16, 20]}
SFC_STRIDES = (4, 1, 2, 2, 1)


def small(**settings):
    torch.manual_seed(0)
    return ResNetStages("resnet18", options=SMALL, **settings)


@pytest.fixture(scope="module")
def resnet50():
    torch.manual_seed(0)
    return ResNetStages()


def _grid(size, stage):
    """Sizes round up at each of the strides so far; the stem holds two of them."""
    for stride in (2, 2, *SFC_STRIDES[1:])[: 2 + STAGES.index(stage)]:
        size = tuple(-(-side // stride) for side in size)
    return size


def test_a_new_net_has_its_normalisation_frozen_already():
    """Lightning trains a module in the mode it finds: nobody calls train() before the first step."""
    net = ResNetStages("resnet18")
    norms = [m for m in net.modules() if isinstance(m, torch.nn.BatchNorm2d)]
    assert net.training and norms and not any(m.training for m in norms)
    before = {n: t.clone() for n, t in net.state_dict().items()}
    net(torch.randn(2, 3, 64, 64))
    assert all(torch.equal(t, before[n]) for n, t in net.state_dict().items())


@pytest.mark.parametrize("size", [(64, 64), (375, 500)])
def test_shapes_of_the_paper(resnet50, size):
    """sfc.md section 14: depths there, sides by rounding up at each stride."""
    with torch.no_grad():
        stages = resnet50(torch.zeros(1, 3, *size))
    depths = (64, 256, 512, 1024, 2048)
    for name, depth in zip(STAGES, depths, strict=True):
        assert getattr(stages, name).shape == (1, depth, *_grid(size, name)), name
    assert resnet50.channels == depths
    assert resnet50.output_stride == 16
    assert stages.layer4.shape[-2:] == tuple(-(-side // 16) for side in size)


def test_nothing_is_dilated(resnet50):
    convolutions = [m for m in resnet50.modules() if isinstance(m, nn.Conv2d)]
    assert len(convolutions) > 50
    assert {m.dilation for m in convolutions} == {(1, 1)}


def test_parameter_names_are_torchvisions(resnet50):
    theirs = torchvision.models.resnet50(weights=None).state_dict()
    expected = {name: t.shape for name, t in theirs.items() if not name.startswith("fc.")}
    assert {name: t.shape for name, t in resnet50.state_dict().items()} == expected


def _reference(name):
    """torchvision's net with layer4 at stride 1, and random running statistics."""
    torch.manual_seed(1)
    net = getattr(torchvision.models, name)(weights=None)
    first = net.layer4[0]
    (first.conv2 if name == "resnet50" else first.conv1).stride = (1, 1)
    first.downsample[0].stride = (1, 1)
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.8, 1.2)
    return net.eval()


@pytest.mark.parametrize("name", ["resnet50", "resnet18"])
def test_outputs_equal_torchvisions(name):
    reference = _reference(name)
    ours = ResNetStages(name)
    ours.load_state_dict({k: v for k, v in reference.state_dict().items() if not k.startswith("fc.")})
    image = torch.randn(2, 3, 70, 65)
    ours.train()  # frozen normalisation: training mode must not matter
    with torch.no_grad():
        stages = ours(image)
        x = reference.maxpool(reference.relu(reference.bn1(reference.conv1(image))))
        for stage in STAGES:
            x = x if stage == "stem" else getattr(reference, stage)(x)
            torch.testing.assert_close(getattr(stages, stage), x, rtol=1e-5, atol=1e-5)


def test_unchanged_strides_are_torchvisions_own():
    reference = torchvision.models.ResNet(torchvision.models.resnet.Bottleneck, [1, 1, 1, 1])
    ours = ResNetStages("resnet50", strides=(4, 1, 2, 2, 2), options={"layers": [1, 1, 1, 1]})
    strides = [{n: m.stride for n, m in net.named_modules() if isinstance(m, nn.Conv2d)} for net in (ours, reference)]
    assert strides[0] == strides[1]


def test_frozen_norm_stays_in_evaluation_mode():
    net = small().train()
    norms = [m for m in net.modules() if isinstance(m, nn.BatchNorm2d)]
    assert net.training
    assert net.layer4.training
    assert norms
    assert not any(m.training for m in norms)
    assert all(m.training for m in small(frozen_norm=False).train().modules())
    assert not any(m.training for m in net.eval().modules())


@pytest.mark.parametrize("frozen", [True, False])
def test_running_statistics_and_a_training_step(frozen):
    net = small(frozen_norm=frozen).train()
    before = {n: b.clone() for n, b in net.named_buffers()}
    net(torch.randn(2, 3, 32, 32)).layer4.square().mean().backward()
    changed = {name for name, buffer in net.named_buffers() if not torch.equal(buffer, before[name])}
    assert changed == (set() if frozen else set(before))


@pytest.mark.parametrize("first", STAGES)
def test_stages_before_the_first_trained_one_get_no_gradient(first):
    net = small(trained_from=first).train()
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.ones_(module.weight)  # timm begins with 0 at the end of each block, which would hide gradients
    stages = net(torch.randn(2, 3, 32, 32))
    torch.stack([stage.square().mean() for stage in stages if stage.requires_grad]).sum().backward()
    for index, stage in enumerate(STAGES):
        trained = index >= STAGES.index(first)
        parameters = (
            [*net.conv1.parameters(), *net.bn1.parameters()]
            if stage == "stem"
            else list(getattr(net, stage).parameters())
        )
        assert getattr(stages, stage).requires_grad == trained
        assert all(p.requires_grad == trained for p in parameters)
        assert all((p.grad is not None) == trained for p in parameters), stage
        # gamma and beta of frozen normalisation learn like everything else
        assert all(p.grad.abs().max() > 0 for p in parameters if trained)


def test_the_default_trains_layer3_and_layer4_alone(resnet50):
    learning = {name.split(".")[0] for name, p in resnet50.named_parameters() if p.requires_grad}
    assert learning == {"layer3", "layer4"}


def test_no_graph_is_built_without_gradients():
    net = small(trained_from="stem")
    with torch.no_grad():
        assert not any(stage.requires_grad for stage in net(torch.randn(1, 3, 32, 32)))


@pytest.mark.parametrize("strides", [(4, 1, 2, 2, 1), (2, 1, 2, 1, 1), (4, 1, 1, 1, 1), (2, 1, 2, 2, 2)])
@pytest.mark.parametrize("name", ["resnet18", "resnet50"])
def test_small_nets_with_options_step_as_told(name, strides):
    net = ResNetStages(name, strides, options=SMALL)
    with torch.no_grad():
        stages = net(torch.zeros(1, 3, 32, 32))
    total = 1
    for index, (stage, stride) in enumerate(zip(stages, strides, strict=True)):
        total *= stride
        assert stage.shape[1] == net.channels[index]
        assert stage.shape[-2:] == (32 // total, 32 // total)
    assert net.output_stride == total
    expansion = 4 if name == "resnet50" else 1
    assert net.channels[1:] == tuple(c * expansion for c in SMALL["channels"])


@pytest.mark.parametrize("strides", [(4, 1, 2, 2), (4, 1, 2, 2, 1, 1), (3, 1, 2, 2, 1), (1, 1, 2, 2, 1)])
def test_wrong_strides_are_refused(strides):
    with pytest.raises(ValueError, match="strides must be five numbers"):
        ResNetStages("resnet18", strides, options=SMALL)


def test_a_stride_where_there_is_no_projection_is_refused():
    with pytest.raises(ValueError, match="without a projection"):
        ResNetStages("resnet18", (4, 2, 2, 2, 1), options={"layers": [1, 1, 1, 1]})


def test_an_unknown_first_stage_is_refused():
    with pytest.raises(ValueError, match="layer5"):
        small(trained_from="layer5")
