"""Masks of segmentation nets: those of their tasks, whatever is asked beside them."""

import dataclasses
import json
import logging

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn import functional as F

import frugalseg
from frugalseg.data import MultiScale
from frugalseg.data.base import Sample
from frugalseg.errors import CheckpointError, ConfigError, ImageError
from frugalseg.nn.inputs import padded
from frugalseg.ops.palette import voc_palette
from frugalseg.stages.deeplab import Inference
from frugalseg.stages.finetune.inference import predict
from tests.predictor.nets import CLASSES, MEAN, NAMES, SEGMENTERS, STD, make, normalised, picture, write

DEEPLABS = [name for name in SEGMENTERS if "finetune" not in name and "probe" not in name]
ODD = (70, 51)


@pytest.fixture(scope="module")
def tasks():
    return {name: make(name) for name in SEGMENTERS}


@pytest.fixture(scope="module")
def predictors(tasks, tmp_path_factory):
    root = tmp_path_factory.mktemp("runs")
    return {name: frugalseg.load(write(root / name, name, task)) for name, task in tasks.items()}


def logits_of(task, image):
    """(1, K, H, W): what the task's validation compares with masks, at the pixels of the image."""
    batch = normalised(image)
    with torch.no_grad():
        if hasattr(task, "passes"):
            found = task.net(batch)
        elif hasattr(task, "testing"):
            found = predict(task.net, batch, task.net.backbone.multiple, task.testing)
        else:
            found = task.logits({"image": batch})
        return F.interpolate(found, size=image.shape[:2], mode="bilinear", align_corners=False)


@pytest.mark.parametrize("name", SEGMENTERS)
def test_logits_and_masks_are_the_tasks(tasks, predictors, name):
    found, image = predictors[name], picture(*ODD)
    expected = logits_of(tasks[name], image)
    torch.testing.assert_close(found.logits(normalised(image)), expected, rtol=0, atol=2e-4)
    mask = found(image)
    assert mask.shape == ODD and mask.dtype == np.uint8 and len(np.unique(mask)) > 1
    best, second = expected[0].topk(2, dim=0).values
    clear = (best - second).numpy() > 1e-3
    assert clear.mean() > 0.9 and (mask == expected[0].argmax(0).numpy())[clear].all()


@pytest.mark.parametrize("name", SEGMENTERS)
def test_what_is_known_of_a_segmenter(predictors, name):
    found = predictors[name]
    assert (found.kind, found.class_names, found.num_classes) == ("segmenter", NAMES, CLASSES)
    assert found.mean == tuple(MEAN) and found.std == tuple(STD)
    assert np.array_equal(found.palette, voc_palette())
    # windows may begin at its multiples: of the image's own grid too
    whole = torch.zeros(1, 3, 2 * found.multiple, 2 * found.multiple)
    assert found.logits(whole).shape == (1, CLASSES, *whole.shape[-2:])


def predicted(task, image, folder, scales, inference):
    """What `frugalseg predict` writes: the task's own step on the recipe's own item."""
    file = folder / "image.png"
    Image.fromarray(image).save(file)
    recipe = MultiScale(tuple(scales), tuple(MEAN), tuple(STD))
    batch = recipe.collate([recipe.evaluation_item(Sample("image", file, None, None), CLASSES)])
    task.inference, task.passes.overlap = inference, inference.overlap
    task.passes.window, task.passes.max_pixels = inference.window, inference.max_pixels
    with torch.no_grad():
        return {key: value.numpy() for key, value in task.predict_step(batch, 0)["masks"].items()}


@pytest.mark.parametrize(
    ("scales", "settings"),
    [
        ([1.0], {"mirror": False}),
        ([1.0, 0.5, 1.5], {"mirror": True}),
        ([0.75, 1.25], {"mirror": False, "merge": "max", "of": "logits", "crf": True}),
        ([1.0], {"mirror": True, "window": 48, "overlap": 0.25}),
    ],
)
@pytest.mark.parametrize("name", ["largefov", "v3plus"])
def test_masks_are_those_of_predict_byte_for_byte(tasks, predictors, tmp_path, name, scales, settings):
    found, image, inference = predictors[name], picture(*ODD, seed=3), Inference(**settings)
    expected = predicted(tasks[name], image, tmp_path, scales, inference)
    before, found.inference = found.inference, inference
    try:
        mask = found(image, scales=scales, flip=inference.mirror)
    finally:
        found.inference = before
    assert np.array_equal(mask, expected["masks-crf" if inference.crf else "masks"])
    assert inference.crf or not np.array_equal(mask, predictors["v2"](image))


