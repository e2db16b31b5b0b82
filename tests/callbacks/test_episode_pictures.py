"""Panels of episodes: what is where and in which colour; which episodes are chosen; when nothing is drawn."""

import types

import numpy as np
import pytest
import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.loggers import Logger
from PIL import Image
from torch.utils.data import DataLoader

from frugalseg.callbacks import EpisodePictures
from frugalseg.callbacks.episode_panel import CAPTION, GAP, NARROWEST, Drawn, episode_panel, iou_text
from frugalseg.callbacks.episode_pictures import drawn
from frugalseg.errors import ConfigError
from frugalseg.ops.palette import heat

SIZE = (40, 200)  # wider than `NARROWEST`, so one pixel of an image is one of the panel
RED, GREY = np.array([224, 24, 24]), np.array([120, 120, 120])


def episode(shots=2, stages=3, prior=True, size=SIZE):
    """Every image has a grey level of its own; masks have the class at their left and ignored rows below it."""
    mask = np.zeros(size, np.int64)
    mask[:20, :50], mask[30:] = 1, 255
    levels = (np.arange(shots) * 20 + 100).astype(np.uint8)
    return Drawn(
        query=np.full((*size, 3), 60, np.uint8),
        truth=mask,
        supports=np.broadcast_to(levels[:, None, None, None], (shots, *size, 3)),
        support_masks=np.stack([np.roll(mask, 10 * shot, axis=1) for shot in range(shots)]),
        prediction=np.where(mask == 1, 0, 1),
        prior=np.full((3, 5), 0.25) if prior else None,
        graph_maps=[np.full((2, 2), 0.5 + 0.25 * stage) for stage in range(stages)],
        label="8",
    )


def cell(panel, row, column, size=SIZE):
    """The picture of a cell, without its caption."""
    height, width = size
    top, left = row * (height + CAPTION + GAP) + CAPTION, column * (width + GAP)
    return panel[top : top + height, left : left + width]


def blend(colour, level):
    return (np.asarray(colour, float) + level) / 2


def test_masks_are_tinted_in_the_first_row():
    panel = episode_panel(episode())
    assert panel.shape == (2 * (SIZE[0] + CAPTION + GAP), 5 * (SIZE[1] + GAP), 3) and panel.dtype == np.uint8
    for shot in range(2):
        support = cell(panel, 0, shot)
        assert np.abs(support[5, 10 * shot + 20] - blend(RED, 100 + 20 * shot)).max() <= 0.5
        assert np.abs(support[35, 5] - blend(GREY, 100 + 20 * shot)).max() <= 0.5
        assert (support[25] == 100 + 20 * shot).all()
    assert (cell(panel, 0, 2) == 60).all()
    truth, prediction = cell(panel, 0, 3), cell(panel, 0, 4)
    assert np.abs(truth[5, 5] - blend(RED, 60)).max() <= 0.5 and (truth[5, 60] == 60).all()
    assert np.abs(prediction[5, 60] - blend(RED, 60)).max() <= 0.5 and (prediction[5, 5] == 60).all()


def test_maps_are_heats_over_the_query_in_the_second_row():
    panel = episode_panel(episode())
    for column, value in enumerate((0.25, 0.5, 0.75, 1.0), start=1):  # ends at the right
        expected = blend(heat(np.array([[value]]))[0, 0], 60)
        assert np.abs(cell(panel, 1, column) - expected).max() <= 0.5
    assert (cell(panel, 1, 0) == 255).all()


def test_a_coarse_map_lies_where_its_places_are():
    found = episode()._replace(prior=np.array([[0.0, 1.0]]))
    left, right = (cell(episode_panel(found), 1, 1)[20, x].astype(int) for x in (10, 190))
    assert right[0] > left[0] + 80 and left[2] > right[2] + 20  # red to the right, blue to the left


