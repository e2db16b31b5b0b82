"""The pre-training world: tags are attributes, and every tag can be seen."""

from pathlib import Path

import numpy as np

from frugalseg.miniature.attributes import ATTRIBUTES, AttributeWorld
from frugalseg.miniature.looks import COLOURS, LOOKS, SHAPES, TEXTURES
from tests.miniature.reading import array, class_names, ids, objects


def test_it_is_a_voc_without_masks(attributes: Path) -> None:
    assert class_names(attributes) == list(ATTRIBUTES)
    assert (len(ids(attributes, "train")), len(ids(attributes, "val"))) == (60, 10)
    assert not (attributes / "SegmentationClass").exists()
    assert array(attributes / "JPEGImages/2012_000001.jpg").shape == (64, 64, 3)


def test_tags_are_those_of_the_drawn_objects(attributes: Path) -> None:
    world = AttributeWorld(seed=0)
    for index, name in enumerate(ids(attributes, "train")):
        scene, looks = world.picture("train", index)
        expected = [
            tag for k in looks for tag in (*k.body.colours, k.body.texture, *k.tip.colours, k.tip.texture, k.shape)
        ]
        assert [tag for tag, _ in objects(attributes, name)] == expected
        assert set(np.unique(scene.objects)) == set(range(len(looks) + 1))


def test_boxes_lie_inside_the_picture(attributes: Path) -> None:
    for name in ids(attributes, "train"):
        for _, (xmin, ymin, xmax, ymax) in objects(attributes, name):
            assert 1 <= xmin <= xmax <= 64
            assert 1 <= ymin <= ymax <= 64


def test_every_attribute_occurs_and_none_of_them_is_constant() -> None:
    world = AttributeWorld(seed=0)
    counts = dict.fromkeys(ATTRIBUTES[1:], 0)
    for index in range(150):
        _, looks = world.picture("train", index)
        for name in {
            n for k in looks for n in (*k.body.colours, k.body.texture, *k.tip.colours, k.tip.texture, k.shape)
        }:
            counts[name] += 1
    assert len(counts) == len(COLOURS) + len(TEXTURES) + len(SHAPES)
    assert min(counts.values()) >= 20
    assert max(counts.values()) <= 110


def test_classes_of_the_voc_world_are_made_of_the_attributes() -> None:
    used = {name for k in LOOKS for name in (*k.body.colours, k.body.texture, *k.tip.colours, k.tip.texture, k.shape)}
    assert used <= set(ATTRIBUTES)
