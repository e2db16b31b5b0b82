"""ResNet-38: depths and strides of the paper, names of the files that go round, and a functional twin as the measure."""

import pytest
import safetensors.torch
import torch
import torch.nn.functional as F
from torch import nn

from frugalseg.errors import WeightsError
from frugalseg.nn.resnet38d import STAGES, ResNet38, WideBottleneck
from frugalseg.nn.weights import load_backbone_weights

SMALL = 1 / 16

# name, input depth, depth after each convolution, stride, dilation of each convolution, whether there is a projection
BLOCKS = [
    ("b2", 64, (128, 128), 2, (1, 1), True),
    ("b2_1", 128, (128, 128), 1, (1, 1), False),
    ("b2_2", 128, (128, 128), 1, (1, 1), False),
    ("b3", 128, (256, 256), 2, (1, 1), True),
    ("b3_1", 256, (256, 256), 1, (1, 1), False),
    ("b3_2", 256, (256, 256), 1, (1, 1), False),
    ("b4", 256, (512, 512), 2, (1, 1), True),
    *((f"b4_{i}", 512, (512, 512), 1, (1, 1), False) for i in range(1, 6)),
    ("b5", 512, (512, 1024), 1, (1, 2), True),
    ("b5_1", 1024, (512, 1024), 1, (2, 2), False),
    ("b5_2", 1024, (512, 1024), 1, (2, 2), False),
    ("b6", 1024, (512, 1024, 2048), 1, (1, 4, 1), True),
    ("b7", 2048, (1024, 2048, 4096), 1, (1, 4, 1), True),
]
NAMES = ("2a", "2b1", "2b2")
KERNELS = {2: (3, 3), 3: (1, 3, 1)}


def described():
    """Name -> shape of every tensor of the published net, from the table above."""
    shapes = {"conv1a.weight": (64, 3, 3, 3)}

    def norm(name, depth):
        shapes.update({f"{name}.{part}": (depth,) for part in ("weight", "bias", "running_mean", "running_var")})

    for block, inputs, depths, _, _, projection in BLOCKS:
        before = inputs
        for part, depth, kernel in zip(NAMES, depths, KERNELS[len(depths)], strict=False):
            norm(f"{block}.bn_branch{part}", before)
            shapes[f"{block}.conv_branch{part}.weight"] = (depth, before, kernel, kernel)
            before = depth
        if projection:
            shapes[f"{block}.conv_branch1.weight"] = (depths[-1], inputs, 1, 1)
    norm("bn7", 4096)
    return shapes


def functional(state, image):
    """The net without modules: the same table, one convolution after the other."""

    def normalised(name, x):
        keys = ("running_mean", "running_var", "weight", "bias")
        mean, var, gain, shift = (state[f"{name}.{key}"][:, None, None] for key in keys)
        return ((x - mean) / torch.sqrt(var + 1e-5) * gain + shift).clamp(min=0)

    x = F.conv2d(image, state["conv1a.weight"], padding=1)
    read = {}
    for block, _, depths, stride, dilations, projection in BLOCKS:
        read[block] = branch = normalised(f"{block}.bn_branch2a", x)
        shortcut = F.conv2d(branch, state[f"{block}.conv_branch1.weight"], stride=stride) if projection else x
        for index, (part, kernel) in enumerate(zip(NAMES, KERNELS[len(depths)], strict=False)):
            if index:
                branch = normalised(f"{block}.bn_branch{part}", branch)
            branch = F.conv2d(
                branch,
                state[f"{block}.conv_branch{part}.weight"],
                stride=1 if index else stride,
                padding=dilations[index] * (kernel // 2),
                dilation=dilations[index],
            )
        x = shortcut + branch
    return read["b5"], read["b6"], normalised("bn7", x)


def meta(**settings):
    """The whole net without memory for its numbers."""
    with torch.device("meta"):
        return ResNet38(**settings)


def statistics(net, seed=1):
    """Give normalisation statistics, scales and shifts that no fresh net has."""
    torch.manual_seed(seed)
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.3)
            module.running_var.uniform_(0.5, 2)
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, 0, 0.2)
    return net


