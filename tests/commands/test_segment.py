"""`frugalseg segment`: masks are the predictor's, whatever the batches, the windows, and where a run was stopped."""

import json
import os

import numpy as np
import pytest
import torch
from PIL import Image

import frugalseg
from frugalseg.cli import main
from frugalseg.commands import segment_record, segment_work
from frugalseg.data.io import read_image
from frugalseg.data.voc import NAMES
from frugalseg.ops.palette import voc_palette
from frugalseg.predictor import SegmentPredictor, windows_raster
from frugalseg.predictor.windows import ArraySource, Windows, sliding_mask
from frugalseg.run import file_digest
from tests.commands.segmenting import damage_tile, photo, save, write_segmenter

SIZES = {"a.jpg": (40, 56), "b.png": (40, 56), "deep/er/c.webp": (40, 56), "deep/d.JPG": (33, 47), "b.bmp": (40, 56)}
IDS = {"a", "b.png", "b.bmp", "deep/er/c", "deep/d"}


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return write_segmenter(tmp_path_factory.mktemp("run") / "segment")


@pytest.fixture(scope="module")
def predictor(checkpoint):
    return frugalseg.load(checkpoint)


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """Five photos, a hidden one and a text."""
    folder = tmp_path_factory.mktemp("photos")
    for seed, (name, size) in enumerate(SIZES.items()):
        save(folder / name, *size, seed)
    save(folder / ".hidden" / "x.png", 9, 9)
    (folder / "notes.txt").write_text("no image")
    return folder


@pytest.fixture
def segment(checkpoint, tmp_path):
    """Runs the verb; returns the exit code."""

    def run(*words, out=tmp_path / "out"):
        known = ["--checkpoint", checkpoint, "--out", out, "--device", "cpu"]
        given = [str(word) for word in words]
        begin = next((place for place, word in enumerate(given) if word.startswith("--")), len(given))
        return main(["segment", *given[:begin], *map(str, known), *given[begin:]])

    return run


def read(path):
    with Image.open(path) as image:
        return np.asarray(image)


def images_of(out):
    return json.loads((out / "areas.json").read_text())["images"]


def contents(out):
    """Every file of a folder but the record of its making."""
    return {
        p.relative_to(out).as_posix(): p.read_bytes()
        for p in out.rglob("*")
        if p.is_file() and p.name != "segment.json"
    }


def times(out):
    return {path: path.stat().st_mtime_ns for path in out.rglob("*.*g")}


def test_a_folder_becomes_masks_overlays_and_areas(segment, photos, checkpoint, predictor, tmp_path, capsys):
    assert segment(photos) == 0
    out, found = tmp_path / "out", images_of(tmp_path / "out")
    assert set(found) == IDS
    for name, size in SIZES.items():
        entry = next(each for each in found.values() if each["image"] == str(photos / name))
        with Image.open(out / entry["mask"]) as mask:
            ids, colours = np.asarray(mask), mask.getpalette()
        np.testing.assert_array_equal(ids, predictor(photos / name))
        assert colours == voc_palette().ravel().tolist() and (entry["height"], entry["width"]) == size
        counts = np.bincount(ids.ravel(), minlength=256)
        assert {area["id"]: area["pixels"] for area in entry["areas"]} == {k: n for k, n in enumerate(counts) if n}
        assert [area["pixels"] for area in entry["areas"]] == sorted(counts[counts > 0], reverse=True)
        assert all(area["class"] == NAMES_OF[area["id"]] for area in entry["areas"])
        assert sum(area["share"] for area in entry["areas"]) == pytest.approx(1)
        overlay = read(out / entry["overlay"])
        assert overlay.shape[0] > size[0] and overlay.shape[1:] == (size[1], 3)
    whole = json.loads((out / "areas.json").read_text())
    assert whole["totals"]["pixels"] == sum(height * width for height, width in SIZES.values())
    assert whole["model"]["sha256"] == file_digest(checkpoint) and whole["model"]["kind"] == "segmenter"
    record = json.loads((out / "segment.json").read_text())
    assert record["finished"] and record["failed"] == {} and record["device"] == "cpu" and record["batch_size"] == 1
    said = capsys.readouterr()
    assert "5 of 5 images" in said.out and said.err == ""


NAMES_OF = dict(enumerate(NAMES))


