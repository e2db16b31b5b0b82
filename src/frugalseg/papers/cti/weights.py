"""Initial weights of CTI's net: DeiT's or those of an earlier stage (cti.md section 2.5)."""

import logging
from collections.abc import Mapping

from torch import Tensor

from frugalseg.errors import WeightsError
from frugalseg.nn.weights import load_backbone_weights, read_weights
from frugalseg.papers.cti.embed import StemEmbed, resize_positions
from frugalseg.papers.cti.model import CTIViT

log = logging.getLogger(__name__)


def load_weights(net: CTIViT, weights: str | None, stem_weights: str | None = None) -> None:
    """Load initial weights.

    From a plain ViT with one class token (DeiT-S): its class token and the token's position go to all classes, its
    classifier and final norm are left out. The background token stays 0; tokenizer and patch head keep their random
    numbers. From a checkpoint of this net: everything. Either way patch positions are resized to the net's table.

    Args:
        net: receives them.
        weights: a timm name such as `deit_small_patch16_224.fb_in1k`, a file, or None for random numbers.
        stem_weights: the same for the ResNet of a `StemEmbed`.

    Raises:
        WeightsError: missing, unreadable, or of another architecture.
        CheckpointError: tokens of another number of classes.
    """
    if isinstance(net.patch_embed, StemEmbed):
        load_backbone_weights(net.patch_embed.backbone, stem_weights)
    if weights is None:
        log.info("weights: null - the transformer starts from random numbers")
        return
    found = read_weights(weights)
    if "token_table" in found:
        raise WeightsError(f"{weights}: its tokens were folded for inference; give the checkpoint it was made from")
    if "pos_embed_cls" not in found:
        found = _tokens_of_vit(net, found, weights)
    wanted = net.state_dict()
    if "pos_embed_pat" in found:
        side = round(wanted["pos_embed_pat"].shape[1] ** 0.5)
        found["pos_embed_pat"] = resize_positions(found["pos_embed_pat"].float(), (side, side))
    if extra := [name for name in found if name.startswith("blocks.") and name not in wanted]:
        raise WeightsError(f"{weights}: holds {extra[0]}, which this net has not; give the weights of as many blocks")
    for name, tensor in wanted.items():
        if name not in found:
            raise WeightsError(f"{weights}: holds no {name}; give the weights of the same architecture, or null")
        # the number of class tokens is left to the net, which says what is wrong in words
        if found[name].shape != tensor.shape and not name.startswith(("pos_embed_cls", "tokenizer.2", "head.")):
            shapes = f"{tuple(found[name].shape)}, not {tuple(tensor.shape)}"
            raise WeightsError(f"{weights}: {name} has shape {shapes}; give the weights of the same architecture")
    net.load_state_dict({name: found[name] for name in wanted})
    log.info("weights: %d tensors from %s", len(wanted), weights)


def _tokens_of_vit(net: CTIViT, found: Mapping[str, Tensor], weights: str) -> dict[str, Tensor]:
    """The tensors of a plain ViT under this net's names, the net's own for the rest."""
    positions = found.get("pos_embed")
    patches = 0 if positions is None else positions.shape[1] - 1
    if positions is None or "cls_token" not in found or round(patches**0.5) ** 2 != patches:
        raise WeightsError(
            f"{weights}: not a ViT with one class token and a square table of positions; "
            "give DeiT's weights (deit_small_patch16_224.fb_in1k), a checkpoint of CTI, or null"
        )
    own = net.state_dict()
    kept = {name: own[name] for name in own if name.startswith(("tokenizer.", "head.", "patch_embed.", "bg_token"))}
    taken = {name: tensor for name, tensor in found.items() if name.startswith("blocks.") or name == "cls_token"}
    if not isinstance(net.patch_embed, StemEmbed):
        taken |= {name: tensor for name, tensor in found.items() if name.startswith("patch_embed.")}
    return {
        **kept,
        **taken,
        "pos_embed_cls": positions[:, :1].expand(-1, net.tokens, -1).contiguous(),
        "pos_embed_pat": positions[:, 1:],
    }
