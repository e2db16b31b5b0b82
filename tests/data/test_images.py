"""The data module over any folder of images."""

import os
import pickle

import numpy as np
import pytest
import torch
from lightning.pytorch import LightningModule, Trainer
from PIL import Image
from torch import nn

from frugalseg.commands.benchmarks import BENCHMARKS
from frugalseg.data import Images, Segment, Tags, Views
from frugalseg.data.image_files import find_images
from frugalseg.errors import ConfigError, DatasetError, DatasetNotFoundError
from frugalseg.run import config_identity
from tests.conftest import REAL
from tests.data.image_folder import write_bad_ones, write_folder, write_image

SMALL = {"global_size": 32, "local_size": 16, "local_views": 2}


def module(root, tmp_path, recipe=None, **settings):
    settings = {"batch_size": 4, "num_workers": 0, "verdicts": tmp_path / "verdicts", **settings}
    return Images(root, recipe or Views(**SMALL), **settings)


@pytest.fixture
def folder(tmp_path):
    """250 good images, one that is cut off and a tiny one."""
    root = write_folder(tmp_path / "images", 250)
    (root / "00100.jpg").write_bytes((root / "00100.jpg").read_bytes()[:-100])
    write_image(root / "sub/tiny.png", 8, 9)
    (root / "readme.txt").write_text("not looked at")
    return root


@pytest.fixture
def no_reading(monkeypatch):
    """Whoever looks at an image for the verdict fails."""

    def forbid():
        def fail(path):
            raise AssertionError(f"{path} is read")

        monkeypatch.setattr("frugalseg.data.image_verdicts.read_image", fail)

    return forbid


# ---------------------------------------------------------------------- splits


def test_bad_ones_are_left_out_and_named(folder, tmp_path, caplog):
    data = module(folder, tmp_path)
    data.setup("fit")
    assert [sample.id for sample in data.samples("train")] == [f"{n:05d}" for n in range(250) if n != 100]
    assert all(sample.mask is None and sample.tags is None for sample in data.samples("train"))
    assert data.split_sizes == {"train": 249, "val": 0}
    (said,) = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    (kept,) = (tmp_path / "verdicts").iterdir()
    assert "2 of 251 images (0.80%) cannot be used and are left out, first 00100.jpg, sub/tiny.png" in said
    assert str(kept) in said
    caplog.clear()
    data.teardown("fit")  # hours later
    assert [record.getMessage() for record in caplog.records] == [said]
    data.teardown("fit")
    assert len(caplog.records) == 1


def test_more_than_one_in_a_hundred_is_refused(folder, tmp_path):
    (folder / "00101.jpg").write_bytes(b"")
    with pytest.raises(DatasetError) as caught:
        module(folder, tmp_path).setup("fit")
    message = str(caught.value)
    assert "\n" not in message
    for word in (
        "3 of 251 images (1.20%)",
        "data.most_broken = 1.00%",
        "first 00100.jpg, 00101.jpg, sub/tiny.png",
        "fetch",
    ):
        assert word in message
    data = module(folder, tmp_path, most_broken=0.012)
    data.setup("fit")
    assert len(data.samples("train")) == 248
    with pytest.raises(DatasetError, match="3 of 251"):
        module(folder, tmp_path, most_broken=0.0).setup("fit")


def test_every_bad_one_is_left_out_before_training(tmp_path):
    """What stays can be made into views, all of it."""
    root = write_folder(tmp_path / "images", 6)
    write_bad_ones(root)
    data = module(root, tmp_path, most_broken=1.0, batch_size=6)
    data.setup("fit")
    (batch,) = data.train_dataloader()
    assert sorted(batch["id"]) == [f"{number:05d}" for number in range(6)]


def test_no_image_is_left(tmp_path):
    write_image(tmp_path / "images/a.jpg", 3, 3)
    with pytest.raises(DatasetError, match="1 of 1 images"):
        module(tmp_path / "images", tmp_path).setup("fit")
    data = module(tmp_path / "images", tmp_path, most_broken=1.0)
    data.setup("fit")
    with pytest.raises(DatasetError, match="has 0 images, one step takes"):
        data.train_dataloader()


def test_one_process_reads_for_all(folder, tmp_path, no_reading):
    """What Lightning calls on the first process of a node, then on every one."""
    first, second = module(folder, tmp_path), module(folder, tmp_path)
    first.prepare_data()
    no_reading()
    for data in (first, second):
        data.setup("fit")
    assert [s.id for s in first.samples("train")] == [s.id for s in second.samples("train")]
    assert first.digest == second.digest


