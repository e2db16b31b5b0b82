"""Each miniature world holds tasks that a small net learns in seconds.

The numbers are those of `python -m tests.integration.learnable 1 2 3`, one CPU thread. A seed decides the world, the
net and the batches. Settings were chosen on seed 0; steps and episodes were cut afterwards, for time alone. Margins were
set after the three seeds, at two thirds of the least gain or below.
"""

from collections.abc import Callable
from functools import cache
from math import isfinite
from pathlib import Path

import pytest

from tests.integration.learnable import few_shot, self_supervised, supervised, tags
from tests.integration.worlds import WORLDS

pytestmark = pytest.mark.slow
SEED = 1


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Callable[[str], Path]:
    """Write a world on first use."""
    return cache(lambda name: WORLDS[name].write(tmp_path_factory.mktemp("worlds") / name, SEED))


@pytest.mark.parametrize("name", WORLDS)
def test_masks_are_learned(name, root):
    """Seeds 1, 2, 3 (2026-11-21), mIoU; shuffled: every training image with the mask of another.

    world       trained         mirrored masks  shuffled        majority
    voc         .658 .608 .631  .135 .136 .159  .062 .062 .062  .062 .062 .062
    coco        .657 .638 .590  .153 .147 .148  .063 .063 .063  .063 .063 .063
    ade20k      .732 .734 .721  .220 .199 .202  .096 .098 .099  .096 .098 .099
    cityscapes  .737 .727 .713  .231 .200 .198  .129 .130 .134  .032 .032 .032
    isaid       .573 .574 .516  .112 .104 .111  .052 .052 .052  .052 .052 .052
    dlrsd       .595 .640 .645  .298 .316 .292  .025 .028 .026  .020 .021 .021
    """
    scores = supervised(name, root(name), SEED)
    assert scores["miou"] > scores["majority"] + 0.3
    assert scores["miou"] > scores["shuffled"] + 0.3, "what is learned must be in the images, not in where things are"
    assert scores["miou"] > scores["mirrored"] + 0.15, "masks lie on their images"


@pytest.mark.parametrize("name", ["voc", "coco"])
def test_image_labels_are_learned(name, root):
    """Seeds 1, 2, 3 (2026-11-21), mean average precision and chance.

    voc   .865 .894 .900  .148 .136 .141
    coco  .866 .814 .778  .148 .140 .144
    """
    scores = tags(name, root(name), SEED)
    assert scores["map"] > scores["chance"] + 0.4


@pytest.mark.parametrize(("name", "margin"), [("isaid", 0.25), ("dlrsd", 0.06)])
def test_new_classes_are_found_by_one_example(name, margin, root):
    """Seeds 1, 2, 3 (2026-11-21), mIoU of fold 0, 200 episodes; swapped: supports of other classes.

    world  trained         swapped         untrained, centred  all foreground
    isaid  .641 .598 .612  .121 .140 .076  .422 .352 .396      .092 .087 .105
    dlrsd  .357 .340 .298  .233 .158 .122  .278 .254 .202      .198 .195 .145
    """
    scores = few_shot(name, root(name), SEED)
    assert scores["miou"] > scores["all_foreground"] + margin
    assert scores["miou"] > scores["swapped"] + margin, "the support must say which class is meant"


@pytest.mark.parametrize("name", ["ade20k", "cityscapes"])
def test_matched_points_make_features_better(name, root):
    """Seeds 1, 2, 3 (2026-11-21), mIoU of a linear probe; mismatched: after training with `mismatched=True`, seed 1.

    world       before          after           mismatched  loss, first 10 steps  last 10
    ade20k      .298 .285 .258  .477 .506 .530  .314        6.25 6.22 6.28        1.92 1.78 1.77
    cityscapes  .220 .202 .167  .419 .392 .352  .215        6.23 6.18 6.20        1.33 1.22 1.31
    """
    scores = self_supervised(name, root(name), SEED)
    assert all(isfinite(value) for value in scores.values())
    assert scores["loss_last"] < 0.6 * scores["loss_first"]
    assert scores["after"] > scores["before"] + 0.08
