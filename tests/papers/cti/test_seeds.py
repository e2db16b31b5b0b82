"""Seed maps of whole images: kinds, sizes that are no multiple of a patch, several scales, images without tags."""

import pytest
import torch
import torch.nn.functional as F

from frugalseg.papers.cti import CTI
from frugalseg.papers.cti.seeds import KINDS, fit_patches, merge, unmirrored_sum
from tests.papers.cti import naive
from tests.papers.cti.rules import apply_rule

CLASSES = 5


@pytest.fixture
def task():
    torch.manual_seed(0)

    def build(**settings):
        made = CTI(CLASSES + 1, 12, 4, heads=3, grid=3, infusion=1, weights=None, memory_size=2, **settings).eval()
        apply_rule(made.net.double())
        return made.double()

    return build


def image_of(*size, seed=1):
    return torch.randn(1, 3, *size, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def seeds(task, image, tags, parts=False):
    with torch.no_grad():
        return task.seeds([torch.cat([image, image.flip(-1)])], tags, (image.shape[-2], image.shape[-1]), parts)


@pytest.mark.parametrize("size", [(48, 64), (37, 75), (16, 16), (90, 31)])
def test_seeds_equal_two_plain_passes(task, size):
    task, image, tags = task(), image_of(*size), torch.tensor([0.0, 1, 0, 1, 1], dtype=torch.float64)
    slow = naive.NaiveCTI(CLASSES + 1, 12, 3, depth=4, grid=3, infusion=1, last=2).double()
    slow.load_state_dict({k: v for k, v in task.net.state_dict().items() if k != "token_table"})
    with torch.no_grad():
        expected = naive.seed(slow, image, tags)
    found = seeds(task, image, tags)
    assert found["keys"].tolist() == [0, 2, 4, 5] and found["cam"].shape == (4, *size)
    for key, map_ in zip(found["keys"].tolist()[1:], found["cam"][1:], strict=True):
        torch.testing.assert_close(map_, expected[key - 1], rtol=0, atol=1e-10)


@pytest.mark.parametrize("kind", ["q", "f", "r"])
def test_the_seed_is_one_of_the_kinds_and_parts_are_all_of_them(task, kind):
    task, image, tags = task(seed_map=kind), image_of(48, 64), torch.ones(CLASSES, dtype=torch.float64)
    alone, all_of_them = seeds(task, image, tags), seeds(task, image, tags, parts=True)
    assert set(all_of_them) == {"keys", "cam", *KINDS}
    torch.testing.assert_close(alone["cam"], all_of_them[kind], rtol=0, atol=1e-12)
    assert torch.equal(all_of_them["cam"], all_of_them[kind])


def test_infused_maps_appear_once_the_memory_is_full(task):
    task, image, tags = task(), image_of(48, 64), torch.tensor([1.0, 0, 0, 0, 0], dtype=torch.float64)
    task.memory.count.fill_(2)
    task.memory.values.normal_(generator=torch.Generator().manual_seed(1))
    found = seeds(task, image, tags, parts=True)
    assert found["infused"].shape == found["r"].shape
    assert float((found["infused"] - found["r"]).abs().max()) > 1e-3


@pytest.mark.parametrize(
    ("fit", "size"),
    [
        *((fit, size) for fit in ("crop", "pad", "resize") for size in ((48, 64), (37, 75))),
        ("pad", (9, 40)),
        ("resize", (9, 40)),
    ],
)
def test_maps_have_the_size_of_the_image_whatever_its_sides(task, fit, size):
    task = task(fit=fit)
    found = seeds(task, image_of(*size), torch.ones(CLASSES, dtype=torch.float64))["cam"]
    assert found.shape == (CLASSES + 1, *size) and torch.isfinite(found).all()
    assert float(found.min()) >= 0 and float(found.max()) <= 1


def test_what_the_fits_do_to_an_image():
    image = torch.ones(2, 3, 37, 75)
    assert fit_patches(image, 16, "crop", 10**6).images is image
    padded = fit_patches(image, 16, "pad", 10**6)
    assert padded.images.shape == (2, 3, 48, 80) and padded.filled == (37, 75)
    assert padded.images[..., :37, :75].eq(1).all() and not padded.images[..., 37:, :].any()
    resized = fit_patches(image, 16, "resize", 10**6)
    assert resized.images.shape == (2, 3, 32, 80) and resized.filled is None
    assert fit_patches(image, 16, "crop", 37 * 75 // 4).images.shape == (2, 3, 18, 37)


def test_padded_maps_are_cut_and_not_stretched():
    """A map of five patches over 80 pixels, of which the image fills 72: the rest of the map is cut off."""
    maps = torch.rand(2, 3, 3, 5, generator=torch.Generator().manual_seed(0))
    fitted = fit_patches(torch.ones(2, 3, 48, 72), 16, "pad", 10**6)
    full = F.interpolate(maps, size=(48, 80), mode="bilinear")[..., :72]
    found = unmirrored_sum(maps, fitted, (48, 72))
    torch.testing.assert_close(found, full[0] + full[1].flip(-1))
    assert float((found - unmirrored_sum(maps, fitted._replace(filled=None), (48, 72))).abs().max()) > 0.01


@pytest.mark.parametrize("background", [True, False])
def test_an_image_without_tags_has_the_background_alone(task, background):
    settings = {} if background else {"background_token": False, "background_weight": 0.0}
    found = seeds(task(**settings), image_of(32, 32), torch.zeros(CLASSES, dtype=torch.float64))
    assert found["keys"].tolist() == [0] and found["cam"].shape == (1, 32, 32)


def test_without_a_background_token_its_map_is_empty(task):
    task = task(background_token=False, background_weight=0.0)
    found = seeds(task, image_of(32, 48), torch.tensor([0.0, 1, 0, 0, 1], dtype=torch.float64), parts=True)
    assert found["keys"].tolist() == [0, 2, 5]
    with torch.no_grad():
        maps = task.net(torch.cat([image_of(32, 48), image_of(32, 48).flip(-1)])).scores.maps[:, [1, 4]]
    up = F.interpolate(maps, size=(32, 48), mode="bilinear")
    total = up[0] + up[1].flip(-1)
    assert not found["r"][0].any()
    torch.testing.assert_close(found["r"][1:], naive.max_norm(total), rtol=0, atol=1e-12)


def test_several_scales_are_summed_and_stretched_by_plain_minimum_and_maximum():
    one, two = (torch.rand(2, 5, 6, generator=torch.Generator().manual_seed(s)) for s in (1, 2))
    merged = merge([one, two])
    for row in range(2):
        total = one[row] + two[row]
        torch.testing.assert_close(merged[row], (total - total.min()) / (total.max() - total.min() + 1e-8))
