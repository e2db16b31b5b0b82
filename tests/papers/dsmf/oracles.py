"""Slow, obviously right NumPy forms of DSMF-Net's parts: loops over places, maps joined before they are convolved."""

import math

import numpy as np


def graph_nodes(x, w, normalise=True):
    """V (N, T, n) and the assignment (N, n, P) of the graph unit; `w` holds its weights by the names of the module."""
    flat = x.reshape(*x.shape[:2], -1)
    images, places = len(x), flat.shape[2]
    states, nodes = len(w["state.weight"]), len(w["assign.weight"])
    v, phi = np.zeros((images, states, nodes)), np.zeros((images, nodes, places))
    for i, p in np.ndindex(images, places):
        theta = w["state.weight"][:, :, 0, 0] @ flat[i, :, p] + w["state.bias"]
        phi[i, :, p] = w["assign.weight"][:, :, 0, 0] @ flat[i, :, p] + w["assign.bias"]
        v[i] += np.outer(theta, phi[i, :, p]) / (places if normalise else 1)
    return v, phi


def graph_unit(x, w, normalise=True, eps=1e-4):
    """Output of the unit, its node states before and after reasoning; normalisation by the stored statistics."""
    v, phi = graph_nodes(x, w, normalise)
    z, y = np.zeros_like(v), np.array(x, dtype=np.float64)
    for i in range(len(x)):
        h = v[i].copy()
        for n, m in np.ndindex(w["adjacency.weight"].shape):
            h[:, n] += w["adjacency.weight"][n, m] * v[i, :, m]
        z[i] = w["mix.weight"] @ np.maximum(h + w["adjacency.bias"], 0)
        for place in np.ndindex(x.shape[2:]):
            back = z[i] @ phi[i, :, np.ravel_multi_index(place, x.shape[2:])]
            added = w["extend.weight"][:, :, 0, 0] @ back - w["norm.running_mean"]
            y[(i, slice(None), *place)] += (
                added / np.sqrt(w["norm.running_var"] + eps) * w["norm.weight"] + w["norm.bias"]
            )
    return y, v, z


def resize(x, size):
    """Bilinear with aligned corners: sample i of n reads coordinate i (m - 1) / (n - 1)."""
    out = np.zeros((*x.shape[:2], *size))
    for place in np.ndindex(*size):
        read = []
        for i, n, m in zip(place, size, x.shape[2:], strict=True):
            at = i * (m - 1) / (n - 1) if n > 1 else 0.0
            low = min(int(at), m - 1)
            read.append(((low, 1 - (at - low)), (min(low + 1, m - 1), at - low)))
        for row, row_weight in read[0]:
            for column, column_weight in read[1]:
                out[:, :, place[0], place[1]] += row_weight * column_weight * x[:, :, row, column]
    return out


def average(x, size):
    """Mean of x over size[0] x size[1] cells that cover it, overlapping where the sides do not divide."""
    out = np.zeros((*x.shape[:2], *size))
    for i, j in np.ndindex(*size):
        rows, columns = (
            slice(math.floor(k * m / n), math.ceil((k + 1) * m / n))
            for k, n, m in zip((i, j), size, x.shape[2:], strict=True)
        )
        out[:, :, i, j] = x[:, :, rows, columns].mean(axis=(2, 3))
    return out


def joined(maps, weight):
    """Rectified 1x1 convolution of joined maps of one grid."""
    return np.maximum(np.einsum("oc,nchw->nohw", weight[:, :, 0, 0], np.concatenate(maps, axis=1)), 0)


def residual(x, w, name):
    """x + two rectified 3x3 convolutions without a bias."""
    y = x
    for layer in (0, 2):
        weight, padded = w[f"{name}.layers.{layer}.weight"], np.pad(y, ((0, 0), (0, 0), (1, 1), (1, 1)))
        y = np.zeros((len(x), len(weight), *x.shape[2:]))
        for i, j in np.ndindex(*x.shape[2:]):
            window = padded[:, :, i : i + 3, j : j + 3]
            y[:, :, i, j] = np.maximum(np.einsum("ocij,ncij->no", weight, window), 0)
    return x + y


def _level(index, query, prototype, evidence, w, size):
    tiled = np.broadcast_to(prototype[:, :, None, None], (*prototype.shape, *size))
    maps = [average(query, size), tiled, *([resize(evidence, size)] if evidence.shape[1] else [])]
    return joined(maps, w[f"levels.{index}.convolution.weight"])


def _finish(maps, w, size):
    fused = joined([resize(m, size) for m in maps], w["condense.convolution.weight"])
    return residual(fused, w, "refine")


def pyramid_fusion(query, prototype, evidence, w, levels, merge):
    """SFF, and its maps for auxiliary heads."""
    size = query.shape[2:]
    sizes = [tuple(max(math.floor(s / 2**i), 1) for s in size) for i in range(levels)]
    maps = [_level(i, query, prototype, evidence, w, s) for i, s in enumerate(sizes)]
    merged = []
    for i in range(levels - 1 if merge else 0):
        between = tuple(math.floor((a + b) / 2) for a, b in zip(sizes[i], sizes[i + 1], strict=True))
        pair = [resize(maps[i], between), resize(maps[i + 1], between)]
        merged.append(joined(pair, w[f"merges.{i}.convolution.weight"]))
    return _finish(maps + merged, w, size), merged or maps


def enrichment_fusion(query, prototype, evidence, w, levels):
    """FEM of PFENet, and its maps for auxiliary heads."""
    size, full, own = query.shape[2:], [], []
    for i in range(levels):
        grid = tuple(max(math.floor(s / 2**i), 1) for s in size)
        current = _level(i, query, prototype, evidence, w, grid)
        if i:
            pair = [current, resize(full[-1], grid)]
            current = current + joined(pair, w[f"handed_down.{i - 1}.convolution.weight"])
        own.append(residual(current, w, f"enrich.{i}"))
        full.append(resize(own[-1], size))
    return _finish(full, w, size), own
