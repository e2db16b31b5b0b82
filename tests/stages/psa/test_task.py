"""The PSA task: parameter groups, what it refuses, and fit, resume and predict through the command line."""

import json
from itertools import chain
from types import SimpleNamespace

import lightning.pytorch as lightning
import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader

from frugalseg.batch import SegBatch
from frugalseg.cli import main
from frugalseg.data.io import read_image, read_mask, write_mask
from frugalseg.data.normalise import IMAGENET_MEAN, IMAGENET_STD, Normaliser
from frugalseg.data.voc import class_table, index
from frugalseg.errors import ConfigError
from frugalseg.miniature.voc import write_voc_world
from frugalseg.ops.random_walk import path_offsets
from frugalseg.stages.psa import PSA
from frugalseg.stages.psa.losses import affinity_loss
from tests.conftest import REPOSITORY
from tests.stages.psa import oracles

EXPERIMENTS = REPOSITORY / "experiments"
TIMM = {
    "backbone": "resnet18",
    "strides": [2, 1, 2, 1, 1],
    "backbone_options": {"layers": [1, 1, 1, 1], "channels": [8, 12, 16, 20]},
    "embedding": [4, 6, 8],
}
WIDE = {"backbone": "resnet38d", "backbone_options": {"width": 1 / 16}, "embedding": [4, 6, 8]}


def task(settings, **more):
    torch.manual_seed(0)
    return PSA(num_classes=5, **settings, **more)


