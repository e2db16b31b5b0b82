"""`frugalseg segment` against `frugalseg predict`: the same checkpoint gives the same class ids, pixel by pixel."""

import json

import numpy as np
import pytest
import torch
from PIL import Image

from frugalseg.cli import main
from frugalseg.data.voc import NAMES, index
from tests.integration.conftest import EXPERIMENTS

CONFIGS = ["_base/trainer.yaml", "miniature/sfc/segment.yaml", "_base/cpu.yaml"]
NO_CRF = ("--model.init_args.inference.crf", "false")


def words(command, root, runs, *extra, configs=()):
    """A command line of the miniature segmenter, of a few steps."""
    settings = {
        "trainer.max_steps": 4,
        "trainer.val_check_interval": 4,
        "trainer.limit_val_batches": 1,
        "run.root": runs,
        "data.init_args.root": root,
        "data.init_args.batch_size": 4,
        "data.init_args.train_split": "train",
        "data.init_args.limit": 60,
    }
    files = [word for name in (*CONFIGS[:2], *configs, CONFIGS[2]) for word in ("--config", str(EXPERIMENTS / name))]
    return [command, *files, *[w for key, value in settings.items() for w in (f"--{key}", str(value))], *extra]


def shuffle_classes(checkpoint):
    """Draw the last layer anew: after so few steps a net sees background alone, and any two nets would agree."""
    content = torch.load(checkpoint, weights_only=True)
    kernels = [name for name, tensor in content["state_dict"].items() if name.endswith("weight") and tensor.ndim == 4]
    last = content["state_dict"][kernels[-1]]
    last.normal_(generator=torch.Generator().manual_seed(0)).sub_(last.mean(dim=1, keepdim=True))
    torch.save(content, checkpoint)


def trained(root, runs):
    """A checkpoint."""
    assert main(words("fit", root, runs)) == 0
    checkpoint = runs / "mini-sfc/seed0/segment/checkpoints/last.ckpt"
    shuffle_classes(checkpoint)
    return checkpoint


def predicted(checkpoint, root, runs, scales, mirror):
    """The folder of masks that `frugalseg predict` writes."""
    extra = ["--data.init_args.predict_recipe.init_args.scales", scales, "--model.init_args.inference.mirror", mirror]
    extra += ["--run.stage", f"predict-{mirror}"]
    extra += ["--ckpt_path", str(checkpoint), *NO_CRF, "--trainer.callbacks.init_args.folders", "[masks]"]
    assert main(words("predict", root, runs, *extra, configs=["miniature/sfc/predict.yaml"])) == 0
    return runs / f"mini-sfc/seed0/predict-{mirror}/masks"


def compare(out, masks, samples):
    """Every mask of both is equal in size, ids and colours; every image has its files; areas are whole."""
    content = json.loads((out / "areas.json").read_text())
    assert set(content["images"]) >= {sample.id for sample in samples}
    for sample in samples:
        entry = content["images"][sample.id]
        with Image.open(out / entry["mask"]) as ours, Image.open(masks / f"{sample.id}.png") as theirs:
            assert ours.size == theirs.size and ours.mode == theirs.mode == "P"
            assert ours.getpalette() == theirs.getpalette()
            ids = np.asarray(ours)
            assert ids.tobytes() == np.asarray(theirs).tobytes(), sample.id
        with Image.open(sample.image) as image, Image.open(out / entry["overlay"]) as overlay:
            assert image.size == (ids.shape[1], ids.shape[0]) and overlay.width == image.width
        assert (entry["height"], entry["width"]) == ids.shape
        assert sum(area["pixels"] for area in entry["areas"]) == ids.size
    assert len(content["totals"]["areas"]) >= 3
    return content


def test_masks_are_those_of_predict(world, tmp_path):
    checkpoint, samples = trained(world, tmp_path / "runs"), index(world, "val")
    for mirror, scales, given in (("false", "[1.0]", []), ("true", "[1.0, 0.75]", ["--scales", "1", "0.75", "--flip"])):
        masks, out = predicted(checkpoint, world, tmp_path / "runs", scales, mirror), tmp_path / mirror
        where = ["--checkpoint", str(checkpoint), "--out", str(out), "--device", "cpu", *given]
        assert main(["segment", *[str(sample.image) for sample in samples], *where]) == 0
        assert compare(out, masks, samples)["totals"]["images"] == len(samples) == len(list(masks.iterdir()))


@pytest.mark.real
@pytest.mark.slow
def test_the_real_validation_images(real_voc, tmp_path):
    """All of them get masks, overlays and areas; scores of a net of four steps would mean nothing."""
    checkpoint, samples = trained(real_voc, tmp_path / "runs"), index(real_voc, "val")
    masks = predicted(checkpoint, real_voc, tmp_path / "runs", "[1.0]", "false")
    out = ["--checkpoint", str(checkpoint), "--out", str(tmp_path / "out"), "--device", "cpu"]
    assert main(["segment", *[str(sample.image) for sample in samples], *out]) == 0
    content = compare(tmp_path / "out", masks, samples)
    assert len(samples) == 60 == content["totals"]["images"] == len(list(masks.iterdir()))
    assert content["model"]["class_names"] == list(NAMES)
    pixels = sum(area["pixels"] for area in content["totals"]["areas"])
    assert pixels == content["totals"]["pixels"] == sum(e["height"] * e["width"] for e in content["images"].values())