@pytest.mark.parametrize("part", ["prior", "stage", "prediction", "truth", "support_masks", "query"])
def test_a_change_shows_in_its_own_cell_and_caption(part):
    given = episode()
    maps = [m.copy() for m in given.graph_maps]
    maps[1][0, 0] = 0.1
    turned = {
        "prior": {"prior": given.prior * 2}, "stage": {"graph_maps": maps},
        "prediction": {"prediction": np.zeros_like(given.truth)}, "truth": {"truth": given.truth.T.reshape(SIZE)},
        "support_masks": {"support_masks": given.support_masks[::-1].copy()}, "query": {"query": given.query + 9},
    }  # fmt: skip
    one, other = episode_panel(given), episode_panel(given._replace(**turned[part]))
    rows, columns = (one != other).any(axis=-1).nonzero()
    cells = set(zip((rows // (SIZE[0] + CAPTION + GAP)).tolist(), (columns // (SIZE[1] + GAP)).tolist(), strict=True))
    expected = {
        "prior": {(1, 1)}, "stage": {(1, 3)}, "prediction": {(0, 4)},
        "truth": {(0, 3), (0, 4)},  # the IoU in the prediction's caption is another one
        "support_masks": {(0, 0), (0, 1)},
        "query": {(0, 2), (0, 3), (0, 4), (1, 1), (1, 2), (1, 3), (1, 4)},
    }  # fmt: skip
    assert cells == expected[part]


def test_every_cell_has_a_caption():
    panel = episode_panel(episode())
    height = SIZE[0] + CAPTION + GAP
    for row, first in enumerate((0, 1)):
        for column in range(first, 5):
            title = panel[row * height : row * height + CAPTION, column * (SIZE[1] + GAP) :][:, : SIZE[1]]
            assert (title < 100).any()


def test_the_class_is_named_over_the_truth():
    one, other = episode_panel(episode()), episode_panel(episode()._replace(label="9 small vehicle"))
    rows, columns = (one != other).any(axis=-1).nonzero()
    assert rows.max() < CAPTION and set((columns // (SIZE[1] + GAP)).tolist()) == {3}


@pytest.mark.parametrize(("prior", "stages", "rows"), [(True, 0, 2), (False, 2, 2), (False, 0, 1)])
def test_methods_without_maps(prior, stages, rows):
    panel = episode_panel(episode(prior=prior, stages=stages))
    assert panel.shape[0] == rows * (SIZE[0] + CAPTION + GAP)


@pytest.mark.parametrize(("shots", "shown"), [(1, 1), (5, 5), (10, 5)])
def test_at_most_five_supports(shots, shown):
    assert episode_panel(episode(shots=shots)).shape[1] == max(shown + 3, 4) * (SIZE[1] + GAP)


def test_small_images_are_enlarged_by_whole_pixels():
    size = (24, 20)
    factor = -(-NARROWEST // 20)
    large = (24 * factor, 20 * factor)
    panel = episode_panel(episode(size=size))
    assert panel.shape == (2 * (large[0] + CAPTION + GAP), 5 * (large[1] + GAP), 3)
    truth = cell(panel, 0, 3, large)
    assert (truth == truth[::factor, ::factor].repeat(factor, 0).repeat(factor, 1)).all()


def test_iou_leaves_ignored_pixels_out():
    truth = np.array([[1, 1, 0, 255]])
    assert iou_text(np.array([[1, 0, 1, 1]]), truth) == f"IoU {100 / 3:.1f} %"
    assert iou_text(np.zeros((1, 4), int), np.array([[0, 0, 255, 255]])) == "IoU undefined"


# ---------------------------------------------------------------------- the callback


class Loud(LightningModule):
    """Answers with the true mask, and with maps that depend on the query; or without maps."""

    def __init__(self, maps=True):
        super().__init__()
        self.maps = maps
        self.weight = torch.nn.Parameter(torch.zeros(()))

    def test_step(self, batch, batch_idx, dataloader_idx=0):
        logits = torch.stack([batch["query_mask"] != 1, batch["query_mask"] == 1], dim=1).to(torch.bfloat16)
        if not self.maps:
            return {"logits": logits, "graph_maps": [], "prior": None}
        maps = [torch.full((len(logits), 1, s, s + 1), 0.1 * s) for s in (3, 4)]
        return {"logits": logits, "graph_maps": maps, "prior": torch.rand(len(logits), 1, 3, 4)}

    def validation_step(self, batch, batch_idx, dataloader_idx=0):
        return self.test_step(batch, batch_idx)

    def training_step(self, batch, batch_idx):
        return self.weight * 2

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 0.1)


class Listening(Logger):
    """Keeps what it is given."""

    name, version = "listening", "0"

    def __init__(self):
        super().__init__()
        self.pictures = []

    def log_image(self, key, images):
        self.pictures.append((key, np.asarray(images[0])))

    def log_metrics(self, metrics, step=None): ...

    def log_hyperparams(self, params): ...


def batch_of(classes, first=0, shots=1, size=(24, 20)):
    count = len(classes)
    random = torch.Generator().manual_seed(first)
    masks = torch.zeros(count, *size, dtype=torch.int64)
    masks[:, 4:12, 6:] = 1
    return {
        "id": [f"q{first + n}" for n in range(count)], "support_id": [["s"] * shots] * count,
        "query_image": torch.randn(count, 3, *size, generator=random), "query_mask": masks,
        "support_images": torch.randn(count, shots, 3, *size, generator=random),
        "support_masks": masks[:, None].expand(-1, shots, -1, -1), "class_id": torch.tensor(classes),
        "number": torch.arange(first, first + count),
    }  # fmt: skip


def loader(classes, batch=1, **settings):
    starts = range(0, len(classes), batch)
    return DataLoader([batch_of(classes[s : s + batch], s, **settings) for s in starts], batch_size=None)


QUIET = {
    "enable_checkpointing": False, "enable_progress_bar": False, "enable_model_summary": False, "accelerator": "cpu",
}  # fmt: skip


def written(folder):
    assert not list((folder / "pictures").glob(".*"))  # drafts are gone
    return sorted(path.stem for path in (folder / "pictures").iterdir())


def run_test(folder, *loaders, maps=True, **settings):
    listening = Listening()
    callback = EpisodePictures(**settings)
    trainer = Trainer(default_root_dir=folder, callbacks=[callback], logger=listening, **QUIET)
    trainer.test(Loud(maps), list(loaders), verbose=False)
    return listening.pictures


@pytest.mark.parametrize("batch", [1, 4])
def test_classes_take_turns(tmp_path, batch):
    """Three classes one after another, as some lists are: each has its first before any has its second."""
    classes = [3] * 5 + [12] * 5 + [1]
    given = run_test(tmp_path, loader(classes, batch), count=4)
    names = ["test_class01_episode00010", "test_class03_episode00000", "test_class03_episode00001",
             "test_class12_episode00005"]  # fmt: skip
    assert written(tmp_path) == names
    assert sorted(key.replace("/episodes/", "_") for key, _ in given) == names
    for key, picture in given:
        path = tmp_path / "pictures" / f"{key.replace('/episodes/', '_')}.png"
        assert (np.asarray(Image.open(path)) == picture).all()


def test_or_the_first_ones_are_taken(tmp_path):
    run_test(tmp_path, loader([3] * 5 + [12]), count=2, classes=False)
    assert written(tmp_path) == ["test_class03_episode00000", "test_class03_episode00001"]


@pytest.mark.parametrize("shots", [1, 5])
def test_only_the_first_base_seed_is_drawn(tmp_path, shots):
    first, second = loader([1, 2], shots=shots), loader([4, 5, 6], shots=shots)
    run_test(tmp_path, first, second)
    assert written(tmp_path) == ["test_class01_episode00000", "test_class02_episode00001"]


def test_a_baseline_without_maps_has_one_row(tmp_path):
    (_, with_maps), (_, without) = (
        run_test(tmp_path / str(maps), loader([1], size=SIZE), maps=maps)[0] for maps in (True, False)
    )
    height = SIZE[0] + CAPTION + GAP
    assert (with_maps.shape[0], without.shape[0]) == (2 * height, height)
    assert (with_maps[:height] == without).all()


def test_fewer_episodes_than_asked_for_and_none_at_all(tmp_path):
    run_test(tmp_path, loader([1, 2]), count=6)
    assert len(written(tmp_path)) == 2
    assert run_test(tmp_path / "none", loader([1]), count=0) == [] and not (tmp_path / "none/pictures").exists()


def test_each_validation_writes_its_own_and_the_sanity_check_nothing(tmp_path):
    listening = Listening()
    trainer = Trainer(
        default_root_dir=tmp_path, callbacks=[EpisodePictures()], logger=listening, num_sanity_val_steps=2,
        max_epochs=2, log_every_n_steps=1, **QUIET,
    )  # fmt: skip
    trainer.fit(Loud(), loader([1, 1, 1]), loader([7, 7]))
    expected = [f"val_class07_episode0000{n}_step00000{step}" for n in (0, 1) for step in (3, 6)]
    assert written(tmp_path) == expected
    assert [key for key, _ in listening.pictures] == [f"val/episodes/class07_episode0000{n}" for n in (0, 1)] * 2


def test_another_rank_draws_nothing(tmp_path):
    trainer = types.SimpleNamespace(
        is_global_zero=False, sanity_checking=False, default_root_dir=tmp_path, loggers=[Listening()], datamodule=None
    )
    callback, batch = EpisodePictures(), batch_of([1])
    for zero, expected in ((False, 0), (True, 1)):
        trainer.is_global_zero = zero
        callback.on_test_epoch_start(trainer, None)
        callback.on_test_batch_end(trainer, None, Loud().test_step(batch, 0), batch, 0)
        callback.on_test_epoch_end(trainer, None)
        assert len(trainer.loggers[0].pictures) == len(list(tmp_path.glob("pictures/*"))) == expected


@pytest.mark.parametrize("outputs", [None, {"maps": 1}, torch.zeros(())])
def test_other_outputs_are_passed_over(tmp_path, outputs):
    trainer = types.SimpleNamespace(is_global_zero=True, sanity_checking=False)
    callback = EpisodePictures()
    callback.on_validation_batch_end(trainer, None, outputs, batch_of([1]), 0)
    assert callback._kept == []


def test_a_failing_disk_leaves_no_half_picture(tmp_path, monkeypatch):
    def breaks(self, file, **kwargs):
        file.write_bytes(b"half")
        raise OSError("broken")

    monkeypatch.setattr(Image.Image, "save", breaks)
    with pytest.raises(OSError, match="broken"):
        run_test(tmp_path, loader([1]))
    assert written(tmp_path) == []


def test_colours_are_those_before_the_recipe_normalised_them():
    pixels = torch.randint(0, 256, (1, 3, 24, 20), generator=torch.Generator().manual_seed(5))
    mean, std = (0.4, 0.5, 0.6), (0.2, 0.3, 0.25)
    batch = batch_of([2])
    batch["query_image"] = (pixels / 255 - torch.tensor(mean).view(3, 1, 1)) / torch.tensor(std).view(3, 1, 1)
    outputs = Loud().test_step(batch, 0)
    recipe = types.SimpleNamespace(normaliser=types.SimpleNamespace(mean=mean, std=std))
    data = types.SimpleNamespace(recipe=recipe, class_names=("background", "ship", "storage tank"))
    found = drawn(batch, outputs, 0, data)
    assert (found.query == pixels[0].permute(1, 2, 0).numpy()).all() and found.label == "2 storage tank"
    stretched = drawn(batch, outputs, 0)
    assert (stretched.query.min(), stretched.query.max(), stretched.label) == (0, 255, "2")


def test_a_negative_count_is_refused():
    with pytest.raises(ConfigError, match=r"EpisodePictures\.count is -1"):
        EpisodePictures(count=-1)
