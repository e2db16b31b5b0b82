"""CTI as its specification reads, for tests and the benchmark alone: slow, plain, and independent of the package.

Written from cti.md sections 2 to 6 and 14 and golden/cti/README.md. Nothing is shared between the four passes of a
step: each runs all blocks, makes its K tokens anew for every image, forms every attention matrix and keeps them all.

B images, C classes, K = C + 1 class tokens (token 0 is background), a grid of gh x gw patches, P = gh * gw,
N = K + P tokens in the order [background, classes, patches row by row], D the width.
"""

from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

PATCH = 16


class Pass(NamedTuple):
    """What one forward pass gives."""

    y: Tensor
    """Class-token logits (B, C)."""
    p: Tensor
    """Patch logits (B, C)."""
    r: Tensor
    """Maps of the head without negative values (B, K, gh, gw)."""
    mt_last: Tensor
    """Attention of class tokens to patches, summed over the last `last` blocks (B, K, gh, gw)."""
    mt_after: Tensor
    """The same, summed over the blocks after `infusion` (B, K, gh, gw)."""
    pa: Tensor
    """Attention of patches to patches, summed over the blocks after `infusion` (B, P, P)."""
    tokens_after_block: list[Tensor]
    """Class tokens after each block (B, K, D)."""
    attn_headmean: Tensor
    """Attention of each block, mean over heads (depth, B, N, N)."""
    refined: Tensor
    """Maps fused with `mt_last` and refined by `pa`, all channels (B, K, gh, gw): the reference makes them in every
    pass, though training uses two channels of one pass."""


