"""Scores of a folder of maps against loops, and what is said about folders that are wrong."""

import re
import zipfile

import numpy as np
import pytest
import torch

from frugalseg.analysis.maps import CONTROLS, TOKEN_MAPS, control_predictions, foreground_scores, predictions, read_maps
from frugalseg.analysis.tally import Sources, count_split
from frugalseg.data.base import Sample
from frugalseg.errors import DatasetError, MapsError, MaskError
from frugalseg.ops.cam import RULES
from frugalseg.ops.thresholds import cumulate
from tests.analysis.world import CLASSES, make_folder
from tests.ops import oracles

# sfc.md section 6, in the float32 that the maps are read as
SHARES = {
    "m0": {"m0": 1},
    "mw": {"mw": 1},
    "mp": {"mp": 1},
    "sum": {"mw": 1, "mp": 1},
    "seed": {"mw": 1, "mp": 0.7},
    "walk": {"mw": 1, "mp": 0.3},
}


@pytest.fixture
def folder(tmp_path):
    return make_folder(tmp_path)


def labels(arrays, rule):
    """Class with the largest score, pixel by pixel."""
    height, width = arrays["m0"].shape[1:]
    result = np.zeros((height, width), dtype=np.int64)
    for y in range(height):
        for x in range(width):
            best = None
            for k, key in enumerate(arrays["keys"]):
                score = sum(
                    (np.float32(arrays[n][k, y, x]) * np.float32(w) for n, w in SHARES[rule].items()), np.float32(0)
                )
                if best is None or score > best[0]:
                    best = (score, int(key))
            result[y, x] = best[1]
    return result


def score_folder(maps, samples, classes, rules=tuple(RULES), progress=None):
    return count_split(Sources(classes, maps=maps, rules=tuple(rules)), samples, progress=progress).confusion


def refused(folder, error=MapsError):
    with pytest.raises(error) as caught:
        score_folder(folder.maps, folder.samples, CLASSES)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_counts_equal_a_loop_over_pixels(folder):
    counts = score_folder(folder.maps, folder.samples, CLASSES)
    assert set(counts) == set(RULES) | set(CONTROLS)
    scored = [s.id for s in folder.samples if s.mask is not None]
    assert len(scored) == len(folder.samples) - 1
    for rule in SHARES:
        expected = sum(oracles.confusion(labels(folder.arrays[i], rule), folder.masks[i], CLASSES) for i in scored)
        np.testing.assert_array_equal(counts[rule], expected, err_msg=rule)
    pixels = sum(int((folder.masks[i] != 255).sum()) for i in scored)
    assert {int(matrix.sum()) for matrix in counts.values()} == {pixels}


def test_the_maps_differ_so_that_rules_can_be_told_apart(folder):
    counts = score_folder(folder.maps, folder.samples, CLASSES)
    assert len({matrix.tobytes() for matrix in counts.values()}) == len(counts)


def test_counts_of_two_parts_add_up_and_order_does_not_matter(folder):
    whole = score_folder(folder.maps, folder.samples, CLASSES)
    parts = [score_folder(folder.maps, folder.samples[i::2], CLASSES) for i in (0, 1)]
    turned = score_folder(folder.maps, folder.samples[::-1], CLASSES)
    for rule, matrix in whole.items():
        np.testing.assert_array_equal(matrix, parts[0][rule] + parts[1][rule])
        np.testing.assert_array_equal(matrix, turned[rule])


def test_only_the_wanted_rules(folder):
    assert set(score_folder(folder.maps, folder.samples, CLASSES, rules=["mw"])) == {"mw", *CONTROLS}


def test_rules_whose_maps_were_not_written_are_left_out(tmp_path):
    folder = make_folder(tmp_path, names=("m0", "mw"))
    assert set(score_folder(folder.maps, folder.samples, CLASSES)) == {"m0", "mw", *CONTROLS}


def test_predictions_are_integer_labels(folder):
    name = folder.samples[0].id
    guesses = predictions(read_maps(folder.maps / f"{name}.npz"), RULES)
    for rule, guess in guesses.items():
        assert guess.dtype == torch.int64
        np.testing.assert_array_equal(guess, labels(folder.arrays[name], rule))


def test_progress_counts_scored_images(folder):
    seen = []
    score_folder(folder.maps, folder.samples, CLASSES, progress=lambda done, total: seen.append((done, total)))
    total = len(folder.samples) - 1
    assert seen == [(done, total) for done in range(1, total + 1)]


# ---------------------------------------------------------------------- controls


def sample(name):
    return Sample(name, None, None, None)


