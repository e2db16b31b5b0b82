"""The segmenter through the command line: pseudo labels, resume, masks, bad input."""

import json

import numpy as np
import pytest
import torch
from PIL import Image

from frugalseg.cli import main
from frugalseg.data.io import made_by, read_mask
from frugalseg.data.voc import index
from frugalseg.ops.palette import voc_palette
from frugalseg.stages.deeplab import DeepLab, Inference
from tests.ops import oracles
from tests.stages.deeplab.conftest import CLASSES

FROZEN = ["--model.init_args.frozen_norm=true"]
"""Whatever the miniature has; with it the outcome of a step does not depend on how images are put into batches."""


class Unplugged(Exception):
    pass


def state(folder):
    return torch.load(folder / "checkpoints/last.ckpt", weights_only=True)


@pytest.fixture
def refused(capsys):
    def check(words, *parts):
        capsys.readouterr()
        assert main(words) == 2
        (line,) = [x for x in capsys.readouterr().err.splitlines() if x.startswith("frugalseg: error:")]
        for part in parts:
            assert str(part) in line, line

    return check


def test_it_trains_on_the_pseudo_labels(trained, labels):
    assert len(trained.seen) == 12
    for name, mask in trained.seen.items():
        assert np.array_equal(mask.numpy(), read_mask(labels / f"{name}.png", CLASSES))
    metrics = json.loads((trained.run / "segment/metrics.json").read_text())
    assert 0 <= metrics["val/miou"] <= 1 and metrics["train/loss"] > 0
    assert len(list((trained.run / "segment/pictures").glob("*.png"))) == 4


def test_masks_are_palette_pngs_with_class_ids(trained, world):
    assert main(trained.predict("masks")) == 0
    digest = json.loads((trained.run / "masks/provenance.json").read_text())["digest"]
    for folder in ("masks", "masks-crf"):
        files = sorted((trained.run / "masks" / folder).iterdir())
        assert [p.stem for p in files] == [s.id for s in index(world, "val")]
        for path in files:
            with Image.open(path) as mask:
                assert mask.mode == "P" and mask.size == (64, 64)
                assert np.array_equal(np.reshape(mask.getpalette(), (-1, 3)), voc_palette())
            read_mask(path, CLASSES, (64, 64))
            assert made_by(path) == digest


def test_validation_counts_every_pixel_once(trained, world):
    """The log's mIoU against masks of one scale without the mirror image, counted by the loops of the oracle."""
    alone = "--data.init_args.predict_recipe.init_args.scales=[1.0]", "--model.init_args.inference.mirror=false"
    assert main(trained.predict("alone", *alone)) == 0
    counts = np.zeros((CLASSES, CLASSES), np.int64)
    for sample in index(world, "val"):
        guess = read_mask(trained.run / f"alone/masks/{sample.id}.png", CLASSES)
        counts += oracles.confusion(guess, read_mask(sample.mask, CLASSES), CLASSES)
    scores = [s for s in oracles.iou(counts) if s is not None]
    assert json.loads((trained.run / "segment/metrics.json").read_text())["val/miou"] == pytest.approx(np.mean(scores))
    assert main(trained.words("validate", "--ckpt_path", str(trained.checkpoint))) == 0
    with np.load(trained.run / "segment-validate/confusion.npz") as archive:
        assert np.array_equal(archive["segment"], counts)


def test_a_resumed_fit_equals_an_uninterrupted_one(words, tmp_path, monkeypatch):
    """With dropout, several scales and accumulated gradients; stopped inside the second epoch of three steps."""
    extra = [
        "--trainer.max_steps=5", "--trainer.accumulate_grad_batches=2", "--trainer.limit_val_batches=1",
        "--model.init_args.train_scales=[1.0,0.5]", "--model.init_args.head_options={hidden: [8], dropout: 0.5}",
        "--data.init_args.batch_size=2",
    ]  # fmt: skip
    reads = []
    monkeypatch.setattr("frugalseg.stages.deeplab.task.load_backbone_weights", lambda *given: reads.append(given[1]))
    assert main(words("fit", *extra, "--run.name", "whole")) == 0
    step = DeepLab.training_step

    def unplug(self, batch, batch_idx):
        if self.global_step == 4:
            raise Unplugged
        return step(self, batch, batch_idx)

    monkeypatch.setattr(DeepLab, "training_step", unplug)
    with pytest.raises(Unplugged):
        main(words("fit", *extra, "--run.name", "stopped"))
    folder = tmp_path / "runs/mini-sfc-stopped/seed0/segment"
    assert state(folder)["global_step"] == 4
    monkeypatch.setattr(DeepLab, "training_step", step)
    torch.manual_seed(999)
    assert main(words("fit", *extra, "--run.name", "stopped")) == 0
    assert reads == [None, None]  # a resumed fit has its weights in the checkpoint
    whole, resumed = state(tmp_path / "runs/mini-sfc-whole/seed0/segment"), state(folder)
    assert whole["global_step"] == resumed["global_step"] == 5
    assert [n for n, t in whole["state_dict"].items() if not torch.equal(t, resumed["state_dict"][n])] == []