def test_the_first_process_leaves_refusing_to_all(folder, tmp_path, no_reading):
    """Else the others would wait for it for ever."""
    (folder / "00101.jpg").write_bytes(b"")
    module(folder, tmp_path).prepare_data()
    no_reading()
    for _ in range(2):
        with pytest.raises(DatasetError, match="3 of 251"):
            module(folder, tmp_path).setup("fit")


def test_ids_do_not_depend_on_what_is_broken(tmp_path):
    root = write_folder(tmp_path / "images", 3)
    write_image(root / "twin.png")
    (root / "twin.jpg").write_bytes(b"broken")
    data = module(root, tmp_path, most_broken=1.0)
    assert [sample.id for sample in data.samples("train")][3:] == ["twin.png"]
    write_image(root / "twin.jpg")
    data = module(root, tmp_path)
    assert [sample.id for sample in data.samples("train")][3:] == ["twin.jpg", "twin.png"]


def test_limit_reads_no_more_than_it_takes(folder, tmp_path):
    data = module(folder, tmp_path, limit=20)
    data.setup("fit")
    assert len(data.samples("train")) == 20
    (kept,) = (tmp_path / "verdicts").iterdir()
    assert '"checked": 20,' in kept.read_text()


def test_splits_of_a_world(tmp_path):
    for name, count in (("train2017", 5), ("unlabeled2017", 3), ("val2017", 2)):
        write_folder(tmp_path / "coco" / name, count)
    data = module(tmp_path / "coco", tmp_path, train_split="train2017+unlabeled2017", val_split="val2017")
    data.setup()
    assert data.split_sizes == {"train": 8, "val": 2, "test": 0, "predict": 8}
    assert data.samples("train")[5].id == "unlabeled2017/00000"
    assert data.samples("val")[0].image == tmp_path / "coco/val2017/00000.jpg"
    assert [batch["id"] for batch in data.val_dataloader()] == [["val2017/00000"], ["val2017/00001"]]
    assert [len(batch["images"]) for batch in data.predict_dataloader()] == [4] * 8  # MultiScale


def test_a_list_is_read_and_named(tmp_path, caplog):
    caplog.set_level("INFO")
    root = write_folder(tmp_path / "images", 5)
    (root / "splits").mkdir()
    (root / "splits/few.txt").write_text("00003\n00001.jpg\n")
    data = module(root, tmp_path, train_split="few")
    assert [sample.id for sample in data.samples("train")] == ["00003", "00001"]
    assert f"few: 2 images from {root / 'splits/few.txt'}" in caplog.text
    module(root, tmp_path).samples("train")
    assert f"train: 5 images from {root}" in caplog.text


def test_names_that_are_not_utf8(tmp_path, monkeypatch, caplog):
    monkeypatch.chdir(tmp_path)
    for place, content in ((b"good", None), (b"bad", b"broken")):
        path = write_image(tmp_path / "images/x.jpg").rename(os.fsdecode(bytes(tmp_path / "images") + b"/\xff" + place))
        path = path.rename(path.with_suffix(".jpg"))
        if content:
            path.write_bytes(content)
    data = module(tmp_path / "images", tmp_path, most_broken=1.0, batch_size=1)
    data.setup("fit")
    (batch,) = data.train_dataloader()
    assert batch["id"] == ["\\udcffgood"]
    (told,) = [r.getMessage() for r in caplog.records if r.levelname == "WARNING"]
    assert r"\udcffbad.jpg" in told and told.encode()
    Views(**SMALL).evaluation_item(data.samples("train")[0], 0)
    for finding in BENCHMARKS["images"].findings(tmp_path / "images"):
        finding.what.encode()


# ---------------------------------------------------------------------- without validation


class Net(LightningModule):
    """Learns nothing, but counts."""

    def __init__(self):
        super().__init__()
        self.layer, self.trained, self.validated = nn.Linear(1, 1), [], 0

    def training_step(self, batch, batch_idx):
        self.trained += batch["id"]
        return self.layer(batch["global_views"].mean().reshape(1, 1)).sum()

    def validation_step(self, batch, batch_idx):
        self.validated += 1

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 0.0)


