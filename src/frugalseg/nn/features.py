"""Dense features of a frozen backbone, whatever it is: a net of timm, or one of the suite's own with its checkpoint.

Evaluation stages judge features and know nothing of the net. Nets of papers come by their dotted path, since neither
this package nor the stages import papers.
"""

import hashlib
import json
import pkgutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import FunctionType
from typing import Any, ClassVar, Protocol, cast, get_type_hints, runtime_checkable

import timm
import torch
from torch import Tensor, nn

from frugalseg.errors import ConfigError, WeightsError
from frugalseg.limits import check_class_path
from frugalseg.nn.digests import digest_of_net
from frugalseg.nn.weights import load_backbone_weights, read_file
from frugalseg.ops.cam import resize


@runtime_checkable
class FrozenFeatures(Protocol):
    """What evaluation stages ask of a backbone."""

    width: int
    """D, channels of the features."""
    multiple: int
    """Sides of images are multiples of this."""

    def dense(self, image: Tensor) -> Tensor:
        """(N, 3, H, W) normalised image -> (N, D, h, w) features, without a graph."""
        ...

    def digest(self) -> str:
        """Hexadecimal name of the function: nets that differ in a setting or a weight have different ones."""
        ...


@dataclass(frozen=True)
class Backbone:
    """Which net gives the features.

    Args:
        name: a name of timm, or `package.module:Class` of a net with `dense(image)` and `width`.
        weights: file (state dict, Lightning checkpoint, safetensors), timm name, or null for random numbers; an own net
            takes files only.
        prefix: of the wanted tensors' names in the file, e.g. `teacher.net.`; it is taken off, and others are left.
        stages: of a timm net, whose maps are concatenated; -1 is the last one. Maps are resized to the largest.
        multiple: sides that the net needs; null for the stride of a timm net, and 32 for an own net.
        options: further arguments of the net.
        partial: whether the file may hold more of an own net than is built, such as a decoder that is left out.
    """

    name: str = "vit_small_patch16_224"
    weights: str | None = None
    prefix: str = ""
    stages: tuple[int, ...] = (-1,)
    multiple: int | None = None
    options: dict[str, Any] = field(default_factory=dict)
    partial: bool = False


class TimmDense(nn.Module):
    """Feature maps of a timm net: of a transformer the last norm is applied and prefix tokens are left out.

    Args:
        name: timm name.
        stages: numbers of blocks or stages.
        options: further arguments of the timm model. A transformer with positions takes images of any size unless they
            say otherwise (`dynamic_img_size`).

    Raises:
        ConfigError: timm has no such model, or the model no such stage.
    """

    def __init__(self, name: str, stages: Sequence[int] = (-1,), options: dict[str, Any] | None = None) -> None:
        super().__init__()
        net: Any = create_timm(name, options)
        try:
            chosen = [net.feature_info[stage] for stage in stages]
        except IndexError:
            raise ConfigError(
                f"backbone {name}: has stages 0 to {len(net.feature_info) - 1}, and -1 for the last, not"
                f" {list(stages)}; set backbone.stages"
            ) from None
        self.net, self.stages = net, list(stages)
        self.width = sum(int(info["num_chs"]) for info in chosen)
        self.multiple = max(int(info["reduction"]) for info in chosen)

    def dense(self, image: Tensor) -> Tensor:
        """Maps of the chosen stages, concatenated at the largest one's size.

        Args:
            image: (N, 3, H, W).

        Returns:
            (N, D, h, w).
        """
        net: Any = self.net
        maps: list[Tensor] = net.forward_intermediates(
            image, indices=self.stages, norm=True, output_fmt="NCHW", intermediates_only=True
        )
        largest = max(maps, key=lambda each: each.shape[-1]).shape[-2:]
        return torch.cat([resize(each, (largest[0], largest[1])) for each in maps], dim=1)


class FrozenBackbone(nn.Module):
    """A net that never learns: always in evaluation mode, never with a graph; see `FrozenFeatures`.

    It starts from random numbers; `load` fetches the weights. So a checkpoint that holds it can be restored where the
    file is not.

    Args:
        settings: which net.

    Raises:
        ConfigError: no such net, or an own one without `dense` or `width`.
    """

    hot: ClassVar[tuple[str, ...]] = ("dense",)
    """What a training step calls; see `callbacks.Compile`."""

    def __init__(self, settings: Backbone) -> None:
        super().__init__()
        self.settings = settings
        own = ":" in settings.name
        net: Any = create_own(settings) if own else TimmDense(settings.name, settings.stages, settings.options)
        self.net = net.eval().requires_grad_(False)
        self.width = int(net.width)
        self.multiple = settings.multiple or (32 if own else int(net.multiple))

    def load(self) -> None:
        """Fetch the weights.

        Raises:
            WeightsError: the file is missing or unreadable, or does not fit.
        """
        load_into(self.net.net if isinstance(self.net, TimmDense) else self.net, self.settings)

    def train(self, mode: bool = True) -> "FrozenBackbone":
        """Stay in evaluation mode."""
        return super().train(False)

    @torch.no_grad()
    def dense(self, image: Tensor) -> Tensor:
        """Features of images of a permitted size; see `frugalseg.nn.inputs.padded` for others.

        Args:
            image: (N, 3, H, W), H and W multiples of `multiple`.

        Returns:
            (N, D, h, w).

        Raises:
            ValueError: another size.
        """
        height, width = image.shape[-2:]
        if height % self.multiple or width % self.multiple:
            raise ValueError(f"images of {height} x {width} for a net that needs multiples of {self.multiple}")
        net: Any = self.net
        return cast(Tensor, net.dense(image))

    forward = dense

    def digest(self) -> str:
        """Name of what the net is and of all its tensors."""
        known = asdict(self.settings)
        # where the numbers came from does not matter; the numbers do
        known = {key: value for key, value in known.items() if key not in ("weights", "prefix", "partial")}
        told = json.dumps(known, sort_keys=True, default=str)
        return hashlib.sha256(f"{told} {digest_of_net(self.net)}".encode()).hexdigest()


