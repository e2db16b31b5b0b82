import numpy as np
import pytest
import torch
from PIL import Image

from frugalseg.analysis import views
from frugalseg.analysis.views import HEIGHT, views_pictures, with_boxes, with_points
from frugalseg.data.base import Sample
from frugalseg.data.sampler import draw_rng
from frugalseg.data.views import Views
from frugalseg.ops.geometry import sample_at


def extent(picture, colour):
    """x1, y1, x2, y2 (end exclusive) of the pixels of one colour."""
    y, x = (np.abs(picture.astype(int) - colour).max(axis=-1) < 3).nonzero()
    return x.min(), y.min(), x.max() + 1, y.max() + 1


def colours_at(picture, points):
    """Bilinear colours of a picture at (M, 2) x, y, its edge at 0."""
    size = torch.tensor([picture.shape[1], picture.shape[0]])
    grid = 2 * torch.as_tensor(points).float() / size - 1
    return sample_at(torch.tensor(picture).permute(2, 0, 1)[None].float(), grid[None, None])[0, :, 0].T.numpy()


def test_dots_lie_where_they_should():
    points = np.array([[20.0, 30.0], [70.0, 55.0]])
    picture = with_points(np.zeros((80, 100, 3), np.uint8), points)
    for (x, y), colour in zip(points.astype(int), ((255, 64, 64), (64, 255, 255)), strict=True):
        left, _, _, bottom = extent(picture, colour)  # the number stands to the right of and above its dot
        assert abs(left - (x - 5)) <= 1
        assert abs(bottom - (y + 5)) <= 1
        assert (np.abs(picture[y - 1 : y + 1, x - 1 : x + 1].astype(int) - colour).max(axis=-1) < 3).any()


def test_box_of_a_mirrored_view_is_dashed():
    boxes = torch.tensor([[10.0, 10, 90, 70], [10, 10, 90, 70]])
    lines = [
        (with_boxes(np.zeros((80, 100, 3), np.uint8), boxes[:1], torch.tensor([flip]))[69, 10:90] == (224, 24, 24))
        for flip in (False, True)
    ]
    assert lines[0].all(axis=-1).all()
    assert 0.4 < lines[1].all(axis=-1).mean() < 0.8


def test_boxes_lie_where_they_should():
    boxes = torch.tensor([[5.0, 8, 55, 70], [20, 12, 97, 60], [30, 31, 72, 77]])
    picture = with_boxes(np.zeros((80, 100, 3), np.uint8), boxes, torch.tensor([False, False, False]))
    for box, colour in zip(boxes.tolist(), ((224, 24, 24), (255, 150, 0), (0, 170, 255)), strict=True):
        assert np.abs(np.array(extent(picture, colour)) - box).max() <= 1  # lines are two pixels wide


def test_a_number_marks_the_same_content_in_source_and_views(tmp_path, monkeypatch):
    """Red and green of the image are x and y, so colours say where dots and boxes lie; also in mirrored views."""
    size = 180, 250
    y, x = np.indices(size)
    Image.fromarray(np.stack([x, y, 0 * x], axis=-1).astype(np.uint8)).save(tmp_path / "ramp.png")
    sample, recipe = Sample("ramp", tmp_path / "ramp.png", None, None), Views(96, 64, 2, colour="none")
    batch = recipe.train_batch([sample] * 6, 21, [draw_rng(0, (0, n)) for n in range(6)])
    dots, frames = [], []

    def points(picture, at):
        dots.append((picture, at))
        return with_points(picture, at)

    def boxes(picture, at, flips):
        frames.append((picture, at, flips))
        return with_boxes(picture, at, flips)

    monkeypatch.setattr(views, "with_points", points)
    monkeypatch.setattr(views, "with_boxes", boxes)
    views_pictures(batch, {"ramp": sample.image}, recipe.normaliser.mean, recipe.normaliser.std)
    assert len(dots) == 6 * 3 * 3  # images, pairs with global view 1, pictures
    scale = HEIGHT / size[0]
    for (source, at), (one, in_one), (other, in_other) in zip(dots[::3], dots[1::3], dots[2::3], strict=True):
        expected = at / scale - 0.5  # pixel 0 has its centre at 0.5
        for picture, place in ((source, at), (one, in_one), (other, in_other)):
            assert len(place) == 16
            # cubic enlarging bends the ramp at the edges of a view
            assert np.abs(colours_at(picture, place)[:, :2] - expected).max() < 2.5
    for number, (source, at, flips) in enumerate(frames):
        assert torch.equal(flips, batch["flip"][number])
        corners = at.reshape(-1, 2, 2) + torch.tensor([[2.0, 2.0], [-2.0, -2.0]])
        edges = batch["box"][number].reshape(-1, 2, 2) + torch.tensor([[2.0, 2.0], [-2.0, -2.0]]) / scale
        found = colours_at(source, corners.reshape(-1, 2))[:, :2]
        assert np.abs(found - (edges.reshape(-1, 2).numpy() - 0.5)).max() < 1.5
    for mirrored in batch["flip"][:, :4].T:
        assert set(mirrored.tolist()) == {True, False}


@pytest.mark.parametrize("colour", ["cpu", "device"])
@pytest.mark.parametrize(("local_views", "rows"), [(0, 2), (3, 4)])
def test_one_picture_per_image(tmp_path, colour, local_views, rows):
    samples = []
    for name, size in (("wide", (40, 60)), ("tall", (70, 50))):
        path = tmp_path / f"{name}.png"
        Image.fromarray(np.random.default_rng(0).integers(0, 255, (*size, 3), np.uint8)).save(path)
        samples.append(Sample(name, path, None, None))
    recipe = Views(32, 16, local_views, colour=colour)
    batch = recipe.train_batch(samples, 21, [draw_rng(0, (n, n)) for n in range(2)])
    sources = {sample.id: sample.image for sample in samples}
    made = views_pictures(batch, sources, recipe.normaliser.mean, recipe.normaliser.std)
    assert len(made) == 2
    for picture in made:
        assert picture.dtype == np.uint8
        assert rows * HEIGHT < picture.shape[0] < rows * (HEIGHT + 24)