def test_an_overlay_is_its_image_under_the_colours_and_the_background_is_bare(segment, photos, predictor, tmp_path):
    assert segment(photos / "a.jpg", "--quiet") == 0
    image, ids = read_image(photos / "a.jpg").astype(int), predictor(photos / "a.jpg")
    drawn = read(tmp_path / "out/overlays/a.jpg")[: len(image)].astype(int)
    inside = np.zeros(ids.shape, bool)
    here = ids[1:-1, 1:-1]
    neighbours = (ids[2:, 1:-1], ids[:-2, 1:-1], ids[1:-1, 2:], ids[1:-1, :-2])
    inside[1:-1, 1:-1] = np.all([here == each for each in neighbours], axis=0)
    bare, tinted = inside & (ids == 0), inside & (ids > 0)
    mixed = 0.55 * image + 0.45 * voc_palette()[ids]
    lines = ~inside & (ids > 0)
    assert bare.any() and tinted.any() and lines.any()
    assert np.abs(drawn - image)[bare].mean() < np.abs(drawn - mixed)[bare].mean()
    assert np.abs(drawn - voc_palette()[ids])[lines].mean() < np.abs(drawn - mixed)[lines].mean()
    assert np.abs(drawn - mixed)[tinted].mean() < np.abs(drawn - image)[tinted].mean()


def test_what_is_done_is_not_done_again(segment, photos, tmp_path, monkeypatch, capsys):
    assert segment(photos) == 0
    before = times(tmp_path / "out")
    monkeypatch.setattr(SegmentPredictor, "masks", None)  # must not be called
    assert segment(photos) == 0
    assert times(tmp_path / "out") == before and "(5 of them before)" in capsys.readouterr().out


@pytest.mark.parametrize("batch_size", [1, 2])
def test_a_stopped_run_ends_as_one_that_was_not(batch_size, segment, photos, tmp_path, monkeypatch):
    words = (photos, "--batch-size", batch_size)
    assert segment(*words, out=tmp_path / "whole") == 0
    calls, genuine = [], SegmentPredictor.masks

    def stopped(self, images, batch_size=4):
        calls.append([image.shape for image in images])
        if len(calls) == 3:
            raise KeyboardInterrupt
        return genuine(self, images, batch_size)

    with monkeypatch.context() as patch:
        patch.setattr(SegmentPredictor, "masks", stopped)
        assert segment(*words) == 130
    assert 0 < len(images_of(tmp_path / "out")) < 5
    assert not json.loads((tmp_path / "out/segment.json").read_text())["finished"]
    assert segment(*words) == 0
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")
    assert max(map(len, calls)) == batch_size


def test_a_mask_whose_record_was_lost_is_made_again(segment, photos, tmp_path):
    """Killed between a mask and the next write of areas.json."""
    assert segment(photos) == 0
    before = contents(tmp_path / "out")
    (tmp_path / "out/areas.json").unlink()
    (tmp_path / "out/masks/a.png").write_bytes(b"torn by hand")
    assert segment(photos) == 0 and contents(tmp_path / "out") == before


def test_images_that_changed_and_files_that_are_gone_are_made_again(segment, tmp_path, predictor):
    image = save(tmp_path / "in" / "a.png", 30, 40, 1)
    save(tmp_path / "in" / "b.png", 30, 40, 2)
    assert segment(tmp_path / "in") == 0
    before = times(tmp_path / "out")
    save(image, 30, 40, 3)
    os.utime(image, ns=(1, 1))
    (tmp_path / "out/overlays/b.jpg").unlink()
    assert segment(tmp_path / "in") == 0
    np.testing.assert_array_equal(read(tmp_path / "out/masks/a.png"), predictor(image))
    assert all(times(tmp_path / "out")[path] != time for path, time in before.items())


def test_without_overlays_there_are_none_and_later_they_are_added(segment, photos, tmp_path):
    assert segment(photos, "--no-overlay") == 0
    assert not (tmp_path / "out/overlays").exists() and images_of(tmp_path / "out")["a"]["overlay"] is None
    assert segment(photos) == 0 and (tmp_path / "out/overlays/deep/er/c.jpg").is_file()


def test_batches_give_what_single_images_give(segment, photos, tmp_path):
    """Up to rounding of float32: pixels where two classes tie may differ, here at most one in a thousand."""
    assert segment(photos, "--batch-size", 3) == segment(photos, out=tmp_path / "single") == 0
    one, other = (
        {id_: read(tmp_path / out / entry["mask"]) for id_, entry in images_of(tmp_path / out).items()}
        for out in ("out", "single")
    )
    assert all((one[id_] != other[id_]).mean() <= 1e-3 for id_ in IDS)


def test_scales_and_the_mirror_image(segment, photos, predictor, tmp_path):
    assert segment(photos / "a.jpg", "--scales", "1", "0.5", "--flip") == 0
    expected = predictor(photos / "a.jpg", scales=(1.0, 0.5), flip=True)
    np.testing.assert_array_equal(read(tmp_path / "out/masks/a.png"), expected)
    assert (expected != predictor(photos / "a.jpg")).any()


