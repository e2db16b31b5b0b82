"""What a user can get wrong: one clear line, exit code 2, nothing half-written."""

import shutil

import pytest
import torch

from frugalseg.cli import main
from frugalseg.errors import FrugalsegError
from frugalseg.papers.sfc import SFC


def refused(capsys, words, *parts):
    """The command ends with code 2 and one line that holds all parts."""
    capsys.readouterr()
    assert main(words) == 2
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("frugalseg: error:")]
    assert len(lines) == 1
    for part in parts:
        assert str(part) in lines[0], lines[0]
    return lines[0]


def test_missing_root(capsys, words, tmp_path):
    refused(capsys, words("fit", "--data.init_args.root", str(tmp_path / "nowhere")), "nowhere", "data.root")


def test_unknown_key_is_refused_before_anything_is_loaded(capsys, words, tmp_path, monkeypatch):
    monkeypatch.setattr(SFC, "__init__", lambda *a, **k: pytest.fail("the model was built"))
    refused(capsys, words("fit", "--model.init_args.lrr", "1"), "lrr")
    extra = tmp_path / "extra.yaml"
    extra.write_text("trainer:\n  max_stepz: 3\n")
    refused(capsys, words("fit", "--config", str(extra)), "max_stepz")
    extra.write_text(
        "data:\n  init_args:\n    recipe:\n      class_path: frugalseg.data.Tags\n      init_args: {kropp: 3}\n"
    )
    refused(capsys, words("fit", "--config", str(extra)), "kropp")
    assert not (tmp_path / "runs").exists()


def test_wrong_type_is_refused(capsys, words):
    refused(capsys, words("fit", "--model.init_args.lr", "fast"), "lr", "fast")


def test_missing_config_file(capsys, words):
    refused(capsys, words("fit", "--config", "no/such.yaml"), "no/such.yaml")


def test_unknown_command(capsys):
    refused(capsys, ["fitt"], "fitt")


def test_checkpoint_of_another_paper(capsys, words, tmp_path):
    assert main(words("fit", "--trainer.max_steps", "1", "--trainer.val_check_interval", "1", stage="pretrain")) == 0
    other = tmp_path / "runs/mini-pretrain/seed0/tags/checkpoints/last.ckpt"
    refused(capsys, words("predict", "--ckpt_path", str(other), cam=True), other, "TagClassifier", "SFC")
    assert not (tmp_path / "runs/mini-sfc").exists()


def test_missing_and_damaged_checkpoint(capsys, words, tmp_path):
    path = tmp_path / "none.ckpt"
    refused(capsys, words("predict", "--ckpt_path", str(path), cam=True), path, "no such checkpoint")
    path.write_bytes(b"not a checkpoint")
    refused(capsys, words("predict", "--ckpt_path", str(path), cam=True), path, "not a readable checkpoint")


def test_checkpoint_that_would_run_code_is_refused(capsys, words, tmp_path):
    class Trap:
        def __reduce__(self):
            return (open, (str(tmp_path / "ran"), "w"))

    torch.save({"hyper_parameters": Trap()}, tmp_path / "trap.ckpt")
    refused(capsys, words("predict", "--ckpt_path", str(tmp_path / "trap.ckpt"), cam=True), "trap.ckpt")
    assert not (tmp_path / "ran").exists()


def test_weights_whose_names_do_not_match(capsys, words, tmp_path):
    state = {f"other.{i}": torch.zeros(3) for i in range(4)}
    state["conv1.0.weight"] = torch.zeros(8, 3, 3, 3)  # one name does
    torch.save(state, tmp_path / "weights.pth")
    line = refused(
        capsys, words("fit", "--model.init_args.weights", str(tmp_path / "weights.pth")), "weights.pth", "only 1 of"
    )
    assert "match" in line


def test_run_folder_of_another_experiment(capsys, words, tmp_path):
    one_step = ["--trainer.max_steps", "1", "--trainer.val_check_interval", "1"]
    assert main(words("fit", *one_step)) == 0
    theirs = tmp_path / "runs/mini-sfc"
    shutil.move(theirs, tmp_path / "runs/other")
    refused(capsys, words("fit", *one_step, "--run.experiment", "other"), "mini-sfc/classify", "other/classify")
    assert (tmp_path / "runs/other/seed0/classify/done.json").is_file()


def test_foreign_files_in_the_run_folder(capsys, words, tmp_path):
    folder = tmp_path / "runs/mini-sfc/seed0/classify"
    folder.mkdir(parents=True)
    (folder / "thesis.tex").write_text("precious")
    refused(capsys, words("fit"), folder, "provenance.json")
    assert [p.name for p in folder.iterdir()] == ["thesis.tex"]


def test_maps_from_data_without_tags(capsys, words, world, tmp_path):
    root = tmp_path / "bare"
    shutil.copytree(world, root)
    shutil.rmtree(root / "Annotations")
    refused(capsys, words("fit", "--data.init_args.root", str(root)), "24 of 24", "labels")


def test_evaluate_names_what_is_missing(capsys, world, tmp_path):
    empty = tmp_path / "maps"
    empty.mkdir()
    out = tmp_path / "score"
    command = ["evaluate", "--maps", str(empty), "--root", str(world), "--out", str(out)]
    refused(capsys, command, "24 of 24", "2012_000001")
    refused(capsys, [*command, "--rules", "m0,best"], "best", "mw")
    refused(capsys, [*command[:2], str(tmp_path / "none"), *command[3:]], "none")
    assert not (out / "metrics.json").exists() and not (out / "done.json").exists()


def test_a_defect_is_not_dressed_up_as_a_users_error(words, monkeypatch):
    monkeypatch.setattr(SFC, "training_step", lambda *a: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        main(words("fit"))
    assert not issubclass(ZeroDivisionError, FrugalsegError)


def test_predicting_without_a_trained_net(capsys, words, tmp_path):
    refused(capsys, words("predict", cam=True), "--ckpt_path")
    refused(capsys, words("predict", "--ckpt_path", "last", cam=True), "last", "no such checkpoint")
    assert not (tmp_path / "runs").exists()


def test_settings_that_a_class_refuses(capsys, words):
    refused(capsys, words("fit", "--model.init_args.backbone", "resnet51"), "resnet51")
    refused(capsys, words("fit", "--model.init_args.strides", "[3,1,2,1,1]"), "strides")


def test_checkpoint_of_a_net_with_other_settings(capsys, words, tmp_path):
    assert main(words("fit", "--trainer.max_steps", "1", "--trainer.val_check_interval", "1")) == 0
    path = tmp_path / "runs/mini-sfc/seed0/classify/checkpoints/last.ckpt"
    refused(
        capsys,
        words("predict", "--ckpt_path", str(path), "--model.init_args.side", "[8,8,8,8]", cam=True),
        path,
        "size mismatch",
    )


def test_a_dry_run_leaves_nothing_that_looks_like_a_result(words, tmp_path):
    assert main(words("fit", "--trainer.fast_dev_run", "true")) == 0
    folder = tmp_path / "runs/mini-sfc/seed0/classify"
    dry = folder.with_name("classify-dry")
    assert not folder.exists() and not (dry / "done.json").exists() and not (dry / "checkpoints").exists()
    assert main(words("fit")) == 0 and (folder / "done.json").exists()
    before = (folder / "done.json").read_bytes()
    assert main(words("fit", "--trainer.fast_dev_run", "true")) == 0
    assert (folder / "done.json").read_bytes() == before and not list(folder.parent.glob("classify.old-*"))
