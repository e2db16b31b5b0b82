"""A small world of tiles and the command lines of DSMF-Net on it."""

import inspect
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch

from frugalseg.cli import main
from frugalseg.data import Episodes, ISAID5i
from frugalseg.papers.dsmf import DSMF
from tests.conftest import REPOSITORY

EXPERIMENTS = REPOSITORY / "experiments"
EPISODES = 16
"""Per base seed: enough for an episode of every class."""
SHOTS = ("1", "5")
SEEDS = [0, 1]
QUIET = {
    "logger": False, "enable_checkpointing": False, "enable_progress_bar": False, "enable_model_summary": False,
    "accelerator": "cpu", "use_distributed_sampler": False,
}  # fmt: skip

SETTINGS: dict[str, dict[str, Any]] = {
    "pretrain": {"trainer.max_steps": 2, "trainer.val_check_interval": 2, "trainer.limit_val_batches": 4},
    "train": {
        "trainer.max_steps": 3, "data.init_args.recipe.init_args.test_seed": "[0, 1]",
        "data.init_args.recipe.init_args.test_episodes": EPISODES, "model.init_args.dim": 16,
        "model.init_args.nodes": 4, "model.init_args.states": 8,
    },
}  # fmt: skip


def write_tiles(folder: Path) -> Path:
    """iSAID-5i as its own verbs write it: every class has an episode in each fold."""
    raw, root = folder / "raw", folder / "tiles"
    scenes = ["--scenes", "8", "--scenes-val", "4", "--size", "192"]
    assert main(["miniature", "isaid", "--root", str(raw), *scenes]) == 0
    cut = ["--tile", "96", "--step", "77", "--lists", "--workers", "1"]
    assert main(["data", "prepare", "isaid5i", "--raw", str(raw), "--root", str(root), *cut]) == 0
    return root


def command_lines(root: Path, runs: Path) -> Callable[..., list[str]]:
    """Words of a command on the miniature YAMLs, shrunk to a few steps; `extra` settings win."""

    def words(command: str, stage: str, *extra: str, settings: Sequence[str] = ()) -> list[str]:
        yaml = "pretrain" if stage == "pretrain" else "train"
        files = ["_base/trainer", f"miniature/dsmf/{yaml}", "_base/cpu", *settings]
        given = {
            **SETTINGS[yaml], "trainer.log_every_n_steps": 1, "run.root": runs, "run.stage": stage, "run.fold": 0,
            "run.wandb": "false", "data.init_args.root": root, "data.init_args.fold": 0, "data.init_args.batch_size": 4,
        }  # fmt: skip
        configs = [word for name in files for word in ("--config", str(EXPERIMENTS / f"{name}.yaml"))]
        return [command, *configs, *[w for k, v in given.items() for w in (f"--{k}", str(v))], *extra]

    return words


def net_of(checkpoint: Path) -> DSMF:
    """The task that a checkpoint holds."""
    content = torch.load(checkpoint, weights_only=True)
    # the command line writes more there than the task takes
    names = inspect.signature(DSMF).parameters
    made = DSMF(**{k: v for k, v in content["hyper_parameters"].items() if k in names})
    made.load_state_dict(content["state_dict"])
    return made


def undecided(checkpoint: Path, loader: Any, target: Path) -> Path:
    """Shift the last bias so that half of the places are the class: three steps teach a net to say background."""
    content, made = torch.load(checkpoint, weights_only=True), net_of(checkpoint).eval()
    with torch.no_grad():
        logits = torch.cat([made.answer(batch).logits for batch in loader])
    bias = content["state_dict"]["net.head.layers.3.bias"]
    bias[1] -= (logits[:, 1] - logits[:, 0]).median()
    torch.save(content, target)
    return target


def data_of(root, shots, **settings):
    """What the command lines test, for loaders of our own."""
    recipe = Episodes(int(shots), 96, test_episodes=EPISODES, test_seed=SEEDS)
    return ISAID5i(root, recipe, fold=0, protocol="P2", num_workers=0, **settings)


@cache
def make_chain(base: Path) -> SimpleNamespace:
    """Once for all files of a session: pretrain -> train -> 1-shot and 5-shot test, of the last checkpoint and of one that is undecided."""
    top = base / "dsmf"
    top.mkdir()
    root = write_tiles(top)
    words = command_lines(root, top / "runs")
    pretrain = top / "runs/mini-dsmf-backbone/fold0/seed0/pretrain"
    train = top / "runs/mini-dsmf/fold0/seed0/train"
    weights = ["--model.init_args.weights", str(pretrain / "checkpoints/last.ckpt")]
    assert main(words("fit", "pretrain")) == 0
    assert main(words("fit", "train", *weights)) == 0

    def test(shots, *extra, ckpt=None, name="", command="test"):
        given = ["--ckpt_path", str(ckpt or train / "checkpoints/last.ckpt"), "--run.name", name, *weights]
        return words(command, f"{shots}shot", "--data.init_args.recipe.init_args.shots", shots, *given, *extra)

    data = data_of(root, 1)
    (loader, _) = data.test_dataloader()
    half = undecided(train / "checkpoints/last.ckpt", loader, top / "half.ckpt")
    for shots in SHOTS:
        assert main(test(shots)) == 0
        assert main(test(shots, ckpt=half, name="half")) == 0
    return SimpleNamespace(
        top=top, root=root, words=words, weights=weights, pretrain=pretrain, train=train, test=test, half=half
    )


def stage(chain, name, shots):
    return chain.top / f"runs/mini-dsmf{name and '-' + name}/fold0/seed0/{shots}shot-test"


def counts_of(folder):
    with np.load(folder / "counts.npz", allow_pickle=False) as archive:
        return {key: archive[key] for key in archive.files}


def same_counts(one, other):
    assert set(one) == set(other) == {"seeds", "sums"}
    assert all(one[key].dtype == np.int64 and np.array_equal(one[key], other[key]) for key in one)


def expected(chain, shots):
    """Counts of the undecided checkpoint, which are worth comparing: it calls neither all nothing nor all the class."""
    found = counts_of(stage(chain, "half", shots))
    inside, outside = found["sums"][..., 2].sum(), found["sums"][..., 1].sum()
    assert inside > 1000 and outside > 1000
    return found
