"""What goes with a checkpoint and a package: how images were normalised, no paths, the teacher's scores alone."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from lightning.pytorch import LightningDataModule, Trainer

import frugalseg
from frugalseg.analysis.model_card import read_score
from frugalseg.commands import package
from frugalseg.data import Views
from frugalseg.errors import RunFolderError
from frugalseg.papers.mevt import Pretrain
from frugalseg.run import file_digest
from tests.papers.mevt.test_task import HEADS, QUIET, RULE, batches, task


class Recorded(LightningDataModule):
    """Batches of noise, and a recipe with numbers of its own."""

    recipe = Views(global_size=64, local_size=32, mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25))

    def train_dataloader(self):
        return batches()


def checkpoint(folder: Path, weights: str | None = None) -> Path:
    torch.manual_seed(0)
    made = Pretrain(preset="mevt_tiny", heads=HEADS, rule=RULE, weights=weights)
    known = {**made.hparams, "_class_path": "frugalseg.papers.mevt.task.Pretrain"}
    path = folder / "checkpoints" / "last.ckpt"
    path.parent.mkdir(parents=True)
    torch.save({"state_dict": made.state_dict(), "hyper_parameters": known, "global_step": 3, "epoch": 0}, path)
    (folder / "provenance.json").write_text("{}")
    return path


def test_a_checkpoint_tells_how_images_were_normalised_wherever_it_lies(tmp_path):
    made = task()
    made.hparams["_class_path"] = "frugalseg.papers.mevt.task.Pretrain"
    trainer = Trainer(max_steps=1, **QUIET)
    trainer.fit(made, datamodule=Recorded())
    path = tmp_path / "alone.ckpt"
    trainer.save_checkpoint(path)
    net = frugalseg.load(path)
    assert (net.source.mean, net.source.std) == ((0.5, 0.5, 0.5), (0.25, 0.25, 0.25))


def test_one_that_does_not_tell_is_opened_with_a_warning(tmp_path, caplog):
    net = frugalseg.load(checkpoint(tmp_path / "run"))
    told = [r.getMessage() for r in caplog.records if r.levelname == "WARNING"]
    assert any("taking ImageNet's" in line for line in told)
    assert net.features(np.zeros((64, 64, 3), np.uint8)).isfinite().all()


def test_a_package_tells_no_path_of_the_machine(tmp_path):
    path = checkpoint(tmp_path / "run", weights="/home/somebody/start.ckpt")
    package.run([str(path), "--out", str(tmp_path / "out")])
    told = [(tmp_path / "out" / name).read_text() for name in ("README.md", "config.json")]
    assert not any("somebody" in text for text in told) and all("start.ckpt" in text for text in told)


@pytest.mark.parametrize(("prefix", "counts"), [("student.backbone.", False), ("teacher.module.backbone.", True)])
def test_scores_of_the_student_are_not_the_teachers(tmp_path, prefix, counts):
    path, run = checkpoint(tmp_path / "run"), tmp_path / "probe"
    run.mkdir()
    backbone = {"weights": str(path), "prefix": prefix, "options": {"joined": True}}
    identity = {
        "model": {"class_path": "x.LinearProbe", "init_args": {"backbone": backbone, "head": "fcn"}},
        "inputs": {"backbone.weights": file_digest(path)},
    }
    for name, content in {"done": {}, "metrics": {"val/miou": 0.5}, "provenance": {"identity": identity}}.items():
        (run / f"{name}.json").write_text(json.dumps(content))
    if counts:
        assert read_score(run, path).task == "LinearProbe, fcn, Z ++ F4"
    else:
        with pytest.raises(RunFolderError, match="judged other weights"):
            read_score(run, path)
    package.run([str(path), "--out", str(tmp_path / "out"), "--matching", "--scores", str(run)])
    assert ("LinearProbe" in (tmp_path / "out" / "README.md").read_text()) == counts


def test_a_package_may_be_written_to_where_one_stands(tmp_path, monkeypatch):
    path, here = checkpoint(tmp_path / "run"), tmp_path / "here"
    here.mkdir()
    monkeypatch.chdir(here)
    assert package.run([str(path), "--out", ".", "--overwrite"]) == 0
    assert (here / "config.json").is_file()
