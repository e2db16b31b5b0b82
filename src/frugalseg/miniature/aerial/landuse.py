"""Small pictures of one land use each."""

from typing import Final

import numpy as np

from frugalseg.miniature.aerial.canvas import Canvas
from frugalseg.miniature.aerial.ground import lay, region, road
from frugalseg.miniature.aerial.placing import place
from frugalseg.miniature.aerial.recipes import Recipe

_RIGHT_ANGLE: Final = np.pi / 2


def paint_land_use(canvas: Canvas, recipe: Recipe, rng: np.random.Generator) -> None:
    """Paints a picture; every pixel gets a surface, and the first of `recipe.things` surely occur.

    Args:
        canvas: An empty one.
        recipe: What to paint.
        rng: Source of all choices.
    """
    across, down = canvas.extent
    angle = rng.uniform(0, 2 * np.pi)
    lay(canvas, recipe.ground, rng)
    for patch in recipe.patches:
        share = rng.uniform(*patch.share)
        if share > 0:
            lay(canvas, patch.surface, rng, region(canvas, rng, patch.form, share))
    for number, half_width in enumerate(recipe.roads):
        x, y = rng.uniform((0.35 * across, 0.35 * down), (0.65 * across, 0.65 * down))
        lanes = 2 if half_width < 10 else 4
        road(canvas, rng, (x, y), angle + number * _RIGHT_ANGLE, half_width, lanes)
    for things in recipe.things:
        for _ in range(rng.integers(things.count[0], things.count[1] + 1)):
            turn = angle + rng.integers(4) * _RIGHT_ANGLE
            place(canvas, things.kind, rng, half=things.half, angle=turn if recipe.aligned else None)
