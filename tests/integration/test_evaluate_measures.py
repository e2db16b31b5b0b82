"""`frugalseg evaluate --parts --views` on a small world: the measures reach metrics.json, and lacks are told."""

import json

import numpy as np
import pytest

from frugalseg.analysis.shared_parts import shared_part_values
from frugalseg.analysis.view_agreement import view_values
from frugalseg.cli import main
from frugalseg.data.io import read_mask
from frugalseg.data.voc import index
from frugalseg.miniature.voc import write_voc_world

IMAGES, CLASSES = 6, 13


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """Root, samples, and maps that hold all that both measures need."""
    folder = tmp_path_factory.mktemp("measures")
    root = write_voc_world(folder / "world", images_train=IMAGES, images_val=1, seed=0)
    (folder / "maps").mkdir()
    samples, rng = index(root, "train"), np.random.default_rng(0)
    for sample in samples:
        truth = read_mask(sample.mask, CLASSES)
        keys = np.array([0, *(tag + 1 for tag in sample.tags)], np.uint8)
        shown = len(keys) - 1
        np.savez(
            folder / "maps" / f"{sample.id}.npz",
            keys=keys,
            m0=(np.stack([truth == key for key in keys]) + rng.random((len(keys), *truth.shape))).astype(np.float16),
            logits=rng.standard_normal((CLASSES - 1, 16, 16)).astype(np.float16),
            tokens=rng.standard_normal((2, shown, 8)).astype(np.float16),
            tokens_infused=rng.standard_normal((2, shown, 8)).astype(np.float16),
            views_r=rng.random((2, shown, 4, 4)).astype(np.float16),
            views_f=rng.random((2, shown, 4, 4)).astype(np.float16),
        )
    return root, samples, folder / "maps"


def evaluate(world, out, *words):
    root, _, maps = world
    given = ["--root", str(root), "--maps", str(maps), "--rules", "m0", "--no-figures", "--quiet", "--out", str(out)]
    return main(["evaluate", *given, *words])


def test_both_measures_are_written(world, tmp_path):
    root, samples, maps = world
    assert evaluate(world, tmp_path / "s", "--parts", "--views") == 0
    written = json.loads((tmp_path / "s" / "metrics.json").read_text())
    expected = shared_part_values(maps, root, samples, CLASSES) | view_values(maps, samples)
    assert {"recall_head_body", "area_head", "view_cosine", "token_separation"} <= set(expected)
    for key, value in expected.items():
        assert written[f"train/{key}"] == pytest.approx(value), key


def test_without_the_words_neither_is_there(world, tmp_path):
    assert evaluate(world, tmp_path / "s") == 0
    written = json.loads((tmp_path / "s" / "metrics.json").read_text())
    assert not [key for key in written if "body" in key or "view" in key or "token" in key]


def test_a_score_from_before_there_was_the_word_stays_up_to_date(world, tmp_path, capsys):
    """The identity without `views` has no trace of it."""
    assert evaluate(world, tmp_path / "s") == 0
    identity = json.loads((tmp_path / "s" / "provenance.json").read_text())["identity"]
    assert "views" not in identity["settings"] and "parts" in identity["settings"]
    assert evaluate(world, tmp_path / "s", "--views") == 0
    identity = json.loads((tmp_path / "s" / "provenance.json").read_text())["identity"]
    assert identity["settings"]["views"] is True
    assert "up to date" not in capsys.readouterr().err


def test_maps_without_tokens(world, tmp_path, capsys):
    _, samples, maps = world
    path = maps / f"{samples[0].id}.npz"
    whole = path.read_bytes()
    with np.load(path) as archive:
        np.savez(path, **{key: archive[key] for key in archive.files if key != "tokens"})
    try:
        assert evaluate(world, tmp_path / "s", "--views") == 2
    finally:
        path.write_bytes(whole)
    assert f"{path}: holds no tokens; make the maps with model.init_args.save_views true" in capsys.readouterr().err
