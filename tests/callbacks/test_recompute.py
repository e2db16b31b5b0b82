"""Activations made again on the way back: less is kept, and the gradient is the same."""

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
