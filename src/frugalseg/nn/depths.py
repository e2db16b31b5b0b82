"""How deep in a net a parameter lies, for rates that fall with the distance from the head."""

from collections.abc import Iterator
from typing import Any

from timm.models import group_parameters
from torch import nn


def depths(net: nn.Module) -> dict[str, int]:
    """Number the layers of a net by blocks, the input first.

    timm's nets say themselves what a layer is (`group_matcher`). In other nets a layer is an item of a `ModuleList`
    that holds no further one. Parameters outside of blocks belong to the block before them in the order in which
    the net was built, those before the first block are layer 0; a stage's patch embedding is thus part of the stage
    before it, and its closing norm of its last block.

    Args:
        net: any net.

    Returns:
        Parameter name -> 0, 1, ...
    """
    if hasattr(net, "group_matcher"):
        timm_net: Any = net
        found = group_parameters(timm_net, timm_net.group_matcher(coarse=False), reverse=True)
        return {str(name): int(layer) for name, layer in found.items()}
    blocks = list(_blocks(net))
    layers: dict[str, int] = {}
    seen: dict[str, int] = {}
    here = 0
    for name, _ in net.named_parameters():
        block = next((b for b in blocks if name.startswith(f"{b}.")), None)
        if block is not None:
            here = seen.setdefault(block, len(seen) + 1)
        layers[name] = here
    return layers


def _blocks(net: nn.Module) -> Iterator[str]:
    """Names of the innermost items of module lists."""
    for name, module in net.named_modules():
        if isinstance(module, nn.ModuleList):
            for index, item in enumerate(module):
                if not any(isinstance(inner, nn.ModuleList) for inner in item.modules()):
                    yield f"{name}.{index}"
