"""Counts of a whole split against loops: sweeps, label masks, boundaries, any number of processes."""

import numpy as np
import pytest
import torch
from PIL import Image

from frugalseg.analysis.masks import label_panel
from frugalseg.analysis.tally import FEW, Sources, count_split
from frugalseg.data.codes import MaskCode
from frugalseg.data.io import write_mask
from frugalseg.errors import DatasetError, DatasetNotFoundError, MapsError, MaskError
from frugalseg.ops.cam import RULES
from frugalseg.ops.palette import voc_palette
from tests.analysis.test_maps import SHARES
from tests.analysis.world import CLASSES, make_folder
from tests.ops import oracles
from tests.ops.test_boundary import counts_of

THRESHOLDS = (0.0, 0.25, 0.5, 0.9)


@pytest.fixture
def folder(tmp_path):
    return make_folder(tmp_path)


def scored(folder):
    return [s for s in folder.samples if s.mask is not None]


def write_labels(folder, name, seed=0, run="one", undecided=True):
    """Random labels of every image; id -> labels."""
    rng = np.random.default_rng(seed)
    values = [*range(CLASSES), *([255] if undecided else [])]
    labels = {s.id: rng.choice(values, size=folder.masks[s.id].shape).astype(np.uint8) for s in folder.samples}
    for image, ids in labels.items():
        write_mask(folder.maps.parent / name / f"{image}.png", ids, voc_palette(), run)
    return folder.maps.parent / name, labels


def same(one, other):
    for counts, others in zip(vars(one).values(), vars(other).values(), strict=True):
        assert counts.keys() == others.keys()
        for name, array in counts.items():
            assert array.dtype == others[name].dtype == np.int64
            np.testing.assert_array_equal(array, others[name])


# ---------------------------------------------------------------------- what is counted


def test_label_masks_are_counted_with_undecided_pixels_as_background(folder):
    sources = {name: write_labels(folder, name or "labels", seed) for seed, name in enumerate(("", "crf"))}
    tally = count_split(Sources(CLASSES, masks={name: path for name, (path, _) in sources.items()}), folder.samples)
    for name, (_, labels) in sources.items():
        pairs = [(np.where(labels[s.id] == 255, 0, labels[s.id]), folder.masks[s.id]) for s in scored(folder)]
        expected = sum(oracles.confusion(pred, true, CLASSES) for pred, true in pairs)
        np.testing.assert_array_equal(tally.confusion[name], expected)
        # the widths of images this small are 1
        np.testing.assert_array_equal(tally.boundary[name], sum(counts_of(p, t, CLASSES, 1) for p, t in pairs))
        undecided = sum((labels[s.id] == 255).sum() for s in scored(folder))
        assert tally.ignored[name].tolist() == [undecided, sum(true.size for _, true in pairs)]
    assert not tally.histograms


def test_sweeps_hold_every_threshold(folder):
    tally = count_split(Sources(CLASSES, maps=folder.maps, sweeps=("mw", "sum"), thresholds=THRESHOLDS), folder.samples)
    for name in ("mw", "sum"):
        for number, threshold in enumerate(THRESHOLDS):
            expected = np.zeros((CLASSES, CLASSES), np.int64)
            for sample in scored(folder):
                arrays = folder.arrays[sample.id]
                maps = sum(arrays[n].astype(np.float32) * np.float32(w) for n, w in SHARES[name].items())[1:]
                maps = maps / maps.max(axis=(1, 2), keepdims=True)
                whole = np.concatenate([np.full((1, *maps.shape[1:]), threshold, np.float32), maps])
                labels = arrays["keys"][whole.argmax(axis=0)]
                expected += oracles.confusion(labels, folder.masks[sample.id], CLASSES)
            counts = tally.histograms[name]
            found = counts[..., number + 1 :].sum(axis=-1)
            found[:, 0] += counts[..., : number + 1].sum(axis=(1, 2))
            np.testing.assert_array_equal(found, expected)


