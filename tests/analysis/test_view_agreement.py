"""Two views of images: what is read, against plain NumPy over all entries, and what is said about bad files."""

import numpy as np
import pytest

from frugalseg.analysis.tokens import token_separation
from frugalseg.analysis.view_agreement import soft_iou, view_values
from frugalseg.data.base import Sample
from frugalseg.errors import MapsError

KEYS = [(0, 1, 3), (0, 3), (0,), (0, 1, 2)]


def content(rng, keys):
    shown = len(keys) - 1
    return {
        "keys": np.array(keys, np.uint8),
        "tokens": rng.standard_normal((2, shown, 5)).astype(np.float16),
        "tokens_infused": rng.standard_normal((2, shown, 5)).astype(np.float16),
        "views_r": rng.random((2, shown, 3, 4)).astype(np.float16),
        "views_f": rng.random((2, shown, 3, 4)).astype(np.float16),
    }


@pytest.fixture
def maps(tmp_path):
    """Folder, samples, and arrays; one map is empty in both views."""
    rng = np.random.default_rng(0)
    arrays = [content(rng, keys) for keys in KEYS]
    arrays[0]["views_f"][:, 1] = 0
    for number, each in enumerate(arrays):
        np.savez(tmp_path / f"img{number}.npz", **each)
    return tmp_path, [Sample(f"img{n}", tmp_path / "x.jpg", None, ()) for n in range(len(KEYS))], arrays


def test_means_over_all_entries(maps):
    folder, samples, arrays = maps
    found = view_values(folder, samples)
    assert found["view_entries"] == 5
    for name, ending in (("tokens", ""), ("tokens_infused", "_infused")):
        pairs = [
            (a[name][0, i].astype(float), a[name][1, i].astype(float)) for a in arrays for i in range(a[name].shape[1])
        ]
        expected = np.mean([x @ y / np.linalg.norm(x) / np.linalg.norm(y) for x, y in pairs])
        assert found[f"view_cosine{ending}"] == pytest.approx(expected, abs=1e-9)
        own = token_separation(np.array([x for x, _ in pairs]), np.array([1, 3, 3, 1, 2]))
        for key, value in own.items():
            assert found[f"token_{key}{ending}"] == pytest.approx(value, abs=1e-9)
    for name in ("r", "f"):
        scores = []
        for each in arrays:
            for first, second in zip(*each[f"views_{name}"].astype(float), strict=True):
                if first.any() or second.any():
                    scores.append(np.minimum(first, second).sum() / np.maximum(first, second).sum())
        assert len(scores) == {"r": 5, "f": 4}[name]
        assert found[f"view_iou_{name}"] == pytest.approx(np.mean(scores), abs=1e-9)


def test_equal_views_agree_fully(maps):
    folder, samples, arrays = maps
    for number, each in enumerate(arrays):
        for name in ("tokens", "tokens_infused", "views_r", "views_f"):
            each[name][1] = each[name][0]
        np.savez(folder / f"img{number}.npz", **each)
    found = view_values(folder, samples)
    values = [found[key] for key in ("view_cosine", "view_cosine_infused", "view_iou_r", "view_iou_f")]
    assert values == pytest.approx([1] * 4)


def test_images_without_classes_say_nothing(maps):
    folder, samples, _ = maps
    assert view_values(folder, samples[2:3]) == {}


def test_soft_iou_by_hand():
    first = np.array([[[0.0, 1.0]], [[0.5, 0.5]], [[0.0, 0.0]]])
    second = np.array([[[1.0, 0.0]], [[0.25, 1.0]], [[0.0, 0.0]]])
    np.testing.assert_allclose(soft_iou(first, second), [0, 0.75 / 1.5, np.nan])


@pytest.mark.parametrize(
    ("name", "values", "said"),
    [
        ("tokens", None, "save_views"),
        ("views_f", None, "save_views"),
        ("tokens", np.zeros((2, 1, 5)), "classes"),
        ("tokens", np.zeros((1, 2, 5)), "two views"),
        ("views_r", np.zeros((2, 2, 3)), "views_r"),
        ("views_r", np.full((2, 2, 3, 4), np.inf), "finite"),
        ("tokens_infused", np.zeros((2, 2, 5), np.int64), "int64"),
    ],
)
def test_what_is_wrong_is_said(maps, name, values, said):
    folder, samples, arrays = maps
    changed = {k: v for k, v in {**arrays[0], name: values}.items() if v is not None}
    np.savez(folder / "img0.npz", **changed)
    with pytest.raises(MapsError, match=said) as caught:
        view_values(folder, samples)
    assert str(caught.value).startswith(f"{folder / 'img0.npz'}: ") and "\n" not in str(caught.value)
