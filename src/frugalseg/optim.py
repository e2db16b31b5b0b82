"""The optimiser that the suite's papers share: SGD with a polynomial decay per step."""

from collections.abc import Iterable

from torch import nn
from torch.optim import SGD, Optimizer
from torch.optim.lr_scheduler import LambdaLR


def poly_factor(step: int, total: int, power: float = 0.9) -> float:
    """Factor of the learning rate after `step` steps of `total`: (1 - step/total)^power.

    Steps beyond the last keep the last step's rate, as the authors' optimiser does (golden/sfc/poly_sgd).

    Raises:
        ValueError: `total` is not positive.
    """
    if total <= 0:
        raise ValueError(f"the number of steps must be positive, got {total}")
    return float((1.0 - min(step, total - 1) / total) ** power)


def trainable(parameters: Iterable[nn.Parameter]) -> list[nn.Parameter]:
    """Those parameters that may change."""
    return [p for p in parameters if p.requires_grad]


def poly_sgd(
    groups: list[tuple[list[nn.Parameter], float]],
    total_steps: int,
    weight_decay: float,
    momentum: float,
    power: float = 0.9,
) -> tuple[Optimizer, LambdaLR]:
    """SGD over (parameters, learning rate) groups and its polynomial schedule, to be stepped after every batch.

    Args:
        groups: parameters and initial learning rate of each group.
        total_steps: length of the schedule in optimiser steps.
        weight_decay: L2 factor of all groups; parameters without a gradient are not decayed.
        momentum: heavy-ball factor without dampening.
        power: exponent of the decay.

    Returns:
        The optimiser and its scheduler.
    """
    optimiser = SGD(
        [{"params": parameters, "lr": lr} for parameters, lr in groups], momentum=momentum, weight_decay=weight_decay
    )
    return optimiser, LambdaLR(optimiser, lambda step: poly_factor(step, total_steps, power))
