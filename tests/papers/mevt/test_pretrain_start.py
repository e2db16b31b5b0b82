"""Where a pretraining begins, the ends of its teacher's momentum, and bad input, each in one line."""

import pytest
import torch
from lightning.pytorch import Trainer
from torch.utils.data import DataLoader

from frugalseg.errors import CheckpointError, ConfigError, WeightsError
from frugalseg.papers.mevt import Pretrain
from tests.papers.mevt.test_step import views
from tests.papers.mevt.test_task import HEADS, QUIET, RULE

SMALL_VIT = {"depth": 2, "embed_dim": 24}


def task(method="mevt", preset="mevt_tiny", seed=0, **settings):
    torch.manual_seed(seed)
    given = {"rule": RULE if method == "mevt" else {}, "lr": 1e-2, **settings}
    return Pretrain(preset=preset, method=method, heads=given.pop("heads", HEADS), **given)


def data(count=2, images=2, local=1, change=lambda batch: batch):
    return DataLoader([change(views(images, local, seed=n)) for n in range(count)], batch_size=None)


def fit(made, loader=None, steps=2, **settings):
    trainer = Trainer(max_steps=steps, **QUIET)
    trainer.fit(made, loader or data(steps), **settings)
    return trainer


def parameters(module):
    return {name: p.detach().clone() for name, p in module.named_parameters()}


def same(one, other):
    return one.keys() == other.keys() and all(torch.equal(value, other[name]) for name, value in one.items())


def one_line(caught):
    return "\n" not in str(caught.value)


# ---------------------------------------------------------------------- the teacher (mevt.md g.5)


@pytest.mark.parametrize("method", ["mevt", "dino"])
def test_a_momentum_of_1_leaves_the_teacher_and_0_copies_the_student(method):
    made = task(method, momentum=1.0)
    first = parameters(made.teacher.module)
    fit(made)
    assert same(parameters(made.teacher.module), first) and not same(parameters(made.student), first)
    made = task(method, momentum=0.0)
    fit(made, steps=1)
    assert same(parameters(made.teacher.module), parameters(made.student)) and not same(first, parameters(made.student))


@pytest.mark.parametrize("method", ["mevt", "dino", "densecl", "pixpro"])
def test_the_teacher_has_no_gradient_and_the_optimiser_does_not_know_it(method):
    made = task(method)
    seen = []

    def note(optimizer):
        seen.append([p.grad is None and not p.requires_grad for p in made.teacher.parameters()])
        known = {id(p) for group in optimizer.param_groups for p in group["params"]}
        assert not known & {id(p) for p in made.teacher.parameters()} and known == {
            id(p) for p in made.student.parameters() if p.requires_grad
        }

    made.on_before_optimizer_step = note
    fit(made, data(1, local=0), steps=1)
    assert len(seen) == 1 and all(seen[0]) and seen[0]


# ---------------------------------------------------------------------- weights


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """Of a fit whose teacher is neither what it began with nor the student."""
    path = tmp_path_factory.mktemp("start") / "last.ckpt"
    made = task(momentum=0.5)
    fit(made).save_checkpoint(path)
    return path, made


class Begun(Exception):
    pass


def begun(made, monkeypatch, steps=1, **settings):
    """The nets as they are at the first step."""

    def stop(self, batch, batch_idx):
        raise Begun

    monkeypatch.setattr(Pretrain, "training_step", stop)
    with pytest.raises(Begun):
        fit(made, data(steps, local=0), steps=steps, **settings)
    return made


@pytest.mark.parametrize("method", ["mevt", "densecl"])
def test_student_and_teacher_begin_as_the_teacher_of_a_checkpoint(checkpoint, monkeypatch, method):
    """c.1: continuing from a trained checkpoint; also with another method's losses."""
    path, old = checkpoint
    wanted = parameters(old.teacher.module.backbone)
    assert not same(wanted, parameters(old.student.backbone))
    made = begun(task(method, seed=1, weights=str(path)), monkeypatch)
    assert same(parameters(made.student.backbone), wanted)
    assert same(parameters(made.teacher.module.backbone), wanted)
    assert same(parameters(made.teacher.module), parameters(made.student))  # the new heads
    assert not same(parameters(task(method, seed=1).student.backbone), wanted)


