"""`Tags` with resized crops, and with two views (papers/cti.md 1.2)."""

import math
import pickle
import random
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.stats import ks_2samp, kstest
from timm.data import create_transform
from timm.data.auto_augment import rand_augment_transform
from timm.data.transforms import RandomResizedCropAndInterpolation
from torchvision.transforms.v2 import functional as F

from frugalseg.data import Segment, Tags
from frugalseg.data.base import Sample
from frugalseg.data.demands import demand
from frugalseg.data.loader import TrainItems, TrainLoader
from frugalseg.data.randaugment import RandAugment, check_config
from frugalseg.data.resized_crop import ResizedCrop, crop_box
from frugalseg.data.sampler import TrainSampler, draw_rng
from frugalseg.data.voc import index
from frugalseg.errors import ConfigError, DatasetError
from tests.data.test_resume import Recorder, data, every_step, trainer

AREA, ASPECT = (0.3, 1.2), (3 / 4, 4 / 3)
SIZE = (375, 500)
CTI = {"crop": 48, "flip": 0.5, "area": AREA}
PLAIN = {"mean": (0.0, 0.0, 0.0), "std": (1.0, 1.0, 1.0)}
POLICY = "rand-m9-mstd0.5-inc1"


def rng(*seed):
    return np.random.default_rng(seed)


def boxes(size, area, count=4000, draw=crop_box):
    return np.array([draw(size, area, ASPECT, rng(seed)) for seed in range(count)])


def timm_box(size, area, aspect, numbers):
    """The box that timm draws, as x0, y0, x1, y1."""
    random.seed(int(numbers.integers(2**32)))
    top, left, height, width = RandomResizedCropAndInterpolation.get_params(Image.new("L", size[::-1]), area, aspect)
    return left, top, left + width, top + height


def parts(found, size):
    return (found[:, 2] - found[:, 0]) * (found[:, 3] - found[:, 1]) / math.prod(size)


def levels(view):
    """A view of the recipe with PLAIN normalisation as (S, S, 3) uint8."""
    return (view * 255).round().to(torch.uint8).permute(1, 2, 0).numpy()


# ---------------------------------------------------------------------- boxes


@pytest.mark.parametrize("size", [SIZE, (500, 333), (300, 300), (240, 900)])
def test_boxes_are_distributed_as_timms(size):
    ours, theirs = boxes(size, AREA), boxes(size, AREA, draw=timm_box)
    for of in (lambda b: parts(b, size), lambda b: b[:, 2] - b[:, 0], lambda b: b[:, 0], lambda b: b[:, 1]):
        assert ks_2samp(of(ours), of(theirs)).pvalue > 0.01


def test_an_area_above_one_is_rejected_not_clipped():
    """Trap 11: with 0.3..1.2 the centred crop of the whole image comes more often than with 0.3..1."""
    size = (300, 600)
    centred = crop_box(size, (9.0, 9.5), ASPECT, rng(0))
    assert centred == (100, 0, 500, 300)
    to_more, to_one = boxes(size, AREA), boxes(size, (0.3, 1.0))
    last_more, last_one = ((found == centred).all(1) for found in (to_more, to_one))
    assert last_more.mean() > 1.8 * last_one.mean() > 0.03
    # the other boxes are those that fit in either case: nothing was clipped to the image's area
    assert ks_2samp(parts(to_more[~last_more], size), parts(to_one[~last_one], size)).pvalue > 0.01
    assert parts(to_more, size).max() <= 2 / 3  # of an image twice as wide as high, at 4/3
    sure = parts(boxes((400, 400), AREA), (400, 400))
    sure = sure[sure < 0.7]  # where every aspect fits areas are uniform
    assert kstest(sure, "uniform", (0.3, 0.4)).pvalue > 0.01


def test_what_takes_the_place_of_boxes_that_never_fit_is_timms_centred_crop():
    kinds = set()
    for height in (1, 2, 30, 75, 99, 100, 101, 133, 134, 300):
        for width in (1, 2, 40, 75, 99, 100, 101, 133, 134, 500):
            size, area = (height, width), (9.0, 9.5)
            found = crop_box(size, area, ASPECT, rng(0))
            assert found == timm_box(size, area, ASPECT, rng(0))
            kinds.add((found[2] - found[0] == width, found[3] - found[1] == height))
    assert kinds == {(True, True), (True, False), (False, True)}


