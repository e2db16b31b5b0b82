"""The two protocols of unsupervised clustering, which differ by several points on equal predictions (mevt.md d.5)."""

from dataclasses import dataclass
from typing import Literal

from frugalseg.ops.clustering import (
    Counts,
    best_classes,
    match_by_iou,
    match_by_pixels,
    matched_accuracy,
    matched_counts,
    mean_iou_of_all,
    mean_iou_of_present,
    precision_matrix,
)

Name = Literal["K1", "K2"]


@dataclass(frozen=True)
class Protocol:
    """One way to cluster.

    Args:
        name: to be named with every score.
        input_size: side of the images.
        cropped: the shorter side gets that size and the middle is cut out, instead of a resize to a square.
        grid: side of the masks; None for the images' own pixels.
        reduction: what is done to the features before.
        smooth: clusters are found at the masks' pixels from features resized bilinearly, instead of at the features'
            cells, whose clusters then fill their part of the mask.
    """

    name: str
    input_size: int
    cropped: bool
    grid: int | None
    reduction: Literal["pca", "sphere"]
    smooth: bool


PROTOCOLS: dict[str, Protocol] = {
    "K1": Protocol("K1", 448, False, 100, "pca", False),
    "K2": Protocol("K2", 320, True, None, "sphere", True),
}
"""`K1` is Leopart's: standardised, 50 principal components, clusters of cells. `K2` has STEGO's images and counts; its
clusters are by cosine, as STEGO's."""


def scores_of(counts: Counts, protocol: str) -> dict[str, float]:
    """Scores of (class, cluster) counts.

    Args:
        counts: (C, K).
        protocol: `K1`: one to one by IoU where K = C, else many to one by precision, and the mean over all classes.
            `K2`: one to one by pixels, and the mean over the classes that occur.

    Returns:
        `miou` and `accuracy`.
    """
    if protocol == "K2":
        matched = matched_counts(counts, match_by_pixels(counts))
        return {"miou": mean_iou_of_present(matched), "accuracy": matched_accuracy(matched)}
    one_to_one = counts.shape[0] == counts.shape[1]
    matched = matched_counts(counts, match_by_iou(counts) if one_to_one else best_classes(precision_matrix(counts)))
    return {"miou": mean_iou_of_all(matched), "accuracy": matched_accuracy(matched)}
