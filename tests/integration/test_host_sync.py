"""A training step gives the device work and does not wait for it: no number is asked for, nothing is copied in between.

There may be no GPU, so a step is looked at in two ways. On a CPU the profiler counts the operations that would wait: those
that give Python a number or make a tensor of a size that only the device knows. And with parameters and batch on the device
`meta`, which has shapes but no memory, whatever asks it for a value fails, and every copy from main memory shows.
"""

from collections import Counter
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback, LightningModule
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.profiler import ProfilerActivity, profile
from torch.utils._python_dispatch import TorchDispatchMode

from frugalseg.papers.mevt.memory import Fifo
from tests.integration.speed_cases import CASES, fit, write_worlds

WAITS = {
    "_local_scalar_dense", "is_nonzero", "equal", "nonzero", "masked_select", "unique_dim", "_unique2", "bincount",
    "unique_consecutive",
}  # fmt: skip
"""Operations that a GPU would have to be waited for: of a boolean index, too, the profiler sees `nonzero`."""
NEEDED = {
    # matched points of overlapping views, and those that are chosen of them: their number is what is looked for (mevt.md c.2);
    # and how full the queue is, until it is: see below
    "mevt": {"nonzero": 2, "_local_scalar_dense": 1},
    # samples that skip a branch are drawn on the CPU, so that nobody waits: two blocks, two branches each
    "cti, drop path": {"nonzero": 6},
    # places without weight are left out of the prior on a CPU alone: see `ops.prototypes._places`
    "dsmf": {"nonzero": 1},
    "dsmf, kept features": {"nonzero": 1},
}
"""What is there for a reason, counted."""
ALIKE = ("sfc baseline", "dsmf, kept features", "dino", "densecl", "probe M", "cti")
PROFILED = 2
"""Steps before the one that is looked at: what is asked once has been asked by then."""


@pytest.fixture(scope="module")
def worlds(world, tmp_path_factory):
    return write_worlds(tmp_path_factory.mktemp("tiles"), world)


class Profiler(Callback):
    """Counts the waits of one step, from the batch's arrival to after the optimiser; nothing is logged in it."""

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        if trainer.global_step == PROFILED:
            self._profile = profile(activities=[ProfilerActivity.CPU])
            self._profile.__enter__()

    def on_train_batch_end(self, trainer, pl_module, *_):
        if trainer.global_step == PROFILED + 1:
            self._profile.__exit__(None, None, None)
            events = self._profile.events()
            assert len(events) > 100
            waits = (e for e in events if e.name.removeprefix("aten::") in WAITS and not inside_optimiser(e))
            self.waits = dict(Counter(e.name.removeprefix("aten::") for e in waits))


def inside_optimiser(event):
    """Whether this is of AdamW's kernel, which on a CPU reads the number of steps; a GPU's keeps it to itself."""
    while event is not None:
        if event.name.startswith("aten::_fused_adam"):
            return True
        event = event.cpu_parent
    return False


def cases(*without):
    """Every case; those much like another where time does not matter."""
    for name in CASES:
        if name not in without:
            yield pytest.param(name, id=name, marks=[pytest.mark.slow] if name in ALIKE else [])


@pytest.mark.parametrize("name", [*cases()])
def test_a_step_waits_for_nothing(name, worlds):
    case, profiler = CASES[name], Profiler()
    fit(case, case.data(worlds), PROFILED + 1, profiler)
    assert profiler.waits == NEEDED.get(name, {})


def test_a_wait_is_counted(worlds, monkeypatch):
    case, profiler = CASES["tags"], Profiler()
    task = case.task()
    step = task.training_step
    monkeypatch.setattr(
        task, "training_step", lambda *given: step(*given) * (1 + 0 * float(task.net.training_sum())), raising=True
    )
    monkeypatch.setattr(
        type(task.net), "training_sum", lambda net: sum(p.sum() for p in net.parameters()), raising=False
    )
    fit(case, case.data(worlds), PROFILED + 1, profiler, task=task)
    assert profiler.waits == {"_local_scalar_dense": 1}


# ---------------------------------------------------------------------- a device without memory


class Crossings(TorchDispatchMode):
    """Names of operations that read main memory and the device, and wait for the copy."""

    def __init__(self):
        super().__init__()
        self.found: list[str] = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        out, copies = func(*args, **kwargs), "copy" in str(func)
        given = [t for t in tensors([args, kwargs]) if t.ndim or copies]  # a number goes along as an argument
        devices = {t.device.type for t in [*given, *tensors(out)]}
        non_blocking = kwargs.get("non_blocking") or (str(func).startswith("aten.copy_") and args[2:] == (True,))
        if len(devices) > 1 and not non_blocking:
            self.found.append(str(func))
        return out


