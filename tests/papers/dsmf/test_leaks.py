"""Classes that were learned are not tested: by the episodes of a fit, and by the backbone's pretraining."""

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from lightning.pytorch import LightningDataModule, Trainer

from frugalseg.batch import FewShotFolds
from frugalseg.data import ISAID5i
from frugalseg.data.episodes import Episodes
from frugalseg.errors import CheckpointError, WeightsError
from frugalseg.papers.dsmf import DSMF, BasePretrain, PrototypeBaseline
from frugalseg.papers.dsmf.leaks import novel_classes, refuse_taught_backbone, refuse_trained_classes
from tests.papers.dsmf.test_model import TINY
from tests.papers.dsmf.test_task import QUIET, loader, task

BACKBONE = {key: TINY[key] for key in ("backbone", "backbone_options")}


class Folded(LightningDataModule):
    """Episodes of classes 1 to 3, and a fold that tests others."""

    def __init__(self, fold_classes):
        super().__init__()
        self.fold_classes = fold_classes

    def train_dataloader(self):
        return loader(batch=3, count=6)


@pytest.fixture
def pretrained(tmp_path):
    """A backbone that was kept from classes 4 and 5 alone."""
    trainer = Trainer(max_steps=1, **QUIET)
    made = BasePretrain(num_classes=6, novel=(4, 5), **BACKBONE)
    made.hparams["_class_path"] = "frugalseg.papers.dsmf.BasePretrain"
    images = [{"id": [str(n)], "image": torch.randn(1, 3, 32, 32), "mask": torch.randint(6, (1, 32, 32))} for n in "ab"]
    trainer.fit(made, torch.utils.data.DataLoader(images, batch_size=None))
    trainer.save_checkpoint(tmp_path / "backbone.ckpt")
    return str(tmp_path / "backbone.ckpt")


def test_a_net_is_not_tested_on_classes_of_its_training(tmp_path):
    made = task()
    trainer = Trainer(max_epochs=1, **QUIET)
    trainer.fit(made, loader(batch=3, count=5))
    assert made.trained.tolist() == [False, True, True, True, False, False]
    trainer.save_checkpoint(tmp_path / "made.ckpt")
    other = task()
    with pytest.raises(
        CheckpointError, match=r"^classes \[1\] are tested, but this net was trained on them; set data\.fold"
    ):
        Trainer(**QUIET).test(other, loader(count=1), ckpt_path=tmp_path / "made.ckpt", weights_only=True)
    assert other.trained.tolist() == made.trained.tolist()


def test_validation_on_classes_of_the_training_is_what_it_is_for():
    made = task()
    Trainer(max_epochs=1, **QUIET).fit(made, loader(batch=3, count=5), loader(count=3))
    assert made.trained.any()


def test_only_classes_that_were_drawn_count():
    trained = torch.tensor([False, True, False, True])
    refuse_trained_classes(trained, [0, 2, 2])
    with pytest.raises(CheckpointError, match=r"classes \[1, 3\]"):
        refuse_trained_classes(trained, [3, 2, 1, 3])


@pytest.mark.parametrize("make", [lambda **s: DSMF(6, **TINY, **s), lambda **s: PrototypeBaseline(6, **BACKBONE, **s)])
def test_a_backbone_that_has_learned_what_is_tested_is_refused(pretrained, make):
    with pytest.raises(
        WeightsError, match=r"backbone\.ckpt: this backbone was trained on classes \[2, 3\], which data"
    ):
        Trainer(max_epochs=1, **QUIET).fit(make(weights=pretrained), datamodule=Folded((2, 3, 4)))
    Trainer(max_epochs=1, **QUIET).fit(make(weights=pretrained), datamodule=Folded((4, 5)))


@pytest.mark.parametrize("weights", [None, "resnet18.a1_in1k", "nowhere/last.ckpt"])
def test_other_weights_say_nothing_of_classes(weights):
    refuse_taught_backbone(weights, [1, 2], 6)


def test_a_checkpoint_of_something_else_says_nothing(tmp_path):
    for number, content in enumerate(({"state_dict": {}}, {"hyper_parameters": {"lr": 1.0}}, [torch.zeros(1)])):
        path = tmp_path / f"{number}.ckpt"
        torch.save(content, path)
        refuse_taught_backbone(str(path), [1], 6)


def test_the_data_modules_say_what_they_test(tmp_path):
    data = ISAID5i(tmp_path, Episodes(), fold=1)
    assert isinstance(data, FewShotFolds)
    assert novel_classes(SimpleNamespace(datamodule=data)) == (6, 7, 8, 9, 10)
    assert novel_classes(SimpleNamespace()) == ()


@pytest.mark.parametrize("name", ["copy.pth", "copy.bin", "copy"])
def test_another_name_does_not_hide_what_a_backbone_has_learned(pretrained, tmp_path, name):
    copy = tmp_path / name
    copy.write_bytes(Path(pretrained).read_bytes())
    with pytest.raises(WeightsError, match=rf"{name}: this backbone was trained on classes \[2\]"):
        refuse_taught_backbone(str(copy), [2, 4], 6)
    refuse_taught_backbone(str(copy), [4, 5], 6)
    refuse_taught_backbone(str(copy), [2, 4], 21)  # of another benchmark, whose numbers mean other classes


def test_a_damaged_file_is_left_to_who_reads_it(tmp_path):
    (tmp_path / "broken.pth").write_bytes(b"no tensors")
    refuse_taught_backbone(str(tmp_path / "broken.pth"), [1], 6)


class Validated(Folded):
    def val_dataloader(self):
        return loader(count=3)


def test_validation_on_the_tested_classes_is_refused_where_they_were_trained_on():
    made = task()
    made.trained[2] = True
    trainer = Trainer(**QUIET)
    with pytest.raises(CheckpointError, match=r"classes \[2\] are tested"):
        trainer.validate(made, datamodule=Validated((1, 2, 3)), verbose=False)
    assert trainer.validate(made, datamodule=Validated((4, 5)), verbose=False)


def test_a_checkpoint_holds_what_all_ranks_have_drawn():
    made, others = task(), torch.tensor([0, 1, 0, 0, 1, 0])
    made.trained[3] = True
    strategy = SimpleNamespace(reduce=lambda drawn, reduce_op: drawn + others)
    made._trainer = SimpleNamespace(world_size=2, strategy=strategy)
    checkpoint = {"state_dict": {"trained": made.trained.clone()}}
    made.on_save_checkpoint(checkpoint)
    assert checkpoint["state_dict"]["trained"].tolist() == [False, True, False, True, True, False]
