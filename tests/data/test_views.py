import pickle
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms.v2 import functional as F

from frugalseg.data.base import Sample
from frugalseg.data.colour_rule import ColourRule
from frugalseg.data.loader import TrainItems, TrainLoader
from frugalseg.data.sampler import TrainSampler, draw_rng
from frugalseg.data.view_boxes import BoxRule, random_box, shared_area
from frugalseg.data.views import Views, resized
from frugalseg.data.voc import index
from frugalseg.errors import ConfigError
from frugalseg.ops.geometry import area, intersection, matched_points, sample_at

PLAIN = {"mean": (0.0, 0.0, 0.0), "std": (1.0, 1.0, 1.0)}
SMALL = {"global_size": 48, "local_size": 24, "local_views": 3}
RULE = BoxRule(8, (0.25, 1.0), (0.05, 0.25), (3 / 4, 4 / 3), 0.02, 0.01)


def rng(*seed):
    return np.random.default_rng(seed)


def check_rule(boxes, size, rule):
    height, width = size
    assert boxes.shape == (2 + rule.local_views, 4)
    assert (boxes[:, :2] >= 0).all()
    assert (boxes[:, 2:] > boxes[:, :2]).all()
    assert (boxes[:, 2:] <= [width, height]).all()
    for number, box in enumerate(boxes):
        for other in boxes[: min(number, 2)]:
            least = rule.overlap_global if number < 2 else rule.overlap_local
            assert shared_area(box, other) > least * height * width


# ---------------------------------------------------------------------- boxes


@pytest.mark.parametrize(
    "size", [(375, 500), (1, 1), (1, 2), (2, 3), (7, 5), (1, 4000), (4000, 1), (10, 3000), (997, 31)]
)
def test_boxes_keep_the_rule_in_any_image(size):
    for seed in range(40):
        check_rule(RULE.draw(size, rng(seed)), size, RULE)


@pytest.mark.parametrize(
    "changed",
    [
        {"global_area": (0.01, 0.015)},  # global views too small to share 2 %
        {"local_area": (0.001, 0.005)},  # local views too small to share 1 %
        {"overlap_global": 0.99, "overlap_local": 0.99},
        {"overlap_global": 0.6, "overlap_local": 0.0, "global_area": (0.3, 0.5)},
    ],
)
def test_the_whole_image_takes_the_place_of_views_that_never_overlap_enough(changed):
    rule = replace(RULE, **changed)
    boxes = rule.draw((60, 80), rng(0))
    check_rule(boxes, (60, 80), rule)
    assert (boxes == [0, 0, 80, 60]).all(axis=1).any()


def test_area_and_aspect_of_boxes_fill_their_ranges():
    found = np.array([random_box((1200, 1600), (0.05, 0.25), (3 / 4, 4 / 3), rng(seed)) for seed in range(1500)])
    width, height = (found[:, 2:] - found[:, :2]).T
    parts, ratios = width * height / (1200 * 1600), width / height
    assert 0.0499 < parts.min() < 0.055
    assert 0.245 < parts.max() < 0.2501
    assert 0.748 < ratios.min() < 0.77
    assert 1.3 < ratios.max() < 1.336
    assert parts.mean() == pytest.approx(0.15, abs=0.006)  # uniform
    assert np.log(ratios).mean() == pytest.approx(0, abs=0.02)  # log-uniform
    assert found[:, 0].min() < 10
    assert found[:, 2].max() > 1590


def test_areas_are_those_of_each_kind_of_view():
    height, width = 1200, 1600
    boxes = np.stack([RULE.draw((height, width), rng(seed)) for seed in range(400)])
    parts = (boxes[..., 2:] - boxes[..., :2]).prod(axis=-1) / (height * width)
    ratios = (boxes[..., 2] - boxes[..., 0]) / (boxes[..., 3] - boxes[..., 1])
    for view in (0, 1):
        assert 0.2495 < parts[:, view].min() < 0.27
        assert parts[:, view].max() > 0.95
        assert parts[:, view].mean() == pytest.approx(0.58, abs=0.1)  # what fits the aspect is smaller on average
    local = parts[:, 2:][parts[:, 2:] < 1]  # the whole image takes the place of very few
    assert len(local) > 0.99 * 8 * 400
    assert 0.0499 < local.min() < 0.055
    assert 0.245 < local.max() < 0.2505  # sides are whole pixels
    assert local.mean() == pytest.approx(0.155, abs=0.015)
    assert 0.748 < ratios[parts < 1].min() < ratios[parts < 1].max() < 1.336


