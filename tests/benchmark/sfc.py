"""SFC against its bare network: the same backbone and 1x1 heads on the same tensors, without maps and losses."""

from collections.abc import Callable, Sequence
from copy import deepcopy
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn.utils import clip_grad_norm_
from torch.optim import Optimizer

from frugalseg.data.voc import CLASS_COUNTS
from frugalseg.ops.cam import merge_scales, resize
from frugalseg.optim import poly_sgd, trainable
from frugalseg.papers.sfc.losses import class_weights, with_background_weight
from frugalseg.papers.sfc.model import SFCNet, half_size
from frugalseg.papers.sfc.task import SFC
from tests.benchmark.device import AS_IT_IS, Context
from tests.benchmark.measure import Measured, interleave, ratio

FRESH = 2
SCALES = (1.0, 0.5, 1.5, 2.0)
QUICK: dict[str, Any] = {
    "backbone": "resnet18", "side": (4, 4, 8, 8),
    "backbone_options": {"layers": (1, 1, 1, 1), "channels": (8, 8, 16, 16)},
}  # fmt: skip
"""A net whose step takes no time."""


class Batch(NamedTuple):
    """Fresh images of one step."""

    image: Tensor
    tags: Tensor
    box: Tensor


def make_task(crop: int, device: str = "cpu", counts: Sequence[int] = CLASS_COUNTS, **settings: Any) -> SFC:
    """SFC on ResNet-50 with random weights and a full bank.

    Args:
        crop: side of the images in the bank.
        device: of weights and bank.
        counts: images of each class, from which the class weights come.
        **settings: of the task.
    """
    torch.manual_seed(0)
    # timm starts residual branches at zero; half of each network would compute with zeros
    options = {"weights": None, "backbone_options": {"zero_init_last": False}} | settings
    task = SFC(len(counts) + 1, **options)
    for name, parameter in task.net.backbone.named_parameters():
        if name.endswith("bn3.weight"):
            parameter.data.fill_(0.2)
    task.class_weight.copy_(with_background_weight(class_weights(counts, bonus=396)))
    classes = len(counts)
    task.bank.update(torch.randn(classes, 3, crop, crop), torch.eye(classes), _boxes(classes, crop))
    return task.train().to(device)


def make_batch(crop: int, device: str = "cpu", fresh: int = FRESH, classes: int = len(CLASS_COUNTS)) -> Batch:
    random = torch.Generator().manual_seed(1)
    tags = torch.zeros(fresh, classes)
    person = min(14, classes - 1)
    tags[::2, [person, 1]] = tags[1::2, [7, person]] = 1
    image = torch.randn(fresh, 3, crop, crop, generator=random)
    return Batch(image.to(device), tags.to(device), _boxes(fresh, crop).to(device))


def _boxes(count: int, crop: int) -> Tensor:
    return torch.tensor([[0, crop // 8, crop * 7 // 8, crop]]).repeat(count, 1)


def make_optimiser(task: SFC) -> Optimizer:
    # rates near zero: random weights must not run away, and a step costs the same at any rate
    groups = [(trainable(part.parameters()), 1e-9) for part in (task.net.backbone, task.net.heads)]
    return poly_sgd(groups, 1000, task.hparams["weight_decay"], task.hparams["momentum"])[0]


def optimise(task: SFC, optimiser: Optimizer) -> None:
    clip_grad_norm_(task.parameters(), 1.0)
    optimiser.step()


def sfc_step(task: SFC, batch: Batch, step: int = 0, context: Context = AS_IT_IS) -> Callable[[], None]:
    """The full training step of the task, without Lightning; `context` is around forward pass and losses."""
    optimiser = make_optimiser(task)

    def run() -> None:
        with context:
            total = task.losses(*task.extend_from_bank(*batch, step)).total
        total.backward()
        optimise(task, optimiser)
        optimiser.zero_grad()

    return run


def bare_outputs(net: SFCNet, image: Tensor) -> list[Tensor]:
    """Outputs of all 1x1 heads; the side convolutions take detached inputs, as in SFC."""
    stages, heads = net.backbone(image), net.heads
    small = resize(image, (stages.layer4.shape[-2], stages.layer4.shape[-1]), align_corners=True)
    sides = zip((heads.side1, heads.side2, heads.side3, heads.side4), stages[1:], strict=True)
    embedded = heads.f9(torch.cat([small, stages.layer4], dim=1))
    return [heads.classifier(stages.layer4), embedded, *(side(x.detach()) for side, x in sides)]


def bare_step(task: SFC, images: Sequence[Tensor], optimiser: Optimizer | None = None) -> Callable[[], None]:
    """Forward and backward of the network alone on both scales, from the mean of every head's output.

    Args:
        task: whose network runs.
        images: full and half size.
        optimiser: clip and step as well.
    """

    def run() -> None:
        torch.stack([out.mean() for image in images for out in bare_outputs(task.net, image)]).sum().backward()
        if optimiser:
            optimise(task, optimiser)
        task.zero_grad()

    return run


def step_over_bare(quick: bool) -> dict[str, Measured]:
    crop = 64 if quick else 256
    task, batch = make_task(crop), make_batch(crop)
    image = task.extend_from_bank(*batch, 0)[0]
    images = (image, half_size(image))
    sides = {
        "sfc": sfc_step(task, batch),
        "bare": bare_step(task, images),
        "bare_with_optimiser": bare_step(task, images, make_optimiser(task)),
    }
    times = interleave(sides, 1 if quick else 7)
    return {
        "sfc.step_over_bare": ratio(times, "sfc", "bare"),
        "sfc.step_over_bare_with_optimiser": ratio(times, "sfc", "bare_with_optimiser"),
    }


def channels_last(quick: bool) -> dict[str, Measured]:
    crop = 64 if quick else 256
    task, batch = make_task(crop), make_batch(crop)
    other = deepcopy(task)
    other.net.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    image = batch.image.contiguous(memory_format=torch.channels_last)
    sides = {"contiguous": sfc_step(task, batch), "channels_last": sfc_step(other, batch._replace(image=image))}
    times = interleave(sides, 1 if quick else 3)
    return {"sfc.channels_last_over_contiguous": ratio(times, "channels_last", "contiguous")}


def cam_over_bare(quick: bool) -> dict[str, Measured]:
    """Maps of one image at four scales; the scaled images are made beforehand, for both sides."""
    size = (48, 64) if quick else (375, 500)
    net = make_task(32).net.eval()
    random = torch.Generator().manual_seed(2)
    scaled = [torch.randn(1, 3, *(round(s * side) for side in size), generator=random) for s in SCALES]
    pairs = [torch.cat([image, image.flip(-1)]) for image in scaled]
    keys = torch.tensor([0, 2, 8, 15])
    present = torch.zeros(len(CLASS_COUNTS) + 1)
    present[keys] = 1

    @torch.inference_mode()
    def maps() -> list[Tensor]:
        passes = [net.infer(pair, present) for pair in pairs]
        return [merge_scales([getattr(p, name)[0] for p in passes], size, keys) for name in ("m0", "mw", "mp")]

    @torch.inference_mode()
    def bare() -> None:
        for pair in pairs:
            bare_outputs(net, pair)

    times = interleave({"sfc": maps, "bare": bare}, 1 if quick else 3)
    return {"sfc.cam_over_bare": ratio(times, "sfc", "bare")}
