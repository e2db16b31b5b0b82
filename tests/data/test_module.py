import numpy as np
import pytest
import torch
from lightning.pytorch import LightningModule, Trainer

from frugalseg.batch import CountsClasses, SkipsIds
from frugalseg.data import VOC, Episodes, MultiScale, Segment, Tags, Views
from frugalseg.data.io import image_size, write_mask
from frugalseg.data.lists import read_labels
from frugalseg.errors import ConfigError, DatasetError, DatasetNotFoundError, ImageError
from frugalseg.ops.palette import voc_palette
from tests.data.conftest import TRAIN, VAL


def make(root, **settings):
    return VOC(root, **({"recipe": Tags(crop=48), "batch_size": 2, "num_workers": 0, "seed": 1} | settings))


def equal(first, second):
    assert first.keys() == second.keys()
    for key, value in first.items():
        assert torch.equal(value, second[key]) if isinstance(value, torch.Tensor) else value == second[key], key


def epochs(data, count=2):
    loader = data.train_dataloader()
    found = []
    for epoch in range(count):
        loader.sampler.set_epoch(epoch)
        found += list(loader)
    return found


def test_classes_are_known_without_data(tmp_path):
    data = make(tmp_path / "no")
    assert (data.num_classes, data.class_names[0], data.palette.shape) == (21, "background", (256, 3))
    with pytest.raises(DatasetNotFoundError):
        data.setup("fit")


def test_own_classes(voc_root):
    (voc_root / "ImageSets/classes.txt").write_text("background\na\nb\n")
    assert make(voc_root).class_names == ("background", "a", "b")


@pytest.mark.parametrize(
    ("stage", "roles"),
    [("fit", {"train", "val"}), ("validate", {"val"}), ("test", {"test"}), ("predict", {"predict"})],
)
def test_setup_lists_only_what_the_stage_needs(voc_root, stage, roles, monkeypatch):
    data, asked = make(voc_root, train_split="trainaug", predict_split="own", test_split="trainval"), []
    monkeypatch.setattr(data, "index", lambda split: asked.append(split) or [])
    data.setup(stage)
    splits = {"train": "trainaug", "val": "val", "test": "trainval", "predict": "own"}
    assert set(asked) == {splits[role] for role in roles}


def test_protocols_and_class_counts(voc_root):
    data = make(voc_root, train_split="trainaug")
    assert isinstance(data, CountsClasses)
    assert isinstance(data, SkipsIds)
    expected = np.zeros(20, np.int64)
    for name in TRAIN:
        expected[list(read_labels("voc12")[name])] += 1
    assert data.class_counts.dtype == np.int64
    assert np.array_equal(data.class_counts, expected)


@pytest.mark.parametrize("workers", [1, 4])
@pytest.mark.parametrize("recipe", [Tags(crop=48, long_side=(40, 60), flip=0.5), Segment(crop=32, colour=0.2)])
def test_batches_do_not_depend_on_the_workers(voc_root, workers, recipe):
    here = epochs(make(voc_root, recipe=recipe))
    there = epochs(make(voc_root, recipe=recipe, num_workers=workers))
    assert len(here) == len(there) == 6
    for first, second in zip(here, there, strict=True):
        equal(first, second)
    assert not torch.equal(here[0]["image"], here[3]["image"])
    other = epochs(make(voc_root, recipe=recipe, seed=2), 1)
    assert not torch.equal(here[0]["image"], other[0]["image"])


def test_two_ranks_put_together_are_one(voc_root, monkeypatch):
    one = epochs(make(voc_root, batch_size=2))
    ranks = []
    for rank in range(2):
        data = make(voc_root, batch_size=1)
        monkeypatch.setattr(data, "_place", lambda rank=rank: (rank, 2))
        ranks.append(epochs(data))
        assert [batch["id"][0] for batch in data.val_dataloader()] == VAL[rank::2]
    assert len(one) == len(ranks[0]) == len(ranks[1]) == 6
    for whole, left, right in zip(one, *ranks, strict=True):
        assert whole["id"] == left["id"] + right["id"]
        for key in ("image", "tags", "box"):
            assert torch.equal(whole[key], torch.cat([left[key], right[key]]))


@pytest.mark.parametrize("workers", [0, 2])
def test_evaluation_loaders(voc_root, workers):
    data = make(voc_root, num_workers=workers, predict_split="val")
    assert [batch["id"] for batch in data.val_dataloader()] == [[name] for name in VAL]
    assert [batch["id"] for batch in data.test_dataloader()] == [[name] for name in VAL]
    assert all("mask" in batch for batch in data.val_dataloader())
    batches = list(data.predict_dataloader())
    assert [batch["id"] for batch in batches] == [[name] for name in VAL]
    assert len(batches[0]["images"]) == 4
    data.skip({VAL[0], "unknown"})
    assert [batch["id"] for batch in data.predict_dataloader()] == [[name] for name in VAL[1:]]
    assert len(data.predict_dataloader()) == 3


