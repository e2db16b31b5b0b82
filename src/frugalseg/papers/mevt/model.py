"""MEVT: a hierarchical encoder, a memory of the whole image, a decoder that reads it at every level (mevt.md b).

Of the paper only the abstract could be read: the architecture is this suite's own design, see mevt.md a and b.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from frugalseg.nn.initial import small_normal_
from frugalseg.ops.cam import resize
from frugalseg.papers.mevt.blocks import initialise
from frugalseg.papers.mevt.decoder import Decoder
from frugalseg.papers.mevt.encoder import Encoder

PRESETS: dict[str, dict[str, Any]] = {
    "mevt_s": {
        "widths": (64, 128, 320, 512),
        "blocks": (3, 4, 6, 3),
        "heads": (1, 2, 5, 8),
        "reductions": (8, 4, 2, 1),
        "ratio": 4,
        "dim": 256,
        "decoder_heads": 8,
    },
    "mevt_xs": {
        "widths": (32, 64, 160, 256),
        "blocks": (2, 2, 2, 2),
        "heads": (1, 2, 5, 8),
        "reductions": (8, 4, 2, 1),
        "ratio": 4,
        "dim": 128,
        "decoder_heads": 4,
    },
    "mevt_tiny": {
        "widths": (32, 64, 96, 128),
        "blocks": (1, 1, 2, 1),
        "heads": (1, 2, 3, 4),
        "reductions": (4, 2, 1, 1),
        "ratio": 2,
        "dim": 64,
        "decoder_heads": 4,
    },
}
"""Arguments of `MEVT` by name (mevt.md b.6)."""


class Dense(NamedTuple):
    """What MEVT says of images (N, 3, H, W)."""

    features: Tensor
    """(N, D, H / s, W / s) dense features Z, normed; s is the net's `stride`, D its `width`."""
    token: Tensor
    """(N, C4) global token g, normed: the embedding of the image."""
    stages: tuple[Tensor, ...]
    """F1 to F4, normed: (N, C1, H / 4, W / 4) to (N, C4, H / 32, W / 32); of another net its last map alone."""


class MEVT(nn.Module):
    """Encoder, context memory and decoder.

    Args:
        widths: C1 to C4.
        blocks: number of blocks of each stage.
        heads: attention heads of each stage.
        reductions: R of each stage.
        ratio: hidden channels of the encoder's FFNs over C.
        dim: D, channels of the decoder.
        decoder_heads: attention heads of the decoder.
        drop_path: stochastic depth of the encoder's last block; it grows from 0 linearly. A teacher has 0.
        context: False leaves out the memory and the attention to it.
        decoder: False leaves out the whole decoder: the dense feature is F3.
        output_stride: 4, 8 or 16: where the decoder stops. Without a decoder there is no choice but 16.
        mask_token: whether `forward` takes masks.
        checkpointing: whether activations of blocks and levels are made again on the way back: less memory, more time.
        joined: `dense` gives Z with F4 resized to it behind (mevt.md d): D + C4 channels, for probes that compare nets
            of unequal widths. It changes no parameter.

    Raises:
        ValueError: a setting that is not given for each of four stages, heads that do not divide their channels, or
            another stride.
    """

    def __init__(
        self,
        widths: Sequence[int],
        blocks: Sequence[int],
        heads: Sequence[int],
        reductions: Sequence[int],
        ratio: int = 4,
        dim: int = 256,
        decoder_heads: int = 8,
        drop_path: float = 0.1,
        context: bool = True,
        decoder: bool = True,
        output_stride: int = 4,
        mask_token: bool = False,
        checkpointing: bool = False,
        joined: bool = False,
    ) -> None:
        super().__init__()
        self.encoder = Encoder(widths, blocks, heads, reductions, ratio, drop_path, mask_token, checkpointing)
        self.decoder = Decoder(widths, dim, decoder_heads, context, output_stride, checkpointing) if decoder else None
        self.width, self.stride = (dim, output_stride) if decoder else (widths[2], 16)
        """D and s of the dense features."""
        self.token_width = widths[3]
        """C4."""
        self.pyramid_widths = tuple(widths)
        """C1 to C4."""
        self.joined = joined
        if joined:
            self.width += widths[3]
        self.apply(initialise)
        for vector in (self.encoder.stages[3].token, self.encoder.mask_token):
            if isinstance(vector, nn.Parameter):
                small_normal_(vector)

    def forward(self, image: Tensor, mask: Tensor | None = None) -> Dense:
        """Dense features and global token.

        Args:
            image: (N, 3, H, W) normalised; H and W multiples of 32.
            mask: (N, H / 32, W / 32) of truth: blocks of 32 x 32 pixels to hide; needs `mask_token`.

        Returns:
            `Dense`.

        Raises:
            ValueError: a side is no multiple of 32, or a mask of another size or without a mask token.
        """
        encoded = self.encoder(image, mask)
        features = encoded.stages[2] if self.decoder is None else self.decoder(encoded)
        return Dense(features, encoded.token, encoded.stages)

    def dense(self, image: Tensor) -> Tensor:
        """Dense features alone, (N, `width`, H / s, W / s); arguments and errors as of `forward`."""
        found: Dense = self(image)
        if not self.joined:
            return found.features
        size = found.features.shape[-2:]
        return torch.cat([found.features, resize(found.stages[3], (size[0], size[1]))], dim=1)

    def pyramid(self, image: Tensor) -> tuple[Tensor, ...]:
        """F1 to F4 of the encoder alone, for decoders of other kinds; arguments and errors as of `forward`."""
        stages: tuple[Tensor, ...] = self.encoder(image).stages
        return stages


def create(preset: str, **changes: Any) -> MEVT:
    """Build a preset.

    Args:
        preset: `mevt_s`, `mevt_xs` or `mevt_tiny`.
        **changes: arguments of `MEVT` that differ from it.

    Raises:
        ValueError: an unknown preset.
    """
    if preset not in PRESETS:
        raise ValueError(f"preset must be one of {', '.join(PRESETS)}, got {preset!r}")
    return MEVT(**{**PRESETS[preset], **changes})
