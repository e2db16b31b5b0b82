"""DSMF-Net from the command line: stopping and repeating, baselines, bad input."""

import json
import re

import numpy as np
import pytest
import torch
from lightning.pytorch import Trainer
from PIL import Image
from torch.utils.data import DataLoader

from frugalseg.batch import IGNORE_INDEX
from frugalseg.cli import main
from frugalseg.papers.dsmf import DSMF
from frugalseg.papers.dsmf.features import shared_features
from tests.integration.few_shot_runs import (
    EPISODES,
    EXPERIMENTS,
    QUIET,
    counts_of,
    data_of,
    expected,
    make_chain,
    net_of,
    same_counts,
    stage,
)


@pytest.fixture(scope="module")
def chain(tmp_path_factory):
    return make_chain(tmp_path_factory.getbasetemp())


# ---------------------------------------------------------------------- stopping and repeating


class Unplugged(Exception):
    pass


def test_a_fit_that_was_stopped_inside_an_epoch_ends_as_one_that_was_not(chain, monkeypatch):
    """Sixteen episodes in batches of four are four steps an epoch: stopped in step 5, continued from step 3."""

    def fit(name):
        extra = {
            "trainer.max_steps": 7, "data.init_args.recipe.init_args.per_epoch": 16, "run.save_every": 3,
            "trainer.limit_val_batches": 2, "trainer.val_check_interval": 3, "run.name": name,
        }  # fmt: skip
        return main(
            chain.words("fit", "train", *chain.weights, *[w for k, v in extra.items() for w in (f"--{k}", str(v))])
        )

    def state(name, file="last"):
        return torch.load(
            chain.top / f"runs/mini-dsmf-{name}/fold0/seed0/train/checkpoints/{file}.ckpt", weights_only=True
        )

    assert fit("whole") == 0
    step = DSMF.training_step

    def unplug(self, batch, batch_idx):
        if self.global_step == 5:
            raise Unplugged
        return step(self, batch, batch_idx)

    monkeypatch.setattr(DSMF, "training_step", unplug)
    shared_features.cache_clear()
    with pytest.raises(Unplugged):
        fit("stopped")
    assert state("stopped")["global_step"] == 3
    seen = []

    def watch(self, batch, batch_idx):
        seen.append((self.global_step, batch_idx))
        return step(self, batch, batch_idx)

    monkeypatch.setattr(DSMF, "training_step", watch)
    shared_features.cache_clear()  # another process has kept nothing
    torch.manual_seed(999)
    assert fit("stopped") == 0
    assert seen == [(3, 3), (4, 0), (5, 1), (6, 2)]
    for file in ("last", "best"):
        whole, resumed = state("whole", file), state("stopped", file)
        assert whole["global_step"] == resumed["global_step"]
        assert [n for n, t in whole["state_dict"].items() if not torch.equal(t, resumed["state_dict"][n])] == []


def test_a_finished_test_is_not_repeated(chain, capsys):
    capsys.readouterr()
    done = stage(chain, "", "1") / "done.json"
    before = done.read_text()
    assert main(chain.test("1")) == 0
    assert f"{done.parent}: up to date" in capsys.readouterr().err and done.read_text() == before


def test_that_of_another_checkpoint_is(chain, capsys):
    assert main(chain.test("1", name="moved")) == 0
    folder = stage(chain, "moved", "1")
    first = counts_of(folder)
    capsys.readouterr()
    assert main(chain.test("1", ckpt=chain.half, name="moved")) == 0
    said = capsys.readouterr().err
    assert "up to date" not in said and f"{folder}: configuration or inputs changed (inputs.ckpt_path " in said
    assert "; the old run is now" in said
    same_counts(counts_of(folder), expected(chain, "1"))
    assert not np.array_equal(first["sums"], counts_of(folder)["sums"])
    (old,) = folder.parent.glob(f"{folder.name}.old-*")
    same_counts(counts_of(old), first)


# ---------------------------------------------------------------------- baselines


