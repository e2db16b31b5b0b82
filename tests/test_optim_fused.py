"""Optimisers that step in one pass give what the plain ones give, whoever wrote the checkpoint, in any layout."""

import copy

import pytest
import torch
from lightning.pytorch import LightningModule, Trainer
from torch import nn
from torch.optim import SGD, AdamW

from frugalseg import optim
from frugalseg.optim import FUSES, fused
from tests.stages.toys import loader, world

MAKERS = {
    "adamw": lambda parameters: AdamW(parameters, lr=1e-2, weight_decay=0.05),
    "sgd": lambda parameters: SGD(parameters, lr=1e-1, momentum=0.9, weight_decay=1e-2),
    "sgd-plain": lambda parameters: SGD(parameters, lr=1e-1),
}
STEPS, LATE = 8, 3
BOUND = 1e-6
"""float32 has 24 bits: a dozen roundings per step in another order, over 8 steps, of numbers up to 3."""


def start(layout=torch.contiguous_format):
    """A convolution's weight, a bias, and a weight that gets its first gradient in step `LATE`."""
    g = torch.Generator().manual_seed(0)
    made = [torch.randn(shape, generator=g) for shape in ((8, 4, 3, 3), (8,), (5, 6))]
    made[0] = made[0].to(memory_format=layout)
    return [nn.Parameter(each) for each in made]


def train(parameters, optimiser, first=0, last=STEPS, twist=False, closure=True):
    """Gradients come before the step or, as Lightning has it, within it."""
    for step in range(first, last):

        def slopes(step=step):
            g = torch.Generator().manual_seed(step)
            for index, parameter in enumerate(parameters):
                slope = torch.randn(parameter.shape, generator=g)
                if twist and parameter.ndim == 4:  # a layout of its own, as a cat or an einsum may give
                    slope = slope.to(memory_format=torch.channels_last)
                parameter.grad = None if index == 2 and step < LATE else slope
            return torch.tensor(1.0)

        optimiser.zero_grad()
        if closure:
            assert optimiser.step(closure=slopes) == 1
        else:
            slopes()
            optimiser.step()


def worst(one, other):
    return max(float((a - b).detach().abs().max()) for a, b in zip(one, other, strict=True))


@pytest.fixture(params=MAKERS)
def make(request):
    return MAKERS[request.param]


@pytest.fixture
def plain(make):
    """Parameters after all steps of PyTorch's own loop."""
    parameters = start()
    optimiser = make(parameters)
    optimiser.param_groups[0]["foreach"] = False
    train(parameters, optimiser)
    return parameters


@pytest.mark.parametrize("closure", [False, True])
@pytest.mark.parametrize("twist", [False, True])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_a_fused_optimiser_steps_as_the_plain_one(make, plain, layout, twist, closure):
    parameters = start(layout)
    optimiser = fused(make(parameters))
    assert all(group["fused"] for group in optimiser.param_groups)
    train(parameters, optimiser, twist=twist, closure=closure)
    assert worst(parameters, plain) <= BOUND


@pytest.mark.parametrize("writer", [lambda optimiser: optimiser, fused])
@pytest.mark.parametrize("able", [True, False])
@pytest.mark.parametrize("layouts", [(torch.contiguous_format, torch.channels_last), (torch.channels_last,) * 2])
def test_either_goes_on_from_the_others_checkpoint(make, plain, writer, able, layouts, tmp_path, monkeypatch):
    """Written after a step in which one parameter had no gradient yet."""
    first = start(layouts[0])
    optimiser = writer(make(first))
    train(first, optimiser, last=LATE - 1)
    torch.save(optimiser.state_dict(), tmp_path / "state.pt")
    second = [nn.Parameter(p.detach().clone()) for p in first]
    second[0] = nn.Parameter(first[0].detach().to(memory_format=layouts[1]))
    if not able:
        monkeypatch.setattr(optim, "FUSES", ())
    optimiser = fused(make(second))
    optimiser.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
    assert {bool(group["fused"]) for group in optimiser.param_groups} == {able}
    train(second, optimiser, first=LATE - 1)
    assert worst(second, plain) <= BOUND


def test_reading_a_checkpoint_leaves_it_as_it_was(make):
    parameters = start()
    saved = make(parameters).state_dict()
    before = copy.deepcopy(saved)
    fused(make(parameters)).load_state_dict(saved)
    assert saved == before


def test_where_it_cannot_be_the_optimiser_stays_as_it_is(make):
    optimiser = fused(make([nn.Parameter(torch.zeros(3, device="meta"))]))
    assert "meta" not in FUSES
    assert not any(group["fused"] for group in optimiser.param_groups)


def test_lightning_clips_gradients_of_a_fused_optimiser_under_mixed_precision(make):
    """It refuses to where an optimiser unscales gradients itself, as PyTorch's `fused=True` says it does."""

    class Task(LightningModule):
        def __init__(self):
            super().__init__()
            self.net = nn.Conv2d(3, 5, 1)

        def configure_optimizers(self):
            return fused(make(self.parameters()))

        def training_step(self, batch, batch_idx):
            return self.net(batch["image"]).square().mean() * 1e4

        def on_before_zero_grad(self, optimizer):
            if self.global_step:
                total = torch.cat([p.grad.flatten() for p in self.parameters()]).norm()
                norms.append(float(total))

    norms: list[float] = []
    trainer = Trainer(
        max_steps=2, precision="bf16-mixed", gradient_clip_val=0.5, accelerator="cpu", logger=False,
        enable_progress_bar=False, enable_model_summary=False, enable_checkpointing=False,
    )  # fmt: skip
    trainer.fit(Task(), loader(world(4, 0)))
    assert norms and max(norms) <= 0.5 + 1e-4
