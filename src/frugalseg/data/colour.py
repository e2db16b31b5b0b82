"""Colour changes of multi-crop views on the device where they are; `colour_rule` says what the parameters mean."""

from collections.abc import Callable
from typing import cast

import torch
from torch import Tensor
from torch.nn import functional as F

from frugalseg.batch import ViewsBatch
from frugalseg.data.colour_rule import GREY, NEUTRAL, ORDER, ORDERS, SIGMA, SOLARISE, THRESHOLD
from frugalseg.data.normalise import Normaliser

LUMA = (0.2989, 0.587, 0.114)


def finish_views(batch: ViewsBatch, normaliser: Normaliser) -> ViewsBatch:
    """Make the colour changes that a batch still asks for, and normalise; on the device where the batch is.

    A view's result depends on its pixels and its row of `colour` alone, not on what else is in the batch.

    Args:
        batch: with uint8 views and `colour`; one without `colour` is returned as it is.
        normaliser: gives means and standard deviations.

    Returns:
        The batch with float32 views and without `colour`.
    """
    if "colour" not in batch:
        return batch
    parameters = batch["colour"]
    mean, std = (torch.tensor(v, device=parameters.device).view(3, 1, 1) for v in (normaliser.mean, normaliser.std))

    def finished(views: Tensor, rows: Tensor) -> Tensor:
        changed = change_colours(views.flatten(0, 1), rows.flatten(0, 1))
        return changed.sub_(mean).div_(std).view(views.shape)

    rest = {key: value for key, value in batch.items() if key != "colour"}
    rest["global_views"] = finished(batch["global_views"], parameters[:, :2])
    rest["local_views"] = finished(batch["local_views"], parameters[:, 2:])
    return cast(ViewsBatch, rest)


@torch.no_grad()
def change_colours(views: Tensor, parameters: Tensor) -> Tensor:
    """Change the colours of many views at once, each by its own parameters.

    Views are grouped by what is next for them: one call per kind of change, whatever their number. Nothing is rounded
    in between, unlike on the CPU, where each change gives whole grey levels.

    Args:
        views: (M, 3, H, W) uint8.
        parameters: (M, P) float32, any device.

    Returns:
        (M, 3, H, W) float32 on the scale 0..1.
    """
    pixels = views.to(torch.float32).div_(255)
    rows = parameters.cpu()  # choosing on the CPU waits for the device once, boolean masks on it would each time
    order = torch.tensor(ORDERS)[rows[:, ORDER].long()]

    def change(kind: int, among: Tensor, make: Callable[[Tensor, Tensor], Tensor]) -> None:
        chosen = (among & (rows[:, kind] != float(NEUTRAL[kind]))).nonzero().flatten()
        if len(chosen):
            place, amount = chosen.to(views.device), rows[chosen, kind].to(views.device)
            pixels[place] = make(pixels[place], amount.view(-1, 1, 1, 1))

    for step in range(4):
        for kind, make in enumerate((_brightness, _contrast, _saturation, _hue)):
            change(kind, order[:, step] == kind, make)
    everyone = torch.ones(len(rows), dtype=torch.bool)
    change(GREY, everyone, lambda x, _: _luma(x).expand_as(x))
    change(SIGMA, everyone, _blur)
    change(SOLARISE, everyone, lambda x, _: torch.where(x >= THRESHOLD, 1 - x, x))
    return pixels


def _channels(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    return x[:, 0:1], x[:, 1:2], x[:, 2:3]


def _luma(x: Tensor) -> Tensor:
    red, green, blue = _channels(x)
    return LUMA[0] * red + LUMA[1] * green + LUMA[2] * blue


def _brightness(x: Tensor, factor: Tensor) -> Tensor:
    return (x * factor).clamp_(0, 1)


def _contrast(x: Tensor, factor: Tensor) -> Tensor:
    # in float64, where the order of the sum, which depends on the batch, is lost in rounding
    mean = _luma(x).mean(dim=(2, 3), keepdim=True, dtype=torch.float64).to(x.dtype)
    return (x * factor + mean * (1 - factor)).clamp_(0, 1)


def _saturation(x: Tensor, factor: Tensor) -> Tensor:
    return (x * factor + _luma(x) * (1 - factor)).clamp_(0, 1)


def _hue(x: Tensor, turn: Tensor) -> Tensor:
    """Turn the hue; sector number and distance from the nearest primary colour replace the usual six cases."""
    value = x.amax(dim=1, keepdim=True)
    chroma = value - x.amin(dim=1, keepdim=True)
    red, green, blue = _channels(x)
    divisor = torch.where(chroma == 0, 1, chroma)  # grey: any hue will do, since it is multiplied by chroma 0
    sector = torch.where(value == green, (blue - red) / divisor + 2, (red - green) / divisor + 4)
    sector = torch.where(value == red, (green - blue) / divisor, sector) + 6 * turn
    distance = [(sector + start) % 6 for start in (5, 3, 1)]
    return torch.cat([value - chroma * torch.minimum(d, 4 - d).clamp_(0, 1) for d in distance], dim=1)


def _blur(x: Tensor, sigma: Tensor) -> Tensor:
    # sums of shifted images: each view has its own weights, and those beyond its radius are exact zeros
    width = sigma.to(torch.float64)
    reach = torch.floor(3.5 * width)
    radius = int(reach.max())
    weights = [torch.exp(-0.5 * (t / width) ** 2) * (t <= reach) for t in range(radius + 1)]
    total = weights[0]
    for weight in weights[1:]:
        total = total + 2 * weight
    scaled = [(weight / total).to(x.dtype) for weight in weights]
    for axis in (2, 3):
        padded = F.pad(x, (radius, radius, 0, 0) if axis == 3 else (0, 0, radius, radius), mode="reflect")
        size = x.shape[axis]
        x = scaled[0] * x
        for t in range(1, radius + 1):
            x = x + scaled[t] * (padded.narrow(axis, radius - t, size) + padded.narrow(axis, radius + t, size))
    return x
