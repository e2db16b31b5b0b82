"""MEVT's global context memory and its decoder, every level of which reads it (mevt.md b.3, b.4)."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from frugalseg.papers.mevt.blocks import EPS, Attention, MixFFN, as_map, as_tokens, run
from frugalseg.papers.mevt.encoder import Encoded

RATIO = 2
"""Hidden channels of the decoder's FFNs over its width."""


class ContextMemory(nn.Module):
    """Wm [g ; F4]: the whole image in 1 + H W / 1024 tokens.

    Args:
        inputs: channels of the last stage.
        dim: D.
    """

    def __init__(self, inputs: int, dim: int) -> None:
        super().__init__()
        self.project = nn.Linear(inputs, dim)

    def forward(self, encoded: Encoded) -> Tensor:
        """(N, 1 + h * w, D) of the last stage's (h, w); the global token is in front."""
        memory: Tensor = self.project(torch.cat([encoded.token[:, None], as_tokens(encoded.stages[3])], dim=1))
        return memory


class Reading(nn.Module):
    """Cross-attention of tokens to the memory, both normed before.

    Args:
        dim: D.
        heads: attention heads.
    """

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.norm, self.memory_norm = nn.LayerNorm(dim, EPS), nn.LayerNorm(dim, EPS)
        self.attention = Attention(dim, heads)

    def forward(self, x: Tensor, memory: Tensor) -> Tensor:
        """(N, L, D) tokens and (N, M, D) memory -> (N, L, D) to add to the tokens."""
        read: Tensor = self.attention(self.norm(x), self.memory_norm(memory))
        return read


class Level(nn.Module):
    """One level: twice the resolution, a stage of the encoder added, neighbours, memory, FFN.

    Args:
        inputs: channels of the stage.
        dim: D.
        heads: attention heads.
        context: False drops the attention to the memory.
    """

    def __init__(self, inputs: int, dim: int, heads: int, context: bool = True) -> None:
        super().__init__()
        self.lateral = nn.Conv2d(inputs, dim, 1)
        self.local = nn.Sequential(
            nn.Conv2d(dim, dim, 3, padding=1, groups=dim), nn.GroupNorm(1, dim), nn.GELU(), nn.Conv2d(dim, dim, 1)
        )
        self.reading = Reading(dim, heads) if context else None
        self.norm, self.ffn = nn.LayerNorm(dim, EPS), MixFFN(dim, RATIO)

    def forward(self, above: Tensor, stage: Tensor, memory: Tensor | None) -> Tensor:
        """Refine.

        Args:
            above: (N, D, H / 2, W / 2).
            stage: (N, C, H, W).
            memory: (N, M, D); None where the level reads none.

        Returns:
            (N, D, H, W).
        """
        x = F.interpolate(above, scale_factor=2, mode="bilinear", align_corners=False) + self.lateral(stage)
        x = x + self.local(x)
        grid = (x.shape[-2], x.shape[-1])
        x = as_tokens(x)
        if self.reading is not None:
            x = x + self.reading(x, memory)
        x = x + self.ffn(self.norm(x), grid)
        return as_map(x, grid)


class Decoder(nn.Module):
    """Levels from stride 16 down to the stride of the dense feature.

    Args:
        widths: channels of the encoder's four stages.
        dim: D.
        heads: attention heads.
        context: False leaves out the memory, and the attention to it.
        stride: 4, 8 or 16: where to stop.
        checkpointing: whether activations of levels are made again on the way back.

    Raises:
        ValueError: another stride.
    """

    def __init__(
        self,
        widths: Sequence[int],
        dim: int,
        heads: int,
        context: bool = True,
        stride: int = 4,
        checkpointing: bool = False,
    ) -> None:
        super().__init__()
        if stride not in (4, 8, 16):
            raise ValueError(f"output_stride must be 4, 8 or 16, got {stride}")
        self.memory = ContextMemory(widths[3], dim) if context else None
        self.top = nn.Conv2d(widths[3], dim, 1)
        count = {4: 3, 8: 2, 16: 1}[stride]
        self.levels = nn.ModuleList(Level(widths[2 - i], dim, heads, context) for i in range(count))
        self.norm = nn.LayerNorm(dim, EPS)
        self.checkpointing = checkpointing

    def forward(self, encoded: Encoded) -> Tensor:
        """(N, D, H / stride, W / stride) dense feature Z, normed."""
        memory = None if self.memory is None else self.memory(encoded)
        x = self.top(encoded.stages[3])
        for i, level in enumerate(self.levels):
            x = run(level, x, encoded.stages[2 - i], memory, checkpointing=self.checkpointing)
        normed: Tensor = self.norm(x.permute(0, 2, 3, 1))
        return normed.permute(0, 3, 1, 2)
