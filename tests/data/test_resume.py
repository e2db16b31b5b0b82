"""A fit that is interrupted and resumed sees the batches of an uninterrupted one."""

import pytest
import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback, ModelCheckpoint

from frugalseg.data import VOC, Tags
from frugalseg.errors import CheckpointError, ConfigError


class Recorder(LightningModule):
    """Notes epoch, batch index, ids and pixels of every training batch."""

    def __init__(self, fail_at: int | None = None):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))
        self.seen, self.fail_at = [], fail_at

    def training_step(self, batch, batch_idx):
        if self.global_step == self.fail_at:
            raise RuntimeError("power cut")
        self.seen.append((self.current_epoch, batch_idx, tuple(batch["id"]), batch["image"].double().sum().item()))
        return self.weight.sum()

    def validation_step(self, batch, batch_idx):
        self.log("score", 1.0)

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


def data(root, workers=0, **settings):
    recipe = Tags(crop=32, flip=0.5)
    return VOC(root, **({"recipe": recipe, "batch_size": 2, "num_workers": workers, "seed": 5} | settings))


def trainer(folder, *callbacks, **settings):
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False, "accelerator": "cpu"}
    checkpoints = any(isinstance(callback, ModelCheckpoint) for callback in callbacks)
    quiet |= {"default_root_dir": folder, "callbacks": list(callbacks), "enable_checkpointing": checkpoints}
    quiet |= {"num_sanity_val_steps": 0, "max_epochs": 3} | settings
    return Trainer(**quiet)


def uninterrupted(root, tmp_path, **settings):
    model = Recorder()
    trainer(tmp_path, **settings).fit(model, datamodule=data(root))
    return model.seen


def every_step(folder):
    return ModelCheckpoint(folder, filename="{step}", every_n_train_steps=1, save_top_k=-1)


@pytest.fixture
def root(voc_root):
    # 3 batches of 2 a epoch (7 images, the last is dropped)
    return voc_root


def test_three_epochs_see_three_orders(root, tmp_path):
    seen = uninterrupted(root, tmp_path)
    assert [entry[:2] for entry in seen] == [(epoch, batch) for epoch in range(3) for batch in range(3)]
    assert len({tuple(entry[2] for entry in seen[first : first + 3]) for first in (0, 3, 6)}) == 3


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("steps", [4, 5])
@pytest.mark.filterwarnings("error:You're resuming from a checkpoint")
def test_stopped_inside_an_epoch(root, tmp_path, workers, steps):
    expected = uninterrupted(root, tmp_path)
    first, second = Recorder(), Recorder()
    stopped = trainer(tmp_path, every_step(tmp_path), max_steps=steps)
    stopped.fit(first, datamodule=data(root, workers))
    module = data(root, workers)
    resumed = trainer(tmp_path)
    resumed.fit(second, datamodule=module, ckpt_path=tmp_path / f"step={steps}.ckpt", weights_only=False)
    assert first.seen + second.seen == expected
    assert resumed.num_training_batches == 3
    assert resumed.global_step == 9


@pytest.mark.parametrize("step", range(1, 9))
def test_resumed_from_the_checkpoint_of_every_step(root, tmp_path, step):
    # among them 3 and 6: saved after the last batch of an epoch
    whole, model = Recorder(), Recorder()
    trainer(tmp_path, every_step(tmp_path)).fit(whole, datamodule=data(root))
    trainer(tmp_path).fit(model, datamodule=data(root), ckpt_path=tmp_path / f"step={step}.ckpt", weights_only=False)
    assert [entry[2:] for entry in model.seen] == [entry[2:] for entry in whole.seen[step:]]


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("when", ["train_epoch_end", "validation_end"])
def test_saved_at_the_end_of_an_epoch(root, tmp_path, workers, when):
    expected = uninterrupted(root, tmp_path)
    keep = ModelCheckpoint(
        tmp_path, filename="{epoch}", save_top_k=-1, save_on_train_epoch_end=when == "train_epoch_end"
    )
    first, second = Recorder(), Recorder()
    trainer(tmp_path, keep, max_epochs=2).fit(first, datamodule=data(root, workers))
    trainer(tmp_path).fit(
        second, datamodule=data(root, workers), ckpt_path=tmp_path / "epoch=1.ckpt", weights_only=False
    )
    assert [entry[2:] for entry in first.seen + second.seen] == [entry[2:] for entry in expected]


