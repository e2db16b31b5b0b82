import numpy as np
import pytest

from frugalseg.data.transforms import Augment
from tests.data.conftest import picture

IMAGE = picture(30, 50, 0)
MASK = np.arange(1500, dtype=np.uint8).reshape(30, 50) % 21


def rng(seed: int) -> np.random.Generator:
    return np.random.default_rng(seed)


def test_nothing_to_do_changes_nothing():
    augment = Augment()
    image, mask = augment(IMAGE, MASK, rng(0))
    assert not augment.active
    assert image is IMAGE
    assert mask is MASK


def test_result_depends_on_the_seed_alone():
    settings = {"scale": (0.5, 1.5), "flip": 0.5, "colour": 0.4}
    first, second = Augment(**settings), Augment(**settings)
    for seed in range(5):
        second(IMAGE, MASK, rng(seed + 100))  # its history must not matter
        (a, m), (b, n) = first(IMAGE, MASK, rng(seed)), second(IMAGE, MASK, rng(seed))
        assert np.array_equal(a, b)
        assert np.array_equal(m, n)
        assert a.shape[:2] == m.shape
        assert set(np.unique(m)) <= set(range(21))


def test_long_side_takes_all_integers_of_its_range():
    augment, sides = Augment(long_side=(40, 44)), set()
    for seed in range(80):
        image, mask = augment(IMAGE, None, rng(seed))
        assert mask is None
        assert abs(image.shape[0] - image.shape[1] * 0.6) <= 1
        sides.add(image.shape[1])
    assert sides == {40, 41, 42, 43, 44}


def test_scale_stays_in_its_range_and_covers_it():
    augment = Augment(scale=(0.5, 1.5))
    factors = np.array([augment(IMAGE, MASK, rng(seed))[0].shape[1] / 50 for seed in range(60)])
    assert 0.5 <= factors.min() < 0.6
    assert 1.4 < factors.max() <= 1.5


def test_flip_turns_image_and_mask_together_half_of_the_time():
    augment, turned = Augment(flip=0.5), 0
    for seed in range(200):
        image, mask = augment(IMAGE, MASK, rng(seed))
        flipped = not np.array_equal(image, IMAGE)
        turned += flipped
        assert np.array_equal(image, IMAGE[:, ::-1] if flipped else IMAGE)
        assert np.array_equal(mask, MASK[:, ::-1] if flipped else MASK)
    assert 75 < turned < 125


def test_colour_leaves_the_mask_and_is_not_tied_to_the_scale():
    # one seed for all steps would make a large image always a bright one
    augment = Augment(scale=(0.5, 1.5), colour=0.5)
    grey = np.full((40, 40, 3), 100, np.uint8)
    found = [augment(grey, np.full((40, 40), 7, np.uint8), rng(seed)) for seed in range(150)]
    assert all((mask == 7).all() for _, mask in found)
    sizes, values = np.array([(len(image), image.mean()) for image, _ in found]).T
    assert values.std() > 5
    assert abs(np.corrcoef(sizes, values)[0, 1]) < 0.25


def test_hue_alone_turns_colours_and_leaves_grey():
    grey = np.full((4, 4, 3), 100, np.uint8)
    red = np.zeros((4, 4, 3), np.uint8) + np.array([200, 100, 100], np.uint8)
    turns = []
    for seed in range(100):
        augment = Augment(hue=0.1)
        assert np.array_equal(augment(grey, None, rng(seed))[0], grey)
        found = augment(red, None, rng(seed))[0][0, 0].astype(int)
        assert (found.max(), found.min()) == (200, 100)
        # from red, a turn by a sixth of a circle brings green, or blue, up to the red's value
        turns.append((found[1] - found[2]) / 100 / 6)
    assert -0.101 < min(turns) < -0.08 and 0.08 < max(turns) < 0.101


def test_without_a_word_hue_follows_the_colour():
    assert Augment(colour=0.2).hue == 0.05 and Augment(colour=9.0).hue == 0.5
    assert Augment(colour=0.2, hue=0.0).hue == 0 and not Augment().active


@pytest.mark.parametrize(
    "settings", [{"flip": 1.0}, {"colour": 0.2}, {"hue": 0.1}, {"scale": (1.2, 1.3)}, {"long_side": (30, 30)}]
)
def test_each_setting_alone_is_active(settings):
    augment = Augment(**settings)
    assert augment.active
    assert not np.array_equal(augment(IMAGE, MASK, rng(0))[0], IMAGE)
