"""The data module over a user's folder: every recipe, resuming, digests, and what is refused."""

import itertools
import logging

import numpy as np
import pytest
import torch
from lightning.pytorch import LightningModule, Trainer
from PIL import Image
from torch import nn

from frugalseg.data import Episodes, Folder, MultiScale, Segment, Tags, Views
from frugalseg.data.folder_write import write_tags as tags_of_masks
from frugalseg.errors import ConfigError, DatasetError, DatasetNotFoundError, MaskError
from tests.data.image_folder import write_image
from tests.data.user_folder import (
    CLASSES,
    ids_of,
    names_of,
    shown,
    write_all,
    write_classes,
    write_masks,
    write_photos,
    write_tags,
)  # fmt: skip

SIDE = 32
RECIPES = {
    "tags": lambda: Tags(crop=SIDE),
    "two": lambda: Tags(crop=SIDE, views=2, area=(0.3, 1.2)),
    "segment": lambda: Segment(crop=SIDE),
    "episodes": lambda: Episodes(size=SIDE, allow_missing_classes=True),
    "views": lambda: Views(global_size=SIDE, local_size=16, local_views=2),
}


def module(root, recipe=None, **settings):
    return Folder(root, recipe or Tags(crop=SIDE), **{"batch_size": 4, "num_workers": 0, **settings})


@pytest.fixture
def root(tmp_path):
    return write_all(tmp_path / "photos")


@pytest.mark.parametrize("recipe", RECIPES)
def test_every_recipe_gives_batches(root, recipe):
    data = module(root, RECIPES[recipe](), val_share=0.4)
    data.setup("fit")
    batch = next(iter(data.train_dataloader()))
    if recipe == "views":
        assert batch["global_views"].shape[-3:] == (3, SIDE, SIDE) and not torch.isnan(batch["global_views"]).any()
        return
    if recipe == "episodes":
        assert batch["query_image"].shape == (4, 3, SIDE, SIDE)
        assert not set(batch["class_id"].tolist()) & set(data.fold_classes)
        tested = next(iter(data.val_dataloader()))
        assert set(tested["class_id"].tolist()) <= set(data.fold_classes)
        return
    assert batch["image"].shape == (4, 3, SIDE, SIDE)
    number = {name[:-4].replace("/", "__"): n for n, name in enumerate(names_of(16))}
    whole = next(iter(data.val_dataloader()))
    if recipe == "segment":
        assert whole["mask"][0].numpy().tolist() == ids_of(number[whole["id"][0]]).tolist()
        assert set(batch["mask"].unique().tolist()) <= {0, 1, 2, 3, 4, 255}
    else:
        for name, tags in zip(batch["id"], batch["tags"], strict=True):
            assert tuple(tags.nonzero().flatten().tolist()) == tuple(c - 1 for c in shown(number[name]))


def test_prediction_takes_every_photo(root):
    data = module(root, predict_split="all", predict_recipe=MultiScale(scales=(1.0, 0.5)))
    data.setup("predict")
    batches = list(data.predict_dataloader())
    assert sorted(batch["id"][0] for batch in batches) == sorted(name[:-4].replace("/", "__") for name in names_of(16))
    assert all(batch["tags"].sum() >= 1 for batch in batches)


def test_photos_alone_are_enough_for_views(tmp_path):
    write_photos(tmp_path)
    data = module(tmp_path, RECIPES["views"](), train_split="all", val_split="")
    data.setup("fit")
    assert len(data.samples("train")) == 16 and data.samples("val") == [] and data.num_classes == 1


def test_the_number_of_classes_is_that_of_the_folder(root):
    assert module(root).num_classes == 5 and module(root).class_names == CLASSES
    (root / "classes.txt").unlink()
    assert module(root).class_names == ("background", *sorted(CLASSES[1:]))


def test_pseudo_labels_take_the_place_of_masks(root, tmp_path):
    target = tmp_path / "pseudo"
    data = module(root, Segment(crop=None), train_split="tagged", val_split="masked", batch_size=1)
    for sample in data.index("tagged"):
        data.write_mask(target / f"{sample.id}.png", np.full((40, 48), 3, np.uint8))
    data = module(root, Segment(crop=SIDE), train_split="tagged", val_split="masked", pseudo_labels=target)
    data.setup("fit")
    assert set(next(iter(data.train_dataloader()))["mask"].unique().tolist()) <= {3, 255}
    assert set(next(iter(data.val_dataloader()))["mask"].unique().tolist()) != {3}


