"""Heads of self-supervised training: projections to the unit sphere, and cosines to prototypes (mevt.md c.1)."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from frugalseg.ops.precision import at_least_float32
from frugalseg.papers.mevt.blocks import initialise


def unit(x: Tensor) -> Tensor:
    """Vectors (..., d) over their l2-norm, at least in float32."""
    return F.normalize(at_least_float32(x), dim=-1)


class Head(nn.Module):
    """Linears with GELU between them, and an l2-norm at the end.

    Args:
        inputs: channels of what comes in.
        hidden: width of each hidden linear.
        outputs: d.
        norm: puts a batch norm behind each hidden linear, and one without weights in front of the l2-norm. For
            batches of 64 and fewer, whose heads collapse less with it (mevt.md c.9).
    """

    def __init__(self, inputs: int, hidden: Sequence[int], outputs: int, norm: bool = False) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for width in hidden:
            layers += [nn.Linear(inputs, width), *([nn.BatchNorm1d(width)] if norm else []), nn.GELU()]
            inputs = width
        layers += [nn.Linear(inputs, outputs), *([nn.BatchNorm1d(outputs, affine=False)] if norm else [])]
        self.layers, self.norm = nn.Sequential(*layers), norm
        self.apply(initialise)

    def forward(self, x: Tensor) -> Tensor:
        """Project.

        Args:
            x: (N, inputs).

        Returns:
            (N, d) unit vectors, at least in float32.

        Raises:
            ValueError: one row alone in training with batch norms: it would be normed to zero.
        """
        return unit(self.project(x))

    def project(self, x: Tensor) -> Tensor:
        """As `forward`, but of any length and in the precision of the layers."""
        if self.norm and self.training and len(x) < 2:
            raise ValueError(
                f"a head with BatchNorm cannot train on {len(x)} row: "
                "use a batch of 2 or more, or heads with norm=False"
            )
        found: Tensor = self.layers(x)
        return found


class Prototypes(nn.Module):
    """Cosines to K unit vectors: a linear whose rows have norm 1, without bias, whatever autocast says.

    Args:
        inputs: d.
        count: K.
    """

    def __init__(self, inputs: int, count: int) -> None:
        super().__init__()
        # the length of a row has no effect on the cosines, but on the size of steps: all begin with 1
        self.weight = nn.Parameter(unit(torch.randn(count, inputs)))

    def forward(self, x: Tensor) -> Tensor:
        """(N, d) unit vectors -> (N, K) cosines, at least in float32."""
        with torch.autocast(x.device.type, enabled=False):
            return at_least_float32(x) @ unit(self.weight).T
