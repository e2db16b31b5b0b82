"""Optional terms of self-distillation, its queue, and DINO as its first term: against mevt.md c and golden/ssl/README.md."""

from collections import deque

import numpy as np
import pytest
import torch
from torch import nn

from frugalseg.errors import ConfigError
from frugalseg.nn.ema import EMATeacher
from frugalseg.papers.mevt import distillation
from frugalseg.papers.mevt.dense_losses import region_loss
from frugalseg.papers.mevt.masking import draw_masks
from frugalseg.papers.mevt.methods import create_method
from frugalseg.papers.mevt.model import create
from frugalseg.papers.mevt.step import find_matches, look, seeds_of
from frugalseg.papers.mevt.terms import Moment
from tests.papers.mevt.test_step import views

HEADS = {
    "global_hidden": (16,), "prototype_hidden": (16,), "pixel_hidden": (16,), "outputs": 8, "pixel_outputs": 8,
    "global_prototypes": 12, "dense_prototypes": 10,
}  # fmt: skip
TEACHER, STUDENT, EPS = 0.05, 0.1, 0.05
DENSE = {"weights": (0.0, 1.0, 0.0), "sides": (3, 2), "eps": EPS, "queue": 500}


def setting(rule, name="mevt", heads=None, **changes):
    """A method with a student, and a teacher that is another net."""
    torch.manual_seed(0)
    method = create_method(name, rule, {**HEADS, **(heads or {})}).double()
    student = method.student(create("mevt_tiny", drop_path=0.0, **changes)).double()
    teacher = EMATeacher(student)
    for net in (student, teacher):  # heads that say more than their small first numbers
        for module, p in net.named_parameters():
            if "head" in module.removeprefix("module.").split(".")[0]:
                nn.init.normal_(p, std=0.5)
    return method, student, teacher


def batch_of(images=3, local=2, seed=0):
    batch = views(images, local, seed)
    return {k: v.double() if torch.is_tensor(v) and v.is_floating_point() else v for k, v in batch.items()}


def moment_of(batch, step=0):
    return Moment(TEACHER, seeds_of(batch["id"], step, 0))


def softmax(x):
    e = np.exp(x - x.max())
    return e / e.sum()


def cross_entropy(target, logits):
    return -sum(target * np.log(softmax(logits / STUDENT)))


def numbers(x):
    return x.detach().numpy()


# ---------------------------------------------------------------------- the global term


@pytest.mark.parametrize("local", [0, 2])
def test_dino_is_the_global_term_alone(local):
    method, student, teacher = setting({}, "dino")
    assert {name.split(".")[0] for name, _ in student.named_parameters()} == {
        "backbone",
        "global_head",
        "global_prototypes",
    }
    batch, centre = batch_of(local=local), np.zeros(12)
    seen = look(student, teacher, batch)
    ours = np.array([numbers(student.global_logits(t)) for t in seen.student_tokens])
    theirs = np.array([numbers(teacher.module.global_logits(t)) for t in seen.teacher_tokens])
    for _ in range(3):  # the centre is that of the steps before
        pairs = [
            np.mean([cross_entropy(softmax((theirs[a][b] - centre) / TEACHER), ours[v][b]) for b in range(3)])
            for a in range(2)
            for v in range(2 + local)
            if v != a
        ]
        assert len(pairs) == 2 * (1 + local)
        terms = method.terms(student, teacher, batch, moment_of(batch))
        assert terms.parts.keys() == {"global"}
        np.testing.assert_allclose(numbers(terms.total), np.mean(pairs), rtol=1e-9)
        method.update(terms, moment_of(batch))
        centre = 0.9 * centre + 0.1 * theirs.mean(axis=(0, 1))
        np.testing.assert_allclose(method.centre.numpy(), centre, rtol=1e-6)


def test_dino_has_no_weights_to_choose():
    with pytest.raises(ConfigError, match=r"model\.init_args\.rule\.weights: method dino is the global term alone"):
        create_method("dino", {"weights": (1, 1, 1)}, HEADS)


# ---------------------------------------------------------------------- masked cells and regions


