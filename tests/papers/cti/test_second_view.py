"""Tokens and maps of a second view: what the view is, against plain passes of the net, and from task to measures."""

import numpy as np
import pytest
import torch

from frugalseg.analysis.view_agreement import view_values
from frugalseg.data.base import Sample
from frugalseg.ops.cam import min_max
from frugalseg.papers.cti import CTI, second_view
from frugalseg.run import write_arrays

CLASSES, DIM = 4, 12


def small(**settings):
    torch.manual_seed(0)
    given = {"dim": DIM, "depth": 3, "heads": 3, "grid": 2, "infusion": 1, "weights": None, "drop_path": 0.0}
    return CTI(CLASSES + 1, **given, **settings).eval()


def batch(tags, size=(32, 48)):
    image = torch.randn(1, 3, *size, generator=torch.Generator().manual_seed(1))
    images = [torch.cat([image, image.flip(-1)])]
    return {"id": ["a"], "images": images, "tags": torch.tensor([tags], dtype=torch.float32), "size": size}


@pytest.mark.parametrize(("size", "larger"), [((64, 64), (80, 80)), ((32, 96), (32, 128)), ((16, 16), (16, 16))])
def test_the_view_is_larger_by_whole_patches(size, larger):
    assert second_view.second_view(torch.zeros(1, 3, *size), 16).shape[-2:] == larger


def test_the_view_is_mirrored_and_warmer():
    image = torch.arange(16.0).expand(1, 3, 16, 16)
    expected = 0.8 * image.flip(-1) + torch.tensor([0.2, 0.0, -0.2])[:, None, None]
    torch.testing.assert_close(second_view.second_view(image, 16), expected)


@pytest.mark.parametrize("background", [True, False])
@torch.no_grad()
def test_what_is_kept_is_what_plain_passes_give(monkeypatch, background):
    """With a mere mirror image for the second view its maps are those of a pass over it, mirrored back."""
    monkeypatch.setattr(second_view, "second_view", lambda image, patch: image.flip(-1))
    weight = 0.1 if background else 0.0
    net = small(background_token=background, background_weight=weight).net
    image, classes = batch([0] * CLASSES)["images"][0][:1], torch.tensor([1, 3, 4])
    found = second_view.view_arrays(net, image, classes, 10**6)
    rows = classes if background else classes - 1
    for number, view in enumerate((image, image.flip(-1))):
        plain = net(view, rows_from=0)
        r = plain.scores.maps[0, rows]
        for name, maps in (("r", r), ("f", r * plain.rows[0, rows])):
            back = maps.flip(-1) if number else maps
            torch.testing.assert_close(found[f"views_{name}"][number], min_max(back))
        torch.testing.assert_close(found["tokens_infused"][number], plain.tokens[0, rows])
        # a class's logit is the mean of its last token
        torch.testing.assert_close(found["tokens"][number].mean(dim=-1), plain.scores.token_logits[0, classes - 1])


@torch.no_grad()
def test_from_the_task_to_the_measures(tmp_path):
    task = small(save_views=True, seed_map="f")
    for name, tags in (("a", [1, 0, 1, 0]), ("b", [1, 0, 0, 0]), ("c", [0, 0, 0, 0])):
        arrays = task.predict_step(batch(tags), 0)["arrays"]
        shown = int(sum(tags))
        assert arrays["tokens"].shape == arrays["tokens_infused"].shape == (2, shown, DIM)
        assert arrays["views_r"].shape == arrays["views_f"].shape == (2, shown, 2, 3)
        assert all(values.dtype == np.float16 for key, values in arrays.items() if key != "keys")
        write_arrays(tmp_path / f"{name}.npz", arrays)
    found = view_values(tmp_path, [Sample(name, tmp_path / "x", None, ()) for name in "abc"])
    assert found["view_entries"] == 3
    assert 0 <= found["view_iou_r"] <= 1 and {"token_separation", "token_silhouette_infused"} <= set(found)


@torch.no_grad()
def test_nothing_is_kept_unless_asked():
    assert set(small(seed_map="f").predict_step(batch([1, 0, 0, 0]), 0)["arrays"]) == {"keys", "cam"}
