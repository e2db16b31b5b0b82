"""The global reasoning unit (GloRe) of DSMF-Net's graph branch (dsmf.md 4.2; Chen et al., CVPR 2019).

N images, d channels, P = h·w places, n nodes, T numbers per node (its state). Nodes are learned soft regions of the
whole feature map: places are gathered into nodes, nodes exchange their states over a complete graph whose weights are
learned, signed and the same for every image, and each place gets back from the nodes in the measure in which it gave.
"""

from typing import cast

import torch
from torch import Tensor, nn

from frugalseg.ops.precision import at_least_float32

IMPLEMENTATIONS = ("einsum", "pyg")
NORM_EPS = 1e-4
"""Of the unit's batch normalisation, as its authors released it."""


class GraphUnit(nn.Module):
    """G(X) = X + BN(W_e Y): the map and what reasoning over nodes adds to it.

    The last normalisation begins with scale 0, so the unit begins as the identity and its first step moves only that
    scale and shift. Run query and supports of a stage through it in ONE batch: two calls would update the running
    statistics twice, each time from one side only.

    Products are taken in the order that is cheaper for n < T: the map is gathered before it is projected to states,
    and states are projected back before they are spread over places. Neither T x P matrix exists.

    The assignment follows autocast; all else is computed at least in float32.

    Args:
        dim: d.
        nodes: n.
        states: T, in the released unit 2 n.
        impl: `einsum`, or `pyg` for the same sum by `torch_geometric.nn.DenseGraphConv`. Parameters, their names and
            the random numbers taken to start them are the same, so checkpoints fit both.
        normalise: divide node states by P. The released unit can leave it out, DSMF-Net cannot: its stages and its
            images differ in size.

    Raises:
        ValueError: no such implementation.
    """

    def __init__(
        self, dim: int = 256, nodes: int = 64, states: int = 128, impl: str = "einsum", normalise: bool = True
    ) -> None:
        super().__init__()
        if impl not in IMPLEMENTATIONS:
            raise ValueError(f"graph_impl must be one of {', '.join(IMPLEMENTATIONS)}, got {impl!r}")
        self.normalise = normalise
        self.state = nn.Conv2d(dim, states, 1)
        """W_s, b_s."""
        self.assign = nn.Conv2d(dim, nodes, 1)
        """W_p, b_p: how much each place belongs to each node; neither softmax nor activation."""
        self.adjacency = nn.Linear(nodes, nodes)
        """A, weight [n, m] from node m to node n, and a, one bias per node."""
        self.mix = nn.Linear(states, states, bias=False)
        """W_g."""
        self.extend = nn.Conv2d(states, dim, 1, bias=False)
        """W_e."""
        self.norm = nn.BatchNorm2d(dim, eps=NORM_EPS)
        nn.init.zeros_(self.norm.weight)
        self.convolution = identity_graph_conv(states) if impl == "pyg" else None

    def to_nodes(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Gather places into nodes.

        Args:
            x: (N, d, h, w).

        Returns:
            Node states V (N, T, n) and the assignment phi (N, n, P), at least float32.
        """
        phi = at_least_float32(self.assign(x)).flatten(2)
        with torch.autocast(x.device.type, enabled=False):
            places = phi.shape[-1] if self.normalise else 1
            gathered = torch.einsum("bdp,bnp->bdn", at_least_float32(x).flatten(2), phi) / places
            shift = torch.einsum("t,bn->btn", cast(Tensor, self.state.bias), phi.sum(dim=-1) / places)
            return torch.einsum("td,bdn->btn", self.state.weight.flatten(1), gathered) + shift, phi

    def reason(self, v: Tensor) -> Tensor:
        """Exchange states between nodes: Z = W_g ReLU(V + V A^T + a).

        Args:
            v: (N, T, n).

        Returns:
            (N, T, n).
        """
        with torch.autocast(v.device.type, enabled=False):
            if self.convolution is None:
                h = v + torch.einsum("btm,nm->btn", v, self.adjacency.weight)
            else:
                h = self.convolution(v.transpose(1, 2), self.adjacency.weight).transpose(1, 2)
            return torch.einsum("st,btn->bsn", self.mix.weight, (h + self.adjacency.bias).relu())

    def forward(self, x: Tensor) -> Tensor:
        """Features with what the nodes add.

        Args:
            x: (N, d, h, w).

        Returns:
            Same shape, at least float32.
        """
        v, phi = self.to_nodes(x)
        z = self.reason(v)
        with torch.autocast(x.device.type, enabled=False):
            back = torch.einsum("dt,btn->bdn", self.extend.weight.flatten(1), z)
            added: Tensor = self.norm(torch.einsum("bdn,bnp->bdp", back, phi).reshape(x.shape))
        return at_least_float32(x) + added


def identity_graph_conv(states: int) -> nn.Module:
    """A `DenseGraphConv` that computes A x + x and has nothing to learn or to save.

    It is right for a complete graph with signed weights; `DenseGCNConv` would overwrite the diagonal of A and divide by
    degrees, which mean nothing for signed weights (dsmf.md 4.2).

    Args:
        states: T.

    Returns:
        Module of (N, n, T) node states and (n, n) weights; both of its matrices are identities, kept as buffers.
    """
    # takes seconds, and only this form needs it
    from torch_geometric.nn import DenseGraphConv  # type: ignore[import-untyped]

    with torch.random.fork_rng(devices=[]):  # the start that its layers draw is thrown away
        layer: nn.Module = DenseGraphConv(states, states, aggr="add", bias=False)
    for name in ("lin_rel", "lin_root"):
        linear = layer.get_submodule(name)
        del linear.weight
        linear.register_buffer("weight", torch.eye(states), persistent=False)
    return layer
