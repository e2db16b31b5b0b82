"""Parameter groups of the segmenter, as DeepLab V2's published solvers have them."""

from typing import NamedTuple, cast

from torch import nn

from frugalseg.optim import trainable
from frugalseg.stages.deeplab.model import DeepLabNet


class Group(NamedTuple):
    """Parameters that share a rate and a decay."""

    parameters: list[nn.Parameter]
    lr: float
    weight_decay: float


def parameter_groups(
    net: DeepLabNet, lr: float, weight_decay: float, head_factor: float = 10.0, bias_factor: float = 20.0
) -> list[Group]:
    """Backbone, head, and biases of the head's convolutions; what is frozen is left out, and so are empty groups.

    Args:
        net: the net.
        lr: rate of the backbone.
        weight_decay: L2 factor; biases of the head have none.
        head_factor: rate of the head over that of the backbone.
        bias_factor: rate of the head's biases over that of the backbone.

    Returns:
        The groups; every trainable parameter is in exactly one.
    """
    convolutions = [m for m in net.head.modules() if isinstance(m, nn.Conv2d)]
    biases = [cast(nn.Parameter, m.bias) for m in convolutions if m.bias is not None]
    apart = {id(bias) for bias in biases}
    groups = [
        Group(trainable(net.backbone.parameters()), lr, weight_decay),
        Group([p for p in trainable(net.head.parameters()) if id(p) not in apart], lr * head_factor, weight_decay),
        Group(trainable(biases), lr * bias_factor, 0.0),
    ]
    return [group for group in groups if group.parameters]