def test_results_inside_the_folder_of_images_are_no_images(segment, tmp_path):
    save(tmp_path / "in" / "a.png", 20, 20)
    assert segment(tmp_path / "in", out=tmp_path / "in" / "out") == 0
    assert segment(tmp_path / "in", out=tmp_path / "in" / "out") == 0
    assert set(images_of(tmp_path / "in" / "out")) == {"a"}


def test_images_can_be_added_to_a_folder_of_results(segment, photos, tmp_path):
    assert segment(photos / "a.jpg") == segment(photos / "deep" / "d.JPG", photos / "a.jpg", photos / "a.jpg") == 0
    assert set(images_of(tmp_path / "out")) == {"a", "d"}


def test_a_package_gives_the_same_masks(segment, photos, checkpoint, tmp_path, capsys):
    assert main(["package", str(checkpoint), "--out", str(tmp_path / "package")]) == segment(photos) == 0
    assert segment(photos, "--checkpoint", tmp_path / "package", out=tmp_path / "other") == 0
    ours, theirs = images_of(tmp_path / "out"), images_of(tmp_path / "other")
    assert ours == theirs
    for entry in ours.values():
        np.testing.assert_array_equal(read(tmp_path / "out" / entry["mask"]), read(tmp_path / "other" / entry["mask"]))


def test_other_ways_to_merge_are_other_settings(segment, photos, checkpoint, tmp_path, capsys):
    """They stand in the run folder, beside the same weights."""
    assert segment(photos) == 0
    record = checkpoint.parent.parent / "provenance.json"
    before = record.read_text()
    content = json.loads(before)
    content["identity"]["model"] = {"init_args": {"inference": {"merge": "max"}}}
    record.write_text(json.dumps(content))
    try:
        assert segment(photos) == 2 and "inference: " in capsys.readouterr().err
    finally:
        record.write_text(before)


# ---------------------------------------------------------------------- windows


def test_a_large_image_goes_through_in_windows(segment, predictor, tmp_path):
    path = save(tmp_path / "large.png", 150, 230)
    assert segment(path, "--window", 64, "--overlap", 16, "--batch-size", 2) == 0
    windows = Windows(64, 16, predictor.multiple)
    expected = sliding_mask(ArraySource(read_image(path)), lambda parts: predictor.masks(parts, 2), windows, 2)
    np.testing.assert_array_equal(read(tmp_path / "out/masks/large.png"), expected)
    assert images_of(tmp_path / "out")["large"]["windows"] == windows.count(150, 230) > 6
    assert (expected != predictor(path)).any()
    # a window as large as the image is no window
    assert segment(path, "--window", 230, out=tmp_path / "whole") == 0
    np.testing.assert_array_equal(read(tmp_path / "whole/masks/large.png"), predictor(path))


def test_without_a_window_only_very_large_images_are_cut(segment, predictor, tmp_path, monkeypatch):
    path = save(tmp_path / "large.png", 60, 80)
    assert segment(path) == 0 and images_of(tmp_path / "out")["large"]["windows"] == 1
    for name, value in (("WHOLE", 60 * 80 - 1), ("WINDOW", 32), ("PREVIEW", 40)):
        monkeypatch.setattr(segment_work, name, value)
    assert segment(path, "--overlap", 8, out=tmp_path / "cut") == 0
    expected = Windows(32, 8, predictor.multiple).count(60, 80)
    assert images_of(tmp_path / "cut")["large"]["windows"] == expected > 4
    assert read(tmp_path / "cut/overlays/large.jpg").shape[1] == 40


@pytest.fixture
def scene(tmp_path):
    """A GeoTIFF."""
    rasterio = pytest.importorskip("rasterio", reason="no rasterio; pip install 'frugalseg[rasters]'")
    path, pixels = tmp_path / "scene.tif", photo(200, 300)
    profile = {"driver": "GTiff", "height": 200, "width": 300, "count": 3, "dtype": "uint8", "photometric": "rgb"}
    profile |= {"tiled": True, "blockxsize": 64, "blockysize": 64, "compress": "deflate"}
    place = rasterio.Affine(0.5, 0, 4e5, 0, -0.5, 5e6)
    with rasterio.open(path, "w", crs="EPSG:32632", transform=place, **profile) as file:
        file.write(pixels.transpose(2, 0, 1))
    return path


CUT = ("--window", 64, "--overlap", 16)


