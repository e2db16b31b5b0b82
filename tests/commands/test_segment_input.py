"""What `frugalseg segment` is given, and what it refuses: one line each, exit code 2, and nothing written before."""

import fcntl
import json
import os

import numpy as np
import pytest
from PIL import Image

import frugalseg
from frugalseg.cli import main
from frugalseg.commands.segment_inputs import TagTable, find_photos, read_tags
from frugalseg.errors import DatasetError
from tests.checkpoints import pretraining, write_checkpoint
from tests.commands.segmenting import save, write_segmenter
from tests.predictor.nets import make, write


@pytest.fixture(scope="module")
def nets(tmp_path_factory):
    """Checkpoints by kind."""
    root = tmp_path_factory.mktemp("runs")
    kinds = {"seeds": "cti", "few-shot": "dsmf", "patches": "probe-m"}
    return {"segmenter": write_segmenter(root / "segmenter")} | {
        kind: write(root / kind, name, make(name)) for kind, name in kinds.items()
    }


@pytest.fixture
def photos(tmp_path):
    folder = tmp_path / "photos"
    for seed, name in enumerate(("a.png", "deep/b.png")):
        save(folder / name, 48, 64, seed)
    (tmp_path / "empty").mkdir()
    save(tmp_path / "more" / "a.png", 20, 20)
    (tmp_path / "file").touch()
    (tmp_path / "filled").mkdir()
    (tmp_path / "filled" / "thesis.txt").write_text("mine")
    return folder


@pytest.fixture
def run(photos, nets, tmp_path, capsys):
    """Runs the verb on the photos; gives exit code and lines of the error stream."""

    def call(*words, kind="segmenter", images=None, out=None, checkpoint=None):
        places = [photos] if images is None else images
        known = ["--checkpoint", checkpoint or nets[kind], "--out", out or tmp_path / "out"]
        capsys.readouterr()
        code = main(["segment", *map(str, [*places, *known, "--device", "cpu", *words])])
        return code, capsys.readouterr().err.splitlines()

    return call


def refused(found, *parts):
    code, lines = found
    assert code == 2 and len(lines) == 1, lines
    assert lines[0].startswith("frugalseg: error: ") and all(part in lines[0] for part in parts), lines[0]


# ---------------------------------------------------------------------- what is refused

WORDS = {
    "batches of none": (["--batch-size", "0"], "--batch-size 0"),
    "windows of none": (["--window", "0"], "--window 0"),
    "overlap of a window": (["--window", "64", "--overlap", "64"], "--overlap 64"),
    "overlap below 0": (["--overlap", "-1"], "--overlap -1"),
    "overlap of the usual window": (["--overlap", "512"], "--overlap 512"),
    "no scale": (["--scales", "1", "0"], "--scales"),
    "scale that is no number": (["--scales", "nan"], "--scales"),
    "unknown device": (["--device", "abacus"], "abacus"),
    "absent GPU": (["--device", "cuda:99"], "cuda:99"),
    "tags of a segmenter": (["--tags", "cat"], "--tags"),
    "supports of a segmenter": (["--supports", "{photos}/a.png:{photos}/a.png"], "--supports"),
    "supports without a mask": (["--supports", "{photos}/a.png"], "write IMAGE:MASK"),
    "supports that are missing": (["--supports", "{photos}/a.png:nowhere.png"], "nowhere.png"),
    "missing tags": (["--tags", "nowhere.csv"], "nowhere.csv"),
    "out is a file": (["--out", "{root}/file"], "is a file"),
    "out is another's": (["--out", "{root}/filled"], "filled: holds files"),
    "out below a file": (["--out", "{root}/file/out"], "file"),
}


@pytest.mark.parametrize("case", WORDS)
def test_words_that_cannot_be_meant(case, run, photos, tmp_path):
    words, said = WORDS[case]
    refused(run(*(word.format(photos=photos, root=tmp_path) for word in words)), said)
    assert not (tmp_path / "out").exists() and [p.name for p in (tmp_path / "filled").iterdir()] == ["thesis.txt"]


