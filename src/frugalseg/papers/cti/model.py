"""CTI's network: a ViT with one token per class and one for the background.

Specification: cti.md sections 2 and 3. Torch and timm only. K = C + 1 tokens, the background first, P = h * w patches.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from frugalseg.errors import CheckpointError, ImageError
from frugalseg.papers.cti.blocks import AttentionSums, TokenBlock
from frugalseg.papers.cti.embed import PatchEmbed, StemEmbed, resize_positions


class Scores(NamedTuple):
    """What the last block's tokens say about a batch."""

    token_logits: Tensor
    """(N, C) mean over D of each class token; the background token is not classified."""
    patch_logits: Tensor
    """(N, C) spatial mean of the patch head's class channels, before the ReLU."""
    maps: Tensor
    """(N, K, h, w) R: the patch head after its ReLU."""


class Pass(NamedTuple):
    """One forward pass."""

    scores: Scores
    rows: Tensor | None
    """(N, K, h, w) mt: attention of class tokens to patches, summed over blocks."""
    patches: Tensor | None
    """(N, P, P) pa: attention of patches to patches, summed over blocks."""
    tokens: Tensor
    """(N, K, D) T: class tokens after block `infusion`, before anything is infused."""


class Trunk(NamedTuple):
    """Two views after the blocks that all passes of a training step share."""

    view1: Tensor
    """(B, K + P, D)."""
    view2: Tensor
    """(B, K + P, D)."""
    sums: AttentionSums
    """Of view 1, to be continued."""
    grid: tuple[int, int]


class Branches(NamedTuple):
    """The passes of one training step behind the trunk (cti.md section 4)."""

    plain1: Scores
    """P1: view 1."""
    plain2: Scores
    """P2: view 2."""
    rows: Tensor | None
    """(B, K, h, w) mt of P1 over the last `fused_blocks` blocks."""
    patches: Tensor | None
    """(B, P, P) pa of P1 over the blocks behind the infusion."""
    intra: Tensor | None
    """(B, K, h, w) R of PI: view 1 with the tokens of view 2 infused."""
    cross: Tensor | None
    """(B, K, h, w) R of PX: view 1 with class prototypes infused."""
    cross_rows: Tensor | None
    """(B, K, h, w) mt of PX over the blocks behind the infusion."""


def refine(patches: Tensor, maps: Tensor) -> Tensor:
    """Spread maps by patch affinity: Q_k(i) = sum_j pa(i, j) F_k(j) (cti.md section 3).

    Args:
        patches: (N, P, P).
        maps: (N, k, h, w).

    Returns:
        (N, k, h, w).
    """
    return (maps.flatten(2) @ patches.transpose(1, 2)).reshape(maps.shape)


def infuse(x: Tensor, tokens: Tensor, count: int) -> Tensor:
    """Replace class tokens by their mean with others; patches stay (cti.md sections 4.3 and 4.4).

    Args:
        x: (N, K + P, D).
        tokens: (N, k, D), for the last k of the K class tokens.
        count: K.

    Returns:
        (N, K + P, D).
    """
    first = count - tokens.shape[1]
    return torch.cat([x[:, :first], (x[:, first:count] + tokens.to(x.dtype)) / 2, x[:, count:]], dim=1)


