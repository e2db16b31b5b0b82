"""The task: training through the command line, resuming, predicting, and what must not change."""

import json

import numpy as np
import pytest
import torch
import yaml
from lightning.pytorch import Trainer

from frugalseg.cli import main
from frugalseg.data import VOC, MultiScale, Segment
from frugalseg.data.voc import index
from frugalseg.errors import ConfigError
from frugalseg.ops.random_walk import affinity_from_edges
from frugalseg.stages.irn import IRN, pairs
from frugalseg.stages.irn.model import IRNet
from tests.stages.irn.conftest import CLASSES, EXPERIMENTS

SMALL = {
    "num_classes": CLASSES,
    "backbone": "resnet18",
    "strides": [2, 1, 2, 1, 1],
    "backbone_options": {"layers": [1, 1, 1, 1], "channels": [16, 32, 48, 64], "stem_type": "deep", "stem_width": 8},
    "weights": None,
    "radius": 5,
    "pad_to": 64,
}
BOTH_BRANCHES = ["--model.init_args.displacement", "true", "--model.init_args.displacement_lr", "0.1"]


class Unplugged(Exception):
    pass


def checkpoint(folder):
    return torch.load(folder / "checkpoints/last.ckpt", weights_only=True)


def pair_batch(height, width, seed=0):
    image = torch.randn(1, 3, height, width, generator=torch.Generator().manual_seed(seed))
    return {"id": ["a"], "images": [torch.cat([image, image.flip(-1)])], "size": (height, width)}


# ---------------------------------------------------------------------- the network


@pytest.mark.parametrize("strides", [(4, 1, 2, 2, 1), (2, 1, 2, 1, 1), (4, 1, 1, 2, 2), (2, 1, 2, 2, 2)])
@pytest.mark.parametrize("size", [(64, 64), (61, 75)])
def test_all_maps_live_on_the_grid_of_layer1(strides, size):
    net = IRNet("resnet18", strides, displacement=True, backbone_options=SMALL["backbone_options"])
    image = torch.zeros(2, 3, *size)
    maps, grid = net(image), tuple(net.backbone(image).layer1.shape[-2:])
    assert maps.edge.shape == (2, *grid) and maps.displacement.shape == (2, 2, *grid)
    assert net.grid(image) == grid


def test_a_layer1_that_steps_is_refused():
    with pytest.raises(ValueError, match="must not step"):
        IRNet("resnet18", (2, 2, 2, 1, 1), backbone_options=SMALL["backbone_options"])


def test_gradients_reach_the_heads_alone():
    task = IRN(**SMALL, displacement=True).train()
    image, mask = torch.randn(2, 3, 64, 64), torch.randint(0, 3, (2, 64, 64))
    task.losses(image, mask).total.backward()
    assert [n for n, p in task.net.backbone.named_parameters() if p.requires_grad or p.grad is not None] == []
    heads = [*task.net.edge.named_parameters(), *task.net.displacement.named_parameters()]
    # all of them, or DDP would wait for the others
    assert [n for n, p in heads if p.grad is None] == []
    assert not any(m.training for m in task.net.backbone.modules())
    assert task.net.edge.training


def test_the_backbone_is_in_evaluation_mode_from_the_start():
    net = IRNet("resnet18", SMALL["strides"], backbone_options=SMALL["backbone_options"])
    assert net.training and net.edge.training and not any(m.training for m in net.backbone.modules())


@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16])
def test_a_batch_of_unknown_pixels_trains_nothing(precision):
    task, image = IRN(**SMALL, displacement=True).train(), torch.randn(2, 3, 64, 64)
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=precision == torch.bfloat16):
        terms = task.losses(image, torch.full((2, 64, 64), 255))
    terms.total.backward()
    assert [value.item() for value in terms] == [0] * 6
    heads = [*task.net.edge.parameters(), *task.net.displacement.parameters()]
    assert all(p.grad is not None and not p.grad.any() for p in heads)


