"""Masks of images from nets that need nothing but the image."""

from collections import defaultdict
from collections.abc import Sequence
from typing import Any, ClassVar, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from frugalseg.data.normalise import Normaliser
from frugalseg.data.rescale import rescaled
from frugalseg.errors import ConfigError
from frugalseg.nn.inputs import padded
from frugalseg.predictor.base import Picture, Predictor, pixels_of
from frugalseg.predictor.nets import build_net, move
from frugalseg.predictor.segment_nets import SegmentNet
from frugalseg.predictor.source import NetSource
from frugalseg.stages.deeplab.inference import Inference, merge_passes, refine


class SegmentPredictor(Predictor):
    """A segmentation net: of `stages.deeplab`, `stages.finetune` or `stages.probe`.

    A mask is what `frugalseg predict` writes for the same checkpoint at the same scales: by default one scale and no
    mirror image, `predictor(image, scales=(1.0, 0.5, 1.5, 2.0), flip=True)` for the default of `frugalseg predict`.
    How scales are merged, tiles and the CRF are `predictor.inference`: those of the run, and may be set.

    Attributes:
        source: what it was made from.
        device: where it computes.
        num_classes: K.
        multiple: of the places at which tiles of a larger image must begin; images are of any size.
        mean: of the normalisation, on the scale 0..1.
        std: of the normalisation.

    Args:
        source: of `read_source`.
        device: as torch names it.

    Raises:
        CheckpointError: the tensors are not those of the net.
        ConfigError: no such device.
    """

    kind: ClassVar[str] = "segmenter"

    def __init__(self, source: NetSource, device: str | torch.device = "cpu") -> None:
        super().__init__(
            source.path, "masks: predictor(image), predictor.masks(images)", source.class_names, source.palette
        )
        self.source = source
        net = cast(SegmentNet, build_net(source))
        self.net, self.device = net, move(net, device)
        self.num_classes, self.multiple = net.num_classes, net.multiple
        self.mean, self.std = source.mean, source.std
        self._normaliser = Normaliser(source.mean, source.std)

    @property
    def inference(self) -> Inference:
        """How passes become a mask."""
        return self.net.inference

    @inference.setter
    def inference(self, value: Inference) -> None:
        """Set it."""
        self.net.inference = value

    def __call__(
        self,
        image: Picture,
        tags: Sequence[str | int] | None = None,
        supports: Sequence[tuple[Picture, Any]] | None = None,
        *,
        scales: Sequence[float] = (1.0,),
        flip: bool = False,
    ) -> NDArray[np.uint8]:
        """The mask of an image at its own size.

        Args:
            image: a path, Pillow image or array (H, W, 3) uint8.
            tags: None.
            supports: None.
            scales: sizes at which the image is looked at.
            flip: also look at the mirror image.

        Returns:
            (H, W) class ids.

        Raises:
            ImageError: the image is missing, damaged, or of another shape or type.
            ConfigError: tags or supports are given, or the scales are none.
        """
        if tags is not None or supports is not None:
            raise ConfigError(f"{self.path}: its masks come from the image alone; leave tags and supports out")
        pixels = pixels_of(image)
        return self._mask(pixels, self._probabilities(pixels, scales, flip))

    def probabilities(
        self, image: Picture, scales: Sequence[float] = (1.0,), flip: bool = False
    ) -> NDArray[np.float32]:
        """(K, H, W) probabilities that sum to 1 at each pixel; arguments and errors as of a call."""
        return cast(NDArray[np.float32], self._probabilities(pixels_of(image), scales, flip).cpu().numpy())

    def masks(self, images: Sequence[Picture], batch_size: int = 4) -> list[NDArray[np.uint8]]:
        """Masks of several images, at one scale.

        Images of one size go through together. What is asked beside an image then moves its logits by the rounding of
        float32 and no more; with a batch size of 1 an answer is that of a call.

        Args:
            images: of any sizes.
            batch_size: how many go through at a time.

        Returns:
            (H, W) class ids of each.

        Raises:
            ImageError: as of a call; says which image.
            ConfigError: a batch size below 1.
        """
        if batch_size < 1:
            raise ConfigError(f"batch_size is {batch_size}: set it to 1 or more")
        pixels = [pixels_of(image, f"image {k} of {len(images)}") for k, image in enumerate(images, start=1)]
        places: dict[tuple[int, ...], list[int]] = defaultdict(list)
        for place, each in enumerate(pixels):
            places[each.shape].append(place)
        found: dict[int, NDArray[np.uint8]] = {}
        for same in places.values():
            for begin in range(0, len(same), batch_size):
                chosen = same[begin : begin + batch_size]
                found |= zip(chosen, self._batch([pixels[place] for place in chosen]), strict=True)
        return [found[place] for place in range(len(pixels))]

    @torch.no_grad()
    def logits(self, batch: Tensor) -> Tensor:
        """Logits at the pixels of images, in one pass.

        Args:
            batch: (B, 3, h, w) float32 on the device, (x / 255 - mean) / std of RGB.

        Returns:
            (B, K, h, w) float32.
        """
        found: Tensor = self.net(batch)
        return found

    # ------------------------------------------------------------------ inside

    @torch.no_grad()
    def _probabilities(self, pixels: NDArray[np.uint8], scales: Sequence[float], flip: bool) -> Tensor:
        if not scales or min(scales) <= 0:
            raise ConfigError(f"scales are {list(scales)}: give one or more numbers above 0")
        settings = self.inference

        def cells(scale: float) -> Tensor:
            pair = torch.from_numpy(self._normaliser.pair(rescaled(pixels, scale)))
            return self.net.cells((pair if flip else pair[:1]).to(self.device), "the image", scale)

        size = (pixels.shape[0], pixels.shape[1])
        return merge_passes((cells(scale) for scale in scales), size, settings.merge, settings.of)

    @torch.no_grad()
    def _batch(self, images: Sequence[NDArray[np.uint8]]) -> list[NDArray[np.uint8]]:
        """Masks of images of one size."""
        batch = torch.from_numpy(np.stack([self._normaliser.pair(each)[0] for each in images]))
        cells = self.net.cells(batch.to(self.device), "the images", 1.0)
        size, settings = (batch.shape[-2], batch.shape[-1]), self.inference
        merged = (merge_passes([each[None]], size, settings.merge, settings.of) for each in cells)
        return [self._mask(pixels, each) for pixels, each in zip(images, merged, strict=True)]

    def _mask(self, pixels: NDArray[np.uint8], probabilities: Tensor) -> NDArray[np.uint8]:
        if self.inference.crf:
            ids = refine(torch.from_numpy(np.array(pixels)).to(self.device), probabilities, self.inference)
        else:
            ids = probabilities.max(dim=0).indices
        return cast(NDArray[np.uint8], ids.to(torch.uint8).cpu().numpy())

    @torch.no_grad()
    def _features(self, pixels: NDArray[np.uint8]) -> Tensor:
        """Dense features of a probe's backbone, and of a net that was fine-tuned with a head on its dense features."""
        image = torch.from_numpy(self._normaliser.pair(pixels)[:1]).to(self.device)
        whole = padded(image, self.multiple)
        found = self.net.dense(whole)
        if found is None:
            self._cannot("dense features")
        stride = whole.shape[-1] // found.shape[-1]
        height, width = (-(-side // stride) for side in pixels.shape[:2])
        return found[0, :, :height, :width].float().cpu().contiguous()
