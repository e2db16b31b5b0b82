import json
import os
import resource
import signal
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from frugalseg.data import tiles, tiling
from frugalseg.data.isaid5i import COLOURS, index, pairs
from frugalseg.data.tiling import Cut, tile_boxes, tile_dataset, tile_scene
from frugalseg.errors import ConfigError, DatasetError, DatasetNotFoundError, ImageError, MaskError
from tests.conftest import REAL, hear_ctrl_c
from tests.data.conftest import picture

SMALL = {"tile": 32, "step": 24}


def write_scene(folder, name, ids, masks="images", seed=0):
    for place in ("images", masks):
        (folder / place).mkdir(parents=True, exist_ok=True)
    Image.fromarray(picture(*ids.shape, seed)).save(folder / f"images/{name}.png")
    Image.fromarray(COLOURS[ids]).save(folder / masks / f"{name}_instance_color_RGB.png")


def blobs(height, width, seed, classes=16):
    """Ids in blocks of 20 pixels; about half are background."""
    rng = np.random.default_rng(seed)
    ids = rng.integers(0, classes, (height // 20 + 1, width // 20 + 1)) * rng.integers(
        0, 2, (height // 20 + 1, width // 20 + 1)
    )
    return np.kron(ids, np.ones((20, 20), int))[:height, :width].astype(np.uint8)


@pytest.fixture
def raw(tmp_path):
    for number in range(4):
        write_scene(tmp_path / "raw/train", f"P{number:04}", blobs(90 + number, 70, number), seed=number)
    write_scene(tmp_path / "raw/val", "P0009", blobs(60, 100, 9), masks="Semantic_masks/images")
    return tmp_path / "raw"


def contents(root):
    """Every file below a folder; the times of writing left out."""
    return {str(p.relative_to(root)): p.read_bytes() for p in sorted(root.rglob("*")) if p.is_file()}


def test_boxes_of_the_real_scenes():
    boxes = tile_boxes(1023, 1147)
    assert sorted({y0 for y0, *_ in boxes}) == [0, 206, 412, 618, 767]
    assert sorted({x0 for *_, x0, _ in boxes}) == [0, 206, 412, 618, 824, 891]
    assert len(boxes) == len(set(boxes)) == 30
    assert boxes[1] == (0, 256, 206, 462)  # y before x, row by row


@pytest.mark.parametrize("side", [1, 255, 256, 257, 461, 462, 463, 668, 1000])
def test_boxes_cover_every_pixel_and_none_twice_at_the_border(side):
    boxes = tile_boxes(side, 256)
    assert len(boxes) == len(set(boxes))
    covered = np.zeros(max(side, 256), int)
    for y0, y1, x0, x1 in boxes:
        assert (y1 - y0, x0, x1) == (256, 0, 256)
        covered[y0:y1] += 1
    assert covered.min() >= 1
    assert boxes[-1][1] == max(side, 256)


@pytest.mark.parametrize("pixels", [6553, 6554])
def test_a_tile_needs_more_than_a_tenth_of_foreground(tmp_path, pixels):
    ids = np.zeros((256, 256), np.uint8)
    ids.flat[:pixels] = 4
    write_scene(tmp_path, "P1", ids)
    kept = tile_scene(tmp_path / "images/P1.png", tmp_path / "images/P1_instance_color_RGB.png", tmp_path / "out")
    assert kept == ({"P1_0_256_0_256": {4: 6554}} if pixels == 6554 else {})
    assert (tmp_path / "out").exists() == (pixels == 6554)


def test_tiles_are_the_scene_at_their_place(raw, tmp_path):
    counts = tile_dataset(raw, tmp_path / "out", workers=1, **SMALL)
    assert counts == {split: len(list((tmp_path / "out" / split / "images").iterdir())) for split in ("train", "val")}
    for name in ("P0000", "P0003"):
        scene = np.asarray(Image.open(raw / f"train/images/{name}.png"))
        ids = blobs(*scene.shape[:2], int(name[1:]))
        for y0, y1, x0, x1 in tile_boxes(*ids.shape, **SMALL):
            tile = tmp_path / f"out/train/images/{name}_{y0}_{y1}_{x0}_{x1}.png"
            label = tmp_path / f"out/train/semantic_png/{tile.stem}_instance_color_RGB.png"
            wanted = (ids[y0:y1, x0:x1] > 0).sum() > 102.4
            assert tile.exists() == label.exists() == wanted
            if wanted:
                assert np.array_equal(Image.open(tile), scene[y0:y1, x0:x1])
                assert np.array_equal(Image.open(label), ids[y0:y1, x0:x1])
                assert (Image.open(tile).mode, Image.open(label).mode) == ("RGB", "L")


def test_small_scenes_are_filled_up(tmp_path):
    write_scene(tmp_path, "P1", np.full((20, 50), 7, np.uint8))
    kept = tile_scene(
        tmp_path / "images/P1.png", tmp_path / "images/P1_instance_color_RGB.png", tmp_path / "out", Cut(32, 24, 0.5)
    )
    assert kept == {"P1_0_32_0_32": {7: 640}, "P1_0_32_18_50": {7: 640}}
    label = np.asarray(Image.open(tmp_path / "out/semantic_png/P1_0_32_0_32_instance_color_RGB.png"))
    assert (label[:20] == 7).all()
    assert (label[20:] == 255).all()
    assert not np.asarray(Image.open(tmp_path / "out/images/P1_0_32_0_32.png"))[20:].any()


def test_unknown_colour_is_named_with_its_place_in_the_scene(tmp_path):
    write_scene(tmp_path, "P1", blobs(1100, 64, 0))
    mask = tmp_path / "images/P1_instance_color_RGB.png"
    colours = np.array(Image.open(mask))
    colours[1030, 5] = 1, 2, 3
    Image.fromarray(colours).save(mask)
    with pytest.raises(MaskError, match=r"P1_instance_color_RGB.png: colour \(1, 2, 3\) .* row 1030, column 5"):
        tile_scene(tmp_path / "images/P1.png", mask, tmp_path / "out")
    Image.fromarray(COLOURS[blobs(90, 64, 0)]).save(mask)
    with pytest.raises(MaskError, match=r"is 90x64.*1100x64"):
        tile_scene(tmp_path / "images/P1.png", mask, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_finished_scenes_are_skipped(raw, tmp_path, monkeypatch):
    out = tmp_path / "out"
    counts = tile_dataset(raw, out, workers=1, **SMALL)
    before = contents(out)
    cut, seen = [], []
    real = tiling.tile_scene
    monkeypatch.setattr(tiling, "tile_scene", lambda image, *rest: cut.append(image.stem) or real(image, *rest))
    assert tile_dataset(raw, out, workers=1, progress=lambda *p: seen.append(p), **SMALL) == counts
    assert (cut, seen) == ([], [(5, 5)])
    next((out / "train/images").glob("P0002_*")).unlink()  # a tile is gone
    (out / "train/.tiled/P0001.json").unlink()  # killed before the record
    (out / "train/images/.P0001.png.4999999.tmp").write_bytes(b"half")
    tile_dataset(raw, out, workers=1, **SMALL)
    assert sorted(cut) == ["P0001", "P0002"]
    assert contents(out) == before
    write_scene(raw / "train", "P0003", blobs(93, 70, 77), seed=78)  # the source was replaced
    tile_dataset(raw, out, workers=1, **SMALL)
    assert cut[2:] == ["P0003"]


def test_other_settings_and_foreign_files_are_refused(raw, tmp_path):
    tile_dataset(raw, tmp_path / "out", workers=1, **SMALL)
    with pytest.raises(DatasetError, match=r"holds tiles cut with .*'step': 24.* not .*'step': 32") as caught:
        tile_dataset(raw, tmp_path / "out", tile=32, step=32, workers=1)
    assert "\n" not in str(caught.value)
    with pytest.raises(DatasetError, match="holds files that no tiling made"):
        tile_dataset(raw, raw, workers=1)
    with pytest.raises(ConfigError, match="step"):
        tile_dataset(raw, tmp_path / "out2", tile=32, step=33)
    with pytest.raises(DatasetNotFoundError, match="train/images"):
        tile_dataset(tmp_path / "nothing", tmp_path / "out2")


def test_a_bad_scene_stops_no_other(raw, tmp_path):
    (raw / "train/images/P0001.png").write_bytes(b"no png")
    (raw / "val/images/P0009.png").write_bytes(b"no png")
    with pytest.raises(DatasetError, match=r"P0001.png: cannot be opened .*1 more scenes failed") as caught:
        tile_dataset(raw, tmp_path / "out", workers=1, **SMALL)
    assert "\n" not in str(caught.value)
    assert {p.stem for p in (tmp_path / "out/train/.tiled").iterdir()} == {"P0000", "P0002", "P0003", "settings"}
    (raw / "train/images/P0002_instance_color_RGB.png").unlink()
    with pytest.raises(DatasetError, match=r"1 of 4 scenes have no mask .* first P0002"):
        tile_dataset(raw, tmp_path / "out", workers=1, **SMALL)


def test_full_disk(raw, tmp_path):
    """A limit on the size of files is as near to a full disk as a test comes: a file's first bytes are written."""
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (900, limit[1]))
    try:
        with pytest.raises(DatasetError, match=r"out: cannot be written to .*run the same command again") as caught:
            tile_dataset(raw, tmp_path / "out", workers=1, **SMALL)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
    assert "\n" not in str(caught.value)
    assert not list((tmp_path / "out").rglob("*.tmp"))
    for path in (tmp_path / "out").rglob("*.png"):
        Image.open(path).load()
    tile_dataset(raw, tmp_path / "out", workers=1, **SMALL)
    tile_dataset(raw, tmp_path / "whole", workers=1, **SMALL)
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")


def test_ctrl_c_and_continuing(raw, tmp_path, monkeypatch):
    real, calls = tiles.write_atomic, []

    def interrupted(path, writer):
        calls.append(path)
        real(path, writer if len(calls) != 8 else press)

    def press(stream):
        stream.write(b"half")
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(tiles, "write_atomic", interrupted)
        tile_dataset(raw, tmp_path / "out", workers=1, **SMALL)
    left = contents(tmp_path / "out")
    assert not [name for name in left if name.endswith(".tmp")]
    assert sum(name.endswith(".png") for name in left) == 7
    tile_dataset(raw, tmp_path / "out", workers=1, **SMALL)
    tile_dataset(raw, tmp_path / "whole", workers=1, **SMALL)
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")


@pytest.mark.slow
def test_ctrl_c_and_continuing_with_processes(tmp_path):
    raw, out = tmp_path / "raw", tmp_path / "out"
    for number in range(30):
        write_scene(raw / "train", f"P{number:04}", blobs(400, 400, number), seed=number)
    code = f"from frugalseg.data.tiling import tile_dataset as t; t({str(raw)!r}, {str(out)!r}, workers=2, progress=lambda *p: print(*p, flush=True))"
    run = subprocess.Popen(
        [sys.executable, "-c", code],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        preexec_fn=hear_ctrl_c,
    )
    assert run.stdout.readline() == "1 30\n"
    os.killpg(run.pid, signal.SIGINT)
    _, errors = run.communicate(timeout=120)
    assert errors.strip().endswith("KeyboardInterrupt")
    assert errors.count("Traceback") == 1  # the workers end quietly
    finished = len(list((out / "train/.tiled").glob("P*.json")))
    assert 1 <= finished < 30
    assert not list(out.rglob("*.tmp"))
    for record in (out / "train/.tiled").glob("P*.json"):
        assert all((out / f"train/images/{stem}.png").is_file() for stem in json.loads(record.read_text())["tiles"])
    seen = []
    tile_dataset(raw, out, workers=1, progress=lambda *p: seen.append(p))
    assert seen == [(done, 30) for done in range(finished, 31)]
    tile_dataset(raw, tmp_path / "whole", workers=1)
    assert contents(out) == contents(tmp_path / "whole")


def test_lists_of_pairs(raw, tmp_path):
    out = tmp_path / "out"
    tile_dataset(raw, out, workers=1, lists=True, min_pixels=200, **SMALL)
    samples = {sample.id: sample for sample in index(out, "train")}
    found = [pair for fold in range(3) for pair in pairs(out, "train", fold, novel=True)]
    wanted = [
        (path.stem.removesuffix("_instance_color_RGB"), class_id)
        for path in (out / "train/semantic_png").iterdir()
        for class_id in range(1, 16)
        if (np.asarray(Image.open(path)) == class_id).sum() >= 200
    ]
    assert len(wanted) > 20
    assert sorted(found) == sorted(wanted)
    assert set(samples) == {name for name, _ in wanted}
    assert (out / "val/val_list/split0_val.txt").read_text().startswith("P0009_")
    tile_dataset(raw, tmp_path / "scaled", workers=1, lists=True, **SMALL)  # 1024 * 32**2 / 256**2 = 16 pixels
    lines = sum(len(p.read_text().split()) for p in (tmp_path / "scaled").glob("train/train_list/*"))
    masks = [np.asarray(Image.open(p)) for p in (tmp_path / "scaled/train/semantic_png").iterdir()]
    assert lines == sum(((mask == c).sum() >= 16) for mask in masks for c in range(1, 16))


@pytest.mark.real
@pytest.mark.parametrize(("split", "scene", "tiles"), [("train", "P0005", 18), ("val", "P0003", 5)])
def test_official_tiles_come_out_bit_for_bit(tmp_path, split, scene, tiles):
    if not (REAL / "iSAID_raw").is_dir():
        pytest.skip(f"no genuine iSAID samples at {REAL}; set FRUGALSEG_REAL_DATA")
    images = REAL / "iSAID_raw" / split / "images"
    kept = tile_scene(images / f"{scene}.png", images / f"{scene}_instance_color_RGB.png", tmp_path)
    assert len(kept) == tiles
    for folder in ("images", "semantic_png"):
        official = sorted((REAL / "iSAID_patches" / split / folder).glob(f"{scene}_*"))
        assert [path.name for path in official] == sorted(path.name for path in (tmp_path / folder).iterdir())
        for path in official:
            theirs, ours = Image.open(path), Image.open(tmp_path / folder / path.name)
            assert theirs.mode == ours.mode
            assert np.array_equal(theirs, ours), path.name


def test_unreadable_image_is_one_line(tmp_path):
    write_scene(tmp_path, "P1", np.ones((40, 40), np.uint8))
    data = (tmp_path / "images/P1.png").read_bytes()
    (tmp_path / "images/P1.png").write_bytes(data[: len(data) // 2])
    with pytest.raises(ImageError, match=r"P1.png: cannot be decoded"):
        tile_scene(
            tmp_path / "images/P1.png", tmp_path / "images/P1_instance_color_RGB.png", tmp_path / "o", Cut(32, 24)
        )
