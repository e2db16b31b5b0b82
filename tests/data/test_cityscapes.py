import json
from shutil import rmtree

import numpy as np
import pytest
import torch
from PIL import Image

from frugalseg.data import Cityscapes, Segment
from frugalseg.data.cityscapes import LABELS, TRAIN_IDS, class_table, index, unpaired
from frugalseg.errors import ConfigError, DatasetError, DatasetNotFoundError
from tests.conftest import FACTS, REAL
from tests.data.conftest import picture

REAL_CITY = REAL / "cityscapes"
real = pytest.mark.skipif(
    not REAL_CITY.is_dir(), reason=f"no genuine Cityscapes samples at {REAL_CITY}; set FRUGALSEG_REAL_DATA"
)
METADATA = FACTS / "lists" / "metadata.json"


@pytest.fixture
def root(tmp_path):
    top = tmp_path / "cityscapes"
    frames = {"train": ["bochum_000000_000019", "aachen_000001_000019", "aachen_000000_000019"], "val": ["lindau_000000_000019"],
              "test": ["berlin_000000_000019"]}  # fmt: skip
    for split, names in frames.items():
        for name in names:
            city = name.split("_")[0]
            for kind in ("leftImg8bit", "gtFine"):
                (top / kind / split / city).mkdir(parents=True, exist_ok=True)
            Image.fromarray(picture(10, 20, 1)).save(top / f"leftImg8bit/{split}/{city}/{name}_leftImg8bit.png")
            ids = np.arange(200).reshape(10, 20) % 34
            ids[0, 0] = 255
            Image.fromarray(ids.astype(np.uint8)).save(top / f"gtFine/{split}/{city}/{name}_gtFine_labelIds.png")
    return top


def test_classes():
    assert class_table().names == (
        "road", "sidewalk", "building", "wall", "fence", "pole", "traffic light", "traffic sign", "vegetation", "terrain",
        "sky", "person", "rider", "car", "truck", "bus", "train", "motorcycle", "bicycle",
    )  # fmt: skip
    assert class_table().palette[0].tolist() == [128, 64, 128]
    assert class_table("27").num_classes == 27
    assert class_table("27").names[:3] == ("road", "sidewalk", "parking")
    with pytest.raises(ConfigError, match="'20' is none of 19"):
        class_table("20")


@pytest.mark.skipif(not METADATA.is_file(), reason=f"no facts at {METADATA}; set FRUGALSEG_FACTS")
def test_label_table_equals_cityscapes_scripts():
    rows = [row for row in json.loads(METADATA.read_text())["cityscapes"] if row["id"] >= 0]
    assert [(row["name"], *row["color"]) for row in rows] == list(LABELS)
    assert {row["trainId"]: row["id"] for row in rows if row["trainId"] < 255} == dict(enumerate(TRAIN_IDS))


@pytest.mark.parametrize("labels", ["19", "27"])
def test_ids(root, labels):
    assert [s.id for s in index(root, "train")] == [
        "aachen_000000_000019",
        "aachen_000001_000019",
        "bochum_000000_000019",
    ]
    data = Cityscapes(root, Segment(crop=None), labels=labels, num_workers=0)
    data.setup("validate")
    mask = next(iter(data.val_dataloader()))["mask"][0].flatten().tolist()
    stored = (
        np.asarray(Image.open(root / "gtFine/val/lindau/lindau_000000_000019_gtFine_labelIds.png")).flatten().tolist()
    )
    chosen = list(TRAIN_IDS) if labels == "19" else list(range(7, 34))
    assert mask == [chosen.index(value) if value in chosen else 255 for value in stored]
    assert all(s.mask is None for s in index(root, "test"))  # its labels are dummies


def test_own_split_over_all_folders(root):
    (root / "splits").mkdir()
    line = (
        "leftImg8bit/train/aachen/aachen_000000_000019_leftImg8bit.png gtFine/train/aachen/aachen_000000_000019_x.png"
    )
    (root / "splits/paths.txt").write_text(f"{line}\n")  # UniMatch's form
    assert [s.id for s in index(root, "paths")] == ["aachen_000000_000019"]
    (root / "splits/few.txt").write_text("lindau_000000_000019\naachen_000000_000019\n")
    assert [s.image.parent.parent.name for s in index(root, "few")] == ["val", "train"]


def test_incomplete_and_wrong_root(root):
    with pytest.raises(DatasetNotFoundError, match="2 folders too low"):
        index(root / "leftImg8bit" / "train", "train")
    image = root / "leftImg8bit/train/aachen/aachen_000001_000019_leftImg8bit.png"
    image.unlink()
    (line,) = unpaired(root)
    assert line.startswith("train: incomplete: 1 of 3 labelled frames have no image, first aachen_000001_000019")
    (root / "leftImg8bit/val/lindau/lindau_000000_000019_leftImg8bit.png").unlink()
    with pytest.raises(
        DatasetError, match=r"split val is incomplete: labels of 1 frames, first lindau_000000_000019, but no images"
    ):
        index(root, "val")
    with pytest.raises(DatasetNotFoundError, match=r"leftImg8bit/demo: no such split; there are train, val, test"):
        index(root, "demo")
    assert unpaired(root) == [line]  # a split without any image is what `index` reports
    rmtree(root / "leftImg8bit")
    assert unpaired(root) == []


@pytest.mark.real
@real
def test_genuine_samples_at_full_resolution():
    data = Cityscapes(REAL_CITY, Segment(crop=256), val_split="train", batch_size=2, num_workers=0)
    data.setup("fit")
    assert next(iter(data.train_dataloader()))["mask"].shape == (2, 256, 256)
    batches = list(data.val_dataloader())
    assert [tuple(b["mask"].shape) for b in batches] == [(1, 1024, 2048)] * 2
    values = torch.cat([b["mask"].unique() for b in batches]).unique().tolist()
    assert values[-1] == 255
    assert {0, 2, 8, 13} <= set(values)  # road, building, vegetation, car
    assert max(values[:-1]) <= 18


@pytest.mark.real
@real
def test_genuine_labels_without_images_are_reported_as_incomplete():
    with pytest.raises(
        DatasetError, match="split val is incomplete: labels of 1 frames, first frankfurt_000000_000576"
    ):
        index(REAL_CITY, "val")
