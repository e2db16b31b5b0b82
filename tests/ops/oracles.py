"""Slow, obviously right NumPy forms that several tests compare with."""

import numpy as np


def bilinear(channel, size, align_corners=False):
    """Resize one (H, W) array without antialiasing, pixel by pixel, in float64."""
    height, width = channel.shape
    result = np.zeros(size)

    def neighbours(index, source, target):
        if align_corners:
            place = index * (source - 1) / (target - 1) if target > 1 else 0.0
        else:
            place = max((index + 0.5) * source / target - 0.5, 0.0)
        low = min(int(np.floor(place)), source - 1)
        return low, min(low + 1, source - 1), place - low

    for y in range(size[0]):
        top, bottom, down = neighbours(y, height, size[0])
        for x in range(size[1]):
            left, right, over = neighbours(x, width, size[1])
            upper = channel[top, left] * (1 - over) + channel[top, right] * over
            lower = channel[bottom, left] * (1 - over) + channel[bottom, right] * over
            result[y, x] = upper * (1 - down) + lower * down
    return result


def resized(maps, size, align_corners=False):
    """`bilinear` for every channel of (..., H, W)."""
    flat = np.asarray(maps, dtype=np.float64).reshape(-1, *maps.shape[-2:])
    return np.stack([bilinear(m, size, align_corners) for m in flat]).reshape(*maps.shape[:-2], *size)


def normalised(maps, eps=1e-5):
    """Every channel over (its largest value + eps)."""
    flat = np.asarray(maps, dtype=np.float64).reshape(-1, *maps.shape[-2:])
    result = np.zeros_like(flat)
    for index, channel in enumerate(flat):
        largest = max(value for row in channel for value in row)
        for y in range(channel.shape[0]):
            for x in range(channel.shape[1]):
                result[index, y, x] = channel[y, x] / (largest + eps)
    return result.reshape(maps.shape)


def confusion(pred, target, classes, ignore=255):
    """(K, K) counts by a loop over pixels."""
    counts = np.zeros((classes, classes), dtype=np.int64)
    for guess, true in zip(np.ravel(pred), np.ravel(target), strict=True):
        if true != ignore:
            counts[int(true), int(guess)] += 1
    return counts


def iou(counts):
    """Intersection over union of every class, None where it occurs nowhere."""
    scores = []
    for k in range(len(counts)):
        hits = int(counts[k, k])
        union = (
            sum(int(counts[k, j]) for j in range(len(counts)))
            + sum(int(counts[i, k]) for i in range(len(counts)))
            - hits
        )
        scores.append(hits / union if union else None)
    return scores
