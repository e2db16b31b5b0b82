"""Parameter groups: every trainable parameter in exactly one, with its rate and decay."""

import pytest
import torch
from torch import nn

from frugalseg.stages.deeplab import DeepLab
from frugalseg.stages.deeplab.groups import parameter_groups
from frugalseg.stages.deeplab.model import DeepLabNet

SMALL = {"layers": [1, 1, 1, 1], "channels": [8, 8, 16, 16]}
HEADS = {
    "v2": {"rates": [1, 2]},
    "largefov": {"hidden": [8, 8], "norm": True},
    "v3plus": {"width": 8, "low_width": 4},
}


def net(head="v2", frozen=True, backbone="resnet18", options=None):
    return DeepLabNet(
        5, backbone, head, frozen_norm=frozen, backbone_options=options or SMALL, head_options=HEADS[head]
    )


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("frozen", [True, False])
@pytest.mark.parametrize(("backbone", "options"), [("resnet18", SMALL), ("resnet38d", {"width": 0.05})])
def test_every_trainable_parameter_is_in_exactly_one_group(head, frozen, backbone, options):
    model = net(head, frozen, backbone, options)
    rates = {}
    for group in parameter_groups(model, 0.1, 0.01, 10.0, 20.0):
        for parameter in group.parameters:
            assert id(parameter) not in rates
            rates[id(parameter)] = (group.lr, group.weight_decay)
    convolutions = {n for n, m in model.named_modules() if isinstance(m, nn.Conv2d)}
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            assert id(parameter) not in rates, name
            continue
        owner, _, kind = name.rpartition(".")
        if name.startswith("backbone."):
            expected = (0.1, 0.01)
        elif kind == "bias" and owner in convolutions:
            expected = (2.0, 0.0)
        else:
            expected = (1.0, 0.01)
        assert rates.pop(id(parameter)) == pytest.approx(expected), name
    assert not rates


def test_frozen_normalisation_is_in_no_group():
    model = net(frozen=True)
    inside = {id(p) for group in parameter_groups(model, 1.0, 0.0) for p in group.parameters}
    norms = [m for m in model.backbone.modules() if isinstance(m, nn.BatchNorm2d)]
    assert norms and not any(id(p) in inside for m in norms for p in m.parameters())


class Steps:
    """What `configure_optimizers` asks of a trainer."""

    estimated_stepping_batches = 10


def test_rates_follow_the_polynomial_per_step_and_biases_do_not_decay():
    task = DeepLab(
        5, "resnet18", None, backbone_options=SMALL, head_options={"rates": [1]}, lr=0.01, momentum=0.5, power=0.7
    )
    task._trainer = Steps()
    type(task).trainer, original = property(lambda self: self._trainer), type(task).__dict__.get("trainer")
    try:
        settings = task.configure_optimizers()
    finally:
        del type(task).trainer
        assert original is None
    optimiser, schedule = settings["optimizer"], settings["lr_scheduler"]["scheduler"]
    assert settings["lr_scheduler"]["interval"] == "step"
    assert [g["weight_decay"] for g in optimiser.param_groups] == [5e-4, 5e-4, 0.0]
    assert {g["momentum"] for g in optimiser.param_groups} == {0.5}
    for step in range(10):
        expected = [0.01 * f * (1 - step / 10) ** 0.7 for f in (1, 10, 20)]
        assert [g["lr"] for g in optimiser.param_groups] == pytest.approx(expected)
        for parameter in task.parameters():
            parameter.grad = torch.zeros_like(parameter)
        optimiser.step()
        schedule.step()