def test_a_tiff_read_by_windows_has_the_mask_of_the_whole_array(segment, scene, predictor, tmp_path, monkeypatch):
    rasterio = pytest.importorskip("rasterio")
    assert segment(scene, *CUT) == 0
    windows = Windows(64, 16, predictor.multiple)
    expected = sliding_mask(ArraySource(read_image(scene)), lambda parts: predictor.masks(parts, 1), windows)
    with rasterio.open(tmp_path / "out/masks/scene.tif") as mask, rasterio.open(scene) as image:
        np.testing.assert_array_equal(mask.read(1), expected)
        assert (mask.crs, mask.transform) == (image.crs, image.transform)
    entry = images_of(tmp_path / "out")["scene"]
    assert sum(area["pixels"] for area in entry["areas"]) == 200 * 300 and entry["windows"] == windows.count(200, 300)
    assert {path.name for path in (tmp_path / "out/masks").iterdir()} == {"scene.tif"}
    # without rasterio the image is decoded whole, its mask is a PNG
    monkeypatch.setattr(windows_raster, "available", lambda: False)
    assert segment(scene, *CUT, out=tmp_path / "plain") == 0
    np.testing.assert_array_equal(read(tmp_path / "plain/masks/scene.png"), expected)


def test_a_tiff_in_one_window_has_the_predictors_own_mask(segment, scene, predictor, tmp_path):
    assert segment(scene) == 0
    np.testing.assert_array_equal(read(tmp_path / "out/masks/scene.tif"), predictor(scene))


def test_a_stopped_large_image_goes_on_where_it_was(segment, scene, tmp_path, monkeypatch):
    assert segment(scene, *CUT, out=tmp_path / "whole") == 0
    seen, genuine = [], SegmentPredictor.masks

    def counting(self, images, batch_size=4):
        seen.append(1)
        if len(seen) == stop_at:
            raise KeyboardInterrupt
        return genuine(self, images, batch_size)

    columns = len(Windows(64, 16, 4).cuts(300))
    monkeypatch.setattr(SegmentPredictor, "masks", counting)
    for number in (columns + 2, 2 * columns + 1, 10**9):
        seen.clear()
        stop_at = number
        code = segment(scene, *CUT)
    assert code == 0 and len(seen) < columns * len(Windows(64, 16, 4).cuts(200)) - columns
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")


def test_a_damaged_tile_leaves_nothing_and_the_rest_is_done(segment, scene, photos, tmp_path, capsys):
    damage_tile(scene, 13)
    assert segment(scene, photos, *CUT) == 2
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 1 and "scene.tif: rows" in said[0]
    assert set(images_of(tmp_path / "out")) == IDS
    assert not list((tmp_path / "out/masks").rglob("*scene*"))
    assert "scene" in json.loads((tmp_path / "out/segment.json").read_text())["failed"]


def test_an_image_that_changes_while_it_is_segmented_is_done_again(segment, tmp_path, monkeypatch):
    path = save(tmp_path / "photos" / "a.png", 40, 56)
    after = save(tmp_path / "later.png", 40, 56, seed=5)
    read = segment_work.read_image

    def replaced(place):
        pixels = read(place)
        after.replace(path)
        return pixels

    with monkeypatch.context() as patch:
        patch.setattr(segment_work, "read_image", replaced)
        assert segment(path.parent) == 0
    old = (tmp_path / "out/masks/a.png").read_bytes()
    assert segment(path.parent) == 0
    assert (tmp_path / "out/masks/a.png").read_bytes() != old


def test_beginning_anew_can_be_stopped_and_takes_no_linked_folder_away(segment, photos, tmp_path, monkeypatch):
    assert segment(photos) == 0
    elsewhere = tmp_path / "elsewhere"
    (tmp_path / "out/overlays").rename(elsewhere)
    (tmp_path / "out/overlays").symlink_to(elsewhere)
    remove = segment_record.shutil.rmtree

    def stopped(place):
        remove(place)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(segment_record.shutil, "rmtree", stopped)
        assert segment(photos, "--overwrite") == 130
    assert segment(photos, "--overwrite") == 0
    assert len(images_of(tmp_path / "out")) == len(IDS)
    assert not (tmp_path / "out/overlays").is_symlink() and len(list(elsewhere.rglob("*.jpg"))) == len(IDS)


def test_what_does_not_fit_into_the_devices_memory(segment, photos, tmp_path, monkeypatch, capsys):
    def full(self, *inputs, **words):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(SegmentPredictor, "masks", full)
    assert segment(photos) == 2
    (line,) = [row for row in capsys.readouterr().err.splitlines() if row.startswith("frugalseg: error:")]
    assert "--batch-size or --window" in line
