"""k-means by SciPy on a sample of the points, and the assignment of all of them."""

import warnings
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.cluster.vq import kmeans2
from torch import Tensor

Init = Literal["points", "++"]


def fit_centres(
    points: Tensor,
    clusters: int,
    seed: int,
    restarts: int = 5,
    iterations: int = 50,
    per_cluster: int | None = 256,
    init: Init = "points",
) -> Tensor:
    """Centres with the smallest sum of squared distances over several starts.

    Args:
        points: (n, d) float32.
        clusters: K, at most n.
        seed: of the sample and of all starts.
        restarts: number of starts.
        iterations: Lloyd steps of each.
        per_cluster: the fit sees at most this many points per cluster (256 is what faiss does too); None for all.
        init: `points` begins with points at random, as faiss does; `++` with k-means++, whose time grows with K
            squared.

    Returns:
        (K, d) float32.

    Raises:
        ValueError: fewer points than clusters.
    """
    if len(points) < clusters:
        raise ValueError(f"{len(points)} points cannot make {clusters} clusters")
    rng = np.random.default_rng(seed)
    most = len(points) if per_cluster is None else min(len(points), per_cluster * clusters)
    chosen = np.sort(rng.choice(len(points), most, replace=False)) if most < len(points) else np.arange(len(points))
    # float64: SciPy's float32 sums lose points of large clusters
    sample: NDArray[np.float64] = points[torch.from_numpy(chosen)].double().numpy()
    best, least = None, np.inf
    for _ in range(restarts):
        with warnings.catch_warnings():
            # an empty cluster keeps its centre, and the next start may do better
            warnings.filterwarnings("ignore", message="One of the clusters is empty")
            centres, _ = kmeans2(sample, clusters, iter=iterations, minit=init, missing="warn", rng=rng)
        found = torch.from_numpy(centres)
        spread = float(squared_distances(torch.from_numpy(sample), found).min(dim=1).values.sum())
        if best is None or spread < least:
            best, least = found, spread
    if best is None:
        raise ValueError("k-means needs at least one start")
    return best.float()


def squared_distances(points: Tensor, centres: Tensor) -> Tensor:
    """(n, d) and (K, d) -> (n, K), up to rounding."""
    return points.square().sum(dim=1, keepdim=True) - 2 * points @ centres.T + centres.square().sum(dim=1)


def closeness(points: Tensor, centres: Tensor) -> Tensor:
    """How near points are to centres, as x . c - |c|^2 / 2: the largest is the nearest centre's.

    It is linear in x but for a constant, so a bilinear resize of it is that of the resized features.

    Args:
        points: (n, d).
        centres: (K, d).

    Returns:
        (n, K).
    """
    return points @ centres.T - centres.square().sum(dim=1) / 2