def test_folds_cut_the_classes(root):
    found = [module(root, RECIPES["episodes"](), fold=fold, folds=3).fold_classes for fold in range(3)]
    assert found == [(1,), (2,), (3, 4)]
    data = module(root, RECIPES["episodes"](), fold=2, folds=3, val_share=0.4)
    tested, trained = ({pair.class_id for pair in data.pairs(role)} for role in ("test", "train"))
    assert tested <= {3, 4} and trained <= {1, 2} and trained


def test_masks_without_a_background(tmp_path):
    write_photos(tmp_path, 6)
    write_masks(tmp_path, 6)
    (tmp_path / "classes.txt").write_text("\n".join(("road", *CLASSES[1:])))
    data = module(tmp_path, Segment(crop=SIDE), background=False, train_split="masked", val_split="masked")
    data.setup("fit")
    assert data.num_classes == data.classes.foreground == 5 and data.fold_classes == (0,)
    write_tags(tmp_path, {"p002.jpg": "cat"})
    with pytest.raises(DatasetError, match=r"tags need a background .* data\.tags_file to ''"):
        module(tmp_path, Segment(crop=SIDE), background=False)


def test_the_log_says_where_a_split_comes_from(root, caplog):
    with caplog.at_level(logging.INFO):
        module(root).index("train")
    assert "of 16 images from a share of 0.8 that is drawn by their names (data.val_share 0.2" in caplog.text


def test_the_list_is_made_once(root, monkeypatch):
    data = module(root)
    data.index("train")
    monkeypatch.setattr("frugalseg.data.folder_files.os.scandir", None)
    assert data.index("all") and data.index("") == []


class _Watch(LightningModule):
    """Remembers what it has seen; may stop a fit."""

    def __init__(self, stop_after=None):
        super().__init__()
        self.layer, self.seen, self.stop_after = nn.Linear(1, 1), [], stop_after

    def training_step(self, batch, batch_idx):
        self.seen.append((tuple(batch["id"]), batch["image"].sum().item()))
        if self.stop_after == len(self.seen):
            self.trainer.should_stop = True
        return self.layer(torch.ones(1, 1)).sum()

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 0.0)


def _fit(root, tmp_path, steps, checkpoint=None):
    task = _Watch()
    trainer = Trainer(
        max_steps=steps, accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, limit_val_batches=0, use_distributed_sampler=False, default_root_dir=tmp_path,
    )  # fmt: skip
    trainer.fit(task, datamodule=module(root, train_split="all"), ckpt_path=checkpoint)
    trainer.save_checkpoint(tmp_path / f"{steps}.ckpt")
    return task.seen


def test_a_resumed_fit_sees_the_batches_of_an_undisturbed_one(root, tmp_path):
    whole = _fit(root, tmp_path, 7)
    first = _fit(root, tmp_path, 3)
    assert whole == first + _fit(root, tmp_path, 7, tmp_path / "3.ckpt") and len(set(whole)) == 7


def test_input_digest_follows_labels_and_files(root):
    def digest(**init_args):
        return Folder.input_digest({"root": str(root), **init_args})

    found = [digest(), digest(tags_file=""), digest(mask_dir=""), digest(classes_file="")]
    assert len(set(found)) == 4 and digest() == found[0]
    write_tags(root, {"p002.jpg": "cat"})
    assert digest() != found[0] and digest(tags_file="") == found[1]
    with pytest.raises(DatasetNotFoundError, match="is not a folder"):
        Folder.input_digest({"root": root / "none"})


# ---------------------------------------------------------------------- refused


def refused(error, match, root, recipe=None, **settings):
    with pytest.raises(error, match=match) as info:
        data = module(root, recipe, **settings)
        data.setup("fit")
        data.train_dataloader()
    assert "\n" not in str(info.value)


def test_a_missing_or_empty_root(tmp_path):
    refused(DatasetNotFoundError, r"none: is not a folder; set data\.root", tmp_path / "none")
    refused(DatasetError, "holds no images", tmp_path, RECIPES["views"]())


def test_missing_labels_say_what_to_add(tmp_path):
    write_photos(tmp_path)
    refused(DatasetError, r"has no tags, which Tags needs; add .*tags\.csv \(header image,tags\)", tmp_path)
    refused(DatasetError, r"its classes have no names; write classes\.txt", tmp_path, Segment(crop=SIDE))
    write_classes(tmp_path)
    refused(DatasetError, r"ids have no mask, .*; add them as .*masks/<path of the image>\.png", tmp_path, Segment())
    write_masks(tmp_path)
    refused(DatasetError, r"Episodes needs to know .* `frugalseg data prepare folder", tmp_path, RECIPES["episodes"]())
    write_tags(tmp_path, {"p002.jpg": "cat"})
    refused(DatasetError, r"ids have no image-level labels, .* or take split tagged", tmp_path)