def fit(data, tmp_path, **settings):
    net = Net()
    trainer = Trainer(
        max_epochs=1, accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, num_sanity_val_steps=0, use_distributed_sampler=False, default_root_dir=tmp_path,
        **settings,
    )  # fmt: skip
    trainer.fit(net, datamodule=data)
    return net


def test_a_fit_without_a_validation_split(tmp_path, caplog):
    root = write_folder(tmp_path / "images", 12)
    net = fit(module(root, tmp_path), tmp_path, limit_val_batches=0)
    assert sorted(net.trained) == [f"{number:05d}" for number in range(12)]
    assert net.validated == 0
    with pytest.raises(ConfigError, match=r"data\.val_split is empty.*trainer\.limit_val_batches to 0"):
        fit(module(root, tmp_path), tmp_path)
    with pytest.raises(ConfigError, match=r"data\.test_split is empty.*trainer\.limit_test_batches"):
        module(root, tmp_path).test_dataloader()
    assert fit(module(root, tmp_path, val_split="."), tmp_path).validated == 12


def test_a_fit_says_at_its_end_what_was_left_out(folder, tmp_path, caplog):
    fit(module(folder, tmp_path), tmp_path, limit_val_batches=0)
    said = [record.getMessage() for record in caplog.records if "are left out" in record.getMessage()]
    assert len(said) == 2
    assert said[0] == said[1]


# ---------------------------------------------------------------------- batches


