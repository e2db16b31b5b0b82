"""CTI's map and memory rules as loops over NumPy scalars (cti.md sections 2.3, 3 and 4.4), in float64."""

import math

import numpy as np


def max_norm(maps, eps=1e-5):
    """relu(m - min - eps) / (max - min + eps) of m = relu(maps), for every channel of (..., H, W)."""
    flat = np.asarray(maps, dtype=np.float64).reshape(-1, *maps.shape[-2:])
    result = np.zeros_like(flat)
    for index, channel in enumerate(flat):
        values = [max(float(value), 0.0) for row in channel for value in row]
        largest, smallest = max(values), min(values)
        for place, value in enumerate(values):
            y, x = divmod(place, channel.shape[1])
            result[index, y, x] = max(value - smallest - eps, 0.0) / (largest - smallest + eps)
    return result.reshape(maps.shape)


def fused_maps(r, attn, blocks):
    """F = R * mt(blocks): maps (B, K, gh, gw) and attentions (depth, B, N, N) to (B, K, gh, gw)."""
    result = np.zeros(r.shape)
    tokens, columns = r.shape[1], r.shape[3]
    for b, k, y, x in np.ndindex(r.shape):
        weight = 0.0
        for block in blocks:
            weight += attn[block, b, k, tokens + y * columns + x]
        result[b, k, y, x] = r[b, k, y, x] * weight
    return result


def refined_maps(maps, attn, blocks):
    """Q_k(i) = sum over blocks and patches j of A(i, j) F_k(j): (B, K, gh, gw) to (B, K, gh, gw)."""
    b_, k_, h, w = maps.shape
    result = np.zeros((b_, k_, h * w))
    for b in range(b_):
        for i in range(h * w):
            for j in range(h * w):
                weight = 0.0
                for block in blocks:
                    weight += attn[block, b, k_ + i, k_ + j]
                for k in range(k_):
                    result[b, k, i] += weight * maps[b, k, j // w, j % w]
    return result.reshape(maps.shape)


class Memory:
    """Lists of layer-normed tokens, one per class, of which the newest `size` stay."""

    def __init__(self, classes, size=30):
        self.lists = [[] for _ in range(classes)]
        self.size = size

    def step(self, tokens, tags):
        """Add tokens (B, K, D) of the classes in tags (B, C); return what is infused, (B, C, D)."""
        for b, present in enumerate(tags):
            for c, tag in enumerate(present):
                if tag:
                    self.lists[c].append(layer_norm(tokens[b, c + 1]))
        for entries in self.lists:
            while len(entries) > self.size:
                entries.pop(0)
        result = np.zeros((len(tokens), len(self.lists), tokens.shape[2]))
        for b, present in enumerate(tags):
            for c, tag in enumerate(present):
                result[b, c] = self.prototype(c, tokens.shape[2]) if tag else tokens[b, c + 1]
        return result

    def prototype(self, c, dim):
        """(dim,) mean of what class `c` holds; zero when that is nothing."""
        total = np.zeros(dim)
        for token in self.lists[c]:
            total = total + token
        return total / max(len(self.lists[c]), 1)

    def full(self):
        return all(len(entries) == self.size for entries in self.lists)


def layer_norm(vector, eps=1e-5):
    """(D,) to mean 0 and variance 1, the variance taken over D (not D - 1), eps inside the root."""
    values = [float(value) for value in vector]
    mean = sum(values) / len(values)
    variance = sum((value - mean) ** 2 for value in values) / len(values)
    return np.array([(value - mean) / math.sqrt(variance + eps) for value in values])


def cubic(distance, a=-0.75):
    """Keys' kernel."""
    t = abs(distance)
    if t <= 1:
        return (a + 2) * t**3 - (a + 3) * t**2 + 1
    if t < 2:
        return a * t**3 - 5 * a * t**2 + 8 * a * t - 4 * a
    return 0.0


def resized_positions(table, source, target):
    """Table (gh * gw, D) of grid `source` at grid `target`: bicubic, half-pixel centres, borders repeated."""
    old = np.asarray(table, dtype=np.float64).reshape(*source, -1)
    new = np.zeros((*target, old.shape[2]))
    for y, x in np.ndindex(*target):
        down = (y + 0.5) * source[0] / target[0] - 0.5
        over = (x + 0.5) * source[1] / target[1] - 0.5
        for row in range(math.floor(down) - 1, math.floor(down) + 3):
            for column in range(math.floor(over) - 1, math.floor(over) + 3):
                inside = min(max(row, 0), source[0] - 1), min(max(column, 0), source[1] - 1)
                new[y, x] += cubic(down - row) * cubic(over - column) * old[inside]
    return new.reshape(-1, old.shape[2])
