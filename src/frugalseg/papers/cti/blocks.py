"""Transformer blocks that keep what CTI's maps need of their attention, and nothing else (cti.md sections 3 and 15).

A map needs sums over blocks of head-averaged attention: of the class rows, or of patches to patches. Samples of a batch
differ in what they need, so they come in groups. Where a group needs nothing, attention is fused; where it needs class
rows, only these are computed beside the fused output; only patch affinities need the whole matrix.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from timm.models.vision_transformer import Block
from torch import Tensor, nn

from frugalseg.ops.precision import at_least_float32


class AttentionSums:
    """Running sums of one group of samples.

    Args:
        size: samples in the group.
        tokens: K class tokens in front of the patches.
        rows_from: number of the first block whose class rows are added; None for no rows.
        patches_from: number of the first block whose patch affinities are added; None for none.
    """

    def __init__(self, size: int, tokens: int, rows_from: int | None = None, patches_from: int | None = None) -> None:
        self.size, self.tokens = size, tokens
        self.rows_from, self.patches_from = rows_from, patches_from
        self.rows: Tensor | None = None
        """(size, K, P) class rows, patch columns."""
        self.patches: Tensor | None = None
        """(size, P, P) patch rows, patch columns."""

    def wants_rows(self, index: int) -> bool:
        """Whether block `index` counts in the class rows."""
        return self.rows_from is not None and index >= self.rows_from

    def wants_patches(self, index: int) -> bool:
        """Whether block `index` counts in the patch affinities."""
        return self.patches_from is not None and index >= self.patches_from

    def attend(self, q: Tensor, k: Tensor, v: Tensor, index: int) -> Tensor:
        """Attention of block `index` for this group; adds to the sums.

        Args:
            q: (size, heads, K + P, d) queries.
            k: keys of the same shape.
            v: values of the same shape.
            index: number of the block.

        Returns:
            (size, heads, K + P, d).
        """
        if self.wants_patches(index):
            attention = _softmax(q, k)
            mean = attention.mean(dim=1)
            self.patches = _added(self.patches, mean[:, self.tokens :, self.tokens :])
            if self.wants_rows(index):
                self.rows = _added(self.rows, mean[:, : self.tokens, self.tokens :])
            return attention.to(v.dtype) @ v
        if self.wants_rows(index):
            mean = _softmax(q[:, :, : self.tokens], k).mean(dim=1)
            self.rows = _added(self.rows, mean[:, :, self.tokens :])
        return F.scaled_dot_product_attention(q, k, v)


def _softmax(q: Tensor, k: Tensor) -> Tensor:
    """Attention weights, at least in float32 whatever the trainer's precision is."""
    logits: Tensor = (q * q.shape[-1] ** -0.5) @ k.transpose(-2, -1)
    return at_least_float32(logits).softmax(dim=-1)


def _added(total: Tensor | None, part: Tensor) -> Tensor:
    return part if total is None else total + part


class TokenBlock(Block):
    """timm's ViT block that can keep sums of its attention; parameters and names are timm's.

    Stochastic depth leaves out the work of the samples that skip a branch, not only its result.

    Args:
        index: number of the block, from 0.
        dim: D.
        heads: attention heads.
        mlp_ratio: hidden width of the MLP over D.
        drop_path: rate at which a sample skips one of the two branches in training.
    """

    attn: Any
    mlp: Any

    def __init__(self, index: int, dim: int, heads: int, mlp_ratio: float, drop_path: float) -> None:
        norm: Any = partial(nn.LayerNorm, eps=1e-6)
        super().__init__(dim, heads, mlp_ratio, qkv_bias=True, norm_layer=norm)
        self.index, self.drop_path = index, drop_path

    def forward(self, x: Tensor, groups: Sequence[AttentionSums] = ()) -> Tensor:  # type: ignore[override]
        """Run the block.

        Args:
            x: (N, K + P, D).
            groups: consecutive parts of the batch with what they need; none where nobody needs anything.

        Returns:
            (N, K + P, D).
        """
        if any(group.wants_rows(self.index) or group.wants_patches(self.index) for group in groups):
            x = self._attended(x, groups)
        else:
            x = self._added(x, lambda part: self.attn(self.norm1(part)))
        return self._added(x, lambda part: self.mlp(self.norm2(part)))

    def _attended(self, x: Tensor, groups: Sequence[AttentionSums]) -> Tensor:
        """The attention branch where its matrices are needed, of samples that skip it too."""
        samples, length, width = x.shape
        qkv = self.attn.qkv(self.norm1(x)).reshape(samples, length, 3, self.attn.num_heads, -1)
        parts = qkv.permute(2, 0, 3, 1, 4).split([group.size for group in groups], dim=1)
        attended = [group.attend(q, k, v, self.index) for group, (q, k, v) in zip(groups, parts, strict=True)]
        change: Tensor = self.attn.proj(torch.cat(attended).transpose(1, 2).reshape(samples, length, width))
        if not self.training or not self.drop_path:
            return x + change
        return x + change * self._factors(x)

    def _added(self, x: Tensor, branch: Callable[[Tensor], Tensor]) -> Tensor:
        """Add a branch; in training it is only run for the samples that take it (stochastic depth)."""
        if not self.training or not self.drop_path:
            return x + branch(x)
        if torch.compiler.is_compiling():
            return x + branch(x) * self._factors(x)  # one shape for all steps, at the cost of what is skipped
        # drawn on the CPU: a number that the device drew would have to be waited for
        taken = (torch.rand(len(x)) >= self.drop_path).nonzero().flatten()
        scale = 1 / (1 - self.drop_path)
        if not len(taken):
            return x + 0 * branch(x)  # every parameter keeps a gradient, which DDP waits for
        if len(taken) == len(x):
            return x + scale * branch(x)
        taken = taken.to(x.device, non_blocking=True)
        return x.index_add(0, taken, branch(x[taken]).to(x.dtype), alpha=scale)

    def _factors(self, x: Tensor) -> Tensor:
        """(N, 1, 1) by which a branch of each sample is multiplied: 0 where it skips the branch."""
        device = x.device if torch.compiler.is_compiling() else None
        taken = (torch.rand(len(x), device=device) >= self.drop_path).double() / (1 - self.drop_path)
        return taken.to(x.device, x.dtype, non_blocking=True).view(-1, 1, 1)