def small(**settings):
    torch.manual_seed(0)
    return ResNet38(width=SMALL, **settings)


def tensors(net):
    return {name: t for name, t in net.state_dict().items() if not name.endswith("num_batches_tracked")}


def test_names_and_shapes_are_those_of_the_converted_files():
    assert {name: tuple(t.shape) for name, t in tensors(meta()).items()} == described()


def test_size_of_the_published_net():
    """105 million: the classifier with 1000 outputs, which makes it 109, is not part of a backbone."""
    parameters = sum(p.numel() for p in meta().parameters())
    learned = {n: s for n, s in described().items() if not n.rsplit(".", 1)[-1].startswith("running")}
    assert parameters == sum(torch.Size(shape).numel() for shape in learned.values())
    assert round(parameters / 1e6) == 105


@pytest.mark.parametrize("size", [(448, 448), (375, 500), (65, 71), (8, 1)])
def test_shapes(size):
    net = meta()
    features = net(torch.zeros(2, 3, *size, device="meta"))
    grid = tuple(-(-side // 8) for side in size)
    assert [tuple(f.shape) for f in features] == [(2, depth, *grid) for depth in (512, 1024, 4096)]
    assert net.channels == (512, 1024, 4096)
    assert net.output_stride == 8


@pytest.mark.parametrize("size", [(40, 56), (33, 47)])
def test_outputs_equal_the_functional_twin(size):
    net = statistics(small()).double()
    image = torch.randn(2, 3, *size, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    expected = functional(net.state_dict(), image)
    with torch.no_grad():
        features = net.eval()(image)
    for actual, wanted in zip(features, expected, strict=True):
        assert wanted.std() > 0.1
        torch.testing.assert_close(actual, wanted, rtol=1e-10, atol=1e-10)


def test_dropout_is_the_only_difference_of_training():
    net = statistics(small())
    image = torch.randn(2, 3, 24, 24)
    with torch.no_grad():
        first, again, still = net.train()(image), net(image), net.eval()(image)
    # what is read before the bottlenecks has seen no dropout
    for name in ("conv4", "conv5"):
        assert torch.equal(getattr(first, name), getattr(still, name))
    assert not torch.equal(first.conv6, again.conv6)
    assert not torch.equal(first.conv6, still.conv6)


def test_dropout_drops_whole_channels_with_the_published_probabilities():
    net = small()
    for stage, probability in (("b6", 0.3), ("b7", 0.5)):
        dropped = getattr(net, stage).dropout(torch.ones(200, 50, 2, 2))
        alive = dropped.amax(dim=(-2, -1)) > 0
        assert torch.equal(alive, dropped.amin(dim=(-2, -1)) > 0)
        assert abs(float(alive.float().mean()) - (1 - probability)) < 0.02


@pytest.mark.parametrize("number", [0, 1])
def test_dropout_acts_after_the_second_and_after_the_third_normalisation(number):
    torch.manual_seed(0)
    block = WideBottleneck(3, (4, 6, 5), dilation=2, dropout=0.3).double()
    seen = []

    def drop(module, args, result):
        seen.append(args[0].shape[1])
        return torch.zeros_like(result) if len(seen) == number + 1 else result

    block.dropout.register_forward_hook(drop)
    x = torch.randn(1, 3, 8, 8, dtype=torch.float64)
    with torch.no_grad():
        found, active = block.eval()(x)
        narrow = F.relu(block.bn_branch2b1(block.conv_branch2a(active))) * (number != 0)
        middle = F.relu(block.bn_branch2b2(block.conv_branch2b1(narrow))) * (number != 1)
        expected = block.conv_branch1(active) + block.conv_branch2b2(middle)
    assert seen == [4, 6]
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("frozen", [True, False])
def test_normalisation_in_training(frozen):
    """Fixed means fixed: neither statistics nor scale and shift may move."""
    net = statistics(small(frozen_norm=frozen, trained_from="conv1a")).train()
    norms = [m for m in net.modules() if isinstance(m, nn.BatchNorm2d)]
    assert net.training and net.b6.dropout.training
    assert all(m.training != frozen for m in norms)
    assert all(p.requires_grad != frozen for m in norms for p in m.parameters())
    before = {name: b.clone() for name, b in net.named_buffers()}
    net(torch.randn(2, 3, 24, 24))
    changed = {name for name, b in net.named_buffers() if not torch.equal(b, before[name])}
    assert changed == (set() if frozen else set(before))
    assert not any(m.training for m in net.eval().modules())


@pytest.mark.parametrize("first", STAGES)
def test_stages_before_the_first_trained_one_get_no_gradient(first):
    net = statistics(small(trained_from=first, frozen_norm=False)).train()
    features = net(torch.randn(2, 3, 24, 24))
    sum(f.square().mean() for f in features).backward()
    for name, parameter in net.named_parameters():
        stage = name.split(".")[0].split("_")[0]
        trained = stage == "bn7" or STAGES.index(stage) >= STAGES.index(first)
        assert parameter.requires_grad == trained, name
        assert (parameter.grad is not None and parameter.grad.abs().max() > 0) == trained, name
    # the features belong to the blocks that read them
    for feature, stage in zip(features, ("b5", "b6"), strict=False):
        assert feature.requires_grad == (STAGES.index(stage) >= STAGES.index(first))


def test_the_default_learns_convolutions_from_b3_on():
    learning = {name for name, p in meta().named_parameters() if p.requires_grad}
    convolutions = {n for n in described() if ".conv_" in n and not n.startswith("b2")}
    assert learning == convolutions


@pytest.mark.parametrize(
    ("settings", "word"),
    [({"trained_from": "b8"}, "b8"), ({"trained_from": "b2_1"}, "b2_1"), ({"width": 0.0}, "width")],
)
def test_wrong_settings_are_refused(settings, word):
    with pytest.raises(ValueError, match=word):
        ResNet38(**settings)


# ---------------------------------------------------------------------- weights


@pytest.fixture
def source():
    """What a converted file holds: no counters of batches, and a classifier behind."""
    return {**tensors(statistics(small(), seed=7)), "fc8.weight": torch.zeros(20, 256, 1, 1)}


def _torch(tensors, path):
    torch.save(tensors, path)


WRITERS = {".pth": _torch, ".safetensors": safetensors.torch.save_file}


@pytest.mark.parametrize("suffix", WRITERS)
@pytest.mark.parametrize("prefix", ["", "module.", "module.backbone."])
def test_weights_from_files(tmp_path, source, suffix, prefix):
    path = tmp_path / f"resnet38d{suffix}"
    WRITERS[suffix]({prefix + name: t.contiguous() for name, t in source.items()}, path)
    net = small()
    assert load_backbone_weights(net, str(path)) == len(source) - 1
    assert all(torch.equal(t, source[name]) for name, t in tensors(net).items())


@pytest.mark.parametrize("suffix", WRITERS)
def test_missing_tensors_are_named(tmp_path, source, suffix):
    path = tmp_path / f"half{suffix}"
    WRITERS[suffix]({name: t for name, t in source.items() if not name.startswith("b7.bn_branch2b2")}, path)
    net = small()
    before = {name: t.clone() for name, t in tensors(net).items()}
    with pytest.raises(WeightsError, match=r"only \d+ of \d+ tensors match \(b7\.bn_branch2b2\.\w+ is not there\)"):
        load_backbone_weights(net, str(path))
    assert all(torch.equal(t, before[name]) for name, t in tensors(net).items())


def test_mxnets_own_file_is_refused_in_one_line(tmp_path):
    path = tmp_path / "ilsvrc-cls_rna-a1_cls1000_ep-0001.params"
    path.write_bytes(b"\x12\x01" + bytes(100))
    with pytest.raises(WeightsError, match=path.name):
        load_backbone_weights(small(), str(path))
