"""MEVT's encoder: four stages of MiT-B2's proportions, and a global token in the last (mevt.md b.2)."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from frugalseg.papers.mevt.blocks import EPS, Block, as_map, as_tokens, run

STEP = 32
"""Pixels per cell of stage 4: sides of images are multiples of it."""


class Encoded(NamedTuple):
    """What the encoder says of images (N, 3, H, W)."""

    stages: tuple[Tensor, Tensor, Tensor, Tensor]
    """F1 to F4, normed: (N, C1, H / 4, W / 4) to (N, C4, H / 32, W / 32)."""
    token: Tensor
    """(N, C4) global token g, normed."""


class Stage(nn.Module):
    """Patch embedding, blocks, norm.

    Args:
        inputs: channels of the map below.
        dim: C.
        heads: attention heads.
        reduction: R of the blocks.
        ratio: of the FFNs.
        rates: stochastic depth of each block; as many blocks.
        first: whether pixels come in: 7x7 with stride 4, in place of 3x3 with stride 2.
        last: whether a global token is prepended.
    """

    def __init__(
        self,
        inputs: int,
        dim: int,
        heads: int,
        reduction: int,
        ratio: int,
        rates: Sequence[float],
        first: bool = False,
        last: bool = False,
    ) -> None:
        super().__init__()
        kernel, stride = (7, 4) if first else (3, 2)
        self.embed = nn.Conv2d(inputs, dim, kernel, stride, kernel // 2)
        self.embed_norm = nn.LayerNorm(dim, EPS)
        self.token = nn.Parameter(torch.zeros(1, 1, dim)) if last else None
        self.blocks = nn.ModuleList(Block(dim, heads, reduction, ratio, rate) for rate in rates)
        self.norm = nn.LayerNorm(dim, EPS)

    def forward(
        self, below: Tensor, masked: tuple[Tensor, Tensor] | None = None, checkpointing: bool = False
    ) -> tuple[Tensor, Tensor]:
        """Run the stage.

        Args:
            below: (N, inputs, H, W).
            masked: (N, L) of truth and the vector (C,) that takes the place of embeddings where it is true.
            checkpointing: see `run`.

        Returns:
            (N, C, h, w) and the tokens in front: (N, 1, C) in the last stage, else (N, 0, C).
        """
        cells = self.embed(below)
        grid = (cells.shape[-2], cells.shape[-1])
        x = self.embed_norm(as_tokens(cells))
        if masked is not None:
            x = torch.where(masked[0][..., None], masked[1].to(x.dtype), x)
        if self.token is not None:
            x = torch.cat([self.token.to(x.dtype).expand(x.shape[0], -1, -1), x], dim=1)
        for block in self.blocks:
            x = run(block, x, grid, checkpointing=checkpointing)
        x = self.norm(x)
        front = x.shape[1] - grid[0] * grid[1]
        return as_map(x[:, front:], grid), x[:, :front]


class Encoder(nn.Module):
    """Four stages with strides 4, 8, 16 and 32; any image with sides that are multiples of 32.

    Args:
        widths: C of each stage.
        blocks: number of blocks of each stage.
        heads: attention heads of each stage.
        reductions: R of each stage.
        ratio: hidden channels of the FFNs over C.
        drop_path: rate of the last block; it grows from 0 linearly.
        mask_token: whether there is a vector that takes the place of masked embeddings (mevt.md c.6).
        checkpointing: whether activations of blocks are made again on the way back.

    Raises:
        ValueError: a setting that is not given for each of four stages.
    """

    def __init__(
        self,
        widths: Sequence[int],
        blocks: Sequence[int],
        heads: Sequence[int],
        reductions: Sequence[int],
        ratio: int = 4,
        drop_path: float = 0.1,
        mask_token: bool = False,
        checkpointing: bool = False,
    ) -> None:
        super().__init__()
        for name, values in {"widths": widths, "blocks": blocks, "heads": heads, "reductions": reductions}.items():
            if len(values) != 4:
                raise ValueError(f"{name} must have 4 values, one per stage, got {list(values)}")
        rates = iter(torch.linspace(0, drop_path, sum(blocks), device="cpu").tolist())  # also of a net on meta
        self.stages = nn.ModuleList(
            Stage(
                inputs=widths[i - 1] if i else 3,
                dim=widths[i],
                heads=heads[i],
                reduction=reductions[i],
                ratio=ratio,
                rates=[next(rates) for _ in range(blocks[i])],
                first=i == 0,
                last=i == 3,
            )
            for i in range(4)
        )
        self.mask_token = nn.Parameter(torch.zeros(widths[0])) if mask_token else None
        self.checkpointing = checkpointing

    def forward(self, image: Tensor, mask: Tensor | None = None) -> Encoded:
        """Encode images.

        Args:
            image: (N, 3, H, W) normalised; H and W multiples of 32.
            mask: (N, H / 32, W / 32) of truth: blocks of 32 x 32 pixels whose embeddings of stage 1 are replaced.
                The 7x7 patches next to a block still see 3 pixels of it, as they overlap.

        Returns:
            `Encoded`.

        Raises:
            ValueError: a side is no multiple of 32, or a mask of another size or without a mask token.
        """
        height, width = image.shape[-2:]
        if not height or not width or height % STEP or width % STEP:
            raise ValueError(f"images must have sides that are multiples of {STEP}, got {height} x {width} (H x W)")
        masked = None if mask is None else self._masked(mask, (image.shape[0], height // STEP, width // STEP))
        stages, x, token = [], image, image.new_empty(0)
        for stage in self.stages:
            x, token = stage(x, masked, self.checkpointing)
            stages.append(x)
            masked = None
        return Encoded((stages[0], stages[1], stages[2], stages[3]), token[:, 0])

    def _masked(self, mask: Tensor, shape: tuple[int, int, int]) -> tuple[Tensor, Tensor]:
        """Mask on the tokens of stage 1, and the vector to put there."""
        if self.mask_token is None:
            raise ValueError("the encoder has no mask token: build it with mask_token=True")
        if mask.shape != shape:
            raise ValueError(f"a mask must have one value per 32 x 32 pixels: {shape}, got {tuple(mask.shape)}")
        cells = STEP // 4
        fine = mask.bool().repeat_interleave(cells, dim=1).repeat_interleave(cells, dim=2)
        return fine.flatten(1), self.mask_token