PLACES = {
    "no such image": (["{root}/nowhere.png"], "nowhere.png: no such image"),
    "no images": (["{root}/empty"], "empty: holds no images"),
    "two of one id": (["{photos}", "{root}/more"], "would both be a.png"),
}


@pytest.mark.parametrize("case", PLACES)
def test_images_that_cannot_be_meant(case, run, photos, tmp_path):
    places, said = PLACES[case]
    refused(run(images=[place.format(photos=photos, root=tmp_path) for place in places]), said)
    assert not (tmp_path / "out").exists()


def test_nets_that_give_no_masks(run, tmp_path):
    recipe = {"mean": [0.4, 0.5, 0.6], "std": [0.2, 0.25, 0.3]}
    refused(run(checkpoint=write_checkpoint(tmp_path / "mevt", pretraining(), recipe)), "gives features, but no masks")
    refused(run(checkpoint=tmp_path / "nowhere.ckpt"), "nowhere.ckpt")
    (tmp_path / "torn.ckpt").write_bytes(b"PK\x03\x04 and no more")
    refused(run(checkpoint=tmp_path / "torn.ckpt"), "torn.ckpt")


def test_windows_below_the_sides_that_the_net_takes(run, nets):
    multiple = frugalseg.load(nets["patches"]).multiple
    assert multiple > 8
    refused(run("--window", multiple - 1, "--overlap", 0, kind="patches"), f"--window {multiple - 1}")
    refused(run("--window", 2 * multiple, "--overlap", multiple + 1, kind="patches"), f"at most {multiple}")
    assert run("--window", multiple + 1, "--overlap", 0, kind="patches")[0] == 0


def test_words_of_other_kinds_of_nets(run, photos):
    for kind in ("seeds", "few-shot"):
        refused(run("--window", 32, "--overlap", 8, kind=kind), "--window", kind)
        refused(run("--flip", kind=kind), "--flip")
    refused(run(kind="few-shot"), "needs examples")
    refused(run("--tags", "cat", "--supports", f"{photos}/a.png:{photos}/a.png", kind="few-shot"), "--tags")


def test_images_that_cannot_be_read_are_listed_and_the_others_done(run, photos, tmp_path):
    (photos / "torn.jpg").write_bytes(b"\xff\xd8 and no more")
    (photos / "deep" / "lost.png").symlink_to(tmp_path / "nowhere.png")
    for batch_size in (1, 2):
        out = tmp_path / f"out{batch_size}"
        code, lines = run("--batch-size", batch_size, out=out)
        assert code == 2 and len(lines) == 2 and "torn.jpg" in "".join(lines) and "lost.png" in "".join(lines)
        assert set(json.loads((out / "areas.json").read_text())["images"]) == {"a", "deep/b"}
        record = json.loads((out / "segment.json").read_text())
        assert record["finished"] and set(record["failed"]) == {"torn", "deep/lost"}
    # mended, the same command does the rest
    save(photos / "torn.jpg", 48, 64)
    (photos / "deep" / "lost.png").unlink()
    assert run(out=out)[0] == 0 and (out / "masks/torn.png").is_file()


def test_names_that_are_no_text(run, photos, tmp_path):
    (photos / "a.png").rename(photos / os.fsdecode(b"\xff.png"))
    assert run()[0] == 0 and (tmp_path / "out/masks/\\udcff.png").is_file()
    assert run()[0] == 0
    (photos / os.fsdecode(b"\xff.png")).write_bytes(b"torn")
    code, lines = run()
    assert code == 2 and len(lines) == 1 and "cannot be decoded" in lines[0]


def test_images_above_max_pixels(run, photos):
    """They are not decoded; of what is read by windows it binds the window."""
    code, lines = run("--max-pixels", 48 * 64 - 1)
    assert code == 2 and len(lines) == 2 and all("--max-pixels" in line for line in lines)
    pytest.importorskip("rasterio", reason="no rasterio; pip install 'frugalseg[rasters]'")
    Image.open(photos / "a.png").save(photos / "a.tif")
    tiff = [photos / "a.tif"]
    refused(run("--max-pixels", 48 * 64 - 1, images=tiff), "a.tif: is read in windows", "--max-pixels", "--window")
    assert run("--max-pixels", 40 * 40, "--window", 40, "--overlap", 8, images=tiff, out=photos / "cut")[0] == 0


