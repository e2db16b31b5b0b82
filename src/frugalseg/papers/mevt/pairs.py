"""DenseCL and PixPro on the same nets and views as MEVT: losses on the cells of two views (golden/ssl).

Both see the two global views alone. Facts of the losses: `dense_losses`.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from frugalseg.batch import ViewsBatch
from frugalseg.errors import ConfigError
from frugalseg.nn.ema import EMATeacher
from frugalseg.ops.precision import at_least_float32
from frugalseg.papers.mevt.dense_losses import (
    cell_distance,
    closest,
    dense_contrast,
    pixel_consistency,
    propagate,
    queue_contrast,
)
from frugalseg.papers.mevt.heads import Head, unit
from frugalseg.papers.mevt.memory import Fifo
from frugalseg.papers.mevt.model import Dense
from frugalseg.papers.mevt.student import HeadSizes, freeze_idle
from frugalseg.papers.mevt.terms import Moment, Terms


class PairRule(NamedTuple):
    """Settings of both; each reads its own.

    Attributes:
        grid: rows and columns of cells that a view's features are averaged to; 7 is a ResNet's at 224 pixels.
        dense: DenseCL: weight of the dense term, the global one has the rest.
        temperature: DenseCL: of the logits.
        queue: DenseCL: length of each of the two queues.
        distance: PixPro: cells are positive below this distance over the larger cell's diagonal.
        power: PixPro: sharpness of the propagation.
    """

    grid: int = 7
    dense: float = 0.5
    temperature: float = 0.2
    queue: int = 65536
    distance: float = 0.7
    power: float = 2.0


class PairStudent(nn.Module):
    """Backbone with a head on cells, and for DenseCL one on the image.

    Args:
        backbone: gives `Dense`.
        sizes: `global_hidden`, `pixel_hidden`, `pixel_outputs` and `norm` are read.
        image: whether there is a head on the image.
        values: whether cells' values are transformed before they are propagated.
    """

    def __init__(self, backbone: nn.Module, sizes: HeadSizes, image: bool, values: bool) -> None:
        super().__init__()
        self.backbone = backbone
        width, token_width = int(backbone.width), int(backbone.token_width)  # type: ignore[arg-type]
        if image:
            self.global_head = Head(token_width, sizes.global_hidden, sizes.pixel_outputs, sizes.norm)
        self.pixel_head = Head(width, sizes.pixel_hidden, sizes.pixel_outputs, sizes.norm)
        if values:
            self.values = nn.Linear(sizes.pixel_outputs, sizes.pixel_outputs)
        freeze_idle(backbone, dense=True, last=image)

    def forward(self, image: Tensor) -> Dense:
        """What the backbone makes of images (N, 3, H, W)."""
        found: Dense = self.backbone(image)
        return found

    def cells(self, maps: Tensor) -> Tensor:
        """(B, T, D) cells -> (B, T, E) projections of any length: the losses norm them."""
        found: Tensor = self.pixel_head.project(maps.flatten(0, 1))
        return found.view(*maps.shape[:2], -1)


class DenseCL(nn.Module):
    """InfoNCE of images and of cells that are closest in the nets' own features, with queues of negatives.

    Args:
        rule: settings.
        sizes: of the heads.
    """

    def __init__(self, rule: PairRule, sizes: HeadSizes) -> None:
        super().__init__()
        if rule.queue < 1 or not 0 <= rule.dense <= 1:
            raise ConfigError("model.init_args.rule: DenseCL needs a queue of 1 or more, and dense in 0..1")
        self.rule, self.sizes = rule, sizes
        self.images = Fifo(rule.queue, sizes.pixel_outputs, full=True)
        self.means = Fifo(rule.queue, sizes.pixel_outputs, full=True)

    def student(self, backbone: nn.Module) -> PairStudent:
        """Backbone with its two heads."""
        return PairStudent(backbone, self.sizes, image=True, values=False)

    def prototypes(self, student: nn.Module) -> list[nn.Parameter]:
        """None: nothing is held still."""
        return []

    def terms(self, student: PairStudent, teacher: EMATeacher, batch: ViewsBatch, moment: Moment) -> Terms:
        """Losses of a batch: the first global view asks, the second one answers.

        Args:
            student: in training mode.
            teacher: its moving average.
            batch: of B images without local views.
            moment: of this step.

        Raises:
            ConfigError: local views.
        """
        ask, answer = _two_views(batch, "densecl")
        own, theirs = student(ask), teacher(answer)
        own_cells, their_cells = (_cells(maps, self.rule.grid) for maps in (own.features, theirs.features))
        with torch.no_grad():
            key = unit(teacher.module.global_head.project(theirs.token))  # type: ignore[union-attr, operator]
            keys: Tensor = teacher.module.cells(their_cells)  # type: ignore[operator]
        heat, queues = self.rule.temperature, (self.images.rows.T, self.means.rows.T)
        match = closest(own_cells, their_cells)
        parts = {
            "global": queue_contrast(student.global_head.project(own.token), key, queues[0], heat),
            "dense": dense_contrast(student.cells(own_cells), keys, match, queues[1], heat),
        }
        total = (1 - self.rule.dense) * parts["global"] + self.rule.dense * parts["dense"]
        return Terms(
            total,
            parts,
            {"embedding_std": _spread(keys)},
            {"image": key, "mean": unit(at_least_float32(keys).mean(dim=1))},
        )

    @torch.no_grad()
    def update(self, terms: Terms, moment: Moment) -> None:
        """Put this step's keys of all ranks into the queues."""
        self.images.push(moment.gather(terms.kept["image"]))
        self.means.push(moment.gather(terms.kept["mean"]))


