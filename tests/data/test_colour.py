"""Colour changes: the draw, the batched form on the device, and the form on the CPU."""

import numpy as np
import pytest
import torch
from torchvision.transforms.v2 import functional as F

from frugalseg.data.colour import change_colours, finish_views
from frugalseg.data.colour_rule import GREY, HUE, NEUTRAL, ORDERS, SIGMA, SOLARISE, ColourRule, blur_radius
from frugalseg.data.normalise import IMAGENET_MEAN, IMAGENET_STD
from frugalseg.data.sampler import draw_rng
from frugalseg.data.transforms import ColourChanges
from frugalseg.data.views import Views
from frugalseg.data.voc import index
from frugalseg.errors import ConfigError
from tests.data.conftest import picture

DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU"))]


def drawn(images, views=5, rule=None):
    return torch.from_numpy(
        np.stack([(rule or ColourRule()).draw(views, np.random.default_rng(seed)) for seed in range(images)])
    )


def pictures(count, side):
    noisy = np.stack([picture(side, side, seed) for seed in range(count)])
    noisy[0] = 128  # grey: has no hue
    noisy[1, :, :, 0] = 255  # saturated
    noisy[2] = 0
    return torch.from_numpy(noisy).permute(0, 3, 1, 2).contiguous()


def slow(view, row):
    """One view by torchvision's functions, one after the other."""
    x = F.to_dtype(view, torch.float32, scale=True)
    changes = F.adjust_brightness, F.adjust_contrast, F.adjust_saturation, F.adjust_hue
    for kind in ORDERS[int(row[4])]:
        x = changes[kind](x, float(row[kind]))
    x = F.rgb_to_grayscale(x, 3) if row[GREY] else x
    if radius := blur_radius(float(row[SIGMA])):
        x = F.gaussian_blur(x, [2 * radius + 1] * 2, [float(row[SIGMA])] * 2)
    return F.solarize(x, 0.5) if row[SOLARISE] else x


def test_draw_follows_probabilities_and_ranges():
    rows = drawn(3000, 4).double()
    jittered = rows[..., :4] != torch.from_numpy(NEUTRAL[:4])
    assert (jittered.any(-1) == jittered.all(-1)).all()  # all four or none
    strength = torch.tensor([0.4, 0.4, 0.2, 0.1], dtype=torch.float64)
    moved = rows[..., :4] - torch.from_numpy(NEUTRAL[:4])
    assert (moved.abs() <= strength + 1e-6).all()
    assert (moved.abs().amax((0, 1)) > 0.99 * strength).all()
    assert torch.allclose(moved.mean((0, 1)), torch.zeros(4, dtype=torch.float64), atol=0.01)
    chances = {"jitter": jittered[..., HUE], "grey": rows[..., GREY], "blur": rows[..., SIGMA] > 0}
    chances |= {"solarise": rows[..., SOLARISE]}
    expected = {"jitter": [0.8] * 4, "grey": [0.2] * 4, "blur": [1.0, 0.1, 0.5, 0.5], "solarise": [0.0, 0.2, 0.0, 0.0]}
    for name, found in chances.items():
        assert torch.allclose(found.double().mean(0), torch.tensor(expected[name], dtype=torch.float64), atol=0.035)
    sigma = rows[..., SIGMA][rows[..., SIGMA] > 0]
    assert 0.1 <= sigma.min() < 0.12
    assert 1.98 < sigma.max() <= 2.0
    assert sorted(rows[..., 4].unique().tolist()) == list(range(24))


def test_draw_is_a_pure_function_of_the_random_numbers_and_each_view_has_its_own():
    assert torch.equal(drawn(3), drawn(3))
    rows = drawn(4, 10).flatten(0, 1)
    jittered = rows[rows[:, HUE] != 0]
    assert len(jittered[:, :4].unique(dim=0)) == len(jittered)


@pytest.mark.parametrize("device", DEVICES)
def test_batched_changes_equal_torchvision_one_by_one(device):
    rule = ColourRule(blur=(0.7, 0.7, 0.7), solarise=(0.4, 0.4, 0.4), grey=0.3, hue=0.5)
    rows, views = drawn(8, 5, rule).flatten(0, 1), pictures(40, 33)
    found = change_colours(views.to(device), rows.to(device)).cpu()
    assert found.dtype == torch.float32
    assert len(rows[:, 4].unique()) > 15
    for view, row, one in zip(views, rows, found, strict=True):
        assert torch.allclose(one, slow(view, row), rtol=0, atol=2e-5)


@pytest.mark.parametrize("device", DEVICES)
def test_a_view_does_not_depend_on_its_batch(device):
    rows, views = drawn(6, 5).flatten(0, 1).to(device), pictures(30, 37).to(device)
    together = change_colours(views, rows)
    assert torch.equal(change_colours(views.flip(0), rows.flip(0)).flip(0), together)
    assert torch.equal(torch.cat([change_colours(views[:7], rows[:7]), change_colours(views[7:], rows[7:])]), together)
    for number in range(30):
        assert torch.equal(change_colours(views[number : number + 1], rows[number : number + 1])[0], together[number])


def test_cpu_and_device_make_the_same_changes():
    """Up to rounding to grey levels after each change, and OpenCV's hue in steps of two degrees."""
    rows, views, on_cpu = drawn(16, 5).flatten(0, 1), pictures(80, 40), ColourChanges()
    device = change_colours(views, rows) * 255
    wrong = []
    for view, row, expected in zip(views, rows, device, strict=True):
        made = on_cpu(view.permute(1, 2, 0).contiguous().numpy(), row.numpy())
        assert made.dtype == np.uint8
        wrong.append(np.abs(made.transpose(2, 0, 1) - expected.numpy()).mean())
    assert max(wrong) < 4
    assert np.mean(wrong) < 1


def test_neutral_parameters_change_nothing():
    view = pictures(4, 20)
    rows = torch.from_numpy(NEUTRAL).repeat(4, 1)
    assert torch.equal(change_colours(view, rows), view.float() / 255)
    kept = view[3].permute(1, 2, 0).contiguous().numpy()
    assert np.array_equal(ColourChanges()(kept, NEUTRAL), kept)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("local_views", [0, 3])
def test_finish_views(voc_root, device, local_views):
    samples = index(voc_root, "train")
    recipe = Views(global_size=40, local_size=16, local_views=local_views, colour="device")
    batch = recipe.train_batch(samples, 21, [draw_rng(0, (i, i)) for i in range(7)])
    moved = {key: value if key == "id" else value.to(device) for key, value in batch.items()}
    done = finish_views(moved, recipe.normaliser)
    assert done.keys() == batch.keys() - {"colour"}
    assert done["global_views"].shape == (7, 2, 3, 40, 40)
    assert done["local_views"].shape == (7, local_views, 3, 16, 16)
    assert finish_views(done, recipe.normaliser) is done
    for image in range(7):
        views = [*batch["global_views"][image], *batch["local_views"][image]]
        found = [*done["global_views"][image], *done["local_views"][image]]
        for view, row, one in zip(views, batch["colour"][image], found, strict=True):
            expected = F.normalize(slow(view, row), list(IMAGENET_MEAN), list(IMAGENET_STD))
            assert torch.allclose(one.cpu(), expected, rtol=0, atol=2e-4)


@pytest.mark.parametrize(
    ("settings", "word"), [({"grey": 1.5}, "probabilities"), ({"hue": 0.6}, "hue"), ({"sigma": (0.0, 1.0)}, "sigma")]
)
def test_rules_that_cannot_be_drawn_are_refused(settings, word):
    with pytest.raises(ConfigError, match=word):
        ColourRule(**settings)