@pytest.mark.parametrize("size", [(1, 1), (1, 2), (2, 3), (7, 5), (1, 4000), (4000, 1), (10, 3000), (997, 31)])
@pytest.mark.parametrize("area", [AREA, (0.001, 0.01), (1.0, 1.0)])
def test_boxes_lie_inside_any_image(size, area):
    found = boxes(size, area, 50)
    assert (found[:, :2] >= 0).all()
    assert (found[:, 2:] > found[:, :2]).all()
    assert (found[:, 2:] <= size[::-1]).all()


def test_aspects_are_log_uniform_and_offsets_uniform():
    found = boxes((1200, 1600), (0.1, 0.3))  # every aspect fits
    width, height = (found[:, 2:] - found[:, :2]).T
    low, high = np.log(ASPECT)
    assert kstest(np.log(width / height), "uniform", (low, high - low)).pvalue > 0.01
    assert width.min() / height.max() < 1 < (width / height).max() < ASPECT[1] * 1.005
    for offset, room in ((found[:, 0], 1600 - width), (found[:, 1], 1200 - height)):
        assert kstest((offset + 0.5) / (room + 1), "uniform").pvalue > 0.01
        assert (offset == 0).any()
        assert (offset == room).any()


# ---------------------------------------------------------------------- views


def test_the_first_view_is_the_box_resized_and_mirrored(voc_root):
    """Against Pillow."""
    seen = set()
    for number, sample in enumerate(index(voc_root, "train") * 3):
        item = Tags(**CTI, **PLAIN, views=2).train_item(sample, 21, draw_rng(1, number))
        numbers, image = draw_rng(1, number), Image.open(sample.image).convert("RGB")
        box = crop_box(image.size[::-1], AREA, ASPECT, numbers)
        expected = np.asarray(image.crop(box).resize((48, 48), Image.Resampling.BICUBIC)).astype(int)
        mirrored = numbers.random() < 0.5
        wrong = np.abs(levels(item["image"]) - (expected[:, ::-1] if mirrored else expected))
        assert wrong.max() <= 2  # torch's weights have fewer bits
        assert wrong.mean() < 0.5
        assert item["box"].tolist() == [0, 0, 48, 48]
        seen.add(mirrored)
    assert seen == {True, False}


@pytest.mark.parametrize("flip", [0.0, 1.0])
def test_flip_is_a_probability(flip):
    ramp = np.repeat(np.arange(60, dtype=np.uint8)[None, :, None], 60, 0).repeat(3, 2)
    for seed in range(20):
        view = ResizedCrop(24, AREA, ASPECT, flip)(ramp, rng(seed)).astype(int)
        assert (view[:, 0] < view[:, -1]).all() == (flip == 0)


def test_the_first_view_does_not_depend_on_the_second(voc_root):
    second = [{"views": 2}, {"views": 2, "randaugment": None}, {"views": 2, "randaugment": None, "colour": 0.4}]
    for number, sample in enumerate(index(voc_root, "train")):
        alone = Tags(**CTI).train_item(sample, 21, draw_rng(0, number))
        assert "strong" not in alone
        items = [Tags(**CTI, **settings).train_item(sample, 21, draw_rng(0, number)) for settings in second]
        assert all(torch.equal(item["image"], alone["image"]) for item in items)
        assert all(not torch.equal(item["image"], item["strong"]) for item in items)


