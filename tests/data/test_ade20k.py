import numpy as np
import pytest
import torch
from PIL import Image

from frugalseg.data import ADE20K, MultiScale, Segment
from frugalseg.data.ade20k import class_table, index
from frugalseg.errors import DatasetError, DatasetNotFoundError, MaskError
from tests.conftest import REAL
from tests.data.conftest import picture

REAL_ADE = REAL / "ADEChallengeData2016"
real = pytest.mark.skipif(
    not REAL_ADE.is_dir(), reason=f"no genuine ADE20K samples at {REAL_ADE}; set FRUGALSEG_REAL_DATA"
)


@pytest.fixture
def root(tmp_path):
    top = tmp_path / "ADEChallengeData2016"
    for folder, name, count in (("training", "train", 3), ("validation", "val", 2)):
        (top / "images" / folder).mkdir(parents=True)
        (top / "annotations" / folder).mkdir(parents=True)
        for number in range(1, count + 1):
            Image.fromarray(picture(20, 30, number)).save(top / f"images/{folder}/ADE_{name}_{number:08d}.jpg")
            ids = np.arange(600, dtype=np.uint16).reshape(20, 30) % 151
            Image.fromarray(ids.astype(np.uint8)).save(top / f"annotations/{folder}/ADE_{name}_{number:08d}.png")
    return top


def test_the_150_classes():
    table = class_table("nowhere")
    assert table.num_classes == table.foreground == 150
    assert table.names[:3] == ("wall", "building", "sky")
    assert table.names[149] == "flag"
    assert not table.background


def test_zero_is_void_and_classes_are_shifted_by_one(root):
    assert [s.id for s in index(root, "train")] == [f"ADE_train_{n:08d}" for n in (1, 2, 3)]
    data = ADE20K(root, Segment(crop=None), num_workers=0)
    data.setup("validate")
    mask = next(iter(data.val_dataloader()))["mask"][0]
    stored = np.asarray(Image.open(root / "annotations/validation/ADE_val_00000001.png")).astype(np.int64)
    assert torch.equal(mask, torch.from_numpy(np.where(stored == 0, 255, stored - 1)))
    assert set(mask.unique().tolist()) == {*range(150), 255}


def test_own_classes_and_own_splits(root):
    (root / "objectInfo150.txt").write_text(
        "Idx\tRatio\tTrain\tVal\tName\n1\t0.5\t3\t2\tsea, ocean\n2\t0.5\t3\t2\tsky\n"
    )
    assert class_table(root).names == ("sea", "sky")
    (root / "splits").mkdir()
    (root / "splits/mixed.txt").write_text("ADE_val_00000002\nADE_train_00000001\n")
    samples = index(root, "mixed")
    assert [s.image.parent.name for s in samples] == ["validation", "training"]
    data = ADE20K(root, Segment(crop=None), val_split="mixed", num_workers=0)
    data.setup("validate")
    with pytest.raises(MaskError, match="value 3, 4, 5, 6, 7 in"):
        list(data.val_dataloader())
    (root / "objectInfo150.txt").write_text("not a table\nat all\n")
    with pytest.raises(DatasetError, match="is not the tab-separated table"):
        class_table(root)


def test_faults(root, tmp_path):
    with pytest.raises(
        DatasetNotFoundError, match=r"1 folder too high; set data.root: .*ADEChallengeData2016 looks right"
    ):
        index(tmp_path, "train")
    with pytest.raises(DatasetNotFoundError, match=r"2 folders too low"):
        index(root / "images" / "training", "train")
    with pytest.raises(DatasetNotFoundError, match=r"test.txt: no such split; there are train, val"):
        index(root, "test")
    (root / "splits").mkdir()
    (root / "splits/train.txt").write_text("ADE_train_00000001\nADE_train_00000009\n")
    with pytest.raises(DatasetError, match="1 of 2 images are missing, first ADE_train_00000009"):
        index(root, "train")


@pytest.mark.real
@real
@pytest.mark.parametrize("recipe", [Segment(crop=128), MultiScale()])
def test_genuine_samples(recipe):
    trains = recipe.trains
    settings = (
        {"val_split": "val"} if trains else {"recipe": Segment(), "predict_recipe": recipe, "predict_split": "val"}
    )
    data = ADE20K(REAL_ADE, **{"recipe": recipe, "train_split": "val", "batch_size": 2, "num_workers": 0, **settings})
    data.setup("fit" if trains else "predict")
    if not trains:
        sizes = [batch["size"] for batch in data.predict_dataloader()]
        assert len(sizes) == 3
        return
    assert next(iter(data.train_dataloader()))["image"].shape == (2, 3, 128, 128)
    values = torch.cat([batch["mask"].unique() for batch in data.val_dataloader()]).unique()
    assert values.max() == 255
    assert 10 < len(values) < 150
