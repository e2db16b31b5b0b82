"""Activations made again on the way back: less is kept, and the gradient is the same."""

import copy

import pytest
import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from frugalseg.callbacks import Recompute
from frugalseg.callbacks.recompute import blocks
from tests.callbacks.test_layout import worlds  # noqa: F401 - a fixture
from tests.integration.speed_cases import CASES, distance, fit

QUICK, DEAR = ("cti, drop path", "tags", "deeplab"), ("sfc", "dsmf", "mevt", "densecl", "finetune")
NAMES = [*QUICK, *(pytest.param(name, marks=pytest.mark.slow) for name in DEAR)]


class Kept:
    """Bytes that are kept for the way back while a block of code runs, each storage once."""

    def __enter__(self):
        self.bytes, self._seen = 0, set()
        self._hooks = torch.autograd.graph.saved_tensors_hooks(self._pack, lambda x: x)
        self._hooks.__enter__()
        return self

    def __exit__(self, *error):
        self._hooks.__exit__(*error)

    def _pack(self, x):
        if (key := x.untyped_storage().data_ptr()) not in self._seen:
            self._seen.add(key)
            self.bytes += x.untyped_storage().nbytes()
        return x


@pytest.mark.parametrize("name", NAMES)
def test_a_fit_computes_the_same(name, worlds):  # noqa: F811
    """Random numbers, running statistics and the moving averages that hang on them included."""
    case = CASES[name]
    plain = fit(case, case.data(worlds), 2)
    found = fit(case, case.data(worlds), 2, Recompute())
    assert found.losses == plain.losses
    assert distance(found, plain) == 0
    theirs = plain.task.state_dict()
    assert [key for key, value in found.task.state_dict().items() if not torch.equal(value, theirs[key])] == []
    assert not any("forward" in vars(module) for module in found.task.modules())


def test_running_statistics_are_of_the_first_pass_alone(worlds):  # noqa: F811
    """A control for the test above: without care they would see each batch twice."""
    task = fit(CASES["tags"], CASES["tags"].data(worlds), 2, Recompute()).task
    counts = {int(m.num_batches_tracked) for m in task.modules() if isinstance(m, _BatchNorm)}
    assert counts == {2}


def test_an_overlay_that_is_given_twice_is_given_once(worlds):  # noqa: F811
    """The second would wrap what the first has wrapped, and look in vain for it at the end."""
    case = CASES["tags"]
    once = fit(case, case.data(worlds), 2, Recompute())
    twice = fit(case, case.data(worlds), 2, Recompute(), Recompute())
    assert twice.losses == once.losses and distance(twice, once) == 0
    assert not any("forward" in vars(module) for module in twice.task.modules())


class CountsAlways(nn.SyncBatchNorm):
    """What `nn.SyncBatchNorm` asks for before it talks to other processes, and a second kind of what may come later."""

    def forward(self, x):
        if self.training and not isinstance(self.num_batches_tracked, torch.Tensor):
            raise AssertionError("num_batches_tracked must not be None")
        return super().forward(x)


def steps(net, recompute, momentum, later=lambda net: net):
    """Two training steps of a copy of a net whose norms are replaced once callbacks have been set up."""
    net, callback = copy.deepcopy(net), Recompute()
    for module in net.modules():
        if isinstance(module, _BatchNorm):
            module.momentum = momentum
    if recompute:
        callback.setup(None, net, "fit")
    net = later(net)
    for step in range(2):
        net(torch.randn(5, 3, 6, 6, generator=torch.Generator().manual_seed(step))).square().mean().backward()
    gradients = [p.grad for p in net.parameters()]
    callback.teardown(None, net, "fit")
    return net.state_dict(), gradients, {m.momentum for m in net.modules() if isinstance(m, _BatchNorm)}


def counts_always(net):
    """As `convert_sync_batchnorm`, with another class."""
    net = nn.SyncBatchNorm.convert_sync_batchnorm(net)
    for module in net.modules():
        if isinstance(module, nn.SyncBatchNorm):
            module.__class__ = CountsAlways
    return net


@pytest.mark.parametrize("momentum", [0.1, 1.0, None])
@pytest.mark.parametrize("later", [lambda net: net, nn.SyncBatchNorm.convert_sync_batchnorm, counts_always])
def test_norms_that_are_replaced_after_the_setup_count_once(later, momentum):
    """`trainer.sync_batchnorm` replaces them then. In one process `nn.SyncBatchNorm` works as its plain kin on a CPU."""
    torch.manual_seed(0)
    net = nn.Sequential(*(nn.Sequential(nn.Conv2d(3, 3, 3), nn.BatchNorm2d(3), nn.ReLU()) for _ in range(2)))
    plain, found = (steps(net, recompute, momentum, later) for recompute in (False, True))
    assert plain[0].keys() == found[0].keys()
    assert [key for key, value in found[0].items() if not torch.equal(value, plain[0][key])] == []
    assert {int(v) for k, v in found[0].items() if k.endswith("num_batches_tracked")} == {2}
    assert all(torch.equal(a, b) for a, b in zip(found[1], plain[1], strict=True))
    assert found[2] == {momentum}


def test_norms_are_themselves_again_after_an_error_on_the_way_back():
    class Fails(nn.Module):
        calls = 0

        def forward(self, x):
            self.calls += 1
            if self.calls == 2:
                raise RuntimeError("no memory")
            return x

    net, callback = nn.Sequential(nn.Sequential(nn.BatchNorm1d(3), Fails(), nn.Linear(3, 3))), Recompute()
    callback.setup(None, net, "fit")
    counter = net[0][0].num_batches_tracked
    with pytest.raises(RuntimeError, match="no memory"):
        net(torch.rand(4, 3, requires_grad=True)).sum().backward()
    callback.on_exception(None, net, RuntimeError())
    assert net[0][0].num_batches_tracked is counter and int(counter) == 1 and net[0][0].momentum == 0.1


def test_less_is_kept():
    net = nn.Sequential(
        *(nn.Sequential(nn.Sequential(nn.Linear(64, 256), nn.GELU(), nn.Linear(256, 64))) for _ in range(6))
    )
    x = torch.rand(512, 64)
    with Kept() as plain:
        net(x).sum().backward()
    callback = Recompute()
    callback.setup(None, net, "fit")
    found = blocks(net)
    assert len(found) == 6
    with Kept() as forgetful:
        loss = net(x).sum()
    assert forgetful.bytes < plain.bytes / 4
    loss.backward()
    callback.teardown(None, net, "fit")


@pytest.mark.parametrize("name", NAMES)
def test_blocks_are_found_and_none_in_another(name):
    found = blocks(CASES[name].task())
    assert len(found) >= 2
    assert not any(part in found for each in found for part in each.modules() if part is not each)
    assert all(any(p.requires_grad for p in each.parameters()) for each in found)