@pytest.mark.parametrize("name", ["largefov", "probe-l"])
def test_many_images_of_any_sizes(predictors, name):
    found = predictors[name]
    images = [picture(40, 36), picture(64, 50, 1), picture(40, 36, 2), picture(40, 36, 3), picture(1, 90, 4)]
    alone = [found(image) for image in images]
    assert all(np.array_equal(a, b) for a, b in zip(found.masks(images, batch_size=1), alone, strict=True))
    together = found.masks(tuple(images), batch_size=2)
    assert [mask.shape for mask in together] == [image.shape[:2] for image in images]
    # rounding may decide between classes that are as good as equal
    assert all((a == b).mean() > 0.99 for a, b in zip(together, alone, strict=True))
    assert found.masks([]) == []


def test_probabilities_sum_to_one_and_their_largest_is_the_mask(predictors):
    found, image = predictors["v2"], picture(*ODD)
    values = found.probabilities(image, scales=(1.0, 0.5), flip=True)
    assert values.shape == (CLASSES, *ODD) and np.allclose(values.sum(axis=0), 1, atol=1e-5)
    assert np.array_equal(values.argmax(axis=0), found(image, scales=(1.0, 0.5), flip=True))


@pytest.mark.parametrize("name", ["finetune", "probe-m", "probe-l"])
def test_dense_features_are_the_backbones(tasks, predictors, name):
    task, image = tasks[name], picture(*ODD)
    backbone = task.net.backbone if name == "finetune" else task.backbone
    with torch.no_grad():
        whole = backbone(padded(normalised(image), backbone.multiple))
    whole = whole[0] if isinstance(whole, tuple) else whole
    stride = -(-ODD[0] // backbone.multiple) * backbone.multiple // whole.shape[-2]
    expected = whole[0, :, : -(-ODD[0] // stride), : -(-ODD[1] // stride)]
    torch.testing.assert_close(predictors[name].features(image), expected, rtol=0, atol=1e-4)


def test_a_net_without_dense_features_says_what_it_can(predictors):
    for name in ("largefov", "finetune-upernet"):
        with pytest.raises(CheckpointError, match="gives no dense features, but masks: "):
            predictors[name].features(picture(64, 64))


@pytest.mark.parametrize(
    ("words", "error", "reason"),
    [
        ({"tags": ["bird"]}, ConfigError, "leave tags and supports out"),
        ({"supports": []}, ConfigError, "leave tags and supports out"),
        ({"scales": ()}, ConfigError, "one or more numbers above 0"),
        ({"scales": (1.0, 0.0)}, ConfigError, "one or more numbers above 0"),
    ],
)
def test_what_a_segmenter_does_not_take(predictors, words, error, reason):
    with pytest.raises(error, match=reason) as caught:
        predictors["largefov"](picture(8, 8), **words)
    assert "\n" not in str(caught.value)


def test_images_that_are_none(predictors, tmp_path):
    found, good = predictors["largefov"], picture(8, 8)
    (tmp_path / "text.png").write_text("no image")
    for bad in (tmp_path / "gone.png", tmp_path / "text.png", good[..., :1], good.astype(np.float32), None):
        with pytest.raises(ImageError):
            found(bad)
    with pytest.raises(ImageError, match="image 2 of 2"):
        found.masks([good, good[0]])
    with pytest.raises(ConfigError, match="batch_size is 0"):
        found.masks([good], batch_size=0)
    with pytest.raises(CheckpointError, match="class maps"):
        found.maps(good)


def test_a_checkpoint_outside_of_its_run_knows_no_names(tasks, tmp_path, caplog):
    with caplog.at_level(logging.WARNING, logger="frugalseg"):
        found = frugalseg.load(write(tmp_path, "largefov", tasks["largefov"], record=False))
    assert found.class_names == () and "taking ImageNet's" in caplog.text
    assert found.mean == (0.485, 0.456, 0.406)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        ({"init_args": {"root": "elsewhere"}}, "names 21; going on without"),
        ({"init_args": {"root": "elsewhere", "what": 1}}, "do not say how"),
        ({"class_path": "frugalseg.data.Nothing"}, ""),
        ({"class_path": "os.system"}, ""),
        ({"class_path": "frugalseg.data.io.read_image"}, ""),
    ],
)
def test_data_that_do_not_name_these_classes(tasks, tmp_path, caplog, data, reason):
    path = write(tmp_path, "largefov", tasks["largefov"])
    record = json.loads((tmp_path / "provenance.json").read_text())
    record["identity"]["data"] |= data
    (tmp_path / "provenance.json").write_text(json.dumps(record))
    with caplog.at_level(logging.WARNING, logger="frugalseg"):
        found = frugalseg.load(path)
    assert found.class_names == () and found(picture(9, 9)).shape == (9, 9)
    assert reason in caplog.text


def test_settings_of_the_run_decide_how_passes_are_merged(tasks, tmp_path):
    path = write(tmp_path, "largefov", tasks["largefov"])
    record = json.loads((tmp_path / "provenance.json").read_text())
    wanted = Inference(merge="max", of="logits", window=64)
    record["identity"]["model"] = {"init_args": {"inference": dataclasses.asdict(wanted)}}
    (tmp_path / "provenance.json").write_text(json.dumps(record))
    assert frugalseg.load(path).inference == wanted
