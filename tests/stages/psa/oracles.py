"""PSA's rules as loops over cells."""

import numpy as np


def reference_offsets(radius):
    """(dy, dx) in the reference's order: to the right, then row by row."""
    right = [(0, x) for x in range(1, radius)]
    below = [(y, x) for y in range(1, radius) for x in range(1 - radius, radius) if y * y + x * x < radius * radius]
    return right + below


def reference_sources(size, radius):
    """Cells whose partners all lie in the map, row by row."""
    reach = radius - 1
    return [(y, x) for y in range(size[0] - reach) for x in range(reach, size[1] - reach)]


def as_reference(pair_maps, offsets, radius):
    """(P, h, w) in the order of `offsets` -> (P, sources) as the reference lays pairs out."""
    order = [offsets.index(o) for o in reference_offsets(radius)]
    ys, xs = np.array(reference_sources(pair_maps.shape[1:], radius)).T
    return pair_maps[order][:, ys, xs]


def pooled(mask, stride, num_classes):
    """Commonest label of each cell of one mask; of equals the smallest, 255 last of all."""
    height, width = (-(-side // stride) for side in mask.shape)
    label = np.zeros((height, width), np.int64)
    for y, x in np.ndindex(height, width):
        cell = mask[y * stride : (y + 1) * stride, x * stride : (x + 1) * stride]
        shares = {c: np.mean(cell == c) for c in (*range(num_classes), 255)}
        label[y, x] = next(c for c in shares if shares[c] == max(shares.values()))
    return label


def kinds(label, offsets, radius, border):
    """(3, P, h, w) bool: background, foreground and different pairs of one label map."""
    result = np.zeros((3, len(offsets), *label.shape), bool)
    cells = list(np.ndindex(*label.shape)) if border else reference_sources(label.shape, radius)
    for p, (dy, dx) in enumerate(offsets):
        for y, x in cells:
            if not (y + dy < label.shape[0] and 0 <= x + dx < label.shape[1]):
                continue
            one, other = label[y, x], label[y + dy, x + dx]
            if 255 in (one, other):
                continue
            result[2 if one != other else 1 if one else 0, p, y, x] = True
    return result


def elu(x):
    return np.where(x > 0, x, np.expm1(np.minimum(x, 0)))


def embedded(maps, weights, mixer):
    """The head on maps (D_i, h, w) of one size; weights (O, D) of the 1x1 convolutions."""
    levels = [elu(np.einsum("od,dyx->oyx", w, m)) for w, m in zip(weights, maps, strict=True)]
    return elu(np.einsum("od,dyx->oyx", mixer, np.concatenate(levels)))


def affinities(features, offsets, radius, border):
    """(P, h, w) of features (D, h, w); 0 where there is no pair."""
    size = features.shape[1:]
    result = np.zeros((len(offsets), *size))
    for p, (dy, dx) in enumerate(offsets):
        for y, x in np.ndindex(*size) if border else reference_sources(size, radius):
            if y + dy < size[0] and 0 <= x + dx < size[1]:
                result[p, y, x] = np.exp(-np.mean(np.abs(features[:, y, x] - features[:, y + dy, x + dx])))
    return result
