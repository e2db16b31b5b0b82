"""Prototypes of frozen features on episodes: the plainest few-shot segmentation there is."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from frugalseg.batch import EpisodeBatch
from frugalseg.data.module import SegmentationData
from frugalseg.ops.confusion import confusion_matrix
from frugalseg.ops.prototypes import cosine_map, masked_average_pool
from tests.integration.small_nets import SmallNet, train

THRESHOLDS = torch.linspace(-0.2, 0.95, 24).tolist()


class Answer(NamedTuple):
    """Similarity (1, S, S) of each pixel of a query to its support's class, and the truth."""

    similarity: Tensor
    mask: Tensor
    class_id: int


def base_net(data: SegmentationData, base: Sequence[int], steps: int, seed: int) -> SmallNet:
    """Train a net to tell base classes from one another and from all else, which is the last output."""
    torch.manual_seed(seed)
    net = SmallNet(data.num_classes + 1)
    table = torch.full((256,), data.num_classes)
    table[[*base, 255]] = torch.tensor([*base, 255])
    train(data, net.parameters(), lambda b: F.cross_entropy(net(b["image"]), table[b["mask"]], ignore_index=255), steps)
    return net.eval()


@torch.no_grad()
def similarity(features: nn.Module, query: Tensor, support: Tensor, mask: Tensor, centred: bool = False) -> Tensor:
    """Cosine of the query's features and the mean of the support's under its mask.

    Args:
        features: (N, 3, S, S) -> (N, D, h, w).
        query: (1, 3, S, S).
        support: (1, 3, S, S).
        mask: (1, S, S), 1 the class.
        centred: subtract the mean of both images' features first; features after ReLU all point one way.
    """
    both = features(torch.cat([query, support]))
    if centred:
        both = both - both.mean(dim=(0, 2, 3), keepdim=True)
    weights = F.interpolate((mask == 1).float()[:, None], size=both.shape[-2:], mode="area")
    cosine = cosine_map(both[:1], masked_average_pool(both[1:], weights))
    return F.interpolate(cosine, size=query.shape[-2:], mode="bilinear", align_corners=False)[:, 0]


def answers(
    features: nn.Module, episodes: Sequence[EpisodeBatch], swapped: bool = False, centred: bool = False
) -> list[Answer]:
    """Similarities of 1-shot episodes; `swapped` takes supports of an episode of another class."""
    found = []
    for number, episode in enumerate(episodes):
        source = episode
        if swapped:
            others = [other for other in episodes if other["class_id"] != episode["class_id"]]
            source = others[number % len(others)]
        support, mask = source["support_images"][:, 0], source["support_masks"][:, 0]
        like = similarity(features, episode["query_image"], support, mask, centred)
        found.append(Answer(like, episode["query_mask"], int(episode["class_id"])))
    return found


def class_miou(found: Sequence[Answer], predict: Callable[[Tensor], Tensor]) -> float:
    """Mean over classes of foreground intersection over union, both summed over a class's episodes (dsmf.md 7)."""
    totals: dict[int, Tensor] = {}
    for answer in found:
        counts = confusion_matrix(predict(answer.similarity).long(), answer.mask, 2)
        totals[answer.class_id] = totals.get(answer.class_id, 0) + counts
    scores = [total[1, 1] / (total.sum() - total[0, 0]) for total in totals.values()]
    return float(sum(scores) / len(scores))


def tuned_miou(
    features: nn.Module, base: Sequence[EpisodeBatch], novel: Sequence[Answer], centred: bool = False
) -> float:
    """Score of novel episodes at the threshold that is best on training episodes of base classes."""
    known = answers(features, base, centred=centred)
    threshold = max(THRESHOLDS, key=lambda t: class_miou(known, lambda like: like > t))
    return class_miou(novel, lambda like: like > threshold)
