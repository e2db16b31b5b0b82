"""Pictures of few-shot episodes."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from frugalseg.analysis.pictures import Picture, captioned, denormalise, enlarged
from frugalseg.batch import IGNORE_INDEX, EpisodeBatch
from frugalseg.ops.palette import overlay

_FOREGROUND, _IGNORED = (224, 24, 24), (120, 120, 120)


def episode_pictures(
    batch: EpisodeBatch, names: Sequence[str], mean: Sequence[float], std: Sequence[float]
) -> list[Picture]:
    """One strip per episode: the supports with their masks, then the query without and with its own (class as caption).

    Args:
        batch: episodes.
        names: K class names.
        mean: of the normalisation.
        std: of the normalisation.
    """
    strips = []
    for n, name in enumerate(batch["id"]):
        shown = [
            captioned(enlarged(_masked(denormalise(image, mean, std), mask.numpy())), support)
            for image, mask, support in zip(
                batch["support_images"][n], batch["support_masks"][n], batch["support_id"][n], strict=True
            )
        ]
        query = denormalise(batch["query_image"][n], mean, std)
        truth = _masked(query, batch["query_mask"][n].numpy())
        shown += [captioned(enlarged(query), name), captioned(enlarged(truth), names[int(batch["class_id"][n])])]
        gap = np.full((shown[0].shape[0], 3, 3), 255, np.uint8)
        strips.append(np.concatenate([part for picture in shown for part in (picture, gap)][:-1], axis=1))
    return strips


def _masked(picture: Picture, mask: NDArray[np.int64]) -> Picture:
    """Tint the class red and ignored pixels grey."""
    tinted = picture.copy()
    for value, colour in ((1, _FOREGROUND), (IGNORE_INDEX, _IGNORED)):
        here = mask == value
        tinted[here] = overlay(picture, np.broadcast_to(np.array(colour, np.uint8), picture.shape), 0.5)[here]
    return tinted
