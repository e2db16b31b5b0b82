"""Dense features and image tokens of a pre-trained backbone."""

from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from frugalseg.data.crop import whole
from frugalseg.data.normalise import Normaliser
from frugalseg.errors import CheckpointError, ConfigError
from frugalseg.nn.inputs import padded
from frugalseg.papers.mevt.backbones import create_backbone
from frugalseg.papers.mevt.encoder import STEP
from frugalseg.papers.mevt.model import Dense
from frugalseg.predictor.base import Predictor
from frugalseg.predictor.nets import check_sizes, load_exactly, move
from frugalseg.predictor.source import Source
from frugalseg.predictor.trust import check_timm


class FeaturePredictor(Predictor):
    """The teacher of a pre-training, frozen.

    Args:
        source: of `read_source`.
        device: as torch names it.

    Raises:
        CheckpointError: the tensors are not those of the net that the source names.
        ConfigError: no such device.
    """

    def __init__(self, source: Source, device: str | torch.device = "cpu") -> None:
        super().__init__(source.path, "dense features and a token: features(image), token(image)")
        self.source = source
        net = cast(Any, build_backbone(source))
        self.net, self.device = net, move(net, device)
        self.width = int(net.width)
        """D, channels of the dense features."""
        self.stride = int(net.stride)
        """Pixels per cell."""
        self.token_width = int(net.token_width)
        """Length of the token."""
        self.multiple = multiple_of(source, net)
        """Sides that the net takes; images are padded to them."""
        self._normaliser = Normaliser(source.mean, source.std)

    @torch.no_grad()
    def _dense(self, pixels: NDArray[np.uint8]) -> Dense:
        canvas = self._normaliser.onto_canvas(pixels, whole((pixels.shape[0], pixels.shape[1])))
        found: Dense = self.net(padded(torch.from_numpy(canvas)[None].to(self.device), self.multiple))
        return found

    def _features(self, pixels: NDArray[np.uint8]) -> Tensor:
        height, width = (-(-side // self.stride) for side in pixels.shape[:2])
        return self._dense(pixels).features[0, :, :height, :width].float().cpu().contiguous()

    def _token(self, pixels: NDArray[np.uint8]) -> Tensor:
        """The net's own; the mean of the last map where it has none."""
        return self._dense(pixels).token[0].float().cpu()


def build_backbone(source: Source) -> nn.Module:
    """The net of a source with its weights, in evaluation mode.

    Args:
        source: of `read_source`.

    Raises:
        CheckpointError: the tensors are not those of the net, or it would read other files.
    """
    place = str(source.path)
    try:
        if not source.is_mevt:
            check_timm(source.preset, source.changes)
    except CheckpointError as error:
        raise CheckpointError(f"{place}: {error}") from error
    check_sizes(lambda: _own(source, _created(source)), source.tensors, place, source.preset)
    try:
        net = _created(source)
    except (ConfigError, RuntimeError, MemoryError) as error:
        line = (str(error).splitlines() or [type(error).__name__])[0]
        raise CheckpointError(f"{place}: its net cannot be built ({line})") from error
    load_exactly(_own(source, net), source.tensors, place, source.preset)
    return net.eval().requires_grad_(False)


def _created(source: Source) -> nn.Module:
    return create_backbone(source.preset, source.changes, teacher=True)


def _own(source: Source, net: nn.Module) -> nn.Module:
    """The part of a net whose tensors the source holds."""
    return net if source.is_mevt else cast(nn.Module, net.net)


def multiple_of(source: Source, net: Any) -> int:
    """Sides that a net takes: 32 for MEVT's own; of timm's, the patch of a transformer and anything for the others."""
    return STEP if source.is_mevt else int(net.multiple)