def baseline(chain, name, command, *extra):
    configs = [
        word
        for file in ("_base/trainer", f"dsmf/isaid5i/{name}", "_base/cpu")
        for word in ("--config", str(EXPERIMENTS / f"{file}.yaml"))
    ]
    given = {
        "data.init_args.root": chain.root, "run.root": chain.top / "runs", "run.name": name, "run.fold": 0,
        "run.wandb": "false", "data.init_args.recipe.init_args.size": 96, "data.init_args.batch_size": 4,
        "data.init_args.recipe.init_args.test_episodes": EPISODES, "data.init_args.recipe.init_args.test_seed": "[0, 1]",
        "data.init_args.protocol": "P2",
    }  # fmt: skip
    return [command, *configs, *[w for k, v in given.items() for w in (f"--{k}", str(v))], *extra]


def test_everything_foreground_needs_no_checkpoint(chain):
    """Its counts are the masks' own, read here from the files."""
    assert main(baseline(chain, "foreground", "test", "--run.stage", "1shot")) == 0
    folder = chain.top / "runs/dsmf-isaid5i-foreground/fold0/seed0/1shot-test"
    table = np.zeros((2, 16, 5), np.int64)
    for row, loader in enumerate(data_of(chain.root, 1).test_dataloader()):
        for batch in loader:
            (name,), c = batch["id"], int(batch["class_id"])
            ids = np.asarray(Image.open(chain.root / f"val/semantic_png/{name}_instance_color_RGB.png"))
            valid = int((ids != IGNORE_INDEX).sum())
            inside = int((ids == c).sum())
            table[row, c] += [1, 0, inside, valid - inside, valid]
    assert (
        np.array_equal(counts_of(folder)["sums"], table) and table[..., 2].all(axis=None) == (table[..., 0] > 0).all()
    )
    metrics = json.loads((folder / "metrics.json").read_text())
    assert metrics["model/parameters"] == 0 and "model/parameters_trainable" not in metrics
    shares = [np.mean([row[2] / row[4] for row in rows if row[0]]) for rows in table]
    assert metrics["test/miou"] == pytest.approx(np.mean(shares), abs=1e-6)


def test_the_prototypes_threshold_goes_through_its_checkpoint(chain, capsys):
    options = {
        "strides": [2, 2, 2], "dilations": [2, 2],
        "options": {"layers": [1, 1, 2, 1], "channels": [32, 64, 128, 192], "stem_type": "deep", "stem_width": 12},
    }  # fmt: skip
    net = [
        "--model.init_args.backbone",
        "resnet18",
        "--model.init_args.backbone_options",
        json.dumps(options),
        *chain.weights,
    ]
    short = ["--data.init_args.recipe.init_args.per_epoch", "12"]
    assert main(baseline(chain, "prototype", "fit", *net, *short)) == 0
    train = chain.top / "runs/dsmf-isaid5i-prototype/fold0/seed0/train"
    chosen = torch.load(train / "checkpoints/last.ckpt", weights_only=True)["state_dict"]["threshold"]
    assert float(chosen) == pytest.approx(json.loads((train / "metrics.json").read_text())["train/threshold"])
    assert 0 < float(chosen) < 1 and float(chosen) * 40 == pytest.approx(round(float(chosen) * 40))
    given = ["--run.stage", "1shot", *net, *short]
    capsys.readouterr()
    assert main(baseline(chain, "prototype", "test", *given)) == 2
    assert "frugalseg test needs a trained net; give --ckpt_path FILE" in one_line(capsys)
    assert main(baseline(chain, "prototype", "test", *given, "--ckpt_path", str(train / "checkpoints/last.ckpt"))) == 0
    sums = counts_of(train.parent / "1shot-test")["sums"]
    assert sums[..., 0].sum() == 2 * EPISODES and sums[..., 2].sum() > 0


# ---------------------------------------------------------------------- bad input


def one_line(capsys):
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("frugalseg: error: ")]
    return line


