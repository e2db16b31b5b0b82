"""DSMF-Net from the command line: the chain of stages, and scores that are the same everywhere."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from lightning.pytorch import Trainer
from torch.utils.data import DataLoader, Subset

from frugalseg.cli import main
from frugalseg.data.sampler import ExactSampler
from tests.conftest import REPOSITORY
from tests.integration.few_shot_runs import (
    EPISODES,
    QUIET,
    SEEDS,
    SHOTS,
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


# ---------------------------------------------------------------------- the chain


@pytest.mark.parametrize("shots", SHOTS)
def test_the_chain_leaves_what_the_tables_read(chain, shots):
    folder = stage(chain, "half", shots)
    names = {"config.yaml", "provenance.json", "metrics.json", "metrics.csv", "done.json", "counts.npz"}
    assert names <= {path.name for path in folder.iterdir()}
    metrics, counts = json.loads((folder / "metrics.json").read_text()), expected(chain, shots)
    assert counts["seeds"].tolist() == SEEDS and counts["sums"].shape == (2, 16, 5)
    assert (metrics["test/seeds"], metrics["test/episodes"]) == (2, EPISODES)
    means, pooled = [], []
    for seed, sums in zip(SEEDS, counts["sums"].astype(float), strict=True):
        here = sums[sums[:, 0] > 0]
        assert here[:, 0].sum() == EPISODES == metrics[f"test/seed{seed}/episodes"]
        assert set(sums[:, 0].nonzero()[0]) == {1, 2, 3, 4, 5}
        means.append((here[:, 2] / here[:, 4]).mean())
        pooled.append((here[:, 1].sum() / here[:, 3].sum() + here[:, 2].sum() / here[:, 4].sum()) / 2)
        assert metrics[f"test/seed{seed}/miou"] == pytest.approx(means[-1], abs=1e-6)
        assert metrics[f"test/seed{seed}/fb_iou"] == pytest.approx(pooled[-1], abs=1e-6)
    for key, values in (("miou", means), ("fb_iou", pooled)):
        assert metrics[f"test/{key}"] == pytest.approx(np.mean(values), abs=1e-6)
        assert metrics[f"test/{key}_std"] == pytest.approx(np.std(values, ddof=1), abs=1e-6)
    made = net_of(chain.half)
    assert metrics["model/parameters"] == sum(p.numel() for p in made.parameters())
    assert metrics["model/parameters_trainable"] == sum(p.numel() for p in made.net.parameters() if p.requires_grad)
    assert metrics["test/episodes_per_second"] > 0 and metrics["model/flops"] > 1e8


def test_more_shots_cost_more(chain):
    one, five = (json.loads((stage(chain, "", shots) / "metrics.json").read_text()) for shots in SHOTS)
    assert one["model/flops"] < five["model/flops"] < 5 * one["model/flops"]
    assert one["model/parameters"] == five["model/parameters"]


def test_the_fit_takes_the_pretrained_backbone(chain):
    before, after = (
        torch.load(f / "checkpoints/last.ckpt", weights_only=True)["state_dict"] for f in (chain.pretrain, chain.train)
    )
    # how many batches a statistic is of is the only thing that is not taken: a frozen one never asks
    backbone = [name for name in after if name.startswith("net.backbone.") and "num_batches" not in name]
    assert len(backbone) > 50 and all(torch.equal(before[name], after[name]) for name in backbone)


@pytest.mark.parametrize("fold", [0, 2])
def test_novel_classes_come_from_the_fold_of_the_data(chain, fold, tmp_path):
    """Nobody writes them down, so nobody can write down those of another fold."""
    folder = chain.pretrain
    if fold:
        words = chain.words("fit", "pretrain", "--data.init_args.fold", str(fold), "--run.fold", str(fold))
        assert (
            main([*words, "--run.root", str(tmp_path), "--trainer.max_steps", "1", "--trainer.limit_val_batches", "0"])
            == 0
        )
        folder = tmp_path / f"mini-dsmf-backbone/fold{fold}/seed0/pretrain"
    content = torch.load(folder / "checkpoints/last.ckpt", weights_only=True)
    novel = tuple(range(5 * fold + 1, 5 * fold + 6))
    assert tuple(content["hyper_parameters"]["novel"]) == novel
    # background and ten classes
    assert content["state_dict"]["net.head.bias"].shape == (11,)
    assert f"fold: {fold}\n" in (folder / "config.yaml").read_text()


# ---------------------------------------------------------------------- the same everywhere


@pytest.mark.parametrize("shots", [pytest.param("1", marks=pytest.mark.slow), "5"])
def test_workers_change_nothing(chain, shots):
    extra = ["--data.init_args.num_workers", "4"]
    assert main(chain.test(shots, *extra, ckpt=chain.half, name="workers")) == 0
    same_counts(counts_of(stage(chain, "workers", shots)), expected(chain, shots))


@pytest.mark.parametrize("kept", ["feature_bytes", pytest.param("cache_bytes", marks=pytest.mark.slow)])
def test_what_is_kept_changes_nothing(chain, kept):
    extra = [f"--model.init_args.{kept}", "0"]
    assert main(chain.test("5", *extra, ckpt=chain.half, name=kept)) == 0
    same_counts(counts_of(stage(chain, kept, "5")), expected(chain, "5"))


def own_counts(chain, shots, pick, precision, batch=1):
    """Counts of the same items through loaders of our own; `pick` says which, and in what order."""
    data = data_of(chain.root, shots)
    loaders = [
        DataLoader(Subset(loader.dataset, pick(len(loader.dataset))), batch_size=batch, collate_fn=data.recipe.collate)
        for loader in data.test_dataloader()
    ]
    made = net_of(chain.half)
    Trainer(precision=precision, **QUIET).test(made, loaders, verbose=False)
    return made.episode_counts()


def turned(count):
    return torch.randperm(count, generator=torch.Generator().manual_seed(1)).tolist()


@pytest.mark.parametrize(
    ("shots", "precision"),
    [
        ("1", "64-true"),
        ("5", "32-true"),
        *(pytest.param(*p, marks=pytest.mark.slow) for p in (("5", "64-true"), ("1", "32-true"))),
    ],
)
def test_order_and_batches_change_nothing(chain, shots, precision):
    straight = own_counts(chain, shots, range, precision)
    assert turned(EPISODES) != list(range(EPISODES))
    same_counts(own_counts(chain, shots, turned, precision), straight)
    same_counts(own_counts(chain, shots, turned, precision, batch=8), straight)
    if precision == "32-true":
        same_counts(straight, expected(chain, shots))


def test_the_ranks_parts_make_the_whole(chain):
    """What a rank answers, without processes, which take long; those are below."""
    whole, sampled = expected(chain, "5"), []
    parts = [
        own_counts(
            chain, "5", lambda n, rank=rank: sampled.append([*ExactSampler(n, rank, 2)]) or sampled[-1], "32-true"
        )
        for rank in (0, 1)
    ]
    assert sorted(sampled[0] + sampled[2]) == list(range(EPISODES)) and sampled[0] and sampled[2]
    assert np.array_equal(parts[0]["sums"] + parts[1]["sums"], whole["sums"])


@pytest.mark.slow
def test_two_ranks_change_nothing(chain):
    """An odd number of episodes, so that one rank has more; both stages in one process, one after the other."""
    extra = ["--data.init_args.recipe.init_args.test_episodes", "17"]
    ranks = ["--trainer.devices", "2", "--trainer.strategy", "ddp"]
    one, two = (
        [chain.test(shots, *extra, *more, ckpt=chain.half, name=name) for shots in SHOTS]
        for name, more in (("one", []), ("two", ranks))
    )
    done = subprocess.run(
        [sys.executable, "-m", "frugalseg", *two[0], "+", *two[1]],
        cwd=REPOSITORY,
        env={**os.environ, "OMP_NUM_THREADS": "1", "WANDB_MODE": "disabled"},
        capture_output=True,
        text=True,
        timeout=400,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert main([*one[0], "+", *one[1]]) == 0
    for shots in SHOTS:
        found = counts_of(stage(chain, "one", shots))
        assert found["sums"][..., 0].sum(axis=1).tolist() == [17, 17] and found["sums"][..., 2].sum() > 1000
        same_counts(counts_of(stage(chain, "two", shots)), found)
        one_, two_ = (json.loads((stage(chain, name, shots) / "metrics.json").read_text()) for name in ("one", "two"))
        assert one_.pop("test/episodes_per_second") > 0 and two_.pop("test/episodes_per_second") > 0
        assert one_ == two_
