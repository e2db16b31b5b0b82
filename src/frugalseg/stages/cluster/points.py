"""Features of a whole validation set as points, and what is done to them before they are clustered."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from frugalseg.errors import ConfigError

CHUNK = 1 << 16
"""Points that are float at a time."""
GIB = 1 << 30


class FeatureStore:
    """Features of all images in half precision, in memory.

    Args:
        images: how many are expected; the limit is checked with the first one.
        limit: bytes.
    """

    def __init__(self, images: int, limit: int) -> None:
        self.images, self.limit = images, limit
        self.maps: list[Tensor] = []

    def add(self, features: Tensor) -> None:
        """Keep one image's features.

        Args:
            features: (D, h, w).

        Raises:
            ConfigError: all images together would take more than the limit.
        """
        if not self.maps and (need := 2 * features.numel() * self.images) > self.limit:
            raise ConfigError(
                f"features of {self.images} images take {need} bytes ({need / GIB:.2f} GiB), more than "
                f"model.memory_limit = {self.limit}; raise it, or lower data.limit or model.input_size"
            )
        self.maps.append(features.detach().to("cpu", torch.float16))

    @property
    def grid(self) -> tuple[int, int]:
        """(h, w) of every map."""
        return self.maps[0].shape[-2], self.maps[0].shape[-1]

    def chunks(self) -> Iterator[Tensor]:
        """All points as (n, D) float32, image by image, row by row."""
        cells = self.maps[0][0].numel()
        step = max(1, CHUNK // cells)
        for begin in range(0, len(self.maps), step):
            block = torch.stack(self.maps[begin : begin + step])
            yield block.flatten(2).transpose(1, 2).reshape(-1, block.shape[1]).float()


@dataclass(frozen=True)
class Reduction:
    """A linear map of points, or their projection onto the sphere.

    Args:
        mean: (D,) float64.
        matrix: (D, d) float64; None for the projection onto the sphere instead.
    """

    mean: Tensor
    matrix: Tensor | None

    def __call__(self, points: Tensor) -> Tensor:
        """(n, D) -> (n, d) float32."""
        if self.matrix is None:
            return F.normalize(points.float(), dim=1)
        return ((points.double() - self.mean) @ self.matrix).float()


def fit_reduction(store: FeatureStore, kind: Literal["pca", "sphere"], dimensions: int) -> Reduction:
    """Standardise each channel and keep the leading principal components (K1), or project onto the sphere (K2).

    Sums are exact to float64, so the order of the images does not show.

    Args:
        store: of all features.
        kind: which.
        dimensions: components that are kept; no more than there are channels.
    """
    if kind == "sphere":
        return Reduction(torch.zeros(0), None)
    width, count = store.maps[0].shape[0], 0
    total = torch.zeros(width, dtype=torch.float64)
    for chunk in store.chunks():
        total += chunk.double().sum(dim=0)
        count += len(chunk)
    mean = total / count
    scatter = torch.zeros(width, width, dtype=torch.float64)
    for chunk in store.chunks():
        centred = chunk.double() - mean
        scatter += centred.T @ centred
    covariance = scatter / count
    std = covariance.diagonal().sqrt()
    # a channel that never changes says nothing; it stays 0 instead of becoming NaN
    scale = torch.where(std > 0, 1 / std.clamp(min=torch.finfo(torch.float64).tiny), 0.0)
    correlation = scale[:, None] * covariance * scale
    vectors = torch.linalg.eigh(correlation).eigenvectors.flip(1)[:, :dimensions]
    return Reduction(mean, scale[:, None] * vectors)


def reduced_points(store: FeatureStore, reduction: Reduction) -> Tensor:
    """All points, reduced, without a second copy of them.

    Args:
        store: of all features.
        reduction: of `fit_reduction`.

    Returns:
        (n, d) float32, image by image, row by row.
    """
    cells, parts = store.maps[0][0].numel(), (reduction(chunk) for chunk in store.chunks())
    first = next(parts)
    points = first.new_empty(len(store.maps) * cells, first.shape[1])
    points[: len(first)], at = first, len(first)
    for part in parts:
        points[at : at + len(part)] = part
        at += len(part)
    return points
