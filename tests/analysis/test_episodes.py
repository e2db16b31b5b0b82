import numpy as np
import pytest
import torch

from frugalseg.analysis.episodes import episode_pictures
from frugalseg.analysis.pictures import CAPTION

SIDE, SHOTS, GAP = 48, 2, 3
CELL = 4 * SIDE  # pixels are repeated until there are 192
PLAIN = (0.0,) * 3, (1.0,) * 3


def episodes(class_id=1):
    """Two episodes; every image has a grey level of its own, every mask the class at another place."""
    levels = torch.arange(2 * (1 + SHOTS)).view(2, 1 + SHOTS) * 20 + 60
    images = (levels / 255).view(2, 1 + SHOTS, 1, 1, 1).expand(-1, -1, 3, SIDE, SIDE)
    masks = torch.zeros(2, 1 + SHOTS, SIDE, SIDE, dtype=torch.int64)
    for n in range(2):
        for k in range(1 + SHOTS):
            masks[n, k, 5 + n : 20, 10 + 5 * k : 30] = 1
            masks[n, k, 40:, : 8 * (1 + k)] = 255
    batch = {
        "id": ["q0", "q1"], "query_image": images[:, 0], "query_mask": masks[:, 0],
        "support_images": images[:, 1:], "support_masks": masks[:, 1:], "support_id": [["a", "b"], ["c", "d"]],
        "class_id": torch.tensor([class_id, 2]), "number": torch.arange(2),
    }  # fmt: skip
    return batch, levels, masks


def cells(strip):
    """Pictures of a strip without their captions, one pixel of the image each."""
    assert strip.shape == (CAPTION + CELL, (SHOTS + 2) * (CELL + GAP) - GAP, 3)
    return [strip[CAPTION + 2 :: 4, k * (CELL + GAP) + 2 : k * (CELL + GAP) + CELL : 4] for k in range(SHOTS + 2)]


def test_supports_then_query_then_query_with_its_class_in_red_and_ignored_pixels_in_grey():
    batch, levels, masks = episodes()
    strips = episode_pictures(batch, ["background", "one", "two"], *PLAIN)
    assert len(strips) == 2
    for n, strip in enumerate(strips):
        first, second, query, truth = cells(strip)
        for picture, k in ((first, 1), (second, 2), (truth, 0)):
            level, mask = int(levels[n, k]), masks[n, k].numpy()
            expected = np.full((SIDE, SIDE, 3), level, float)
            expected[mask == 1] = (np.array([224, 24, 24]) + level) / 2
            expected[mask == 255] = (120 + level) / 2
            assert np.abs(picture - expected).max() <= 0.5
        assert (query == int(levels[n, 0])).all()


def test_the_class_is_the_caption_of_the_last_picture():
    one, two = (episode_pictures(episodes(c)[0], ["background", "one", "two"], *PLAIN)[0] for c in (1, 2))
    rows, columns = (one != two).any(axis=-1).nonzero()
    assert rows.max() < CAPTION
    assert columns.min() >= (SHOTS + 1) * (CELL + GAP)


@pytest.mark.parametrize("kind", ["query_image", "support_images"])
def test_normalisation_is_undone(kind):
    batch, _, _ = episodes()
    plain = episode_pictures(batch, ["background", "one", "two"], *PLAIN)[0]
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in ((0.4, 0.5, 0.6), (0.2, 0.3, 0.25)))
    normalised = {**batch, **{name: (batch[name] - mean) / std for name in ("query_image", "support_images")}}
    found = episode_pictures(normalised, ["background", "one", "two"], (0.4, 0.5, 0.6), (0.2, 0.3, 0.25))[0]
    assert np.abs(found.astype(int) - plain).max() <= 1
