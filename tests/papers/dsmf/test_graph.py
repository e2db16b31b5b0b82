"""The graph unit against its authors' vectors, loops, both forms of PyTorch Geometric, and itself at its start."""

import subprocess
import sys

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from frugalseg.papers.dsmf.graph import IMPLEMENTATIONS, GraphUnit
from tests.papers.dsmf import oracles

few = settings(deadline=None, max_examples=40)
both = pytest.mark.parametrize("impl", IMPLEMENTATIONS)

REFERENCE = {
    "state.weight": "conv_state__weight",
    "state.bias": "conv_state__bias",
    "assign.weight": "conv_proj__weight",
    "assign.bias": "conv_proj__bias",
    "adjacency.weight": "gcn__conv1__weight",
    "adjacency.bias": "gcn__conv1__bias",
    "mix.weight": "gcn__conv2__weight",
    "extend.weight": "conv_extend__weight",
    "norm.weight": "blocker__weight",
    "norm.bias": "blocker__bias",
    "norm.running_mean": "blocker__running_mean",
    "norm.running_var": "blocker__running_var",
    "norm.num_batches_tracked": "blocker__num_batches_tracked",
}
"""Our name -> name in the release of the unit's authors."""
FILES = pytest.mark.parametrize(
    ("file", "normalise", "tolerance"), [("fewshot/glore_norm", True, 1e-5), ("fewshot/glore_raw", False, 1e-4)]
)


def weights_of(g):
    """The stored weights by our names; the release keeps the matrices of nodes as convolutions of width 1."""
    weights = {name: g[f"w_{theirs}"] for name, theirs in REFERENCE.items()}
    return {k: w[:, :, 0] if k in ("adjacency.weight", "mix.weight") else w for k, w in weights.items()}


def unit_of(g, **options):
    weights = weights_of(g)
    states, dim = weights["state.weight"].shape[:2]
    unit = GraphUnit(dim, len(weights["assign.weight"]), states, **options)
    unit.load_state_dict({name: torch.as_tensor(w) for name, w in weights.items()})
    return unit.eval()


def random_unit(seed=0, dim=6, nodes=4, states=5, **options):
    """A float64 unit whose normalisation does something."""
    torch.manual_seed(seed)
    unit = GraphUnit(dim, nodes, states, **options).double()
    with torch.no_grad():
        for values in (unit.norm.weight, unit.norm.bias, unit.norm.running_mean):
            values.normal_()
        unit.norm.running_var.uniform_(0.5, 2)
    return unit.eval()


def features(seed, *shape):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def arrays(unit):
    return {name: value.numpy() for name, value in unit.state_dict().items()}


# ---------------------------------------------------------------------- the arithmetic


@pytest.mark.golden
@FILES
@both
def test_the_authors_unit(golden, file, normalise, tolerance, impl):
    g = golden(file)
    unit, x = unit_of(g, impl=impl, normalise=normalise), torch.as_tensor(g["x"])
    with torch.no_grad():
        v, _ = unit.to_nodes(x)
        z, y = unit.reason(v), unit(x)
    for name, value in (("nodes_in", v), ("nodes_out", z), ("y", y)):
        np.testing.assert_allclose(value, g[name], rtol=0, atol=tolerance, err_msg=name)


@pytest.mark.golden
@FILES
def test_the_loops_are_the_authors_unit(golden, file, normalise, tolerance):
    g = golden(file)
    y, v, z = oracles.graph_unit(g["x"], weights_of(g), normalise)
    for name, value in (("nodes_in", v), ("nodes_out", z), ("y", y)):
        np.testing.assert_allclose(value, g[name], rtol=0, atol=tolerance, err_msg=name)


@few
@given(st.integers(0, 2**31), st.tuples(*[st.integers(1, 5)] * 6), st.booleans(), st.sampled_from(IMPLEMENTATIONS))
def test_the_unit_equals_loops(seed, shape, normalise, impl):
    images, dim, nodes, states, height, width = shape
    unit = random_unit(seed, dim, nodes, states, impl=impl, normalise=normalise)
    x = features(seed, images, dim, height, width)
    with torch.no_grad():
        got = unit(x)
    np.testing.assert_allclose(got, oracles.graph_unit(x.numpy(), arrays(unit), normalise)[0], rtol=0, atol=1e-10)


def test_reasoning_is_message_passing_on_the_complete_graph():
    """Edge m -> n carries A[n, m]; the nodes of image i are i·n and following."""
    from torch_geometric.nn import GraphConv

    unit, images, states, nodes = random_unit(), 3, 5, 4
    v = features(1, images, states, nodes)
    layer = GraphConv(states, states, aggr="add", bias=False).double()
    target, source = torch.cartesian_prod(torch.arange(nodes), torch.arange(nodes)).T
    offsets = nodes * torch.arange(images)[:, None]
    edges = torch.stack([(source + offsets).flatten(), (target + offsets).flatten()])
    with torch.no_grad():
        for linear in (layer.lin_rel, layer.lin_root):
            linear.weight.copy_(torch.eye(states))
        carried = unit.adjacency.weight[target, source].repeat(images)
        h = layer(v.transpose(1, 2).reshape(-1, states), edges, carried).reshape(images, nodes, states)
        expected = unit.mix((h + unit.adjacency.bias[:, None]).relu()).transpose(1, 2)
        torch.testing.assert_close(unit.reason(v), expected, rtol=0, atol=1e-12)


