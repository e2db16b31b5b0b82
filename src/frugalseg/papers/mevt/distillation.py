"""MEVT's losses, and DINO's as their first term: a student learns what its teacher says of the same image."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from frugalseg.batch import ViewsBatch
from frugalseg.errors import ConfigError
from frugalseg.nn.ema import EMATeacher
from frugalseg.ops.assignment import sinkhorn
from frugalseg.papers.mevt.dense_losses import region_loss
from frugalseg.papers.mevt.global_loss import dino_loss, masked_cell_loss, update_centre
from frugalseg.papers.mevt.losses import pixel_contrast, prototype_loss
from frugalseg.papers.mevt.masking import draw_masks
from frugalseg.papers.mevt.matching import Matches, choose_points
from frugalseg.papers.mevt.memory import Fifo
from frugalseg.papers.mevt.model import MEVT
from frugalseg.papers.mevt.step import Rule, Seen, find_matches, look
from frugalseg.papers.mevt.student import HeadSizes, Student
from frugalseg.papers.mevt.terms import Moment, Terms, entropy

ENOUGH = 10
"""Points per prototype from which Sinkhorn needs no queue (mevt.md c.4)."""
BLOCK = 32
"""Side of what is hidden at once."""


class SelfDistillation(nn.Module):
    """L = w_g L_g + w_p L_p + w_x L_x, and optionally terms of masked cells and of regions (mevt.md c.6).

    Args:
        rule: settings.
        sizes: of the heads.

    Raises:
        ConfigError: no term has a weight.
    """

    centre: Tensor
    cell_centre: Tensor
    region_centre: Tensor

    def __init__(self, rule: Rule, sizes: HeadSizes) -> None:
        super().__init__()
        if not rule.parts:
            raise ConfigError("model.init_args.rule.weights: every term has weight 0, so nothing would be learned")
        self.rule, self.sizes = rule, sizes
        for name in ("centre", "cell_centre", "region_centre"):
            self.register_buffer(name, torch.zeros(sizes.global_prototypes))
        self.queue = Fifo(rule.queue, sizes.outputs) if "prototype" in rule.parts else None

    def student(self, backbone: nn.Module) -> Student:
        """Backbone with the heads that the terms need.

        Args:
            backbone: of `create_backbone`.

        Raises:
            ConfigError: a term of masked cells for a net that takes no masks.
        """
        if self.rule.masked and not (isinstance(backbone, MEVT) and backbone.encoder.mask_token is not None):
            raise ConfigError(
                "model.init_args.rule.masked: this net takes no masks; set changes.mask_token to true, or masked to 0"
            )
        return Student(backbone, self.sizes, self.rule.parts, bool(self.rule.masked))

    def prototypes(self, student: nn.Module) -> list[nn.Parameter]:
        """Those that are held still in the first steps."""
        names = ("global_prototypes", "dense_prototypes", "region_prototypes")
        return [getattr(student, name).weight for name in names if hasattr(student, name)]

    def terms(self, student: Student, teacher: EMATeacher, batch: ViewsBatch, moment: Moment) -> Terms:
        """Losses of a batch; nothing is updated here.

        Args:
            student: in training mode.
            teacher: its moving average.
            batch: of B images.
            moment: of this step.
        """
        rule, mask = self.rule, self._masks(batch, moment.seeds)
        seen = look(student, teacher, batch, mask)
        terms = Terms(seen.student_tokens.new_zeros(()), {}, {}, {})
        if rule.weights[0]:
            self._global(student, teacher, seen, moment, terms)
        if rule.weights[1] or rule.weights[2]:
            matches, priority = find_matches(seen, batch, rule, moment.seeds)
            if rule.weights[1]:
                self._prototypes(student, teacher, matches, priority, moment, terms)
            if rule.weights[2]:
                self._pixels(student, teacher, matches, priority, batch, moment, terms)
        if mask is not None:
            self._cells(student, teacher, seen, mask, moment, terms)
        if rule.region:
            self._regions(student, teacher, seen, moment, terms)
        weights = dict(zip(("global", "prototype", "pixel"), rule.weights, strict=True))
        weights |= {"masked": rule.masked, "region": rule.region}
        total = torch.stack([weights[name] * value for name, value in terms.parts.items()]).sum()
        return terms._replace(total=total)

    @torch.no_grad()
    def update(self, terms: Terms, moment: Moment) -> None:
        """Take in what the teacher said: after the loss, on all ranks.

        Args:
            terms: of this step.
            moment: of this step.
        """
        for name in ("centre", "cell_centre", "region_centre"):
            if name in terms.kept:
                setattr(self, name, update_centre(getattr(self, name), terms.kept[name], reduce=moment.reduce))
        if self.queue is not None and "points" in terms.kept:
            self.queue.push(moment.gather(terms.kept["points"]))

    def _masks(self, batch: ViewsBatch, seeds: Sequence[int]) -> Tensor | None:
        """What is hidden; None without that term."""
        views = batch["global_views"]
        grid = views.shape[-2] // BLOCK, views.shape[-1] // BLOCK
        return draw_masks(seeds, views.shape[1], grid, self.rule.mask_ratio) if self.rule.masked else None

    def _global(self, student: Student, teacher: EMATeacher, seen: Seen, moment: Moment, terms: Terms) -> None:
        """L_g."""
        with torch.no_grad():
            raw = _by_view(seen.teacher_tokens, teacher.module.global_logits(seen.teacher_tokens.flatten(0, 1)))  # type: ignore[operator]
        own = _by_view(seen.student_tokens, student.global_logits(seen.student_tokens.flatten(0, 1)))
        terms.parts["global"] = dino_loss(own, raw, self.centre, moment.temperature)
        terms.monitors["student_entropy"] = entropy((own.detach() / 0.1).softmax(dim=-1).mean(dim=(0, 1)))
        terms.kept["centre"] = raw

    def _prototypes(
        self, student: Student, teacher: EMATeacher, matches: Matches, priority: Tensor, moment: Moment, terms: Terms
    ) -> None:
        """L_p."""
        rule = self.rule
        # how many there could be is known to all ranks; how many there are differs between them
        if priority.numel() > rule.most_points:
            matches = matches.take(choose_points(matches, priority, rule.most_points // max(len(priority), 1)))
        with torch.no_grad():
            points: Tensor = teacher.module.dense_head(matches.teacher)  # type: ignore[operator]
            count = moment.mean_count(points)
            target = self._assign(teacher, points, count, moment, terms)
        terms.parts["prototype"] = prototype_loss(student.dense_logits(matches.student), target, count=count)
        terms.monitors["assignment_entropy"] = entropy(target.mean(dim=0))
        terms.monitors["row_entropy"] = entropy(target).mean()

    def _assign(
        self, teacher: EMATeacher, points: Tensor, count: Tensor | None, moment: Moment, terms: Terms
    ) -> Tensor:
        """Q of the points; earlier ones help to balance where there are few."""
        prototypes: nn.Module = teacher.module.dense_prototypes  # type: ignore[assignment]
        earlier = points[:0]
        everywhere = len(points) if count is None else float(count) * moment.ranks
        if self.queue is not None and self.rule.queue and everywhere < ENOUGH * self.sizes.dense_prototypes:
            # each rank brings its share of a queue that all have
            earlier = self.queue.latest()[moment.rank :: moment.ranks].to(points)
            terms.kept["points"] = points
        logits = prototypes(torch.cat([earlier, points]))
        return sinkhorn(logits, self.rule.eps, self.rule.iterations, moment.reduce)[len(earlier) :]

    def _pixels(
        self,
        student: Student,
        teacher: EMATeacher,
        matches: Matches,
        priority: Tensor,
        batch: ViewsBatch,
        moment: Moment,
        terms: Terms,
    ) -> None:
        """L_x."""
        rule = self.rule
        # another order than the prototype term's, which has taken the lowest
        chosen = matches.take(choose_points(matches, 1 - priority, rule.pixel_points // max(len(priority), 1)))
        own = student.pixel_head(chosen.student)
        with torch.no_grad():
            theirs = teacher.module.pixel_head(chosen.teacher)  # type: ignore[operator]
        radius = rule.radius * batch["size"].max(dim=1).values.to(chosen.position)[chosen.image]
        terms.parts["pixel"] = pixel_contrast(
            own, theirs, chosen.image, chosen.position, radius,
            images_per_group=rule.images_per_group, count=moment.mean_count(own),
        )  # fmt: skip
        terms.monitors["embedding_std"] = own.detach().std(dim=0).mean()

    def _cells(
        self, student: Student, teacher: EMATeacher, seen: Seen, mask: Tensor, moment: Moment, terms: Terms
    ) -> None:
        """Term of masked cells, through the head of the image."""
        leading = len(seen.teacher_cells)
        both = seen.teacher_cells, seen.student_cells[:leading]
        theirs, own = (torch.stack([_cells_of(each) for each in maps]) for maps in both)
        with torch.no_grad():
            raw: Tensor = teacher.module.global_logits(theirs.flatten(0, 2)).view(*theirs.shape[:3], -1)  # type: ignore[operator]
        predicted = student.global_logits(own.flatten(0, 2)).view(*own.shape[:3], -1)
        hidden = mask.flatten(2).to(raw.device, non_blocking=True)
        terms.parts["masked"] = masked_cell_loss(predicted, raw, hidden, self.cell_centre, moment.temperature)
        terms.kept["cell_centre"] = raw

    def _regions(self, student: Student, teacher: EMATeacher, seen: Seen, moment: Moment, terms: Terms) -> None:
        """EsViT's term."""
        theirs, own = ([_cells_of(m) for m in maps] for maps in (seen.teacher_cells, seen.student_cells))
        with torch.no_grad():
            raw = [teacher.module.region_logits(c.flatten(0, 1)).view(*c.shape[:2], -1) for c in theirs]  # type: ignore[operator]
        predicted = [student.region_logits(c.flatten(0, 1)).view(*c.shape[:2], -1) for c in own]
        terms.parts["region"] = region_loss(predicted, raw, own, theirs, self.region_centre, moment.temperature)
        terms.kept["region_centre"] = torch.cat([each.flatten(0, 1) for each in raw])


def _by_view(tokens: Tensor, rows: Tensor) -> Tensor:
    """(V * B, K) rows of (V, B, C4) tokens -> (V, B, K)."""
    return rows.reshape(*tokens.shape[:2], -1)


def _cells_of(maps: Tensor) -> Tensor:
    """(B, C, h, w) -> (B, h * w, C)."""
    return maps.flatten(2).transpose(1, 2)
