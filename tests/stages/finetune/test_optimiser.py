"""Every parameter that learns in one group, rates by depth, the schedule by steps."""

import pytest
import torch

from frugalseg.nn.depths import depths
from frugalseg.stages.finetune.net import FineTuneNet
from frugalseg.stages.finetune.optimiser import Optimiser, build, parameter_groups
from tests.stages.finetune.nets import TINY_MEVT, TINY_RESNET, TINY_SWIN, TINY_VIT, stages

BACKBONES = [TINY_MEVT, TINY_VIT, TINY_SWIN, TINY_RESNET, stages()]
RULE = Optimiser(lr=1.0, layer_decay=0.5, head_lr_factor=3.0, weight_decay=0.1)


def groups_of(net, rule=RULE):
    return parameter_groups(net.backbone, net.new(), rule)


@pytest.mark.parametrize("backbone", BACKBONES, ids=lambda b: b.name.split("_")[0].split(".")[-1])
@pytest.mark.parametrize("head", ["linear", "fcn", "upernet", "semantic-fpn"])
def test_every_parameter_is_in_exactly_one_group(backbone, head):
    net = FineTuneNet(4, backbone, head, auxiliary=head == "upernet")
    grouped = [id(p) for group in groups_of(net) for p in group["params"]]
    learning = [id(p) for p in net.parameters() if p.requires_grad]
    assert sorted(grouped) == sorted(learning) and len(set(grouped)) == len(grouped)
    assert len({group["name"] for group in groups_of(net)}) == len(groups_of(net))


def rates(net, rule=RULE):
    of = {id(p): (g["lr"], g["weight_decay"]) for g in groups_of(net, rule) for p in g["params"]}
    return {name: of[id(p)] for name, p in net.named_parameters() if id(p) in of}


def test_rates_fall_block_by_block_of_a_transformer():
    net = FineTuneNet(4, TINY_VIT, "upernet")
    found = rates(net)
    for block in range(4):
        assert found[f"backbone.net.net.blocks.{block}.mlp.fc1.weight"] == (0.5 ** (4 - block), 0.1)
        assert found[f"backbone.net.net.blocks.{block}.mlp.fc1.bias"] == (0.5 ** (4 - block), 0.0)
    assert found["backbone.net.net.patch_embed.proj.weight"] == (0.5**5, 0.1)
    assert found["backbone.net.net.pos_embed"] == found["backbone.net.net.cls_token"] == (0.5**5, 0.0)
    # deconvolutions are as new as the head
    assert found["backbone.net.adapt.0.0.weight"] == found["head.join.0.weight"] == (3.0, 0.1)
    assert found["head.join.1.weight"] == found["head.classify.bias"] == (3.0, 0.0)


def test_rates_fall_block_by_block_of_an_own_net():
    net = FineTuneNet(4, TINY_MEVT, "upernet")
    found = rates(net)
    # mevt_tiny has 1, 1, 2 and 1 blocks
    names = ["stages.0.blocks.0", "stages.1.blocks.0", "stages.2.blocks.0", "stages.2.blocks.1", "stages.3.blocks.0"]
    for place, name in enumerate(names):
        assert found[f"backbone.net.encoder.{name}.ffn.expand.weight"] == (0.5 ** (5 - place), 0.1)
    assert found["backbone.net.encoder.stages.0.embed.weight"] == (0.5**6, 0.1)
    assert found["backbone.net.encoder.stages.3.token"][1] == 0.0
    # with its own decoder there are three more, the levels
    own = rates(FineTuneNet(4, TINY_MEVT, "linear"))
    assert own["backbone.net.decoder.levels.2.lateral.weight"] == (0.5, 0.1)
    assert own["backbone.net.encoder.stages.0.embed.weight"] == (0.5**9, 0.1)


def test_layers_are_numbered_in_the_order_of_the_net():
    layers = depths(FineTuneNet(4, stages(), "linear").backbone.net)
    assert {name.removesuffix(".weight"): layer for name, layer in layers.items() if name.endswith("weight")} == {
        "stem": 0, "stages.0": 1, "stages.1": 2, "stages.2": 3, "decoder": 3,
    }  # fmt: skip


def test_warm_up_times_polynomial_decay():
    rule = Optimiser(warmup=10, power=1.0)
    found = [rule.factor(step, 100) for step in range(100)]
    assert found[0] == pytest.approx(1e-6)
    for step in range(100):
        warm = 1e-6 + (1 - 1e-6) * step / 10 if step < 10 else 1
        assert found[step] == pytest.approx(warm * (1 - step / 100))
    assert Optimiser(warmup=0).factor(0, 10) == 1


def test_a_rate_that_drops():
    rule = Optimiser(warmup=0, drops=(0.7, 0.9))
    assert [rule.factor(step, 10) for step in range(10)] == pytest.approx([1] * 7 + [0.1] * 2 + [0.01])


@pytest.mark.parametrize(("name", "kind"), [("adamw", torch.optim.AdamW), ("sgd", torch.optim.SGD)])
def test_all_groups_follow_one_schedule(name, kind):
    net = FineTuneNet(4, stages(), "linear")
    rule = Optimiser(name, lr=1.0, layer_decay=0.5, warmup=0, weight_decay=0.1)
    optimiser, schedule = build(groups_of(net, rule), rule, 4)
    assert type(optimiser) is kind
    start = [group["lr"] for group in optimiser.param_groups]
    assert len(set(start)) == 5
    for step in range(1, 4):
        optimiser.step()
        schedule.step()
        assert [g["lr"] for g in optimiser.param_groups] == pytest.approx([lr * (1 - step / 4) for lr in start])
