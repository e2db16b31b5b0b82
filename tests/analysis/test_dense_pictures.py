"""Pictures of dense features, and the verb that draws them."""

from argparse import Namespace

import numpy as np
import pytest
import torch
from PIL import Image

from frugalseg.analysis.dense_pictures import (
    GAP,
    cluster_colours,
    component_colours,
    cosine_map,
    fit_components,
    match_picture,
    neighbour_row,
    on_pixels,
)
from frugalseg.analysis.match_pictures import agreement, view_of
from frugalseg.cli import main
from frugalseg.commands.pictures import POINTS, Seen, cluster_picture, matches_picture
from frugalseg.data.ade20k import class_table
from frugalseg.miniature.ade20k import write_ade20k_world
from frugalseg.ops.geometry import matched_points
from frugalseg.ops.palette import heat, voc_palette
from tests.checkpoints import pretraining, write_checkpoint

NAMES = ("pca", "clusters", "matches", "neighbours")


def maps_of(*sizes, channels=7, seed=0):
    """Maps with unequal spreads and a skew in every channel."""
    rng = np.random.default_rng(seed)
    mixed = rng.normal(size=(channels, channels)) * np.arange(channels, 0, -1)[:, None]
    drawn = (rng.exponential(size=(h, w, channels)) @ mixed for h, w in sizes)
    return [torch.from_numpy(each.transpose(2, 0, 1).astype(np.float32)) for each in drawn]


def test_components_are_those_of_numpys_svd():
    maps = maps_of((6, 9), (4, 5), (1, 3))
    found = fit_components(maps)
    points = np.concatenate([each.numpy().reshape(7, -1).T for each in maps]).astype(np.float64)
    centred = points - points.mean(axis=0)
    directions = np.linalg.svd(centred, full_matrices=False)[2][:3]
    np.testing.assert_allclose(found.mean, points.mean(axis=0), atol=1e-12)
    np.testing.assert_allclose(np.abs(np.sum(directions.T * found.vectors.numpy(), axis=0)), 1, atol=1e-9)
    np.testing.assert_allclose(found.vectors.T @ found.vectors, np.eye(3), atol=1e-9)


def test_colours_do_not_depend_on_order_or_signs_of_channels():
    maps = maps_of((6, 9), (4, 5))
    order = torch.tensor([3, 0, 6, 1, 5, 2, 4])
    signs = torch.tensor([1.0, -1, 1, -1, -1, 1, -1])[:, None, None]
    turned = [(signs * each)[order] for each in maps]
    for a, b in zip(maps, turned, strict=True):
        one = component_colours(a, fit_components(maps)).astype(int)
        assert np.abs(one - component_colours(b, fit_components(turned))).max() <= 1
        assert one.std(axis=(0, 1)).min() > 20


def test_equal_features_have_equal_colours_in_all_images_and_outliers_are_clipped():
    maps = maps_of((6, 9), (4, 5))
    maps[1][:, 0, 0] = maps[0][:, 2, 3]
    components = fit_components(maps)
    one, two = (component_colours(each, components) for each in maps)
    assert (one[2, 3] == two[0, 0]).all()
    far = components.mean + 1e6 * components.vectors @ torch.tensor([1.0, -1.0, 1.0], dtype=torch.float64)
    assert component_colours(far[:, None, None], components).tolist() == [[[255, 0, 255]]]
    constant = [torch.ones(3, 2, 2)]
    assert not component_colours(constant[0], fit_components(constant)).any()
    with pytest.raises(ValueError, match="three channels"):
        fit_components([torch.ones(2, 4, 4)])


