"""MEVT: a training step over the bare passes of its two nets, what its dense losses take of it, and two naive losses.

The step is that of experiments/miniature/mevt/pretrain.yaml, whose settings are read from there; views are noise, their
boxes are drawn as the recipe draws them.
"""

from collections.abc import Callable
from typing import Any, cast
from unittest.mock import patch

import numpy as np
import torch
import yaml
from torch import Tensor, nn
from torch.nn.utils import clip_grad_norm_

from frugalseg.batch import ViewsBatch
from frugalseg.data.views import Views
from frugalseg.ops.assignment import sinkhorn
from frugalseg.papers.mevt import distillation
from frugalseg.papers.mevt.losses import pixel_contrast
from frugalseg.papers.mevt.matching import choose_points
from frugalseg.papers.mevt.step import find_matches, look, seeds_of
from frugalseg.papers.mevt.student import Student
from frugalseg.papers.mevt.task import Pretrain
from frugalseg.papers.mevt.terms import Moment
from tests.benchmark.device import AS_IT_IS, Context
from tests.benchmark.measure import REPOSITORY, Measured, interleave, ratio
from tests.ops.test_assignment import slow_sinkhorn
from tests.papers.mevt.test_losses import slow_contrast

Work = Callable[[], object]
Call = tuple[tuple[Any, ...], dict[str, Any]]
IMAGE = 96
"""Side of the images that views are cut out of."""


def settings() -> dict[str, Any]:
    """The experiment's YAML."""
    path = REPOSITORY / "experiments/miniature/mevt/pretrain.yaml"
    return cast(dict[str, Any], yaml.safe_load(path.read_text()))


def make_task() -> Pretrain:
    """`mevt_tiny` with all terms, stochastic depth included."""
    torch.manual_seed(0)
    return Pretrain(**settings()["model"]["init_args"]).train()


def recipe() -> Views:
    """The experiment's views; their colours play no part here."""
    given = settings()["data"]["init_args"]["recipe"]["init_args"]
    return Views(**{key: value for key, value in given.items() if key != "changes"})


def make_batch(views: Views, images: int, image: int = IMAGE, device: str = "cpu") -> ViewsBatch:
    """A batch in memory."""
    random, rng = torch.Generator().manual_seed(1), np.random.default_rng(1)
    first, local = (torch.randn(images, *shape, generator=random).to(device) for shape in views.shapes)
    box = torch.from_numpy(np.stack([views.boxes.draw((image, image), rng) for _ in range(images)]))
    return {
        "id": [str(number) for number in range(images)],
        "global_views": first, "local_views": local, "box": box.to(device),
        "flip": (torch.rand(box.shape[:2], generator=random) < views.flip).to(device),
        "size": torch.full((images, 2), image, device=device),
    }  # fmt: skip


# ---------------------------------------------------------------------- a step


def finish(task: Pretrain, clip: float) -> Work:
    """What follows a backward pass: clipping, AdamW, the moving average."""
    optimiser = task.configure_optimizers()
    for group in optimiser.param_groups:
        group["lr"] = 1e-9  # random weights must not run away, and a step costs the same at any rate
    parameters, momentum = list(task.student.parameters()), task.hparams["momentum"]

    def run() -> None:
        clip_grad_norm_(parameters, clip)
        optimiser.step()
        optimiser.zero_grad()
        task.teacher.update(task.student, momentum)

    return run


def task_step(task: Pretrain, batch: ViewsBatch, clip: float = 3.0, context: Context = AS_IT_IS) -> Work:
    """The full training step of the task, without Lightning; every step draws other points.

    Args:
        task: whose step it is.
        batch: the views.
        clip: largest norm of the gradient.
        context: around forward pass and losses.
    """
    end, steps = finish(task, clip), iter(range(1 << 30))

    def run() -> None:
        moment = Moment(task.hparams["teacher_temperature"][0], seeds_of(batch["id"], next(steps), 0))
        with context:
            terms = task.terms(batch, moment)
            task.method.update(terms, moment)
        terms.total.backward()
        end()

    return run


HEADS = ("dense_head", "pixel_head")


def rows_of_heads(task: Pretrain, step: Work) -> dict[nn.Module, Tensor]:
    """The points that a step gives to the heads of both nets."""
    rows: dict[nn.Module, Tensor] = {}
    heads = [net.get_submodule(name) for net in (task.student, task.teacher.module) for name in HEADS]
    hooks = [h.register_forward_pre_hook(lambda head, given: rows.update({head: given[0].detach()})) for h in heads]
    step()
    for hook in hooks:
        hook.remove()
    return rows


def bare_step(task: Pretrain, batch: ViewsBatch, rows: dict[nn.Module, Tensor], end: Work | None = None) -> Work:
    """Both nets and all their heads forward, the student backward from the means of all outputs.

    Args:
        task: whose nets run.
        batch: the views.
        rows: of `rows_of_heads`; sampling them is the step's own affair.
        end: clip, step and move the teacher as well.
    """
    student, teacher = cast(Student, task.student), cast(Student, task.teacher.module)
    given = {head: points.clone().requires_grad_() for head, points in rows.items()}

    def heads(net: Student, tokens: Tensor) -> list[Tensor]:
        logits = net.global_logits(tokens.flatten(0, 1))
        return [logits, net.dense_logits(given[net.dense_head]), net.pixel_head(given[net.pixel_head])]

    def run() -> None:
        seen = look(student, task.teacher, batch)
        with torch.no_grad():
            heads(teacher, seen.teacher_tokens)
        outputs = [*heads(student, seen.student_tokens), *seen.student_maps]
        torch.stack([output.mean() for output in outputs]).sum().backward()
        if end:
            end()
        student.zero_grad()
        for points in given.values():
            points.grad = None

    return run


