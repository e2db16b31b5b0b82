"""The convolution that stands for the graph unit: the same start, the same size, a smaller field."""

import pytest
import torch

from frugalseg.papers.dsmf.graph import GraphUnit
from frugalseg.papers.dsmf.grid import GridUnit, hidden_like, unit_of
from frugalseg.papers.dsmf.model import DSMFNet

SIZES = [(64, 16, 32), (256, 64, 128), (256, 32, 128)]


def parameters(module):
    return sum(p.numel() for p in module.parameters())


@pytest.mark.parametrize("size", SIZES)
def test_as_many_parameters_as_the_graph_unit(size):
    graph, grid = unit_of("graph", *size, "einsum"), unit_of("grid", *size, "einsum")
    assert isinstance(graph, GraphUnit)
    assert isinstance(grid, GridUnit)
    wanted = parameters(graph)
    assert abs(parameters(grid) - wanted) <= 0.05 * wanted
    hidden = hidden_like(*size)
    nearest = min(abs(parameters(GridUnit(size[0], hidden + step)) - wanted) for step in (-1, 1))
    assert abs(parameters(grid) - wanted) <= nearest


def test_starts_as_the_identity_and_learns_to_leave_it():
    torch.manual_seed(0)
    unit, x = GridUnit(8, 3), torch.randn(2, 8, 5, 6)
    assert torch.equal(unit(x), x)
    (unit(x) * torch.randn_like(x)).sum().backward()
    assert unit.norm.weight.grad.abs().max() > 0, "else it would never begin to learn"
    torch.nn.init.ones_(unit.norm.weight)
    assert not torch.allclose(unit(x), x)


def test_sees_three_by_three_places():
    torch.manual_seed(0)
    unit = GridUnit(8, 3).eval()
    torch.nn.init.ones_(unit.norm.weight)
    x = torch.randn(1, 8, 7, 7)
    other = x.clone()
    other[0, :, 3, 3] += 1
    changed = (unit(other) - unit(x)).abs().amax(dim=(0, 1)) > 0
    expected = torch.zeros(7, 7, dtype=torch.bool)
    expected[2:5, 2:5] = True
    assert not (changed & ~expected).any()
    assert changed[3, 3]
    assert changed.sum() > 1


def test_an_unknown_unit_is_refused():
    with pytest.raises(ValueError, match="unit must be graph or grid"):
        unit_of("mesh", 8, 2, 4, "einsum")  # type: ignore[arg-type]


def test_the_net_has_them_in_every_graph_stage():
    options = {"layers": [1, 1, 1, 1], "channels": [8, 8, 8, 8]}
    small = {"strides": [2, 2, 2], "dilations": [2, 2], "options": options}
    nets = [DSMFNet("resnet18", small, dim=8, nodes=2, states=4, sff_levels=2, unit=u) for u in ("graph", "grid")]
    assert all(isinstance(unit, GridUnit) for unit in nets[1].graphs)
    left = [{k for k in net.state_dict() if not k.startswith("graphs.")} for net in nets]
    assert left[0] == left[1]