def test_mean_shift_is_subtracted_in_evaluation_only():
    net = IRNet("resnet18", SMALL["strides"], displacement=True, backbone_options=SMALL["backbone_options"])
    shift, image = torch.tensor([0.5, -2.0]), torch.randn(1, 3, 64, 64)
    net.displacement.mean_shift.copy_(shift)
    with torch.no_grad():
        difference = net.train()(image).displacement - net.eval()(image).displacement
    torch.testing.assert_close(difference, shift.view(1, 2, 1, 1).expand_as(difference))


# ---------------------------------------------------------------------- validation


@torch.no_grad()
def test_validation_looks_at_the_edges_that_are_predicted():
    """On the padded image, since group normalisation sees the padding, but without the mirror image."""
    task, radius = IRN(**SMALL).eval(), 5
    generator = torch.Generator().manual_seed(4)
    for _ in range(2):  # each validation by itself
        task.on_validation_epoch_start()
        expected = torch.zeros_like(task.boundary)
        for size in ((50, 47), (64, 64), (7, 64)):  # the last has no pairs of radius 5
            image = torch.randn(1, 3, *size, generator=generator)
            mask = torch.tensor([0, 1, 2, 255])[torch.randint(4, (1, 8, 8), generator=generator)]
            mask = mask.repeat_interleave(8, 1).repeat_interleave(8, 2)[:, : size[0], : size[1]]
            task.validation_step({"image": image, "mask": mask}, 0)
            edge = task.net.infer(image, 64).edge
            if size[0] > 7:
                kinds = pairs.pair_kinds(pairs.reduce_labels(mask, 2, tuple(edge.shape)), radius)
                affinity = pairs.at_sources(affinity_from_edges(edge[None], radius), radius)
                expected += pairs.boundary_counts(affinity, kinds)
        assert torch.equal(task.boundary, expected) and expected.sum() > 1000


# ---------------------------------------------------------------------- prediction


def test_images_above_the_padding_are_kept_whole():
    """The reference would cut the right-hand part away."""
    task = IRN(**SMALL).eval()
    with torch.no_grad():
        tall = task.predict_step(pair_batch(50, 91), 0)["arrays"]["edge"]
        small = task.predict_step(pair_batch(37, 41), 0)["arrays"]["edge"]
    assert tall.shape == (25, 46) and small.shape == (19, 21)
    assert tall.dtype == np.float32 and 0 <= tall.min() < tall.max() <= 1
    assert task.net.pad(torch.ones(1, 3, 50, 89), 64).shape[-2:] == (64, 92)  # a multiple of the output stride, 4
    padded = task.net.pad(torch.ones(1, 3, 37, 41), 64)
    assert padded[:, :, :37, :41].eq(1).all() and float(padded.sum()) == 3 * 37 * 41


def test_the_mirror_image_is_folded_back():
    """Edges of a mirrored input are the mirrored edges: both members of the pair count alike."""
    task = IRN(**SMALL).eval()
    batch = pair_batch(64, 50)
    mirrored = batch | {"images": [batch["images"][0].flip(0)]}
    with torch.no_grad():
        there, back = (task.predict_step(b, 0)["arrays"]["edge"] for b in (batch, mirrored))
        alone = task.net.infer(batch["images"][0][:1], 64).edge
    np.testing.assert_allclose(there, back[:, ::-1], atol=1e-6)
    assert np.abs(there - alone.numpy()).max() > 1e-3


def test_another_scale_is_refused():
    with pytest.raises(ConfigError, match=r"scales to \[1.0\]"):
        IRN(**SMALL).predict_step(pair_batch(64, 64) | {"size": (32, 32)}, 0)


@pytest.mark.parametrize("wrong", [{"num_classes": 1}, {"radius": 1}, {"pad_to": 0}])
def test_settings_that_make_no_sense_are_refused(wrong):
    with pytest.raises(ConfigError, match=next(iter(wrong))):
        IRN(**(SMALL | wrong))


# ---------------------------------------------------------------------- through the command line


