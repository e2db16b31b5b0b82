"""Pretraining on a folder of images through the command line: bad ones are left out, too many refused, nothing read twice."""

import json
import os
import subprocess
import sys

import pytest
import yaml

from frugalseg.cli import main
from tests.conftest import REPOSITORY
from tests.data.image_folder import write_folder, write_image

EXPERIMENT = {
    "seed_everything": 0,
    "run": {"experiment": "images", "stage": "pretrain", "wandb": False},
    "trainer": {"max_steps": 2, "limit_val_batches": 0, "log_every_n_steps": 1, "gradient_clip_val": 3.0},
    "model": {
        "class_path": "frugalseg.papers.mevt.Pretrain",
        "init_args": {
            "preset": "mevt_tiny",
            "heads": {"global_hidden": [32], "prototype_hidden": [32], "pixel_hidden": [32], "norm": True},
            "rule": {"sides": [7, 7], "pixel_points": 64},
        },
    },
    "data": {
        "class_path": "frugalseg.data.Images",
        "init_args": {
            "recipe": {
                "class_path": "frugalseg.data.Views",
                "init_args": {"global_size": 64, "local_size": 32, "local_views": 2, "colour": "none"},
            },
            "batch_size": 4,
        },
    },
}


@pytest.fixture
def folder(tmp_path):
    root = write_folder(tmp_path / "images", 250)
    (root / "00100.jpg").write_bytes((root / "00100.jpg").read_bytes()[:-100])
    write_image(root / "tiny.png", 8, 9)
    return root


@pytest.fixture
def words(folder, tmp_path):
    (tmp_path / "images.yaml").write_text(yaml.safe_dump(EXPERIMENT))
    configs = [REPOSITORY / "experiments/_base/trainer.yaml", tmp_path / "images.yaml"]
    configs += [REPOSITORY / "experiments/_base/cpu.yaml"]
    flags = {
        "run.root": tmp_path / "runs",
        "data.init_args.root": folder,
        "data.init_args.verdicts": tmp_path / "verdicts",
    }
    return [
        "fit",
        *[word for config in configs for word in ("--config", str(config))],
        *[word for key, value in flags.items() for word in (f"--{key}", str(value))],
    ]


def test_bad_images_are_left_out_and_many_refused(words, folder, tmp_path, capsys, monkeypatch):
    run = tmp_path / "runs/images/seed0/pretrain"
    assert main(words) == 0
    said = capsys.readouterr().err
    assert said.count("2 of 251 images (0.80%) cannot be used and are left out, first 00100.jpg, tiny.png") == 2
    record = json.loads((run / "provenance.json").read_text())
    assert record["splits"] == {"train": 249, "val": 0}
    assert (run / "done.json").is_file()

    # the same again: nothing to do; another seed: no image is read for the verdict
    monkeypatch.setattr("frugalseg.data.image_verdicts.read_image", None)
    assert main(words) == 0
    assert "up to date" in capsys.readouterr().err
    assert main([*words, "--seed_everything", "1"]) == 0
    monkeypatch.undo()

    # another image is another input
    write_image(folder / "more.jpg")
    assert main(words) == 0
    assert "configuration or inputs changed" in capsys.readouterr().err
    assert json.loads((run / "provenance.json").read_text())["splits"] == {"train": 250, "val": 0}

    for number in range(13):
        (folder / f"{number:05d}.jpg").write_bytes(b"<html>404</html>")
    assert main([*words, "--run.name", "refused"]) == 2
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("frugalseg: error: ")]
    assert len(lines) == 1
    assert "15 of 252 images (5.95%) cannot be used, more than data.most_broken = 1.00%: first 00000.jpg" in lines[0]
    refused = tmp_path / "runs/images-refused/seed0/pretrain"
    assert {path.name for path in refused.iterdir()} <= {".lock", "provenance.json", "config.yaml"}


def test_the_verb(words, folder, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["data", "check", "images", "--root", str(folder)]) == 0
    said = " ".join(capsys.readouterr().out.split())
    for word in ("251 images: 250 .jpg, 1 .png", "tiny.png: is 8x9 (HxW)", "249 of 251 images can be decoded"):
        assert word in said
    for number in range(13):
        (folder / f"{number:05d}.jpg").write_bytes(b"")
    assert main(["data", "check", "images", "--root", str(folder)]) == 1
    assert main(["data", "check", "images", "--root", str(folder / "nowhere")]) == 2
    assert "is not a folder; set data.root" in capsys.readouterr().err


@pytest.mark.slow
def test_two_processes(words, folder, tmp_path):
    """The first one reads for both; refused, both end."""
    ddp = ["--trainer.devices", "2", "--trainer.strategy", "ddp"]

    def run(*extra):
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "WANDB_MODE": "disabled"}
        command = [sys.executable, "-m", "frugalseg", *words, *ddp, *extra]
        return subprocess.run(command, cwd=REPOSITORY, env=environment, capture_output=True, text=True, timeout=200)

    done = run()
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stderr.count("are left out") == 2  # at its beginning and its end, by the first process
    (folder / "00101.jpg").write_bytes(b"")
    done = run("--run.name", "refused")
    assert done.returncode == 2, done.stderr[-3000:]
    assert "3 of 251 images" in done.stderr
    assert "Traceback" not in done.stderr