# ---------------------------------------------------------------------- folders of other runs


def test_masks_of_other_settings_are_kept(run, nets, tmp_path):
    assert run()[0] == 0
    mask = (tmp_path / "out/masks/a.png").read_bytes()
    refused(run("--scales", 0.5), "scales: None -> [0.5]")
    other = write_segmenter(tmp_path / "other")
    with other.open("ab") as file:
        file.write(b"\0")
    refused(run(checkpoint=other), "checkpoint: ")
    assert (tmp_path / "out/masks/a.png").read_bytes() == mask
    (tmp_path / "out/masks/old.png").touch()
    assert run("--scales", 0.5, "--overwrite")[0] == 0
    assert not (tmp_path / "out/masks/old.png").exists() and (tmp_path / "out/masks/a.png").read_bytes() != mask


def test_another_image_does_not_take_the_place_of_one(run, tmp_path):
    assert run()[0] == 0
    refused(run(images=[tmp_path / "more"]), "has a mask a of", "would take its place")


@pytest.mark.parametrize(("file", "content"), [("segment.json", "{"), ("segment.json", "[]"), ("areas.json", "{"),
    ("areas.json", '{"images": []}'), ("areas.json", '{"images": {"a": {}}}'),
    ("areas.json", '{"images": {"a": {"image": "", "mask": "", "overlay": "", "height": 1, "width": 1, "areas": [{}]}}}')])  # fmt: skip
def test_damaged_records(file, content, run, tmp_path):
    assert run()[0] == 0
    (tmp_path / "out" / file).write_text(content)
    refused(run(), file)
    # what cannot be read cannot be known to be ours, and is not removed
    assert run("--overwrite")[0] == (2 if file == "segment.json" else 0)