def test_the_two_crops_are_independent(tmp_path):
    """The pixels' red and green are their x and y, so colours tell boxes and flips."""
    y, x = np.indices((200, 250))
    Image.fromarray(np.stack([x, y, 0 * x], axis=-1).astype(np.uint8)).save(tmp_path / "ramp.png")
    sample = Sample("ramp", tmp_path / "ramp.png", None, (0,))
    recipe = Tags(crop=32, flip=0.5, area=(0.1, 0.5), views=2, randaugment=None, **PLAIN)
    items = [recipe.train_item(sample, 21, draw_rng(0, number)) for number in range(400)]
    found = {}
    for key in ("image", "strong"):
        views = torch.stack([item[key] for item in items]) * 255
        across, down = views[:, 0].mean(1), views[:, 1].mean(2)
        width, height = (across[:, -1] - across[:, 0]).abs(), down[:, -1] - down[:, 0]
        flipped = (across[:, 0] > across[:, -1]).float()
        found[key] = torch.stack([width * height, (width / height).log(), across.mean(1), down.mean(1), flipped])
    for one, two in zip(found["image"], found["strong"], strict=True):
        assert abs(torch.corrcoef(torch.stack([one, two]))[0, 1]) < 0.15  # three standard deviations
        assert ks_2samp(one, two).pvalue > 0.01  # and alike
    assert 0.4 < found["strong"][4].mean() < 0.6
    assert torch.equal(found["image"][4].unique(), torch.tensor([0.0, 1.0]))


# ---------------------------------------------------------------------- RandAugment


def seed_global(one, two):
    random.seed(one)
    np.random.seed(two)  # noqa: NPY002 - timm draws from these


def global_state():
    return random.getstate(), pickle.dumps(np.random.get_state())  # noqa: NPY002


def picture(side=224):
    ramp = np.indices((side, side)).sum(0)[..., None] * np.array([0.2, 0.35, 0.5]) + 20
    return (ramp + rng(3).integers(0, 30, (side, side, 3))).astype(np.uint8)


def test_randaugment_is_that_of_timms_training_transforms():
    """The second stage of `create_transform`, whose colour jitter RandAugment switches off."""
    settings = {"is_training": True, "auto_augment": POLICY, "interpolation": "bicubic", "color_jitter": 0.4}
    theirs = create_transform(224, **settings, separate=True)[1]
    ours, image = RandAugment(POLICY, 224, (0.485, 0.456, 0.406)), picture()
    changed = 0
    for seed in range(60):
        actual = ours(image, rng(seed))
        seed_global(*rng(seed).integers(2**32, size=2).tolist())
        assert np.array_equal(actual, np.asarray(theirs(Image.fromarray(image))))
        assert (actual.shape, actual.dtype) == (image.shape, np.uint8)
        changed += not np.array_equal(actual, image)
    (stage,) = theirs.transforms
    assert [o.hparams for o in ours._transform.ops] == [o.hparams for o in stage.ops]
    assert 30 < changed < 58  # two operations, each with probability 0.5, some of which change nothing


def test_what_a_shift_uncovers_has_the_mean_colour(tmp_path):
    """Hence 0 when normalised, but for rounding to a grey level."""
    Image.fromarray(np.full((40, 40, 3), 255, np.uint8)).save(tmp_path / "white.png")
    sample, mean = Sample("white", tmp_path / "white.png", None, (0,)), (0.2, 0.4, 0.7)
    recipe = Tags(**CTI, mean=mean, std=(1.0, 1.0, 1.0), views=2, randaugment="rand-m10-n1-p1")
    views = [recipe.train_item(sample, 21, rng(seed))["strong"] for seed in range(40)]
    uncovered = [(view.abs() <= 0.5 / 255).all(0).any().item() for view in views]
    assert any(uncovered)
    assert not all(uncovered)


@pytest.mark.parametrize("policy", ["rand-m10-inc1-p1", "rand-m30-mmax30-inc1-p1", "rand-m0-p1", "rand-m9-p1"])
def test_posterising_to_no_bit_is_black(policy):
    """Pillow 13 refuses it, and CTI's policy gets there once in some hundred images."""
    ours, image = RandAugment(policy, 16, (0.5, 0.5, 0.5)), picture(16)
    ours(image, rng(0))
    (operation,) = [operation for operation in ours._transform.ops if operation.name.startswith("Posterize")]
    bits, *_ = operation.level_fn(operation.magnitude, operation.hparams)
    expected = image & 256 - 2 ** (8 - bits) if bits > 0 else 0 * image
    assert np.array_equal(np.asarray(operation(Image.fromarray(image))), expected)


