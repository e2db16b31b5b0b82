import itertools

import numpy as np
import pytest
import torch
from PIL import Image

from frugalseg.data import VOC, Episodes, Segment, Tags
from frugalseg.data.base import Episode, Sample
from frugalseg.data.cityscapes import Cityscapes
from frugalseg.data.io import write_mask
from frugalseg.data.sampler import draw_rng
from frugalseg.errors import ConfigError, DatasetError
from frugalseg.ops.palette import voc_palette
from tests.data.conftest import picture

STILL = {"scale": None, "rotate": 0.0, "flip": 0.0, "vertical_flip": 0.0}
"""Training without augmentation."""


@pytest.fixture(scope="module")
def few_shot(tmp_path_factory):
    """VOC layout with 12 training and 9 validation images and lists of pairs for fold 0 (classes 1-5)."""
    root = tmp_path_factory.mktemp("few") / "VOC2012"
    lists = {"train": [f"t{n}" for n in range(12)], "val": [f"v{n}" for n in range(9)]}
    for folder in ("JPEGImages", "SegmentationClass", "ImageSets/Segmentation", "ImageSets/FewShot"):
        (root / folder).mkdir(parents=True)
    for split, ids in lists.items():
        (root / f"ImageSets/Segmentation/{split}.txt").write_text("\n".join(ids))
    pairs = {f"{part}_fold{f}": [] for part in ("trn", "val") for f in range(4)}
    rng = np.random.default_rng(0)
    for number, name in enumerate(itertools.chain(*lists.values())):
        height, width = rng.integers(30, 60, 2)
        Image.fromarray(picture(height, width, number)).save(root / f"JPEGImages/{name}.jpg", quality=95)
        novel, base = 1 + number % 3, 6 + number % 2
        ids = np.zeros((height, width), np.uint8)
        ids[5:20, 5:20], ids[10:28, 18:], ids[:2] = novel, base, 255
        write_mask(root / f"SegmentationClass/{name}.png", ids, voc_palette())
        part = "trn" if name.startswith("t") else "val"
        pairs[f"{part}_fold0"].append(f"{name}__{novel:02d}")
        pairs[f"{part}_fold1"].append(f"{name}__{base:02d}")
    for name, lines in pairs.items():
        (root / f"ImageSets/FewShot/{name}.txt").write_text("\n".join(lines))
    return root


def module(root, recipe=None, **settings):
    recipe = recipe or Episodes(shots=2, size=48, allow_missing_classes=True)
    settings = {"fold": 0, "batch_size": 3, "num_workers": 0, "seed": 5, **settings}
    data = VOC(root, recipe, **settings)
    data.setup("fit")
    return data


def rng(seed):
    return np.random.default_rng(seed)


def episode_of_one(folder, pixels, ids, class_id=2):
    """An episode whose query and support are the same image, kept without loss."""
    Image.fromarray(pixels).save(folder / "x.png")
    write_mask(folder / "x_mask.png", ids, voc_palette())
    tile = Sample("x", folder / "x.png", folder / "x_mask.png", None)
    return Episode("x", tile.image, tile.mask, None, class_id=class_id, supports=(tile,), number=0)


def assert_equal(a, b):
    assert a.keys() == b.keys()
    for key in a:
        assert torch.equal(a[key], b[key]) if isinstance(a[key], torch.Tensor) else a[key] == b[key], key


def test_shapes_values_and_classes_of_training(few_shot):
    data = module(few_shot)
    assert data.fold_classes == (1, 2, 3, 4, 5)
    batches = list(data.train_dataloader())
    assert len(batches) == 4  # 12 pairs of the base classes
    for batch in batches:
        assert batch["query_image"].shape == (3, 3, 48, 48)
        assert batch["query_image"].dtype == torch.float32
        assert batch["support_images"].shape == (3, 2, 3, 48, 48)
        assert batch["query_mask"].shape == (3, 48, 48)
        assert batch["support_masks"].shape == (3, 2, 48, 48)
        assert set(batch["query_mask"].unique().tolist()) == {0, 1, 255}
        assert set(batch["class_id"].tolist()) <= {6, 7}  # never a class of the fold
        assert (batch["query_mask"] == 1).flatten(1).any(1).all()
        assert (batch["support_masks"] == 1).flatten(2).any(2).all()
        for query, supports in zip(batch["id"], batch["support_id"], strict=True):
            assert len({query, *supports}) == 3


def test_evaluation_takes_every_pair_of_the_fold_once_and_shows_its_class(few_shot):
    data = module(few_shot)
    batches = list(data.val_dataloader())
    assert [b["id"][0] for b in batches] == [f"v{n}" for n in range(9)]
    assert {int(b["class_id"]) for b in batches} == {1, 2, 3}
    ids = np.asarray(Image.open(few_shot / "SegmentationClass/v0.png"))
    height, width = ids.shape
    factor = 48 / max(height, width)
    expected = np.where(ids == 255, 255, ids == int(batches[0]["class_id"])).astype(np.uint8)
    truth = batches[0]["query_mask"][0]
    inside = truth[: round(height * factor), : round(width * factor)]
    assert (truth[round(height * factor) :] == 255).all()
    assert (truth[:, round(width * factor) :] == 255).all()
    assert abs((inside == 1).float().mean().item() - (expected == 1).mean()) < 0.03


