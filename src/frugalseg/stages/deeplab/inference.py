"""From passes at several scales to one mask, with or without a CRF."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor

from frugalseg.ops.cam import resize
from frugalseg.ops.crf import Kernels, dense_crf


@dataclass(frozen=True)
class Inference:
    """How an image of several scales becomes a mask.

    Args:
        merge: `mean` or `max` over scales and mirror images.
        of: what is merged: `probabilities` (softmax of each) or `logits` (softmax afterwards).
        mirror: also look at the mirror image.
        window: side of a sliding window in pixels; null passes images whole.
        overlap: share of a window's or tile's side that neighbours share.
        max_pixels: largest height x width that goes through in one pass, larger images go in tiles; null derives it
            from free memory and the net's measured need.
        crf: also make masks with a CRF.
        kernels: of the CRF.
        iterations: mean-field steps of the CRF.
        threshold: classes whose probability stays below this at every pixel do not take part in the CRF, see `refine`.

    Raises:
        ValueError: a value out of its range.
    """

    merge: Literal["mean", "max"] = "mean"
    of: Literal["probabilities", "logits"] = "probabilities"
    mirror: bool = True
    window: int | None = None
    overlap: float = 1 / 3
    max_pixels: int | None = None
    crf: bool = False
    kernels: Kernels = field(default_factory=Kernels)
    iterations: int = 10
    threshold: float = 0.01

    def __post_init__(self) -> None:
        """Refuse what cannot be meant."""
        for name, right, wanted in (
            ("merge", self.merge in ("mean", "max"), "mean or max"),
            ("of", self.of in ("probabilities", "logits"), "probabilities or logits"),
            ("window", self.window is None or self.window >= 1, "at least 1, or null"),
            ("overlap", 0 <= self.overlap <= 0.75, "0 to 0.75"),
            ("max_pixels", self.max_pixels is None or self.max_pixels >= 1, "at least 1, or null"),
            ("iterations", self.iterations >= 0, "0 or more"),
            ("threshold", 0 <= self.threshold < 1, "from 0 to below 1"),
        ):
            if not right:
                raise ValueError(f"inference.{name} is {getattr(self, name)}: set it to {wanted}")


def merge_passes(
    passes: Iterable[Tensor],
    size: tuple[int, int],
    merge: Literal["mean", "max"] = "mean",
    of: Literal["probabilities", "logits"] = "probabilities",
) -> Tensor:
    """Merge logits of several scales at image size.

    Logits are resized before the softmax. Passes are taken one after the other, so that memory holds one at a time.

    Args:
        passes: per scale (1 or 2, K, h_s, w_s); the second of a pair is of the mirror image, and is turned back.
        size: (H, W) of the image.
        merge: what is done over scales and mirror images.
        of: what is merged.

    Returns:
        (K, H, W) float32 probabilities that sum to 1 at each pixel.

    Raises:
        ValueError: no passes.
    """
    merged, count = None, 0
    for logits in passes:
        for index, each in enumerate(logits.float()):
            full = resize((each.flip(-1) if index else each)[None], size)[0]
            full = full.softmax(dim=0) if of == "probabilities" else full
            count += 1
            if merged is None:
                merged = full.clone()
            elif merge == "max":
                torch.maximum(merged, full, out=merged)
            else:
                merged += full
    if merged is None:
        raise ValueError("merge_passes needs at least one pass")
    if of == "logits":
        return (merged if merge == "max" else merged / count).softmax(dim=0)
    return merged / merged.sum(dim=0, keepdim=True)


def refine(pixels: Tensor, probabilities: Tensor, settings: Inference) -> Tensor:
    """Class ids after the CRF, computed over the classes that occur.

    A class whose probability stays below t at every pixel cannot win: each of its mean-field steps weighs the unary
    p <= t with e^m, where m is its message, at most the sum of the kernels' weights times its own largest value; the
    other classes' messages are not negative. So it stays near t, and leaving it out changes the others' probabilities
    by about its share. With `threshold: 0` only classes that are exactly 0 are left out.

    Args:
        pixels: (H, W, 3) uint8.
        probabilities: (K, H, W).
        settings: kernels, iterations and threshold of the CRF.

    Returns:
        (H, W) int64.
    """
    largest = probabilities.amax(dim=(-2, -1))
    kept = (largest > min(settings.threshold, float(largest.max()) / 2)).nonzero().flatten()
    if len(kept) == 1:
        return kept.expand(probabilities.shape[-2] * probabilities.shape[-1]).view(probabilities.shape[-2:])
    marginals = dense_crf(pixels, probabilities[kept], settings.kernels, settings.iterations)
    return kept[marginals.max(dim=0).indices]
