"""How far the class tokens of different classes lie apart, over all images of a split (C-CTI's aim, cti.md 4.4).

A token of a class that an image shows is a vector (D,). Cosines are taken of all pairs of tokens, at a cost that grows
with the number of tokens, not with its square: the cosines of a token to all of a class add up to one product.
"""

from typing import Final

import numpy as np
from numpy.typing import NDArray

Vectors = NDArray[np.floating]
_TINY: Final = 1e-12


def token_separation(tokens: Vectors, classes: NDArray[np.integer]) -> dict[str, float]:
    """Within and between classes, and the silhouette.

    Args:
        tokens: (n, D); a token of zeros has cosine 0 to all others.
        classes: (n,) ids.

    Returns:
        `within`: mean cosine of two tokens of a class, mean over classes with two or more; `between`: mean cosine of
        two tokens of different classes, mean over pairs of classes; `separation`: the one minus the other;
        `silhouette`: mean over tokens of (b - a) / max(a, b), a the mean distance 1 - cosine to the others of its
        class, b the smallest mean distance to another class, 0 for a token alone in its class. Empty with fewer than
        two classes or without a class of two tokens.
    """
    unit = _unit(tokens)
    ids, number = np.unique(classes, return_inverse=True)
    count = np.bincount(number, minlength=len(ids)).astype(np.float64)
    if len(ids) < 2 or count.max() < 2:
        return {}
    sums = np.zeros((len(ids), unit.shape[1]))
    np.add.at(sums, number, unit)
    own = (unit**2).sum(axis=1)
    products = sums @ sums.T
    many = count > 1
    # a class's sum times itself holds every pair twice, and every token with itself
    selves = np.bincount(number, weights=own, minlength=len(ids))
    within = float(((products.diagonal() - selves)[many] / (count * (count - 1))[many]).mean())
    upper = np.triu_indices(len(ids), 1)
    between = float((products / np.outer(count, count))[upper].mean())
    silhouette = _silhouette(unit @ sums.T, own, number, count)
    return {"within": within, "between": between, "separation": within - between, "silhouette": silhouette}


def _silhouette(
    cosines: NDArray[np.float64], own: NDArray[np.float64], number: NDArray[np.integer], count: NDArray[np.float64]
) -> float:
    """From the sums of cosines (n, classes) of each token to each class, and of each to itself."""
    rows, size = np.arange(len(number)), count[number]
    a = 1 - (cosines[rows, number] - own) / np.maximum(size - 1, 1)
    distance = 1 - cosines / count
    distance[rows, number] = np.inf
    b = distance.min(axis=1)
    scores = (b - a) / np.maximum(np.maximum(a, b), _TINY)
    return float(np.where(size > 1, scores, 0.0).mean())


def cosines(first: Vectors, second: Vectors) -> NDArray[np.float64]:
    """Cosine of each row with the same row of the other, (n,)."""
    result: NDArray[np.float64] = (_unit(first) * _unit(second)).sum(axis=1)
    return result


def _unit(vectors: Vectors) -> NDArray[np.float64]:
    """Rows of length 1; zeros stay."""
    wide = vectors.astype(np.float64)
    result: NDArray[np.float64] = wide / np.maximum(np.linalg.norm(wide, axis=1, keepdims=True), _TINY)
    return result
