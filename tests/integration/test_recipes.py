"""Every benchmark through every recipe that its labels allow: miniature worlds in the official layouts, genuine samples."""

from collections.abc import Callable
from itertools import chain, islice
from pathlib import Path
from types import SimpleNamespace
from typing import NamedTuple

import pytest
import torch
from PIL import Image

from frugalseg.cli import main
from frugalseg.data import ADE20K, COCO, DLRSD, VOC, Cityscapes, Episodes, ISAID5i, MultiScale, Segment, Tags, Views
from frugalseg.data.coco_masks import make_masks
from frugalseg.data.module import SegmentationData
from frugalseg.data.tiling import tile_dataset
from frugalseg.errors import ConfigError, DatasetError
from frugalseg.miniature.ade20k import write_ade20k_world
from frugalseg.miniature.cityscapes import write_cityscapes_world
from frugalseg.miniature.coco import write_coco_world
from frugalseg.miniature.dlrsd import write_dlrsd_world
from frugalseg.miniature.isaid import write_isaid_world
from frugalseg.miniature.voc import write_voc_world
from tests.conftest import REAL

SIDE = 48
RECIPES = {
    "tags": lambda: Tags(crop=SIDE, flip=0.5),
    "segment": lambda: Segment(crop=SIDE, colour=0.4),
    "episodes": lambda: Episodes(shots=2, size=SIDE, allow_missing_classes=True),
    "views": lambda: Views(global_size=SIDE, local_size=24, local_views=3),
    "device_views": lambda: Views(global_size=SIDE, local_size=24, local_views=2, colour="device"),
}
MODULES: dict[str, Callable[..., SegmentationData]] = {
    "voc": VOC, "coco": COCO, "ade20k": ADE20K, "cityscapes": Cityscapes, "isaid5i": ISAID5i, "dlrsd": DLRSD,
}  # fmt: skip
FITS = {
    "voc": ["tags", "segment", "episodes", "views", "device_views"],
    "coco": ["tags", "segment", "episodes", "views"],
    "ade20k": ["segment", "views"],
    "cityscapes": ["segment", "views"],
    "isaid5i": ["segment", "episodes", "views"],
    "dlrsd": ["segment", "episodes", "views"],
}
CASES = [(benchmark, recipe) for benchmark, recipes in FITS.items() for recipe in recipes]


@pytest.fixture(scope="session")
def worlds(tmp_path_factory) -> Callable[[str], Path]:
    """Worlds that are written when they are first asked for."""
    top, made = tmp_path_factory.mktemp("worlds"), {}

    def tiles(root: Path) -> None:
        write_isaid_world(top / "isaid-raw", scenes_train=5, scenes_val=4, size=288)
        tile_dataset(top / "isaid-raw", root, tile=96, step=77, lists=True, workers=1)

    def coco(root: Path) -> None:
        write_coco_world(root, images_train=40, images_val=20)
        for folder in ("train2014", "val2014"):
            make_masks(root, folder, workers=1)

    writers = {
        "voc": lambda root: write_voc_world(root, images_train=40, images_val=20, seed=3),
        "coco": coco,
        "ade20k": lambda root: write_ade20k_world(root, images_train=8, images_val=4),
        "cityscapes": lambda root: write_cityscapes_world(root, images_train=8, images_val=4),
        "isaid5i": tiles,
        "dlrsd": lambda root: write_dlrsd_world(root, images_per_folder=6, size=64),
    }

    def world(name: str) -> Path:
        if name not in made:
            writers[name](top / name)
            made[name] = top / name
        return made[name]

    return world


def build(benchmark: str, root: Path, recipe: str, **settings) -> SegmentationData:
    settings = {"batch_size": 4, "num_workers": 0, "seed": 7, **settings}
    data = MODULES[benchmark](root, RECIPES[recipe](), **settings)
    data.setup("fit")
    return data


def tensors(batch):
    """Flat (name, tensor or list) pairs of a batch."""
    return {key: value for key, value in batch.items() if isinstance(value, torch.Tensor | list)}


def assert_same(a, b):
    assert a.keys() == b.keys()
    for key, value in a.items():
        assert torch.equal(value, b[key]) if isinstance(value, torch.Tensor) else value == b[key], key


def assert_sound(batch, data, recipe):
    n = len(batch["id"])
    if recipe == "tags":
        assert batch["image"].shape == (n, 3, SIDE, SIDE)
        assert (batch["tags"].sum(1) >= 1).all()
    if recipe == "segment":
        assert batch["mask"].shape == (n, SIDE, SIDE)
        values = set(batch["mask"].unique().tolist())
        assert values <= {*range(data.num_classes), 255}
        assert len(values) > 1
    if recipe == "episodes":
        assert batch["support_images"].shape == (n, 2, 3, SIDE, SIDE)
        assert set(batch["query_mask"].unique().tolist()) <= {0, 1, 255}
        assert (batch["support_masks"] == 1).flatten(2).any(2).all()
    if recipe.endswith("views"):
        assert batch["global_views"].shape == (n, 2, 3, SIDE, SIDE)
        assert batch["box"].shape[1] == 2 + batch["local_views"].shape[1]
        assert batch["global_views"].dtype == (torch.uint8 if recipe == "device_views" else torch.float32)


