"""One picture: objects laid out, checked to be visible, painted; with exact maps of objects and parts."""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from frugalseg.miniature.looks import Look
from frugalseg.miniature.paint import (
    PERIOD,
    UNITS,
    Bools,
    Floats,
    axis,
    background,
    body_outline,
    develop,
    paint_surface,
    tip_outline,
)

Bytes = NDArray[np.uint8]

BODY: Final = 1
TIP: Final = 2
# Square units that must stay visible of each part: without its tip an object of a shared body has no class.
_LEAST_BODY: Final = 50.0
_LEAST_TIP: Final = 25.0
_SMALLER: Final = (1.0, 0.88, 0.76)  # crowded pictures have smaller objects
_APART: Final = 26.0
_PAINT_STREAM: Final = 1
_FIRST_LAYOUT_STREAM: Final = 2


@dataclass(frozen=True)
class Scene:
    """A finished picture of `n` objects.

    Attributes:
        image: RGB, shape `(S, S, 3)`.
        objects: 0 background, else number of the object, counted from 1, shape `(S, S)`.
        parts: 0 background, 1 body, 2 tip, shape `(S, S)`.
    """

    image: Bytes
    objects: Bytes
    parts: Bytes


@dataclass(frozen=True)
class _Layout:
    """Where objects lie: coordinates in each object's own frame, and who is on top, where."""

    u: Floats  # (n, S, S), units along the axis, not divided by the scale: textures do not grow with objects
    v: Floats
    objects: Bytes
    parts: Bytes


def stream(key: Sequence[int], number: int) -> np.random.Generator:
    """An independent generator for one purpose of one picture.

    Args:
        key: Names the picture: world, seed, split and index, none negative.
        number: Names the purpose; 0 is for the caller, this module uses the rest.

    Returns:
        A generator that depends on nothing else, so that pictures can be made in any order.
    """
    return np.random.default_rng([*key, number])


def make_scene(looks: Sequence[Look], key: Sequence[int], size: int) -> Scene:
    """Draws objects of the given looks, later ones in front of earlier ones.

    Layouts that hide too much of a part are drawn again; looks never are, so their frequencies
    stay those of the caller. No random number depends on a colour or a texture: the same key gives
    the same ground whatever the looks, and the same poses unless a layout had to be drawn again.

    Args:
        looks: One to three looks.
        key: See `stream`.
        size: Side in pixels.

    Returns:
        The picture and its maps.
    """
    for attempt in itertools.count(_FIRST_LAYOUT_STREAM):
        layout = _lay_out(looks, stream(key, attempt), size)
        if _all_visible(layout, len(looks), size):
            break
    rng = stream(key, _PAINT_STREAM)
    image = background(rng, size)
    for number, look in enumerate(looks, start=1):
        _paint_object(image, layout, number, look, rng)
    return Scene(develop(rng, image), layout.objects, layout.parts)


def _lay_out(looks: Sequence[Look], rng: np.random.Generator, size: int) -> _Layout:
    count = len(looks)
    centres = _centres(count, rng)
    angles = rng.uniform(0, 2 * np.pi, count)[:, None, None]
    scales = (rng.uniform(0.95, 1.4, count) * _SMALLER[count - 1])[:, None, None]
    dx = axis(size)[None, None, :] - centres[:, 0, None, None]
    dy = axis(size)[None, :, None] - centres[:, 1, None, None]
    u = dx * np.cos(angles) + dy * np.sin(angles)
    v = dy * np.cos(angles) - dx * np.sin(angles)
    bodies = body_outline(u / scales, v / scales)
    objects = np.zeros((size, size), dtype=np.uint8)
    parts = np.zeros((size, size), dtype=np.uint8)
    for index, look in enumerate(looks):
        tip = tip_outline(look.shape, u[index] / scales[index], v[index] / scales[index])
        objects[bodies[index] | tip] = index + 1
        parts[bodies[index]] = BODY
        parts[tip] = TIP
    return _Layout(u, v, objects, parts)


def _centres(count: int, rng: np.random.Generator) -> Floats:
    """Centres away from each other where that is possible: each takes the best of its twelve tries."""
    tries = rng.uniform(14, UNITS - 14, (count, 12, 2))
    chosen: list[Floats] = []
    for options in tries:
        if not chosen:
            chosen.append(options[0])
            continue
        gaps = np.linalg.norm(options[:, None] - np.array(chosen)[None], axis=2).min(axis=1)
        # the first that is far enough, else the farthest
        chosen.append(options[int(np.argmax(np.minimum(gaps, _APART)))])
    return np.array(chosen)


def _all_visible(layout: _Layout, count: int, size: int) -> bool:
    pixel = (UNITS / size) ** 2
    area = np.bincount((layout.objects.astype(np.intp) * 3 + layout.parts).ravel(), minlength=3 * (count + 1)) * pixel
    by_object = area.reshape(count + 1, 3)[1:]
    return bool((by_object[:, BODY] >= _LEAST_BODY).all() and (by_object[:, TIP] >= _LEAST_TIP).all())


def _paint_object(image: Floats, layout: _Layout, number: int, look: Look, rng: np.random.Generator) -> None:
    """Paints the visible pixels of one object in place; draws the same amount of numbers for every look."""
    gain = np.full((1, 3), rng.uniform(0.8, 1.15))
    mine: Bools = layout.objects == number
    for part, surface, centre in ((BODY, look.body, -5.0), (TIP, look.tip, 11.0)):
        shade = np.concatenate([gain, rng.normal(0, 0.04, (2, 3))])
        phase = rng.uniform(0, PERIOD, 2)
        here = mine & (layout.parts == part)
        u, v = layout.u[number - 1][here], layout.v[number - 1][here]
        image[here] = paint_surface(surface, u - centre + phase[0], v + phase[1], shade)