def step_over_bare(quick: bool) -> dict[str, Measured]:
    task, batch = make_task(), make_batch(recipe(), 2 if quick else 16)
    clip = settings()["trainer"]["gradient_clip_val"]
    step = task_step(task, batch, clip)
    rows = rows_of_heads(task, step)
    sides = {
        "step": step,
        "bare": bare_step(task, batch, rows),
        "bare_with_optimiser": bare_step(task, batch, rows, finish(task, clip)),
    }
    times = interleave(sides, 1 if quick else 13, dict.fromkeys(sides, 1 if quick else 2))
    return {
        "mevt.step_over_bare": ratio(times, "step", "bare"),
        "mevt.step_over_bare_with_optimiser": ratio(times, "step", "bare_with_optimiser"),
    }


# ---------------------------------------------------------------------- its parts


def calls_of(step: Work, *names: str) -> dict[str, list[Call]]:
    """Arguments with which a step calls functions that `distillation` names."""
    found: dict[str, list[Call]] = {name: [] for name in names}

    def listening(name: str) -> Callable[..., Any]:
        genuine = getattr(distillation, name)

        def call(*given: Any, **options: Any) -> Any:
            found[name].append((given, options))
            return genuine(*given, **options)

        return call

    with patch.multiple(distillation, **{name: listening(name) for name in names}):
        step()
    return found


def leaf(x: Tensor) -> Tensor:
    """The same numbers, to be differentiated by."""
    return x.detach().clone().requires_grad_()


def sampling(calls: dict[str, list[Call]]) -> Work:
    """Geometry of the points, features there, choice of fewer; the gradient back to the student's maps."""
    (seen, *rest), options = calls["find_matches"][0]
    seen = seen._replace(student_maps=[leaf(each) for each in seen.student_maps])

    def run() -> None:
        matches, _ = find_matches(seen, *rest, **options)
        parts = [matches.student]
        for (_, *how), more in calls["choose_points"]:
            parts.append(matches.take(choose_points(matches, *how, **more)).student)
        torch.autograd.backward(parts, [torch.ones_like(part) for part in parts])

    return run


def infonce(calls: dict[str, list[Call]]) -> Work:
    """Forward and backward of the pixel term."""
    (own, *rest), options = calls["pixel_contrast"][0]
    own = leaf(own)
    return lambda: pixel_contrast(own, *rest, **options).backward()


def shares(quick: bool) -> dict[str, Measured]:
    """Parts on the tensors of one step, timed by themselves in turn with the step."""
    task, batch = make_task(), make_batch(recipe(), 2 if quick else 16)
    step = task_step(task, batch, settings()["trainer"]["gradient_clip_val"])
    calls = calls_of(step, "find_matches", "choose_points", "sinkhorn", "pixel_contrast")
    given, options = calls["sinkhorn"][0]
    parts = {
        "sinkhorn": lambda: sinkhorn(*given, **options),
        "sampling": sampling(calls),
        "infonce": infonce(calls),
    }
    times = interleave({"step": step, **parts}, 1 if quick else 9, dict.fromkeys(parts, 5))
    points = {"sinkhorn": given[0], "infonce": calls["pixel_contrast"][0][0][0]}
    rows = {}
    for name in parts:
        one = ratio(times, name, "step")
        extra = {key: value for key, value in one.extra.items() if key in ("seconds", "rounds")}
        # the table shows this key beside the value
        extra["cpu_value"] = round(100 * one.extra["cpu_value"], 4)
        note = f"{len(points[name])} points" if name in points else ""
        rows[f"mevt.share_{name}"] = Measured(100 * one.value, note, extra)
    return rows


def losses_over_naive(quick: bool) -> dict[str, Measured]:
    """One timed round: loops over points take seconds."""
    task, batch = make_task(), make_batch(recipe(), 2 if quick else 16)
    calls = calls_of(task_step(task, batch), "sinkhorn", "pixel_contrast")
    (logits, *balance), _ = calls["sinkhorn"][0]
    (own, theirs, image, position, radius), options = calls["pixel_contrast"][0]
    points = [x.detach().double().numpy() for x in (own, theirs)]
    places = [x.numpy() for x in (image, position.double(), radius.double().expand(len(image)))]
    own, found = own.detach(), dict[str, Any]()

    def keep(name: str, work: Work) -> Work:
        return lambda: found.update({name: work()})

    sides = {
        "sinkhorn": keep("sinkhorn", lambda: sinkhorn(logits, *balance[:2])),
        "naive_sinkhorn": keep("naive_sinkhorn", lambda: slow_sinkhorn(logits.double().numpy(), *balance[:2])),
        "infonce": keep("infonce", lambda: pixel_contrast(own, theirs, image, position, radius, **options)),
        "naive_infonce": keep("naive_infonce", lambda: slow_contrast(*points, *places, 0.1, None)[0]),
    }
    times = interleave(sides, 1, {"sinkhorn": 20, "infonce": 20})
    for name in ("sinkhorn", "infonce"):
        np.testing.assert_allclose(found[name], found[f"naive_{name}"], rtol=1e-4, atol=1e-6)
    return {f"mevt.{name}_over_naive": ratio(times, f"naive_{name}", name) for name in ("sinkhorn", "infonce")}
