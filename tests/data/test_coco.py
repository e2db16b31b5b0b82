import hashlib
import json
import logging
import shutil

import numpy as np
import pytest
from PIL import Image

from frugalseg.data.coco import COCO, COUNTS, coco20i, fold_classes
from frugalseg.data.coco_index import class_table, index, stem_of
from frugalseg.data.coco_masks import make_masks
from frugalseg.data.coco_names import CATEGORY_IDS, COARSE, NAMES, VALUES, stuff_code, stuff_table
from frugalseg.data.codes import NEVER
from frugalseg.data.io import read_mask
from frugalseg.data.lists import packaged, read_ids
from frugalseg.data.recipes import Segment, Tags
from frugalseg.data.tags import check_tags
from frugalseg.errors import ConfigError, DatasetError, DatasetNotFoundError, MaskError
from tests.conftest import REAL
from tests.data.coco_files import OWN, box, touch, write_json

# pycocotools 2.0.11 under NumPy 2
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

STEMS = [f"COCO_train2014_{n:012d}" for n in (9, 25, 250)]


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture
def root(tmp_path):
    """COCO 2014 with three training images, the last without annotation, and a list of the first two."""
    root = tmp_path / "coco"
    touch(root / "train2014", STEMS)
    write_json(root, "train2014", [9, 25, 250], [box(1, 9, 13, 0, 0, 2, 2), box(2, 25, 1, 0, 0, 1, 1)])
    (root / "splits").mkdir()
    (root / "splits/train.txt").write_text("000000000025\n000000000009\n")
    return root


def own_world(root, year=2014):
    for part, images in (("train", [9, 25, 250]), ("val", [42, 73])):
        folder = f"{part}{year}"
        touch(root / folder, [stem_of(str(n), part, year) for n in images])
        annotations = [
            box(1, images[0], 7, 0, 0, 2, 2),
            box(2, images[0], 90, 3, 3, 1, 1),
            box(3, images[1], 4, 0, 0, 1, 1),
        ]
        write_json(root, folder, images, annotations, OWN)
    return root


# ---------------------------------------------------------------------- lists and tables


def test_tables():
    assert len(NAMES) == len(set(NAMES)) == len(CATEGORY_IDS) == 80
    assert (CATEGORY_IDS[0], CATEGORY_IDS[11], CATEGORY_IDS[-1]) == (1, 13, 90)
    assert NAMES[CATEGORY_IDS.index(90)] == "toothbrush"
    table = class_table("/nowhere", 2014)
    assert (table.num_classes, table.foreground, table.names[:2]) == (81, 80, ("background", "person"))


@pytest.mark.parametrize(("split", "count"), COUNTS[2014].items())
def test_packaged_counts_are_the_published_ones(split, count):
    assert len(read_ids("coco14", split)) == count


def test_packaged_lists_relate_as_published():
    part = {split: "train" if "train" in split else "val" for split in COUNTS[2014]}
    ids = {split: [stem_of(name, part[split], 2014) for name in read_ids("coco14", split)] for split in part}
    assert set(ids["train"]) < set(ids["train_all"])
    assert ids["val_part"] == ids["val_annotated"][:5000]
    assert set(ids["val_annotated"]) < set(ids["val"])
    assert STEMS[2] in set(ids["train_all"]) - set(ids["train"])


def test_provenance_names_our_lists():
    text = (packaged() / "PROVENANCE.md").read_text()
    for folder in ("coco14", "cocostuff"):
        for entry in (packaged() / folder).iterdir():
            assert f"| `{folder}/{entry.name}` | `{hashlib.sha256(entry.read_bytes()).hexdigest()}` |" in text


def test_bare_numbers_and_full_names():
    assert stem_of("9", "train", 2014) == stem_of("000000000009", "train", 2014) == STEMS[0]
    assert stem_of("000000000009", "val", 2017) == "000000000009"
    assert stem_of(STEMS[0], "train", 2014) == STEMS[0]


# ---------------------------------------------------------------------- instances


@pytest.mark.parametrize("below", ["", "coco2014", "images"])
def test_index_in_each_layout(root, below, caplog):
    caplog.set_level(logging.INFO)
    if below:
        (root / below).mkdir()
        (root / "train2014").rename(root / below / "train2014")
    touch(root / "SegmentationClass/train2014", STEMS[:1], ".png")
    second, first = index(root, "train")
    assert (first.id, second.id) == tuple(STEMS[:2])
    assert first.image == root / below / f"train2014/{STEMS[0]}.jpg"
    assert first.mask == root / f"SegmentationClass/train2014/{STEMS[0]}.png"
    assert second.mask is None
    assert (first.tags, second.tags) == ((11,), (0,))  # category 13 is the 12th
    assert first.code is None
    assert f"train: 2 ids from {root}/splits/train.txt" in caplog.text