@pytest.fixture
def trained(words, tmp_path):
    assert main(words("fit", *BOTH_BRANCHES)) == 0
    return tmp_path / "runs/mini-sfc/seed0/irn"


def test_fit_and_predict(words, world, trained, capsys):
    state = checkpoint(trained)["state_dict"]
    metrics = json.loads((trained / "metrics.json").read_text())
    assert {f"train/loss_{n}" for n in ("background", "foreground", "across", "total")} <= set(metrics)
    assert 0 < metrics["val/boundary_share"] < 1 and 0 < metrics["val/boundary_ap"] <= 1
    assert not (trained / "checkpoints/best.ckpt").exists()  # true masks choose nothing
    assert state["net.displacement.mean_shift"].abs().sum() > 0
    assert state.keys() == IRN(**SMALL, displacement=True).state_dict().keys()
    assert all(name.startswith("net.") for name in state)  # sums of a validation are not kept

    predict = words("predict", "--ckpt_path", str(trained / "checkpoints/last.ckpt"), *BOTH_BRANCHES, stage="edges")
    assert main(predict) == 0
    folder = trained.parent / "edges/edges"
    assert sorted(p.stem for p in folder.iterdir()) == sorted(s.id for s in index(world, "train"))
    with np.load(next(folder.iterdir()), allow_pickle=False) as arrays:
        assert {n: (arrays[n].shape, arrays[n].dtype) for n in arrays.files} == {
            "edge": ((32, 32), np.float32),
            "displacement": ((2, 32, 32), np.float32),
        }
    assert main(predict) == 0
    assert "up to date" in capsys.readouterr().err


def test_each_branch_learns_at_its_rate(words, tmp_path):
    settings = {"lr": 0.3, "displacement_lr": 0.05, "momentum": 0.7, "weight_decay": 0.002, "power": 0.5}
    flags = [word for key, value in settings.items() for word in (f"--model.init_args.{key}", str(value))]
    assert main(words("fit", *BOTH_BRANCHES, *flags, "--trainer.limit_val_batches", "1")) == 0
    saved = checkpoint(tmp_path / "runs/mini-sfc/seed0/irn")
    groups, task = saved["optimizer_states"][0]["param_groups"], IRN(**SMALL, displacement=True)
    parts = (task.net.edge, task.net.displacement)
    for group, part, rate in zip(groups, parts, (0.3, 0.05), strict=True):
        assert len(group["params"]) == len(list(part.parameters()))
        # three steps of three: the last rate stays
        assert (group["initial_lr"], group["lr"]) == (rate, pytest.approx(rate * (1 / 3) ** 0.5))
        assert (group["momentum"], group["weight_decay"]) == (0.7, 0.002)


def test_training_moves_the_heads_and_nothing_else(words, tmp_path, monkeypatch):
    starts = {}
    hook = IRN.on_fit_start

    def remember(self):
        hook(self)
        starts.update({n: t.clone() for n, t in self.state_dict().items()})

    monkeypatch.setattr(IRN, "on_fit_start", remember)
    assert main(words("fit")) == 0
    state = checkpoint(tmp_path / "runs/mini-sfc/seed0/irn")["state_dict"]
    changed = {name for name, value in state.items() if not torch.equal(value, starts[name])}
    assert changed == {name for name in state if name.startswith("net.edge.")}