@pytest.mark.parametrize(
    "policy", ["rand-m0-p1", "rand-m10-p1", "rand-m10-p1-inc1", "rand-m10-p1-t3aw", "rand-m10-p1-t3a"]
)
def test_every_operation_works_at_both_ends_of_the_scale(policy):
    ours = RandAugment(policy, 16, (0.5, 0.5, 0.5))
    ours(picture(16), rng(0))
    for operation in ours._transform.ops:
        assert operation(Image.fromarray(picture(16))).size == (16, 16)


def test_only_the_second_view_is_changed_by_randaugment(voc_root):
    samples = index(voc_root, "train") * 6
    plain, strong = (Tags(**CTI, views=2, randaugment=policy) for policy in (None, POLICY))
    same = 0
    for number, sample in enumerate(samples):
        one, two = (recipe.train_item(sample, 21, draw_rng(0, number)) for recipe in (plain, strong))
        assert torch.equal(one["image"], two["image"])
        same += torch.equal(one["strong"], two["strong"])
    # both operations are left out in a quarter of all draws
    assert 0.1 < same / len(samples) < 0.5


@pytest.mark.parametrize("name", ["image", "strong"])
def test_colour_jitters_the_second_view_alone(voc_root, name):
    plain, jittered = (Tags(**CTI, views=2, randaugment=None, colour=colour) for colour in (0.0, 0.4))
    for number, sample in enumerate(index(voc_root, "train")):
        one, two = (recipe.train_item(sample, 21, draw_rng(0, number)) for recipe in (plain, jittered))
        assert torch.equal(one[name], two[name]) == (name == "image")


def test_the_jitter_turns_no_hue(tmp_path):
    """Reds stay reds: brightness, contrast and saturation treat green and blue alike."""
    Image.fromarray(picture(40)[..., [2, 0, 0]]).save(tmp_path / "red.png")
    sample = Sample("red", tmp_path / "red.png", None, (0,))
    recipe = Tags(**CTI, **PLAIN, views=2, randaugment=None, colour=0.4)
    for seed in range(5):
        _, green, blue = np.moveaxis(levels(recipe.train_item(sample, 21, rng(seed))["strong"]).astype(int), -1, 0)
        assert np.abs(green - blue).max() <= 1


def test_a_view_depends_on_its_random_numbers_alone_and_leaves_the_global_ones(voc_root):
    samples, recipe = index(voc_root, "train"), Tags(**CTI, views=2)

    def views():
        return [recipe.train_item(sample, 21, draw_rng(0, number)) for number, sample in enumerate(samples)]

    seed_global(1, 1)
    first = views()
    seed_global(2, 2)
    random.gauss(0, 1)  # keeps a second number for the next call
    before = global_state()
    second = views()
    assert global_state() == before
    for one, two in zip(first, second, strict=True):
        assert torch.equal(one["image"], two["image"])
        assert torch.equal(one["strong"], two["strong"])
    assert len({item["strong"].sum().item() for item in first}) == len(samples)


def test_the_global_random_numbers_come_back_after_an_error():
    def fail(image):
        seed_global(3, 3)
        raise RuntimeError("broken")

    ours = RandAugment(POLICY, 8, (0.5, 0.5, 0.5))
    ours._transform = fail
    before = global_state()
    with pytest.raises(RuntimeError, match="broken"):
        ours(picture(8), rng(0))
    assert global_state() == before


@pytest.mark.parametrize(
    "policy",
    [POLICY, "rand", "rand-n14-tweights", "rand-m15-mmax20-t3aw-p1", "rand-p0.25-mstd101-t3a-n3", "rand-inc0-m0"],
)
def test_policies_that_are_taken_work_in_timm(policy):
    ours = RandAugment(policy, 32, (0.5, 0.5, 0.5))
    for seed in range(30):
        assert ours(picture(32), rng(seed)).shape == (32, 32, 3)
    assert repr(ours._transform) == repr(
        rand_augment_transform(policy, {"translate_const": 14, "img_mean": (128,) * 3, "interpolation": 3})
    )