def test_boundaries_of_rules_but_not_of_controls(folder):
    tally = count_split(Sources(CLASSES, maps=folder.maps), folder.samples)
    assert set(tally.boundary) == set(RULES)
    assert set(tally.confusion) == {*RULES, "tags", "chance"}


def test_true_masks_are_decoded(folder):
    """A benchmark may store its ids shifted by one; label masks hold class ids."""
    path, _ = write_labels(folder, "labels")
    plain = count_split(Sources(CLASSES, masks={"": path}), folder.samples)
    code = MaskCode.of({(k + 1) % 5: k for k in range(CLASSES)} | {255: 255})
    coded = []
    for sample in scored(folder):
        target = folder.maps.parent / "coded" / f"{sample.id}.png"
        ids = folder.masks[sample.id]
        write_mask(target, np.where(ids == 255, ids, ids + 1).astype(np.uint8), voc_palette())
        coded.append(type(sample)(sample.id, sample.image, target, sample.tags, code))
    same(plain, count_split(Sources(CLASSES, masks={"": path}), coded))


@pytest.mark.parametrize("images", [FEW + 6])
def test_any_number_of_processes_counts_the_same(tmp_path, images):
    folder = make_folder(tmp_path, images=8)
    samples = (folder.samples * images)[:images]
    path, _ = write_labels(folder, "crf")
    sources = Sources(CLASSES, maps=folder.maps, sweeps=("mp",), thresholds=THRESHOLDS, masks={"crf": path})
    seen = []
    one, two, three = (
        count_split(sources, samples, workers, lambda done, total: seen.append((done, total))) for workers in (1, 2, 3)
    )
    same(one, two)
    same(one, three)
    total = sum(s.mask is not None for s in samples)
    assert {of for _, of in seen} == {total} and seen.count((total, total)) == 3
    assert torch.get_num_threads() == 1


def test_few_images_are_counted_in_this_process(folder, monkeypatch):
    monkeypatch.setattr("frugalseg.analysis.tally.each", lambda *_: 1 / 0)
    count_split(Sources(CLASSES, maps=folder.maps), folder.samples)
    with pytest.raises(ZeroDivisionError):
        count_split(Sources(CLASSES, maps=folder.maps), folder.samples, workers=2)


# ---------------------------------------------------------------------- what can be wrong


def refused(folder, error=MaskError, samples=None, **settings):
    with pytest.raises(error) as caught:
        count_split(Sources(CLASSES, **settings), samples or folder.samples)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("count", [1, 7])
def test_missing_label_masks_are_counted_and_the_first_five_named(tmp_path, count):
    folder = make_folder(tmp_path, images=9)
    path, labels = write_labels(folder, "crf")
    ids = list(labels)[:count]
    for image in ids:
        (path / f"{image}.png").unlink()
    message = refused(folder, DatasetError, masks={"crf": path})
    assert f"{path}: label masks of {count} of 8 images are missing" in message
    assert all((image in message) == (image in ids[:5]) for image in labels)


def test_images_without_a_true_mask_need_no_labels(folder):
    path, labels = write_labels(folder, "crf")
    (path / f"{list(labels)[-1]}.png").unlink()
    assert count_split(Sources(CLASSES, masks={"crf": path}), folder.samples).confusion["crf"].any()


@pytest.mark.parametrize("kind", ["maps", "masks"])
def test_an_absent_folder(folder, kind):
    none = folder.maps / "none"
    if kind == "maps":
        message = refused(folder, MapsError, maps=none)
    else:
        message = refused(folder, DatasetNotFoundError, masks={"crf": none})
    assert f"{none}: no such folder" in message and "run the stage" in message


def test_a_folder_mixed_from_two_runs(folder):
    path, labels = write_labels(folder, "crf")
    last = [s.id for s in scored(folder)][-1]
    write_mask(path / f"{last}.png", labels[last], voc_palette(), "two")
    message = refused(folder, DatasetError, masks={"crf": path})
    assert f"{folder.samples[0].id}.png (one)" in message and f"{last}.png (two)" in message
    path, _ = write_labels(folder, "unknown", run="")
    assert count_split(Sources(CLASSES, masks={"unknown": path}), folder.samples)


