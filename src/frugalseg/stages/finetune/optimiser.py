"""Rates of fine-tuning: lower towards the input, higher in what is new, warmed up and decayed by steps."""

from dataclasses import dataclass
from typing import Any, Literal

from torch import nn
from torch.optim import SGD, AdamW
from torch.optim import Optimizer as TorchOptimiser
from torch.optim.lr_scheduler import LambdaLR

from frugalseg.errors import ConfigError
from frugalseg.nn.depths import depths
from frugalseg.nn.pyramid import TrainableBackbone
from frugalseg.optim import decayed_groups, fused, linear_warmup, poly_factor

SPARED = ("token", "pos_embed", "relative_position_bias_table")
"""Ends of names of parameters that are not decayed, besides biases and what has one dimension."""


@dataclass(frozen=True)
class Optimiser:
    """How a fine-tuning learns.

    Args:
        name: `adamw` or `sgd`.
        lr: rate after the warm-up, before `layer_decay` and `head_lr_factor`.
        weight_decay: of weights; biases, norms, tokens and positions have none.
        momentum: of SGD.
        layer_decay: factor from layer to layer towards the input, counted from the head; 1 for none.
        head_lr_factor: rate of what is new over `lr`.
        warmup: steps from nearly nothing to the full rate.
        power: of the polynomial decay to 0 over all steps; the warm-up multiplies it, as in mmseg.
        drops: shares of all steps after each of which the rate is a tenth, such as .7 and .9, instead of the
            polynomial decay.

    Raises:
        ConfigError: a value out of its range.
    """

    name: Literal["adamw", "sgd"] = "adamw"
    lr: float = 6e-5
    weight_decay: float = 0.01
    momentum: float = 0.9
    layer_decay: float = 1.0
    head_lr_factor: float = 1.0
    warmup: int = 1500
    power: float = 1.0
    drops: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        """Refuse what cannot be meant."""
        for name, right, wanted in (
            ("name", self.name in ("adamw", "sgd"), "adamw or sgd"),
            ("lr", self.lr > 0, "a number above 0"),
            ("weight_decay", self.weight_decay >= 0, "0 or more"),
            ("layer_decay", 0 < self.layer_decay <= 1, "above 0, at most 1"),
            ("head_lr_factor", self.head_lr_factor > 0, "a number above 0"),
            ("warmup", self.warmup >= 0, "0 or more steps"),
            ("drops", all(0 < share < 1 for share in self.drops), "shares between 0 and 1"),
        ):
            if not right:
                raise ConfigError(f"model.optimiser.{name} is {getattr(self, name)}; set it to {wanted}")

    def factor(self, step: int, total: int) -> float:
        """Rate after `step` of `total` steps, over the full one."""
        warm = linear_warmup(step, self.warmup + 1, 1e-6, 1.0)
        if self.drops:
            return float(warm * 0.1 ** sum(step >= share * total for share in self.drops))
        return warm * poly_factor(step, total, self.power)


def parameter_groups(backbone: TrainableBackbone, new: list[nn.Module], settings: Optimiser) -> list[dict[str, Any]]:
    """Every parameter that learns in exactly one group, by layer and by whether it is decayed.

    With n layers that learn, layer i has lr * layer_decay^(n - i), and what is new lr * head_lr_factor (BEiT's rule,
    whose backbone's last block is already one step from the head).

    Args:
        backbone: the net; what was added to its `known` part counts as new.
        new: heads.
        settings: rates.

    Returns:
        Groups for an optimiser, each with `name`.
    """
    known, layer_of = backbone.known, depths(backbone.known)
    named = [(name, p) for name, p in known.named_parameters() if p.requires_grad]
    have = {id(p) for p in known.parameters()}
    added = [(f"added.{name}", p) for name, p in backbone.named_parameters() if id(p) not in have]
    for index, module in enumerate(new):
        added += [(f"{index}.{name}", p) for name, p in module.named_parameters()]
    layers = sorted({layer_of[name] for name, _ in named})
    groups = []
    for place, layer in enumerate(layers):
        members = [(name, p) for name, p in named if layer_of[name] == layer]
        groups += _pair(f"layer{layer}", members, settings.lr * settings.layer_decay ** (len(layers) - place), settings)
    groups += _pair("new", added, settings.lr * settings.head_lr_factor, settings)
    return [group for group in groups if group["params"]]


def _pair(name: str, members: list[tuple[str, nn.Parameter]], lr: float, settings: Optimiser) -> list[dict[str, Any]]:
    """A group with weight decay and one without."""
    spared = [each for each, _ in members if each.endswith(SPARED)]
    pair = decayed_groups(members, settings.weight_decay, spared)
    return [{**group, "lr": lr, "name": name + end} for group, end in zip(pair, ("", "-plain"), strict=True)]


def build(groups: list[dict[str, Any]], settings: Optimiser, steps: int) -> tuple[TorchOptimiser, LambdaLR]:
    """Optimiser and its schedule, to be stepped after every step.

    Args:
        groups: see `parameter_groups`.
        settings: rates.
        steps: optimiser steps of the whole fit.
    """
    optimiser: TorchOptimiser = fused(
        AdamW(groups, settings.lr) if settings.name == "adamw" else SGD(groups, settings.lr, settings.momentum)
    )
    return optimiser, LambdaLR(optimiser, lambda step: settings.factor(step, steps))