@pytest.mark.parametrize(("benchmark", "recipe"), CASES)
def test_batches_do_not_depend_on_workers(benchmark, recipe, worlds):
    root = worlds(benchmark)
    data = build(benchmark, root, recipe)
    alone = list(islice(data.train_dataloader(), 3))
    assert len(alone) >= 2
    for batch in alone:
        assert_sound(batch, data, recipe)
    # the same image is not made the same way twice
    assert len({batch["id"][0] for batch in alone}) > 1
    for workers in (1, 4):
        helped = list(islice(build(benchmark, root, recipe, num_workers=workers).train_dataloader(), 3))
        for a, b in zip(alone, helped, strict=True):
            assert_same(tensors(a), tensors(b))


@pytest.mark.parametrize(("benchmark", "recipe"), CASES)
def test_two_ranks_put_together_are_one(benchmark, recipe, worlds):
    root = worlds(benchmark)
    whole = islice(build(benchmark, root, recipe, batch_size=4).train_dataloader(), 2)
    ranks = [build(benchmark, root, recipe, batch_size=2) for _ in range(2)]
    for rank, data in enumerate(ranks):
        data.trainer = SimpleNamespace(global_rank=rank, world_size=2, current_epoch=0)
    parts = [list(islice(data.train_dataloader(), 2)) for data in ranks]
    for step, batch in enumerate(whole):
        halves = [part[step] for part in parts]
        for key, value in tensors(batch).items():
            both = [half[key] for half in halves]
            joined = torch.cat(both) if isinstance(value, torch.Tensor) else list(chain(*both))
            assert torch.equal(value, joined) if isinstance(value, torch.Tensor) else value == joined, key
    alone = list(build(benchmark, root, recipe).val_dataloader())
    seen = [list(data.val_dataloader()) for data in ranks]
    assert sum(map(len, seen)) == len(alone) >= 4  # nothing twice, nothing left out
    for place, batch in enumerate(alone):
        assert_same(tensors(seen[place % 2][place // 2]), tensors(batch))


@pytest.mark.parametrize(("benchmark", "recipe"), CASES)
def test_show_draws_it(benchmark, recipe, worlds, tmp_path, capsys):
    words = recipe_words(RECIPES[recipe]())
    module = MODULES[benchmark].__name__
    for role in ("train", "val"):
        out = tmp_path / f"{role}.png"
        flags = [f"--data={module}", f"--data.init_args.root={worlds(benchmark)}", *words]
        code = main(["show", *flags, "--data.init_args.batch_size=2", "--data.init_args.num_workers=0",
                     "--role", role, "--count", "3", "--out", str(out)])  # fmt: skip
        assert code == 0, capsys.readouterr().err
        width, height = Image.open(out).size
        assert min(width, height) >= SIDE
        assert len(set(Image.open(out).convert("L").tobytes())) > 20  # a picture, not a blank sheet
    assert f"3 images of {module}, val" in capsys.readouterr().out


def recipe_words(recipe) -> list[str]:
    """Command-line words for the recipes above."""
    name = type(recipe).__name__
    settings = {"Tags": {"crop": SIDE}, "Segment": {"crop": SIDE}, "Episodes": {"shots": 2, "size": SIDE, "allow_missing_classes": True},
                "Views": {"global_size": SIDE, "local_size": 24, "local_views": 2, "colour": getattr(recipe, "colour", "")}}[name]  # fmt: skip
    return [
        f"--data.init_args.recipe={name}",
        *(f"--data.init_args.recipe.init_args.{k}={v}" for k, v in settings.items()),
    ]


@pytest.mark.parametrize("benchmark", list(FITS))
def test_prediction_at_several_scales(benchmark, worlds):
    data = MODULES[benchmark](
        worlds(benchmark), Segment(), predict_recipe=MultiScale(scales=(1.0, 0.5)), predict_split="val", num_workers=0
    )
    data.setup("predict")
    batch = next(iter(data.predict_dataloader()))
    assert [tuple(pair.shape[:2]) for pair in batch["images"]] == [(2, 3)] * 2
    assert batch["images"][0].shape[2:] == torch.Size(batch["size"])


@pytest.mark.parametrize("benchmark", ["ade20k", "cityscapes"])
def test_recipes_that_do_not_fit_say_so(benchmark, worlds):
    with pytest.raises(DatasetError, match="have no image-level labels"):
        build(benchmark, worlds(benchmark), "tags")
    with pytest.raises(ConfigError, match="has no few-shot folds; use Episodes with VOC, COCO, ISAID5i or DLRSD"):
        build(benchmark, worlds(benchmark), "episodes").train_dataloader()


# ---------------------------------------------------------------------- genuine samples


class Genuine(NamedTuple):
    """A benchmark of `shared/real` and what it has."""

    benchmark: str
    folder: str
    settings: dict
    recipes: list[str]


GENUINE = [
    Genuine("voc", "VOCdevkit/VOC2012", {"train_split": "trainaug", "fold": 2}, FITS["voc"]),
    Genuine("coco", "coco", {"year": 2017, "train_split": "train_annotated"}, ["tags", "segment", "views"]),
    Genuine("coco", "cocostuff", {"year": 2017, "labels": "stuff171"}, ["segment", "views"]),
    Genuine("coco", "cocostuff", {"year": 2017, "labels": "stuff27"}, ["segment"]),
    Genuine("ade20k", "ADEChallengeData2016", {"train_split": "val", "batch_size": 2}, FITS["ade20k"]),
    Genuine("cityscapes", "cityscapes", {"val_split": "train", "batch_size": 2}, FITS["cityscapes"]),
    Genuine("isaid5i", "iSAID_patches", {"fold": 0}, ["segment", "views"]),
]


@pytest.fixture(scope="session")
def genuine(tmp_path_factory):
    """Roots of the genuine samples; COCO's gets links beside the masks that are made from its json."""
    made = {}

    def root(folder: str) -> Path:
        source = REAL / folder
        if not source.is_dir():
            pytest.skip(f"no genuine samples at {source}; set FRUGALSEG_REAL_DATA")
        if folder != "coco":
            return source
        if folder not in made:
            top = made[folder] = tmp_path_factory.mktemp("coco")
            for entry in source.iterdir():
                if entry.name != "annotations":
                    (top / entry.name).symlink_to(entry)
            (top / "annotations").mkdir()
            for entry in (source / "annotations").glob("*.json"):
                (top / "annotations" / entry.name).symlink_to(entry)
            for part in ("train2017", "val2017"):
                make_masks(top, part, workers=1)
        return made[folder]

    return root


@pytest.mark.real
@pytest.mark.parametrize(
    ("case", "recipe"), [(case, recipe) for case in GENUINE for recipe in case.recipes],
    ids=lambda value: value if isinstance(value, str) else f"{value.folder}-{value.settings.get('labels', '')}",
)  # fmt: skip
def test_genuine_samples_load_through_every_recipe_that_fits(case, recipe, genuine):
    data = build(case.benchmark, genuine(case.folder), recipe, **case.settings)
    batch = next(iter(data.train_dataloader()))
    assert_sound(batch, data, recipe)
    evaluated = list(islice(data.val_dataloader(), 3))
    assert evaluated
    if recipe == "segment":  # whole images
        for one in evaluated:
            with Image.open(next(s.image for s in data.samples("val") if s.id == one["id"][0])) as image:
                assert one["mask"].shape == (1, image.height, image.width)


@pytest.mark.real
def test_genuine_tiles_make_episodes(genuine):
    """The 42 tiles show vehicles (fold 1): as base classes in the training tiles, as novel ones in the others."""
    base = build("isaid5i", genuine("iSAID_patches"), "episodes", fold=0)
    batch = next(iter(base.train_dataloader()))
    assert_sound(batch, base, "episodes")
    assert set(batch["class_id"].tolist()) <= {8, 9}
    novel = build("isaid5i", genuine("iSAID_patches"), "episodes", fold=1, val_classes="novel")
    evaluated = list(novel.val_dataloader())
    assert len(evaluated) == 33  # lines of split1_val.txt
    assert {int(one["class_id"]) for one in evaluated} == {8, 9}
    for one in evaluated:
        assert_sound(one, novel, "episodes")
    with pytest.raises(DatasetError, match=r"no few-shot pairs: .*fold"):
        build("isaid5i", genuine("iSAID_patches"), "episodes", fold=2, val_classes="novel").val_dataloader()


@pytest.mark.real
@pytest.mark.parametrize(("benchmark", "folder", "settings"), [
    ("voc", "VOCdevkit/VOC2012", {}), ("coco", "coco", {"year": 2017}), ("coco", "cocostuff", {"year": 2017, "labels": "stuff27"}),
    ("ade20k", "ADEChallengeData2016", {}), ("isaid5i", "iSAID_patches", {}), ("cityscapes", "cityscapes", {"predict_split": "train"}),
])  # fmt: skip
def test_genuine_samples_at_several_scales(benchmark, folder, settings, genuine):
    settings = {"predict_split": "val", "num_workers": 0, **settings}
    data = MODULES[benchmark](genuine(folder), Segment(), predict_recipe=MultiScale(scales=(1.0, 0.5)), **settings)
    data.setup("predict")
    batch = next(iter(data.predict_dataloader()))
    assert batch["images"][1].shape[2] == round(batch["size"][0] / 2)
