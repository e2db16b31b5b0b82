"""Faults in data sets, met through the command line: one line that names the file and the mend, nothing half-written."""

import tarfile
from io import BytesIO

import numpy as np
import pytest
from PIL import Image

from frugalseg.cli import main
from frugalseg.commands import data_get
from frugalseg.data.sources import Source
from frugalseg.miniature.ade20k import write_ade20k_world
from frugalseg.miniature.coco import write_coco_world
from frugalseg.miniature.isaid import write_isaid_world
from frugalseg.miniature.voc import write_voc_world


def one_line(capsys, words, code=2):
    """The line that a failing command prints."""
    assert main([str(word) for word in words]) == code
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("frugalseg: error: ")]
    assert len(lines) == 1
    assert "Traceback" not in lines[0]
    return lines[0]


def tree(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


def show(module, root, recipe, *extra):
    return ["show", f"--data={module}", f"--data.init_args.root={root}", f"--data.init_args.recipe={recipe}",
            "--data.init_args.num_workers=0", "--data.init_args.batch_size=2", "--count", "2", *extra]  # fmt: skip


@pytest.mark.parametrize(("level", "said"), [("..", "1 folder too high"), ("images", "1 folder too low")])
def test_root_one_folder_too_high_or_too_low(capsys, tmp_path, level, said):
    root = write_ade20k_world(tmp_path / "data" / "ADEChallengeData2016", images_train=2, images_val=1)
    for words in (["data", "check", "ade20k", "--root"], ["data", "stats", "ade20k", "--root"]):
        line = one_line(capsys, [*words, (root / level).resolve()])
        assert said in line
        assert f"{root} looks right" in line


@pytest.fixture
def web(tmp_path, monkeypatch):
    """`data get voc` of one archive that is there already, as if just fetched."""

    def offer(content: bytes, digest=None):
        folder = tmp_path / "root" / "archives"
        folder.mkdir(parents=True)
        (folder / "x.tar").write_bytes(content)
        source = Source("http://127.0.0.1:9/x.tar", "x.tar", digest, len(content))
        monkeypatch.setattr(data_get, "SOURCES", {"voc": (source,)})
        return tmp_path / "root"

    return offer


def archive(*names):
    stream = BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as tar:
        for name in names:
            member = tarfile.TarInfo(name)
            member.size = 3000
            tar.addfile(member, BytesIO(b"x" * 3000))
    return stream.getvalue()


def test_an_unsafe_archive_is_refused_whole(capsys, web, tmp_path):
    root = web(archive("VOCdevkit/a.txt", "../outside.txt"))
    line = one_line(capsys, ["data", "get", "voc", "--root", root])
    assert "x.tar" in line
    assert "../outside.txt" in line
    assert not (tmp_path / "outside.txt").exists()
    assert not (root / "VOCdevkit").exists()


def test_a_half_downloaded_archive(capsys, web):
    root = web(archive("VOCdevkit/a.txt", "VOCdevkit/b.txt")[:5000])
    line = one_line(capsys, ["data", "get", "voc", "--root", root])
    assert f"{root / 'archives/x.tar'}: not a whole archive (unexpected end of data)" in line
    assert "delete it and run the command again to fetch it anew" in line
    assert tree(root) == ["archives", "archives/x.tar"]  # not even the first file, which is whole


def test_a_full_disk_while_preparing(capsys, tmp_path, monkeypatch):
    root = write_coco_world(tmp_path / "coco", images_train=10, images_val=10)
    before = tree(root)

    def full(self, stream, **_):
        stream.write(b"half")
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(Image.Image, "save", full)
        line = one_line(capsys, ["data", "prepare", "coco", "--root", root, "--workers", "1"])
    assert "the disk is full; free some space and run the command again" in line
    assert not [name for name in tree(root) if name not in before and name.endswith((".png", ".tmp"))]
    assert main(["data", "prepare", "coco", "--root", str(root), "--workers", "1"]) == 0  # and it goes on
    assert len(list((root / "SegmentationClass/train2014").glob("*.png"))) == 10


def test_a_label_value_out_of_range(capsys, tmp_path):
    root = write_ade20k_world(tmp_path / "ade", images_train=2, images_val=1)
    mask = root / "annotations/training/ADE_train_00000002.png"
    Image.fromarray(np.full((96, 96), 99, np.uint8)).save(mask)
    line = one_line(capsys, show("ADE20K", root, "Segment", "--out", tmp_path / "a.png"))
    assert f"{mask}: value 99 in 9216 pixels, first at row 0, column 0" in line
    assert not (tmp_path / "a.png").exists()


def test_an_unknown_colour_in_an_isaid_mask(capsys, tmp_path):
    raw = write_isaid_world(tmp_path / "raw", scenes_train=4, scenes_val=4, size=160)
    mask = sorted((raw / "train/Semantic_masks/images").iterdir())[1]
    pixels = np.array(Image.open(mask))
    pixels[3, 5] = 1, 2, 3
    Image.fromarray(pixels).save(mask)
    words = ["data", "prepare", "isaid5i", "--raw", raw, "--root", tmp_path / "tiles", "--tile", "96", "--step", "77"]
    line = one_line(capsys, [*words, "--workers", "1"])
    assert f"{mask}: colour (1, 2, 3) (RGB) at row 3, column 5" in line
    stem = mask.name.split("_")[0]
    assert not list((tmp_path / "tiles").rglob(f"{stem}_*"))  # nothing of that scene
    assert not list((tmp_path / "tiles").rglob("*.tmp"))


def test_labels_of_another_data_set(capsys, tmp_path):
    """The label array that goes about for CTI's COCO experiments is VOC's: 12,031 rows of 20 classes."""
    root = write_coco_world(tmp_path / "coco", images_train=10, images_val=10)
    trap = tmp_path / "cls_labels.npz"
    np.savez(trap, ids=np.array(["2007_000032", "2007_000039"]), labels=np.zeros((2, 20), np.uint8))
    words = show("COCO", root, "Tags", f"--data.init_args.tags={trap}", "--data.init_args.recipe.init_args.crop=32")
    line = one_line(capsys, words)
    assert str(trap) in line
    assert "another data set's labels" in line
    pickled = tmp_path / "cls_labels.npy"
    np.save(pickled, {"2007_000032": np.zeros(20)}, allow_pickle=True)
    line = one_line(capsys, show("COCO", root, "Tags", f"--data.init_args.tags={pickled}"))
    assert "is a pickle" in line


def test_a_list_of_another_data_set(capsys, tmp_path):
    root = write_voc_world(tmp_path / "voc", images_train=6, images_val=3)
    (root / "ImageSets/Segmentation/train.txt").write_text("COCO_train2014_000000000009\nCOCO_train2014_000000000025\n")
    line = one_line(capsys, show("VOC", root, "Tags"))
    assert "2 of the 2 images of split train are missing, first COCO_train2014_000000000009" in line


def test_all_zero_tags(capsys, tmp_path):
    root = write_coco_world(tmp_path / "coco", images_train=10, images_val=10)
    crop = "--data.init_args.recipe.init_args.crop=32"
    line = one_line(capsys, show("COCO", root, "Tags", "--data.init_args.train_split=train_all", crop))
    assert "2 of 10 images show no class at all, first COCO_train2014_" in line
    assert "recipe.allow_empty" in line
    accepted = show("COCO", root, "Tags", "--data.init_args.train_split=train_all", crop, "--out", tmp_path / "a.png",
                    "--data.init_args.recipe.init_args.allow_empty=true")  # fmt: skip
    assert main([str(word) for word in accepted]) == 0


def test_a_damaged_instances_json(capsys, tmp_path):
    root = write_coco_world(tmp_path / "coco", images_train=10, images_val=10)
    source = root / "annotations/instances_train2014.json"
    whole = source.read_text()
    source.write_text(whole[:5000])
    before = tree(root)
    for words in (show("COCO", root, "Tags"), ["data", "prepare", "coco", "--root", root, "--workers", "1"]):
        assert f"{source}: is not JSON (" in (line := one_line(capsys, words))
        assert "unpack the archive again" in line
    assert [name for name in tree(root) if name not in before and "train2014" in name] == []  # neither masks nor cache
    source.write_text(whole)
    assert main([str(word) for word in show("COCO", root, "Tags", "--out", tmp_path / "a.png")]) == 0