def test_a_baseline_begins_as_the_teacher_of_its_checkpoint_with_its_statistics(tmp_path, monkeypatch):
    old = task(preset="resnet10t", momentum=0.5)
    fit(old).save_checkpoint(tmp_path / "last.ckpt")
    made = begun(task(preset="resnet10t", seed=1, weights=str(tmp_path / "last.ckpt")), monkeypatch)
    for net in (made.student.backbone, made.teacher.module.backbone):
        assert same(net.state_dict(), old.teacher.module.backbone.state_dict())
    assert old.teacher.module.backbone.net.bn1.running_mean.abs().max() > 0


@pytest.mark.parametrize("preset", ["mevt_tiny", "resnet10t"])
def test_a_file_with_the_nets_own_names_is_a_start(tmp_path, monkeypatch, preset):
    torch.manual_seed(5)
    old = task(preset=preset, seed=5).backbone
    torch.save(getattr(old, "net", old).state_dict(), tmp_path / "net.pt")
    made = begun(task(preset=preset, weights=str(tmp_path / "net.pt")), monkeypatch)
    assert same(parameters(made.student.backbone), parameters(old))
    assert same(parameters(made.teacher.module.backbone), parameters(old))


def test_a_resumed_fit_does_not_begin_again(checkpoint, tmp_path, monkeypatch):
    path, _ = checkpoint
    first = task(seed=2, weights=str(path))
    fit(first, steps=1).save_checkpoint(tmp_path / "own.ckpt")
    made = task(seed=3, weights=str(path))
    begun(made, monkeypatch, steps=2, ckpt_path=tmp_path / "own.ckpt", weights_only=True)
    assert same(made.state_dict(), first.state_dict())
    assert not same(parameters(made.student.backbone), parameters(checkpoint[1].teacher.module.backbone))


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"preset": "mevt_xs"}, "last.ckpt: .*wanted"),
        ({"changes": {"decoder": False}}, None),
        ({"changes": {"mask_token": True}}, "last.ckpt: .*mask_token is not there"),
        ({"preset": "vit_tiny_patch16_224", "changes": SMALL_VIT}, "last.ckpt: .*is not there"),
    ],
)
def test_weights_of_another_net_are_refused(checkpoint, settings, said):
    made = task(**settings, weights=str(checkpoint[0]))
    if said is None:  # what is left over of a checkpoint does no harm
        fit(made, data(1), steps=1)
        return
    with pytest.raises(WeightsError, match=said) as caught:
        fit(made, data(1), steps=1)
    assert one_line(caught)


@pytest.mark.parametrize("weights", ["nowhere.ckpt", "mevt_tiny", "resnet50.tv_in1k"])
def test_weights_that_are_not_there_are_refused(tmp_path, monkeypatch, weights):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(WeightsError, match=weights) as caught:
        fit(task(weights=weights), data(1), steps=1)
    assert one_line(caught)


# ---------------------------------------------------------------------- checkpoints of other settings


@pytest.mark.parametrize(
    ("settings", "key"),
    [
        ({"preset": "mevt_xs"}, "preset"),
        ({"method": "dino"}, "method"),
        ({"changes": {"context": False}}, "changes"),
        ({"changes": {"output_stride": 8}}, "changes"),  # of the same tensors' names
    ],
)
def test_checkpoints_of_other_settings_are_not_resumed(checkpoint, settings, key):
    with pytest.raises(
        CheckpointError, match=rf"holds {key} .*, but the configuration asks for .*model\.init_args\.{key}$"
    ) as caught:
        fit(task(**settings), data(1), steps=3, ckpt_path=checkpoint[0], weights_only=True)
    assert one_line(caught)