def test_overlap_is_a_matter_of_redrawing():
    """Without the rule some local views miss a global one; with it none does, and few boxes are whole images."""
    loose, size = replace(RULE, overlap_global=0.0, overlap_local=0.0, global_area=(0.25, 0.3)), (375, 500)
    missed = whole = 0
    for seed in range(100):
        boxes = replace(loose, overlap_local=-1.0, overlap_global=-1.0).draw(size, rng(seed))
        missed += sum(shared_area(box, other) == 0 for box in boxes[2:] for other in boxes[:2])
        whole += int(
            (replace(RULE, global_area=(0.25, 0.3)).draw(size, rng(seed)) == [0, 0, 500, 375]).all(axis=1).sum()
        )
    assert missed > 100
    assert whole <= 5


# ---------------------------------------------------------------------- items and batches


def test_defaults_are_those_of_the_facts():
    """papers/mevt.md c.2; the colours are DINO's."""
    views = Views()
    assert views.shapes == ((2, 3, 224, 224), (8, 3, 96, 96))
    assert views.boxes == RULE
    assert (views.flip, views.colour) == (0.5, "cpu")
    assert views.rule == ColourRule(
        brightness=0.4, contrast=0.4, saturation=0.2, hue=0.1, jitter=0.8, grey=0.2,
        blur=(1.0, 0.1, 0.5), sigma=(0.1, 2.0), solarise=(0.0, 0.2, 0.0),
    )  # fmt: skip
    assert views.normaliser.mean == (0.485, 0.456, 0.406)
    assert views.normaliser.std == (0.229, 0.224, 0.225)


@pytest.mark.parametrize("colour", ["cpu", "device", "none"])
def test_batch(voc_root, colour):
    samples = index(voc_root, "train")
    batch = Views(**SMALL, colour=colour).train_batch(samples, 21, [draw_rng(0, (i, i)) for i in range(7)])
    dtype = torch.uint8 if colour == "device" else torch.float32
    shapes = {key: (tuple(value.shape), value.dtype) for key, value in batch.items() if key != "id"}
    expected = {
        "global_views": ((7, 2, 3, 48, 48), dtype),
        "local_views": ((7, 3, 3, 24, 24), dtype),
        "box": ((7, 5, 4), torch.int64),
        "flip": ((7, 5), torch.bool),
        "size": ((7, 2), torch.int64),
    }
    if colour == "device":
        expected["colour"] = ((7, 5, 8), torch.float32)
    assert shapes == expected
    assert batch["id"] == [sample.id for sample in samples]
    assert batch["size"].tolist() == [list(Image.open(sample.image).size)[::-1] for sample in samples]


@pytest.mark.parametrize("settings", [{}, {"colour": "device"}, {"colour": "none", "local_views": 0}])
def test_a_batch_is_its_items(voc_root, settings):
    samples, recipe = index(voc_root, "train"), Views(**{**SMALL, **settings})
    batch = recipe.train_batch(samples, 21, [draw_rng(4, (i, i)) for i in range(7)])
    expected = recipe.collate([recipe.train_item(s, 21, draw_rng(4, (i, i))) for i, s in enumerate(samples)])
    assert batch.keys() == expected.keys()
    assert all(torch.equal(batch[key], expected[key]) for key in batch if key != "id")


