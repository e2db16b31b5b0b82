"""Sources that are transformers: the authors' CTI, DeiT, DINO."""

import math
import re
from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from timm.models.vision_transformer import VisionTransformer

from frugalseg.convert.build import build_task
from frugalseg.convert.source import BACKBONE, Plan, Request, Settings, Source, Tensors
from frugalseg.errors import CheckpointError

CTI_TASK = "frugalseg.papers.cti.CTI"
DEEPEST = 64
"""Blocks of the deepest ViT that is taken for one."""


def depth_of(tensors: Tensors) -> int:
    """Number of blocks."""
    return len({match[1] for name in tensors if (match := re.match(r"blocks\.(\d+)\.", name))})


def checked_depth(tensors: Tensors) -> int:
    """Number of blocks, within reason: a net is going to be built of them.

    Raises:
        CheckpointError: none, or more than any such net has.
    """
    if not 1 <= (depth := depth_of(tensors)) <= DEEPEST:
        raise CheckpointError(f"has {depth} blocks, not 1 to {DEEPEST}; give the file of a ViT")
    return depth


def sizes_of(tensors: Tensors, wanted: Mapping[str, int]) -> None:
    """Check the rank of tensors that sizes are read from.

    Raises:
        CheckpointError: one is missing, or no table of that rank.
    """
    for name, rank in wanted.items():
        if name not in tensors:
            raise CheckpointError(f"holds no {name}; give the whole file that its authors released")
        if tensors[name].ndim != rank or not tensors[name].numel():
            raise CheckpointError(f"{name} has shape {tuple(tensors[name].shape)}, not {rank} sides; give another file")


def heads_of(dim: int, request: Request) -> int:
    """Attention heads, which no shape tells: as asked for, else one for every 64 channels, as in DeiT.

    Raises:
        CheckpointError: neither is possible.
    """
    if request.heads is None and dim % 64:
        raise CheckpointError(f"the tokens are {dim} wide, no multiple of 64: say how many attention heads: --heads N")
    heads = request.heads or dim // 64
    if heads < 1 or dim % heads:
        raise CheckpointError(f"--heads {heads} does not divide the tokens' width {dim}; mend it")
    return heads


def side_of(patches: int) -> int:
    """Side of a square table of positions.

    Raises:
        CheckpointError: it is not square.
    """
    if math.isqrt(patches) ** 2 != patches:
        raise CheckpointError(f"positions of {patches} patches are no square table; give a net of square images")
    return math.isqrt(patches)


class AuthorsCTI(Source):
    """CTI's `.pth` (golden/cti/README.md section 1): timm's DeiT names and five of its own; `head` is a convolution.

    Assumed: the training script saves `{"model": ...}`, perhaps with `module.` before each name; it may keep `args`,
    an optimiser and an epoch beside it, which are not read. The class memory of C-CTI is not saved (cti.md, trap 12).
    """

    name = "cti"
    about = "the authors' CTI -> a checkpoint of frugalseg.papers.cti.CTI"
    tasks: ClassVar[Mapping[str, str | None]] = {"cti": CTI_TASK}
    wrapper = ("model",)
    left = ((r"pos_embed|norm\.(weight|bias)", "never used in the forward pass"),)
    needed: ClassVar[Mapping[str, int]] = {
        "cls_token": 3, "pos_embed_cls": 3, "pos_embed_pat": 3, "patch_embed.proj.weight": 4, "tokenizer.0.weight": 2,
        "tokenizer.2.weight": 2,
    }  # fmt: skip

    def sign(self, tensors: Tensors, wrapper: tuple[str, ...]) -> str | None:
        """Class positions and the tokenizer."""
        return (
            "pos_embed_cls and tokenizer.0.weight" if {"pos_embed_cls", "tokenizer.0.weight"} <= set(tensors) else None
        )

    def settings(self, tensors: Tensors, request: Request, task: str | None) -> Settings:
        """Everything but the number of heads by shapes."""
        sizes_of(tensors, self.needed)
        background = "bg_token" in tensors
        tokens, dim = (int(size) for size in tensors["pos_embed_cls"].shape[1:])
        # the largest part, which the file must really hold before a net of such sizes is built
        for name, shape in (("tokenizer.0", (5 * dim, dim)), ("tokenizer.2", (tokens * dim, 5 * dim))):
            if tuple(tensors[f"{name}.weight"].shape) != shape:
                there = tuple(tensors[f"{name}.weight"].shape)
                raise CheckpointError(
                    f"{name}.weight has shape {there}, but the tokens ask for {shape}; give another file"
                )
        arguments = {
            "num_classes": tokens + (not background),
            "dim": dim,
            "depth": checked_depth(tensors),
            "heads": heads_of(dim, request),
            "patch": int(tensors["patch_embed.proj.weight"].shape[-1]),
            "grid": side_of(int(tensors["pos_embed_pat"].shape[1])),
            "background_token": background,
            "weights": None,
        }
        return Settings(CTI_TASK, arguments)

    def plan(self, settings: Settings) -> Plan:
        """The same names on both sides, but for our prefix."""
        state = (task := build_task(CTI_TASK, settings.arguments)).state_dict()
        names = {name: (name.removeprefix("net."),) for name in state if name.startswith("net.")}
        own = {name: "the class memory, of training alone" for name in state if name.startswith("memory.")}
        cells, dim = state["net.pos_embed_pat"].shape[1:]
        filler = {
            "pos_embed": torch.zeros(1, cells + 1, dim),
            "norm.weight": torch.ones(dim),
            "norm.bias": torch.zeros(dim),
        }
        return Plan(settings, state, names, own=own, filler=filler, task=task)

    def of_ours(self, task: str | None, arguments: Mapping[str, Any], tensors: Tensors) -> Settings:
        """Refuse the nets of ours that the authors' code cannot hold."""
        if "net.token_table" in tensors:
            raise CheckpointError("its tokens were folded for inference; give the checkpoint it was made from")
        if arguments.get("stem") or not arguments.get("background_token", True):
            what = "a convolutional stem" if arguments.get("stem") else "no background token"
            raise CheckpointError(f"has {what}, for which the authors' net has no place; it stays ours")
        return super().of_ours(task, arguments, tensors)

    def default(self) -> Settings:
        """On VOC."""
        return Settings(CTI_TASK, {"num_classes": 21, "weights": None})


