import numpy as np
import pytest
import torch
from PIL import Image

from frugalseg.analysis.views import HEIGHT, views_pictures, with_boxes, with_points
from frugalseg.data.base import Sample
from frugalseg.data.sampler import draw_rng
from frugalseg.data.views import Views


def where(picture, colour):
    """(x, y) of the middle of the pixels of one colour."""
    y, x = (np.abs(picture.astype(int) - colour).max(axis=-1) < 3).nonzero()
    return (x.min() + x.max() + 1) / 2, (y.min() + y.max() + 1) / 2


def test_dots_lie_where_they_should():
    points = np.array([[20.0, 30.0], [70.0, 55.0]])
    picture = with_points(np.zeros((80, 100, 3), np.uint8), points)
    for point, colour in zip(points, ((255, 64, 64), (64, 255, 255)), strict=True):
        x, y = where(picture[: int(point[1]) + 20], colour)
        assert x == pytest.approx(point[0], abs=8)  # the number stands to the right of and above its dot
        assert y == pytest.approx(point[1], abs=8)


def test_box_of_a_mirrored_view_is_dashed():
    boxes = torch.tensor([[10.0, 10, 90, 70], [10, 10, 90, 70]])
    lines = [
        (with_boxes(np.zeros((80, 100, 3), np.uint8), boxes[:1], torch.tensor([flip]))[69, 10:90] == (224, 24, 24))
        for flip in (False, True)
    ]
    assert lines[0].all(axis=-1).all()
    assert 0.4 < lines[1].all(axis=-1).mean() < 0.8


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
