"""Blocks of MEVT's encoder and decoder (mevt.md b.2 to b.4).

Tokens (N, L, C) and maps (N, C, H, W) are two views of the same memory: a map made of tokens has its channels last in
memory, and so have the outputs of its convolutions, so that going to and fro copies nothing.
"""

from collections.abc import Callable
from math import sqrt
from typing import Any

import torch
import torch.nn.functional as F
from timm.layers.drop import DropPath
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from frugalseg.nn.initial import small_normal_

EPS = 1e-6
"""Of layer norms."""

Grid = tuple[int, int]


def as_tokens(x: Tensor) -> Tensor:
    """(N, C, H, W) -> (N, H * W, C), row-major."""
    return x.flatten(2).transpose(1, 2)


def as_map(x: Tensor, grid: Grid) -> Tensor:
    """(N, H * W, C) -> (N, C, H, W)."""
    return x.transpose(1, 2).reshape(x.shape[0], x.shape[2], *grid)


def run(module: Callable[..., Any], *inputs: Any, checkpointing: bool) -> Any:
    """Call a module; with `checkpointing` its activations are made again on the way back and not kept.

    Random numbers are drawn again from the same state, so results and gradients are those of a plain call.
    """
    if checkpointing and torch.is_grad_enabled():
        return checkpoint(module, *inputs, use_reentrant=False)
    return module(*inputs)


def initialise(module: nn.Module) -> None:
    """Set weights as mevt.md b.6 does; for `nn.Module.apply`. Norms begin at 1 and 0 anyway."""
    if isinstance(module, nn.Linear):
        small_normal_(module.weight)
    elif isinstance(module, nn.Conv2d):
        fan_out = module.kernel_size[0] * module.kernel_size[1] * module.out_channels // module.groups
        nn.init.normal_(module.weight, std=sqrt(2 / fan_out))
    else:
        return
    if module.bias is not None:
        nn.init.zeros_(module.bias)


class Attention(nn.Module):
    """Multi-head scaled dot-product attention of tokens to others.

    Args:
        dim: C, of queries, sources and results.
        heads: number of heads.

    Raises:
        ValueError: the heads do not divide the channels.
    """

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        if dim % heads:
            raise ValueError(f"{heads} heads do not divide {dim} channels")
        self.heads = heads
        self.q, self.kv, self.proj = nn.Linear(dim, dim), nn.Linear(dim, 2 * dim), nn.Linear(dim, dim)

    def forward(self, x: Tensor, source: Tensor) -> Tensor:
        """Attend.

        Args:
            x: (N, L, C) normed tokens that ask.
            source: (N, M, C) normed tokens that are asked.

        Returns:
            (N, L, C).
        """
        q = self.q(x).unflatten(-1, (self.heads, -1)).transpose(1, 2)
        k, v = self.kv(source).unflatten(-1, (2, self.heads, -1)).permute(2, 0, 3, 1, 4)
        out: Tensor = self.proj(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))
        return out


class MixFFN(nn.Module):
    """W2 GELU(DW3x3(W1 x)); the zeros around the convolution tell where a token is (mevt.md b.2).

    Args:
        dim: C.
        ratio: hidden channels over C.
    """

    def __init__(self, dim: int, ratio: int) -> None:
        super().__init__()
        hidden = dim * ratio
        self.expand, self.project = nn.Linear(dim, hidden), nn.Linear(hidden, dim)
        self.mix = nn.Conv2d(hidden, hidden, 3, padding=1, groups=hidden)

    def forward(self, x: Tensor, grid: Grid) -> Tensor:
        """Mix neighbours.

        Args:
            x: (N, G + H * W, C) normed tokens; the G in front have no place on the grid and pass the linears alone.
            grid: (H, W).

        Returns:
            The same shape.
        """
        hidden = self.expand(x)
        front = hidden.shape[1] - grid[0] * grid[1]
        mixed = as_tokens(self.mix(as_map(hidden[:, front:], grid)))
        if front:
            mixed = torch.cat([hidden[:, :front], mixed], dim=1)
        out: Tensor = self.project(F.gelu(mixed))
        return out


class Block(nn.Module):
    """Spatially reduced attention, then `MixFFN`, both with a skip connection and stochastic depth (mevt.md b.2).

    Args:
        dim: C.
        heads: attention heads.
        reduction: R, side in cells of the squares that keys and values are made of.
        ratio: hidden channels of the FFN over C.
        drop_path: rate at which a sample skips one of the two branches in training.
    """

    def __init__(self, dim: int, heads: int, reduction: int, ratio: int, drop_path: float) -> None:
        super().__init__()
        self.reduction = reduction
        self.norm1, self.attention = nn.LayerNorm(dim, EPS), Attention(dim, heads)
        if reduction > 1:
            self.reduce, self.reduce_norm = nn.Conv2d(dim, dim, reduction, reduction), nn.LayerNorm(dim, EPS)
        self.norm2, self.ffn = nn.LayerNorm(dim, EPS), MixFFN(dim, ratio)
        self.drop_path = DropPath(drop_path) if drop_path else nn.Identity()

    def source(self, x: Tensor, grid: Grid) -> Tensor:
        """Tokens that become keys and values: those in front as they are, those of the grid reduced.

        A grid with a side under R is left as it is.
        """
        if self.reduction == 1 or min(grid) < self.reduction:
            return x
        front = x.shape[1] - grid[0] * grid[1]
        reduced = self.reduce_norm(as_tokens(self.reduce(as_map(x[:, front:], grid))))
        return torch.cat([x[:, :front].to(reduced.dtype), reduced], dim=1) if front else reduced

    def forward(self, x: Tensor, grid: Grid) -> Tensor:
        """(N, G + H * W, C) -> the same shape, with the G tokens without a place in front."""
        normed = self.norm1(x)
        x = x + self.drop_path(self.attention(normed, self.source(normed, grid)))
        done: Tensor = x + self.drop_path(self.ffn(self.norm2(x), grid))
        return done