class PlainViT(Source):
    """A ViT with one class token under timm's names, and a source's way to call it."""

    tasks: ClassVar[Mapping[str, str | None]] = {BACKBONE: None}
    prefixes: ClassVar[tuple[str, ...]] = ()

    def settings(self, tensors: Tensors, request: Request, task: str | None) -> Settings:
        """Sizes by shapes."""
        tensors = self._bare(tensors)
        if "dist_token" in tensors:
            raise CheckpointError("is a distilled DeiT with two tokens; give the plain one, deit_*_patch16_224")
        sizes_of(tensors, {"cls_token": 3, "pos_embed": 3, "patch_embed.proj.weight": 4})
        patch, dim = int(tensors["patch_embed.proj.weight"].shape[-1]), int(tensors["cls_token"].shape[-1])
        side = side_of(int(tensors["pos_embed"].shape[1]) - 1)
        # heads change no name and no shape: whoever loads the file says how many
        known = {"patch_size": patch, "embed_dim": dim, "depth": checked_depth(tensors), "img_size": side * patch}
        return Settings(None, {"backbone": "vit", **known})

    def _bare(self, tensors: Tensors) -> Tensors:
        for prefix in self.prefixes:
            if any(name.startswith(prefix) for name in tensors):
                return {n.removeprefix(prefix): t for n, t in tensors.items() if n.startswith(prefix)}
        return tensors

    def plan(self, settings: Settings) -> Plan:
        """Names of timm, with and without a prefix."""
        known = {key: value for key, value in settings.arguments.items() if key != "backbone"}
        with torch.device("meta"):  # of a backbone only names and shapes are asked
            state = VisionTransformer(num_heads=1, num_classes=0, **known).state_dict()
        accepted = {name: tuple(f"{prefix}{name}" for prefix in self.prefixes) for name in state}
        return Plan(settings, state, {name: (name,) for name in state}, accepted)

    def default(self) -> Settings:
        """ViT-S/16 at 224 pixels."""
        return Settings(None, {"backbone": "vit", "patch_size": 16, "embed_dim": 384, "depth": 12, "img_size": 224})


class DeiT(PlainViT):
    """DeiT's official `.pth`: `{"model": ...}` with timm's names and a classifier."""

    name = "deit"
    about = "DeiT (one token) -> safetensors for `weights:`"
    wrapper = ("model",)
    left = ((r"head\.(weight|bias)", "ImageNet classifier"),)
    kin = ("dino",)
    lacks = "a classifier"

    def sign(self, tensors: Tensors, wrapper: tuple[str, ...]) -> str | None:
        """A class token and a linear classifier."""
        found = {"cls_token", "pos_embed", "blocks.0.attn.qkv.weight", "head.weight"} <= set(tensors)
        return "a ViT with head.weight" if found or "dist_token" in tensors else None


class DINO(PlainViT):
    """DINO's ViTs: the backbone file, or teacher or student of a whole checkpoint without its projection head."""

    name = "dino"
    about = "DINO's ViT-S/B, backbone or whole checkpoint (--part) -> safetensors for `weights:`"
    prefixes = ("backbone.", "module.backbone.")
    left = ((r"(module\.)?head\..*", "DINO's projection head"),)
    kin = ("deit",)

    def sign(self, tensors: Tensors, wrapper: tuple[str, ...]) -> str | None:
        """A class token without a classifier."""
        plain = self._bare(tensors)
        found = {"cls_token", "pos_embed", "blocks.0.attn.qkv.weight"} <= set(plain) and "head.weight" not in tensors
        whole = f" under {wrapper[-1]!r}" if wrapper and wrapper[-1] in ("teacher", "student") else ""
        return f"a ViT without a classifier{whole}" if found and "pos_embed_cls" not in tensors else None