@pytest.mark.parametrize("weight", [1.0, 0.3])
def test_masked_cells_predict_what_the_teacher_says_of_them(weight):
    """golden/ssl/README.md, ibot: same view; mean over the hidden cells of an image, then over images and views."""
    rule = {"weights": (1.0, 0.0, 0.0), "masked": weight, "mask_ratio": (0.4, 0.6)}
    method, student, teacher = setting(rule, mask_token=True)
    nn.init.normal_(student.backbone.encoder.mask_token)
    batch = batch_of(images=4)
    moment = moment_of(batch)
    mask = draw_masks(moment.seeds, 2, (2, 2), (0.4, 0.6))
    assert 0 < mask.flatten(2).any(dim=-1).sum() < 8  # whole views and others
    centre, images = np.zeros(12), []
    for _ in range(2):
        found, rows = [], []
        for v in range(2):
            view = batch["global_views"][:, v]
            ours = student.backbone(view, mask[v]).stages[3].flatten(2).transpose(1, 2)
            theirs = teacher.module.backbone(view).stages[3].flatten(2).transpose(1, 2)
            for n in range(4):
                raw = numbers(teacher.module.global_logits(theirs[n]))
                own, hidden = numbers(student.global_logits(ours[n])), mask[v, n].flatten().tolist()
                each = [cross_entropy(softmax((raw[i] - centre) / TEACHER), own[i]) for i in range(4) if hidden[i]]
                found.append(sum(each) / max(len(each), 1))
                rows.append(raw)
        images.append(np.mean(found))
        terms = method.terms(student, teacher, batch, moment)
        np.testing.assert_allclose(numbers(terms.parts["masked"]), images[-1], rtol=1e-9)
        expected = terms.parts["global"] + weight * terms.parts["masked"]
        np.testing.assert_allclose(numbers(terms.total), numbers(expected), rtol=1e-12)
        method.update(terms, moment)
        centre = 0.9 * centre + 0.1 * np.concatenate(rows).mean(axis=0)
        np.testing.assert_allclose(method.cell_centre.numpy(), centre, rtol=1e-6)
    assert images[0] != images[1]
    terms.parts["masked"].backward()
    assert student.backbone.encoder.mask_token.grad.abs().max() > 0
    assert all(p.grad is None for p in teacher.parameters())


def test_the_global_views_are_hidden_by_the_seeds_and_the_teacher_sees_all():
    method, student, teacher = setting({"masked": 1.0, "mask_ratio": (1.0, 1.0), "sides": (3, 2)}, mask_token=True)
    batch, given = batch_of(images=6), []
    student.backbone.encoder.register_forward_pre_hook(lambda _, inputs: given.append(inputs[1]))
    method.terms(student, teacher, batch, moment_of(batch))
    assert torch.equal(given[0].view(2, 6, 2, 2), draw_masks(moment_of(batch).seeds, 2, (2, 2), (1.0, 1.0)))
    assert len(given) == 2 and given[1] is None  # local views


def test_masks_need_a_net_that_takes_them():
    method = create_method("mevt", {"masked": 1.0}, HEADS)
    with pytest.raises(
        ConfigError, match=r"model\.init_args\.rule\.masked: this net takes no masks; set changes\.mask_token"
    ):
        method.student(create("mevt_tiny"))


def test_regions_are_compared_on_the_last_stage():
    """golden/ssl/README.md, esvit_region: the closest cell by features, the teacher's distribution of that one."""
    method, student, teacher = setting({"weights": (0.0, 0.0, 0.0), "region": 0.7})
    for p in student.backbone.parameters():  # features that differ from cell to cell and from the teacher's
        p.data += 0.05 * torch.randn_like(p)
    batch, centre = batch_of(), np.zeros(12)
    seen = look(student, teacher, batch)
    ours, theirs = ([m.flatten(2).transpose(1, 2) for m in maps] for maps in (seen.student_cells, seen.teacher_cells))
    assert [c.shape[1] for c in ours] == [4, 4, 1, 1]
    raw, own = [teacher.module.region_logits(c) for c in theirs], [student.region_logits(c) for c in ours]
    for _ in range(2):
        pairs, matches = [], set()
        for a in range(2):
            for v in range(4):
                if v == a:
                    continue
                each = []
                for b in range(3):
                    for i in range(len(own[v][b])):
                        there = numbers(theirs[a][b])
                        here = numbers(ours[v][b, i])
                        j = int(np.argmax([t @ here / np.linalg.norm(t) / np.linalg.norm(here) for t in there]))
                        matches.add(j)
                        target = softmax((numbers(raw[a][b, j]) - centre) / TEACHER)
                        each.append(cross_entropy(target, numbers(own[v][b, i])))
                pairs.append(np.mean(each))
        assert len(matches) > 1
        terms = method.terms(student, teacher, batch, moment_of(batch))
        np.testing.assert_allclose(numbers(terms.parts["region"]), np.mean(pairs), rtol=1e-9)
        again = region_loss(own, raw, ours, theirs, torch.from_numpy(centre), TEACHER)
        np.testing.assert_allclose(numbers(terms.parts["region"]), numbers(again), rtol=1e-6)
        np.testing.assert_allclose(numbers(terms.total), 0.7 * np.mean(pairs), rtol=1e-9)
        method.update(terms, moment_of(batch))
        centre = 0.9 * centre + 0.1 * np.concatenate([numbers(r).reshape(-1, 12) for r in raw]).mean(axis=0)
        np.testing.assert_allclose(method.region_centre.numpy(), centre, rtol=1e-6)
        centre = method.region_centre.numpy().copy()