def test_loaders_leave_torch_random_numbers_alone(voc_root):
    torch.manual_seed(0)
    expected = torch.rand(3)
    torch.manual_seed(0)
    epochs(make(voc_root))
    assert torch.equal(torch.rand(3), expected)


def test_limit_and_seed_from_the_environment(voc_root, monkeypatch):
    data = make(voc_root, limit=3)
    assert [sample.id for sample in data.samples("train")] == TRAIN[:3]
    monkeypatch.setenv("PL_GLOBAL_SEED", "7")
    assert make(voc_root, seed=None).seed == 7
    monkeypatch.delenv("PL_GLOBAL_SEED")
    assert make(voc_root, seed=None).seed == 0
    for settings in ({"limit": 0}, {"batch_size": 0}, {"num_workers": -1}):
        with pytest.raises(ConfigError):
            make(voc_root, **settings)


def test_pseudo_labels_serve_the_training_split_alone(voc_root, tmp_path):
    for sample in make(voc_root).samples("train"):
        ids = np.full(image_size(sample.image), 4, np.uint8)
        write_mask(tmp_path / "pseudo" / f"{sample.id}.png", ids, voc_palette())
    data = make(voc_root, recipe=Segment(crop=16, scale=None), pseudo_labels=tmp_path / "pseudo")
    batch = next(iter(data.train_dataloader()))
    assert set(batch["mask"].unique().tolist()) <= {4, 255}
    assert data.samples("val")[0].mask.parent.name == "SegmentationClass"


def test_what_the_recipe_needs_is_asked_for_at_setup(voc_root, write_split):
    write_split("test", TRAIN)
    with pytest.raises(DatasetError, match="7 of 7 ids have no image-level labels, first 2007_000032"):
        make(voc_root, test_split="test").setup("test")
    with pytest.raises(DatasetError, match="7 of 7 ids have no mask"):
        make(voc_root, recipe=Segment(), test_split="test").setup("test")
    assert len(make(voc_root, predict_split="test").predict_dataloader()) == 7
    with pytest.raises(ConfigError, match="MultiScale cannot train"):
        make(voc_root, recipe=MultiScale()).setup("fit")
    with pytest.raises(DatasetError, match="has 7 images, one step takes 8 x 1"):
        make(voc_root, batch_size=8).train_dataloader()


@pytest.mark.parametrize("workers", [0, 1])
def test_errors_stay_one_line_out_of_workers(voc_root, workers):
    path = voc_root / f"JPEGImages/{VAL[1]}.jpg"
    path.write_bytes(path.read_bytes()[:300])
    with pytest.raises(ImageError) as error:
        list(make(voc_root, num_workers=workers).val_dataloader())
    assert str(error.value).startswith(f"{path}: cannot be decoded")
    assert "\n" not in str(error.value)


def test_masks_argument(voc_root):
    data = make(voc_root, masks="SegmentationClassAug")
    assert data.samples("val")[0].mask.parent.name == "SegmentationClassAug"


def test_episodes_take_no_pseudo_labels(voc_root, tmp_path):
    data = VOC(voc_root, Episodes(size=16), pseudo_labels=tmp_path)
    with pytest.raises(ConfigError, match=r"data\.pseudo_labels: Episodes need the benchmark's own masks"):
        data.setup("fit")


class Keeper(LightningModule):
    """Keeps what its steps are given."""

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(()))
        self.seen = []

    def training_step(self, batch, _):
        self.seen.append(batch)
        return self.weight.sum()

    def validation_step(self, batch, _):
        self.seen.append(batch)

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


@pytest.mark.parametrize("precision", ["32-true", "bf16-true"])
def test_views_whose_colours_are_left_to_the_device_reach_the_task_finished(voc_root, precision, tmp_path):
    recipe = Views(global_size=32, local_size=16, local_views=2, colour="device")
    data = VOC(voc_root, recipe, batch_size=2, num_workers=0, seed=0)
    task = Keeper()
    trainer = Trainer(
        accelerator="cpu", max_epochs=1, limit_val_batches=1, precision=precision, logger=False, default_root_dir=tmp_path,
        enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False, num_sanity_val_steps=0,
    )  # fmt: skip
    trainer.fit(task, datamodule=data)
    dtype = torch.float32 if precision == "32-true" else torch.bfloat16
    assert len(task.seen) == 4  # three steps and a validation batch
    for batch in task.seen:
        assert "colour" not in batch
        assert batch["global_views"].dtype == batch["local_views"].dtype == dtype
        assert batch["box"].dtype == torch.int64  # bfloat16 would make 479 of 480
        assert batch["global_views"].min() < -0.5  # normalised
