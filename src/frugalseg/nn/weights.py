"""Initial weights of backbones: a timm name, a local file, or none.

Naming a timm model is the user's request to fetch it (once, into the hub's cache); nothing else touches the network.
"""

import logging
from collections.abc import Mapping
from pathlib import Path

import timm
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from frugalseg.errors import WeightsError

log = logging.getLogger(__name__)

FILE_SUFFIXES = {".pt", ".pth", ".ckpt", ".bin", ".safetensors"}
LEFT_OUT = "left_out."
"""Before the names of tensors that `frugalseg convert` only carries along for the way back."""
PREFIXES = ("module.", "model.", "net.", "encoder.", "backbone.", "resnet50.")
"""Prefixes that wrappers put before the names; stripped as long as one of them stands in front."""


def load_backbone_weights(module: nn.Module, weights: str | None) -> int:
    """Load weights into a backbone; classifier weights of the source are left out.

    Args:
        module: receives the weights; every one of its tensors must be found.
        weights: a timm model name such as `resnet50.tv_in1k` or `hf-hub:timm/resnet50.tv_in1k`, a file (torchvision or
            timm names, plain or wrapped state dict, safetensors), or None for random weights.

    Returns:
        Number of tensors that were loaded.

    Raises:
        WeightsError: the file is missing or unreadable, a name is not there, or a shape differs.
    """
    if weights is None:
        log.info("weights: null - the backbone starts from random numbers")
        return 0
    found = read_weights(weights)
    wanted = {name: t for name, t in module.state_dict().items() if not name.endswith("num_batches_tracked")}
    matched = [n for n, t in wanted.items() if n in found and found[n].shape == t.shape]
    if len(matched) < len(wanted):
        missing = next(n for n in wanted if n not in matched)
        reason = (
            f"has shape {tuple(found[missing].shape)}, not {tuple(wanted[missing].shape)}"
            if missing in found
            else "is not there"
        )
        raise WeightsError(
            f"{weights}: only {len(matched)} of {len(wanted)} tensors match ({missing} {reason}); "
            "give the weights of the same architecture, with torchvision's or timm's names"
        )
    module.load_state_dict({name: found[name] for name in matched}, strict=False)
    log.info("weights: %d tensors from %s", len(matched), weights)
    if left := [name for name in found if name not in module.state_dict()]:
        log.info("weights: %d tensors are of no use here, first %s", len(left), left[0])
    return len(matched)


def read_weights(weights: str) -> dict[str, Tensor]:
    """Tensors by name, without the prefixes that wrappers put before the names.

    Args:
        weights: as of `load_backbone_weights`, but not None.

    Raises:
        WeightsError: the file is missing or unreadable, or timm cannot load that name.
    """
    source = read_file(Path(weights).expanduser()) if names_file(weights) else _fetch(weights)
    return {_bare(name): tensor for name, tensor in source.items()}


def names_file(weights: str) -> bool:
    """Whether a file is meant and not a timm model, whose name may hold slashes too.

    Args:
        weights: what the user gave.
    """
    path = Path(weights)
    return path.suffix in FILE_SUFFIXES or weights.startswith((".", "/", "~")) or path.exists()


def _bare(name: str) -> str:
    """Strip wrapper prefixes from a parameter name."""
    while prefix := next((p for p in PREFIXES if name.startswith(p)), None):
        name = name[len(prefix) :]
    return name


def read_file(path: Path) -> Mapping[str, Tensor]:
    """Tensors of a weights file by the names that it gives them, never executing anything in it.

    Args:
        path: a state dict, plain or wrapped, or safetensors.

    Raises:
        WeightsError: it is missing or unreadable, or holds no tensors.
    """
    if not path.is_file():
        raise WeightsError(f"{path}: no such weights file; give a file, a timm name such as resnet50.tv_in1k, or null")
    try:
        content = (
            load_file(path)
            if path.suffix == ".safetensors"
            else torch.load(path, map_location="cpu", weights_only=True)
        )
    except Exception as error:
        line = str(error).splitlines()[0][:160] if str(error) else type(error).__name__
        raise WeightsError(f"{path}: not a readable weights file ({line}); it must hold tensors only") from error
    for key in ("state_dict", "model"):
        if isinstance(content, Mapping) and isinstance(content.get(key), Mapping):
            content = content[key]
    named = content.items() if isinstance(content, Mapping) else ()
    tensors = {name: value for name, value in named if isinstance(name, str) and isinstance(value, Tensor)}
    if not tensors:
        raise WeightsError(
            f"{path}: holds no tensors by name; give a state dict, or what `frugalseg convert` makes of the file"
        )
    return {name: tensor for name, tensor in tensors.items() if not name.startswith(LEFT_OUT)}


def _fetch(name: str) -> Mapping[str, Tensor]:
    """Weights by timm's name, through timm's own cache and download."""
    try:
        return timm.create_model(name, pretrained=True, num_classes=0).state_dict()
    except Exception as error:
        line = str(error).splitlines()[0][:160] if str(error) else type(error).__name__
        raise WeightsError(f"{name}: timm could not load these weights ({line}); give a local file or null") from error
