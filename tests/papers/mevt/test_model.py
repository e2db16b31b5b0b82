"""MEVT's net: sizes and costs of mevt.md b.5 and b.6, the slow oracle, context (g.4), switches, precision."""

import numpy as np
import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from frugalseg.papers.mevt import blocks, decoder
from frugalseg.papers.mevt.encoder import Encoded
from frugalseg.papers.mevt.model import MEVT, create
from tests.papers.mevt import naive

SMALL = {
    "widths": (4, 6, 8, 12),
    "blocks": (1, 2, 1, 2),
    "heads": (1, 2, 2, 3),
    "reductions": (4, 2, 2, 1),
    "ratio": 2,
    "dim": 8,
    "decoder_heads": 2,
}


def small(double=True, **changes):
    torch.manual_seed(0)
    net = MEVT(**{**SMALL, **changes})
    for p in net.parameters():  # norms and biases too: at 1 and 0 a mistake in them would not be seen
        torch.nn.init.normal_(p, mean=0.1, std=0.3)
    return net.double() if double else net


def images(*size, count=2, dtype=torch.float64, seed=1):
    return torch.randn(count, 3, *size, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def close(actual, expected, tolerance=1e-10):
    actual = actual.detach().numpy()
    assert actual.shape == np.shape(expected)
    np.testing.assert_allclose(actual, expected, rtol=tolerance, atol=tolerance)


# ---------------------------------------------------------------------- sizes and costs


@pytest.mark.parametrize(
    ("preset", "parameters"), [("mevt_s", 26_396_608), ("mevt_xs", 3_878_880), ("mevt_tiny", 704_736)]
)
def test_counts_of_parameters(preset, parameters):
    assert sum(p.numel() for p in create(preset).parameters()) == parameters


def test_counts_of_parts():
    net = create("mevt_s")
    parts = (sum(p.numel() for p in part.parameters()) / 1e6 for part in (net.encoder, net.decoder))
    assert [round(part, 2) for part in parts] == [24.20, 2.20]


@pytest.mark.parametrize(
    ("preset", "side", "channels", "width", "cost", "digits"),
    [
        ("mevt_s", 224, (64, 128, 320, 512), 256, 5.43, 2),
        ("mevt_s", 96, (64, 128, 320, 512), 256, 0.97, 2),
        ("mevt_xs", 64, (32, 64, 160, 256), 128, 0.078, 3),
        ("mevt_tiny", 64, (32, 64, 96, 128), 64, 0.023, 3),
    ],
)
@pytest.mark.parametrize("fused", [True, False])
def test_shapes_and_costs(preset, side, channels, width, cost, digits, fused):
    """Fused attention has its own line in the counter, the plain one is counted as two products: both must agree."""
    kernels = [SDPBackend.FLASH_ATTENTION, SDPBackend.MATH] if fused else [SDPBackend.MATH]
    net = create(preset).eval()
    with torch.no_grad(), sdpa_kernel(kernels), FlopCounterMode(display=False) as counter:
        out = net(torch.zeros(1, 3, side, side))
    assert [f.shape for f in out.stages] == [
        (1, c, side // s, side // s) for c, s in zip(channels, (4, 8, 16, 32), strict=True)
    ]
    assert out.features.shape == (1, width, side // 4, side // 4)
    assert out.token.shape == (1, channels[3])
    assert (net.width, net.stride, net.token_width) == (width, 4, channels[3])
    assert round(counter.get_total_flops() / 2 / 1e9, digits) == cost
    names = {str(kernel) for kernels in counter.get_flop_counts().values() for kernel in kernels}
    assert any("scaled_dot_product" in name for name in names) == fused


def test_initialisation():
    torch.manual_seed(0)
    net = create("mevt_s", mask_token=True)
    stds = {id(net.encoder.stages[3].token): 0.02, id(net.encoder.mask_token): 0.02}
    for module in net.modules():
        if isinstance(module, torch.nn.Linear):
            stds[id(module.weight)] = 0.02
        elif isinstance(module, torch.nn.Conv2d):
            kernel = module.kernel_size[0] ** 2
            stds[id(module.weight)] = (2 / (kernel * module.out_channels / module.groups)) ** 0.5
    for name, p in net.named_parameters():
        if id(p) in stds:
            assert p.std().item() == pytest.approx(stds[id(p)], rel=6 / (2 * p.numel()) ** 0.5), name
        else:
            expected = 1.0 if name.endswith("weight") else 0.0
            assert (p == expected).all(), name


# ---------------------------------------------------------------------- the slow oracle


@pytest.mark.parametrize("front", [0, 1])
@pytest.mark.parametrize(("grid", "reduction"), [((8, 4), 2), ((4, 8), 4), ((2, 4), 4), ((3, 2), 1)])
def test_block(front, grid, reduction):
    torch.manual_seed(2)
    module = blocks.Block(6, heads=2, reduction=reduction, ratio=2, drop_path=0.0).double()
    for p in module.parameters():
        torch.nn.init.normal_(p, mean=0.1, std=0.4)
    x = torch.randn(2, front + grid[0] * grid[1], 6, dtype=torch.float64)
    out = module(x, grid)
    for i in range(2):
        close(out[i], naive.block(x[i].numpy(), naive.weights_of(module), *grid, heads=2, reduction=reduction))


@pytest.mark.parametrize("context", [True, False])
def test_level(context):
    torch.manual_seed(3)
    module = decoder.Level(5, dim=6, heads=3, context=context).double()
    for p in module.parameters():
        torch.nn.init.normal_(p, mean=0.1, std=0.4)
    above, stage, memory = (torch.randn(*s, dtype=torch.float64) for s in ((1, 6, 2, 3), (1, 5, 4, 6), (1, 7, 6)))
    known = memory[0].numpy() if context else None
    expected = naive.level(above[0].numpy(), stage[0].numpy(), known, naive.weights_of(module), heads=3)
    close(module(above, stage, memory)[0], expected)


@pytest.mark.parametrize(
    ("size", "settings", "masked"),
    [((64, 32), {}, False), ((32, 96), {"context": False, "output_stride": 8}, False), ((32, 64), {}, True)],
)
def test_whole_net(size, settings, masked):
    net = small(mask_token=True, **settings).eval()
    image = images(*size)
    mask = torch.tensor([[[True, False]], [[False, True]]]) if masked else None
    out = net(image, mask)
    weights = naive.weights_of(net)
    for i in range(2):
        stages, g = naive.encoder(
            image[i].numpy(),
            weights.within("encoder"),
            *(SMALL[key] for key in ("blocks", "heads", "reductions")),
            mask=mask[i].numpy() if masked else None,
        )
        for own, expected in zip(out.stages, stages, strict=True):
            close(own[i], expected)
        close(out.token[i], g)
        levels = {4: 3, 8: 2}[net.stride]
        parts = (weights.within("decoder"), SMALL["decoder_heads"], settings.get("context", True), levels)
        close(out.features[i], naive.decoder(stages, g, *parts))


# ---------------------------------------------------------------------- context


def test_the_far_corner_is_seen_and_the_memory_matters():
    """mevt.md g.4."""
    torch.manual_seed(0)
    net = create("mevt_s").eval()
    without = create("mevt_s", context=False).eval()
    left = net.load_state_dict(without.state_dict(), strict=False)
    assert left.unexpected_keys == []
    assert {name.split(".")[1] for name in left.missing_keys} == {"memory", "levels"}
    image = images(224, 224, count=1, dtype=torch.float32).requires_grad_()
    features = net(image).features
    (gradient,) = torch.autograd.grad(features[0, 0, 0, 0], image)
    assert gradient[..., -1, -1].abs().max() > 0
    with torch.no_grad():
        change = (features - without(image).features).norm() / features.norm()
    assert change > 1e-3


def test_the_far_corner_is_seen_through_the_memory_alone():
    """With the stages held fixed, only the memory carries what is far away into a level."""
    net = small()
    encoded = net.encoder(images(64, 64, count=1))
    far = encoded.stages[3].detach().clone().requires_grad_()
    features = net.decoder(Encoded((*(f.detach() for f in encoded.stages[:3]), far), encoded.token.detach()))
    memory = torch.autograd.grad(features[0, 0, 0, 0], far)[0][0, :, -1, -1]
    assert memory.abs().max() > 0


# ---------------------------------------------------------------------- sizes and switches


@pytest.mark.parametrize("size", [(32, 32), (32, 160), (96, 64)])
def test_any_multiple_of_32(size):
    out = create("mevt_tiny").eval()(images(*size, dtype=torch.float32))
    assert out.features.shape == (2, 64, size[0] // 4, size[1] // 4)
    assert out.features.isfinite().all()


@pytest.mark.parametrize("size", [(48, 64), (64, 100), (0, 32), (31, 31)])
def test_other_sizes_are_refused(size):
    with pytest.raises(ValueError, match=rf"multiples of 32, got {size[0]} x {size[1]} \(H x W\)"):
        create("mevt_tiny")(torch.zeros(1, 3, *size))


def test_without_context_nothing_reads_the_memory():
    net = small(context=False)
    assert not [name for name, _ in net.named_parameters() if "memory" in name or "reading" in name]
    assert sum(p.numel() for p in net.parameters()) < sum(p.numel() for p in small().parameters())


def test_without_decoder_the_feature_is_the_third_stage():
    net = small(decoder=False)
    out = net(images(64, 96))
    assert (out.features == out.stages[2]).all()
    assert (net.width, net.stride) == (8, 16) == (out.features.shape[1], 64 // out.features.shape[2])
    assert not [name for name, _ in net.named_parameters() if name.startswith("decoder")]


@pytest.mark.parametrize("stride", [4, 8, 16])
def test_output_stride(stride):
    net = small(output_stride=stride)
    assert net(images(64, 96)).features.shape == (2, 8, 64 // stride, 96 // stride)
    assert net.stride == stride


def test_samples_do_not_see_one_another():
    net, image = small().eval(), images(32, 64)
    for both, alone in zip(net(image)[:2], net(image[1:])[:2], strict=True):
        torch.testing.assert_close(both[1:], alone, rtol=1e-10, atol=1e-10)


def test_masked_blocks_are_not_seen():
    """What lies 3 pixels and more inside a hidden block changes nothing; without the mask it does."""
    net = small(mask_token=True).eval()
    image = images(64, 64, count=1)
    other = image.clone()
    other[..., 3:29, 35:61] += 1
    mask = torch.tensor([[[False, True], [False, False]]])
    for hidden, changed in zip(net(image, mask)[:2], net(other, mask)[:2], strict=True):
        torch.testing.assert_close(hidden, changed, rtol=0, atol=0)
    assert not torch.allclose(net(image).features, net(other).features)


@pytest.mark.parametrize(
    ("settings", "mask", "message"),
    [
        ({}, torch.zeros(2, 2, 2), "mask_token=True"),
        ({"mask_token": True}, torch.zeros(2, 2, 1), r"\(2, 2, 2\), got \(2, 2, 1\)"),
    ],
)
def test_wrong_masks_are_refused(settings, mask, message):
    with pytest.raises(ValueError, match=message):
        small(**settings)(images(64, 64), mask.bool())


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"output_stride": 2}, "output_stride must be 4, 8 or 16, got 2"),
        ({"decoder_heads": 3}, "3 heads do not divide 8 channels"),
        ({"blocks": (1, 1, 1)}, r"blocks must have 4 values, one per stage, got \[1, 1, 1\]"),
    ],
)
def test_wrong_settings_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        small(**settings)


def test_an_unknown_preset_is_refused():
    with pytest.raises(ValueError, match="mevt_s, mevt_xs, mevt_tiny, got 'mevt_b'"):
        create("mevt_b")


# ---------------------------------------------------------------------- training


def gradients(net, image):
    torch.manual_seed(7)  # the same samples skip the same branches
    out = net(image)
    net.zero_grad()
    (out.features.square().mean() + out.token.sin().sum()).backward()
    return out, {name: p.grad.clone() for name, p in net.named_parameters()}


def test_checkpointing_changes_nothing_but_memory():
    image = images(64, 32, count=4)
    plain, kept = small(drop_path=0.5).train(), small(drop_path=0.5, checkpointing=True).train()
    kept.load_state_dict(plain.state_dict())
    (out, expected), (again, found) = gradients(plain, image), gradients(kept, image)
    assert (out.features == again.features).all()
    assert (out.token == again.token).all()
    assert found.keys() == expected.keys()
    for name, gradient in expected.items():
        torch.testing.assert_close(found[name], gradient, rtol=1e-12, atol=1e-12)


def test_checkpointing_keeps_less():
    def kept_bytes(net):
        total = []
        with torch.autograd.graph.saved_tensors_hooks(lambda x: total.append(x.nbytes) or x, lambda x: x):
            net(images(64, 64))
        return sum(total)

    assert kept_bytes(small(checkpointing=True)) < 0.5 * kept_bytes(small())


def test_stochastic_depth_grows_to_its_rate_in_training_only():
    net = create("mevt_tiny", drop_path=0.4)
    rates = [getattr(block.drop_path, "drop_prob", 0.0) for stage in net.encoder.stages for block in stage.blocks]
    assert rates == pytest.approx([0.0, 0.1, 0.2, 0.3, 0.4])
    image = images(32, 32, dtype=torch.float32)
    assert not torch.equal(net(image).token, net(image).token)
    net.eval()
    assert torch.equal(net(image).token, net(image).token)
    teacher = create("mevt_tiny", drop_path=0.0).train()
    assert torch.equal(teacher(image).token, teacher(image).token)
    assert teacher.state_dict().keys() == net.state_dict().keys()


def test_every_parameter_learns():
    _, found = gradients(small(), images(64, 64))
    assert [name for name, gradient in found.items() if not gradient.abs().max() > 0] == []


def test_bfloat16():
    net = create("mevt_tiny").train()
    image = images(64, 32, dtype=torch.float32)
    exact = create("mevt_tiny").eval()
    exact.load_state_dict(net.state_dict())
    with torch.autocast("cpu", torch.bfloat16):
        out, found = gradients(net, image)
    assert out.features.isfinite().all()
    assert out.token.isfinite().all()
    assert all(gradient.isfinite().all() for gradient in found.values())
    net.eval()
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        half = net(image)
    reference = exact(image)
    for a, b in zip(half[:2], reference[:2], strict=True):
        assert 0 < (a - b).norm() / b.norm() < 0.03