def test_tiles_of_the_right_size_are_left_as_they_are(few_shot, tmp_path):
    data = module(few_shot, Episodes(size=48, allow_missing_classes=True))
    pixels = picture(48, 48, 1)
    ids = np.zeros((48, 48), np.uint8)
    ids[10:30, 4:9], ids[33:40, 20:], ids[:3] = 2, 9, 255
    episode = episode_of_one(tmp_path, pixels, ids)
    image = torch.from_numpy(data.recipe.normaliser.table[np.arange(3)[:, None, None], pixels.transpose(2, 0, 1)])
    truth = torch.from_numpy(np.where(ids == 255, 255, ids == 2))
    for item in (data.recipe.evaluation_item(episode, 21), Episodes(size=48, **STILL).train_item(episode, 21, rng(0))):
        for name in ("query_image", "query_mask", "support_images", "support_masks"):
            found = item[name] if name.startswith("query") else item[name][0]
            assert torch.equal(found, image if "image" in name else truth), name


@pytest.mark.parametrize(
    ("setting", "changed"),
    [
        ({"flip": 1.0}, lambda x: x.flip(-1)),
        ({"vertical_flip": 1.0}, lambda x: x.flip(-2)),
        ({"scale": (1.5, 1.5)}, None),
        ({"rotate": 40.0}, None),
        ({}, None),  # the defaults
    ],
)
def test_training_augments_query_and_supports(tmp_path, setting, changed):
    ids = np.zeros((48, 48), np.uint8)
    ids[10:30, 4:19] = 2
    episode = episode_of_one(tmp_path, picture(48, 48, 1), ids)
    raw = Episodes(size=48).evaluation_item(episode, 21)
    recipe = Episodes(size=48, **{**STILL, **setting} if setting else {})
    items = [recipe.train_item(episode, 21, rng(seed)) for seed in range(4)]
    for item in items:
        for name in ("query_image", "query_mask", "support_images", "support_masks"):
            assert torch.equal(item[name], changed(raw[name])) if changed else not torch.equal(item[name], raw[name])
    if not changed:  # each image by itself, and every draw is another one
        assert not torch.equal(items[0]["query_image"], items[0]["support_images"][0])
        assert len({tuple(item["query_image"].flatten().tolist()) for item in items}) == 4


def test_resizing_makes_no_values_between(tmp_path):
    """Bilinear masks would hold 5 between the ids 1 and 9, and 128 between the class and what is ignored."""
    blocks = rng(0).choice([1, 9, 255], (10, 14)).astype(np.uint8)
    ids = blocks.repeat(7, 0).repeat(7, 1)
    episode = episode_of_one(tmp_path, picture(70, 98, 1), ids, class_id=9)
    found = Episodes(size=48).evaluation_item(episode, 21)["query_mask"]
    rows, columns = (((np.arange(to) + 0.5) * side / to).astype(int) for side, to in ((70, 34), (98, 48)))
    nearest = ids[rows][:, columns]
    assert np.array_equal(found[:34].numpy(), np.where(nearest == 255, 255, nearest == 9))
    assert (found[34:] == 255).all()
    turned = [Episodes(scale=(0.7, 1.4)).augment(picture(70, 98, 1), ids, rng(seed))[1] for seed in range(10)]
    assert set(np.unique(np.concatenate([mask.ravel() for mask in turned]))) == {1, 9, 255}


@pytest.mark.parametrize("workers", [1, 4])
def test_episodes_do_not_depend_on_the_workers(few_shot, workers):
    for name in ("train_dataloader", "val_dataloader"):
        alone = list(getattr(module(few_shot), name)())
        helped = list(getattr(module(few_shot, num_workers=workers), name)())
        assert len(alone) == len(helped) > 0
        for a, b in zip(alone, helped, strict=True):
            assert_equal(a, b)


class Place:
    """What the data module asks a Trainer for."""

    def __init__(self, rank, world):
        self.global_rank, self.world_size, self.current_epoch = rank, world, 0


def test_two_ranks_put_together_are_one_rank(few_shot):
    whole = module(few_shot, batch_size=4)
    ranks = [module(few_shot, batch_size=2) for _ in range(2)]
    for rank, data in enumerate(ranks):
        data.trainer = Place(rank, 2)
    parts = [list(data.train_dataloader()) for data in ranks]
    for step, batch in enumerate(whole.train_dataloader()):
        both = [part[step] for part in parts]
        assert torch.equal(batch["query_image"], torch.cat([b["query_image"] for b in both]))
        assert torch.equal(batch["support_masks"], torch.cat([b["support_masks"] for b in both]))
        assert batch["id"] == both[0]["id"] + both[1]["id"]
    alone = {int(b["number"]): b for b in whole.val_dataloader()}
    seen = [b for data in ranks for b in data.val_dataloader()]
    assert sorted(int(b["number"]) for b in seen) == sorted(alone)
    for batch in seen:
        assert_equal(batch, alone[int(batch["number"])])