@pytest.mark.parametrize(
    ("kind", "told"),
    [
        ("id", "class id 77 in 1 pixels"),
        ("size", "is 4x9 (HxW), but the true mask"),
        ("colours", "holds colours"),
        ("jpeg", "is a JPEG file in truth"),
        ("cut", "cannot be decoded"),
    ],
)
def test_a_wrong_label_mask_is_named(folder, kind, told):
    path, labels = write_labels(folder, "crf", run="")
    name = scored(folder)[0].id
    file, ids = path / f"{name}.png", labels[name]
    if kind == "id":
        ids[0, 0] = 77
        write_mask(file, ids, voc_palette())
    elif kind == "size":
        write_mask(file, ids[1:], voc_palette())
    elif kind == "colours":
        Image.fromarray(np.stack([ids] * 3, axis=-1)).save(file)
    elif kind == "jpeg":
        Image.fromarray(ids).save(file, format="JPEG")
    else:
        file.write_bytes(file.read_bytes()[:-40])
    message = refused(folder, masks={"crf": path})
    assert message.startswith(f"{file}: ") and told in message


def test_undecided_pixels_need_a_background(folder):
    path, _ = write_labels(folder, "labels")
    message = refused(folder, masks={"": path}, background=False)
    assert "255 in" in message and "no background" in message
    path, _ = write_labels(folder, "labels", undecided=False)
    assert count_split(Sources(CLASSES, background=False, masks={"": path}), folder.samples).ignored[""][0] == 0


def test_maps_that_serve_nothing(tmp_path):
    folder = make_folder(tmp_path, names=("mw",))
    first = folder.samples[0].id
    message = refused(folder, MapsError, maps=folder.maps, rules=("m0", "sum"))
    assert f"{first}.npz: serves none of the rules m0, sum, it holds mw" in message
    message = refused(folder, MapsError, maps=folder.maps, sweeps=("mw", "cam"))
    assert f"{first}.npz: cannot be swept for cam, it holds mw" in message


def test_a_swept_map_that_an_image_lacks(tmp_path):
    folder = make_folder(tmp_path, names=("mw", "cam"))
    folder.rewrite(folder.samples[2].id, cam=None)
    message = refused(folder, MapsError, maps=folder.maps, sweeps=("cam",))
    assert f"{folder.samples[2].id}.npz: differs from {folder.samples[0].id}.npz" in message and "cam" in message


def test_swept_maps_of_another_size(tmp_path):
    folder = make_folder(tmp_path, names=("cam",))
    image = folder.samples[1].id
    folder.rewrite(image, cam=folder.arrays[image]["cam"][:, :-1])
    assert str(folder.masks[image].shape) in refused(folder, MapsError, maps=folder.maps, sweeps=("cam",))


# ---------------------------------------------------------------------- pictures


def test_a_panel_shows_image_labels_and_truth_in_their_colours(tmp_path):
    folder = make_folder(tmp_path, images=3)
    sample = folder.samples[0]
    grey = np.full((*folder.masks[sample.id].shape, 3), 100, np.uint8)
    image = sample.image.with_suffix(".png")
    Image.fromarray(grey).save(image)
    path, labels = write_labels(folder, "crf")
    shown = type(sample)(sample.id, image, sample.mask, sample.tags)
    panel = label_panel(shown, {"crf": path}, ["a", "b", "c", "d"], voc_palette())
    height, width = grey.shape[:2]
    factor = -(-192 // min(height, width))
    cells = panel[14 + factor // 2 :: factor, factor // 2 :: factor]
    assert cells.shape == (height, 3 * width, 3)
    for place, ids in ((1, labels[sample.id]), (2, folder.masks[sample.id])):
        expected = 35 + 0.65 * voc_palette()[ids]
        assert np.abs(cells[:, place * width : (place + 1) * width] - expected).max() <= 1
