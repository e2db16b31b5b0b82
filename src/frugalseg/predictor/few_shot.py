"""Masks of what a few other images show."""

from collections.abc import Sequence
from os import PathLike
from pathlib import Path
from typing import Any, ClassVar, cast

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from frugalseg.batch import IGNORE_INDEX
from frugalseg.data.crop import place_mask, top_left
from frugalseg.data.io import read_mask
from frugalseg.data.normalise import Normaliser
from frugalseg.data.rescale import longer_side
from frugalseg.errors import CheckpointError, ConfigError, MaskError
from frugalseg.ops.cam import resize
from frugalseg.predictor.base import Picture, Predictor, pixels_of
from frugalseg.predictor.few_shot_nets import FewShotNet
from frugalseg.predictor.nets import build_net, move
from frugalseg.predictor.source import NetSource

Bytes = NDArray[np.uint8]


class FewShotPredictor(Predictor):
    """DSMF-Net, or its prototype baseline: finds in an image what supports show.

    Images are brought to the size of the task's episodes, padded to a square, and the answer is brought back: what
    `frugalseg test` scores for the same episode.

    Attributes:
        source: what it was made from.
        device: where it computes.
        size: longer side that images are brought to; None for that of the image asked about. May be set.

    Args:
        source: of `read_source`.
        device: as torch names it.

    Raises:
        CheckpointError: the tensors are not those of the net, or no fit has chosen the baseline's threshold.
        ConfigError: no such device.
    """

    kind: ClassVar[str] = "few-shot"

    def __init__(self, source: NetSource, device: str | torch.device = "cpu") -> None:
        able = "masks of what others show: predictor(image, supports=[(image, mask), ...])"
        super().__init__(source.path, able, ("background", "foreground"))
        self.source = source
        net = cast(FewShotNet, build_net(source))
        if not torch.isfinite(cast(Tensor, getattr(net, "threshold", torch.zeros(())))):
            raise CheckpointError(f"{source.path}: has no threshold yet; give the checkpoint of a fit that has ended")
        self.net, self.device, self.size = net, move(net, device), net.size
        self.mean, self.std = source.mean, source.std
        self._normaliser = Normaliser(source.mean, source.std)

    @torch.no_grad()
    def __call__(
        self,
        image: Picture,
        tags: Sequence[str | int] | None = None,
        supports: Sequence[tuple[Picture, Any]] | None = None,
    ) -> NDArray[np.uint8]:
        """The mask of an image at its own size.

        Args:
            image: a path, Pillow image or array (H, W, 3) uint8.
            tags: None.
            supports: one or more pairs of an image and its mask: a file, a Pillow image or an array (H, W), 1 for what
                is sought, 0 for the rest, 255 for what is not to be looked at.

        Returns:
            (H, W) of 1 for what is sought and 0 for the rest.

        Raises:
            ImageError: an image is missing, damaged, or of another shape or type.
            MaskError: a mask is, holds other numbers, or nothing of what is sought.
            ConfigError: no supports, or tags.
        """
        if tags is not None or not supports:
            raise ConfigError(f"{self.path}: give supports, pairs of an image and its mask, and no tags")
        pixels = pixels_of(image)
        side = max(pixels.shape[:2]) if self.size is None else self.size
        pairs = [self._support(pair, side, number) for number, pair in enumerate(supports, start=1)]
        query, (height, width) = self._fitted(pixels, side)
        images, masks = (torch.cat(parts).to(self.device) for parts in zip(*pairs, strict=True))
        scores = self.net(query.to(self.device), images, masks)[..., :height, :width]
        scores = resize(scores.float(), (pixels.shape[0], pixels.shape[1]))
        return cast(Bytes, scores[0].argmax(dim=0).to(torch.uint8).cpu().numpy())

    def _support(self, pair: tuple[Picture, Any], side: int, number: int) -> tuple[Tensor, Tensor]:
        """(1, 3, S, S) and (1, S, S)."""
        if not isinstance(pair, tuple | list) or len(pair) != 2:
            raise ConfigError(f"support {number}: is no pair of an image and its mask; give supports=[(image, mask)]")
        pixels = pixels_of(pair[0], f"the image of support {number}")
        mask = mask_of(pair[1], (pixels.shape[0], pixels.shape[1]), f"the mask of support {number}")
        image, (height, width) = self._fitted(pixels, side)
        _, smaller = longer_side(pixels, mask, side)
        canvas = place_mask(cast(Bytes, smaller), top_left((height, width), side), IGNORE_INDEX)
        return image, torch.from_numpy(canvas)[None]

    def _fitted(self, pixels: Bytes, side: int) -> tuple[Tensor, tuple[int, int]]:
        """(1, 3, S, S) normalised, and the size of what is not padding."""
        image, _ = longer_side(pixels, None, side)
        size = (image.shape[0], image.shape[1])
        return torch.from_numpy(self._normaliser.onto_canvas(image, top_left(size, side)))[None], size


def mask_of(mask: object, size: tuple[int, int], place: str = "the mask") -> Bytes:
    """A mask of 0, 1 and 255.

    Args:
        mask: a file, a Pillow image, or an array (H, W) of whole numbers or truth values.
        size: (H, W) that it must have.
        place: what to call it in messages.

    Returns:
        (H, W) uint8.

    Raises:
        MaskError: missing, damaged, of another size or type, with other numbers, or without any 1.
    """
    if isinstance(mask, str | PathLike):
        place, mask = str(mask), read_mask(Path(mask), 2, size)
    if isinstance(mask, Image.Image):
        mask = np.asarray(mask)
    if not isinstance(mask, np.ndarray) or mask.dtype.kind not in "biu" or mask.shape != size:
        told = f"{mask.shape} {mask.dtype}" if isinstance(mask, np.ndarray) else type(mask).__name__
        raise MaskError(f"{place} is {told}; give whole numbers of shape {size}, that of its image")
    if wrong := sorted(set(np.unique(mask).tolist()) - {0, 1, IGNORE_INDEX}):
        raise MaskError(f"{place} holds {wrong[0]}; write 1 for what is sought, 0 for the rest and 255 for ignored")
    if not (mask == 1).any():
        raise MaskError(f"{place} shows nothing of what is sought: no pixel is 1; give another support")
    return mask.astype(np.uint8)
