"""Settings that no image can have are refused when the recipe is made, by the name of the key."""

import math

import pytest

from frugalseg.data import VOC, Episodes, MultiScale, Segment, Tags, Views
from frugalseg.data.normalise import Normaliser
from frugalseg.errors import ConfigError

WRONG = [
    (Tags, "crop", 0),
    (Tags, "crop", -3),
    (Segment, "crop", 0),
    (Tags, "long_side", (600, 300)),
    (Tags, "long_side", (0, 300)),
    (Tags, "long_side", (300,)),
    (Tags, "flip", 1.5),
    (Tags, "flip", math.nan),
    (Tags, "mean", (123.7, 116.3, 103.5)),
    (Tags, "mean", (0.5, 0.5)),
    (Tags, "std", (0.2, 0.0, 0.2)),
    (Segment, "scale", (1.5, 0.5)),
    (Segment, "scale", (0.0, 1.5)),
    (Segment, "scale", (-1.0, 1.5)),
    (Segment, "scale", (0.5, math.inf)),
    (Segment, "flip", -0.1),
    (Segment, "colour", -0.5),
    (Segment, "std", (-0.2, 0.2, 0.2)),
    (MultiScale, "scales", ()),
    (MultiScale, "scales", (1.0, 0.0)),
    (MultiScale, "scales", (1.0, -2.0)),
    (MultiScale, "std", (0.2, 0.2, math.nan)),
    (Episodes, "scale", (1.1, 0.9)),
    (Episodes, "scale", (0.0, 0.9)),
    (Episodes, "rotate", -10),
    (Episodes, "flip", 2),
    (Episodes, "vertical_flip", -1),
    (Episodes, "mean", (math.nan, 0.5, 0.5)),
    (Episodes, "std", (0, 1, 1)),
    (Views, "std", (0, 1, 1)),
    (Segment, "hue", -0.1),
    (Segment, "hue", 0.6),
]


@pytest.mark.parametrize(("recipe", "key", "value"), WRONG)
def test_a_wrong_setting_is_refused_by_name(recipe, key, value):
    with pytest.raises(ConfigError) as caught:
        recipe(**{key: value})
    line = str(caught.value)
    assert line.startswith(f"recipe.{key} is {value}: set it to ")
    assert "\n" not in line


def test_a_negative_seed(voc_root):
    with pytest.raises(ConfigError, match=r"data\.seed is -1: set it to a number from 0 upward"):
        VOC(voc_root, Tags(), seed=-1)


def test_settings_at_their_bounds_are_taken():
    assert Tags(crop=1, long_side=(300, 300), flip=1).augment.long_side == (300, 300)
    assert Tags(crop=None).crop is None
    assert Segment(scale=(1.0, 1.0), flip=0, colour=0).augment.active
    assert not Segment(scale=None, flip=0, colour=0).augment.active
    assert MultiScale(scales=(0.5,)).scales == (0.5,)
    assert Episodes(scale=None, rotate=0, flip=0, vertical_flip=0).augment.active is False
    assert Normaliser((0, 0, 1), (1, 1, 1)).mean == (0, 0, 1)