class Attention(nn.Module):
    """Self-attention that also returns its softmax matrices."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(dim, 3 * dim)
        self.proj = nn.Linear(dim, dim)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Tokens (B, N, D) to tokens (B, N, D) and attention (B, heads, N, N)."""
        b, n, d = x.shape
        q, k, v = self.qkv(x).reshape(b, n, 3, self.heads, d // self.heads).permute(2, 0, 3, 1, 4)
        attn = (q @ k.transpose(-2, -1) * (d // self.heads) ** -0.5).softmax(dim=-1)
        return self.proj((attn @ v).transpose(1, 2).reshape(b, n, d)), attn


class Mlp(nn.Module):
    """Two linear layers with the exact GELU between them."""

    def __init__(self, dim: int, hidden: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(dim, hidden)
        self.fc2 = nn.Linear(hidden, dim)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(F.gelu(self.fc1(x)))


class Block(nn.Module):
    """Pre-norm transformer block; in training each sample skips each branch at the rate `drop_path`."""

    def __init__(self, dim: int, heads: int, mlp_ratio: int, drop_path: float = 0.0) -> None:
        super().__init__()
        self.drop_path = drop_path
        self.norm1 = nn.LayerNorm(dim, eps=1e-6)
        self.attn = Attention(dim, heads)
        self.norm2 = nn.LayerNorm(dim, eps=1e-6)
        self.mlp = Mlp(dim, mlp_ratio * dim)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Tokens (B, N, D) to tokens (B, N, D) and attention (B, heads, N, N)."""
        change, attn = self.attn(self.norm1(x))
        x = x + self.drop(change)
        return x + self.drop(self.mlp(self.norm2(x))), attn

    def drop(self, change: Tensor) -> Tensor:
        """Zero for some samples, divided by the rate of staying for the others."""
        if not self.training or not self.drop_path:
            return change
        return change * (torch.rand(len(change), 1, 1) >= self.drop_path) / (1 - self.drop_path)


class PatchEmbed(nn.Module):
    """Patches to tokens in row-major order; pixels that fill no patch are dropped."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(3, dim, PATCH, stride=PATCH)

    def forward(self, image: Tensor) -> tuple[Tensor, tuple[int, int]]:
        """Images (B, 3, H, W) to patch tokens (B, P, D) and the grid (gh, gw)."""
        x = self.proj(image)
        return x.flatten(2).transpose(1, 2), (x.shape[2], x.shape[3])


def resize_positions(table: Tensor, source: tuple[int, int], target: tuple[int, int]) -> Tensor:
    """Position table (1, P, D) of one grid for another: bicubic, half-pixel centres, a = -0.75, no antialias."""
    maps = table.reshape(1, *source, -1).permute(0, 3, 1, 2)
    maps = F.interpolate(maps, size=target, mode="bicubic", align_corners=False)
    return maps.permute(0, 2, 3, 1).flatten(1, 2)


class NaiveCTI(nn.Module):
    """DeiT with K class tokens and a convolutional head (cti.md section 2). Module names are those of the golden README.

    Args:
        num_classes: K, the background included.
        dim: D.
        heads: Heads of every block.
        depth: Blocks.
        grid: Rows and columns of the position table.
        infusion: 0-based block after which tokens are taken; they are infused into the input of the next one.
        last: Final blocks whose class attention `Pass.mt_last` sums.
        mlp_ratio: Hidden width of a block's MLP over D.
        drop_path: Rate of the last block; it grows from 0.
    """

    def __init__(
        self,
        num_classes: int,
        dim: int,
        heads: int,
        depth: int = 12,
        grid: int = 14,
        infusion: int = 3,
        last: int = 6,
        mlp_ratio: int = 4,
        drop_path: float = 0.0,
    ) -> None:
        super().__init__()
        self.k, self.grid, self.infusion, self.last = num_classes, grid, infusion, last
        self.patch_embed = PatchEmbed(dim)
        self.cls_token = nn.Parameter(torch.randn(1, 1, dim) * 0.02)
        self.bg_token = nn.Parameter(torch.zeros(1, 1, dim))
        self.pos_embed_cls = nn.Parameter(torch.randn(1, num_classes, dim) * 0.02)
        self.pos_embed_pat = nn.Parameter(torch.randn(1, grid * grid, dim) * 0.02)
        self.tokenizer = nn.Sequential(nn.Linear(dim, 5 * dim), nn.ReLU(), nn.Linear(5 * dim, num_classes * dim))
        rates = torch.linspace(0, drop_path, depth).tolist()
        self.blocks = nn.ModuleList(Block(dim, heads, mlp_ratio, rate) for rate in rates)
        self.head = nn.Conv2d(dim, num_classes, 3, padding=1)

    def class_tokens(self, batch: int) -> Tensor:
        """Class tokens at the input of block 0 (B, K, D), made for every image though they do not depend on it."""
        start = self.cls_token.expand(batch, -1, -1)
        tokens = self.tokenizer(start).reshape(batch, self.k, -1)
        own = torch.cat([self.bg_token.expand(batch, -1, -1), start.expand(-1, self.k - 1, -1)], dim=1)
        return tokens + own + self.pos_embed_cls

    def infuse(self, tokens: Tensor, infused: Tensor) -> Tensor:
        """Average class tokens (B, K, D) with K rows, or all but background with K - 1 rows."""
        if infused.shape[1] == self.k:
            return (tokens + infused) / 2
        return torch.cat([tokens[:, :1], (tokens[:, 1:] + infused) / 2], dim=1)

    def forward(self, image: Tensor, infused: Tensor | None = None) -> Pass:
        """One complete pass.

        Args:
            image: (B, 3, H, W).
            infused: (B, K, D) or (B, C, D), averaged into the class tokens at the input of block `infusion` + 1.
        """
        patches, grid = self.patch_embed(image)
        patches = patches + resize_positions(self.pos_embed_pat, (self.grid, self.grid), grid)
        x = torch.cat([self.class_tokens(len(image)), patches], dim=1)
        tokens_after_block, attentions = [], []
        for index, block in enumerate(self.blocks):
            if infused is not None and index == self.infusion + 1:
                x = torch.cat([self.infuse(x[:, : self.k], infused), x[:, self.k :]], dim=1)
            x, attn = block(x)
            tokens_after_block.append(x[:, : self.k])
            attentions.append(attn)
        # all blocks' matrices of all heads are stacked and then averaged, as the reference does (cti.md 14 and 15.4)
        return self.read_out(x[:, self.k :], grid, tokens_after_block, torch.stack(attentions).mean(dim=2))

    def read_out(self, patches: Tensor, grid: tuple[int, int], tokens: list[Tensor], attn: Tensor) -> Pass:
        """Logits and maps of the last block's patches (B, P, D), of all class tokens and of all attentions."""
        y = tokens[-1][:, 1:].mean(dim=-1)
        maps = self.head(patches.transpose(1, 2).reshape(len(patches), -1, *grid))
        after = attn[self.infusion + 1 :].sum(dim=0)
        mt_last = class_to_patch(attn[-self.last :].sum(dim=0), self.k, grid)
        pa = after[:, self.k :, self.k :]
        return Pass(
            y=y,
            p=maps[:, 1:].mean(dim=(-2, -1)),
            r=maps.relu(),
            mt_last=mt_last,
            mt_after=class_to_patch(after, self.k, grid),
            pa=pa,
            tokens_after_block=tokens,
            attn_headmean=attn,
            refined=refine(pa, maps.relu() * mt_last),
        )


def class_to_patch(attn: Tensor, k: int, grid: tuple[int, int]) -> Tensor:
    """Class rows and patch columns of (B, N, N) as maps (B, K, gh, gw)."""
    return attn[:, :k, k:].reshape(len(attn), k, *grid)


def refine(pa: Tensor, maps: Tensor) -> Tensor:
    """Q_k(i) = sum over j of pa(i, j) F_k(j): (B, P, P) and (B, K, gh, gw) to (B, K, gh, gw)."""
    return torch.einsum("bij,bkj->bki", pa, maps.flatten(2)).reshape(maps.shape)


def max_norm(maps: Tensor, eps: float = 1e-5) -> Tensor:
    """relu(m - min - eps) / (max - min + eps) of m = relu(maps), per channel; gradient flows through both extremes."""
    maps = maps.relu()
    largest = maps.flatten(-2).max(dim=-1).values[..., None, None]
    smallest = maps.flatten(-2).min(dim=-1).values[..., None, None]
    return (maps - smallest - eps).relu() / (largest - smallest + eps)


def bg_loss(r: Tensor, mt: Tensor, pa: Tensor, tags: Tensor, detach_foreground: bool = False) -> Tensor:
    """L_bg of cti.md 4.2: the refined background map is to be one minus the refined union of the present classes.

    Args:
        r: (B, K, gh, gw) of the plain pass.
        mt: (B, K, gh, gw), its `mt_last`.
        pa: (B, P, P).
        tags: (B, C) zeros and ones.
        detach_foreground: COCO's rule: no gradient to `r` through the foreground.
    """
    of_foreground = r.detach() if detach_foreground else r
    foreground = (mt[:, 1:] * of_foreground[:, 1:] * tags[:, :, None, None]).max(dim=1, keepdim=True).values
    background = mt[:, :1] * r[:, :1]
    # the reference forms both products in float64
    foreground = max_norm(refine(pa.double(), foreground.double()))
    background = max_norm(refine(pa.double(), background.double()))
    return ((1 - foreground) - background).abs().mean().to(r.dtype)


def intra_loss(r: Tensor, r_infused: Tensor) -> Tensor:
    """L_intra of cti.md 4.3 on all K channels of (B, K, gh, gw); nothing is detached."""
    return (max_norm(r) - max_norm(r_infused)).abs().mean()


def cross_loss(r: Tensor, fused: Tensor) -> Tensor:
    """L_cross of cti.md 4.4: `r` of the plain pass, `r * mt_after` of the infused one, both (B, K, gh, gw)."""
    return (max_norm(r[:, 1:]) - max_norm(fused[:, 1:])).abs().mean()


class NaiveMemory:
    """The newest `size` tokens of every class, as Python lists (cti.md 4.4)."""

    def __init__(self, classes: int, size: int = 30) -> None:
        self.size = size
        self.lists: list[list[Tensor]] = [[] for _ in range(classes)]

    @property
    def full(self) -> bool:
        """Whether every class holds `size` tokens."""
        return all(len(entries) >= self.size for entries in self.lists)

    def add(self, tokens: Tensor, tags: Tensor) -> None:
        """Append the layer-normed tokens (B, K, D) of the classes present in `tags` (B, C), then trim every list."""
        for b in range(len(tags)):
            for c in range(len(self.lists)):
                if tags[b, c] == 1:
                    token = tokens[b, 1 + c].detach()
                    self.lists[c].append(F.layer_norm(token, token.shape, eps=1e-5))
        self.lists = [entries[-self.size :] for entries in self.lists]

    def prototype(self, c: int, like: Tensor) -> Tensor:
        """Mean of the tokens of class `c`, zero where there is none; `like` is a (D,) tensor."""
        return torch.stack(self.lists[c]).mean(dim=0) if self.lists[c] else torch.zeros_like(like)

    def infused(self, tokens: Tensor, tags: Tensor) -> Tensor:
        """(B, C, D) of tokens (B, K, D): prototypes of the present classes, the image's own token of the others."""
        result = tokens[:, 1:].detach().clone()
        for b in range(len(tags)):
            for c in range(len(self.lists)):
                if tags[b, c] == 1:
                    result[b, c] = self.prototype(c, result[b, c])
        return result


def train_step(
    net: NaiveCTI,
    memory: NaiveMemory,
    x1: Tensor,
    x2: Tensor,
    tags: Tensor,
    weights: tuple[float, float, float] = (0.1, 1, 1),
    detach_foreground: bool = False,
    extra: bool = True,
) -> dict[str, Any]:
    """Losses of one step (cti.md 4.5), without its backward pass; fills the memory where `extra` is on.

    Args:
        net: The network.
        memory: Lives as long as the run.
        x1: View 1 (B, 3, H, W).
        x2: View 2.
        tags: (B, C) zeros and ones.
        weights: Of the background, intra and cross losses.
        detach_foreground: See `bg_loss`.
        extra: False during the warm-up: classification alone.

    Returns:
        `total`; `cls` (4,): tokens and patches of view 1, tokens and patches of view 2; `bg`, `intra`, `cross` with
        their weights, zero during the warm-up; `cross_in_total`, whether the memory was full.
    """
    first, second = net(x1), net(x2)
    logits = (first.y, first.p, second.y, second.p)
    cls = torch.stack([F.multilabel_soft_margin_loss(score, tags) for score in logits])
    zero = torch.zeros_like(cls[0])
    if not extra:
        return {"total": cls.sum(), "cls": cls, "bg": zero, "intra": zero, "cross": zero, "cross_in_total": False}
    bg = weights[0] * bg_loss(first.r, first.mt_last, first.pa, tags, detach_foreground)

    intra_pass = net(x1, infused=second.tokens_after_block[net.infusion])
    intra = weights[1] * intra_loss(first.r, intra_pass.r)

    tokens = first.tokens_after_block[net.infusion]
    memory.add(tokens, tags)
    cross_pass = net(x1, infused=memory.infused(tokens, tags))
    cross = weights[2] * cross_loss(first.r, cross_pass.r * cross_pass.mt_after)

    total = cls.sum() + bg + intra + (cross if memory.full else zero)
    return {"total": total, "cls": cls, "bg": bg, "intra": intra, "cross": cross, "cross_in_total": memory.full}


def refined_maps(net: NaiveCTI, image: Tensor) -> Tensor:
    """Q of cti.md 6.1 for all K channels (B, K, gh, gw): all blocks, not only the later ones."""
    result = net(image)
    attn = result.attn_headmean.sum(dim=0)
    mt = class_to_patch(attn, net.k, (result.r.shape[2], result.r.shape[3]))
    return refine(attn[:, net.k :, net.k :], result.r * mt)


def seed(net: NaiveCTI, image: Tensor, tags: Tensor) -> dict[int, Tensor]:
    """Seeds of one image (cti.md section 6): class index -> map (H, W) in [0, 1].

    Args:
        net: The network.
        image: (1, 3, H, W), any size of at least one patch.
        tags: (C,) or (1, C) zeros and ones.
    """
    size = image.shape[-2:]
    plain = F.interpolate(refined_maps(net, image), size=size, mode="bilinear", align_corners=False)
    mirrored = F.interpolate(refined_maps(net, image.flip(-1)), size=size, mode="bilinear", align_corners=False)
    maps = max_norm(plain + mirrored.flip(-1))[0]
    return {c: maps[c + 1] for c, tag in enumerate(tags.flatten().tolist()) if tag == 1}
