"""Masks of what supports show."""

import cv2
import numpy as np
import pytest
import torch
from PIL import Image

import frugalseg
from frugalseg.errors import CheckpointError, ConfigError, ImageError, MaskError
from tests.predictor.nets import FEW_SHOT, make, normalised, picture, write

SIDE = 64


def disc(height, width, ignored=False):
    rows, columns = np.ogrid[:height, :width]
    mask = ((rows - height / 2) ** 2 + (columns - width / 2) ** 2 < (min(height, width) / 3) ** 2).astype(np.uint8)
    if ignored:
        mask[:4] = 255
    return mask


@pytest.fixture(scope="module")
def tasks():
    return {name: make(name) for name in FEW_SHOT}


@pytest.fixture(scope="module")
def predictors(tasks, tmp_path_factory):
    root = tmp_path_factory.mktemp("runs")
    return {name: frugalseg.load(write(root / name, name, task)) for name, task in tasks.items()}


def episode(query, supports):
    """A batch of one episode of images that are `SIDE` square already."""
    return {
        "id": ["q"],
        "query_image": normalised(query),
        "query_mask": torch.zeros(1, SIDE, SIDE, dtype=torch.int64),
        "support_images": torch.stack([normalised(image)[0] for image, _ in supports])[None],
        "support_masks": torch.stack([torch.from_numpy(mask.astype(np.int64)) for _, mask in supports])[None],
        "support_id": [[f"s{number}" for number in range(len(supports))]],
        "class_id": torch.tensor([1]),
        "number": torch.tensor([0]),
    }


@pytest.mark.parametrize("shots", [1, 3])
@pytest.mark.parametrize("name", FEW_SHOT)
def test_the_answer_is_that_of_the_tasks_evaluation(tasks, predictors, name, shots):
    query = picture(SIDE, SIDE)
    supports = [(picture(SIDE, SIDE, seed), disc(SIDE, SIDE, ignored=seed == 1)) for seed in range(1, shots + 1)]
    with torch.no_grad():
        expected = tasks[name].answer(episode(query, supports)).logits[0]
    mask = predictors[name](query, supports=supports)
    assert mask.shape == (SIDE, SIDE) and set(np.unique(mask).tolist()) == {0, 1}
    first, second = expected
    clear = (first - second).abs().numpy() > 1e-4
    assert clear.mean() > 0.99 and (mask == expected.argmax(dim=0).numpy())[clear].all()


def test_images_of_other_sizes_are_brought_to_the_tasks(predictors):
    found, query, support = predictors["dsmf"], picture(90, 128), picture(40, 64, 1)
    mask = found(query, supports=[(support, disc(40, 64))])
    assert mask.shape == (90, 128) and found.size == SIDE
    small = cv2.resize(query, (64, 45), interpolation=cv2.INTER_LINEAR)
    canvas = np.full((SIDE, SIDE), 255, np.uint8)
    canvas[:40] = disc(40, 64)
    images = [normalised(np.zeros((SIDE, SIDE, 3), np.uint8)) * 0 for _ in range(2)]
    images[0][..., :45, :] = normalised(small)
    images[1][..., :40, :] = normalised(support)
    with torch.no_grad():
        scores = found.net(images[0], images[1], torch.from_numpy(canvas.astype(np.int64))[None])[..., :45, :]
    full = torch.nn.functional.interpolate(scores, size=(90, 128), mode="bilinear", align_corners=False)[0]
    clear = (full[0] - full[1]).abs().numpy() > 1e-3
    assert clear.mean() > 0.9 and (mask == full.argmax(dim=0).numpy())[clear].all()


def test_without_a_known_size_images_are_as_large_as_the_one_asked_about(tasks, predictors, tmp_path):
    query, supports = picture(SIDE, 50), [(picture(32, 32, 1), disc(32, 32))]
    unknown = frugalseg.load(write(tmp_path, "dsmf", tasks["dsmf"], record=False))
    assert unknown.size is None
    found = predictors["dsmf"]
    told = frugalseg.load(write(tmp_path / "told", "dsmf", tasks["dsmf"], record=False))
    told.size = SIDE
    assert np.array_equal(unknown(query, supports=supports), told(query, supports=supports))
    assert (found.kind, found.class_names) == ("few-shot", ("background", "foreground"))


def test_masks_are_files_pictures_or_arrays(predictors, tmp_path):
    found, query, image, mask = predictors["dsmf"], picture(SIDE, SIDE), picture(40, 40, 1), disc(40, 40)
    file, support = tmp_path / "mask.png", tmp_path / "image.png"
    Image.fromarray(mask).save(file)
    Image.fromarray(image).save(support)
    wanted = found(query, supports=[(image, mask)])
    for same in (file, str(file), Image.fromarray(mask), mask.astype(bool), mask.astype(np.int64)):
        assert np.array_equal(found(query, supports=[(support, same)]), wanted)


BAD_MASKS = {
    "another size": (np.ones((8, 9), np.uint8), "that of its image"),
    "colours": (np.ones((40, 40, 3), np.uint8), "that of its image"),
    "not whole": (np.ones((40, 40)), "that of its image"),
    "a list": ([[1]], "is list"),
    "class ids": (np.full((40, 40), 7, np.uint8), "holds 7"),
    "empty": (np.zeros((40, 40), np.uint8), "no pixel is 1"),
}


@pytest.mark.parametrize("kind", BAD_MASKS)
def test_masks_that_are_none(predictors, kind):
    mask, reason = BAD_MASKS[kind]
    with pytest.raises(MaskError, match=reason) as caught:
        predictors["dsmf"](picture(64, 64), supports=[(picture(40, 40), disc(40, 40)), (picture(40, 40), mask)])
    assert "support 2" in str(caught.value) and "\n" not in str(caught.value)


def test_what_a_few_shot_net_does_not_take(predictors, tmp_path):
    found, image = predictors["dsmf"], picture(40, 40)
    for words in ({}, {"supports": []}, {"supports": [(image, disc(40, 40))], "tags": ["bird"]}):
        with pytest.raises(ConfigError, match="give supports"):
            found(image, **words)
    with pytest.raises(ConfigError, match="no pair"):
        found(image, supports=[image])
    with pytest.raises(ImageError, match="image of support 1"):
        found(image, supports=[(image[0], disc(40, 40))])
    with pytest.raises(MaskError, match=r"gone\.png"):
        found(image, supports=[(image, tmp_path / "gone.png")])


def test_a_baseline_without_its_threshold(tmp_path):
    task = make("prototype")
    task.threshold.fill_(float("nan"))
    with pytest.raises(CheckpointError, match="no threshold yet"):
        frugalseg.load(write(tmp_path, "prototype", task))