@pytest.mark.parametrize(
    ("policy", "part"),
    [
        ("", ""),
        ("randaugment", "randaugment"),
        ("augmix-m3", "augmix"),
        ("rand-m9.5", "m9.5"),
        ("rand-x3", "x3"),
        ("rand-m", "m"),  # timm passes over it
        ("rand-inc", "inc"),  # and over this
        ("rand-tfoo", "tfoo"),  # takes it for the usual set
        ("rand-m9-m5", "m5"),
        ("rand-mstd1-m9-mstd2", "mstd2"),
        ("rand-p1.5", "p1.5"),
        ("rand-n15-tweights", "n15"),  # timm fails at the first image
        ("rand-m9-", ""),
        ("rand m9", "rand m9"),
        ("Rand-m9", "Rand"),
    ],
)
def test_other_policies_are_refused_when_the_recipe_is_made(policy, part):
    for make in (lambda: Tags(**CTI, views=2, randaugment=policy), lambda: check_config(policy)):
        with pytest.raises(ConfigError) as caught:
            make()
        line = str(caught.value)
        assert line.startswith(f"recipe.randaugment is {policy!r}, where {part!r} is ")
        assert "\n" not in line


def test_making_a_recipe_does_not_wait_for_timm():
    code = (
        "import sys; from frugalseg.data.recipes import Tags\n"
        "Tags(crop=8, area=(0.3, 1.2), views=2); print([n for n in ('timm', 'albumentations') if n in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


# ---------------------------------------------------------------------- settings


@pytest.mark.parametrize(
    ("settings", "line"),
    [
        ({"views": 2}, "recipe.views is 2, but recipe.area is null: set recipe.area"),
        ({"views": 3, "area": AREA}, "recipe.views is 3: set it to 1 or 2"),
        ({"views": 0}, "recipe.views is 0: set it to 1 or 2"),
        ({"views": 2, "area": AREA, "crop": None}, "recipe.area is set, but recipe.crop is null: set recipe.crop"),
        ({"area": AREA, "crop": None}, "recipe.area is set, but recipe.crop is null: set recipe.crop"),
        ({"area": AREA, "long_side": (300, 500)}, "recipe.long_side is of no use to resized crops: set it or recipe.area"),
        ({"area": (0.0, 1.0)}, "recipe.area is (0.0, 1.0): set it to two numbers lo, hi with 0 < lo <= hi"),
        ({"area": (1.0, 0.5)}, "recipe.area is (1.0, 0.5): set it to two numbers lo, hi with 0 < lo <= hi"),
        ({"area": (0.5, math.inf)}, "recipe.area is (0.5, inf): set it to two numbers"),
        ({"area": (1.1, 1.2)}, "recipe.area is (1.1, 1.2), which fits into no image: set it to lo, hi with lo <= 1"),
        ({"area": AREA, "aspect": (2.0, 1.0)}, "recipe.aspect is (2.0, 1.0): set it to two numbers lo, hi"),
        ({"area": AREA, "aspect": (0.0, 1.0)}, "recipe.aspect is (0.0, 1.0): set it to two numbers lo, hi"),
        ({"area": AREA, "views": 2, "colour": 0.4}, "recipe.colour is 0.4 and recipe.randaugment 'rand-m9-mstd0.5-inc1'"),
        ({"area": AREA, "views": 2, "colour": -1}, "recipe.colour is -1: set it to a number from 0 upward"),
        ({"area": AREA, "colour": 0.4}, "recipe.colour is 0.4, but only a second view is jittered: set recipe.views to 2"),
        ({"area": AREA, "flip": 1.5}, "recipe.flip is 1.5: set it to a probability, 0 to 1"),
    ],
)  # fmt: skip
def test_settings_that_contradict_or_do_nothing_are_refused(settings, line):
    with pytest.raises(ConfigError) as caught:
        Tags(**settings)
    assert str(caught.value).startswith(line)
    assert "\n" not in str(caught.value)
    assert str(caught.value).count("set ") == 1


def test_settings_at_their_bounds_are_taken():
    for settings in (
        {"area": (1.0, 1.0)},
        {"area": (0.3, 0.3), "aspect": (1.0, 1.0)},
        {"views": 1, "randaugment": None},
    ):
        assert Tags(**settings).crop == 512


# ---------------------------------------------------------------------- items and batches


def test_batch_of_two_views(voc_root):
    samples = index(voc_root, "train")
    recipe = Tags(**CTI, views=2)
    batch = recipe.train_batch(samples, 21, [draw_rng(0, number) for number in range(7)])
    assert batch["id"] == [sample.id for sample in samples]
    shapes = {key: (tuple(value.shape), value.dtype) for key, value in batch.items() if key != "id"}
    assert shapes == {
        "image": ((7, 3, 48, 48), torch.float32),
        "strong": ((7, 3, 48, 48), torch.float32),
        "tags": ((7, 20), torch.float32),
        "box": ((7, 4), torch.int64),
    }
    assert [tuple(tags.nonzero().flatten().tolist()) for tags in batch["tags"]] == [sample.tags for sample in samples]
    assert batch["box"].tolist() == [[0, 0, 48, 48]] * 7
    items = [recipe.train_item(sample, 21, draw_rng(0, number)) for number, sample in enumerate(samples)]
    collated = recipe.collate(items)
    assert collated.keys() == batch.keys()
    assert all(torch.equal(batch[key], collated[key]) for key in batch if key != "id")


def test_both_views_are_normalised(voc_root):
    (sample, *_) = index(voc_root, "train")
    settings = CTI | {"views": 2, "randaugment": None}
    plain, usual = (Tags(**settings, **kind).train_item(sample, 21, rng(0)) for kind in (PLAIN, {}))
    for key in ("image", "strong"):
        expected = F.normalize(plain[key], [0.485, 0.456, 0.406], [0.229, 0.224, 0.225])
        assert torch.allclose(usual[key], expected, atol=1e-6)


@pytest.mark.parametrize("views", [1, 2])
def test_batches_do_not_depend_on_workers_and_ranks(voc_root, views):
    samples, recipe = index(voc_root, "train"), Tags(**CTI, views=views)
    items = TrainItems(samples, recipe, 21, seed=3)

    def batches(workers, rank=0, world=1):
        sampler = TrainSampler(7, 4 // world, 3, rank, world, drop_last=False)
        return list(TrainLoader(items, sampler=sampler, batch_size=None, num_workers=workers))

    alone = batches(0)
    assert len(alone) == 2
    assert all(("strong" in batch) == (views == 2) for batch in alone)
    together = [
        {key: torch.cat([a[key], b[key]]) for key in a if key != "id"}
        for a, b in zip(batches(0, 0, 2), batches(0, 1, 2), strict=True)
    ]
    for other in (batches(2), together):
        for one, two in zip(alone, other, strict=True):
            assert all(torch.equal(one[key], two[key]) for key in one if key != "id")


class TwoViews(Recorder):
    """Notes the second view's pixels too."""

    def training_step(self, batch, batch_idx):
        loss = super().training_step(batch, batch_idx)
        self.seen[-1] += (batch["strong"].double().sum().item(),)
        return loss


@pytest.mark.parametrize("workers", [0, 2])
def test_a_fit_resumed_inside_an_epoch_sees_the_same_views(voc_root, tmp_path, workers):
    recipe = Tags(**CTI, views=2)
    whole, first, second = TwoViews(), TwoViews(), TwoViews()
    trainer(tmp_path).fit(whole, datamodule=data(voc_root, recipe=recipe))
    trainer(tmp_path, every_step(tmp_path), max_steps=4).fit(first, datamodule=data(voc_root, workers, recipe=recipe))
    module = data(voc_root, workers, recipe=recipe)
    trainer(tmp_path).fit(second, datamodule=module, ckpt_path=tmp_path / "step=4.ckpt", weights_only=False)
    assert first.seen + second.seen == whole.seen
    assert len(whole.seen) == len({step[-1] for step in whole.seen}) == 9


def test_images_that_show_no_class(voc_root):
    """702 of COCO's training images; CTI trains on them (trap 6)."""
    sample = replace(index(voc_root, "train")[0], tags=())
    recipe = Tags(**CTI, views=2, allow_empty=True)
    demand(recipe, "train", [sample], "here", ("", ""))
    batch = recipe.train_batch([sample], 21, [rng(0)])
    assert not batch["tags"].any()
    assert batch["strong"].isfinite().all()
    with pytest.raises(DatasetError):
        demand(Tags(**CTI, views=2), "train", [sample], "here", ("", ""))


def test_evaluation_is_the_whole_image_whatever_the_views(voc_root):
    for sample in index(voc_root, "val"):
        items = [Tags(**settings).evaluation_item(sample, 21) for settings in ({}, CTI, CTI | {"views": 2})]
        for item in items[1:]:
            assert item.keys() == items[0].keys() == {"id", "image", "box", "tags", "mask"}
            assert all(torch.equal(item[key], items[0][key]) for key in item if key != "id")


def test_tiny_and_grey_images_become_views(tmp_path):
    Image.fromarray(np.full((1, 3), 200, np.uint8)).save(tmp_path / "a.png")
    recipe = Tags(**CTI, views=2)
    for seed in range(20):
        item = recipe.train_item(Sample("a", tmp_path / "a.png", None, (0,)), 21, rng(seed))
        assert item["image"].isfinite().all()
        assert item["strong"].isfinite().all()


def test_the_recipe_travels_to_spawned_workers(voc_root):
    (sample, *_) = index(voc_root, "train")
    recipe = Tags(**CTI, views=2)
    fresh = pickle.loads(pickle.dumps(recipe))
    before = recipe.train_item(sample, 21, rng(0))
    for other in (fresh, pickle.loads(pickle.dumps(recipe))):
        assert torch.equal(other.train_item(sample, 21, rng(0))["strong"], before["strong"])


@pytest.mark.parametrize("crop", [32, 48, 80])
def test_items_without_area_are_as_before(voc_root, crop):
    """SFC's: pixels at a random offset, per axis one number in 0..|length - crop|, the vertical one first."""
    for number, sample in enumerate(index(voc_root, "train")):
        item, numbers = Tags(crop).train_item(sample, 21, draw_rng(0, number)), draw_rng(0, number)
        levels_of = torch.from_numpy(np.array(Image.open(sample.image).convert("RGB"))).permute(2, 0, 1)
        image = F.normalize(levels_of.float() / 255, [0.485, 0.456, 0.406], [0.229, 0.224, 0.225])
        y, x = (int(numbers.integers(0, abs(length - crop) + 1)) for length in image.shape[1:])
        height, width = (min(length, crop) for length in image.shape[1:])
        y0, x0 = (0 if length > crop else offset for length, offset in zip(image.shape[1:], (y, x), strict=True))
        expected = torch.zeros(3, crop, crop)
        cut = image[:, y - y0 : y - y0 + height, x - x0 : x - x0 + width]
        expected[:, y0 : y0 + height, x0 : x0 + width] = cut
        assert torch.equal(item["image"], expected)
        assert item["box"].tolist() == [y0, x0, y0 + height, x0 + width]
        assert item.keys() == {"id", "image", "box", "tags"}
        assert numbers.random() == _next_number(Tags(crop), sample, draw_rng(0, number))  # and nothing else is drawn


def _next_number(recipe, sample, numbers):
    recipe.train_item(sample, 21, numbers)
    return numbers.random()


def test_segment_has_one_picture(voc_root):
    batch = Segment(crop=32).train_batch(index(voc_root, "train"), 21, [draw_rng(0, number) for number in range(7)])
    assert batch.keys() == {"id", "image", "box", "mask"}


@pytest.mark.real
def test_cti_views_of_photographs(real_voc):
    samples = index(real_voc, "trainaug")[:24]
    recipe = Tags(crop=224, flip=0.5, area=AREA, views=2)
    batch = recipe.train_batch(samples, 21, [draw_rng(0, number) for number in range(24)])
    for key in ("image", "strong"):
        assert batch[key].shape == (24, 3, 224, 224)
        assert batch[key].isfinite().all()
        assert batch[key].std((1, 2, 3)).min() > 0.05
    assert (batch["image"] != batch["strong"]).flatten(1).float().mean(1).min() > 0.5
