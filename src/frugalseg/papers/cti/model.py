"""CTI's network: a ViT with one token per class and one for the background.

Specification: cti.md sections 2, 3 and 15. Torch and timm only. K = C + 1 tokens, background first; P = h * w patches.
"""

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from frugalseg.errors import CheckpointError, ImageError
from frugalseg.nn.initial import small_normal_
from frugalseg.ops.precision import at_least_float32
from frugalseg.papers.cti.blocks import AttentionSums, TokenBlock
from frugalseg.papers.cti.embed import PatchEmbed, StemEmbed, resize_positions
from frugalseg.papers.cti.passes import Branches, Pass, Scores, Trunk, infuse


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
        ValueError: there is no block behind the infusion, or fewer blocks than fused ones.
    """

    hot: ClassVar[tuple[str, ...]] = ("trunk", "branches")
    """What a training step calls; see `callbacks.Compile`."""

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
        if not 1 <= (depth // 2 if fused_blocks is None else fused_blocks) <= depth:
            raise ValueError(f"fused_blocks must be 1 to {depth}, the number of blocks")
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
        rates = torch.linspace(0, drop_path, depth, device="cpu").tolist()  # also of a net on meta
        self.blocks = nn.ModuleList(TokenBlock(i, dim, heads, mlp_ratio, rate) for i, rate in enumerate(rates))
        for table in (self.cls_token, self.pos_embed_cls, self.pos_embed_pat):
            small_normal_(table)
        for module in self.blocks.modules():
            if isinstance(module, nn.Linear):
                small_normal_(module.weight)
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
                "train on a larger crop, or predict with model.init_args.fit pad or resize"
            )
        cells = self.patch_embed(image)
        grid = (cells.shape[-2], cells.shape[-1])
        return cells.flatten(2).transpose(1, 2) + resize_positions(self.pos_embed_pat, grid), grid

    def start(self, image: Tensor) -> tuple[Tensor, tuple[int, int]]:
        """(N, K + P, D) tokens at the input of block 0, and the grid."""
        patches, grid = self.embed(image)
        tokens = self.class_tokens().to(patches.dtype).expand(image.shape[0], -1, -1)
        return torch.cat([tokens, patches], dim=1), grid

    # ------------------------------------------------------------------ passes

    def run(self, x: Tensor, first: int, last: int, *groups: AttentionSums) -> Tensor:
        """Blocks `first` to `last` (exclusive)."""
        for block in self.blocks[first:last]:
            x = block(x, groups)
        return x

    def scores(self, x: Tensor, grid: tuple[int, int]) -> Scores:
        """Both heads on the tokens (N, K + P, D) of the last block; no final norm (cti.md 2.4)."""
        cells = x[:, self.tokens :].transpose(1, 2).reshape(x.shape[0], -1, *grid)
        with torch.autocast(x.device.type, enabled=False):
            maps = at_least_float32(self.head(cells.to(self.head.weight.dtype)))
        return Scores(
            at_least_float32(x[:, self.first : self.tokens]).mean(dim=-1),
            maps[:, self.first :].mean(dim=(-2, -1)),
            maps.relu(),
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
        sums = AttentionSums(image.shape[0], self.tokens, rows_from, patches_from)
        x, grid = self.start(image)
        x = self.run(x, 0, self.infusion + 1, sums)
        tokens = x[:, : self.tokens]
        if infused is not None:
            x = infuse(x, infused, self.tokens)
        x = self.run(x, self.infusion + 1, self.depth, sums)
        return Pass(self.scores(x, grid), _on_grid(sums.rows, grid), sums.patches, tokens)

    def trunk(self, view1: Tensor, view2: Tensor, background: bool = True) -> Trunk:
        """The blocks up to the infusion for both views (cti.md 15, item 1).

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
        # as one batch until view 1 is watched, which without maps before the infusion is never
        together = min(self.infusion + 1, self.fused_from if background else self.depth)
        first, second = torch.split(self.run(x, 0, together), len(view1))
        first = self.run(first, together, self.infusion + 1, sums)
        return Trunk(first, self.run(second, together, self.infusion + 1), sums, grid)

    def branches(self, trunk: Trunk, intra: bool = True, prototypes: Tensor | None = None) -> Branches:
        """The blocks behind the infusion for all passes of a step.

        As two batches, P1 with PX, whose attention is kept, and P2 with PI, whose is not (cti.md 15, item 2).

        Args:
            trunk: of this step.
            intra: whether to run PI; the tokens of view 2 keep their gradient.
            prototypes: (B, C, D) tokens to infuse in PX; None leaves PX out.

        Returns:
            `Branches`.
        """
        size, behind = len(trunk.view1), self.infusion + 1
        watched, groups = [trunk.view1], [trunk.sums]
        cross = AttentionSums(size, self.tokens, rows_from=behind)
        if prototypes is not None:
            watched.append(infuse(trunk.view1, prototypes, self.tokens))
            groups.append(cross)
        others = [trunk.view2]
        if intra:
            others.append(infuse(trunk.view1, trunk.view2[:, : self.tokens], self.tokens))
        plain1, *crossed = self._split(self.run(torch.cat(watched), behind, self.depth, *groups), trunk)
        plain2, *intras = self._split(self.run(torch.cat(others), behind, self.depth), trunk)
        return Branches(
            plain1=plain1,
            plain2=plain2,
            rows=_on_grid(trunk.sums.rows, trunk.grid),
            patches=trunk.sums.patches,
            intra=intras[0].maps if intras else None,
            cross=crossed[0].maps if crossed else None,
            cross_rows=_on_grid(cross.rows, trunk.grid),
        )

    def _split(self, x: Tensor, trunk: Trunk) -> list[Scores]:
        """Scores of each pass in a batch of several."""
        chunks = [torch.split(values, len(trunk.view1)) for values in self.scores(x, trunk.grid)]
        return [Scores(*values) for values in zip(*chunks, strict=True)]

    # ------------------------------------------------------------------ state

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        """Refuse the tokens of another number of classes in words; take over a folded table."""
        saved = state_dict.get(prefix + "pos_embed_cls")
        if isinstance(saved, Tensor) and saved.shape[1] != self.tokens:
            raise CheckpointError(self._other_tokens(saved.shape[1], prefix + "bg_token" in state_dict))
        table = state_dict.get(prefix + "token_table")
        if isinstance(table, Tensor):
            self.tokenizer, self.token_table = None, torch.empty_like(table)
        super()._load_from_state_dict(state_dict, prefix, *args)

    def _other_tokens(self, count: int, background: bool) -> str:
        """What is wrong with a checkpoint of `count` tokens."""
        theirs, own = count - background, self.tokens - self.first
        if theirs == own:
            return (
                f"the checkpoint has {'a' if background else 'no'} background token, the settings say otherwise: "
                f"set model.init_args.background_token to {str(background).lower()}"
            )
        low, high = sorted((theirs, own))
        which = f"classes {low + 1} to {high} {'have no token' if own > theirs else 'do not occur in the data'}"
        return (
            f"the checkpoint has tokens for {theirs} classes, but there are {own}: {which}; "
            "give the checkpoint of this benchmark (VOC has 20 classes, COCO 80), or its data"
        )


def _on_grid(rows: Tensor | None, grid: tuple[int, int]) -> Tensor | None:
    """(N, K, P) -> (N, K, h, w)."""
    return None if rows is None else rows.reshape(*rows.shape[:2], *grid)