def test_cells_cover_their_pixels_and_end_with_the_image():
    cells = np.arange(6).reshape(2, 3)
    found = on_pixels(cells, 4, (7, 9))
    assert found.shape == (7, 9)
    assert all(found[y, x] == cells[y // 4, x // 4] for y in range(7) for x in range(9))


def test_clusters_have_colours_of_their_own_or_of_their_classes():
    clusters, palette = np.array([[0, 1], [2, 0]]), voc_palette()
    plain = cluster_colours(clusters, palette, None)
    assert len({tuple(colour) for colour in plain.reshape(-1, 3).tolist()}) == 3 and plain.sum(axis=-1).all()
    named = cluster_colours(clusters, palette, np.array([5, -1, 0]))
    assert (named[0, 0] == palette[5]).all() and (named[1, 0] == palette[0]).all()
    assert len(set(named[0, 1].tolist())) == 1 and named[0, 1, 0] > 0


# ---------------------------------------------------------------------- matched points


def gradient(height, width):
    """Red tells x, green tells y."""
    y, x = np.mgrid[:height, :width]
    return np.stack([255 * x / width, 255 * y / height, np.full_like(x, 128)], axis=-1).round().astype(np.uint8)


@pytest.mark.parametrize("flips", [(False, False), (True, False), (False, True), (True, True)])
def test_both_ends_of_a_line_lie_on_the_same_colour(flips):
    image, side = gradient(120, 160), 96
    boxes = torch.tensor([[10, 5, 110, 95], [60, 30, 150, 118]]).float()
    views = [view_of(image, box.int().tolist(), flip, side) for box, flip in zip(boxes, flips, strict=True)]
    flip = torch.tensor(flips)
    *grids, points = matched_points(boxes[:1], flip[:1], boxes[1:], flip[1:], POINTS)
    at = [((grid.reshape(-1, 2) + 1) / 2 * side).numpy() for grid in grids]
    ends = [view[tuple(np.floor(p[:, ::-1]).astype(int).T)].astype(int) for view, p in zip(views, at, strict=True)]
    assert np.abs(ends[0] - ends[1]).max() <= 4  # resampling, and half a pixel of a gradient of 2 a pixel
    place = points.reshape(-1, 2).numpy()
    assert np.abs(ends[0][:, 0] - 255 * place[:, 0] / 160).max() <= 4 and np.ptp(ends[0][:, 0]) > 40


class Colours:
    """A net whose features are the colours of blocks of 4 x 4 pixels around the mean."""

    stride = 4

    def features(self, views):
        found = []
        for view in views:
            blocks = view.reshape(view.shape[0] // 4, 4, view.shape[1] // 4, 4, 3).mean(axis=(1, 3))
            found.append(torch.from_numpy((blocks - 128).transpose(2, 0, 1)).float())
        return found


def test_features_that_are_content_agree_at_both_ends_only():
    image, side = gradient(120, 160), 96
    boxes, flip = torch.tensor([[10, 5, 110, 95], [60, 30, 150, 118]]).float(), torch.tensor([False, True])
    views = [view_of(image, box.int().tolist(), bool(f), side) for box, f in zip(boxes, flip, strict=True)]
    *grids, _ = matched_points(boxes[:1], flip[:1], boxes[1:], flip[1:], POINTS)
    cosines = agreement(Colours().features(views), grids)
    # the median: near the grey middle the direction of so short a vector is noise
    assert np.median(cosines.diagonal()) > 0.99
    assert np.median(cosines.diagonal()) > np.median(cosines[~np.eye(len(cosines), dtype=bool)]) + 0.2


def test_lines_begin_and_end_at_their_points():
    views = (np.full((64, 64, 3), 40, np.uint8), np.full((64, 64, 3), 90, np.uint8))
    at = (np.array([[10.0, 20.0], [50.0, 40.0]]), np.array([[30.0, 50.0], [12.0, 8.0]]))
    strength = np.array([0.0, 1.0])
    drawn = match_picture(views, at, strength, factor=2)
    assert drawn.shape == (128, 256 + GAP, 3)
    for row, colour in enumerate(heat(strength[None])[0]):
        for points, shift in ((at[0], 0), (at[1], 128 + GAP)):
            x, y = (2 * points[row]).astype(int)
            assert (drawn[y, x + shift] == colour).all()


def test_crops_are_drawn_by_the_seed_alone():
    images = [gradient(96, 128), gradient(100, 70)]
    one, same, other = (matches_picture(Colours(), ["a", "b"], images, seed) for seed in (0, 0, 1))
    assert (one == same).all() and (one.shape != other.shape or (one != other).any())


# ---------------------------------------------------------------------- neighbours


def test_the_nearest_cell_is_ringed_and_hot():
    rng = np.random.default_rng(0)
    maps = [torch.from_numpy(rng.normal(size=(16, 8, 9)).astype(np.float32)) for _ in range(3)]
    maps[1][:, 5, 6] = 3 * maps[0][:, 2, 4]
    images = [np.zeros((8 * 16, 9 * 16, 3), np.uint8) for _ in maps]
    found = cosine_map(maps[1], maps[0][:, 2, 4])
    vectors = maps[1].flatten(1).T.numpy()
    query = maps[0][:, 2, 4].numpy()
    oracle = vectors @ query / np.linalg.norm(vectors, axis=1) / np.linalg.norm(query)
    np.testing.assert_allclose(found.flatten(), oracle, atol=1e-5)
    row = neighbour_row(images, maps, ["a", "b", "c"], 16, (0, 2, 4))
    assert len(row) == 3
    middle = row[1][14 + 5 * 16 + 8, 6 * 16 + 8]
    assert (middle == 255).all()  # the dot of the ring
    beside = row[1][14 + 5 * 16 + 6, 6 * 16 + 6].astype(int)
    assert beside[0] > 100 and beside[0] > beside[2] + 60  # the hot end


# ---------------------------------------------------------------------- the verb


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    return write_ade20k_world(tmp_path_factory.mktemp("world") / "ade", images_train=4, images_val=6, seed=2)


@pytest.fixture(scope="module")
def words(world, tmp_path_factory):
    path = write_checkpoint(tmp_path_factory.mktemp("run"), pretraining())
    return ["pictures", str(path), "--data", "ade20k", "--root", str(world), "--images", "3"]


def test_the_verb_draws_four_pictures_and_the_same_ones_again(words, tmp_path, capsys):
    for folder in ("one", "two"):
        assert main([*words, "--out", str(tmp_path / folder), "--named"]) == 0
    assert "pca.png, clusters.png, matches.png, neighbours.png of 3 images, val" in capsys.readouterr().out
    assert {path.name for path in (tmp_path / "one").iterdir()} == {f"{name}.png" for name in NAMES}
    for name in NAMES:
        one, two = ((tmp_path / folder / f"{name}.png").read_bytes() for folder in ("one", "two"))
        assert one == two
        assert np.asarray(Image.open(tmp_path / "one" / f"{name}.png")).std() > 20
    assert main([*words, "--out", str(tmp_path / "one"), "--seed", "5"]) == 0
    assert (tmp_path / "one/matches.png").read_bytes() != (tmp_path / "two/matches.png").read_bytes()
    assert (tmp_path / "one/pca.png").read_bytes() == (tmp_path / "two/pca.png").read_bytes()


@pytest.mark.real
def test_the_verb_draws_real_images(words, real_voc, tmp_path):
    own = [*words[:2], "--data", "voc", "--root", str(real_voc), "--images", "2", "--side", "96"]
    assert main([*own, "--out", str(tmp_path), "--named"]) == 0
    assert {path.name for path in tmp_path.iterdir()} == {f"{name}.png" for name in NAMES}


def test_named_clusters_have_the_colours_of_the_classes_that_they_cover(world):
    """Features that are the truth: every cluster is one class."""
    classes = class_table(world)
    mask = np.repeat(np.repeat(np.array([[0, 1, 2], [2, 0, 255]], np.uint8), 8, axis=0), 8, axis=1)
    cells = mask[::4, ::4].astype(int)
    features = torch.from_numpy(np.eye(3)[np.where(cells == 255, 0, cells)].transpose(2, 0, 1)).float()
    image = np.zeros((*mask.shape, 3), np.uint8)
    seen = Seen(["a"], [image], [features], 4)
    drawn = cluster_picture(seen, classes, [mask], Namespace(clusters=2, seed=0))
    painted = drawn[14 : 14 + 16, 24:48]
    known = mask != 255
    assert (painted == classes.palette[np.where(known, mask, 0)]).all(axis=-1)[known].all()


@pytest.mark.parametrize(
    ("more", "reason"),
    [
        (["--images", "1"], "--images"),
        (["--clusters", "1"], "--clusters"),
        (["--clusters", "300"], "--clusters"),
        (["--side", "8"], "--side"),
        (["--split", "nosuch"], "nosuch"),
        (["--root", "/nowhere"], "/nowhere"),
        (["--device", "moon"], "moon"),
    ],
)
def test_bad_words_are_told_in_one_line_and_nothing_is_written(words, tmp_path, capsys, more, reason):
    assert main([*words, "--out", str(tmp_path / "out"), *more]) == 2
    told = capsys.readouterr().err.strip().splitlines()
    assert reason in told[-1] and told[-1].startswith("frugalseg: error: ")
    assert not (tmp_path / "out").exists()


def test_names_need_masks(words, world, tmp_path, capsys):
    for mask in sorted((world / "annotations/validation").iterdir())[:1]:
        content = mask.read_bytes()
        mask.unlink()
    try:
        assert main([*words, "--out", str(tmp_path / "out"), "--named"]) == 2
        assert "--named needs masks" in capsys.readouterr().err
    finally:
        mask.write_bytes(content)