# ---------------------------------------------------------------------- Sinkhorn's queue


def sinkhorn(logits, iterations=3):
    """golden/ssl/README.md, sinkhorn, as it stands there."""
    q = np.exp(logits / EPS)
    q = q / q.sum()
    for _ in range(iterations):
        q = q / q.sum(axis=0, keepdims=True) / q.shape[1]
        q = q / q.sum(axis=1, keepdims=True) / q.shape[0]
    return q * q.shape[0]


@pytest.mark.parametrize("kept", [500, 70])
def test_earlier_points_balance_a_step_with_few(kept):
    """mevt.md c.4: the queue goes before the step's points, into Sinkhorn alone."""
    method, student, teacher = setting({**DENSE, "queue": kept}, heads={"dense_prototypes": 10})
    earlier = deque(maxlen=kept)
    for step in range(3):
        batch = batch_of(images=2, seed=step)
        moment = moment_of(batch, step)
        matches, _ = find_matches(look(student, teacher, batch), batch, method.rule, moment.seeds)
        points = numbers(teacher.module.dense_head(matches.teacher))
        assert 0 < len(points) < 100
        prototypes = numbers(teacher.module.dense_prototypes.weight)
        prototypes = prototypes / np.linalg.norm(prototypes, axis=1, keepdims=True)
        everything = np.concatenate([np.array(earlier).reshape(-1, 8), points])
        assigned = sinkhorn(everything @ prototypes.T)
        np.testing.assert_allclose(assigned.sum(axis=1), 1, rtol=1e-12)
        logits = numbers(student.dense_logits(matches.student))
        mine = assigned[len(earlier) :]
        expected = np.mean([cross_entropy(q, s) for q, s in zip(mine, logits, strict=True)])
        terms = method.terms(student, teacher, batch, moment)
        np.testing.assert_allclose(numbers(terms.total), expected, rtol=1e-9)
        entropies = -(mine * np.log(np.maximum(mine, 1e-300))).sum(axis=1)
        np.testing.assert_allclose(numbers(terms.monitors["row_entropy"]), entropies.mean(), rtol=1e-6)
        if step:  # it matters, or nothing was shown
            alone = sinkhorn(points @ prototypes.T)
            without = np.mean([cross_entropy(q, s) for q, s in zip(alone, logits, strict=True)])
            assert abs(without - expected) > 1e-5
        method.update(terms, moment)
        earlier.extend(points)
        np.testing.assert_allclose(method.queue.latest().numpy(), np.array(earlier), rtol=1e-6)
    assert (len(earlier) == kept) == (kept == 70)


def test_rows_of_the_assignment_sum_to_1_with_a_queue_before_them(monkeypatch):
    method, student, teacher = setting(DENSE)
    batch, seen, real = batch_of(images=2), [], distillation.sinkhorn

    def noted(logits, *rest):
        found = real(logits, *rest)
        seen.append((len(logits), found))
        return found

    monkeypatch.setattr(distillation, "sinkhorn", noted)
    for step in range(2):
        terms = method.terms(student, teacher, batch, moment_of(batch, step))
        method.update(terms, moment_of(batch, step))
    (first, _), (second, assigned) = seen
    assert second == 2 * first
    torch.testing.assert_close(assigned.sum(dim=1), torch.ones(second, dtype=assigned.dtype))


@pytest.mark.parametrize(("prototypes", "kept"), [(4, 500), (20, 0)])
def test_a_step_with_enough_points_and_one_without_a_queue_remember_nothing(prototypes, kept):
    method, student, teacher = setting({**DENSE, "queue": kept}, heads={"dense_prototypes": prototypes})
    batch = batch_of(images=4)
    matches, _ = find_matches(look(student, teacher, batch), batch, method.rule, moment_of(batch).seeds)
    assert (len(matches.image) >= 10 * prototypes) == (prototypes == 4)
    first = method.terms(student, teacher, batch, moment_of(batch))
    method.update(first, moment_of(batch))
    assert len(method.queue.latest()) == 0
    assert torch.equal(method.terms(student, teacher, batch, moment_of(batch)).total, first.total)


def test_exactly_ten_points_per_prototype_are_enough():
    batch = batch_of(images=5)
    batch["box"][:] = torch.tensor([4, 4, 60, 60])  # every pair shares all
    count = 5 * (2 * 9 + 4 * 4)
    assert count % 10 == 0
    for prototypes, remembered in ((count // 10, 0), (count // 10 + 1, count)):
        method, student, teacher = setting(DENSE, heads={"dense_prototypes": prototypes})
        method.update(method.terms(student, teacher, batch, moment_of(batch)), moment_of(batch))
        assert len(method.queue.latest()) == remembered