class Constants(TorchFunctionMode):
    """Names of functions that make a tensor of Python's numbers on the device: they copy, out of the sight of dispatch."""

    def __init__(self):
        super().__init__()
        self.found: list[str] = []

    def __torch_function__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        name = getattr(func, "__name__", "")
        fresh = name in ("tensor", "as_tensor", "new_tensor") and out.device.type == "meta"
        if fresh and not any(t.device.type == "meta" for t in tensors(args if name != "new_tensor" else args[1:])):
            self.found.append(name)
        return out


def tensors(given: Any) -> list[Tensor]:
    if isinstance(given, Tensor):
        return [given]
    if isinstance(given, dict):
        given = list(given.values())
    return [t for each in given for t in tensors(each)] if isinstance(given, list | tuple) else []


def on_meta(given: Any) -> Any:
    if isinstance(given, list):
        return [on_meta(each) for each in given]
    return given.to("meta") if isinstance(given, Tensor) else given


class Quiet:
    """In place of autocast, which the device lacks."""

    def __init__(self, *_: Any, **__: Any) -> None: ...

    def __enter__(self):
        return self

    def __exit__(self, *error):
        return None


def step_on_meta(task, batch):
    """Loss, gradients, clipping and optimiser step; what had to be waited for."""
    task._trainer = SimpleNamespace(
        global_step=3, accumulate_grad_batches=1, world_size=1, global_rank=0, current_epoch=1, max_epochs=5, ckpt_path=None,
        estimated_stepping_batches=100, datamodule=None, precision="32-true", optimizers=[],
    )  # fmt: skip
    made = task.configure_optimizers()
    optimiser = made["optimizer"] if isinstance(made, dict) else made
    with Crossings() as crossings, Constants() as constants:
        task.training_step(batch, 0).backward()
        nn.utils.clip_grad_norm_(task.parameters(), 1.0)
        optimiser.step()
    return crossings.found + constants.found


# MEVT asks how many points match, which the device cannot say: see NEEDED
@pytest.mark.parametrize("name", [*cases("mevt")])
def test_a_step_copies_nothing_that_it_waits_for(name, worlds, monkeypatch):
    monkeypatch.setattr(torch, "autocast", Quiet)
    case = CASES[name]
    data = case.data(worlds)
    batches = data.train_dataloader() if hasattr(data, "train_dataloader") else data
    batch = {key: on_meta(value) for key, value in next(iter(batches)).items()}
    task = case.task().to("meta").train()
    for method in ("log", "log_dict"):
        monkeypatch.setattr(task, method, lambda *_, **__: None)
    assert step_on_meta(task, batch) == []


@pytest.mark.parametrize("name", [*cases("probe cached")])
def test_batches_move_without_waiting(name, worlds, monkeypatch):
    """From pinned memory where there is a GPU, all tensors of every recipe."""
    data = CASES[name].data(worlds)
    batch = next(iter(data.train_dataloader()))
    with Crossings() as crossings:
        moved = LightningModule().transfer_batch_to_device(batch, torch.device("meta"), 0)
    assert crossings.found == [] and len(tensors(moved)) == len(tensors(batch)) > 0
    assert {t.device.type for t in tensors(moved)} == {"meta"}
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert data.train_dataloader().pin_memory and data.val_dataloader().pin_memory


def test_a_copy_that_is_waited_for_shows():
    x = torch.zeros(3, device="meta")
    with Crossings() as crossings, Constants() as constants:
        torch.ones(3).to("meta", non_blocking=True)
        x * 2.0
        x * torch.tensor(2.0)
        torch.as_tensor(x)
        x.new_full((), 2.0)
        assert crossings.found + constants.found == []
        x + torch.ones(3).to("meta")
        x.new_tensor([1.0, 2.0])
        torch.tensor([1.0], device="meta")
    assert len(crossings.found) == 1 and constants.found == ["new_tensor", "tensor"]
    with pytest.raises((NotImplementedError, RuntimeError)):
        float(x.sum())


def test_a_queue_asks_until_it_is_full(monkeypatch):
    queue, asked = Fifo(4, 2), []
    monkeypatch.setattr(Tensor, "__int__", lambda x: asked.append(x) or x.item())
    for rows in (3, 3, 3):
        queue.push(torch.rand(rows, 2))
        queue.latest()
    assert len(asked) == 2 and torch.equal(queue.latest(), queue.rows)
