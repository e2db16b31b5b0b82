"""`frugalseg.load` of what a chain has trained gives, image by image, the files that the chain's next stage writes."""

import json

import numpy as np
import pytest
from PIL import Image

import frugalseg
from frugalseg.cli import main
from frugalseg.data.voc import class_table
from tests.integration.conftest import EXPERIMENTS


def fitted(words, tmp_path, stage):
    assert main(words("fit", stage=stage)) == 0
    return tmp_path / "runs/mini-sfc/seed0" / stage / "checkpoints" / "last.ckpt"


def settings(run, read_yaml):
    config = read_yaml(run / "config.yaml")
    return config["data"]["init_args"]["predict_recipe"]["init_args"]["scales"], config["model"]["init_args"]


def test_masks_of_the_segmenter(words, world, tmp_path, read_yaml):
    checkpoint = fitted(words, tmp_path, "segment")
    overlay = ["--config", str(EXPERIMENTS / "miniature/sfc/predict.yaml"), "--model.init_args.inference.crf", "false"]
    masks = ["--trainer.callbacks", "frugalseg.callbacks.MaskWriter", "--trainer.callbacks.folders", "[masks]"]
    more = ["--ckpt_path", str(checkpoint), "--data.init_args.limit", "3", *overlay, *masks]
    assert main(words("predict", *more, stage="segment")) == 0
    run = next(checkpoint.parents[2].glob("predict*"))
    scales, model = settings(run, read_yaml)
    files = sorted((run / "masks").glob("*.png"))
    assert len(files) == 3 and len(scales) > 1
    net = frugalseg.load(checkpoint)
    assert net.class_names == class_table(world).names
    # tasks are imported when they are asked for, and are called as before
    record = json.loads((checkpoint.parents[1] / "provenance.json").read_text())
    assert record["identity"]["model"]["class_path"] == "frugalseg.stages.deeplab.DeepLab"
    for file in files:
        image = world / "JPEGImages" / f"{file.stem}.jpg"
        mask = net(image, scales=scales, flip=model["inference"]["mirror"])
        assert np.array_equal(np.asarray(Image.open(file)), mask)
    # and from a package, in which there is no run folder any more
    assert main(["package", str(checkpoint), "--out", str(tmp_path / "package"), "--scores", str(run.parent)]) == 2
    assert main(["package", str(checkpoint), "--out", str(tmp_path / "package")]) == 0
    again = frugalseg.load(tmp_path / "package")
    assert np.array_equal(again(image, scales=scales, flip=True), mask)
    assert again.class_names == net.class_names and np.array_equal(again.palette, net.palette)


@pytest.mark.parametrize("kind", ["m0", "mw", "mp"])
def test_maps_of_the_classifier(words, world, tmp_path, kind, request):
    root = request.getfixturevalue("tmp_path_factory").getbasetemp() / "classifier"
    if not root.exists():
        checkpoint = fitted(words, tmp_path, "classify")
        assert main(words("predict", "--ckpt_path", str(checkpoint), "--data.init_args.limit", "3", cam=True)) == 0
        checkpoint.parents[2].rename(root)
    net = frugalseg.load(root / "classify" / "checkpoints" / "last.ckpt")
    net.rule = kind
    files = sorted((root / "cam" / "maps").glob("*.npz"))
    assert len(files) == 3
    for file in files:
        with np.load(file, allow_pickle=False) as written:
            names = [net.class_names[key] for key in written["keys"][1:]]
            maps = net.maps(world / "JPEGImages" / f"{file.stem}.jpg", names)
            assert list(maps) == written["keys"].tolist()
            assert np.array_equal(np.stack(list(maps.values())).astype(np.float16), written[kind])
