"""Fully connected CRF (Krähenbühl and Koltun, NIPS 2011): Gaussian and bilateral kernels, Potts model, mean field.

N images of H x W pixels, L labels, S sets of scores for each image. One iteration is Q = softmax(-U + sum over kernels
of compat * K(Q)): K filters each label's map with a Gaussian of the pixels' positions ("Gaussian" kernel) or of
positions and colours ("bilateral"), normalised symmetrically, K = D k D with D = 1 / sqrt(k 1). Default kernels:
sfc.md section 7.1.
"""

from dataclasses import dataclass
from math import inf, log, prod

import torch
from torch import Tensor

from frugalseg.ops.lattice import Lattice, build_lattice, side_by_side

LOWEST = 1e-5
"""Probabilities are clipped here before the logarithm, as pydensecrf's helper does."""
SAFE_EXPONENT = 80.0
"""Its exponential, also summed over labels, is finite in float32."""


@dataclass(frozen=True)
class Kernels:
    """Widths (pixels, grey levels) and weights of the two kernels; a weight of 0 leaves its kernel out."""

    gaussian_sxy: float = 3.0
    gaussian_compat: float = 3.0
    bilateral_sxy: float = 50.0
    bilateral_srgb: float = 5.0
    bilateral_compat: float = 10.0

    def __post_init__(self) -> None:
        if not all(0 < width < inf for width in (self.gaussian_sxy, self.bilateral_sxy, self.bilateral_srgb)):
            raise ValueError(f"widths of CRF kernels must be positive: {self}")
        if not all(0 <= weight < inf for weight in (self.gaussian_compat, self.bilateral_compat)):
            raise ValueError(f"weights of CRF kernels must not be negative: {self}")


SFC_KERNELS = Kernels()


@dataclass(frozen=True)
class Pairwise:
    """Both kernels of one image or batch, for any number of `dense_crf` calls.

    Attributes:
        shape: (N, H, W).
        lattice: the kernels side by side; its filter is the sum of compat * K(Q). None where both weights are 0.
    """

    shape: tuple[int, int, int]
    lattice: Lattice | None


@torch.no_grad()
def pairwise(image: Tensor, kernels: Kernels = SFC_KERNELS) -> Pairwise:
    """Set up lattices and normalisation: about a third of the time of a call with few labels.

    Args:
        image: (H, W, 3) or (N, H, W, 3) uint8.
        kernels: widths and weights.

    Raises:
        ValueError: wrong shape or type, an empty image, or kernels too narrow for its size.
    """
    shape = _image_shape(image)
    n, h, w = shape
    y, x = torch.meshgrid(*(torch.arange(s, dtype=torch.float32, device=image.device) for s in (h, w)), indexing="ij")
    places = torch.stack([x, y]).flatten(1).repeat(1, n)
    groups = torch.arange(n, device=image.device).repeat_interleave(h * w) if n > 1 else None
    colours = image.reshape(-1, 3).t().float()
    # dividing by a tensor: by a number, CUDA would multiply with its inverse
    gaussian = places / places.new_tensor(kernels.gaussian_sxy)
    bilateral = torch.cat([
        places / places.new_tensor(kernels.bilateral_sxy),
        colours / colours.new_tensor(kernels.bilateral_srgb),
    ])  # fmt: skip
    wanted = ((gaussian, kernels.gaussian_compat), (bilateral, kernels.bilateral_compat))
    lattices = [build_lattice(features, groups).normalised(weight) for features, weight in wanted if weight]
    return Pairwise(shape, side_by_side(lattices) if lattices else None)


_pairwise = pairwise  # an argument of the next function has the same name


