"""A memory of labelled features, and what the nearest of them say of others (mevt.md d.6)."""

import hashlib

import torch
import torch.nn.functional as F
from torch import Tensor


def soft_labels(mask: Tensor, grid: tuple[int, int], num_classes: int, ignore_index: int = 255) -> Tensor:
    """Share of each class among the labelled pixels of each cell.

    Args:
        mask: (H, W) integers.
        grid: (h, w).
        num_classes: K.
        ignore_index: value that is left out.

    Returns:
        (h * w, K) float32; a row of zeros where no pixel is labelled.
    """
    rows, columns = (
        torch.arange(n, device=mask.device) * cells // n for n, cells in zip(mask.shape, grid, strict=True)
    )
    place = rows[:, None] * grid[1] + columns
    kept = mask != ignore_index
    cells = grid[0] * grid[1]
    counts = torch.bincount(place[kept] * num_classes + mask[kept].long(), minlength=cells * num_classes)
    table = counts.view(cells, num_classes).float()
    return table / table.sum(dim=1, keepdim=True).clamp(min=1)


class Memory:
    """Normalised features with soft labels.

    Args:
        per_image: entries that each image may add; they are drawn by its name, so the order of images does not show.
        seed: of the draws.
    """

    def __init__(self, per_image: int, seed: int = 0) -> None:
        self.per_image, self.seed = per_image, seed
        self._known: dict[str, tuple[Tensor, Tensor]] = {}

    def __len__(self) -> int:
        return sum(len(labels) for _, labels in self._known.values())

    def add(self, name: str, features: Tensor, labels: Tensor) -> None:
        """Take some cells of an image; an image that is known already is passed over.

        Args:
            name: of the image.
            features: (D, h, w).
            labels: (h * w, K) of `soft_labels`; cells without a label are not taken.
        """
        if name in self._known:
            return
        able = labels.sum(dim=1).gt(0).nonzero().flatten().cpu()
        number = int.from_bytes(hashlib.sha256(f"{self.seed} {name}".encode()).digest()[:8], "little", signed=True)
        order = torch.randperm(len(able), generator=torch.Generator().manual_seed(number))
        chosen = able[order[: self.per_image]].sort().values.to(features.device)
        points = features.flatten(1).T[chosen].float()
        self._known[name] = (F.normalize(points, dim=1), labels[chosen])

    def entries(self) -> tuple[Tensor, Tensor]:
        """(M, D) features and (M, K) labels, in the order of the images' names."""
        parts = [self._known[name] for name in sorted(self._known)]
        return torch.cat([features for features, _ in parts]), torch.cat([labels for _, labels in parts])


def nearest_labels(
    queries: Tensor,
    features: Tensor,
    labels: Tensor,
    neighbours: int = 30,
    temperature: float = 0.02,
    chunk: int = 1 << 16,
) -> Tensor:
    """Labels of the nearest entries, weighted by the softmax of their cosines over a temperature.

    In float32 whatever autocast says: a cosine's last bit in bfloat16 is a fifth of the usual temperature.

    Args:
        queries: (Q, D), any length.
        features: (M, D), of length 1.
        labels: (M, K).
        neighbours: how many are asked; all, where the memory has fewer.
        temperature: of the softmax.
        chunk: entries that are compared at a time; the result does not depend on it.

    Returns:
        (Q, K) float32 that sum to 1 where labels do.
    """
    wanted = F.normalize(queries.float(), dim=1)
    cosines = wanted.new_empty(len(wanted), 0)
    indices = torch.empty(len(wanted), 0, dtype=torch.int64, device=wanted.device)
    for begin in range(0, len(features), chunk):
        with torch.autocast(wanted.device.type, enabled=False):
            part = wanted @ features[begin : begin + chunk].T
        here = part.topk(min(neighbours, part.shape[1]), dim=1)
        cosines = torch.cat([cosines, here.values], dim=1)
        indices = torch.cat([indices, here.indices + begin], dim=1)
        best = cosines.topk(min(neighbours, cosines.shape[1]), dim=1)
        cosines, indices = best.values, indices.gather(1, best.indices)
    weights = (cosines / temperature).softmax(dim=1)
    # neighbour by neighbour: Q x neighbours x K at once would be gigabytes for 171 classes
    result = labels.new_zeros(len(wanted), labels.shape[1])
    for each in range(indices.shape[1]):
        result += weights[:, each, None] * labels[indices[:, each]]
    return result
