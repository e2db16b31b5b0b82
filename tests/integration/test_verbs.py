"""Verbs without a Trainer, and the recipes on a miniature world."""

import io
import logging
import re
import sys

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from frugalseg.cli import main
from frugalseg.data import VOC, MultiScale, Segment, Tags
from tests.conftest import REPOSITORY
from tests.integration.conftest import EXPERIMENTS

SFC_VOC = str(EXPERIMENTS / "sfc/voc/classify.yaml")


@pytest.mark.parametrize("role", ["train", "val", "predict"])
def test_show_draws_what_a_loader_gives(role, world, tmp_path, capsys):
    out = tmp_path / "grid.png"
    words = [
        "--data.init_args.root",
        str(world),
        "--data.init_args.num_workers",
        "0",
        "--data.init_args.batch_size",
        "4",
    ]
    words += ["--data.init_args.recipe.init_args.crop", "80"]
    assert (
        main(["show", "--config", SFC_VOC, "--role", role, "--count", "3", "--columns", "2", "--out", str(out), *words])
        == 0
    )
    assert "3 images of VOC" in capsys.readouterr().out
    picture = np.asarray(Image.open(out))
    assert picture.ndim == 3 and picture.std() > 20
    if role == "train":  # crop 80 over 64-pixel images: captions, canvas, two rows
        assert picture.shape == (2 * (80 + 14 + 4), 2 * (80 + 4), 3)


def test_show_refuses_unknown_keys(capsys, world):
    assert main(["show", "--config", SFC_VOC, "--data.init_args.rooot", str(world)]) == 2
    assert "rooot" in capsys.readouterr().err


def test_data_check_on_a_world_with_a_fault(world, tmp_path, capsys):
    import shutil

    root = tmp_path / "VOC2012"
    shutil.copytree(world, root)
    assert main(["data", "check", "voc", "--root", str(root)]) == 0
    mask = root / "SegmentationClass/2012_000001.png"
    Image.fromarray(np.full((64, 64), 99, dtype=np.uint8)).save(mask)
    capsys.readouterr()
    assert main(["data", "check", "voc", "--root", str(root)]) == 1
    printed = " ".join(capsys.readouterr().out.split())
    assert "2012_000001" in printed.replace(" ", "") and "99" in printed


@pytest.mark.real
def test_data_check_on_real_samples(real_voc, capsys):
    assert main(["data", "check", "voc", "--root", str(real_voc)]) == 0
    assert "110" in capsys.readouterr().out


def test_miniature_verb_writes_and_continues(tmp_path):
    words = ["miniature", "voc", "--root", str(tmp_path / "w"), "--images", "3", "--images-val", "2"]
    assert main(words) == 0
    stamp = (tmp_path / "w/world.json").read_text()
    assert main(words) == 0 and (tmp_path / "w/world.json").read_text() == stamp
    assert main([*words, "--seed", "5"]) == 2


@pytest.mark.parametrize("recipe", [Tags(crop=80, flip=0.5), Segment(crop=48)], ids=["tags", "segment"])
def test_training_recipes_on_the_miniature_world(recipe, world):
    data = VOC(world, recipe, train_split="trainaug", batch_size=4, num_workers=0, seed=1)
    data.setup("fit")
    batch = next(iter(data.train_dataloader()))
    assert batch["image"].shape == (4, 3, *[80 if isinstance(recipe, Tags) else 48] * 2)
    for number in range(4):
        y0, x0, y1, x1 = batch["box"][number].tolist()
        outside = torch.ones(batch["image"].shape[-2:], dtype=torch.bool)
        outside[y0:y1, x0:x1] = False
        assert batch["image"][number][:, outside].abs().sum() == 0
        if "mask" in batch:
            assert (batch["mask"][number][outside] == 255).all()
            assert batch["mask"][number][~outside].max() <= 12
    whole = next(iter(data.val_dataloader()))
    assert whole["image"].shape == (1, 3, 64, 64) and whole["mask"].shape == (1, 64, 64)


def test_multiscale_recipe_on_the_miniature_world(world):
    data = VOC(world, Tags(crop=64), predict_recipe=MultiScale(), predict_split="val", num_workers=0)
    data.setup("predict")
    batches = list(data.predict_dataloader())
    assert [b["id"][0] for b in batches] == [f"2011_{i:06d}" for i in range(1, 7)]
    for batch in batches:
        assert [tuple(p.shape) for p in batch["images"]] == [(2, 3, s, s) for s in (64, 32, 96, 128)]
        assert all(torch.equal(p[1], p[0].flip(-1)) for p in batch["images"])
        assert batch["tags"].shape == (1, 12) and batch["size"] == (64, 64)


def test_print_config_shows_the_resolved_settings(words, capsys):
    with pytest.raises(SystemExit) as stop:
        main(words("fit", "--model.init_args.lr", "0.25", "--print_config"))
    assert stop.value.code == 0
    config = yaml.safe_load(capsys.readouterr().out)
    assert config["model"]["init_args"]["lr"] == 0.25
    assert config["model"]["init_args"]["head_lr"] == 0.5  # from the YAML
    assert config["trainer"]["max_steps"] == 5


def chain_of(path):
    """A YAML behind those that it lies over, and whether it is an overlay: its first line says so, and theirs."""
    base = re.search(r"An overlay of (\S+\.yaml)|The same task as (\S+\.yaml)", path.read_text().splitlines()[0])
    if base is None:
        return [path], False
    below = path.parent / (base[1] or base[2])
    assert below.is_file(), (path, below)
    # a twin of another task lies over nothing
    return [*chain_of(below)[0], path], bool(base[1])


def test_every_experiment_file_has_its_header_and_parses(world, capsys):
    files = sorted(EXPERIMENTS.glob("*/**/*.yaml"))
    for path in files:
        text = path.read_text()
        if path.parent.name == "_base":
            assert text.startswith("#")
            continue
        for field in ("settings", "command", "hardware", "expected"):
            assert f"#   {field} " in text, (path, field)
        if {"crf", "walk", "claims", "program"} & set(yaml.safe_load(text)):
            # of verbs without a Trainer, tests/integration/test_labelling.py and tests/analysis/test_claims.py; sweeps,
            # tests/commands
            continue
        configs, overlay = chain_of(path)
        command = "predict" if overlay else "fit"
        with pytest.raises(SystemExit) as stop:
            main([command, *[w for c in configs for w in ("--config", str(c))], "--print_config"])
        assert stop.value.code == 0, path
    assert len(files) >= 10
    assert (REPOSITORY / "Makefile").is_file()


def test_commands_joined_by_plus_run_in_order_and_stop_at_the_first_failure(tmp_path, capsys):
    worlds = [
        ["miniature", "voc", "--root", str(tmp_path / name), "--images", "1", "--images-val", "1"] for name in "ab"
    ]
    assert main([*worlds[0], "+", "data", "check", "voc", "--root", str(tmp_path / "a"), "--quick"]) == 0
    assert main(["report", str(tmp_path / "none"), "+", *worlds[1]]) == 2
    assert not (tmp_path / "b").exists()
    assert main([*worlds[1], "+"]) == 2 and "+" in capsys.readouterr().err
    assert not (tmp_path / "b").exists()


def test_the_log_goes_to_the_error_stream_of_the_moment(monkeypatch, capsys):
    """Whoever calls `main` twice may have closed the stream of the first call."""
    first = io.StringIO()
    with monkeypatch.context() as patch:
        patch.setattr(sys, "stderr", first)
        assert main(["--version"]) == 0
    first.close()
    logging.getLogger("frugalseg").info("still heard")
    assert capsys.readouterr().err == "still heard\n"