def test_interrupted_twice_in_one_epoch_with_validation_between(root, tmp_path):
    settings = {"val_check_interval": 1}
    expected = uninterrupted(root, tmp_path, **settings)
    seen = []
    for number, steps in enumerate((4, 5, -1)):
        model = Recorder()
        path = tmp_path / f"{number - 1}" / f"step={len(seen)}.ckpt" if number else None
        trainer(tmp_path, every_step(tmp_path / f"{number}"), max_steps=steps, **settings).fit(
            model, datamodule=data(root), ckpt_path=path, weights_only=False
        )
        seen += model.seen
    assert seen == expected


def test_a_batch_whose_step_failed_is_seen_again(root, tmp_path):
    class SaveOnFailure(Callback):
        def on_exception(self, trainer, pl_module, exception):
            trainer.save_checkpoint(tmp_path / "failed.ckpt")

    expected = uninterrupted(root, tmp_path)
    first, second = Recorder(fail_at=4), Recorder()
    with pytest.raises(RuntimeError, match="power cut"):
        trainer(tmp_path, SaveOnFailure()).fit(first, datamodule=data(root))
    trainer(tmp_path).fit(second, datamodule=data(root), ckpt_path=tmp_path / "failed.ckpt", weights_only=False)
    assert first.seen + second.seen == expected


def test_other_batches_are_refused_inside_an_epoch_only(root, tmp_path):
    at_end = ModelCheckpoint(tmp_path, filename="{epoch}", save_top_k=-1, save_on_train_epoch_end=True)
    trainer(tmp_path, every_step(tmp_path), at_end, max_epochs=2).fit(Recorder(), datamodule=data(root))
    model, other = Recorder(), data(root, batch_size=1)
    trainer(tmp_path).fit(model, datamodule=other, ckpt_path=tmp_path / "epoch=0.ckpt", weights_only=False)
    assert len(model.seen) == 14
    assert len({entry[2] for entry in model.seen[:7]}) == 7
    with pytest.raises(CheckpointError, match="step 2 -> 1"):
        trainer(tmp_path).fit(Recorder(), datamodule=other, ckpt_path=tmp_path / "step=4.ckpt", weights_only=False)


def test_a_position_of_another_run_is_forgotten(root, tmp_path):
    expected = uninterrupted(root, tmp_path)
    trainer(tmp_path, every_step(tmp_path), max_steps=4).fit(Recorder(), datamodule=data(root))
    module, model = data(root), Recorder()
    trainer(tmp_path).validate(model, datamodule=module, ckpt_path=tmp_path / "step=4.ckpt", weights_only=False)
    trainer(tmp_path).fit(model, datamodule=module)
    assert model.seen == expected


def test_limited_epochs(root, tmp_path):
    expected = uninterrupted(root, tmp_path, limit_train_batches=2)
    first, second = Recorder(), Recorder()
    settings = {"limit_train_batches": 2}
    trainer(tmp_path, every_step(tmp_path), max_steps=3, **settings).fit(first, datamodule=data(root))
    trainer(tmp_path, **settings).fit(
        second, datamodule=data(root), ckpt_path=tmp_path / "step=3.ckpt", weights_only=False
    )
    assert first.seen + second.seen == expected


def test_state_outside_of_a_fit_is_empty_and_overfit_is_refused(root, tmp_path):
    assert data(root).state_dict() == {}
    with pytest.raises(ConfigError, match="overfit_batches"):
        trainer(tmp_path, overfit_batches=1).fit(Recorder(), datamodule=data(root))


@pytest.mark.parametrize("steps", [1, 2, 3, 4, 5])
def test_more_steps_after_a_fit_that_ended_by_its_steps(root, tmp_path, steps):
    """Lightning counts the epoch that `max_steps` cut off as done; the batches go on as if nothing had ended."""
    endless = {"max_epochs": -1}
    whole = uninterrupted(root, tmp_path / "whole", max_steps=9, **endless)
    first, second = Recorder(), Recorder()
    begun = trainer(tmp_path / "first", max_steps=steps, **endless)
    begun.fit(first, datamodule=data(root))
    begun.save_checkpoint(tmp_path / "end.ckpt")  # as `frugalseg fit` does last of all
    more = trainer(tmp_path / "second", max_steps=9, **endless)
    more.fit(second, datamodule=data(root), ckpt_path=tmp_path / "end.ckpt")
    assert [step[2:] for step in first.seen + second.seen] == [step[2:] for step in whole]
