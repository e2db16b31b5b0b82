"""Maps of images that are too large for one pass: the same numbers in less memory."""

import logging

import numpy as np
import pytest
import torch

from frugalseg.papers.sfc import SFC, model
from frugalseg.papers.sfc.model import SFCNet, affinity, propagate, propagate_in_blocks

SMALL = {
    "backbone": "resnet18",
    "side": [4, 4, 8, 8],
    "backbone_options": {"layers": [1, 1, 1, 1], "channels": [8, 8, 16, 16]},
}


@pytest.mark.parametrize("block", [1, 7, 63, 1000])
@pytest.mark.parametrize("centre", [False, True])
def test_blocks_of_the_affinity_give_what_the_matrix_gives(block, centre):
    generator = torch.Generator().manual_seed(1)
    features = torch.randn(2, 5, 7, 9, generator=generator, dtype=torch.float64)
    maps = torch.rand(2, 4, 7, 9, generator=generator, dtype=torch.float64)
    expected = propagate(maps, *affinity(features, centre))
    assert (propagate_in_blocks(maps, features, block, centre) - expected).abs().max() < 1e-12


@pytest.mark.parametrize("tiled", [False, True])
def test_maps_do_not_depend_on_how_they_are_computed(monkeypatch, tiled):
    torch.manual_seed(0)
    net = SFCNet(4, **SMALL).double().eval()
    pair = torch.randn(1, 3, 80, 112, dtype=torch.float64)
    pair = torch.cat([pair, pair.flip(-1)])
    present = torch.tensor([1.0, 0, 1, 1])
    with torch.no_grad():
        expected = net.infer(pair, present)
        monkeypatch.setattr(model, "LARGEST_AFFINITY", 50)  # 35 cells: one column at a time
        found = net.infer(pair, present, tiled=tiled)
    for one, other in zip(expected, found, strict=True):
        assert (one - other).abs().max() < 1e-10


def test_a_large_input_is_tiled_and_the_log_says_so(monkeypatch, caplog):
    task = SFC(4, weights=None, max_pixels=80 * 112, **SMALL).eval()
    seen, infer = [], task.net.infer
    monkeypatch.setattr(task.net, "infer", lambda *a: seen.append(a[2]) or infer(*a))
    pairs = [torch.randn(2, 3, 80, 112), torch.randn(2, 3, 160, 224)]
    batch = {"id": ["big"], "images": pairs, "tags": torch.tensor([[1.0, 0, 1]]), "size": (80, 112)}
    with caplog.at_level(logging.WARNING), torch.no_grad():
        arrays = task.predict_step(batch, 0)["arrays"]
    assert seen == [False, True]
    assert [r.getMessage() for r in caplog.records] == ["big: in tiles at 160x224, more than max_pixels"]
    assert np.isfinite(arrays["mw"]).all() and arrays["mw"].shape == (3, 80, 112)