class PixPro(nn.Module):
    """Cells that lie close to each other in the image agree, once the student's have been propagated; no negatives.

    The loss is the sum of both directions, as in PixPro's code.

    Args:
        rule: settings.
        sizes: of the heads.
    """

    def __init__(self, rule: PairRule, sizes: HeadSizes) -> None:
        super().__init__()
        self.rule, self.sizes = rule, sizes

    def student(self, backbone: nn.Module) -> PairStudent:
        """Backbone with a head on cells and the transformation of values."""
        return PairStudent(backbone, self.sizes, image=False, values=True)

    def prototypes(self, student: nn.Module) -> list[nn.Parameter]:
        """None: nothing is held still."""
        return []

    def terms(self, student: PairStudent, teacher: EMATeacher, batch: ViewsBatch, moment: Moment) -> Terms:
        """Loss of a batch.

        Args:
            student: in training mode.
            teacher: its moving average.
            batch: of B images without local views.
            moment: of this step.

        Raises:
            ConfigError: local views.
        """
        views, size = torch.cat(_two_views(batch, "pixpro")), self.rule.grid
        own = student.cells(_cells(student(views).features, size))
        with torch.no_grad():
            theirs: Tensor = teacher.module.cells(_cells(teacher(views).features, size))  # type: ignore[operator]
        spread = propagate(_grid(own, size), _grid(student.values(own), size), self.rule.power).chunk(2)
        target = _grid(theirs, size).chunk(2)
        box = [mirrored(batch["box"][:, v].float(), batch["flip"][:, v]) for v in (0, 1)]
        close = cell_distance(box[0], box[1], (size, size)) < self.rule.distance
        there = pixel_consistency(spread[0], target[1], close)
        back = pixel_consistency(spread[1], target[0], close.transpose(1, 2))
        loss = there + back
        return Terms(loss, {"pixel": loss}, {"embedding_std": _spread(theirs), "positives": close.float().mean()}, {})

    def update(self, terms: Terms, moment: Moment) -> None:
        """Nothing is remembered."""


def mirrored(box: Tensor, flip: Tensor) -> Tensor:
    """Boxes (B, 4) with x1 and x2 exchanged where the view is mirrored: cells run from x1 to x2."""
    return torch.where(flip[:, None], box[:, [2, 1, 0, 3]], box)


def _two_views(batch: ViewsBatch, method: str) -> tuple[Tensor, Tensor]:
    """(B, 3, H, W) of both global views."""
    if batch["local_views"].shape[1]:
        raise ConfigError(f"data.recipe.local_views: {method} sees the two global views alone; set it to 0")
    views = batch["global_views"]
    return views[:, 0], views[:, 1]


def _cells(maps: Tensor, size: int) -> Tensor:
    """(B, D, h, w) maps -> (B, size * size, D) means over cells."""
    pooled = maps if maps.shape[-2:] == (size, size) else F.adaptive_avg_pool2d(maps, size)
    return pooled.flatten(2).transpose(1, 2)


def _grid(cells: Tensor, size: int) -> Tensor:
    """(B, size * size, E) -> (B, E, size, size)."""
    return cells.transpose(1, 2).reshape(len(cells), -1, size, size)


def _spread(cells: Tensor) -> Tensor:
    """Standard deviation per channel of cells as unit vectors; about 1 / sqrt(E) unless they collapse."""
    return unit(cells.detach()).flatten(0, 1).std(dim=0).mean()
