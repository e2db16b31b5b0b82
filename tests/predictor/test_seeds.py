"""Seed masks and class maps of classifiers."""

import numpy as np
import pytest
import torch
from PIL import Image

import frugalseg
from frugalseg.data import MultiScale
from frugalseg.data.base import Sample
from frugalseg.errors import CheckpointError, ConfigError, ImageError
from frugalseg.ops.cam import RULES
from tests.predictor.nets import CLASSES, MEAN, NAMES, SEEDS, STD, make, picture, write

SIZE = (70, 51)
TAGS = (0, 2)
"""Of the image, from 0: aeroplane and bird."""


@pytest.fixture(scope="module")
def tasks():
    return {name: make(name) for name in SEEDS}


@pytest.fixture(scope="module")
def predictors(tasks, tmp_path_factory):
    root = tmp_path_factory.mktemp("runs")
    return {name: frugalseg.load(write(root / name, name, task)) for name, task in tasks.items()}


def arrays(task, folder, scales):
    """What `frugalseg predict` writes."""
    file = folder / "image.png"
    Image.fromarray(picture(*SIZE)).save(file)
    recipe = MultiScale(tuple(scales), tuple(MEAN), tuple(STD))
    batch = recipe.collate([recipe.evaluation_item(Sample("image", file, None, TAGS), CLASSES)])
    with torch.no_grad():
        return task.predict_step(batch, 0)["arrays"]


@pytest.mark.parametrize("scales", [None, (1.0, 0.75)])
@pytest.mark.parametrize("name", SEEDS)
def test_maps_are_those_of_predict_byte_for_byte(tasks, predictors, tmp_path, name, scales):
    found = predictors[name]
    before = found.scales
    assert before == ((1.0, 0.5, 1.5, 2.0) if name == "sfc" else (1.0,))
    found.scales = scales or before
    try:
        written = arrays(tasks[name], tmp_path, found.scales)
        maps = found.maps(picture(*SIZE), ["aeroplane", 3])
        assert list(maps) == written["keys"].tolist() == [0, 1, 3]
        assert all(each.shape == SIZE and each.dtype == np.float32 for each in maps.values())
        if name == "sfc":
            for rule in ("m0", "mw", "mp"):
                found.rule = rule
                single = found.maps(picture(*SIZE), [1, 3])
                assert np.array_equal(np.stack(list(single.values())).astype(np.float16), written[rule])
        else:
            assert (maps[0] == np.float32(found.threshold)).all()
            assert np.array_equal(np.stack([maps[1], maps[3]]).astype(np.float16), written["cam"][1:])
    finally:
        found.scales = before
        if name == "sfc":
            found.rule = "sum"


@pytest.mark.parametrize("name", SEEDS)
def test_the_mask_is_where_maps_are_largest(predictors, name):
    found, image = predictors[name], picture(*SIZE)
    maps = found.maps(image, ("bird", "aeroplane"))
    rows = np.stack([maps[key] for key in (0, 1, 3)])
    assert np.array_equal(found(image, ["aeroplane", "bird"]), np.array([0, 1, 3])[rows.argmax(axis=0)])
    assert found.kind == "seeds" and found.class_names == NAMES


def test_rules_weigh_the_maps(predictors):
    found, image = predictors["sfc"], picture(*SIZE)
    kinds = {}
    for rule in ("mw", "mp"):
        found.rule = rule
        kinds[rule] = found.maps(image, [2])[2]
    for rule in ("sum", "seed"):
        found.rule = rule
        expected = sum(weight * kinds[kind] for kind, weight in RULES[rule].items())
        np.testing.assert_allclose(found.maps(image, [2])[2], expected, atol=1e-6)
    found.rule = "sum"
    with pytest.raises(ConfigError, match="rule is 'most'"):
        found.rule = "most"
    with pytest.raises(ConfigError, match="one kind of map"):
        predictors["cti"].rule = "sum"


def test_the_background_is_a_threshold_where_maps_bring_none(tasks, predictors, tmp_path):
    found, image = predictors["cti"], picture(*SIZE)
    assert found.threshold == 0.4
    shares = []
    for value in (0.0, 0.3, 1.0):
        found.threshold = value
        shares.append(float((found(image, ["bird"]) == 3).mean()))
    found.threshold = 0.4
    assert shares[0] > shares[1] > shares[2] == 0
    with pytest.raises(ConfigError, match="0 to 1"):
        found.threshold = 1.5
    with pytest.raises(ConfigError, match="bring their own background"):
        predictors["sfc"].threshold = 0.5
    # the run's own validation has found a better one
    scored = frugalseg.load(write(tmp_path, "cti", tasks["cti"], **{"val/threshold": 0.37}))
    assert scored.threshold == 0.37


@pytest.mark.parametrize("name", SEEDS)
def test_tags_that_are_not_given_are_guessed(predictors, name):
    found, image = predictors[name], picture(*SIZE)
    values = found.presence(image)
    assert list(values) == [1, 2, 3] and all(0 < value < 1 for value in values.values())
    before = found.tag_threshold
    for limit in (0.0, sorted(values.values())[1], 1.0):
        found.tag_threshold = limit
        shown = [key for key, value in values.items() if value >= limit]
        maps, given = found.maps(image), found.maps(image, shown)
        assert list(maps) == [0, *shown]
        assert all(np.array_equal(maps[key], given[key]) for key in maps)
    found.tag_threshold = before
    assert (found(image, []) == 0).all()


@pytest.mark.parametrize(
    ("tags", "reason"),
    [
        (["horse"], "no such class; known are aeroplane, bicycle, bird"),
        ("background", "no such class; known"),
        ([0], "ids from 1 to 3"),
        ([4], "ids from 1 to 3"),
        ([True], "ids from 1 to 3"),
    ],
)
def test_tags_that_are_none(predictors, tags, reason):
    with pytest.raises(ConfigError, match=reason) as caught:
        predictors["cti"](picture(20, 20), tags)
    assert "\n" not in str(caught.value)


def test_one_tag_needs_no_list_and_ids_are_known_without_names(tasks, predictors, tmp_path):
    found, image = predictors["cti"], picture(*SIZE)
    assert np.array_equal(found(image, "bird"), found(image, [3])) and found.ids_of(3) == [3]
    nameless = frugalseg.load(write(tmp_path, "cti", tasks["cti"], record=False))
    assert set(np.unique(nameless(image, [3])).tolist()) <= {0, 3}
    with pytest.raises(ConfigError, match="does not know the names"):
        nameless(image, ["bird"])


def test_what_seeds_do_not_take(predictors):
    found = predictors["cti"]
    with pytest.raises(ConfigError, match="no supports"):
        found(picture(20, 20), ["bird"], supports=[])
    with pytest.raises(ImageError, match="smaller than one patch"):
        found(picture(8, 40), ["bird"])
    with pytest.raises(CheckpointError, match="no dense features, but seed masks"):
        found.features(picture(20, 20))
    before, found.scales = found.scales, ()
    with pytest.raises(ConfigError, match="scales are"):
        found(picture(20, 20), ["bird"])
    found.scales = before