def test_packaged_list_where_none_is_on_disk(root):
    (root / "splits/train.txt").unlink()
    with pytest.raises(DatasetError, match=r"82079 of 82081 images are missing.*put a shorter list at") as error:
        index(root, "train")
    assert "\n" not in str(error.value)


def test_an_image_without_annotation(root):
    (root / "splits/train_all.txt").write_text("\n".join(STEMS))
    samples = index(root, "train_all")
    assert [sample.tags for sample in samples] == [(11,), (0,), ()]
    with pytest.raises(DatasetError, match=f"1 of 3 images show no class at all, first {STEMS[2]}; .* train for 2014"):
        check_tags(samples, "train_all")
    assert [sample.id for sample in index(root, "train_annotated")] == STEMS[:2]


def test_without_json_there_are_no_tags(root):
    (root / "annotations/instances_train2014.json").unlink()
    assert [sample.tags for sample in index(root, "train")] == [None, None]
    with pytest.raises(
        DatasetNotFoundError, match=r"split train_annotated needs annotations/instances_train2014\.json"
    ):
        index(root, "train_annotated")


def test_labels_from_a_file(root, tmp_path):
    labels = np.zeros((2, 80), np.uint8)
    labels[0, 3] = labels[1, [0, 79]] = 1
    np.savez(tmp_path / "tags.npz", ids=["000000000009", STEMS[1]], labels=labels)
    second, first = index(root, "train", tags=tmp_path / "tags.npz")
    assert (first.tags, second.tags) == ((3,), (0, 79))


def test_label_arrays_of_another_data_set(root, tmp_path):
    np.savez(tmp_path / "voc.npz", ids=np.array([b"2007_000032"] * 4), labels=np.ones((4, 20), np.uint8))
    with pytest.raises(DatasetError, match=r"shape \(4, 20\).*80 classes: these are another data set's labels"):
        index(root, "train", tags=tmp_path / "voc.npz")
    np.savez(tmp_path / "voc.npz", ids=np.array([b"2007_000032"] * 4), labels=np.ones((4, 80), np.uint8))
    with pytest.raises(DatasetError, match=r"no labels of 2 of 2 ids, first COCO_.* \(it has 2007_000032"):
        index(root, "train", tags=tmp_path / "voc.npz")


@pytest.mark.parametrize(("level", "distance"), [("..", "1 folder too high"), ("train2014", "1 folder too low")])
def test_root_at_the_wrong_level(root, level, distance):
    wrong = (root / level).resolve()
    with pytest.raises(DatasetNotFoundError, match=f"{distance}; set data.root: {root} looks right") as error:
        index(wrong, "train")
    assert "has no folder train2014 or coco2014/train2014 or images/train2014" in str(error.value)


def test_unknown_split_and_year(root):
    with pytest.raises(DatasetNotFoundError, match=r"splits/trainaug\.txt: no such split; there are train, .*val_part"):
        index(root, "trainaug")
    with pytest.raises(DatasetNotFoundError, match="has no folder train2017"):
        index(root, "train", year=2017)


def test_2017_takes_the_json_else_the_folder(tmp_path):
    touch(tmp_path / "train2017", ["000000000009", "000000000025"])
    assert [sample.id for sample in index(tmp_path, "train", 2017)] == ["000000000009", "000000000025"]
    write_json(tmp_path, "train2017", [25, 9], [box(1, 9, 2, 0, 0, 1, 1)])
    assert [sample.tags for sample in index(tmp_path, "train", 2017)] == [(1,), ()]
    assert [sample.id for sample in index(tmp_path, "train_annotated", 2017)] == ["000000000009"]


def test_own_categories_bring_their_names_and_their_images(tmp_path):
    data = COCO(own_world(tmp_path), Tags())
    assert data.class_names == ("background", "disc", "ring", "star")
    assert [(s.id, s.tags) for s in data.index("train")] == [(STEMS[0], (1, 2)), (STEMS[1], (0,))]
    assert [s.tags for s in data.index("train_all")] == [(1, 2), (0,), ()]
    assert len(data.index("val")) == 2


def test_jsons_of_two_releases(tmp_path):
    own_world(tmp_path)
    write_json(tmp_path, "val2014", [42], [], {**OWN, 4: "disk"})
    with pytest.raises(DatasetError, match=r"instances_train2014\.json: its classes are not those of the validation"):
        index(tmp_path, "train")


