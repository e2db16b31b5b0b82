"""Whole or in tiles: the same numbers where the net's reach allows, and one line that says so."""

import itertools
import logging
import re

import pytest
import torch
from torch import nn

from frugalseg.errors import ConfigError
from frugalseg.stages.deeplab import passes as module
from frugalseg.stages.deeplab.model import DeepLabNet
from frugalseg.stages.deeplab.passes import Passes


class Near(nn.Module):
    """Stride 8 in three steps, reach below 16 pixels; remembers what it saw and can run out of memory."""

    stride = align = 8

    def __init__(self, room=None, error=torch.OutOfMemoryError):
        super().__init__()
        torch.manual_seed(0)
        depths = (3, 4, 4, 5)
        self.layers = nn.Sequential(*(nn.Conv2d(a, b, 3, 2, padding=1) for a, b in itertools.pairwise(depths))).double()
        self.room, self.error, self.seen = room, error, []

    def forward(self, image):
        self.seen.append(tuple(image.shape[-2:]))
        if self.room is not None and image.shape[-1] * image.shape[-2] > self.room:
            raise self.error("CUDA out of memory. Tried to allocate")
        return self.layers(image)


@pytest.fixture
def pair():
    return torch.randn(2, 3, 210, 331, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


@pytest.fixture
def messages(caplog):
    caplog.set_level(logging.WARNING, logger="frugalseg")
    return lambda: [record.getMessage() for record in caplog.records]


@pytest.fixture(autouse=True)
def _cost(monkeypatch):
    """A pass takes 1000 bytes per pixel, and there is plenty of memory."""
    monkeypatch.setattr(module, "bytes_per_pixel", lambda net, images, device: 1000.0)
    monkeypatch.setattr(module, "free_bytes", lambda device, resident: 2.0**40)


def same(tiled, whole):
    torch.testing.assert_close(tiled, whole, rtol=0, atol=1e-12)


def test_a_small_image_goes_through_whole(pair, messages):
    net = Near()
    same(Passes(net)(pair, "a"), net(pair))
    assert net.seen == [(210, 331)] * 2
    assert messages() == []


def test_a_small_limit_makes_tiles_and_says_so(pair, messages):
    net = Near()
    tiled = Passes(net, max_pixels=128 * 130)(pair, "2012_000007", 2.0)
    assert len(net.seen) > 4 and all(h * w <= 128 * 130 for h, w in net.seen)
    same(tiled, net(pair))
    (line,) = messages()
    assert line.startswith("2012_000007: 210 x 331 pixels at scale 2 need")
    assert f"{16640} pixels go through at a time" in line and "tiles of 128 pixels" in line


def test_the_limit_follows_from_free_memory(pair, messages, monkeypatch):
    """1000 bytes a pixel, 80 % of 20 MiB: 16777 pixels, tiles of 128."""
    monkeypatch.setattr(module, "free_bytes", lambda device, resident: 20 * 2.0**20)
    net = Near()
    same(Passes(net)(pair, "b", 1.5), net(pair))
    (line,) = messages()
    needed, free = (float(x) for x in re.findall(r"([\d.]+) GiB", line))
    assert needed == pytest.approx(210 * 331 * 1000 / 2**30, abs=0.006)
    assert free == pytest.approx(20 / 1024, abs=0.006)
    assert "scale 1.5" in line and "tiles of 128 pixels" in line


def test_the_cost_is_measured_once_per_kind_of_pass(pair, monkeypatch):
    calls = []
    monkeypatch.setattr(module, "bytes_per_pixel", lambda net, images, device: calls.append(images) or 1000.0)
    run = Passes(Near())
    for image in (pair, pair, pair[:1], pair):
        run(image, "c")
    assert calls == [2, 1]


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (torch.OutOfMemoryError, "CUDA out of memory"),
        (RuntimeError, "DefaultCPUAllocator: can't allocate memory"),
    ],
)
def test_running_out_of_memory_goes_on_in_tiles(pair, messages, error, words):
    net = Near(room=170 * 170, error=lambda _: error(words))
    run = Passes(net)
    tiled = run(pair, "d", 2.0)
    net.room = None
    same(tiled, net(pair))
    assert messages() == ["d: 210 x 331 pixels at scale 2: out of memory, going on in tiles of 160 pixels"]
    net.room, net.seen = 170 * 170, []
    run(pair, "e", 2.0)  # it remembers: nothing fails a second time
    assert all(h * w <= 170 * 170 for h, w in net.seen)
    assert len(messages()) == 2 and messages()[1].startswith("e: 210 x 331")


def test_tiles_are_halved_until_they_fit(pair, messages):
    net = Near(room=90 * 90)
    tiled = Passes(net)(pair, "f")
    net.room = None
    same(tiled, net(pair))
    assert [re.findall(r"tiles of (\d+)", line) for line in messages()] == [["160"], ["80"]]


def test_no_tile_fits(pair):
    with pytest.raises(ConfigError, match="g: out of memory even in tiles of 64 pixels"):
        Passes(Near(room=10))(pair, "g")


def test_other_errors_are_not_hidden(pair):
    with pytest.raises(RuntimeError, match="shapes"):
        Passes(Near(room=10, error=lambda _: RuntimeError("shapes cannot be multiplied")))(pair, "h")


def test_a_window_slides(pair, messages):
    net = Near()
    same(Passes(net, window=96, overlap=0.5)(pair, "i"), net(pair))
    assert set(net.seen[:-1]) <= {(h, w) for h in range(89, 97) for w in range(89, 97)} and len(net.seen) > 10
    assert messages() == []
    net.seen = []
    Passes(net, window=400)(pair, "j")
    assert net.seen == [(210, 331)]


@pytest.mark.parametrize(("window", "side"), [(100, 100), (20, 64)])
def test_a_window_has_the_side_that_is_asked_for(pair, window, side):
    """It need not be a multiple of the net's grid, only its beginnings are; a tiny one is made larger."""
    net = Near()
    same(Passes(net, window=window, overlap=0.6)(pair, "i"), net(pair))
    tiles = net.seen[:-1]
    assert max(w for _, w in tiles) == max(h for h, _ in tiles) == side


def test_a_window_that_does_not_fit_becomes_smaller(pair, messages):
    net = Near()
    Passes(net, window=200, max_pixels=96 * 96)(pair, "k")
    assert max(h for h, w in net.seen) == 96
    assert len(messages()) == 1


@pytest.mark.parametrize("head", ["v2", "v3plus"])
def test_a_real_net_in_tiles_is_near_the_whole_pass(head, messages):
    """Its reach is wider than a tile's margin, so the numbers differ, but little."""
    torch.manual_seed(0)
    options = {"rates": [1, 2]} if head == "v2" else {"width": 8, "low_width": 4, "rates": [1, 2]}
    net = DeepLabNet(
        4, "resnet18", head, head_options=options, backbone_options={"layers": [1, 1, 1, 1], "channels": [8, 8, 16, 16]}
    ).eval()
    image = torch.nn.functional.avg_pool2d(torch.randn(1, 3, 420, 515), 9, 1, 4) * 9
    with torch.no_grad():
        whole, tiled = net(image), Passes(net, max_pixels=224 * 224)(image, "l")
    assert whole.shape == tiled.shape
    spread = whole.std()
    assert (whole - tiled).abs().mean() < 0.1 * spread
    assert len(messages()) == 1
