"""Backbones that learn: dense features, or four maps of strides 4, 8, 16 and 32 for decoders of other kinds."""

from math import log2
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from frugalseg.errors import ConfigError
from frugalseg.nn.features import Backbone, TimmDense, create_own, create_timm, load_into
from frugalseg.nn.units import Norm, normalisation

LEVELS = 4


def rescale(channels: int, power: int, norm: Norm = "batch") -> nn.Module:
    """Bring a map to 2^power times its size, as UperNets on plain transformers do.

    Deconvolutions of 2 x 2 with normalisation and GELU between them, or a maximum over squares (BEiT's and iBOT's
    `fpn1` to `fpn4`).

    Args:
        channels: of the map and of the result.
        power: below 0 shrinks.
        norm: between two deconvolutions.
    """
    if power <= 0:
        return nn.MaxPool2d(2**-power) if power else nn.Identity()
    layers: list[nn.Module] = []
    for _ in range(power):
        layers += [normalisation(norm, channels), nn.GELU()] if layers else []
        layers.append(nn.ConvTranspose2d(channels, channels, 2, 2))
    return nn.Sequential(*layers)


class ChannelNorm(nn.LayerNorm):
    """Layer norm over the channels of (N, C, H, W)."""

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> the same shape."""
        return super().forward(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class TimmPyramid(nn.Module):
    """Four maps of a timm net.

    Of a hierarchical net its last four stages, as they leave the stage. Where the net itself norms its last stage
    alone (Swin), each stage gets a new layer norm. Of a plain transformer the blocks that end a quarter of the depth
    each (SelfPatch's choice: 3rd, 6th, 9th, 12th), without the final norm, brought to strides 4 to 32 by `rescale`;
    with patches whose side is no power of 2 the strides are the nearest that doubling gives: 3.5 to 28 for 14.

    Args:
        name: timm name.
        options: further arguments of the timm model, see `create_timm`.
        norm: kind of the normalisation between deconvolutions.

    Raises:
        ConfigError: timm cannot build it, or it has fewer than four stages.
    """

    def __init__(self, name: str, options: dict[str, Any] | None = None, norm: Norm = "batch") -> None:
        super().__init__()
        net: Any = create_timm(name, options)
        depth, steps = len(net.feature_info), [int(info["reduction"]) for info in net.feature_info]
        if depth < LEVELS:
            raise ConfigError(f"backbone {name}: has {depth} stages, this head needs {LEVELS}; choose linear or fcn")
        self.net, self.plain = net, len(set(steps)) == 1
        self.stages = [depth * (i + 1) // LEVELS - 1 if self.plain else depth - LEVELS + i for i in range(LEVELS)]
        self.pyramid_widths = tuple(int(net.feature_info[i]["num_chs"]) for i in self.stages)
        powers = [round(log2(steps[0] / (4 * 2**i))) if self.plain else 0 for i in range(LEVELS)]
        self.multiple = steps[-1] * 2 ** -min(powers) if self.plain else max(steps)
        fresh = not self.plain and isinstance(getattr(net, "norm", None), nn.LayerNorm)
        pairs = zip(self.pyramid_widths, powers, strict=True)
        self.adapt = nn.ModuleList(ChannelNorm(c) if fresh else rescale(c, power, norm) for c, power in pairs)

    def pyramid(self, image: Tensor) -> tuple[Tensor, ...]:
        """(N, 3, H, W) -> four maps (N, C_i, h_i, w_i), the finest first."""
        net: Any = self.net
        maps: list[Tensor] = net.forward_intermediates(
            image, indices=self.stages, norm=False, output_fmt="NCHW", intermediates_only=True
        )
        return tuple(adapt(each) for adapt, each in zip(self.adapt, maps, strict=True))


class TrainableBackbone(nn.Module):
    """A net that learns, for fine-tuning.

    It starts from random numbers; `load` fetches the weights. Parameters that the asked maps do not depend on, such as
    an own decoder where the pyramid is asked, are frozen: DDP need not search for them.

    Args:
        settings: which net.
        pyramid: give four maps instead of the dense features.
        norm: kind of the normalisation in what is added to a plain transformer.
        frozen_norm: batch normalisation of the net is a constant, scale and shift included; for small batches.

    Raises:
        ConfigError: no such net, or it has no pyramid.
    """

    def __init__(
        self, settings: Backbone, pyramid: bool = False, norm: Norm = "batch", frozen_norm: bool = False
    ) -> None:
        super().__init__()
        own = ":" in settings.name
        if own:
            net: Any = create_own(settings)
        elif pyramid:
            net = TimmPyramid(settings.name, settings.options, norm)
        else:
            net = TimmDense(settings.name, settings.stages, settings.options)
        if pyramid and not (hasattr(net, "pyramid") and len(getattr(net, "pyramid_widths", ())) == LEVELS):
            raise ConfigError(
                f"backbone {settings.name}: has no pyramid(image) with {LEVELS} pyramid_widths, which this head reads;"
                " choose head linear or fcn"
            )
        self.settings, self.net, self.gives_pyramid, self.frozen_norm = settings, net, pyramid, frozen_norm
        self.widths: tuple[int, ...] = tuple(net.pyramid_widths) if pyramid else (int(net.width),)
        """Channels of the maps."""
        self.multiple: int = settings.multiple or (32 if own else int(net.multiple))
        """Sides of images are multiples of this."""
        self._freeze_unread()
        self.train()

    @property
    def known(self) -> nn.Module:
        """The net that the weights are of: all but what was added to it."""
        return self.net.net if isinstance(self.net, TimmDense | TimmPyramid) else cast(nn.Module, self.net)

    def load(self) -> None:
        """Fetch the weights.

        Raises:
            WeightsError: the file is missing or unreadable, or does not fit.
        """
        load_into(self.known, self.settings)

    def train(self, mode: bool = True) -> "TrainableBackbone":
        """As of every module, but for batch normalisation that is frozen."""
        super().train(mode)
        for module in self._constants():
            module.eval()
        return self

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        """Maps of images.

        Args:
            image: (N, 3, H, W), H and W multiples of `multiple`.

        Returns:
            The dense features (N, D, h, w), or the four maps of the pyramid, the finest first.
        """
        net: Any = self.net
        return tuple(net.pyramid(image)) if self.gives_pyramid else (cast(Tensor, net.dense(image)),)

    def _constants(self) -> list[nn.Module]:
        return [m for m in self.known.modules() if isinstance(m, _BatchNorm)] if self.frozen_norm else []

    def _freeze_unread(self) -> None:
        """Run a small image there and back; what has no gradient then was not read."""
        self.eval()
        side = 2 * self.multiple
        try:
            with torch.enable_grad():
                torch.autograd.backward([each.sum() for each in self(torch.zeros(1, 3, side, side))])
        except (RuntimeError, ValueError, AssertionError) as error:
            line = (str(error).splitlines() or [type(error).__name__])[0][:160]
            raise ConfigError(
                f"backbone {self.settings.name}: does not take an image of {side} x {side} ({line}); set"
                " backbone.multiple to what its sides must be multiples of, and no fixed size in backbone.options"
            ) from error
        for parameter in self.parameters():
            parameter.requires_grad_(parameter.grad is not None)
            parameter.grad = None
        for module in self._constants():
            module.requires_grad_(False)