# ---------------------------------------------------------------------- few-shot folds


def test_folds_part_the_classes():
    assert fold_classes(0)[:3] == (1, 5, 9)
    assert sorted(c for fold in range(4) for c in fold_classes(fold)) == list(range(1, 81))


def test_packaged_pairs():
    train, val = coco20i("train", tuple(range(1, 81))), coco20i("val", tuple(range(1, 81)))
    assert (len(train), len(val)) == (170491, 82573)
    assert (len({pair.id for pair in train}), len({pair.id for pair in val})) == (79939, 39059)
    assert {pair.id for pair in train} < set(read_ids("coco14", "train"))
    assert {pair.id for pair in val} < set(read_ids("coco14", "val_annotated"))
    assert sum(pair.class_id == 1 for pair in train) == 40118


def test_pairs_of_a_fold(tmp_path):
    data = COCO(tmp_path, Segment(), fold=2)
    novel = {3 + 4 * v for v in range(20)}
    assert set(data.fold_classes) == novel
    train, val = data.pairs("train"), data.pairs("test")
    assert {pair.class_id for pair in train} == set(range(1, 81)) - novel
    assert {pair.class_id for pair in val} == novel
    assert train[0].id.startswith("COCO_train2014_")
    assert val[0].id.startswith("COCO_val2014_")
    assert data.pairs("val") == val


def test_pairs_of_own_classes(tmp_path):
    data = COCO(own_world(tmp_path), Segment(), fold=1)
    touch(tmp_path / "SegmentationClass/train2014", STEMS, ".png")
    touch(tmp_path / "SegmentationClass/val2014", [f"COCO_val2014_{n:012d}" for n in (42, 73)], ".png")
    assert data.fold_classes == (2,)
    assert data.pairs("train") == [(STEMS[0], 3), (STEMS[1], 1)]
    assert data.pairs("test") == [("COCO_val2014_000000000042", 2)]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"year": 2015}, r"data\.year: 2015"),
        ({"fold": 4}, r"data\.fold: 4"),
        ({"labels": "stuff27"}, r"needs data\.year 2017"),
        ({"labels": "stuff27", "year": 2017, "tags": "x.npz"}, r"takes no data\.tags"),
    ],
)
def test_settings_that_contradict(tmp_path, options, message):
    with pytest.raises(ConfigError, match=message):
        COCO(tmp_path, Segment(), **options)


def test_folds_are_of_2014_and_of_objects(tmp_path):
    with pytest.raises(ConfigError, match="of the 2014 images"):
        COCO(tmp_path, Segment(), year=2017).pairs("train")
    with pytest.raises(ConfigError, match=r"set data\.labels to instances"):
        COCO(tmp_path, Segment(), year=2017, labels="stuff27").pairs("train")


# ---------------------------------------------------------------------- COCO-Stuff


def test_stuff_names():
    names = stuff_table("stuff171").names
    assert len(names) == len(set(names)) == len(VALUES) == 171
    assert names[:80] == NAMES
    assert (names[80], names[-1]) == ("banner", "wood")
    assert stuff_table("stuff27").names == COARSE == stuff_table("things12").names + stuff_table("stuff15").names
    assert not stuff_table("stuff27").background


def test_values_of_things_are_category_ids_less_one():
    fine = stuff_code("stuff171").values
    assert fine[np.array(CATEGORY_IDS) - 1].tolist() == list(range(80))


def test_stuff_codes():
    fine, coarse, things, stuff = (stuff_code(k).values for k in ("stuff171", "stuff27", "things12", "stuff15"))
    absent = [11, 25, 28, 29, 44, 65, 67, 68, 70, 82, 90, *range(182, 255)]
    for values in (fine, coarse, things, stuff):
        assert np.flatnonzero(values == NEVER).tolist() == absent
        assert values[255] == 255
    assert [fine[v] for v in (0, 10, 12, 24, 91, 181)] == [0, 10, 11, 23, 80, 170]
    of = {name: COARSE[coarse[value]] for name, value in zip(stuff_table("stuff171").names, VALUES, strict=True)}
    expected = {"person": "person", "tv": "electronic", "toaster": "appliance", "pizza": "food-things",
                "chair": "furniture-things", "book": "indoor-things", "fork": "kitchen-things", "tie": "accessory",
                "zebra": "animal", "bench": "outdoor-things", "kite": "sports", "boat": "vehicle",
                "ceiling-tile": "ceiling", "carpet": "floor", "salad": "food-stuff", "shelf": "furniture-stuff",
                "metal": "raw-material", "curtain": "textile", "wall-brick": "wall", "window-blind": "window",
                "house": "building", "road": "ground", "grass": "plant", "clouds": "sky", "rock": "solid",
                "fence": "structural", "sea": "water"}  # fmt: skip
    assert {name: of[name] for name in expected} == expected
    assert set(expected.values()) == set(COARSE)
    known = np.array(VALUES)
    np.testing.assert_array_equal(things[known], np.where(coarse[known] < 12, coarse[known], 255))
    np.testing.assert_array_equal(stuff[known], np.where(coarse[known] < 12, 255, coarse[known] - 12))


