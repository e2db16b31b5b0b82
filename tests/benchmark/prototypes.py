"""SFC's prototype maps by matrix products against the plain broadcast form, time and peak memory.

`python -m tests.benchmark.prototypes ours|naive [--quick]` prints the peak memory of one variant in bytes.
"""

import sys
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from frugalseg.ops.prototypes import argmax_masks, cosine_map, masked_average_pool
from tests.benchmark.measure import Measured, in_fresh_process, interleave, peak_memory, ratio

FACTOR = 0.3


class Inputs(NamedTuple):
    """(N, D, h, w) features that want a gradient, (N, K, h, w) scores and weights of the maps in a loss."""

    features: Tensor
    scores: Tensor
    weights: Tensor


def make_inputs(quick: bool) -> Inputs:
    n, k, d, side = (1, 3, 8, 6) if quick else (2, 21, 768, 32)
    random = torch.Generator().manual_seed(0)
    features = torch.randn(n, d, side, side, generator=random).requires_grad_()
    # smooth scores: every class gets places, as it does in training
    scores = F.interpolate(torch.rand(n, k, 4, 4, generator=random), size=(side, side), mode="bilinear")
    return Inputs(features, scores, torch.randn(n, k, side, side, generator=random))


def ours(inputs: Inputs) -> Tensor:
    seeds = argmax_masks(inputs.scores, FACTOR)
    return cosine_map(inputs.features, masked_average_pool(inputs.features, seeds))


def naive(inputs: Inputs) -> Tensor:
    """The oracle: every class sees its own N x D x h x w copy of the features."""
    shaded = inputs.scores.clone()
    shaded[:, 0] *= FACTOR
    classes = shaded.shape[1]
    seeds = F.one_hot(shaded.argmax(dim=1), classes).permute(0, 3, 1, 2).to(shaded.dtype)
    features = inputs.features[:, None].expand(-1, classes, -1, -1, -1)
    prototypes = (features * seeds[:, :, None]).mean(dim=(-2, -1), keepdim=True)
    return F.cosine_similarity(features, prototypes, dim=2, eps=1e-8)


VARIANTS = {"ours": ours, "naive": naive}


def forward_backward(variant: str, inputs: Inputs) -> tuple[Tensor, Tensor]:
    inputs.features.grad = None
    maps = VARIANTS[variant](inputs)
    (maps * inputs.weights).sum().backward()
    gradient = inputs.features.grad
    assert gradient is not None
    return maps.detach(), gradient


def check_equal(inputs: Inputs) -> None:
    """Refuse to compare two things that are not the same to 1e-4, values and gradients."""
    for mine, oracle in zip(forward_backward("ours", inputs), forward_backward("naive", inputs), strict=True):
        torch.testing.assert_close(mine, oracle, rtol=1e-4, atol=1e-4)


def speed_up(quick: bool) -> dict[str, Measured]:
    inputs = make_inputs(quick)
    check_equal(inputs)
    sides = {name: (lambda name=name: forward_backward(name, inputs)) for name in VARIANTS}
    times = interleave(sides, 1 if quick else 3, {"ours": 1 if quick else 10})
    return {"sfc.prototypes_over_naive": ratio(times, "naive", "ours")}


def memory(quick: bool) -> dict[str, Measured]:
    option = ["--quick"] if quick else []
    peak = {name: in_fresh_process("tests.benchmark.prototypes", name, *option) for name in VARIANTS}
    extra = {"bytes": peak}
    # quick inputs are smaller than a page of memory
    return {"sfc.prototypes_memory_over_naive": Measured(max(peak["ours"], 1) / max(peak["naive"], 1), extra=extra)}


def main(variant: str, quick: bool) -> None:
    torch.set_num_threads(1)
    forward_backward(variant, make_inputs(quick=True))  # libraries loaded and set up
    inputs = make_inputs(quick)
    print(peak_memory(lambda: forward_backward(variant, inputs)))


if __name__ == "__main__":
    main(sys.argv[1], "--quick" in sys.argv)
