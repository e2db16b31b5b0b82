"""A convolution in the place of the graph unit: a control that differs from it in one thing.

The ablation that DSMF-Net reports replaces the graph branch by convolution (dsmf.md, section 1, row 14). A plain
convolution there is a poor control: it has to learn the identity first, from which the graph unit starts, and it has
another number of parameters. This one starts as the identity by the same means and is as large; what is left is that
it sees a neighbourhood of 3 x 3 places, where nodes see the whole map.
"""

from typing import Literal, cast

import torch
from torch import Tensor, nn

from frugalseg.ops.precision import at_least_float32
from frugalseg.papers.dsmf.graph import NORM_EPS, GraphUnit


class GridUnit(nn.Module):
    """X + BN(W_e ReLU(K * ReLU(W_s X))): a residual bottleneck whose last normalisation begins with scale 0.

    Args:
        dim: d.
        hidden: channels between the two 1x1 convolutions.
    """

    def __init__(self, dim: int, hidden: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(dim, hidden, 1),
            nn.ReLU(inplace=True),
            nn.Conv2d(hidden, hidden, 3, padding=1),
            nn.ReLU(inplace=True),
            nn.Conv2d(hidden, dim, 1, bias=False),
        )
        self.norm = nn.BatchNorm2d(dim, eps=NORM_EPS)
        nn.init.zeros_(self.norm.weight)

    def forward(self, x: Tensor) -> Tensor:
        """Features with what their neighbours add.

        Args:
            x: (N, d, h, w).

        Returns:
            Same shape, at least float32.
        """
        added = at_least_float32(self.body(x))
        with torch.autocast(x.device.type, enabled=False):
            return at_least_float32(x) + cast(Tensor, self.norm(added))


def hidden_like(dim: int, nodes: int, states: int) -> int:
    """Channels c with which a `GridUnit` has as many parameters as a `GraphUnit`, as nearly as whole numbers allow.

    Args:
        dim: d.
        nodes: n.
        states: T.

    Returns:
        The c for which 2 d c + 9 c^2 + 2 c comes closest to what the graph unit has but for its normalisation.
    """
    wanted = dim * states + states + dim * nodes + nodes + nodes * nodes + nodes + states * states + states * dim
    return min(range(1, dim + states + nodes), key=lambda c: abs(2 * dim * c + 9 * c * c + 2 * c - wanted))


def unit_of(kind: Literal["graph", "grid"], dim: int, nodes: int, states: int, impl: str) -> nn.Module:
    """The unit of one stage.

    Args:
        kind: `graph` or `grid`.
        dim: d.
        nodes: n; of a grid unit they say how large it is.
        states: T, likewise.
        impl: of the graph unit.

    Raises:
        ValueError: there is no such unit.
    """
    if kind == "graph":
        return GraphUnit(dim, nodes, states, impl)
    if kind == "grid":
        return GridUnit(dim, hidden_like(dim, nodes, states))
    raise ValueError(f"unit must be graph or grid, got {kind!r}")