@both
def test_the_order_of_places_only_orders_the_result(impl):
    unit, x = random_unit(impl=impl), features(2, 2, 6, 3, 5)
    order = torch.randperm(15, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        shuffled = unit(x.flatten(2)[..., order].unflatten(2, (3, 5)))
        torch.testing.assert_close(shuffled.flatten(2), unit(x).flatten(2)[..., order], rtol=0, atol=1e-12)


def test_repeated_places_change_nothing_where_node_states_are_normalised():
    """Why P is divided by: an image of twice the size would otherwise have node states of four times the length."""
    x = features(3, 2, 6, 3, 4)
    doubled = x.repeat_interleave(2, dim=2).repeat_interleave(2, dim=3)
    with torch.no_grad():
        for normalise, factor in ((True, 1), (False, 4)):
            unit = random_unit(normalise=normalise)
            torch.testing.assert_close(unit.to_nodes(doubled)[0], factor * unit.to_nodes(x)[0], rtol=0, atol=1e-12)


# ---------------------------------------------------------------------- both implementations


def test_a_checkpoint_fits_both_implementations_and_a_seed_starts_both_alike():
    units, following = [], []
    for impl in IMPLEMENTATIONS:
        torch.manual_seed(7)
        units.append(GraphUnit(6, 4, 5, impl=impl))
        following.append(torch.rand(1))
    einsum, pyg = units
    assert set(einsum.state_dict()) == set(pyg.state_dict()) == set(REFERENCE)
    assert [n for n, _ in einsum.named_parameters()] == [n for n, _ in pyg.named_parameters()]
    for name, value in einsum.state_dict().items():
        assert torch.equal(value, pyg.state_dict()[name]), name
    assert torch.equal(*following), "building one of them takes other random numbers"
    other = random_unit(3).state_dict()
    for unit in units:
        unit.double().load_state_dict(other)
        unit.eval()
    x = features(4, 2, 6, 3, 3)
    torch.testing.assert_close(einsum(x), pyg(x), rtol=0, atol=1e-12)


def test_gradients_of_both_implementations_agree():
    einsum, pyg = random_unit(5), random_unit(5, impl="pyg")
    x = features(6, 2, 6, 4, 3)
    for unit in (einsum, pyg):
        (unit(x) * features(7, 2, 6, 4, 3)).sum().backward()
    for (name, ours), theirs in zip(einsum.named_parameters(), pyg.parameters(), strict=True):
        torch.testing.assert_close(ours.grad, theirs.grad, rtol=0, atol=1e-10, msg=name)
        assert ours.grad.abs().max() > 0, name


def test_torch_geometric_is_loaded_only_where_it_is_asked_for():
    code = (
        "import sys; from frugalseg.papers.dsmf.graph import GraphUnit; GraphUnit(4, 2, 2)\n"
        "print('torch_geometric' in sys.modules)\n"
        "GraphUnit(4, 2, 2, impl='pyg'); print('torch_geometric' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "True"]


def test_an_unknown_implementation_is_refused():
    with pytest.raises(ValueError, match="graph_impl must be one of einsum, pyg, got 'sparse'"):
        GraphUnit(impl="sparse")


@both
def test_parameters_of_three_units(impl):
    """dsmf.md 4.9."""
    assert 3 * sum(p.numel() for p in GraphUnit(impl=impl).parameters()) == 309_504


# ---------------------------------------------------------------------- training


@both
@pytest.mark.parametrize("training", [True, False])
def test_the_unit_begins_as_the_identity(impl, training):
    torch.manual_seed(0)
    unit, x = GraphUnit(6, 4, 5, impl=impl).train(training), torch.randn(2, 6, 3, 7)
    assert torch.equal(unit(x), x)


@both
def test_the_first_step_moves_only_scale_and_shift_and_the_second_one_everything(impl):
    torch.manual_seed(0)
    unit = GraphUnit(6, 4, 5, impl=impl)
    optimiser = torch.optim.SGD(unit.parameters(), lr=0.1)
    x, goal = torch.randn(2, 6, 4, 5), torch.randn(2, 6, 4, 5)

    def moved():
        optimiser.zero_grad()
        (unit(x) * goal).sum().backward()
        names = {name for name, p in unit.named_parameters() if p.grad.abs().max() > 0}
        optimiser.step()
        return names

    assert moved() == {"norm.weight", "norm.bias"}
    assert moved() == {name for name, _ in unit.named_parameters()}


def test_gradients_are_those_of_differences():
    unit = random_unit(8, dim=3, nodes=2, states=3).train()
    x = features(9, 2, 3, 2, 3).requires_grad_()
    assert torch.autograd.gradcheck(unit, (x,), atol=1e-6)


# ---------------------------------------------------------------------- precision


@both
def test_graph_arithmetic_stays_float32_under_autocast(impl):
    """Only the assignment is rounded: all else equals float32 arithmetic with the rounded one."""
    unit = random_unit(10, dim=16, nodes=8, states=12, impl=impl).float()
    x = features(11, 2, 16, 9, 7).float()
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
        y = unit(x)
        v, phi = unit.to_nodes(x)
        z = unit.reason(v)
    assert {a.dtype for a in (y, v, phi, z)} == {torch.float32}
    assert torch.equal(phi.bfloat16().float(), phi), "the assignment does follow autocast"
    unit.double()
    with torch.no_grad():
        theta = unit.state(x.double()).flatten(2)
        torch.testing.assert_close(v.double(), theta @ phi.double().transpose(1, 2) / 63, rtol=0, atol=1e-6)
        torch.testing.assert_close(z.double(), unit.reason(v.double()), rtol=0, atol=1e-5)
        back = unit.norm(unit.extend((z.double() @ phi.double()).unflatten(2, (9, 7))))
    torch.testing.assert_close(y.double(), x.double() + back, rtol=0, atol=1e-5)


def test_bfloat16_features_come_out_as_float32():
    unit, x = GraphUnit(6, 4, 5), torch.randn(2, 6, 3, 3).bfloat16()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y = unit(x)
    assert y.dtype == torch.float32
    assert torch.equal(y, x.float())
