"""Multi-crop views for self-supervision (recipe `Views`)."""

import hashlib
from collections.abc import Sequence
from functools import partial
from typing import Literal, cast

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import default_collate

from frugalseg.batch import ViewsBatch
from frugalseg.data import settings
from frugalseg.data.base import Sample
from frugalseg.data.colour_rule import ColourRule, blur_radius
from frugalseg.data.crop import whole
from frugalseg.data.memory import batch_memory
from frugalseg.data.normalise import IMAGENET_MEAN, IMAGENET_STD, Normaliser
from frugalseg.data.picture import Picture
from frugalseg.data.recipes import Item, Recipe, Triple
from frugalseg.data.resized_crop import resized
from frugalseg.data.transforms import ColourChanges
from frugalseg.data.view_boxes import Box, BoxRule, shared_area
from frugalseg.errors import ConfigError

Colour = Literal["cpu", "device", "none"]


class Views(Recipe):
    """Two global and some local crops of each image, with their geometry: a `ViewsBatch`.

    Boxes, then mirroring, then colours are drawn, all from the item's random numbers; the geometry of a draw is
    therefore the same whatever `colour` says. Evaluation draws from a hash of the sample's id and leaves colours alone.

    Args:
        global_size: G, side of the two global views.
        local_size: S, side of the local views.
        local_views: L, number of local views; 0 for none.
        global_area: part of the image's area that a global view takes, lo..hi.
        local_area: the same for local views.
        aspect: width over height of the crops, lo..hi.
        flip: probability of a horizontal flip, per view.
        overlap_global: the global views share more than this part of the image's area.
        overlap_local: every local view shares more than this part with either global view.
        colour: where colours are changed: `cpu` here; `device` leaves it to `colour.finish_views`; `none` not at all.
        changes: strengths and probabilities of the colour changes; None for DINO's.
        mean: channel means on the scale 0..1.
        std: channel standard deviations.
        scaled: decode JPEGs at the part of their size that all views of a draw allow; see `picture`. Boxes, rounded to
            that part's pixels, are those of the pixels all the same, and share as much.

    Raises:
        ConfigError: settings that no image can satisfy.
    """

    def __init__(
        self,
        global_size: int = 224,
        local_size: int = 96,
        local_views: int = 8,
        global_area: tuple[float, float] = (0.25, 1.0),
        local_area: tuple[float, float] = (0.05, 0.25),
        aspect: tuple[float, float] = (3 / 4, 4 / 3),
        flip: float = 0.5,
        overlap_global: float = 0.02,
        overlap_local: float = 0.01,
        colour: Colour = "cpu",
        changes: ColourRule | None = None,
        mean: Triple = IMAGENET_MEAN,
        std: Triple = IMAGENET_STD,
        scaled: bool = False,
    ) -> None:
        self.rule = changes or ColourRule()
        settings.probability("recipe.flip", flip)
        if local_views < 0 or min(global_size, local_size) <= blur_radius(self.rule.sigma[1]):
            raise ConfigError(
                "Views: local_views must be at least 0, global_size and local_size more than 3.5 times changes.sigma"
            )
        if not all(0 < low <= high <= 1 for low, high in (global_area, local_area)) or not 0 < aspect[0] <= aspect[1]:
            raise ConfigError("Views: global_area, local_area and aspect need 0 < lo <= hi, areas also hi <= 1")
        if not 0 <= overlap_local <= overlap_global < 1:
            raise ConfigError("Views: overlaps need 0 <= overlap_local <= overlap_global < 1")
        self.shapes = (2, 3, global_size, global_size), (local_views, 3, local_size, local_size)
        self.boxes = BoxRule(local_views, global_area, local_area, aspect, overlap_global, overlap_local)
        self.flip, self.colour, self.scaled = flip, colour, scaled
        self.dtype = torch.uint8 if colour == "device" else torch.float32
        self.normaliser = Normaliser(mean, std)
        self._change_colours = ColourChanges()

    def train_item(self, sample: Sample, num_classes: int, rng: np.random.Generator) -> Item:
        """Make (2, 3, G, G) and (L, 3, S, S) views, (2 + L, 4) box, (2 + L,) flip, (2,) size and perhaps colour."""
        return self._item(sample, rng, self.colour, [torch.empty(shape, dtype=self.dtype) for shape in self.shapes])

    def train_batch(
        self, samples: Sequence[Sample], num_classes: int, rngs: Sequence[np.random.Generator]
    ) -> ViewsBatch:
        """Make a training batch, each view straight onto its place in it."""
        memory = [batch_memory((len(samples), *shape), self.dtype) for shape in self.shapes]
        made = zip(samples, rngs, zip(*memory, strict=True), strict=True)
        items = [self._item(sample, rng, self.colour, canvases) for sample, rng, canvases in made]
        rest = default_collate([{k: v for k, v in item.items() if not k.endswith("_views")} for item in items])
        return cast(ViewsBatch, {"global_views": memory[0], "local_views": memory[1], **rest})

    def evaluation_item(self, sample: Sample, num_classes: int) -> Item:
        """Make views that depend on the image and its id alone; shapes as in training, normalised."""
        digest = hashlib.sha256(sample.id.encode()).digest()
        rng = np.random.default_rng(int.from_bytes(digest[:8], "little"))
        return self._item(sample, rng, "none", [torch.empty(shape) for shape in self.shapes])

    def collate(self, items: Sequence[Item]) -> ViewsBatch:
        """Stack items; see `ViewsBatch` for shapes."""
        return cast(ViewsBatch, default_collate(list(items)))

    def _item(self, sample: Sample, rng: np.random.Generator, colour: Colour, canvases: Sequence[Tensor]) -> Item:
        picture = Picture(sample, self.scaled)
        boxes = self.boxes.draw(picture.size, rng)
        flips = rng.random(len(boxes)) < self.flip
        parameters = None if colour == "none" else self.rule.draw(len(boxes), rng)
        targets = [target for canvas in canvases for target in canvas.numpy()]
        fits = partial(self._share_enough, picture.size)
        crops, boxes = picture.crops(boxes, [target.shape[1] for target in targets], fits)
        for number, (crop, target) in enumerate(zip(crops, targets, strict=True)):
            view = resized(crop, target.shape[1])
            if colour == "cpu" and parameters is not None:
                view = self._change_colours(view, parameters[number])
            if flips[number]:
                view = cast(NDArray[np.uint8], cv2.flip(view, 1))
            if colour == "device":
                target[:] = cv2.split(view)
            else:
                self.normaliser.onto_canvas(view, whole((target.shape[1], target.shape[1])), target)
        item: Item = {
            "id": sample.id,
            "global_views": canvases[0],
            "local_views": canvases[1],
            "box": torch.from_numpy(boxes),
            "flip": torch.from_numpy(flips),
            "size": torch.tensor(picture.size),
        }
        if colour == "device" and parameters is not None:
            item["colour"] = torch.from_numpy(parameters)
        return item

    def _share_enough(self, size: tuple[int, int], boxes: NDArray[np.int64]) -> bool:
        """Whether boxes share what `BoxRule` asks for after their edges have moved."""
        first, second, *others = [cast(Box, tuple(box)) for box in boxes.tolist()]
        area, rule = size[0] * size[1], self.boxes
        return shared_area(first, second) > area * rule.overlap_global and all(
            shared_area(box, each) > area * rule.overlap_local for box in others for each in (first, second)
        )