def create_timm(name: str, options: dict[str, Any] | None = None) -> nn.Module:
    """Build a timm net without a classifier, from random numbers.

    Args:
        name: timm name.
        options: further arguments of the timm model, and `checkpointing`: whether activations are made again on the
            way back. A transformer takes images of any size unless they say otherwise.

    Raises:
        ConfigError: timm has no such model, or the model no such option.
    """
    settings = {"num_classes": 0, **(options or {})}
    checkpointing, family = settings.pop("checkpointing", False), name.split("_")[0]
    if "vit" in family:
        settings.setdefault("dynamic_img_size", True)
    if family.startswith("swin"):
        settings.setdefault("strict_img_size", False)
    try:
        net: Any = timm.create_model(name, pretrained=False, **settings)
        if checkpointing:
            net.set_grad_checkpointing()
    except (RuntimeError, TypeError, AttributeError, AssertionError) as error:
        line = (str(error).splitlines() or [type(error).__name__])[0][:160]
        raise ConfigError(
            f"backbone {name}: timm cannot build this ({line}); give a name and options that it knows"
        ) from error
    return cast(nn.Module, net)


def create_own(settings: Backbone) -> nn.Module:
    """Build a net by its dotted path, from random numbers.

    Raises:
        ConfigError: a package that is not allowed, no such net, or one without `dense` or `width`.
    """
    check_class_path(settings.name, "backbone")
    try:
        make = pkgutil.resolve_name(settings.name)
        if not _makes_nets(make):  # nothing else is called: torch.hub:load
            raise TypeError("it is no class of nets, nor a function of ours that gives one")
        net = make(**settings.options)
    except (ImportError, AttributeError, ValueError, TypeError) as error:
        raise ConfigError(
            f"backbone {settings.name}: cannot be built ({str(error)[:160]}); give package.module:Class and "
            "options that it takes"
        ) from error
    if not (isinstance(net, nn.Module) and hasattr(net, "dense") and isinstance(getattr(net, "width", None), int)):
        raise ConfigError(f"backbone {settings.name}: has no dense(image) or no width; give a net that has both")
    return net


def _makes_nets(make: Any) -> bool:
    """Whether it is a class of nets, or a function of this package that says it gives one."""
    if isinstance(make, FunctionType) and make.__module__.startswith("frugalseg."):
        make = get_type_hints(make).get("return")
    return isinstance(make, type) and issubclass(make, nn.Module)


def load_into(net: nn.Module, settings: Backbone) -> None:
    """Fetch the weights that the settings name, if any.

    Args:
        net: the timm net or the own net that they are of.
        settings: weights and prefix.

    Raises:
        WeightsError: the file is missing or unreadable, or does not fit.
    """
    if settings.weights is not None and (settings.prefix or ":" in settings.name):
        partial = settings.partial or ":" not in settings.name
        _load_prefixed(net, Path(settings.weights).expanduser(), settings.prefix, partial)
    else:
        load_backbone_weights(net, settings.weights)


def _load_prefixed(net: nn.Module, path: Path, prefix: str, partial: bool) -> None:
    """Load those tensors whose names begin with a prefix: all of the net's, and no others unless it is `partial`."""
    found = {name[len(prefix) :]: tensor for name, tensor in read_file(path).items() if name.startswith(prefix)}
    wanted = net.state_dict()
    for name, tensor in wanted.items():
        if name not in found or found[name].shape != tensor.shape:
            there = f"has shape {tuple(found[name].shape)}" if name in found else "is not there"
            raise WeightsError(
                f"{path}: {prefix}{name} {there}, wanted {tuple(tensor.shape)}; give the checkpoint of the same net "
                "and as backbone.prefix, what stands before its tensors' names"
            )
    # a token that hides parts of images in pretraining does nothing afterwards
    if prefix and not partial and (left := [n for n in found if n not in wanted and not n.endswith("mask_token")]):
        raise WeightsError(
            f"{path}: {prefix}{left[0]} and {len(left) - 1} more tensors have no place in this net, which was trained "
            "with other options: set backbone.options to them, or backbone.partial to true to leave parts out"
        )
    net.load_state_dict({name: found[name] for name in wanted})
