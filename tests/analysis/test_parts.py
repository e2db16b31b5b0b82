"""Mean logits on shared bodies against loops."""

import json

import numpy as np
import pytest
from PIL import Image

from frugalseg.analysis.shared_parts import shared_part_values
from frugalseg.data.base import Sample
from frugalseg.errors import DatasetError, MapsError
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
    values = shared_part_values(root / "maps", root, samples, CLASSES)
    return {key: value for key, value in values.items() if key.startswith("logit_")}


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


# ---------------------------------------------------------------------- what can be wrong with a world


def refused(root, samples, file, error=DatasetError):
    with pytest.raises(error) as caught:
        measure(root, samples)
    assert str(caught.value).startswith(f"{root / file}: ")
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_missing_part_image(world):
    root, samples, _ = world
    (root / "Parts" / "img2.png").unlink()
    refused(root, samples, "Parts/img2.png")


@pytest.mark.parametrize("keep", [0, 20, 45])
def test_a_truncated_part_image(world, keep):
    root, samples, _ = world
    path = root / "Parts" / "img2.png"
    path.write_bytes(path.read_bytes()[:keep])
    refused(root, samples, "Parts/img2.png")


@pytest.mark.parametrize("size", [(7, 8), (9, 7), (1, 9), (1, 1)])
def test_a_part_image_of_another_size(world, size):
    """Sizes that NumPy would stretch to the mask's, too."""
    root, samples, _ = world
    Image.fromarray(np.ones(size, np.uint8)).save(root / "Parts" / "img0.png")
    message = refused(root, samples, "Parts/img0.png")
    assert f"{size[0]}x{size[1]}" in message
    assert "7x9" in message


@pytest.mark.parametrize("values", [np.full((7, 9), 3, np.uint8), np.zeros((7, 9, 3), np.uint8)])
def test_a_part_image_with_other_ids_or_colours(world, values):
    root, samples, _ = world
    Image.fromarray(values).save(root / "Parts" / "img0.png")
    refused(root, samples, "Parts/img0.png")


@pytest.mark.parametrize(
    "text",
    [
        b"", b"{", b"[1]", b"3", b"\xff\xfe{}", b'{"pairs": null}', b'{"pairs": 3}', b'{"pairs": [1, 2]}',
        b'{"pairs": [[1, 2, 3]]}', b'{"pairs": [["cat", "dog"]]}', b'{"pairs": [[0, 1]]}', b'{"pairs": [[1, 5]]}',
    ],
)  # fmt: skip
def test_a_damaged_record(world, text):
    root, samples, _ = world
    (root / "world.json").write_bytes(text)
    refused(root, samples, "world.json")


@pytest.mark.parametrize("channels", [CLASSES, CLASSES - 2])
def test_logits_of_other_classes(world, channels):
    root, samples, _ = world
    np.savez(root / "maps" / "img0.npz", keys=np.array([0], np.uint8), logits=np.zeros((channels, 3, 4)))
    assert f"{channels} classes" in refused(root, samples, "maps/img0.npz", MapsError)


def test_logits_that_are_not_finite(world):
    root, samples, _ = world
    logits = np.full((CLASSES - 1, 3, 4), np.nan)
    np.savez(root / "maps" / "img0.npz", keys=np.array([0], np.uint8), logits=logits)
    assert "logits" in refused(root, samples, "maps/img0.npz", MapsError)
