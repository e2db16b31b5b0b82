"""What can be learned in each miniature world: one function per task, each a pure function of world and seed.

`python -m tests.integration.learnable 1 2 3` measures all of them again for these seeds.
"""

import sys
import tempfile
import time
from pathlib import Path

import torch
from torch.nn import functional as F

from frugalseg.data import Episodes, Segment, Tags, Views
from frugalseg.data.colour_rule import ColourRule
from tests.integration.dense_views import Projector, pixel_loss, probe
from tests.integration.few_shot import answers, base_net, class_miou, tuned_miou
from tests.integration.small_nets import (
    SmallNet,
    average_precision,
    most_frequent,
    score,
    segmenter,
    train,
    training_batches,
    untrained,
)
from tests.integration.worlds import BASE, WORLDS, open_world

Scores = dict[str, float]


def supervised(name: str, root: Path, seed: int, steps: int = 200) -> Scores:
    """mIoU of a net trained on masks, and of four controls."""
    data = open_world(name, root, Segment(crop=WORLDS[name].side, scale=None), seed)
    net, shuffled = (segmenter(data, steps, seed, shuffled=wrong) for wrong in (False, True))
    most = most_frequent(data)
    return {
        "miou": score(data, lambda image: net(image).argmax(dim=1)),
        "mirrored": score(data, lambda image: net(image).argmax(dim=1), mirror=True),
        "shuffled": score(data, lambda image: shuffled(image).argmax(dim=1)),
        "majority": score(data, lambda image: torch.full((1, *image.shape[-2:]), most)),
    }


def tags(name: str, root: Path, seed: int, steps: int = 300) -> Scores:
    """Mean average precision of a classifier of image-level labels, and of chance."""
    data = open_world(name, root, Tags(crop=None, flip=0.5), seed)
    torch.manual_seed(seed)
    net = SmallNet(data.classes.foreground)

    def logits(image: torch.Tensor) -> torch.Tensor:
        # smooth maximum over cells: an object covers few of them
        cells = net.head(net.body(image)).flatten(2)
        return cells.logsumexp(dim=2) - torch.tensor(cells.shape[2]).log()

    train(data, net.parameters(), lambda b: F.binary_cross_entropy_with_logits(logits(b["image"]), b["tags"]), steps)
    net.eval()
    with torch.no_grad():
        found = [(logits(batch["image"]), batch["tags"]) for batch in data.val_dataloader()]
    scores, truth = (torch.cat(part) for part in zip(*found, strict=True))
    return dict(zip(("map", "chance"), average_precision(scores, truth), strict=True))


def few_shot(name: str, root: Path, seed: int, steps: int = 200) -> Scores:
    """mIoU of fold 0's novel classes, 1-shot, and of four controls."""
    plain = Episodes(size=96, scale=None, rotate=0, flip=0, vertical_flip=0, per_epoch=120, test_episodes=200)
    # validation is the test here, and nothing is selected
    episodes = open_world(name, root, plain, seed, batch_size=1, val_classes="novel")
    split = BASE if name == "isaid" else "train"
    data = open_world(name, root, Segment(crop=96, scale=None), seed, train_split=split)
    base = sorted({pair.class_id for pair in episodes.pairs("train")})
    net = base_net(data, base, steps, seed)
    features = net.body[:-1]  # what the last block makes is good for the base classes alone
    known, novel = list(episodes.train_dataloader()), list(episodes.val_dataloader())
    found, swapped = (answers(features, novel, swapped=wrong) for wrong in (False, True))
    torch.manual_seed(seed)
    raw = untrained(SmallNet(1), (batch["image"] for batch in training_batches(data))).body[:-1]
    return {
        "miou": tuned_miou(features, known, found),
        "swapped": tuned_miou(features, known, swapped),
        "untrained": tuned_miou(raw, known, answers(raw, novel)),
        "untrained_centred": tuned_miou(raw, known, answers(raw, novel, centred=True), centred=True),
        "all_foreground": class_miou(found, torch.ones_like),
    }


def self_supervised(name: str, root: Path, seed: int, steps: int = 150, mismatched: bool = False) -> Scores:
    """Linear probe (mIoU) of frozen features before and after training on matched points, and the loss at both ends."""
    # no blur, which wipes out textures of a few pixels, and no solarising: mevt.md c.9
    changes = ColourRule(blur=(0, 0, 0), solarise=(0, 0, 0))
    area = (0.4, 1.0)
    recipe = Views(64, 32, 0, global_area=area, overlap_global=0.1, changes=changes)
    views = open_world(name, root, recipe, seed, batch_size=16)
    labelled = open_world(name, root, Segment(crop=64, scale=None), seed, batch_size=16)
    torch.manual_seed(seed)
    net = untrained(SmallNet(1), (batch["global_views"][:, 0] for batch in training_batches(views)))
    before = probe(net, labelled, 100, seed)
    net.train().requires_grad_(True)
    projector = Projector(net.head.in_channels)
    parameters = [*net.body.parameters(), *projector.parameters()]
    losses = train(views, parameters, lambda batch: pixel_loss(net, projector, batch, mismatched), steps, rate=2e-3)
    ends = {"loss_first": sum(losses[:10]) / 10, "loss_last": sum(losses[-10:]) / 10}
    return {"before": before, "after": probe(net, labelled, 100, seed), **ends}


TASKS = {
    supervised: tuple(WORLDS),
    tags: ("voc", "coco"),
    few_shot: ("isaid", "dlrsd"),
    self_supervised: ("ade20k", "cityscapes"),
}

if __name__ == "__main__":
    torch.set_num_threads(1)
    for number in map(int, sys.argv[1:]):
        with tempfile.TemporaryDirectory() as scratch:
            roots = {name: world.write(Path(scratch, name), number) for name, world in WORLDS.items()}
            for task, names in TASKS.items():
                for name in names:
                    start = time.perf_counter()
                    found = {key: round(value, 3) for key, value in task(name, roots[name], number).items()}
                    print(
                        f"{task.__name__} {name} seed {number}: {found}, {time.perf_counter() - start:.0f} s",
                        flush=True,
                    )
