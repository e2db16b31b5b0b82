"""Shares of pixels on shared parts against loops, by hand, and where there is nothing to count."""

import json

import numpy as np
import pytest
from PIL import Image

from frugalseg.analysis.shared_parts import shared_part_values
from frugalseg.data.base import Sample
from tests.ops import oracles

CLASSES = 5
PAIRS = [(1, 4), (2, 3)]
"""(head class, tail class), ids as in masks."""
TAGS = [(0,), (3,), (0, 3), (1, 2), (0, 1, 2, 3), ()]
ENDINGS = {"m0": "", "mw": "_mw"}


def put(root, name, mask, parts, logits, tags, **maps):
    """One image on disk; the maps have one channel per tag behind the background's."""
    Image.fromarray(mask).save(root / "masks" / f"{name}.png")
    Image.fromarray(parts).save(root / "Parts" / f"{name}.png")
    keys = np.array([0, *(tag + 1 for tag in tags)], np.uint8)
    np.savez(root / "maps" / f"{name}.npz", keys=keys, logits=logits, **maps)
    return Sample(name, root / f"{name}.jpg", root / "masks" / f"{name}.png", tags)


@pytest.fixture
def root(tmp_path):
    (tmp_path / "world.json").write_text(json.dumps({"pairs": PAIRS}))
    for name in ("Parts", "masks", "maps"):
        (tmp_path / name).mkdir()
    return tmp_path


@pytest.fixture
def world(root):
    """Samples, and what is on disk: mask, part ids, logits and maps of each image."""
    rng = np.random.default_rng(0)
    samples, content = [], {}
    for index, tags in enumerate(TAGS):
        size = (7 + index, 9)
        ids = np.array([0, 255, *(t + 1 for t in tags)], dtype=np.uint8)
        mask, parts = rng.choice(ids, size=size), rng.choice(3, size=size).astype(np.uint8)
        logits = rng.standard_normal((CLASSES - 1, 3, 4)).astype(np.float16)
        maps = {name: rng.random((len(tags) + 1, *size)).astype(np.float16) for name in ("m0", "mw")}
        samples.append(put(root, f"img{index}", mask, parts, logits, tags, **maps))
        content[f"img{index}"] = (mask, parts, logits, maps)
    return samples, content


def measure(root, samples):
    values = shared_part_values(root / "maps", root, samples, CLASSES)
    return {key: value for key, value in values.items() if not key.startswith("logit_")}


def loop(samples, content):
    """Every share by looking at one pixel of one class of one pair after another."""
    seen = {}
    for sample in samples:
        mask, parts, logits, maps = content[sample.id]
        keys = [0, *(tag + 1 for tag in sample.tags)]
        full = {c + 1: oracles.bilinear(logits[c].astype(np.float64), mask.shape) for c in range(CLASSES - 1)}
        for head, tail in PAIRS:
            for name, other, own, rival in (("head", "tail", head, tail), ("tail", "head", tail, head)):
                if own not in keys:
                    continue
                for y, x in np.ndindex(*mask.shape):
                    labels = {end: keys[int(np.argmax(maps[rule][:, y, x]))] for rule, end in ENDINGS.items()}
                    true = mask[y, x] == own
                    for end, label in labels.items():
                        seen.setdefault(f"area_{name}{end}", []).append((label == own, true))
                    part = {1: "body", 2: "tip"}.get(int(parts[y, x]))
                    if not true or part is None:
                        continue
                    for end, label in labels.items():
                        seen.setdefault(f"recall_{name}_{part}{end}", []).append((label == own, 1))
                        if (name, part) == ("tail", "body") and rival in keys:
                            seen.setdefault(f"head_on_tail_body_both{end}", []).append((label == rival, 1))
                    if part == "body":
                        won = full[rival][y, x] > full[own][y, x]
                        seen.setdefault(f"{other}_on_{name}_body", []).append((won, 1))
    return {key: sum(float(h) for h, _ in pixels) / sum(float(p) for _, p in pixels) for key, pixels in seen.items()}