def test_a_folder_in_which_another_process_works(run, tmp_path):
    (tmp_path / "out").mkdir()
    with (tmp_path / "out/.lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        refused(run(), "another process works there")
        assert [path.name for path in (tmp_path / "out").iterdir()] == [".lock"]
    assert run()[0] == 0 and not (tmp_path / "out/.lock").exists()


def test_what_a_killed_process_had_begun_to_write_is_removed(run, tmp_path):
    begun = tmp_path / "out/masks/deep/.b.png.999999999.tmp"
    begun.parent.mkdir(parents=True)
    begun.touch()
    (tmp_path / "out/.segment.json.999999999.tmp").touch()
    refused(run(), "holds files but no segment.json")  # masks without a record are not ours
    begun.unlink()
    begun.parent.rmdir()
    (tmp_path / "out/masks").rmdir()
    assert run()[0] == 0
    begun.touch()
    assert run()[0] == 0 and not list((tmp_path / "out").rglob(".*"))


def test_a_record_of_another_format(run, tmp_path):
    assert run()[0] == 0
    (tmp_path / "out/segment.json").write_text('{"format": "other"}')
    refused(run(), "is not of format")
    refused(run("--overwrite"), "is not of format")


# ---------------------------------------------------------------------- finding images


def test_links_back_up_and_pipes_do_not_hold_it_up(photos, tmp_path):
    (photos / "deep" / "up").symlink_to(photos)
    os.mkfifo(photos / "pipe.png")
    assert [photo.id for photo in find_photos([photos], tmp_path / "out")] == ["a", "deep/b"]


def test_ids_are_paths_without_suffix_unless_two_would_be_one(tmp_path):
    for name in ("x.png", "x.tif", "y.JPG", "z/x.png"):
        (tmp_path / "in" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "in" / name).touch()
    assert [photo.id for photo in find_photos([tmp_path / "in"], tmp_path)] == ["x.png", "x.tif", "y", "z/x"]


# ---------------------------------------------------------------------- tags and supports


def test_tags_of_a_table(tmp_path, photos):
    table = tmp_path / "tags.csv"
    table.write_text("a,bird; aeroplane\ndeep/b,\n\n")
    found, images = read_tags(str(table)), find_photos([photos], tmp_path)
    assert [found.of(photo) for photo in images] == [("bird", "aeroplane"), ()]
    found.check(images, ["aeroplane", "bird"])
    with pytest.raises(DatasetError, match="bird is no class of this net"):
        found.check(images, ["aeroplane"])
    table.write_text("a,bird\n")
    with pytest.raises(DatasetError, match=r"tags\.csv: has no row for 1 of 2 images, first deep/b"):
        read_tags(str(table)).check(images, ["bird"])
    table.write_text("image,bird,cat\na.png,0,1\ndeep/b.png,1,1\n")
    assert [read_tags(str(table)).of(photo) for photo in images] == [("cat",), ("bird", "cat")]
    assert read_tags("bird, cat").of(images[1]) == ("bird", "cat") and read_tags(None) is None


@pytest.mark.parametrize(
    ("text", "said"),
    [("a,bird,cat\n", "has 3 columns"), ("a\n", "has 1 columns"), ("a,bird\na,cat\n", "occurs twice"),
     ('a,"bird\n', "cannot be read")],
)  # fmt: skip
def test_tables_that_are_wrong(text, said, tmp_path):
    (tmp_path / "tags.csv").write_text(text)
    with pytest.raises(DatasetError, match=said):
        read_tags(str(tmp_path / "tags.csv"))


def test_a_net_without_names_takes_numbers(photos, tmp_path):
    image = find_photos([photos], tmp_path)[0]
    assert TagTable(every=("3", "1")).asked(image, named=False) == [3, 1]
    assert TagTable(every=("3", "1")).asked(image, named=True) == ["3", "1"]
    assert TagTable().asked(image, named=True) is None
    with pytest.raises(DatasetError, match="by number"):
        TagTable(every=("cat",)).asked(image, named=False)


def read(path):
    with Image.open(path) as image:
        return np.asarray(image)


def test_seeds_from_tags(run, nets, photos, tmp_path):
    predictor = frugalseg.load(nets["seeds"])
    first, second = predictor.class_names[1:3]
    (tmp_path / "tags.csv").write_text(f"image,tags\na,{first};{second}\ndeep/b.png,\ndeep/b,{second}\n")
    assert run("--tags", tmp_path / "tags.csv", kind="seeds")[0] == 0
    for name, tags in (("a", [first, second]), ("deep/b", [second])):
        found = read(tmp_path / "out/masks" / f"{name}.png")
        np.testing.assert_array_equal(found, predictor(photos / f"{name}.png", tags=tags))
    assert run("--tags", first, kind="seeds", out=tmp_path / "all")[0] == 0
    np.testing.assert_array_equal(read(tmp_path / "all/masks/a.png"), predictor(photos / "a.png", tags=[first]))
    assert run(kind="seeds", out=tmp_path / "guessed")[0] == 0
    np.testing.assert_array_equal(read(tmp_path / "guessed/masks/a.png"), predictor(photos / "a.png"))
    refused(run("--tags", "unicorn", kind="seeds", out=tmp_path / "new"), "--tags: unicorn is no class")
    assert not (tmp_path / "new").exists()


def test_what_supports_show(run, nets, photos, tmp_path):
    mask = np.zeros((48, 64), np.uint8)
    mask[10:30, 10:40] = 1
    Image.fromarray(mask).save(tmp_path / "mask.png")
    words = ("--supports", f"{photos}/a.png:{tmp_path}/mask.png")
    assert run(*words, kind="few-shot")[0] == 0
    expected = frugalseg.load(nets["few-shot"])(photos / "deep/b.png", supports=[(photos / "a.png", mask)])
    np.testing.assert_array_equal(read(tmp_path / "out/masks/deep/b.png"), expected)
    Image.fromarray(mask * 0).save(tmp_path / "mask.png")
    refused(run(*words, kind="few-shot"), "supports: ")
    refused(run(*words, kind="few-shot", out=tmp_path / "new"), "nothing of what is sought")