def test_seeds_and_counts(few_shot):
    def supports(**settings):
        data = module(few_shot, Episodes(size=48, allow_missing_classes=True, **settings))
        return [(int(b["number"]), b["id"][0], b["support_id"][0]) for b in data.val_dataloader()]

    assert supports() == supports(test_seed=0)
    assert supports() != supports(test_seed=1)
    fewer, more = supports(test_episodes=5), supports(test_episodes=14)
    assert len(fewer) == 5
    assert set(map(str, fewer)) <= set(map(str, supports()))
    chosen = [tuple(row[0] for row in supports(test_episodes=5, test_seed=seed)) for seed in (0, 0, 1, 2, 3)]
    assert chosen[0] == chosen[1]
    assert len(set(chosen)) > 2  # a seeded choice
    assert (0, 1, 2, 3, 4) not in chosen  # and not the head of the list
    assert [row[1] for row in more] == [f"v{n}" for n in [*range(9), *range(5)]]
    data = module(few_shot, Episodes(size=48, per_epoch=6, allow_missing_classes=True))
    assert len(list(data.train_dataloader())) == 2


def test_every_epoch_has_episodes_of_its_own(few_shot):
    data = module(few_shot)

    def episodes(epoch):
        data.trainer = Place(0, 1)
        data.trainer.current_epoch = epoch
        batches = list(data.train_dataloader())
        rows = zip(*([row for b in batches for row in b[key]] for key in ("id", "support_id", "class_id")), strict=True)
        return sorted((name, *supports, int(class_id)) for name, supports, class_id in rows)

    first, second = episodes(0), episodes(1)
    assert first == episodes(0)
    assert len(set(first)) > 9  # of 12; sorted, so that another order of the same ones would be found out
    assert len(set(first) & set(second)) < 4


def test_the_supports_are_those_of_seed_and_fold(few_shot):
    """The loader hands (test_seed, fold) to `EpisodeTable.test`; both folds have nine pairs, of other classes."""
    for fold, seed in itertools.product((0, 1), (0, 3)):
        data = module(few_shot, Episodes(shots=2, size=48, test_seed=seed, allow_missing_classes=True), fold=fold)
        table, samples = data.episode_table("val"), data.samples("val")
        drawn = [table.test(number, (seed, fold), 2) for number in range(9)]
        found = list(data.val_dataloader())
        assert [b["support_id"][0] for b in found] == [[samples[i].id for i in draw.supports] for draw in drawn]
        assert [int(b["class_id"]) for b in found] == [draw.class_id for draw in drawn]


def test_a_class_without_episodes_is_refused_unless_allowed(few_shot, caplog):
    data = module(few_shot, Episodes(size=48))
    with pytest.raises(
        DatasetError, match=r"an episode of boat \(0\), bottle \(0\): it takes 2; .*allow_missing_classes"
    ):
        data.val_dataloader()
    allowed = module(few_shot)
    assert len(allowed.val_dataloader()) == 9
    assert "boat (0), bottle (0): it takes 2; left out" in caplog.text


def test_errors(few_shot, tmp_path):
    with pytest.raises(ConfigError, match="shots"):
        Episodes(shots=0)
    with pytest.raises(ConfigError, match=r"data.fold: 4 is none of the 4 folds"):
        VOC(few_shot, Tags(), fold=4)
    (tmp_path / "leftImg8bit/train/aachen").mkdir(parents=True)
    with pytest.raises(ConfigError, match="Cityscapes has no few-shot folds"):
        Cityscapes(tmp_path, Segment()).pairs("train")
    with pytest.raises(DatasetError, match="has 12 episodes, one step takes 13"):
        module(few_shot, batch_size=13).train_dataloader()


def test_augmented_masks_stay_on_their_objects(few_shot):
    """Rotation, scale and flips move image and mask together."""
    data = module(few_shot, Episodes(size=48, rotate=30, scale=(0.7, 1.4), allow_missing_classes=True))
    image = np.zeros((160, 160, 3), np.uint8)
    image[34:116, 40:100] = 255
    ids = np.zeros((160, 160), np.uint8)
    ids[34:116, 40:100] = 6
    overlap = []
    for number in range(20):
        turned, mask = data.recipe.augment(image, ids, draw_rng(0, number))
        assert turned.shape[:2] == mask.shape
        bright, object_ = turned.mean(2) > 127, mask == 6
        known = mask != 255
        overlap.append((bright & object_ & known).sum() / ((bright | object_) & known).sum())
    assert min(overlap) > 0.95  # a shift by two pixels would cost more