def test_controls_know_the_tags_and_nothing_else():
    keys = np.array([0, 3, 7], dtype=np.uint8)
    painted = set()
    for index in range(40):
        guesses = control_predictions(sample(f"id{index}"), keys, (20, 30))
        assert set(guesses) == set(CONTROLS)
        assert {g.shape for g in guesses.values()} == {(20, 30)}
        tag = set(guesses["tags"].unique().tolist())
        assert len(tag) == 1
        painted |= tag
        assert set(guesses["chance"].unique().tolist()) == set(keys.tolist())
    assert painted == {3, 7}


def test_controls_depend_on_the_id_alone():
    keys = np.array([0, 3, 7])
    first, again, other = (control_predictions(sample(name), keys, (8, 8))["chance"] for name in ("a", "a", "b"))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_an_image_without_tags_is_background():
    guesses = control_predictions(sample("a"), np.array([0]), (3, 4))
    assert all(torch.equal(g, torch.zeros(3, 4, dtype=torch.int64)) for g in guesses.values())


# ---------------------------------------------------------------------- foreground maps for thresholds


@pytest.mark.parametrize("name", ["m0", "mp", "sum", "seed"])
def test_shaped_maps_are_divided_by_their_maximum(folder, name):
    image = folder.samples[0].id
    arrays = {**folder.arrays[image], "m0": folder.arrays[image]["m0"].copy()}
    arrays["m0"][1] = 0
    scores = foreground_scores(arrays, name)
    for row, found in enumerate(scores, start=1):
        raw = sum(arrays[n][row].astype(np.float64) * w for n, w in SHARES[name].items())
        expected = raw / raw.max() if raw.max() else raw
        np.testing.assert_allclose(found, expected, atol=1e-6)
    assert len(scores) == len(arrays["keys"]) - 1


def test_maps_of_cti_are_used_as_they_are(folder):
    image = folder.samples[0].id
    cam = np.random.default_rng(0).random((2, 3, 4)).astype(np.float16)
    folder.rewrite(image, keys=np.array([0, 2]), m0=None, mw=None, mp=None, cam=cam)
    scores = foreground_scores(read_maps(folder.maps / f"{image}.npz"), "cam")
    np.testing.assert_array_equal(scores, cam[1:].astype(np.float32))


PARTS = ("r", "mt", "f", "q", "infused")
"""What `save_parts` of CTI's prediction writes beside `cam`."""


@pytest.fixture
def tokens(tmp_path):
    return make_folder(tmp_path, names=("cam", *PARTS))


@pytest.mark.parametrize("name", ["cam", *PARTS])
def test_every_map_of_cti_can_be_swept_against_loops(tokens, name):
    """The first row, of the background token, takes no part; ties go to the background."""
    thresholds = (0.0, 0.25, 0.5, 0.9)
    counted = count_split(Sources(CLASSES, maps=tokens.maps, sweeps=(name,), thresholds=thresholds), tokens.samples)
    assert set(counted.histograms) == {name} and set(counted.confusion) == set(CONTROLS)
    matrices = cumulate(torch.as_tensor(counted.histograms[name])).numpy()
    for threshold, matrix in zip(thresholds, matrices, strict=True):
        expected = 0
        for sample in (s for s in tokens.samples if s.mask is not None):
            arrays = tokens.arrays[sample.id]
            keys, maps = arrays["keys"], arrays[name].astype(np.float32)
            guess = np.zeros(maps.shape[1:], np.int64)
            for y, x in np.ndindex(*guess.shape):
                best = np.float32(threshold)
                for k in range(1, len(keys)):
                    if maps[k, y, x] > best:
                        best, guess[y, x] = maps[k, y, x], keys[k]
            expected = expected + oracles.confusion(guess, tokens.masks[sample.id], CLASSES)
        np.testing.assert_array_equal(matrix, expected)


def test_each_name_has_maps_of_its_own(tokens):
    sources = Sources(CLASSES, maps=tokens.maps, sweeps=("cam", *PARTS))
    counted = count_split(sources, tokens.samples).histograms
    assert set(counted) == set(TOKEN_MAPS) == {"cam", *PARTS}
    assert len({histogram.tobytes() for histogram in counted.values()}) == 1 + len(PARTS)


@pytest.mark.parametrize("name", PARTS)
def test_parts_of_a_seed_map_are_checked_as_all_maps_are(tokens, name):
    image, arrays = tokens.samples[0].id, tokens.arrays[tokens.samples[0].id]
    values = arrays[name]
    for wrong, told in (
        (values[:-1], f"{name} has {len(values) - 1} channels for {len(values)} keys"),
        (values[:, :-1], "its maps differ in size"),
        (np.where(values == values.max(), np.nan, values), f"{name} holds values that are not finite"),
        (values[0], f"{name} is float16 of shape {values[0].shape}"),
    ):
        tokens.rewrite(image, **{name: wrong})
        with pytest.raises(MapsError, match=re.escape(told)):
            read_maps(tokens.maps / f"{image}.npz")