@torch.no_grad()
def dense_crf(
    image: Tensor,
    scores: Tensor,
    kernels: Kernels = SFC_KERNELS,
    iterations: int = 10,
    gt_prob: float = 0.7,
    num_labels: int | None = None,
    pairwise: Pairwise | None = None,
) -> Tensor:
    """Marginals after mean-field inference. Time grows with L: pass rows of the present classes only.

    Args:
        image: (H, W, 3) or (N, H, W, 3) uint8.
        scores: probabilities, float (L, H, W) or (N, L, H, W), clipped to [1e-5, 1]; they need not sum to 1. Or labels
            0..L-1, integer (H, W) or (N, H, W). Or several sets of either of the same image: (S, L, H, W),
            (N, S, L, H, W), (S, H, W), (N, S, H, W); two sets together take little more time than one.
        kernels: widths and weights; not looked at where `pairwise` is given.
        iterations: mean-field updates; 0 gives the normalised unaries.
        gt_prob: probability of the given label; the other labels share the rest equally.
        num_labels: L where labels are given, default the greatest + 1.
        pairwise: `pairwise(image, kernels)`, to share it between calls on one image.

    Returns:
        (L, H, W), (N, L, H, W), (S, L, H, W) or (N, S, L, H, W) float32; sums to 1 over the labels, so that a single
        label has ones.

    Raises:
        ValueError: wrong shapes or types, an empty image, scores that are not finite, labels outside 0..L-1.
    """
    shape = _image_shape(image)
    if iterations < 0:
        raise ValueError(f"iterations must not be negative, got {iterations}")
    if pairwise is not None and pairwise.shape != shape:
        raise ValueError(f"pairwise was made for {pairwise.shape} (images, height, width), the image has {shape}")
    if scores.device != image.device:
        raise ValueError(f"image and scores are on different devices: {image.device}, {scores.device}")
    soft, batched = scores.is_floating_point(), image.ndim == 4
    single = scores.ndim == batched + (3 if soft else 2)
    rows = scores if batched else scores[None]
    rows = rows.unsqueeze(1) if single else rows
    logits = _logits_of_probabilities(rows, shape) if soft else _logits_of_labels(rows, shape, gt_prob, num_labels)
    with torch.autocast(image.device.type, enabled=False):
        # a single label has probability 1 whatever the kernels say
        several = logits.shape[1] > 1 and iterations > 0
        lattice = (pairwise or _pairwise(image, kernels)).lattice if several else None
        marginals = _softmax(logits.clone())
        if lattice is not None:
            for _ in range(iterations):
                # a point has the labels of all sets side by side: the filter's time hardly depends on how many they are
                messages = lattice.filter(marginals.view(prod(shape), -1)).view_as(logits)
                marginals = _softmax(messages.add_(logits))
    result = marginals.view(*shape, -1, logits.shape[1]).permute(0, 3, 4, 1, 2).contiguous()
    result = result[:, 0] if single else result
    return result if batched else result[0]


def _image_shape(image: Tensor) -> tuple[int, int, int]:
    """(N, H, W) of an image or a batch."""
    if image.dtype != torch.uint8 or image.ndim not in (3, 4) or image.shape[-1] != 3:
        raise ValueError(f"image must be (H, W, 3) or (N, H, W, 3) uint8, got {tuple(image.shape)} {image.dtype}")
    if not image.numel():
        raise ValueError(f"image is empty: {tuple(image.shape)}")
    return (image.shape[0] if image.ndim == 4 else 1), image.shape[-3], image.shape[-2]


def _logits_of_probabilities(scores: Tensor, shape: tuple[int, int, int]) -> Tensor:
    """Log of clipped probabilities (N, S, L, H, W), pixels first: (N*H*W*S, L)."""
    n, h, w = shape
    if scores.ndim != 5 or not all(scores.shape[1:3]) or (scores.shape[0], *scores.shape[3:]) != shape:
        what = f"{tuple(scores.shape)} (images, sets, labels, H, W)"
        raise ValueError(f"scores of {n} images of {h}x{w} cannot be {what}")
    if not scores.isfinite().all():
        raise ValueError("scores hold NaN or infinite values")
    return scores.float().permute(0, 3, 4, 1, 2).reshape(-1, scores.shape[2]).clamp(LOWEST, 1.0).log_()


def _logits_of_labels(labels: Tensor, shape: tuple[int, int, int], gt_prob: float, num_labels: int | None) -> Tensor:
    """Log probabilities (N*H*W*S, L) of labels (N, S, H, W) that are right with probability `gt_prob`."""
    n, h, w = shape
    fits = labels.ndim == 4 and labels.shape[1] and (labels.shape[0], *labels.shape[2:]) == shape
    if labels.dtype == torch.bool or labels.is_complex() or not fits:
        what = f"{tuple(labels.shape)} {labels.dtype}"
        raise ValueError(f"labels of {n} images of {h}x{w} must be integers (images, sets, H, W), got {what}")
    if not 0 < gt_prob < 1:
        raise ValueError(f"gt_prob must lie between 0 and 1, got {gt_prob}")
    labels = labels.permute(0, 2, 3, 1).reshape(-1, 1).long()
    low, high = (int(bound) for bound in labels.aminmax())
    count = high + 1 if num_labels is None else num_labels
    if low < 0 or high >= count:
        raise ValueError(f"labels must lie in 0..{count - 1}, found {low}..{high}")
    other = log((1 - gt_prob) / max(count - 1, 1))
    logits = torch.full((labels.numel(), count), other, device=labels.device)
    return logits.scatter_(1, labels, log(gt_prob))


def _softmax(logits: Tensor) -> Tensor:
    """Softmax over the last dimension, in place.

    On the CPU torch.softmax takes 2 to 10 times as long where rows are short. Without subtracting each row's maximum
    this is safe: kernels add nothing negative to log probabilities of at least log(1e-5), so no row can vanish.
    """
    if logits.is_cuda:
        return logits.softmax(dim=1)
    if logits.max() > SAFE_EXPONENT:
        logits -= logits.amax(dim=1, keepdim=True)
    logits.exp_()
    # a product with ones sums short rows faster than sum()
    return logits.div_(logits @ logits.new_ones(logits.shape[1], 1))