@pytest.mark.slow
def test_accumulated_gradients_are_those_of_one_large_batch(words, world, tmp_path):
    """Frozen normalisation, every pixel labelled: two halves of a batch are the batch."""
    true = world / "SegmentationClass"
    extra = ["--trainer.max_steps=1", f"--data.init_args.pseudo_labels={true}", *FROZEN, "--model.init_args.lr=0.1"]
    assert main(words("fit", *extra, "--data.init_args.batch_size=4", "--run.name", "one")) == 0
    halves = ["--data.init_args.batch_size=2", "--trainer.accumulate_grad_batches=2"]
    assert main(words("fit", *extra, *halves, "--run.name", "two")) == 0
    one, two = (state(tmp_path / f"runs/mini-sfc-{n}/seed0/segment")["state_dict"] for n in ("one", "two"))
    for name, tensor in one.items():
        torch.testing.assert_close(two[name], tensor, rtol=1e-3, atol=1e-5)
    # rounding differs, so two computations were compared
    assert any(not torch.equal(tensor, two[name]) for name, tensor in one.items())


def test_weights_are_read_when_a_fit_begins(trained, words, tmp_path):
    still = [
        *FROZEN,
        "--model.init_args.lr=0.0",
        f"--model.init_args.weights={trained.checkpoint}",
        "--seed_everything=7",
    ]
    assert main(words("fit", *still, "--trainer.max_steps=1", "--trainer.limit_val_batches=1")) == 0
    before = state(trained.run / "segment")["state_dict"]
    after = state(tmp_path / "runs/mini-sfc/seed7/segment")["state_dict"]
    backbone = [n for n in before if n.startswith("net.backbone.") and "num_batches" not in n]
    assert len(backbone) > 20 and all(torch.equal(before[n], after[n]) for n in backbone)
    assert not all(torch.equal(before[n], after[n]) for n in before if n.startswith("net.head."))


def test_an_image_beyond_the_limit_goes_in_tiles_and_says_so(trained, caplog):
    limit = "--model.init_args.inference.max_pixels=6000", "--data.init_args.limit=2"
    scales = "--data.init_args.predict_recipe.init_args.scales=[1.0,2.0]"
    assert main(trained.predict("tiles", *limit, scales)) == 0
    lines = [r.getMessage() for r in caplog.records if "going on in tiles" in r.getMessage()]
    assert len(lines) == 2 and all("128 x 128 pixels at scale 2 need" in line for line in lines)
    assert len(list((trained.run / "tiles/masks").glob("*.png"))) == 2


def test_interrupted_predictions_continue_with_what_is_missing(trained, monkeypatch):
    predict, step, made = trained.predict("stopped"), DeepLab.predict_step, []

    def stop(self, batch, batch_idx):
        made.append(batch["id"][0])
        if len(made) == 3:
            raise Unplugged
        return step(self, batch, batch_idx)

    monkeypatch.setattr(DeepLab, "predict_step", stop)
    with pytest.raises(Unplugged):
        main(predict)
    assert main(predict) == 0
    assert made[3] == made[2] and len(made) == 5


def test_bad_input(trained, words, refused, tmp_path):
    torch.save({"conv1.0.weight": torch.zeros(8, 3, 3, 3)}, tmp_path / "weights.pth")
    refused(words("fit", "--model.init_args.weights", str(tmp_path / "weights.pth")), "weights.pth", "match")
    refused(words("fit", "--model.init_args.head_options", "{rates: [1]}"), "rates", "largefov")
    refused(words("fit", "--model.init_args.inference.overlap=2.0"), "inference.overlap")
    refused(words("fit", "--data.init_args.pseudo_labels", str(tmp_path / "labels")), "labels", "pseudo labels")
    refused(trained.predict("bare", "--model.init_args.inference.crf=false"), "masks-crf")


def test_pooled_features_of_a_single_image(words, refused):
    options = "--model.init_args.head_options={width: 4, low_width: 2}", "--data.init_args.batch_size=1"
    refused(words("fit", "--model.init_args.head=v3plus", *options), "batch_size", "v3plus")


@pytest.mark.slow
def test_mixed_precision_predicts_the_same(words, tmp_path):
    """Half precision in the net, float32 in softmax, merging and CRF: nearly every pixel keeps its class."""
    assert main(words("fit", "--trainer.max_steps=40", "--trainer.val_check_interval=3")) == 0
    run = tmp_path / "runs/mini-sfc/seed0"
    given = words("predict", "--ckpt_path", str(run / "segment/checkpoints/last.ckpt"))
    assert main(given) == 0
    assert main([*given, "--trainer.precision=bf16-mixed", "--run.stage=half"]) == 0
    pairs = [(p, run / "predict-val/masks" / p.name) for p in (run / "half/masks").iterdir()]
    assert len(pairs) == 4
    assert np.mean([np.mean(read_mask(a, CLASSES) == read_mask(b, CLASSES)) for a, b in pairs]) > 0.97


def test_inference_is_no_part_of_the_checkpoint():
    """A stage predicts with its own settings; and only plain values can be read back without running code."""
    small = {"layers": [1, 1, 1, 1], "channels": [8, 8, 8, 8]}
    task = DeepLab(3, "resnet18", None, backbone_options=small, inference=Inference("max"))
    assert "inference" not in task.hparams
    batch = {
        "id": ["a"],
        "images": [torch.rand(2, 3, 40, 57)],
        "size": (40, 57),
        "pixels": torch.zeros(40, 57, 3, dtype=torch.uint8),
    }
    with torch.no_grad():
        found = task.eval().predict_step(batch, 0)
    assert found["id"] == "a" and list(found["masks"]) == ["masks"]
    assert found["masks"]["masks"].shape == (40, 57) and found["masks"]["masks"].dtype == torch.uint8