@pytest.mark.parametrize("colour", ["cpu", "device"])
def test_batches_do_not_depend_on_workers_and_ranks(voc_root, colour):
    samples, recipe = index(voc_root, "train"), Views(**SMALL, colour=colour)
    items = TrainItems(samples, recipe, 21, seed=3)

    def batches(workers, rank=0, world=1):
        sampler = TrainSampler(7, 4 // world, 3, rank, world, drop_last=False)
        return list(TrainLoader(items, sampler=sampler, batch_size=None, num_workers=workers))

    alone = batches(0)
    assert len(alone) == 2
    together = [
        {key: torch.cat([a[key], b[key]]) for key in a if key != "id"}
        for a, b in zip(batches(0, 0, 2), batches(0, 1, 2), strict=True)
    ]
    for other in (batches(2), together):
        for one, two in zip(alone, other, strict=True):
            assert all(torch.equal(one[key], two[key]) for key in one if key != "id")


def test_every_draw_of_an_image_is_another_one(voc_root):
    (sample, *_), recipe = index(voc_root, "train"), Views(**SMALL)
    items = [recipe.train_item(sample, 21, draw_rng(0, (0, number))) for number in range(20)]
    assert len({tuple(item["box"].flatten().tolist()) for item in items}) == 20
    assert len({tuple(item["global_views"][0, :, 5, 5].tolist()) for item in items}) == 20
    assert 0.35 < torch.stack([item["flip"] for item in items]).float().mean() < 0.65
    again = recipe.train_item(sample, 21, draw_rng(0, (0, 7)))
    assert all(torch.equal(again[key], items[7][key]) for key in again if key != "id")


def test_geometry_is_the_same_wherever_colours_are_changed(voc_root):
    (sample, *_) = index(voc_root, "train")
    items = [Views(**SMALL, colour=c).train_item(sample, 21, draw_rng(0, (0, 5))) for c in ("cpu", "device", "none")]
    for item in items[1:]:
        assert torch.equal(item["box"], items[0]["box"])
        assert torch.equal(item["flip"], items[0]["flip"])


def test_views_show_their_boxes(voc_root):
    """Against Pillow: crop, bicubic, mirror; and uint8 views are the float ones before normalising."""
    seen = set()
    for number, sample in enumerate(index(voc_root, "train")):
        image = Image.open(sample.image).convert("RGB")
        item = Views(**SMALL, **PLAIN, colour="none").train_item(sample, 21, draw_rng(1, (number, number)))
        raw = Views(**SMALL, **PLAIN, colour="device").train_item(sample, 21, draw_rng(1, (number, number)))
        views, raws = [*item["global_views"], *item["local_views"]], [*raw["global_views"], *raw["local_views"]]
        for view, whole_levels, box, flip in zip(views, raws, item["box"].tolist(), item["flip"].tolist(), strict=True):
            assert torch.equal((view * 255).round().to(torch.uint8), whole_levels)
            side = view.shape[1]
            cut = image.crop([int(edge) for edge in box]).resize((side, side), Image.Resampling.BICUBIC)
            expected = torch.from_numpy(np.array(cut)).permute(2, 0, 1)
            expected = expected.flip(-1) if flip else expected
            assert (whole_levels.int() - expected.int()).abs().max() <= 2  # torch's weights have fewer bits
            assert (whole_levels.int() - expected.int()).abs().float().mean() < 0.5
            seen.add(flip)
    assert seen == {True, False}


def test_shrinking_does_not_alias():
    fine = np.indices((200, 200)).sum(axis=0) % 2 * np.uint8(255)
    small = resized(np.repeat(fine[..., None].astype(np.uint8), 3, axis=2), 37)
    assert np.abs(small.astype(int) - 127).max() <= 3


def test_normalisation_is_the_usual_one(voc_root):
    (sample, *_) = index(voc_root, "train")
    plain, usual = (
        Views(**SMALL, **kind, colour="none").train_item(sample, 21, draw_rng(0, (0, 0))) for kind in (PLAIN, {})
    )
    expected = F.normalize(plain["global_views"], [0.485, 0.456, 0.406], [0.229, 0.224, 0.225])
    assert torch.allclose(usual["global_views"], expected, atol=1e-6)


def test_evaluation_depends_on_image_and_id_alone(voc_root):
    (sample, *_) = index(voc_root, "val")
    recipe = Views(**SMALL)
    first = recipe.evaluation_item(sample, 21)
    recipe.train_item(sample, 21, rng(0))
    second = Views(**SMALL, colour="device").evaluation_item(sample, 21)
    other = recipe.evaluation_item(replace(sample, id="another"), 21)
    assert "colour" not in second
    for key in ("global_views", "local_views", "box", "flip", "size"):
        assert torch.equal(first[key], second[key])
    assert not torch.equal(first["box"], other["box"])
    image = Image.open(sample.image).convert("RGB")
    plain = Views(**SMALL, **PLAIN).evaluation_item(sample, 21)
    cut = image.crop([int(edge) for edge in first["box"][0]]).resize((48, 48), Image.Resampling.BICUBIC)
    expected = torch.from_numpy(np.array(cut)).permute(2, 0, 1).float() / 255
    expected = expected.flip(-1) if first["flip"][0] else expected
    assert torch.allclose(plain["global_views"][0], expected, atol=2.01 / 255)  # its colours are the image's


def test_tiny_image_becomes_views(tmp_path):
    Image.fromarray(np.full((1, 3, 3), 200, np.uint8)).save(tmp_path / "a.png")
    item = Views(**SMALL).train_item(Sample("a", tmp_path / "a.png", None, None), 21, rng(0))
    assert item["global_views"].isfinite().all()
    assert item["size"].tolist() == [1, 3]


def test_views_travel_to_spawned_workers(voc_root):
    (sample, *_) = index(voc_root, "train")
    recipe = Views(**SMALL)
    before = recipe.train_item(sample, 21, rng(0))
    after = pickle.loads(pickle.dumps(recipe)).train_item(sample, 21, rng(0))
    assert torch.equal(before["local_views"], after["local_views"])


@pytest.mark.parametrize(
    ("settings", "word"),
    [
        ({"local_views": -1}, "local_views"),
        ({"local_size": 7}, "local_size"),
        ({"global_area": (0.5, 1.2)}, "global_area"),
        ({"local_area": (0.3, 0.2)}, "local_area"),
        ({"aspect": (0.0, 1.0)}, "aspect"),
        ({"overlap_local": 0.03}, "overlap_local"),
    ],
)
def test_settings_that_cannot_be_met_are_refused(settings, word):
    with pytest.raises(ConfigError, match=word):
        Views(**settings)


# ---------------------------------------------------------------------- equivariance


def pairs(batch):
    """Matched samples of both global views with each other and with every local view: values, image points, interior."""
    for a in (0, 1):
        for v in range(batch["box"].shape[1]):
            if v == a:
                continue
            boxes, flips = batch["box"][:, [a, v]], batch["flip"][:, [a, v]]
            assert (area(intersection(boxes[:, 0], boxes[:, 1])) > 0).all()
            *grids, points = matched_points(boxes[:, 0], flips[:, 0], boxes[:, 1], flips[:, 1], 7)
            views = [
                batch["global_views"][:, view] if view < 2 else batch["local_views"][:, view - 2] for view in (a, v)
            ]
            inside = torch.stack(
                [(g.abs() < 1 - 6 / view.shape[-1]).all(-1) for g, view in zip(grids, views, strict=True)]
            )
            yield [sample_at(view, g) for view, g in zip(views, grids, strict=True)], points, inside.all(0), flips


def test_matched_points_show_the_same_place_of_a_ramp(tmp_path):
    """The pixels' red and green are their x and y, so what a view shows at a point says where the point is."""
    y, x = np.indices((180, 250))
    Image.fromarray(np.stack([x, y, 0 * x], axis=-1).astype(np.uint8)).save(tmp_path / "ramp.png")
    sample, recipe = Sample("ramp", tmp_path / "ramp.png", None, None), Views(local_views=3, colour="none", **PLAIN)
    batch = recipe.train_batch([sample] * 6, 21, [draw_rng(0, (0, number)) for number in range(6)])
    kinds, compared = set(), 0
    for (one, two), points, inside, flips in pairs(batch):
        at = points.permute(0, 3, 1, 2) - 0.5  # pixel 0 has its centre at 0.5
        for sampled in (one, two):
            wrong = (sampled[:, :2] * 255 - at).abs().amax(1)[inside]
            assert wrong.max() < 1.1  # half a grey level from rounding the image, half from rounding the view
        assert ((one - two) * 255).abs().amax(1)[inside].max() < 1.6
        kinds |= {tuple(pair) for pair in flips.tolist()}
        compared += int(inside.sum())
    assert len(kinds) == 4
    assert compared > 1000


@pytest.mark.real
def test_matched_points_show_the_same_place_of_photographs(real_voc):
    samples = index(real_voc, "trainaug")[:12]
    recipe = Views(local_views=2, colour="none", **PLAIN)
    batch = recipe.train_batch(samples, 21, [draw_rng(0, (number, number)) for number in range(12)])
    right, wrong = [], []
    for (one, two), _, inside, _ in pairs(batch):
        right.append((one - two).abs().mean(1)[inside])
        wrong.append((one - two.flip(-1)).abs().mean(1)[inside])
    assert torch.cat(right).mean() < 0.25 * torch.cat(wrong).mean()
