"""Channels last: the same numbers up to rounding, in maps that lie in memory as convolutions want them."""

import pytest
import torch
from torch import nn

from frugalseg.callbacks import ChannelsLast
from frugalseg.callbacks.layout import lay_out
from tests.integration.speed_cases import CASES, distance, fit, write_worlds

BOUND = 1e-9
"""Relative, of losses and gradients in float64, where rounding starts at 1e-16; an error of layout is of the order of 1."""
EXACT = {"precision": "64-true"}
CONVOLUTIONAL = [
    "sfc", "tags", "finetune",
    *(pytest.param(name, marks=pytest.mark.slow) for name in ("dsmf", "mevt", "densecl", "irn", "psa", "deeplab")),
]  # fmt: skip
"""The dear ones are marked: they say no more than the others, but of every net."""


@pytest.fixture(scope="module")
def worlds(tmp_path_factory):
    from frugalseg.miniature.voc import write_voc_world

    root = tmp_path_factory.mktemp("worlds")
    return write_worlds(root, write_voc_world(root / "VOC2012", images_train=24, images_val=6, seed=3))


def is_last(x):
    return x.is_contiguous(memory_format=torch.channels_last)


def convolutions(task):
    return [m for m in task.modules() if isinstance(m, nn.Conv2d | nn.ConvTranspose2d)]


@pytest.mark.parametrize("name", CONVOLUTIONAL)
def test_a_fit_computes_the_same(name, worlds):
    case, maps = CASES[name], []
    plain = fit(case, case.data(worlds), 2, **EXACT)
    torch.manual_seed(0)
    task = case.task()
    watched = [m for m in convolutions(task) if m.kernel_size != (1, 1)]
    for module in watched:
        module.register_forward_hook(lambda _, inputs, output: maps.append((inputs[0], output)))
    found = fit(case, case.data(worlds), 2, ChannelsLast(), task=task, **EXACT)
    assert all(is_last(m.weight) for m in convolutions(found.task))
    assert all(is_last(m.weight.grad) for m in watched if m.weight.grad is not None)
    assert maps and all(is_last(output) for _, output in maps)
    assert found.losses == pytest.approx(plain.losses, rel=BOUND)
    assert distance(found, plain) <= BOUND


def test_a_checkpoint_of_either_layout_goes_on_in_the_other(worlds, tmp_path):
    """AdamW's averages too: the fused kernel walks memory."""
    case = CASES["tags"]
    ends = {}
    for first, second in (((), ()), ((ChannelsLast(),), ()), ((), (ChannelsLast(),))):
        path = tmp_path / f"{len(first)}{len(second)}.ckpt"
        fitted = fit(case, case.data(worlds), 2, *first)
        fitted.task.trainer.save_checkpoint(path)
        assert fitted.task.state_dict().keys() == torch.load(path, weights_only=True)["state_dict"].keys()
        task = resumed(case, worlds, path, second)
        ends[len(first), len(second)] = torch.cat([p.detach().flatten() for p in task.parameters()])
    for end in ends.values():
        torch.testing.assert_close(end, ends[0, 0], rtol=0, atol=2e-5)
    assert not torch.equal(ends[0, 0], torch.zeros_like(ends[0, 0]))


def resumed(case, worlds, path, callbacks):
    from lightning.pytorch import Trainer

    from tests.integration.speed_cases import QUIET

    task = case.task()
    trainer = Trainer(max_steps=4, max_epochs=-1, callbacks=[*callbacks], limit_val_batches=0, **QUIET)
    trainer.fit(task, datamodule=case.data(worlds), ckpt_path=path, weights_only=True)
    return task


def test_images_are_laid_out_in_place_and_nothing_else_is():
    image, views, mask = torch.rand(2, 3, 4, 4), torch.rand(2, 2, 3, 4, 4), torch.ones(2, 3, 4, 4, dtype=torch.int64)
    batch = {"image": image, "images": [image], "views": views, "mask": mask, "id": ["a", "b"], "size": (4, 4)}
    lay_out(batch)
    assert is_last(batch["image"]) and is_last(batch["images"][0]) and torch.equal(batch["image"], image)
    assert batch["views"] is views and batch["mask"] is mask and batch["id"] == ["a", "b"]
    lay_out(None)