def test_a_part_that_some_images_lack_is_not_swept_over_the_rest(tokens):
    tokens.rewrite(tokens.samples[2].id, q=None)
    with pytest.raises(MapsError, match=rf"{tokens.samples[2].id}.npz: differs .* the rules q;"):
        count_split(Sources(CLASSES, maps=tokens.maps, sweeps=("cam", "q")), tokens.samples)
    assert count_split(Sources(CLASSES, maps=tokens.maps, sweeps=("cam", "r")), tokens.samples).histograms


@pytest.mark.parametrize(("names", "told"), [(("cam", "r"), "--sweep cam"), (("f", "q"), "--sweep f")])
def test_maps_that_serve_no_rule_name_the_sweep_that_they_serve(tmp_path, names, told):
    folder = make_folder(tmp_path, names=names)
    assert refused(folder).endswith(f"it holds {', '.join(names)}; set {told}")


# ---------------------------------------------------------------------- what can be wrong


@pytest.mark.parametrize("count", [1, 7])
def test_missing_maps_are_counted_and_the_first_five_named(tmp_path, count):
    folder = make_folder(tmp_path, images=9)
    ids = [s.id for s in folder.samples][:count]
    for name in ids:
        (folder.maps / f"{name}.npz").unlink()
    message = refused(folder)
    assert f"maps of {count} of 8 images are missing" in message
    assert all((name in message) == (name in ids[:5]) for name in folder.arrays)


def test_images_without_masks_need_no_maps(folder):
    (folder.maps / f"{folder.samples[-1].id}.npz").unlink()
    assert score_folder(folder.maps, folder.samples, CLASSES)


def test_no_mask_at_all(folder):
    folder.samples = folder.samples[-1:]
    assert "none of the 1 images" in refused(folder, DatasetError)


@pytest.mark.parametrize("keep", [0, 10, 200, -30])
def test_a_truncated_file_is_named(folder, keep):
    path = folder.maps / f"{folder.samples[1].id}.npz"
    path.write_bytes(path.read_bytes()[:keep])
    assert str(path) in refused(folder)


def test_a_changed_byte_in_the_data_is_noticed(folder):
    name = folder.samples[1].id
    path = folder.maps / f"{name}.npz"
    np.savez(path, **folder.arrays[name])
    content = bytearray(path.read_bytes())
    content[content.index(folder.arrays[name]["mw"].tobytes()) + 5] ^= 1
    path.write_bytes(content)
    assert str(path) in refused(folder)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("name", ["m0", "mw", "mp"])
def test_values_that_are_not_finite_are_refused(folder, name, bad):
    image = folder.samples[0].id
    maps = folder.arrays[image][name].copy()
    maps[-1, -1, -1] = bad
    folder.rewrite(image, **{name: maps})
    message = refused(folder)
    assert f"{image}.npz: {name} " in message


@pytest.mark.parametrize(
    "keys",
    [
        None,
        np.array([], np.uint8),
        np.array([1, 2], np.uint8),
        np.array(0),
        np.array([[0, 1]]),
        np.array(["a", "b"]),
        np.array([0.0, 1.0]),
    ],
)
def test_keys_must_begin_with_the_background(folder, keys):
    image = folder.samples[0].id
    folder.rewrite(image, keys=keys)
    assert f"{image}.npz: has no `keys`" in refused(folder)


def test_pickled_objects_are_not_read(folder, tmp_path):
    image = folder.samples[0].id
    folder.rewrite(image, m0=np.array([{"a": 1}], dtype=object))
    assert f"{image}.npz" in refused(folder)


def test_maps_of_another_size_name_both_files(folder):
    image = folder.samples[0].id
    arrays = {name: array[:, :-1] for name, array in folder.arrays[image].items() if name != "keys"}
    folder.rewrite(image, **arrays)
    message = refused(folder)
    assert f"{image}.npz" in message
    assert f"{image}.png" in message
    assert str(folder.masks[image].shape) in message


def test_class_ids_of_another_benchmark_are_refused(folder):
    image = folder.samples[0].id
    keys = folder.arrays[image]["keys"].copy()
    keys[-1] = CLASSES
    folder.rewrite(
        image, keys=keys, m0=np.stack([np.full(folder.masks[image].shape, k, np.float16) for k in range(len(keys))])
    )
    message = refused(folder)
    assert f"{image}.npz" in message
    assert f"{CLASSES} classes" in message


def test_a_wrong_mask_is_the_masks_error(folder):
    path = folder.samples[0].mask
    path.write_bytes(path.read_bytes()[:20])
    assert str(path) in refused(folder, MaskError)


def test_a_missing_file_says_what_to_do(tmp_path):
    with pytest.raises(MapsError, match="make them again"):
        read_maps(tmp_path / "nowhere.npz")


