"""Packages that take the place of others, tensors that do not belong there, cards of odd names."""

import shutil
from pathlib import Path

import pytest
import torch

import frugalseg
from frugalseg.analysis.model_card import Score, _measured, read_score
from frugalseg.cli import main
from frugalseg.errors import CheckpointError
from tests.integration.test_package import FILES, checkpoint, package, score_run, task  # noqa: F401
from tests.test_predictor import pretraining, write_checkpoint


def test_a_tensor_too_many_is_told_in_one_line(checkpoint, tmp_path):  # noqa: F811
    content = torch.load(checkpoint, weights_only=True)
    content["state_dict"]["teacher.module.backbone.more"] = torch.zeros(1)
    torch.save(content, tmp_path / "more.ckpt")
    with pytest.raises(CheckpointError, match=r"more is .*not there"):
        frugalseg.load(tmp_path / "more.ckpt")


def test_what_is_asked_for_wins_over_the_checkpoints_settings(tmp_path):
    path = write_checkpoint(tmp_path, pretraining(changes={"output_stride": 16}))
    with pytest.raises(CheckpointError, match="tensors are not those"):
        frugalseg.create_model("mevt_tiny", path, output_stride=4)


@pytest.mark.parametrize("fails", [False, True])
def test_the_old_package_stays_until_the_new_one_is_there(checkpoint, package, tmp_path, monkeypatch, fails):  # noqa: F811
    out = tmp_path / "package"
    shutil.copytree(package, out)
    (out / "README.md").write_text("the old one")
    rename = Path.rename

    def renamed(self, target):
        if fails and self.name.endswith(".tmp"):
            raise OSError("the disk has gone")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", renamed)
    words = ["package", str(checkpoint), "--out", str(out), "--overwrite"]
    if fails:
        with pytest.raises(OSError, match="gone"):
            main(words)
    else:
        assert main(words) == 0
    assert list(tmp_path.iterdir()) == [out] and {path.name for path in out.iterdir()} == FILES
    assert ((out / "README.md").read_text() == "the old one") == fails


def test_scores_on_test_images_count_too(checkpoint, tmp_path):  # noqa: F811
    run = score_run(tmp_path / "run", checkpoint, **{"test/miou": 0.25, "train/loss": 1.0})
    assert read_score(run, checkpoint).values == {"test/miou": 0.25}


def test_a_bar_in_a_name_does_not_end_a_cell():
    assert r"runs/a\|b" in _measured([Score("runs/a|b", "LinearProbe", "VOC", "L", {"val/miou": 0.5})])
