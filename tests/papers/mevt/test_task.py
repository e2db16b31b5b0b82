"""MEVT's task: schedules per step, the teacher follows, prototypes wait, a resumed fit goes on with the same losses."""

import pytest
import torch
from lightning.pytorch import Trainer
from torch.utils.data import DataLoader

from frugalseg.errors import ConfigError
from frugalseg.optim import cosine_schedule, linear_warmup
from frugalseg.papers.mevt import Pretrain
from frugalseg.papers.mevt.step import seeds_of
from tests.papers.mevt.test_step import views

QUIET = {
    "logger": False, "enable_checkpointing": False, "enable_progress_bar": False, "enable_model_summary": False,
    "accelerator": "cpu",
}  # fmt: skip
HEADS = {
    "global_hidden": [16], "prototype_hidden": [16], "pixel_hidden": [16], "outputs": 8, "pixel_outputs": 8,
    "global_prototypes": 12, "dense_prototypes": 10,
}  # fmt: skip
RULE = {"weights": [0.5, 1.0, 1.0], "sides": [4, 3], "pixel_points": 40, "eps": 0.02}
STEPS = 4


class Noted(Pretrain):
    """Notes what a step finds and leaves."""

    def on_fit_start(self):
        self.seen = []

    def training_step(self, batch, batch_idx):
        loss = super().training_step(batch, batch_idx)
        groups = self.optimizers().optimizer.param_groups
        self.seen.append((float(loss.detach()), [g["lr"] for g in groups], [g["weight_decay"] for g in groups]))
        return loss


def task(**settings):
    torch.manual_seed(0)
    return Noted(preset="mevt_tiny", changes={"drop_path": 0.0}, heads=HEADS, rule=RULE, **settings)


def batches(count=STEPS, images=2):
    return DataLoader([views(images, local=1, seed=n) for n in range(count)], batch_size=None)


def test_rates_and_weight_decay_are_set_at_every_step():
    made = task(lr=0.1, min_lr=0.01, warmup=2, weight_decay=(0.04, 0.4))
    Trainer(max_epochs=1, **QUIET).fit(made, batches())
    for step, (_, rates, decays) in enumerate(made.seen):
        rate, decay = cosine_schedule(step, STEPS, 0.1, 0.01, 2), cosine_schedule(step, STEPS, 0.04, 0.4)
        assert rates == [rate, rate] and decays == [pytest.approx(decay), 0.0]
    assert made.seen[0][1][0] == 0 and made.seen[1][1][0] == 0.1


def test_the_teacher_is_the_students_average():
    made = task(lr=1e-2, momentum=0.9)
    before = {name: value.clone() for name, value in made.student.named_parameters()}
    Trainer(max_steps=1, **QUIET).fit(made, batches())
    for name, parameter in made.teacher.module.named_parameters():
        own = dict(made.student.named_parameters())[name]
        torch.testing.assert_close(parameter, 0.9 * before[name] + 0.1 * own, rtol=1e-5, atol=1e-7)
    assert made.method.centre.any()


def test_prototypes_wait():
    made = task(lr=1e-2, frozen_steps=2)
    rows = [made.student.global_prototypes.weight, made.student.dense_prototypes.weight]
    before = [row.detach().clone() for row in rows]
    Trainer(max_steps=2, **QUIET).fit(made, batches())
    assert all(torch.equal(row, was) for row, was in zip(rows, before, strict=True))
    free = task(lr=1e-2)
    Trainer(max_steps=2, **QUIET).fit(free, batches())
    assert not torch.equal(free.student.dense_prototypes.weight, before[1])


def test_a_resumed_fit_goes_on_with_the_same_losses(tmp_path):
    whole = task(lr=1e-2)
    Trainer(max_epochs=2, **QUIET).fit(whole, batches())
    first = task(lr=1e-2)

    class Halfway(Trainer):
        """Knows of both epochs, as the schedules do, and stops after the first."""

    trainer = Halfway(max_epochs=2, **QUIET)
    trainer.fit_loop.max_epochs = 2

    def stop(*_):
        trainer.save_checkpoint(tmp_path / "half.ckpt")
        trainer.should_stop = True

    first.on_train_epoch_end = stop
    trainer.fit(first, batches())
    second = task(lr=1e-2)
    Trainer(max_epochs=2, **QUIET).fit(second, batches(), ckpt_path=tmp_path / "half.ckpt", weights_only=True)
    losses = [loss for loss, *_ in whole.seen]
    assert len(losses) == 2 * STEPS
    assert [loss for loss, *_ in first.seen] == losses[:STEPS]
    assert [loss for loss, *_ in second.seen] == losses[STEPS:]


def test_one_image_is_too_few_for_heads_with_batch_norm():
    made = Pretrain(preset="mevt_tiny", heads={**HEADS, "norm": True}, rule=RULE)
    with pytest.raises(ConfigError, match=r"^data\.batch_size: heads with BatchNorm need 2 images"):
        Trainer(max_steps=1, **QUIET).fit(made, batches(images=1))


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"rule": {"side": 3}}, r"model\.init_args\.rule or heads: .*'side'"),
        ({"heads": {"width": 3}}, r"model\.init_args\.rule or heads: .*'width'"),
        ({"rule": {"weights": (0, 0, 0)}}, r"model\.init_args\.rule\.weights: every term has weight 0"),
    ],
)
def test_settings_that_make_no_sense_are_refused(settings, said):
    with pytest.raises(ConfigError, match=said):
        Pretrain(preset="mevt_tiny", **settings)


def test_the_teacher_moves_once_per_optimiser_step_however_many_batches_it_takes():
    made, moves = task(lr=1e-2, momentum=0.9), []
    update = made.teacher.update
    made.teacher.update = lambda *given, **named: (moves.append(given[1]), update(*given, **named))
    Trainer(max_epochs=1, accumulate_grad_batches=2, **QUIET).fit(made, batches())
    assert moves == [cosine_schedule(step, STEPS // 2, 0.9, 1.0) for step in range(STEPS // 2)]


def test_temperature_places_and_prototypes_follow_the_step(monkeypatch):
    made, moments, held = task(teacher_temperature=(0.04, 0.07), temperature_steps=3, frozen_steps=2), [], []
    terms, before = made.terms, made.on_before_optimizer_step

    def noted(optimizer):
        before(optimizer)
        held.append(made.student.dense_prototypes.weight.grad is None)

    monkeypatch.setattr(made, "terms", lambda batch, moment: moments.append(moment) or terms(batch, moment))
    monkeypatch.setattr(made, "on_before_optimizer_step", noted)
    Trainer(max_epochs=1, **QUIET).fit(made, batches())
    ids = next(iter(batches()))["id"]
    assert [m.temperature for m in moments] == [linear_warmup(n, 3, 0.04, 0.07) for n in range(STEPS)]
    assert [m.seeds for m in moments] == [seeds_of(ids, n, 0) for n in range(STEPS)]
    assert held == [True, True, False, False]


def test_a_weight_decay_may_begin_with_0():
    made = task(weight_decay=(0.0, 0.4))
    Trainer(max_epochs=1, **QUIET).fit(made, batches())
    assert made.seen[-1][2][0] > 0 and made.seen[-1][2][1] == 0