class CTIViT(nn.Module):
    """DeiT-S/16 with C + 1 class tokens and a convolution on its patches.

    Names of parameters are timm's and the authors', so that DeiT's and the authors' weights fit.

    Args:
        num_classes: K, background included.
        dim: D.
        depth: number of blocks.
        heads: attention heads.
        patch: side of a patch in pixels.
        grid: side of the table of positions in patches; images of other sizes get it resized.
        mlp_ratio: hidden width of the MLPs over D.
        drop_path: rate of the last block; it grows from 0 linearly.
        infusion: number of the block (from 0) behind which tokens are infused.
        fused_blocks: so many last blocks make the maps of the background loss; None for half of them.
        background_token: False leaves the background token out: the baseline of the ablation.
        stem: settings of a `StemEmbed` in place of the patch convolution.

    Raises:
        ValueError: there is no block behind the infusion.
    """

    def __init__(
        self,
        num_classes: int = 21,
        dim: int = 384,
        depth: int = 12,
        heads: int = 6,
        patch: int = 16,
        grid: int = 14,
        mlp_ratio: float = 4.0,
        drop_path: float = 0.1,
        infusion: int = 3,
        fused_blocks: int | None = None,
        background_token: bool = True,
        stem: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__()
        if not 0 <= infusion < depth - 1:
            raise ValueError(f"infusion must be 0 to {depth - 2}, so that a block of the {depth} is behind it")
        self.first = int(background_token)
        """Number of the first class's token."""
        self.tokens = num_classes - 1 + self.first
        """K, or C without a background token."""
        self.depth, self.infusion = depth, infusion
        self.fused_from = depth - (depth // 2 if fused_blocks is None else fused_blocks)
        self.patch_embed = PatchEmbed(dim, patch) if stem is None else StemEmbed(dim, **stem)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, dim))
        self.bg_token = nn.Parameter(torch.zeros(1, 1, dim)) if background_token else None
        self.pos_embed_cls = nn.Parameter(torch.zeros(1, self.tokens, dim))
        self.pos_embed_pat = nn.Parameter(torch.zeros(1, grid * grid, dim))
        rates = torch.linspace(0, drop_path, depth).tolist()
        self.blocks = nn.ModuleList(TokenBlock(i, dim, heads, mlp_ratio, rate) for i, rate in enumerate(rates))
        for table in (self.cls_token, self.pos_embed_cls, self.pos_embed_pat):
            nn.init.trunc_normal_(table, std=0.02)
        for module in self.blocks.modules():
            if isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight, std=0.02)
                nn.init.zeros_(module.bias)
        # these two keep PyTorch's own initialisation, as the authors' do (cti.md 2.5)
        self.tokenizer: nn.Module | None = nn.Sequential(
            nn.Linear(dim, 5 * dim), nn.ReLU(), nn.Linear(5 * dim, self.tokens * dim)
        )
        self.head = nn.Conv2d(dim, self.tokens, 3, padding=1)
        self.register_buffer("token_table", None)

    # ------------------------------------------------------------------ tokens

    def class_tokens(self) -> Tensor:
        """(K, D) tokens at the input of block 0; the same for all images (cti.md 2.2)."""
        if self.token_table is not None:
            return self.token_table
        if self.tokenizer is None:
            raise RuntimeError("a net without tokenizer needs its table")
        made = self.tokenizer(self.cls_token[0, 0]).view(self.tokens, -1)
        own = self.cls_token[0].expand(self.tokens - self.first, -1)
        if self.bg_token is not None:
            own = torch.cat([self.bg_token[0], own])
        tokens: Tensor = made + own + self.pos_embed_cls[0]
        return tokens

    @torch.no_grad()
    def fold(self) -> None:
        """Put the tokens into a table and drop the MLP that made them: 43 % of the parameters with 20 classes.

        For inference only: nothing of the tokens can be trained any more. The table is part of the state.
        """
        if self.tokenizer is not None:
            self.token_table = self.class_tokens().clone()
            self.tokenizer = None

    def embed(self, image: Tensor) -> tuple[Tensor, tuple[int, int]]:
        """Patch tokens with their positions.

        Args:
            image: (N, 3, H, W).

        Returns:
            (N, P, D) and the grid (h, w).

        Raises:
            ImageError: the image is smaller than one patch.
        """
        height, width, patch = image.shape[-2], image.shape[-1], self.patch_embed.patch
        if min(height, width) < patch:
            raise ImageError(
                f"an image of {width} x {height} pixels is smaller than one patch of {patch} x {patch}: leave it out, "
                "or set model.init_args.fit to pad or resize"
            )
        cells = self.patch_embed(image)
        grid = (cells.shape[-2], cells.shape[-1])
        return cells.flatten(2).transpose(1, 2) + resize_positions(self.pos_embed_pat, grid), grid

    def start(self, image: Tensor) -> tuple[Tensor, tuple[int, int]]:
        """(N, K + P, D) tokens at the input of block 0, and the grid."""
        patches, grid = self.embed(image)
        tokens = self.class_tokens().to(patches.dtype).expand(len(image), -1, -1)
        return torch.cat([tokens, patches], dim=1), grid

    # ------------------------------------------------------------------ passes

    def run(self, x: Tensor, first: int, last: int, *groups: AttentionSums) -> Tensor:
        """Blocks `first` to `last` (exclusive)."""
        for block in self.blocks[first:last]:
            x = block(x, groups)
        return x

    def scores(self, x: Tensor, grid: tuple[int, int]) -> Scores:
        """Both heads on the tokens (N, K + P, D) of the last block; no final norm (cti.md 2.4)."""
        cells = x[:, self.tokens :].transpose(1, 2).reshape(len(x), -1, *grid)
        maps = _wide(self.head(cells))
        return Scores(
            _wide(x[:, self.first : self.tokens]).mean(dim=-1), maps[:, self.first :].mean(dim=(-2, -1)), maps.relu()
        )

    def forward(
        self,
        image: Tensor,
        infused: Tensor | None = None,
        rows_from: int | None = None,
        patches_from: int | None = None,
    ) -> Pass:
        """One pass, with whatever attention is wanted.

        Args:
            image: (N, 3, H, W) normalised.
            infused: (N, K, D) tokens to infuse behind block `infusion`, or (N, C, D) for the classes alone.
            rows_from: first block whose class rows are summed; None for none.
            patches_from: first block whose patch affinities are summed; None for none.

        Returns:
            `Pass`.
        """
        sums = AttentionSums(len(image), self.tokens, rows_from, patches_from)
        x, grid = self.start(image)
        x = self.run(x, 0, self.infusion + 1, sums)
        tokens = x[:, : self.tokens]
        if infused is not None:
            x = infuse(x, infused, self.tokens)
        x = self.run(x, self.infusion + 1, self.depth, sums)
        return Pass(self.scores(x, grid), _on_grid(sums.rows, grid), sums.patches, tokens)

    def trunk(self, view1: Tensor, view2: Tensor, background: bool = True) -> Trunk:
        """The blocks up to the infusion, both views as one batch (cti.md 15, items 1 and 2).

        The three passes of view 1 share them, and under stochastic depth also which samples skip a branch.

        Args:
            view1: (B, 3, H, W).
            view2: (B, 3, H, W).
            background: whether the attention of P1 is going to be needed for the background loss.

        Returns:
            `Trunk`.
        """
        wanted = (self.fused_from, self.infusion + 1) if background else (None, None)
        sums = AttentionSums(len(view1), self.tokens, *wanted)
        x, grid = self.start(torch.cat([view1, view2]))
        x = self.run(x, 0, self.infusion + 1, sums, AttentionSums(len(view2), self.tokens))
        return Trunk(x[: len(view1)], x[len(view1) :], sums, grid)

    def branches(self, trunk: Trunk, intra: bool = True, prototypes: Tensor | None = None) -> Branches:
        """The blocks behind the infusion for all passes of a step, as one batch.

        Args:
            trunk: of this step.
            intra: whether to run PI; the tokens of view 2 keep their gradient.
            prototypes: (B, C, D) tokens to infuse in PX; None leaves PX out.

        Returns:
            `Branches`.
        """
        size, parts, groups = len(trunk.view1), [trunk.view1], [trunk.sums]
        cross = AttentionSums(size, self.tokens, rows_from=self.infusion + 1)
        if prototypes is not None:
            parts.append(infuse(trunk.view1, prototypes, self.tokens))
            groups.append(cross)
        parts.append(trunk.view2)
        if intra:
            parts.append(infuse(trunk.view1, trunk.view2[:, : self.tokens], self.tokens))
        groups.append(AttentionSums(size * (len(parts) - len(groups)), self.tokens))
        x = self.run(torch.cat(parts), self.infusion + 1, self.depth, *groups)
        chunks = [torch.split(values, size) for values in self.scores(x, trunk.grid)]
        scores = [Scores(*values) for values in zip(*chunks, strict=True)]
        return Branches(
            plain1=scores[0],
            plain2=scores[-2 if intra else -1],
            rows=_on_grid(trunk.sums.rows, trunk.grid),
            patches=trunk.sums.patches,
            intra=scores[-1].maps if intra else None,
            cross=scores[1].maps if prototypes is not None else None,
            cross_rows=_on_grid(cross.rows, trunk.grid),
        )

    # ------------------------------------------------------------------ state

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        """Refuse the tokens of another number of classes in words; take over a folded table."""
        saved = state_dict.get(prefix + "pos_embed_cls")
        if isinstance(saved, Tensor) and saved.shape[1] != self.tokens:
            own, theirs = self.tokens - self.first, saved.shape[1] - self.first
            raise CheckpointError(
                f"the checkpoint has tokens for {theirs} classes, but there are {own} to be told apart: "
                "give the checkpoint of this benchmark (VOC has 20 classes, COCO 80), or its data"
            )
        table = state_dict.get(prefix + "token_table")
        if isinstance(table, Tensor):
            self.tokenizer, self.token_table = None, torch.empty_like(table)
        super()._load_from_state_dict(state_dict, prefix, *args)


def _wide(x: Tensor) -> Tensor:
    """At least float32: maps and logits are not computed in half precision."""
    return x.float() if x.dtype in (torch.float16, torch.bfloat16) else x


def _on_grid(rows: Tensor | None, grid: tuple[int, int]) -> Tensor | None:
    """(N, K, P) -> (N, K, h, w)."""
    return None if rows is None else rows.reshape(*rows.shape[:2], *grid)