@pytest.mark.parametrize("folder", ["stuffthingmaps", "annotations"])
def test_stuff_layouts_and_absent_values(tmp_path, folder):
    touch(tmp_path / "images/val2017", ["000000000139"])
    mask = tmp_path / folder / "val2017/000000000139.png"
    mask.parent.mkdir(parents=True)
    Image.fromarray(np.array([[0, 12, 255]], np.uint8)).save(mask)
    (sample,) = COCO(tmp_path, Segment(), 2017, "stuff171").index("val")
    assert (sample.mask, sample.tags) == (mask, None)
    assert read_mask(mask, 171, code=sample.code).tolist() == [[0, 11, 255]]
    Image.fromarray(np.array([[0, 11, 255]], np.uint8)).save(mask)
    with pytest.raises(MaskError, match="value 11 in 1 pixels, first at row 0, column 1, is no class"):
        read_mask(mask, 171, code=sample.code)


# ---------------------------------------------------------------------- genuine samples


@pytest.fixture
def real(tmp_path):
    """The genuine COCO 2017 samples, in a folder that can be written."""
    if not (REAL / "coco").is_dir():
        pytest.skip(f"no genuine COCO samples at {REAL / 'coco'}; set FRUGALSEG_REAL_DATA")
    for part in ("train2017", "val2017"):
        (tmp_path / part).symlink_to(REAL / "coco" / part)
    shutil.copytree(REAL / "coco/annotations", tmp_path / "annotations", copy_function=shutil.copyfile)
    (tmp_path / "annotations").chmod(0o755)
    return tmp_path


@pytest.mark.real
def test_genuine_samples(real):
    make_masks(real, "val2017", workers=1)
    data = COCO(real, Segment(crop=None), year=2017)
    assert data.class_names == ("background", *NAMES)
    assert [len(data.index(split)) for split in ("train", "train_annotated", "val", "val_annotated")] == [
        52,
        51,
        31,
        29,
    ]
    content = json.loads((REAL / "coco/annotations/instances_val2017.json").read_text())
    crowded = {a["image_id"] for a in content["annotations"] if a["iscrowd"]}
    for sample in data.index("val"):
        item = data.recipe.evaluation_item(sample, 81)
        assert item["mask"].shape == item["image"].shape[1:]
        seen = set(item["mask"].unique().tolist()) - {0}
        tags = {tag + 1 for tag in sample.tags}
        assert seen <= tags
        # an object may be hidden behind another one, but hardly all of several classes
        assert int(sample.id) in crowded or len(tags - seen) <= 1


@pytest.mark.real
def test_a_grey_jpeg(real):
    (sample,) = [sample for sample in index(real, "train", 2017) if sample.id == "000000000086"]
    with Image.open(sample.image) as opened:
        assert opened.mode == "L"
    item = Tags(crop=64).train_item(sample, 81, np.random.default_rng(0))
    assert item["image"].shape == (3, 64, 64)
    assert item["tags"].nonzero().flatten().tolist() == list(sample.tags)


@pytest.mark.real
def test_genuine_stuff():
    root = REAL / "cocostuff"
    if not root.is_dir():
        pytest.skip(f"no genuine COCO-Stuff samples at {root}; set FRUGALSEG_REAL_DATA")
    seen = set()
    for split, count in (("train", 13), ("val", 8)):
        samples = index(root, split, 2017, "stuff171")
        assert len(samples) == count
        for sample in samples:
            with Image.open(sample.image) as image:
                size = image.height, image.width
            read = {labels: read_mask(sample.mask, len(stuff_table(labels).names), size, code=stuff_code(labels))
                    for labels in ("stuff171", "stuff27", "things12", "stuff15")}  # fmt: skip
            things, stuff = read["things12"], read["stuff15"]
            np.testing.assert_array_equal(
                np.where(things < 255, things, np.where(stuff < 255, stuff + 12, 255)), read["stuff27"]
            )
            np.testing.assert_array_equal(read["stuff171"] < 80, things < 255)
            seen |= set(np.unique(read["stuff171"]).tolist())
    assert len(seen) > 50