def test_resumed_fit_equals_uninterrupted_fit(words, tmp_path, monkeypatch):
    """Three steps an epoch: stopped after step 4 of 6, behind the first validation."""
    extra, reads = [*BOTH_BRANCHES, "--trainer.max_steps", "6", "--run.save_every", "2"], []
    monkeypatch.setattr("frugalseg.stages.irn.task.load_backbone_weights", lambda *given: reads.append(given[1]))
    assert main(words("fit", *extra, "--run.name", "whole")) == 0
    step = IRN.training_step

    def unplug(self, batch, batch_idx):
        if self.global_step == 5:
            raise Unplugged
        return step(self, batch, batch_idx)

    monkeypatch.setattr(IRN, "training_step", unplug)
    with pytest.raises(Unplugged):
        main(words("fit", *extra, "--run.name", "stopped"))
    whole, stopped = (tmp_path / f"runs/mini-sfc-{name}/seed0/irn" for name in ("whole", "stopped"))
    assert checkpoint(stopped)["global_step"] == 4
    monkeypatch.setattr(IRN, "training_step", step)
    torch.manual_seed(999)
    assert main(words("fit", *extra, "--run.name", "stopped")) == 0
    assert reads == [None, None]  # a resumed fit has its weights in the checkpoint
    states = [checkpoint(folder)["state_dict"] for folder in (whole, stopped)]
    assert [n for n, value in states[0].items() if not torch.equal(value, states[1][n])] == []
    scores = [json.loads((folder / "metrics.json").read_text())["val/boundary_ap"] for folder in (whole, stopped)]
    assert scores[0] == scores[1]


def test_bf16_keeps_losses_in_float32(words, monkeypatch):
    seen = []
    losses = IRN.losses

    def watch(self, image, mask):
        terms = losses(self, image, mask)
        seen.append({value.dtype for value in terms})
        return terms

    monkeypatch.setattr(IRN, "losses", watch)
    assert main(words("fit", *BOTH_BRANCHES, "--trainer.precision", "bf16-mixed")) == 0
    assert seen == [{torch.float32}] * 3


def test_mean_shift_is_the_mean_over_the_validation_split(world, seeds):
    """Found with any shift in force, and subtracted it leaves a mean of zero."""
    data = VOC(root=world, recipe=Segment(crop=64), val_split="train", num_workers=0, pseudo_labels=seeds)
    task = IRN(**SMALL, displacement=True)
    task.net.displacement.mean_shift.copy_(torch.tensor([3.0, -1.0]))
    trainer = Trainer(accelerator="cpu", logger=False, enable_progress_bar=False, enable_checkpointing=False,
                      enable_model_summary=False, use_distributed_sampler=False)  # fmt: skip
    trainer.validate(task, data, verbose=False)
    with torch.no_grad():  # training goes on: what it was before is not averaged in
        task.net.displacement.fc_dp7[3].weight.mul_(2)
    trainer.validate(task, data, verbose=False)
    task.eval()
    with torch.no_grad():
        raw = torch.stack([task.net(b["image"]).displacement.mean((0, 2, 3)) for b in data.val_dataloader()])
    assert len(raw) == 12
    torch.testing.assert_close(raw.mean(0), torch.zeros(2), atol=1e-5, rtol=0)
    assert raw.abs().max() > 1e-3


def test_a_radius_that_does_not_fit_is_told_in_one_line(words, capsys):
    assert main(words("fit", "--model.init_args.radius", "40")) == 2
    message = capsys.readouterr().err
    assert "model.init_args.radius" in message and "data.recipe.crop" in message and "Traceback" not in message


def test_missing_seed_labels_are_mentioned(world, caplog):
    data = VOC(root=world, recipe=Segment(crop=64), num_workers=0, batch_size=4)
    trainer = Trainer(accelerator="cpu", logger=False, enable_progress_bar=False, enable_checkpointing=False,
                      enable_model_summary=False, use_distributed_sampler=False, max_steps=1, limit_val_batches=0)  # fmt: skip
    trainer.fit(IRN(**SMALL, displacement=True), data)
    assert "learned from the benchmark's own masks" in caplog.text and "the mean shift stays 0" in caplog.text


def test_the_full_size_files_fit_their_classes():
    config = yaml.safe_load((EXPERIMENTS / "sfc/voc/irn.yaml").read_text())
    recipe = config["data"]["init_args"]["recipe"]
    assert isinstance(Segment(**recipe["init_args"]), Segment)
    assert set(config["model"]["init_args"]) <= set(IRN.__init__.__annotations__)
    overlay = yaml.safe_load((EXPERIMENTS / "sfc/voc/edges.yaml").read_text())
    assert MultiScale(**overlay["data"]["init_args"]["predict_recipe"]["init_args"]).scales == [1.0]
