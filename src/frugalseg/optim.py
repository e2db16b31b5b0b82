"""Optimisers and schedules of the suite's papers: SGD with a polynomial decay, AdamW with warm-up and cosine."""

import math
from collections.abc import Iterable
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.optim import SGD, Optimizer
from torch.optim.lr_scheduler import LambdaLR

FUSES = ("cpu", "cuda")
"""Devices on which PyTorch takes the step of all parameters in one pass: 2 to 3.5 times as fast on a CPU core."""

AnyOptimiser = TypeVar("AnyOptimiser", bound=Optimizer)


def fused(optimiser: AnyOptimiser) -> AnyOptimiser:
    """Let AdamW or SGD take its step in one pass over memory, where all parameters are on a device that can.

    A checkpoint's state fits whether it was written by a fused optimiser or not: this run's choice holds, not that of
    the run which wrote it. The choice is made here and not by the argument `fused` of the optimisers, with which they
    would unscale gradients themselves, so that Lightning refuses to clip gradients under mixed precision.

    Args:
        optimiser: fresh, its parameters where they will be trained.

    Returns:
        The same optimiser.
    """
    parameters = [p for group in optimiser.param_groups for p in group["params"]]
    able = all(p.device.type in FUSES and p.is_floating_point() for p in parameters)

    def keep_choice(_: Optimizer, state: dict[str, Any]) -> dict[str, Any]:
        groups = [{**group, "fused": able or None, "foreach": None} for group in state["param_groups"]]
        return {**state, "param_groups": groups}

    optimiser.register_load_state_dict_pre_hook(keep_choice)
    optimiser.register_load_state_dict_post_hook(_align_state)
    if able:
        for group in optimiser.param_groups:
            group["fused"] = True
        optimiser.register_step_pre_hook(_prepare_step)
    return optimiser


def _align_state(optimiser: Optimizer) -> None:
    """Give averages the layout in memory of their parameters: a run with `channels_last` may go on without, and back.

    The fused kernels walk memory, not indices. On a CPU they would mix up the entries without a word.
    """
    for parameter, state in optimiser.state.items():
        for name, value in state.items():
            if isinstance(value, Tensor) and value.shape == parameter.shape:
                state[name] = _like(value, parameter)


def _prepare_step(optimiser: Optimizer, given: Any, named: Any) -> tuple[Any, Any] | None:
    """Prepare gradients before a step, or after the closure that makes them within it, as Lightning's does."""
    closure = given[1] if len(given) > 1 else named.get("closure")
    if closure is None:
        _prepare(optimiser)
        return None

    def prepared() -> Any:
        loss = closure()
        _prepare(optimiser)
        return loss

    return given[:1], {**named, "closure": prepared}


def _prepare(optimiser: Optimizer) -> None:
    """Give gradients the layout of their parameters, and SGD a momentum of 0 to begin with.

    The fused kernel knows no first step of some parameters alone, whose gradient comes later than that of others.
    """
    for group in optimiser.param_groups:
        momentum = isinstance(optimiser, SGD) and group["momentum"]
        for parameter in group["params"]:
            if parameter.grad is None:
                continue
            parameter.grad = _like(parameter.grad, parameter)
            if momentum and optimiser.state[parameter].get("momentum_buffer") is None:
                optimiser.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter)


def _like(value: Tensor, parameter: Tensor) -> Tensor:
    """The same numbers, laid out in memory as a parameter is."""
    return value if value.stride() == parameter.stride() else torch.empty_like(parameter).copy_(value)


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
    settings = [{"params": parameters, "lr": lr} for parameters, lr in groups]
    optimiser = fused(SGD(settings, momentum=momentum, weight_decay=weight_decay))
    return optimiser, LambdaLR(optimiser, lambda step: poly_factor(step, total_steps, power))


def warmup_cosine(time: float, length: float, warmup: float, peak: float, start: float, end: float) -> float:
    """Learning rate at a time: a linear rise from `start` to `peak`, then the cosine of the whole length to `end`.

    The cosine is that of `time` 0: it does not begin at `peak` when the warm-up is over (timm's schedule with
    `warmup_prefix` off; golden/cti/schedule).

    Args:
        time: epochs or steps since the beginning.
        length: of the schedule, in the same unit; later times keep `end`.
        warmup: duration of the rise; may be 0.
        peak: rate of the cosine at its beginning.
        start: rate at time 0 where there is a warm-up.
        end: lowest rate.

    Raises:
        ValueError: the length is not positive.
    """
    if length <= 0:
        raise ValueError(f"the length of a schedule must be positive, got {length}")
    if time < warmup:
        return start + time * (peak - start) / warmup
    return end + (peak - end) * (1 + math.cos(math.pi * min(time / length, 1.0))) / 2


def cosine_schedule(step: int, total: int, base: float, final: float, warmup: int = 0) -> float:
    """Value of a schedule at a step: `warmup` values from 0 to `base`, then a cosine from `base` towards `final`.

    Unlike `warmup_cosine`, the warm-up reaches `base` with its last step, and the cosine begins after it. The last
    step, total - 1, stays short of `final`; later steps have it. DINO's schedule of learning rate, weight decay and
    teacher momentum (golden/ssl/schedules), and with base m0 and final 1 the momentum of mevt.md c.1.

    Args:
        step: 0 is the first.
        total: number of steps, warm-up included.
        base: value after the warm-up.
        final: where the cosine leads, above or below `base`.
        warmup: number of steps of the linear rise, both ends included.

    Raises:
        ValueError: no steps, or a warm-up that is negative or longer than all steps.
    """
    if total <= 0 or not 0 <= warmup <= total:
        raise ValueError(f"a schedule needs steps and a warm-up among them, got {total} with {warmup} of warm-up")
    if step < warmup:
        return base * step / max(warmup - 1, 1)
    if step >= total:
        return final
    return final + (base - final) * (1 + math.cos(math.pi * (step - warmup) / (total - warmup))) / 2


def linear_warmup(step: int, length: int, start: float, end: float) -> float:
    """`length` values from `start` to `end`, both included, then `end`: DINO's teacher temperature (mevt.md c.3).

    Args:
        step: 0 is the first; any unit.
        length: of the rise; `end` from the beginning where it is below 2.
        start: first value.
        end: last value.
    """
    if length < 2:
        return end
    return start + (end - start) * min(step / (length - 1), 1.0)


def decayed_groups(
    parameters: Iterable[tuple[str, nn.Parameter]], weight_decay: float, exempt: Iterable[str] = ()
) -> list[dict[str, Any]]:
    """Parameters that learn, in a group with weight decay and one without: biases, one-dimensional ones, exceptions.

    Args:
        parameters: (name, parameter).
        weight_decay: of the first group.
        exempt: names that are not decayed either.
    """
    named, spared = [(name, p) for name, p in parameters if p.requires_grad], set(exempt)
    free = [p.ndim <= 1 or name.endswith(".bias") or name in spared for name, p in named]
    return [
        {"params": [p for (_, p), out in zip(named, free, strict=True) if not out], "weight_decay": weight_decay},
        {"params": [p for (_, p), out in zip(named, free, strict=True) if out], "weight_decay": 0.0},
    ]
