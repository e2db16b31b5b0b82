"""Objects from above: masks are what was painted, kinds can be told apart, pictures depend on their seed alone."""

from collections.abc import Callable

import numpy as np
import pytest

from frugalseg.miniature.aerial.brush import Points
from frugalseg.miniature.aerial.canvas import Canvas, develop
from frugalseg.miniature.aerial.catalogue import ISAID_KINDS
from frugalseg.miniature.aerial.districts import paint_districts
from frugalseg.miniature.aerial.ground import TEXTURES, Form, lay, region, road
from frugalseg.miniature.aerial.kinds import Kind
from frugalseg.miniature.aerial.landuse import paint_land_use
from frugalseg.miniature.aerial.placing import place, stamp
from frugalseg.miniature.aerial.recipes import RECIPES
from frugalseg.miniature.aerial.sports import INFIELD
from frugalseg.miniature.aerial.structures import BUILDING, MOBILE_HOME, TREE
from frugalseg.miniature.aerial.surfaces import WET, Surface

KINDS = (*ISAID_KINDS, BUILDING, MOBILE_HOME, TREE, INFIELD)


def rng(*key: int) -> np.random.Generator:
    return np.random.default_rng([9, *key])


def names(kind: Kind) -> str:
    return f"{kind.surface.name}-{'dirt' if kind is INFIELD else 'whole'}"


@pytest.mark.parametrize("kind", KINDS, ids=names)
def test_the_surface_map_is_the_shape_exactly(kind: Kind) -> None:
    canvas = Canvas(96, 96)
    lay(canvas, Surface.SAND, rng(0))
    before = canvas.image.copy()
    assert stamp(canvas, kind, rng(1), (47.3, 49.1), kind.half[1], 0.7)
    dx, dy = canvas.x - 47.3, canvas.y - 49.1
    u = (dx * np.cos(0.7) + dy * np.sin(0.7)) / kind.half[1]
    v = (dy * np.cos(0.7) - dx * np.sin(0.7)) / kind.half[1]
    inside = kind.inside(Points(u, v, 1 / kind.half[1]))
    np.testing.assert_array_equal(canvas.surface == kind.surface, inside)
    changed = (canvas.image != before).any(axis=2)
    assert changed[inside].mean() > 0.98
    assert np.all(canvas.image[changed & ~inside] < before[changed & ~inside]), "only a shadow lies outside"
    assert (changed & ~inside).any() == (kind.height > 0)


@pytest.mark.parametrize("kind", KINDS, ids=names)
def test_reach_and_half_length_hold_the_object(kind: Kind) -> None:
    u, v = np.meshgrid(np.linspace(-2.5, 2.5, 501), np.linspace(-2.5, 2.5, 501))
    for half in kind.half:
        radius = np.hypot(u, v)[kind.inside(Points(u, v, 1 / half))].max()
        assert 0.85 < radius < kind.reach + 0.75 / half, "or windows would cut it off"


def test_kinds_differ_in_shape_or_colour() -> None:
    """Mean colours over a coarse polar grid tell every two classes apart, whatever the object's random colours."""

    def look(kind: Kind, seed: int) -> np.ndarray:
        u, v = np.meshgrid(np.linspace(-1.2, 1.2, 24), np.linspace(-1.2, 1.2, 24))
        points = Points(u, v, 1 / 10)
        inside = kind.inside(points)
        picture = np.full((24, 24, 3), 60.0)
        picture[inside] = kind.paint(Points(u[inside], v[inside], 1 / 10), rng(seed))
        return picture

    looks = [[look(kind, seed) for seed in range(4)] for kind in ISAID_KINDS]
    for a, first in enumerate(looks):
        for b, second in enumerate(looks[:a]):
            least = min(np.abs(one - other).mean() for one in first for other in second)
            assert least > 8, (ISAID_KINDS[a].surface.name, ISAID_KINDS[b].surface.name)


def test_objects_never_touch() -> None:
    canvas = Canvas(96, 96)
    boxes = 0
    for _ in range(30):
        before = canvas.surface.copy()
        if place(canvas, ISAID_KINDS[1], rng(2, boxes), half=(6, 12)):
            boxes += 1
            new = (canvas.surface != before) & (before == 0)
            grown = np.pad(new, 1)
            grown = np.max([np.roll(grown, (dy, dx), (0, 1)) for dy in (-1, 0, 1) for dx in (-1, 0, 1)], axis=0)
            assert not (grown[1:-1, 1:-1] & (before != 0)).any()
    assert 3 <= boxes < 30


