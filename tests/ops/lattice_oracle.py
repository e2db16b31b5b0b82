"""Gaussian filters and mean field written slowly: the lattice as a dictionary of vertices, the exact sum over all pairs."""

from collections import defaultdict
from collections.abc import Callable

import numpy as np

Filter = Callable[[np.ndarray, np.ndarray], np.ndarray]
"""Features (P, d) and values (P, C) to filtered values (P, C)."""


def embed(point):
    """One point on the hyperplane, in float32 and in the order of operations of the authors' code."""
    d, width = len(point), np.float32(np.sqrt(2 / 3) * (len(point) + 1))
    elevated, total = np.zeros(d + 1, np.float32), np.float32(0)
    for j in range(d, 0, -1):
        scaled = np.float32(point[j - 1]) * np.float32(float(width) / np.sqrt((j + 1) * j))
        elevated[j] = total - np.float32(j) * scaled
        total += scaled
    elevated[0] = total
    return elevated


def simplex(point):
    """The vertices around a point and their weights, by the paper's rules: keys are the first d coordinates."""
    d = len(point)
    elevated = embed(point)
    remainder0 = np.rint(elevated * np.float32(1 / (d + 1))).astype(int) * (d + 1)
    rest = elevated - remainder0
    # how many entries are larger; of equal ones the first counts as larger
    rank = [sum(rest[j] > rest[i] or (rest[j] == rest[i] and j < i) for j in range(d + 1)) for i in range(d + 1)]
    excess = remainder0.sum() // (d + 1)
    for i in range(d + 1):
        rank[i] += excess
        if rank[i] < 0:
            rank[i] += d + 1
            remainder0[i] += d + 1
        elif rank[i] > d:
            rank[i] -= d + 1
            remainder0[i] -= d + 1
    barycentric = np.zeros(d + 2)
    for i in range(d + 1):
        offset = (float(elevated[i]) - remainder0[i]) / (d + 1)
        barycentric[d - rank[i]] += offset
        barycentric[d + 1 - rank[i]] -= offset
    barycentric[0] += 1 + barycentric[d + 1]
    vertices = []
    for remainder in range(d + 1):
        key = [remainder0[i] + remainder - (d + 1) * (rank[i] > d - remainder) for i in range(d)]
        vertices.append((tuple(int(k) for k in key), barycentric[remainder]))
    return vertices


def lattice_filter(features, values):
    """Splat, blur and slice with a dictionary."""
    d = features.shape[1]
    simplices = [simplex(point) for point in features]
    table = defaultdict(lambda: np.zeros(values.shape[1]))
    for vertices, value in zip(simplices, values, strict=True):
        for key, weight in vertices:
            table[key] += weight * value
    for axis in range(d + 1):
        blurred = {}
        for key, value in table.items():
            below = tuple(k + d if i == axis else k - 1 for i, k in enumerate(key))
            above = tuple(k - d if i == axis else k + 1 for i, k in enumerate(key))
            blurred[key] = value + 0.5 * sum(table[n] for n in (below, above) if n in table)
        table = blurred
    sliced = [sum(weight * table[key] for key, weight in vertices) for vertices in simplices]
    return np.array(sliced) / (1 + 2.0**-d)


def exact_filter(features, values):
    """The sum that the lattice approximates: every pair of points."""
    features = features.astype(np.float64)
    distances = ((features[:, None] - features[None]) ** 2).sum(axis=2)
    return np.exp(-distances / 2) @ values


def normalised(filtered: Filter, features, values):
    norm = 1 / np.sqrt(filtered(features, np.ones((len(features), 1))) + 1e-20)
    return norm * filtered(features, norm * values)


def softmax(logits):
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)


def mean_field(image, probabilities, kernels, iterations, filtered: Filter):
    """Marginals (L, H, W) of an image (H, W, 3) and probabilities (L, H, W)."""
    height, width = image.shape[:2]
    y, x = np.mgrid[:height, :width].reshape(2, -1).astype(np.float32)
    r, g, b = image.reshape(-1, 3).T.astype(np.float32)
    near, far, grey = (np.float32(s) for s in (kernels.gaussian_sxy, kernels.bilateral_sxy, kernels.bilateral_srgb))
    gaussian = np.stack([x / near, y / near], axis=1)
    bilateral = np.stack([x / far, y / far, r / grey, g / grey, b / grey], axis=1)
    logits = np.log(probabilities.reshape(len(probabilities), -1).T.astype(np.float64))
    marginals = softmax(logits)
    for _ in range(iterations):
        message = kernels.gaussian_compat * normalised(filtered, gaussian, marginals)
        message += kernels.bilateral_compat * normalised(filtered, bilateral, marginals)
        marginals = softmax(logits + message)
    return marginals.T.reshape(-1, height, width)