@pytest.mark.parametrize(
    ("extra", "said"),
    [
        (["--data.init_args.fold", "3", "--run.fold", "3"], r"data\.fold: 3 is none of the 3 folds 0 to 2 of iSAID-5i"),
        (["--data.init_args.protocol", "P3"], r"data.*protocol.*P1.*P2.*P3"),
        (["--trainer.limit_test_batches", "0"], r"no episode was answered; raise limit_test_batches"),
        (["--model.init_args.lr", "0"], r"model\.init_args\.lr is 0"),
        (["--data.init_args.recipe.init_args.test_seed", "[0, 0]"], r"test_seed is \[0, 0\]"),
    ],
)
def test_a_setting_that_makes_no_sense_is_told_in_one_line(chain, tmp_path, capsys, extra, said):
    assert main(chain.test("1", "--run.root", str(tmp_path), *extra)) == 2
    line = one_line(capsys)
    assert re.search(said, line), line
    assert not list(tmp_path.rglob("done.json")) and not list(tmp_path.rglob("metrics.json"))


def test_a_net_without_a_checkpoint_is_refused(chain, capsys):
    assert main(chain.words("test", "1shot", *chain.weights, "--run.name", "none")) == 2
    assert "frugalseg test needs a trained net; give --ckpt_path FILE" in one_line(capsys)


def test_an_empty_support_is_answered(chain):
    """Rescaling may lose a small object: what is left of the support then is its image."""
    data = data_of(chain.root, 5)
    (loader, _) = data.test_dataloader()

    def emptied(items):
        return data.recipe.collate(
            [{**item, "support_masks": torch.zeros_like(item["support_masks"])} for item in items]
        )

    made = net_of(chain.half)
    steps = []
    made.test_step = lambda batch, batch_idx, dataloader_idx=0: steps.append(made._count(batch, 0)) or steps[-1]
    Trainer(**QUIET).test(made, DataLoader(loader.dataset, collate_fn=emptied), verbose=False)
    assert len(steps) == EPISODES
    assert all(
        torch.isfinite(part).all() for step in steps for part in (step["logits"], step["prior"], *step["graph_maps"])
    )
    assert not any(step["prior"].any() for step in steps)
    assert made.episode_counts()["sums"][..., 0].sum() == EPISODES


def test_a_run_folder_of_another_fold_is_refused(chain, capsys):
    def fit(fold):
        extra = ["--run.name", "reused", "--trainer.max_steps", "1", "--data.init_args.fold", str(fold)]
        return main(chain.words("fit", "train", *extra, "--data.init_args.protocol", "P1"))

    assert fit(0) == 0
    folder = chain.top / "runs/mini-dsmf-reused/fold0/seed0"
    before = (folder / "train/checkpoints/last.ckpt").read_bytes()
    capsys.readouterr()
    assert fit(1) == 2
    assert "run.fold is 0, but data.init_args.fold is 1; set both to the same fold" in one_line(capsys)
    assert [path.name for path in folder.iterdir()] == ["train"]
    assert (folder / "train/checkpoints/last.ckpt").read_bytes() == before


def test_what_another_fold_has_learned_is_not_tested(chain, capsys):
    """A backbone, and a whole net: both have seen masks of the classes that are novel now."""
    other = ["--data.init_args.fold", "1", "--run.fold", "1", "--run.name", "leak"]
    assert main(chain.words("fit", "train", *chain.weights, *other)) == 2
    assert "this backbone was trained on classes [6, 7, 8, 9, 10], which data.fold tests" in one_line(capsys)
    ckpt = ["--ckpt_path", str(chain.train / "checkpoints/last.ckpt")]
    ckpt += ["--data.init_args.recipe.init_args.allow_missing_classes", "true"]  # else too few episodes come first
    assert main(chain.words("test", "1shot", *other, *ckpt)) == 2
    assert "are tested, but this net was trained on them; set data.fold to its own" in one_line(capsys)
    assert not list((chain.top / "runs/mini-dsmf-leak").rglob("done.json"))