@pytest.mark.parametrize("side", [64, 224])
@pytest.mark.parametrize("size", [(32, 32), (32, 500), (500, 33), (1, 500), (500, 1), (1, 1), (40, 70)])
def test_images_below_the_crop_become_views(tmp_path, side, size):
    """They are enlarged; the geometry stays that of the image."""
    height, width = size
    write_image(tmp_path / "images/a.png", height, width)
    data = module(tmp_path / "images", tmp_path, Views(side, side // 2, 4, colour="none"), min_side=1, batch_size=1)
    data.setup("fit")
    loader = data.train_dataloader()
    for epoch in range(4):
        loader.sampler.set_epoch(epoch)
        (batch,) = loader
        assert batch["global_views"].shape == (1, 2, 3, side, side)
        assert batch["global_views"].isfinite().all()
        assert batch["local_views"].isfinite().all()
        assert batch["size"].tolist() == [[height, width]]
        box = batch["box"][0]
        assert (box[:, :2] >= 0).all()
        assert (box[:, 2:] > box[:, :2]).all()
        assert (box[:, 2:] <= torch.tensor([width, height])).all()


def test_an_enlarged_view_shows_its_box(tmp_path):
    """Against Pillow."""
    path = write_image(tmp_path / "images/a.png", 33, 41)
    plain = {"mean": (0.0, 0.0, 0.0), "std": (1.0, 1.0, 1.0)}
    data = module(tmp_path / "images", tmp_path, Views(64, 32, 1, colour="none", **plain), batch_size=1)
    data.setup("fit")
    (batch,) = data.train_dataloader()
    views = [*batch["global_views"][0], *batch["local_views"][0]]
    for view, box, flip in zip(views, batch["box"][0].tolist(), batch["flip"][0].tolist(), strict=True):
        side = view.shape[-1]
        cut = Image.open(path).convert("RGB").crop([int(edge) for edge in box])
        expected = np.asarray(cut.resize((side, side), Image.Resampling.BICUBIC)).astype(int)
        found = (view * 255).round().permute(1, 2, 0).numpy().astype(int)
        assert np.abs(found - (expected[:, ::-1] if flip else expected)).max() <= 2


def test_batches_do_not_depend_on_workers(tmp_path):
    root = write_folder(tmp_path / "images", 8)

    def batches(workers):
        data = module(root, tmp_path, num_workers=workers, seed=3)
        data.setup("fit")
        return list(data.train_dataloader())

    for one, two in zip(batches(0), batches(2), strict=True):
        assert one["id"] == two["id"]
        assert all(torch.equal(one[key], two[key]) for key in one if key != "id")


def test_modules_travel(folder, tmp_path):
    data = module(folder, tmp_path)
    data.setup("fit")
    again = pickle.loads(pickle.dumps(data))
    assert again.samples("train") == data.samples("train")


# ---------------------------------------------------------------------- settings and identity


@pytest.mark.parametrize(
    ("settings", "word"),
    [
        ({"min_side": 0}, "data.min_side"),
        ({"verify": "yes"}, "data.verify"),
        ({"most_broken": 1.5}, "data.most_broken"),
        ({"batch_size": 0}, "data.batch_size"),
    ],
)
def test_settings_that_make_no_sense_are_refused(tmp_path, settings, word):
    with pytest.raises(ConfigError, match=word):
        module(tmp_path, tmp_path, **settings)


@pytest.mark.parametrize(
    ("recipe", "word"), [(Tags(), "no image-level labels"), (Segment(), "no labels: set data.recipe")]
)
def test_recipes_that_need_labels_are_refused(tmp_path, recipe, word):
    with pytest.raises(DatasetError, match=word):
        module(write_folder(tmp_path / "images", 2), tmp_path, recipe).setup("fit")


def test_there_are_no_classes(tmp_path):
    data = module(tmp_path, tmp_path)
    assert (data.num_classes, data.class_names) == (0, ())


def test_the_folder_is_part_of_what_a_run_hangs_on(tmp_path):
    root = write_folder(tmp_path / "images", 4)
    settings = {"root": str(root), "train_split": "train", "val_split": "", "predict_split": None, "limit": None}

    def digests():
        data = module(root, tmp_path)
        data.setup("fit")
        return Images.input_digest(settings), data.digest

    first = digests()
    assert digests() == first
    (root / "00001.jpg").rename(root / "x.jpg")
    second = digests()
    write_image(root / "more.jpg")
    third = digests()
    for place in (0, 1):
        assert len({first[place], second[place], third[place]}) == 3
    assert Images.input_digest({**settings, "limit": 2}) != third[0]


def test_the_digest_asks_the_disk_nothing(folder, tmp_path, monkeypatch):
    data = module(folder, tmp_path)
    data.setup("fit")
    before = data.digest
    for path in folder.glob("*.jpg"):
        path.unlink()
    assert data.digest == before


def test_where_verdicts_lie_is_no_part_of_a_run():
    config = {"data": {"class_path": "x", "init_args": {"verdicts": "a", "min_side": 32}}}
    assert config_identity(config)["data"]["init_args"] == {"min_side": 32}


# ---------------------------------------------------------------------- the check, and genuine images


def test_the_check_names_what_a_fit_leaves_out(folder, tmp_path, monkeypatch, no_reading):
    monkeypatch.chdir(tmp_path)
    findings = BENCHMARKS["images"].findings(folder)
    assert [finding.level for finding in findings] == ["ok", "warn", "warn", "warn"]
    for finding, word in zip(
        findings,
        ("251 images: 250 .jpg, 1 .png", "00100.jpg: cannot be", "sub/tiny.png: is 8x9", "249 of 251"),
        strict=True,
    ):
        assert word in finding.what
    no_reading()  # a fit from here finds the verdict
    data = Images(folder, Views(**SMALL))
    data.setup("fit")
    assert len(data.samples("train")) == 249
    (folder / "00101.jpg").write_bytes(b"")
    quick = BENCHMARKS["images"].findings(folder, quick=True)
    assert [finding.level for finding in quick] == ["ok", "warn", "warn", "warn"]  # the one that is cut off is missed
    assert "249 of 251 images can be opened" in quick[-1].what


def test_the_check_of_many_bad_ones_is_an_error(folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (folder / "00101.jpg").write_bytes(b"")
    assert {finding.level for finding in BENCHMARKS["images"].findings(folder)} == {"ok", "error"}


@pytest.mark.real
@pytest.mark.parametrize(("folder", "split"), [("VOCdevkit/VOC2012", "JPEGImages"), ("coco", "train2017+val2017")])
def test_genuine_images(folder, split, tmp_path):
    root = REAL / folder
    if not root.is_dir():
        pytest.skip(f"no genuine samples at {root}; set FRUGALSEG_REAL_DATA")
    data = module(root, tmp_path, Views(colour="none", local_views=2), train_split=split)
    data.setup("fit")
    samples = data.samples("train")
    assert (
        len(samples) == len(find_images(root, split)) == sum(1 for f in split.split("+") for _ in (root / f).iterdir())
    )
    batch = next(iter(data.train_dataloader()))
    assert batch["global_views"].isfinite().all()
    assert {tuple(size) for size in batch["size"].tolist()} == {
        Image.open(root / f"{name}.jpg").size[::-1] for name in batch["id"]
    }
    with pytest.raises(DatasetNotFoundError, match="beside"):
        module(root, tmp_path).setup("fit")
