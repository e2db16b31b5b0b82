"""Dense features and image tokens of a pre-trained backbone."""

from typing import Any, cast

import numpy as np
import timm
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
from frugalseg.predictor.source import Source


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
        net = cast(Any, build_net(source))
        self.net, self.device = net, _move(net, device)
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


def build_net(source: Source) -> nn.Module:
    """The net of a source with its weights, in evaluation mode.

    Raises:
        CheckpointError: the tensors are not those of the net.
    """
    _refuse_fetching(source)
    try:
        net = create_backbone(source.preset, source.changes, teacher=True)
    except ConfigError as error:
        raise CheckpointError(f"{source.path}: its net cannot be built ({error})") from error
    load_exactly(net if source.is_mevt else cast(nn.Module, net.net), source)
    return net.eval().requires_grad_(False)


def _refuse_fetching(source: Source) -> None:
    """Refuse names and arguments by which timm would read other places than the file that was opened."""
    if source.is_mevt:
        return
    reading = [key for key in source.changes if key.startswith(("pretrained", "checkpoint_path", "cache_dir"))]
    if reading or not timm.is_model(source.preset):
        what = f"the argument {reading[0]}" if reading else f"the net {source.preset!r}"
        raise CheckpointError(f"{source.path}: asks for {what}, which is none of timm's own; it is not opened")


def load_exactly(net: nn.Module, source: Source) -> None:
    """Load a source's tensors into a net that has just these.

    Raises:
        CheckpointError: a tensor is missing, is too many, or has another shape.
    """
    wanted = {name: tensor.shape for name, tensor in net.state_dict().items()}
    found = {name: tensor.shape for name, tensor in source.tensors.items()}
    if wrong := sorted(name for name in wanted.keys() | found.keys() if wanted.get(name) != found.get(name)):
        shapes = [tuple(known[wrong[0]]) if wrong[0] in known else "not there" for known in (found, wanted)]
        raise CheckpointError(
            f"{source.path}: {len(wrong)} tensors are not those of {source.preset}: {wrong[0]} is {shapes[0]}, in the "
            f"net {shapes[1]}; give the checkpoint of this very net"
        )
    net.load_state_dict(source.tensors)


def multiple_of(source: Source, net: Any) -> int:
    """Sides that a net takes: 32 for MEVT's own; of timm's, the patch of a transformer and anything for the others."""
    return STEP if source.is_mevt else int(net.multiple)


def _move(net: nn.Module, device: str | torch.device) -> torch.device:
    try:
        place = torch.device(device)
        net.to(place)
    except (RuntimeError, AssertionError) as error:
        line = (str(error).splitlines() or ["unknown"])[0][:160]
        raise ConfigError(f"device {device!r}: {line}; give cpu, or cuda where there is a GPU") from error
    return place
