"""Mean logits on shared bodies against loops."""

import json

import numpy as np
import pytest
from PIL import Image

from frugalseg.analysis.parts import shared_part_logits
from frugalseg.data.base import Sample
from frugalseg.errors import MapsError
from tests.ops import oracles

CLASSES = 5
PAIRS = [[1, 4], [2, 3]]
"""(head class, tail class), ids as in masks."""
TAGS = [(0,), (3,), (0, 3), (1, 2), ()]


@pytest.fixture
def world(tmp_path):
    """Root, samples, and what is on disk: mask, part ids and logits of each image."""
    rng = np.random.default_rng(0)
    (tmp_path / "world.json").write_text(json.dumps({"pairs": PAIRS}))
    for name in ("Parts", "masks", "maps"):
        (tmp_path / name).mkdir()
    samples, content = [], {}
    for index, tags in enumerate(TAGS):
        name, size = f"img{index}", (7 + index, 9)
        ids = np.array([0, 255, *(t + 1 for t in tags)], dtype=np.uint8)
        mask = rng.choice(ids, size=size)
        parts = rng.choice(3, size=size).astype(np.uint8)
        logits = rng.standard_normal((CLASSES - 1, 3, 4)).astype(np.float16)
        Image.fromarray(mask).save(tmp_path / "masks" / f"{name}.png")
        Image.fromarray(parts).save(tmp_path / "Parts" / f"{name}.png")
        np.savez(tmp_path / "maps" / f"{name}.npz", keys=np.array([0], np.uint8), logits=logits)
        samples.append(Sample(name, tmp_path / f"{name}.jpg", tmp_path / "masks" / f"{name}.png", tags))
        content[name] = (mask, parts, logits)
    return tmp_path, samples, content


def measure(root, samples):
    return shared_part_logits(root / "maps", root, samples, CLASSES)


def loop(samples, content):
    """Mean logit of each class of a pair over body pixels of each class of the pair."""
    values = {}
    for sample in samples:
        mask, parts, logits = content[sample.id]
        full = {c: oracles.bilinear(logits[c].astype(np.float64), mask.shape) for c in range(CLASSES - 1)}
        for pair in PAIRS:
            for owner, owned in zip(("head", "tail"), pair, strict=True):
                for rival, other in zip(("head", "tail"), pair, strict=True):
                    for y, x in np.ndindex(*mask.shape):
                        if parts[y, x] == 1 and mask[y, x] == owned:
                            values.setdefault(f"logit_{owner}_body_{rival}", []).append(full[other - 1][y, x])
    return {key: sum(numbers) / len(numbers) for key, numbers in values.items()}


def test_means_equal_loops(world):
    root, samples, content = world
    measured, expected = measure(root, samples), loop(samples, content)
    assert set(measured) == set(expected)
    assert len(expected) == 4
    for key, value in expected.items():
        np.testing.assert_allclose(measured[key], value, rtol=1e-4, atol=1e-5, err_msg=key)


def test_only_one_side_of_the_pairs(world):
    root, samples, content = world
    assert set(measure(root, samples[:1])) == {"logit_head_body_head", "logit_head_body_tail"}
    np.testing.assert_allclose(
        measure(root, samples[:1])["logit_head_body_head"],
        loop(samples[:1], content)["logit_head_body_head"],
        rtol=1e-4,
    )


def test_samples_without_mask_or_tags_or_pair_do_not_count(world):
    root, samples, _ = world
    bare = [
        Sample("nowhere", root / "x.jpg", None, (0,)),
        Sample("nowhere", root / "x.jpg", root / "x.png", None),
        samples[-1],
    ]
    assert measure(root, [*samples, *bare]) == measure(root, samples)
    assert measure(root, bare) == {}


@pytest.mark.parametrize("record", [None, "{}"])
def test_elsewhere_nothing_is_measured(world, record):
    root, samples, _ = world
    (root / "world.json").unlink()
    if record is not None:
        (root / "world.json").write_text(record)
    assert measure(root, samples) == {}


def test_maps_without_logits(world):
    root, samples, _ = world
    np.savez(root / "maps" / "img0.npz", keys=np.array([0], np.uint8))
    with pytest.raises(MapsError, match="save_logits"):
        measure(root, samples)


def test_missing_maps(world):
    root, samples, _ = world
    (root / "maps" / "img1.npz").unlink()
    with pytest.raises(MapsError, match=r"img1\.npz"):
        measure(root, samples)
