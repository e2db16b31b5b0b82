"""DSMF-Net on genuine tiles: lists, masks and images of the release, exact counts, panels. Weights are random."""

import numpy as np
import pytest
import torch
from lightning.pytorch import Callback, Trainer
from PIL import Image

from frugalseg.callbacks import EpisodePictures
from frugalseg.data import Episodes, ISAID5i
from frugalseg.data.isaid5i import FOLDS, NAMES, SUFFIX
from frugalseg.errors import DatasetError
from frugalseg.papers.dsmf.task import DSMF
from tests.conftest import REAL
from tests.papers.dsmf.test_model import TINY
from tests.papers.dsmf.test_task import QUIET

pytestmark = pytest.mark.real
ROOT = REAL / "iSAID_patches"


@pytest.fixture(autouse=True)
def _genuine_tiles():
    if not (ROOT / "val/semantic_png").is_dir():
        pytest.skip(f"no genuine iSAID-5i tiles at {ROOT}; set FRUGALSEG_REAL_DATA")


def listed(fold):
    """(tile, class id) of a validation list, read by hand."""
    lines = (ROOT / f"val/val_list/split{fold}_val.txt").read_text().split()
    return [(line[: line.index(SUFFIX)], int(line.rpartition("_")[2])) for line in lines]


def with_supports(fold):
    """Pairs of the classes that have a query and a support."""
    pairs = listed(fold)
    shown = [class_id for _, class_id in pairs]
    return [(name, class_id) for name, class_id in pairs if shown.count(class_id) > 1]


def module(fold, shots=1):
    return ISAID5i(ROOT, Episodes(shots=shots, allow_missing_classes=True), fold=fold, num_workers=0)


class Answers(Callback):
    """Keeps what was answered to whom: query, class, supports, prediction."""

    def __init__(self):
        self.found = []

    def on_test_batch_end(self, trainer, pl_module, outputs, batch, batch_idx, dataloader_idx=0):
        assert torch.isfinite(outputs["logits"]).all() and torch.isfinite(outputs["prior"]).all()
        assert len(outputs["graph_maps"]) == 3 and all(torch.isfinite(m).all() for m in outputs["graph_maps"])
        rows = zip(batch["id"], batch["class_id"].tolist(), batch["support_id"], outputs["logits"], strict=True)
        self.found += [(name, c, supports, logits.argmax(0).numpy()) for name, c, supports, logits in rows]


def balanced(task, data):
    """Shift the class's logit so that the net finds it in about half of the first query: else there is little to count."""
    with torch.no_grad():
        logits = task.eval().answer(next(iter(data.test_dataloader()))).logits[0]
        task.net.head.layers[-1].bias[1] -= (logits[1] - logits[0]).median()
    return task.train()


def recount(answers):
    """Per class: episodes, intersection and union of background and foreground; pixel sets of the masks on disk."""
    rows = np.zeros((len(NAMES), 5), np.int64)
    for name, class_id, _, prediction in answers:
        ids = np.asarray(Image.open(ROOT / f"val/semantic_png/{name}{SUFFIX}.png"))
        assert ids.shape == prediction.shape == (256, 256)
        valid, row = ids != 255, [1]
        for operation in (np.logical_and, np.logical_or):
            for side in (0, 1):
                truth = (ids == class_id) == bool(side)
                row.append(int((operation(prediction == side, truth) & valid).sum()))
        rows[class_id] += row
    return rows


@pytest.mark.parametrize("shots", [1, 5])
@pytest.mark.parametrize("fold", range(FOLDS))
def test_scores_of_real_episodes_are_those_of_the_masks_on_disk(tmp_path, fold, shots):
    pairs = with_supports(fold)
    if not pairs:
        with pytest.raises(DatasetError, match=r"no class has two images|no few-shot pairs"):
            module(fold, shots).test_dataloader()
        return
    torch.manual_seed(0)
    data, answers = module(fold, shots), Answers()
    task = balanced(DSMF(num_classes=len(NAMES), weights=None, **TINY), data)
    trainer = Trainer(default_root_dir=tmp_path, callbacks=[answers, EpisodePictures(count=4)], **QUIET)
    (scores,) = trainer.test(task, datamodule=data, verbose=False)
    assert [(name, class_id) for name, class_id, _, _ in answers.found] == pairs
    for name, class_id, supports, _ in answers.found:
        assert name not in supports and len(set(supports)) == shots
        assert all((support, class_id) in pairs for support in supports)
    rows, classes = recount(answers.found), sorted({class_id for _, class_id in pairs})
    assert (task.episode_counts()["sums"] == rows[None]).all()
    ious = [rows[c, 2] / rows[c, 4] for c in classes]
    assert [scores[f"test/iou/{c}"] for c in classes] == pytest.approx(ious, abs=1e-6)
    hits, unions = rows[classes, 1:3], rows[classes, 3:5]
    assert (hits > 0).all() and (unions > hits).all()  # there were hits and mistakes to count, of both sides
    assert scores["test/miou"] == pytest.approx(np.mean(ious), abs=1e-6)
    total = rows.sum(axis=0)
    assert scores["test/fb_iou"] == pytest.approx((total[1] / total[3] + total[2] / total[4]) / 2, abs=1e-6)
    panels = [Image.open(path) for path in sorted((tmp_path / "pictures").iterdir())]
    assert len(panels) == 4 and len({panel.size for panel in panels}) == 1
    assert panels[0].width > (shots + 3) * 256 and panels[0].height > 2 * 256
    names = {path.name.split("_")[1] for path in (tmp_path / "pictures").iterdir()}
    assert names == {f"class{c:02d}" for c in classes}


def test_a_fit_on_real_tiles(tmp_path):
    """Training tiles of the other folds' classes, augmented; too few validation episodes for fold 0, so none."""
    torch.manual_seed(0)
    recipe = Episodes(per_epoch=6, allow_missing_classes=True)
    data = ISAID5i(ROOT, recipe, fold=0, num_workers=0, batch_size=3, seed=0)
    task = DSMF(num_classes=len(NAMES), weights=None, **TINY)
    before = {name: p.detach().clone() for name, p in task.net.head.named_parameters()}
    trainer = Trainer(default_root_dir=tmp_path, max_epochs=1, limit_val_batches=0, **QUIET)
    trainer.fit(task, datamodule=data)
    losses = [trainer.callback_metrics[f"train/loss_{term}"] for term in ("main", "auxiliary", "total")]
    assert trainer.global_step == 2 and all(torch.isfinite(loss) and loss > 0 for loss in losses)
    assert all(torch.isfinite(p).all() for p in task.parameters())
    assert not any(torch.equal(p, before[name]) for name, p in task.net.head.named_parameters())
