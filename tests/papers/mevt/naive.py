"""MEVT from mevt.md b.2 to b.4 in NumPy, one number after another: slow, and without anything of the fast version.

Weights come as a dictionary of arrays by the names of the fast version's parameters. One image, maps (C, H, W), tokens
(L, C), float64.
"""

import math

import numpy as np


class Weights(dict):
    """Arrays by name; `within` gives those under a prefix."""

    def within(self, prefix):
        return Weights({k[len(prefix) + 1 :]: v for k, v in self.items() if k.startswith(prefix + ".")})


def weights_of(module):
    return Weights({name: p.detach().double().numpy() for name, p in module.named_parameters()})


def linear(x, w):
    return np.array([[w["bias"][o] + np.dot(row, w["weight"][o]) for o in range(len(w["bias"]))] for row in x])


def layer_norm(x, w, eps=1e-6):
    out = np.empty_like(x)
    for i, row in enumerate(x):
        mean = sum(row) / len(row)
        variance = sum((row - mean) ** 2) / len(row)
        out[i] = (row - mean) / math.sqrt(variance + eps) * w["weight"] + w["bias"]
    return out


def group_norm_of_one(x, w, eps=1e-5):
    standard = (x - x.mean()) / np.sqrt(((x - x.mean()) ** 2).mean() + eps)
    return standard * w["weight"][:, None, None] + w["bias"][:, None, None]


def gelu(x):
    return np.vectorize(lambda v: 0.5 * v * (1 + math.erf(v / math.sqrt(2))))(x)


def conv(x, w, stride=1, padding=0):
    """Correlation with zeros around; depth-wise where the kernel has one input channel and the map has more."""
    weight, bias = w["weight"], w["bias"]
    outputs, inputs, side, _ = weight.shape
    padded = np.pad(x, ((0, 0), (padding, padding), (padding, padding)))
    height, width = ((n - side) // stride + 1 for n in padded.shape[1:])
    out = np.empty((outputs, height, width))
    for o in range(outputs):
        source = padded[o : o + 1] if inputs == 1 and len(x) > 1 else padded
        for i in range(height):
            for j in range(width):
                window = source[:, i * stride : i * stride + side, j * stride : j * stride + side]
                out[o, i, j] = bias[o] + (window * weight[o]).sum()
    return out


def tokens(x):
    return np.array([x[:, i, j] for i in range(x.shape[1]) for j in range(x.shape[2])])


def grid_of(x, height, width):
    out = np.empty((x.shape[1], height, width))
    for place, row in enumerate(x):
        out[:, place // width, place % width] = row
    return out


def attention(asking, asked, w, heads):
    dim = asking.shape[1]
    q, both = linear(asking, w.within("q")), linear(asked, w.within("kv"))
    k, v = both[:, :dim], both[:, dim:]
    size = dim // heads
    out = np.empty_like(q)
    for head in range(heads):
        part = slice(head * size, (head + 1) * size)
        for i in range(len(q)):
            scores = np.array([np.dot(q[i, part], key[part]) / math.sqrt(size) for key in k])
            share = np.exp(scores - scores.max())
            out[i, part] = sum(s * value[part] for s, value in zip(share / share.sum(), v, strict=True))
    return linear(out, w.within("proj"))


def mix_ffn(x, w, height, width):
    hidden = linear(x, w.within("expand"))
    front = len(x) - height * width
    mixed = tokens(conv(grid_of(hidden[front:], height, width), w.within("mix"), padding=1))
    return linear(gelu(np.concatenate([hidden[:front], mixed])), w.within("project"))


def block(x, w, height, width, heads, reduction):
    """x: global token or nothing, then the grid."""
    front = len(x) - height * width
    normed = layer_norm(x, w.within("norm1"))
    asked = normed
    if reduction > 1 and min(height, width) >= reduction:
        reduced = tokens(conv(grid_of(normed[front:], height, width), w.within("reduce"), stride=reduction))
        asked = np.concatenate([normed[:front], layer_norm(reduced, w.within("reduce_norm"))])
    x = x + attention(normed, asked, w.within("attention"), heads)
    return x + mix_ffn(layer_norm(x, w.within("norm2")), w.within("ffn"), height, width)


def encoder(image, w, blocks, heads, reductions, mask=None):
    """F1 to F4 and the global token; `mask` (H / 32, W / 32) hides blocks of 32 pixels."""
    x, stages, g = image, [], None
    for s in range(4):
        part = w.within(f"stages.{s}")
        cells = conv(x, part.within("embed"), stride=4 if s == 0 else 2, padding=3 if s == 0 else 1)
        height, width = cells.shape[1:]
        x = layer_norm(tokens(cells), part.within("embed_norm"))
        if s == 0 and mask is not None:
            for place in range(height * width):
                if mask[place // width // 8, place % width // 8]:
                    x[place] = w["mask_token"]
        if s == 3:
            x = np.concatenate([part["token"][0], x])
        for b in range(blocks[s]):
            x = block(x, part.within(f"blocks.{b}"), height, width, heads[s], reductions[s])
        x = layer_norm(x, part.within("norm"))
        if s == 3:
            g, x = x[0], x[1:]
        x = grid_of(x, height, width)
        stages.append(x)
    return stages, g


def double(x):
    """Bilinear, corners not aligned: cell i of the result lies at i / 2 - 1 / 4 of the source, clamped at the border."""

    def blend(n, i):
        place = min(max(i / 2 - 0.25, 0), n - 1)
        low = int(place)
        return low, min(low + 1, n - 1), place - low

    channels, height, width = x.shape
    out = np.empty((channels, 2 * height, 2 * width))
    for i in range(2 * height):
        a, b, s = blend(height, i)
        for j in range(2 * width):
            c, d, t = blend(width, j)
            top, bottom = x[:, a, c] * (1 - t) + x[:, a, d] * t, x[:, b, c] * (1 - t) + x[:, b, d] * t
            out[:, i, j] = top * (1 - s) + bottom * s
    return out


def level(above, stage, memory, w, heads):
    u = double(above) + conv(stage, w.within("lateral"))
    local = w.within("local")
    u = u + conv(gelu(group_norm_of_one(conv(u, local.within("0"), padding=1), local.within("1"))), local.within("3"))
    height, width = u.shape[1:]
    y = tokens(u)
    if memory is not None:
        read = w.within("reading")
        asked = layer_norm(memory, read.within("memory_norm"))
        y = y + attention(layer_norm(y, read.within("norm")), asked, read.within("attention"), heads)
    return grid_of(y + mix_ffn(layer_norm(y, w.within("norm")), w.within("ffn"), height, width), height, width)


def decoder(stages, g, w, heads, context=True, levels=3):
    memory = linear(np.concatenate([g[None], tokens(stages[3])]), w.within("memory.project")) if context else None
    p = conv(stages[3], w.within("top"))
    for i in range(levels):
        p = level(p, stages[2 - i], memory, w.within(f"levels.{i}"), heads)
    return grid_of(layer_norm(tokens(p), w.within("norm")), *p.shape[1:])