def test_no_changes_and_empty_ones_are_the_same(checkpoint):
    assert fit(task(changes={}), data(3), steps=3, ckpt_path=checkpoint[0], weights_only=True).global_step == 3


# ---------------------------------------------------------------------- settings and batches


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"preset": "mevt_huge"}, r"model\.init_args\.preset is none of mevt_s, mevt_xs, mevt_tiny.*mevt_huge"),
        ({"method": "moco"}, r"model\.init_args\.method is 'moco'; set it to one of mevt, dino, densecl, pixpro"),
        ({"method": "densecl", "rule": {"eps": 0.1}}, r"model\.init_args\.rule.*eps"),
        ({"rule": {"grid": 7}}, r"model\.init_args\.rule.*grid"),
        ({"rule": {"weights": [1.0, 1.0]}}, r"rule.*weights"),
        ({"rule": {"weights": [1.0, 1.0, 1.0, 1.0]}}, r"rule.*weights"),
        ({"rule": {"weights": 1.0}}, r"rule.*weights"),
        ({"rule": {"sides": [7]}}, r"rule.*sides"),
        ({"rule": {"mask_ratio": [0.3], "masked": 1.0}, "changes": {"mask_token": True}}, r"rule.*mask_ratio"),
        (
            {"rule": {"masked": 1.0}},
            r"model\.init_args\.rule\.masked: this net takes no masks; set changes\.mask_token",
        ),
        ({"changes": {"depth": 3}}, r"model\.init_args\.changes: .*depth"),
        ({"changes": {"output_stride": 2}}, r"model\.init_args\.changes: output_stride must be"),
        ({"changes": {"joined": True}}, r"model\.init_args\.changes\.joined"),
        ({"preset": "resnet10t", "changes": {"context": False}}, r"resnet10t.*context"),
    ],
)
def test_settings_that_make_no_sense_are_refused(settings, said):
    with pytest.raises(ConfigError, match=said) as caught:
        Pretrain(**{"preset": "mevt_tiny", "heads": HEADS, **settings})
    assert one_line(caught)


def with_side(name, side):
    def change(batch):
        shape = (*batch[name].shape[:3], side, side)
        return {**batch, name: torch.zeros(shape)}

    return change


@pytest.mark.parametrize(
    ("made", "loader", "said"),
    [
        (
            lambda: task(heads={**HEADS, "norm": True}),
            lambda: data(images=1),
            r"^data\.batch_size: heads with BatchNorm need 2",
        ),
        (
            lambda: task("densecl", heads={**HEADS, "norm": True}),
            lambda: data(images=1, local=0),
            r"^data\.batch_size: heads with BatchNorm need 2",
        ),
        (
            task,
            lambda: data(change=with_side("global_views", 60)),
            r"^data\.recipe\.global_size is 60; .* multiple of 32",
        ),
        (
            task,
            lambda: data(change=with_side("local_views", 48)),
            r"^data\.recipe\.local_size is 48; .* multiple of 32",
        ),
        (
            lambda: task(preset="vit_tiny_patch16_224", changes=SMALL_VIT),
            lambda: data(change=with_side("global_views", 60)),
            r"^data\.recipe\.global_size is 60; .* multiple of 16",
        ),
        (lambda: task("densecl"), data, r"^data\.recipe\.local_views: densecl sees the two global views alone"),
        (lambda: task("pixpro"), data, r"^data\.recipe\.local_views: pixpro sees the two global views alone"),
    ],
)
def test_batches_that_cannot_be_trained_on_are_refused(made, loader, said):
    with pytest.raises(ConfigError, match=said) as caught:
        fit(made(), loader(), steps=1)
    assert one_line(caught)


def test_one_image_is_enough_for_heads_without_batch_norm():
    assert fit(task(), data(1, images=1), steps=1).global_step == 1
