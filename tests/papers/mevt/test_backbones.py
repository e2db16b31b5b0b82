"""Every net speaks MEVT's language: shapes, tokens, stochastic depth of the student alone, no weight decay of tokens."""

import pytest
import torch
from lightning.pytorch import Trainer
from timm.layers import DropPath
from torch.utils.data import DataLoader

from frugalseg.errors import ConfigError
from frugalseg.papers.mevt import Pretrain
from frugalseg.papers.mevt.backbones import check_sides, create_backbone
from tests.papers.mevt.test_step import views
from tests.papers.mevt.test_task import HEADS, QUIET, RULE

VIT, SWIN = "vit_tiny_patch16_224", "swin_tiny_patch4_window7_224"
SMALL_VIT = {"depth": 2, "embed_dim": 24}


def image(side, count=2):
    return torch.randn(count, 3, side, side, generator=torch.Generator().manual_seed(side))


@pytest.mark.parametrize("side", [224, 96])
@pytest.mark.parametrize(
    ("name", "width", "stride"),
    [
        (VIT, 192, 16),
        ("vit_small_patch16_224", 384, 16),
        ("resnet18", 512, 32),
        (SWIN, 768, 32),
    ],
)
def test_maps_and_tokens_of_timm(name, width, stride, side):
    net = create_backbone(name, {"depth": 2} if name.startswith("vit") else None).eval()
    with torch.no_grad():
        found = net(image(side))
    assert net.width == net.token_width == width
    assert found.features.shape == (2, width, side // stride, side // stride)
    assert found.token.shape == (2, width)
    assert len(found.stages) == 1 and torch.equal(found.stages[0], found.features)
    assert found.features.isfinite().all() and not torch.equal(found.token[0], found.token[1])


def test_the_token_of_a_transformer_is_its_class_token_and_cells_are_in_place():
    net = create_backbone(VIT, SMALL_VIT).eval()
    x = image(96)
    with torch.no_grad():
        found, plain = net(x), net.net.forward_features(x)
    assert torch.equal(found.token, plain[:, 0])
    for row, column in ((0, 0), (2, 5), (5, 1)):
        assert torch.equal(found.features[:, :, row, column], plain[:, 1 + 6 * row + column])


@pytest.mark.parametrize(
    ("name", "changes"),
    [("resnet18", {}), (SWIN, {}), (VIT, {**SMALL_VIT, "class_token": False, "global_pool": ""})],
)
def test_the_token_of_other_nets_is_the_mean_of_their_cells(name, changes):
    net = create_backbone(name, changes).eval()
    with torch.no_grad():
        found = net(image(64 if name != SWIN else 224))
    torch.testing.assert_close(found.token, found.features.mean(dim=(2, 3)), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("name", "stage"), [("resnet18", "layer4"), (SWIN, "norm")])
def test_maps_are_the_last_stages_right_way_round(name, stage):
    net, seen = create_backbone(name, None).eval(), []
    getattr(net.net, stage).register_forward_hook(lambda _, __, out: seen.append(out))
    with torch.no_grad():
        found = net(image(224))
    last = seen[-1] if name != SWIN else seen[-1].permute(0, 3, 1, 2)
    assert torch.equal(found.features, last)


def test_the_student_has_stochastic_depth_and_the_teacher_none():
    """mevt.md b.2: it rises to .1 in the student."""
    for preset, changes, most in (
        ("mevt_tiny", None, 0.1),
        ("mevt_tiny", {"drop_path": 0.3}, 0.3),
        (VIT, {**SMALL_VIT, "drop_path_rate": 0.2}, 0.2),
    ):
        made = Pretrain(preset=preset, changes=changes, heads=HEADS, rule=RULE)
        rates, none = (
            [float(m.drop_prob) for m in net.modules() if isinstance(m, DropPath)]
            for net in (made.student, made.teacher)
        )
        assert max(rates) == pytest.approx(most) and not any(none)
        made.train()
        with torch.no_grad():
            one, two = (made.teacher(image(64, 8)).token for _ in range(2))
            own, other = (made.student(image(64, 8)).token for _ in range(2))
        assert torch.equal(one, two) and not torch.equal(own, other)


DECAYED = {
    "mevt_tiny": {"mask_token": True},
    VIT: {**SMALL_VIT, "init_values": 0.1},
    "vit_small_patch14_reg4_dinov2": {"depth": 2, "embed_dim": 24, "num_heads": 2},
    "resnet10t": {},
    SWIN: {"depths": (1, 1, 1, 1), "embed_dim": 24, "num_heads": (1, 2, 2, 4)},
}


@pytest.mark.parametrize("preset", DECAYED)
def test_biases_norms_tokens_and_positions_are_not_decayed(preset):
    """mevt.md c.6: 0 on biases, norms, g; of timm what it says itself."""
    rule = {**RULE, "masked": 0.5 * (preset == "mevt_tiny")}
    made = Pretrain(
        preset=preset, changes=DECAYED[preset], heads={**HEADS, "norm": True}, rule=rule, weight_decay=(0.04, 0.4)
    )
    decayed, free = made.configure_optimizers().param_groups
    assert (decayed["weight_decay"], free["weight_decay"]) == (0.04, 0)
    names = {id(p): name for name, p in made.student.named_parameters()}
    spared = {names[id(p)] for p in free["params"]}
    assert {names[id(p)] for p in decayed["params"]} | spared == set(names.values())
    for kind, module in ((type(m).__name__.lower(), m) for m in made.student.modules()):
        if "norm" in kind:
            assert all(names[id(p)] in spared for p in module.parameters(recurse=False)), kind
    assert not [n for n in set(names.values()) - spared if n.endswith((".bias", "token", "pos_embed"))]
    net = made.backbone
    said = getattr(getattr(net, "net", net), "no_weight_decay", set)()
    assert {f"backbone.net.{name}" for name in said if preset != "mevt_tiny"} & set(names.values()) <= spared
    if preset == "mevt_tiny":
        assert {"backbone.encoder.stages.3.token", "backbone.encoder.mask_token"} <= spared
    # and matrices are
    assert all(p.ndim > 1 for p in decayed["params"]) and len(decayed["params"]) > 10


def test_a_mask_is_not_for_nets_of_timm():
    with pytest.raises(ConfigError, match=r"rule\.masked: this net takes no masks"):
        Pretrain(preset=VIT, changes=SMALL_VIT, heads=HEADS, rule={**RULE, "masked": 1.0})


@pytest.mark.parametrize(
    ("name", "step"), [("mevt_tiny", 32), (VIT, 16), ("vit_small_patch14_dinov2", 14), ("resnet18", 32)]
)
def test_sides_that_a_net_takes(name, step):
    net = create_backbone(name, {"depth": 1} if name.startswith("vit") else None)
    check_sides(net, (2 * step, 3 * step), "global_size")
    with pytest.raises(
        ConfigError, match=rf"^data\.recipe\.local_size is {step + 1}; this net needs a multiple of {step}$"
    ):
        check_sides(net, (step + 1, step), "local_size")


@pytest.mark.parametrize(
    ("preset", "method", "changes"),
    [
        (VIT, "mevt", SMALL_VIT),
        (VIT, "densecl", SMALL_VIT),
        ("resnet10t", "mevt", {}),
        ("resnet10t", "pixpro", {}),
        (SWIN, "dino", {"depths": (1, 1, 1, 1), "embed_dim": 24, "num_heads": (1, 2, 2, 4)}),
    ],
)
def test_every_net_learns_by_every_method(preset, method, changes):
    torch.manual_seed(0)
    local = 0 if method in ("densecl", "pixpro") else 1
    rule = {"mevt": {**RULE, "region": 0.5}, "densecl": {"queue": 20}}.get(method, {})
    made = Pretrain(preset=preset, method=method, changes=changes, heads=HEADS, rule=rule, lr=1e-3)
    before = {n: p.clone() for n, p in made.student.named_parameters()}
    Trainer(max_steps=2, **QUIET).fit(made, DataLoader([views(2, local, n) for n in (0, 1)], batch_size=None))
    still = [n for n, p in made.student.named_parameters() if torch.equal(p, before[n])]
    assert still == []