def test_masks_of_colours_need_a_table(tmp_path):
    write_photos(tmp_path)
    write_tags(tmp_path)
    write_masks(tmp_path, colours=True)
    write_classes(tmp_path)
    refused(
        DatasetError, r"holds colours \(RGB\) that nothing explains; write .*palette\.csv", tmp_path, Segment(crop=SIDE)
    )
    (tmp_path / "classes.txt").unlink()
    write_classes(tmp_path, colours=True)
    data = module(tmp_path, Segment(crop=SIDE))
    data.setup("fit")
    number = {name[:-4].replace("/", "__"): n for n, name in enumerate(names_of(16))}
    whole = next(iter(data.val_dataloader()))
    assert whole["mask"][0].numpy().tolist() == ids_of(number[whole["id"][0]]).tolist()


@pytest.mark.parametrize(
    ("ids", "match"),
    [
        (np.zeros((48, 40), np.uint8), r"is 48x40 \(HxW\), but its image .* is 40x48"),
        (np.full((40, 48), 9, np.uint8), r"class id 9 in 1920 pixels, but ids run from 0 to 4"),
    ],
)
def test_masks_that_do_not_fit_are_named(root, ids, match):
    for path in (root / "masks").rglob("*.png"):
        Image.fromarray(ids).save(path)
    data = module(root, Segment(crop=SIDE))
    data.setup("fit")
    with pytest.raises(MaskError, match=match):
        next(iter(data.train_dataloader()))


@pytest.mark.parametrize(
    ("settings", "match"),
    [
        ({"val_share": 1.5}, r"data\.val_share is 1\.5"),
        ({"folds": 1}, r"data\.folds is 1"),
        ({"fold": 4}, r"data\.fold: 4 is none of the 4 folds"),
    ],
)
def test_settings_that_cannot_be(root, settings, match):
    refused(ConfigError, match, root, **settings)


def test_more_folds_than_classes(root):
    refused(ConfigError, r"4 classes cannot be cut into 5 folds", root, RECIPES["episodes"](), folds=5)


def test_an_empty_half(root):
    refused(
        DatasetError,
        r"split val of .*: is empty; add images or .*val\.txt, or change data\.val_share",
        root,
        val_share=0,
    )


# ---------------------------------------------------------------------- tags from masks


def test_tags_are_written_from_masks(tmp_path):
    write_photos(tmp_path)
    write_masks(tmp_path, 12)
    write_classes(tmp_path)
    assert tags_of_masks(tmp_path, workers=1) == 12
    found = {sample.id: sample.tags for sample in module(tmp_path).index("all")}
    expected = {
        name[:-4].replace("/", "__"): tuple(c - 1 for c in shown(number)) if number < 12 else None
        for number, name in enumerate(names_of(16))
    }
    assert found == expected
    with pytest.raises(DatasetError, match="is there already and is not replaced"):
        tags_of_masks(tmp_path)


@pytest.mark.parametrize("lacking", ["classes.txt", "masks"])
def test_what_tags_cannot_be_written_from(tmp_path, lacking):
    write_photos(tmp_path)
    if lacking == "masks":
        write_classes(tmp_path)
    else:
        write_masks(tmp_path)
    with pytest.raises(DatasetError, match=f"has no {lacking}"):
        tags_of_masks(tmp_path)
    assert not (tmp_path / "tags.csv").exists()


def test_small_spots_need_not_count(tmp_path):
    write_photos(tmp_path, 4)
    write_masks(tmp_path, 4)
    write_classes(tmp_path)
    least = max(np.bincount(ids_of(0).ravel(), minlength=5)[1:]) + 1
    tags_of_masks(tmp_path, least, workers=1)
    counts = [np.bincount(ids_of(n).ravel(), minlength=5)[1:] for n in range(4)]
    tags = {sample.id: sample.tags for sample in module(tmp_path).index("all")}
    for number, name in enumerate(names_of(4)):
        expected = tuple(place for place, count in enumerate(counts[number]) if count >= least)
        assert tags[name[:-4].replace("/", "__")] == expected


def test_photos_that_come_later_do_not_move_others(root):
    before = {split: {s.id for s in module(root).index(split)} for split in ("train", "val")}
    for number in range(8):
        write_image(root / f"images/later{number}.png")
    after = {split: {s.id for s in module(root).index(split)} for split in ("train", "val")}
    assert all(before[split] <= after[split] for split in before)
    assert not set(itertools.chain(*before.values())) ^ {n[:-4].replace("/", "__") for n in names_of(16)}