class Batches(lightning.LightningDataModule):
    """One batch of patches whose class is their colour, as often as asked for."""

    def __init__(self, size, steps=2):
        super().__init__()
        self.size, self.steps = size, steps

    def train_dataloader(self):
        generator = torch.Generator().manual_seed(1)
        mask = torch.randint(5, (2, *(s // 8 for s in self.size)), generator=generator)
        mask = mask.repeat_interleave(8, 1).repeat_interleave(8, 2)
        colours = torch.randn(5, 3, generator=generator)
        # contiguous, as data modules give it: oneDNN of torch 2.15 crashes on nets as thin as this in channels_last
        image = colours[mask].permute(0, 3, 1, 2).contiguous()
        image += 0.1 * torch.randn(image.shape, generator=generator)
        batch = SegBatch(id=["a", "b"], image=image, mask=mask, box=torch.zeros(2, 4))
        return DataLoader([batch] * self.steps, batch_size=None)


def fit(module, size, **settings):
    trainer = lightning.Trainer(
        accelerator="cpu", max_epochs=1, logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, **settings,
    )  # fmt: skip
    trainer.fit(module, Batches(size))
    return trainer


def groups(module):
    """Parameter names, first rate and decay of each group, as they are when a fit begins."""
    names = {id(p): name for name, p in module.named_parameters()}
    optimiser = fit(module, (96, 96), limit_val_batches=0).optimizers[0]
    found = [({names[id(p)] for p in g["params"]}, g["initial_lr"], g["weight_decay"]) for g in optimiser.param_groups]
    return found, optimiser


def test_groups_of_the_paper():
    """x10 for the head; ResNet-38 has no biases that learn."""
    module = task(WIDE, lr=0.01, weight_decay=5e-4, momentum=5e-4)
    (backbone, head), optimiser = groups(module)
    learning = {n for n, p in module.named_parameters() if p.requires_grad}
    assert backbone == ({n for n in learning if n.startswith("net.backbone.b")}, 0.01, 5e-4)
    assert head == ({n for n in learning if n.startswith("net.head.f")}, pytest.approx(0.1), 5e-4)
    assert {g["momentum"] for g in optimiser.param_groups} == {5e-4}


def test_biases_learn_twice_as_fast_and_are_not_decayed():
    module = task(TIMM, lr=0.02, weight_decay=1e-3, head_factor=3.0)
    (weights, biases, head), _ = groups(module)
    learning = {n for n, p in module.named_parameters() if p.requires_grad and "backbone" in n}
    assert biases == ({n for n in learning if n.endswith("bias")}, 0.04, 0.0)
    assert weights == (learning - biases[0], 0.02, 1e-3)
    assert biases[0] and weights[0] and head[1:] == (pytest.approx(0.06), 1e-3)


def test_the_rate_falls_by_the_polynomial():
    trainer = fit(task(WIDE, lr=0.01, power=0.7), (96, 96))
    # two steps of two: the last rate stays
    assert [g["lr"] for g in trainer.optimizers[0].param_groups] == pytest.approx([0.01 * 0.5**0.7, 0.1 * 0.5**0.7])


def test_a_fit_lowers_the_loss_on_its_own_batch():
    module = task(TIMM, border_pairs=True, lr=0.2, momentum=0.9)
    losses = []
    step = PSA.training_step

    def watch(batch, batch_idx):
        losses.append(step(module, batch, batch_idx))
        return losses[-1]

    module.training_step = watch
    trainer = lightning.Trainer(
        accelerator="cpu", max_epochs=1, logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False,
    )  # fmt: skip
    trainer.fit(module, Batches((64, 64), steps=60))
    values = [loss.item() for loss in losses]
    assert max(values[-3:]) < values[0] / 2


def test_crops_without_pairs_are_refused():
    with pytest.raises(ConfigError, match=r"data\.recipe\.crop: 8 x 8 cells hold no pairs of radius 5"):
        fit(task(WIDE), (64, 64))


@pytest.fixture
def ranks(monkeypatch):
    """What a step asks of a trainer with two processes, of which the other one has twice as many pairs."""
    monkeypatch.setattr(torch.distributed, "all_reduce", lambda counts: counts.mul_(3))
    return SimpleNamespace(world_size=2)


def test_pairs_are_counted_over_all_processes(ranks):
    module, (batch,) = task(TIMM, border_pairs=True), list(Batches((48, 48), steps=1).train_dataloader())
    module._trainer, module.log_dict = ranks, lambda *args, **kwargs: None
    pairs = module.pairs(batch["mask"])
    expected = affinity_loss(module.net(batch["image"]), pairs, pairs.counts() * 1.5).total
    assert torch.equal(module.training_step(batch, 0), expected)


def test_a_batch_of_unknown_pixels_trains_nothing(ranks):
    module, (batch,) = task(TIMM, border_pairs=True), list(Batches((48, 48), steps=1).train_dataloader())
    module._trainer, module.log_dict = ranks, lambda *args, **kwargs: None
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = module.training_step({**batch, "mask": torch.full_like(batch["mask"], 255)}, 0)
    loss.backward()
    gradients = [p.grad for p in module.parameters() if p.requires_grad]
    assert loss.item() == 0 and all(g is not None and not g.any() for g in gradients)


class Given(nn.Module):
    """A net that finds its affinities in the image."""

    stride, radius, border_pairs = 8, 5, True

    def forward(self, image):
        return image


def average_precision(scores, hits):
    """By definition: over thresholds from the highest score, the rise in recall times the precision."""
    found = 0.0
    for score in sorted(set(scores), reverse=True):
        taken = [h for s, h in zip(scores, hits, strict=True) if s >= score]
        found += sum(h for s, h in zip(scores, hits, strict=True) if s == score) * sum(taken) / len(taken)
    return found / sum(hits)


def test_validation_is_the_average_precision_over_the_pairs_of_all_images():
    """Of low affinity for pairs across a boundary, unknown ones left out; each validation by itself."""
    module, generator = task(WIDE), torch.Generator().manual_seed(3)
    module.net = Given()
    trainer = lightning.Trainer(accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False)
    for _ in range(2):
        batches, scores, hits = [], [], []
        for _ in range(2):
            label = torch.tensor([0, 1, 2, 255])[torch.randint(4, (1, 6, 7), generator=generator)]
            affinity = torch.tensor([0.2, 0.5, 0.8])[torch.randint(3, (1, 34, 6, 7), generator=generator)]
            batches.append({"image": affinity, "mask": label.repeat_interleave(8, 1).repeat_interleave(8, 2)})
            kinds = oracles.kinds(label[0].numpy(), [tuple(o) for o in path_offsets(5).tolist()], 5, border=True)
            known = kinds.any(axis=0)
            scores += (1 - affinity[0].numpy())[known].tolist()
            hits += kinds[2][known].tolist()
        (result,) = trainer.validate(module, DataLoader(batches, batch_size=None), verbose=False)
        assert result["val/boundary_ap"] == pytest.approx(average_precision(scores, hits), abs=1e-6)


@pytest.mark.parametrize("scales", [1, 2])
def test_affinities_are_those_of_scale_one(scales):
    module = task(TIMM).eval()
    images = [torch.zeros(2, 3, 40, 48), torch.zeros(2, 3, 20, 24)]
    batch = {"id": ["a"], "images": images[:2] if scales == 2 else images[1:], "size": (40, 48)}
    with pytest.raises(ConfigError, match=r"scales.*\[1\.0\]"):
        module.predict_step(batch, 0)


# ---------------------------------------------------------------------- the command line


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    return write_voc_world(tmp_path_factory.mktemp("psa") / "VOC2012", images_train=24, images_val=6, seed=5)


@pytest.fixture(scope="module")
def labels(world):
    """Made-up seed labels: true masks, unknown in every other stripe of 8 rows."""
    folder, classes = world.parent / "seed_labels", class_table(world)
    folder.mkdir()
    for sample in index(world, "trainaug"):
        ids = read_mask(sample.mask, classes.num_classes).copy()
        ids[np.arange(len(ids)) // 8 % 2 == 1] = 255
        write_mask(folder / f"{sample.id}.png", ids, classes.palette)
    return folder


@pytest.fixture
def words(world, labels, tmp_path):
    def build(command, *extra, overlay=False):
        configs = ["_base/trainer.yaml", "miniature/sfc/psa.yaml"]
        configs += ["miniature/sfc/affinity.yaml"] if overlay else []
        settings = {
            "trainer.max_steps": 3,
            "trainer.val_check_interval": 3,
            "trainer.log_every_n_steps": 1,
            "run.root": tmp_path / "runs",
            "run.save_every": 1,
            "run.wandb": "false",
            "data.init_args.root": world,
            "data.init_args.batch_size": 4,
        }
        if not overlay:
            settings["data.init_args.pseudo_labels"] = labels
        flags = [word for key, value in settings.items() for word in (f"--{key}", str(value))]
        files = [str(EXPERIMENTS / c) for c in (*configs, "_base/cpu.yaml")]
        return [command, *[w for file in files for w in ("--config", file)], *flags, *extra]

    return build


def last(folder):
    return torch.load(folder / "checkpoints/last.ckpt", weights_only=True)


def test_fit_resume_and_predict(words, world, tmp_path, monkeypatch):
    folder, reads = tmp_path / "runs/mini-sfc/seed0/psa", []
    monkeypatch.setattr("frugalseg.stages.psa.task.load_backbone_weights", lambda *given: reads.append(given[1]))
    assert main(words("fit")) == 0
    whole = last(folder)
    metrics = json.loads((folder / "metrics.json").read_text())
    assert {"train/loss_total", "train/loss_different", "val/boundary_ap"} <= set(metrics)
    assert whole["global_step"] == 3 and np.isfinite(metrics["train/loss_total"])

    step = PSA.training_step

    def unplug(self, batch, batch_idx):
        if self.global_step == 2:
            raise RuntimeError("pulled the plug")
        return step(self, batch, batch_idx)

    monkeypatch.setattr(PSA, "training_step", unplug)
    stopped = tmp_path / "runs/mini-sfc-stopped/seed0/psa"
    with pytest.raises(RuntimeError, match="pulled the plug"):
        main(words("fit", "--run.name", "stopped"))
    assert last(stopped)["global_step"] == 2
    monkeypatch.setattr(PSA, "training_step", step)
    assert main(words("fit", "--run.name", "stopped")) == 0
    assert reads == [None, None]  # a resumed fit has its weights in the checkpoint
    again = last(stopped)["state_dict"]
    assert [n for n, t in whole["state_dict"].items() if not torch.equal(t, again[n])] == []

    checkpoint = str(folder / "checkpoints/last.ckpt")
    assert main(words("predict", "--run.stage", "affinity-train", "--ckpt_path", checkpoint, overlay=True)) == 0
    samples = index(world, "train")
    written = {p.stem: p for p in (folder.parent / "affinity-train/affinities").glob("*.npz")}
    assert set(written) == {s.id for s in samples}
    module = PSA.load_from_checkpoint(checkpoint, map_location="cpu").eval()
    for sample in samples[:2]:
        with np.load(written[sample.id], allow_pickle=False) as archive:
            assert archive.files == ["affinity"]
            affinity = archive["affinity"]
        image = torch.from_numpy(Normaliser(IMAGENET_MEAN, IMAGENET_STD).pair(read_image(sample.image))[:1])
        with torch.no_grad():
            expected = module.net(image)[0].numpy()
        assert affinity.dtype == np.float32 and affinity.shape == (34, 32, 32)
        np.testing.assert_allclose(affinity, expected, rtol=0, atol=1e-6)


def test_a_missing_label_stops_the_fit(words, tmp_path, labels, capsys):
    (tmp_path / "empty").mkdir()
    assert main(words("fit", "--data.init_args.pseudo_labels", str(tmp_path / "empty"))) == 2
    assert "pseudo labels are missing" in capsys.readouterr().err


def test_the_published_settings_run(world, labels, tmp_path):
    """An epoch of one step by the VOC files on a thin net, and affinities by their overlay."""
    flags = {
        "trainer.max_epochs": 1,
        "trainer.check_val_every_n_epoch": 1,
        "trainer.limit_val_batches": 0,
        "run.root": tmp_path / "runs",
        "run.wandb": "false",
        "model.init_args.weights": "null",
        "model.init_args.backbone_options": "{width: 0.0625}",
        "model.init_args.embedding": "[4, 8, 16]",
        "data.init_args.root": world,
        "data.init_args.pseudo_labels": labels,
        "data.init_args.limit": 8,
    }
    given = [word for key, value in flags.items() for word in (f"--{key}", str(value))]
    files = ["_base/trainer.yaml", "cti/voc/psa.yaml", "cti/voc/affinity.yaml", "_base/cpu.yaml"]
    configs = [["--config", str(EXPERIMENTS / name)] for name in files]
    assert main(["fit", *configs[0], *configs[1], *configs[3], *given]) == 0
    folder = tmp_path / "runs/cti-voc/seed0"
    checkpoint = last(folder / "psa")
    assert checkpoint["global_step"] == 1
    assert [g["initial_lr"] for g in checkpoint["optimizer_states"][0]["param_groups"]] == pytest.approx([0.01, 0.1])
    # normalisation is fixed: it is as it began
    still = {"weight": 1, "bias": 0, "running_mean": 0, "running_var": 1, "num_batches_tracked": 0}
    norms = {name: t for name, t in checkpoint["state_dict"].items() if ".bn" in name}
    assert norms and all((t == still[name.rpartition(".")[2]]).all() for name, t in norms.items())
    path = str(folder / "psa/checkpoints/last.ckpt")
    assert main(["predict", *chain.from_iterable(configs), *given, "--ckpt_path", path]) == 0
    assert len(list((folder / "affinity/affinities").glob("*.npz"))) == 8