def test_a_bare_array_is_refused(folder):
    with (folder.maps / f"{folder.samples[0].id}.npz").open("wb") as file:
        np.save(file, np.zeros(3))
    assert f"{folder.samples[0].id}.npz: not readable (one bare array" in refused(folder)


@pytest.mark.parametrize("offset", [6, 8, 10])  # version, flags and method in the central directory
def test_a_damaged_directory_entry_is_refused(folder, offset):
    path = folder.maps / f"{folder.samples[0].id}.npz"
    content = bytearray(path.read_bytes())
    content[content.index(b"PK\x01\x02") + offset] ^= 255 if offset != 8 else 1
    path.write_bytes(content)
    assert f"{path}: not readable" in refused(folder)


@pytest.mark.parametrize("name", ["m0", "mw", "mp"])
def test_one_channel_for_each_key(folder, name):
    image = folder.samples[0].id
    maps = folder.arrays[image][name]
    for wrong in (np.concatenate([maps, maps[:1] + 2]), maps[:-1]):
        folder.rewrite(image, **{name: wrong})
        assert f"{image}.npz: {name} has {len(wrong)} channels for {len(maps)} keys" in refused(folder)


def test_maps_that_differ_among_themselves_are_refused(folder):
    image = folder.samples[0].id
    folder.rewrite(image, mp=folder.arrays[image]["mp"][:, :-1])
    assert f"{image}.npz: its maps differ in size" in refused(folder)


@pytest.mark.parametrize(
    "values",
    [np.zeros(3), np.float32(1), np.full((2, 5, 9), "a"), np.zeros((2, 5, 9), complex), np.zeros((2, 5, 9), bool)],
)
@pytest.mark.parametrize("name", ["m0", "logits"])
def test_maps_that_are_no_maps_are_refused(folder, name, values):
    image = folder.samples[0].id
    folder.rewrite(image, **{name: values})
    assert f"{image}.npz: {name} is {values.dtype} of shape" in refused(folder)


def test_a_foreign_member_is_refused(folder):
    image = folder.samples[0].id
    with zipfile.ZipFile(folder.maps / f"{image}.npz", "a") as archive:
        archive.writestr("logits", "hello")
    assert "logits is no array" in refused(folder)


def test_any_damaged_byte_is_noticed_or_harmless(tmp_path):
    folder = make_folder(tmp_path, images=3)
    path = folder.maps / f"{folder.samples[0].id}.npz"
    content = path.read_bytes()
    refusals = 0
    for offset in range(0, len(content), 3):
        path.write_bytes(content[:offset] + bytes([content[offset] ^ 255]) + content[offset + 1 :])
        try:
            predictions(read_maps(path), RULES)
        except MapsError as error:
            assert "\n" not in str(error)
            refusals += 1
    assert refusals > len(content) / 6


@pytest.mark.parametrize("index", [0, 1, 4])
@pytest.mark.parametrize("name", ["m0", "mp"])
def test_a_map_that_some_images_lack_is_not_scored_over_the_rest(folder, index, name):
    folder.rewrite(folder.samples[index].id, **{name: None})
    message = refused(folder)
    rules = sorted(rule for rule, shares in SHARES.items() if name in shares)
    assert f"{folder.samples[max(index, 1)].id}.npz: " in message
    assert f"the rules {', '.join(rules)};" in message
    # rules that all images can serve are scored still
    assert set(score_folder(folder.maps, folder.samples, CLASSES, rules=["mw"])) == {"mw", *CONTROLS}


def test_a_class_beyond_the_benchmark_is_refused_even_where_it_never_wins(folder):
    image = folder.samples[0].id
    keys, maps = np.array([0, CLASSES + 3]), np.zeros((2, *folder.masks[image].shape), np.float16)
    maps[0] = 1
    folder.rewrite(image, keys=keys, m0=maps, mw=maps, mp=maps)
    assert f"class {CLASSES + 3}, but there are {CLASSES} classes" in refused(folder)


@pytest.mark.parametrize("shape", [(2, 0, 9), (2, 5, 0)])
def test_an_empty_map_is_refused(folder, shape):
    image = folder.samples[0].id
    folder.rewrite(image, keys=np.array([0, 1]), **{name: np.zeros(shape, np.float16) for name in ("m0", "mw", "mp")})
    assert f"{image}.npz: m0 is empty, of shape {shape}" in refused(folder)


def test_a_class_named_twice_is_refused(folder):
    image = folder.samples[0].id
    maps = np.zeros((3, *folder.masks[image].shape), np.float16)
    folder.rewrite(image, keys=np.array([0, 1, 1]), m0=maps, mw=maps, mp=maps)
    assert "names a class twice" in refused(folder)