def test_shares_equal_loops(root, world):
    samples, content = world
    measured, expected = measure(root, samples), loop(samples, content)
    assert {key for key in measured if not key.startswith("pixels_")} == set(expected)
    assert len(expected) == 2 + 8 + 4 + 2
    for key, value in expected.items():
        assert measured[key] == pytest.approx(value, abs=1e-12), key


def test_denominators_are_counts_of_true_pixels(root, world):
    samples, content = world
    measured, expected = measure(root, samples), dict.fromkeys(("head", "tail"), 0)
    for sample in samples:
        mask, parts, *_ = content[sample.id]
        for pair in PAIRS:
            for name, own in zip(expected, pair, strict=True):
                expected[name] += int(((mask == own) & (parts == 1)).sum())
    assert {name: measured[f"pixels_{name}_body"] for name in expected} == expected
    both = [content[s.id] for s in samples if s.tags and {0, 3} <= set(s.tags)]
    both = sum(int(((mask == 4) & (parts == 1)).sum()) for mask, parts, *_ in both)
    both += sum(int(((content[n][0] == 3) & (content[n][1] == 1)).sum()) for n in ("img3", "img4"))
    assert measured["pixels_tail_body_both"] == both > 0


def test_by_hand(root):
    """A tail object of two body pixels and one tip; the head's logit is above the tail's on one, equal on the other."""
    mask = np.array([[4, 4, 4, 0]], np.uint8)
    parts = np.array([[1, 1, 2, 0]], np.uint8)
    logits = np.zeros((4, 1, 4), np.float16)
    logits[0, 0, 0] = 1
    scores = np.zeros((3, 1, 4), np.float16)  # background, head, tail
    scores[1, 0, 0] = scores[2, 0, 1] = scores[0, 0, 2] = scores[2, 0, 3] = 1
    sample = put(root, "hand", mask, parts, logits, (0, 3), m0=scores)
    assert measure(root, [sample]) == {
        "head_on_tail_body": 0.5,
        "head_on_tail_body_both": 0.5,
        "recall_tail_body": 0.5,
        "recall_tail_tip": 0.0,
        "area_tail": 2 / 3,
        "pixels_tail": 3.0,
        "pixels_tail_body": 2.0,
        "pixels_tail_tip": 1.0,
        "pixels_tail_body_both": 2.0,
    }


def test_without_both_tags_there_is_no_rival_in_the_masks(root, world):
    samples, _ = world
    alone = measure(root, samples[:2])
    assert not any("both" in key for key in alone)
    assert {"head_on_tail_body", "tail_on_head_body", "recall_tail_tip"} <= set(alone)


def test_maps_of_other_kinds_leave_the_logits_shares(root, world):
    samples, content = world
    mask, parts, logits, _ = content["img2"]
    sample = put(root, "img2", mask, parts, logits, TAGS[2])
    found = measure(root, [sample])
    assert {key for key in found if not key.startswith("pixels_")} == {"head_on_tail_body", "tail_on_head_body"}
    assert found["head_on_tail_body"] == measure(root, samples[2:3])["head_on_tail_body"]


@pytest.mark.parametrize("pairs", [None, []])
def test_without_pairs_nothing_is_counted(root, world, pairs):
    samples, _ = world
    (root / "world.json").write_text(json.dumps({} if pairs is None else {"pairs": pairs}))
    assert measure(root, samples) == {}


def test_an_object_that_is_hidden_has_no_shares(root):
    """A tag without pixels: no division by zero."""
    mask, parts = np.zeros((2, 3), np.uint8), np.zeros((2, 3), np.uint8)
    maps = np.ones((2, 2, 3), np.float16)
    sample = put(root, "empty", mask, parts, np.zeros((4, 1, 1), np.float16), (3,), m0=maps)
    assert measure(root, [sample]) == {}