def test_a_place_without_room_changes_nothing() -> None:
    canvas = Canvas(64, 64)
    canvas.taken[:] = True
    before = canvas.image.copy()
    assert not place(canvas, ISAID_KINDS[0], rng(3))
    assert not stamp(canvas, ISAID_KINDS[0], rng(3), (300, 300), 10, 0), "outside of the picture"
    np.testing.assert_array_equal(canvas.image, before)


def test_objects_prefer_their_ground() -> None:
    hits = 0
    for seed in range(20):
        canvas = Canvas(96, 96)
        lay(canvas, Surface.WATER, rng(4, seed), region(canvas, rng(5, seed), "side", 0.5))
        wet = np.isin(canvas.surface, WET)
        place(canvas, ISAID_KINDS[0], rng(6, seed), half=(6, 8))
        hits += wet[canvas.surface == Surface.SHIP].mean() > 0.5
    assert hits >= 18


@pytest.mark.parametrize("form", ["blob", "side", "band"])
@pytest.mark.parametrize("share", [0.1, 0.4])
def test_regions_cover_their_share(form: Form, share: float) -> None:
    assert region(Canvas(90, 110), rng(7), form, share).mean() == pytest.approx(share, abs=0.01)


def test_roads_end_at_water() -> None:
    canvas = Canvas(96, 96)
    lay(canvas, Surface.WATER, rng(8), canvas.x + 0 * canvas.y < 48)
    road(canvas, rng(9), (48, 48), 0.2, 6)
    assert (canvas.surface[:, :48] == Surface.WATER).all()
    assert 0.08 < (canvas.surface[:, 48:] == Surface.PAVEMENT).mean() < 0.2


def test_noise_is_smooth_and_spans_its_range() -> None:
    noise = Canvas(96, 130).noise(rng(10), 8)
    assert noise.shape == (96, 130)
    assert 0 <= noise.min() < 0.2 < 0.8 < noise.max() <= 1
    assert np.abs(np.diff(noise, axis=0)).max() <= 1 / 8
    assert np.abs(np.diff(noise, axis=1)).max() <= 1 / 8


def test_grounds_have_colours_of_their_own() -> None:
    means = {}
    for ground in TEXTURES:
        canvas = Canvas(96, 96)
        lay(canvas, ground, rng(11))
        means[ground] = canvas.image.mean(axis=(0, 1))
    for one in means:
        assert all(np.abs(means[one] - means[other]).max() > 10 for other in means if other != one)


def test_a_bigger_picture_shows_the_same_scene() -> None:
    maps = []
    for size in (96, 192):
        canvas = Canvas(size, size, size / 96)
        paint_land_use(canvas, RECIPES["storagetanks"], rng(12))
        maps.append(canvas.surface)
    assert (maps[0] == maps[1][::2, ::2]).mean() > 0.95


@pytest.mark.parametrize(
    "paint",
    [
        lambda canvas, source: paint_districts(canvas, (0, 4, 9, 13), source),
        lambda canvas, source: paint_land_use(canvas, RECIPES["airplane"], source),
    ],
    ids=["districts", "landuse"],
)
def test_pictures_depend_on_their_seed_alone(paint: Callable[[Canvas, np.random.Generator], None]) -> None:
    def picture(seed: int) -> tuple[np.ndarray, np.ndarray]:
        canvas, source = Canvas(120, 150), rng(13, seed)
        paint(canvas, source)
        return develop(canvas, source), canvas.surface

    first, again, other = picture(0), picture(0), picture(1)
    np.testing.assert_array_equal(first[0], again[0])
    np.testing.assert_array_equal(first[1], again[1])
    assert (first[1] != other[1]).mean() > 0.1


def test_every_district_shows_its_first_kind() -> None:
    for seed in range(5):
        canvas = Canvas(300, 320)
        first = rng(14, seed).permutation(len(ISAID_KINDS))[:4]
        paint_districts(canvas, [int(kind) for kind in first], rng(15, seed))
        for kind in first:
            assert (canvas.surface == ISAID_KINDS[kind].surface).sum() > 30
