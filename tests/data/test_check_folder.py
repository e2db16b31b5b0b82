"""`frugalseg data check folder`: what is wrong is counted, named and mended in one line."""

import shutil

import numpy as np
import pytest
from PIL import Image

from frugalseg.cli import main
from frugalseg.data.check_folder import check_folder
from frugalseg.errors import DatasetNotFoundError
from tests.data.image_folder import cut_off, write_image
from tests.data.user_folder import names_of, write_all, write_photos, write_tags


@pytest.fixture
def root(tmp_path):
    return write_all(tmp_path / "photos", 24)


def lines(root, quick=False):
    return [f"{finding.level} {finding.what}" for finding in check_folder(root, quick)]


def one(found, part):
    matching = [line for line in found if part in line]
    assert len(matching) == 1, (part, found)
    assert "\n" not in matching[0]
    return matching[0]


def test_a_good_folder_has_nothing_to_mend(root):
    found = lines(root)
    assert not [line for line in found if line.startswith("error")]
    assert "23 .jpg" in one(found, "24 images in")
    assert one(found, "can be decoded").startswith("ok 24 of 24")
    assert one(found, "ids of").startswith("ok masks: mode, size and ids of 24 of 24")
    assert one(found, "suffix in upper case").startswith("ok 1 ")
    assert {line.split(":")[0] for line in found} >= {"ok train", "ok val"}


def test_broken_images_are_counted_and_five_named(root):
    for name in names_of(24)[2:20:3]:
        path = root / "images" / name
        path.write_bytes(path.read_bytes()[:-60])
    line = one(lines(root), "can be decoded")
    assert line.startswith("error 18 of 24") and line.count("p0") == 6  # the first once more, with the reason
    assert "cannot be decoded" in line
    # the headers are right
    assert one(lines(root, quick=True), "can be opened").startswith("ok 24 of 24")


@pytest.mark.parametrize("quick", [False, True])
def test_masks_of_a_wrong_size(root, quick):
    Image.fromarray(np.zeros((48, 40), np.uint8)).save(root / "masks/p002.png")
    line = one(lines(root, quick), "of 24 are right")
    assert line.startswith("error masks") and "23 of 24" in line and "not p002" in line and "48x40" in line


def test_masks_with_unknown_ids(root):
    Image.fromarray(np.full((40, 48), 7, np.uint8)).save(root / "masks/p004.png")
    assert "class id 7 in 1920 pixels" in one(lines(root), "of 24 are right")


def test_images_that_are_not_what_they_seem(root):
    photos = root / "images"
    Image.open(photos / "p002.jpg").convert("CMYK").save(photos / "p002.jpg")
    Image.fromarray(np.zeros((40, 48), np.uint16)).save(photos / "deep.png")
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.open(photos / "p004.jpg").save(photos / "p004.jpg", exif=exif)
    Image.open(photos / "p006.jpg").convert("RGBA").save(photos / "clear.png")
    write_image(photos / "small.png", 20, 90)
    found = lines(root)
    for part, name in (
        ("CMYK", "p002"),
        ("than 8 bits", "deep"),
        ("EXIF", "p004"),
        ("transparent", "clear"),
        ("32", "small"),
    ):
        line = one(found, f" {part}" if part != "32" else "below 32 pixels")
        assert line.startswith("warn 1 images") and line.endswith(f"first {name}"), line


def test_deep_colours_are_found_though_pillow_says_rgb(root, tmp_path):
    import cv2

    deep = np.random.default_rng(0).integers(0, 1 << 16, (40, 48, 3)).astype(np.uint16)
    for name in ("a.png", "b.tif"):
        assert cv2.imwrite(str(root / "images" / name), deep)
    assert one(lines(root), "than 8 bits").startswith("warn 2 images")


def test_copies_and_leaks(root):
    photos = root / "images"
    (root / "splits").mkdir()
    (root / "splits/val.txt").write_text("p002\ncopy\n")
    shutil.copy(photos / "p004.jpg", photos / "copy.jpg")
    shutil.copy(photos / "p006.jpg", photos / "again.jpg")
    found = lines(root)
    assert one(found, "are copies of others").startswith("warn 2 images")
    assert one(found, "in train and in val").startswith("error 1 images") and "copy = p004" in one(
        found, "in train and"
    )
    assert one(found, "copies with other tags").startswith("warn 2 ")  # a copy without a row teaches otherwise
    assert not [line for line in lines(root, quick=True) if "are copies" in line]


def test_tags_rare_classes_and_the_long_tail(tmp_path):
    names = write_photos(tmp_path, 24)
    rows = dict.fromkeys(names[:20], "cat") | {names[20]: "dog", names[21]: ""}
    write_tags(tmp_path, rows)
    found = lines(tmp_path)
    assert one(found, "images per class").endswith("cat 20, dog 1")
    assert "20 times" in one(found, "long tail")
    assert one(found, "less than 10 images").startswith("warn 1 classes")
    assert one(found, "have no row").startswith("warn 2 of 24 images")
    assert one(found, "show no class").startswith("ok 1 images")
    assert "write classes.txt" in one(found, "classes: 2")


def test_wrong_tags_are_a_finding_and_the_rest_is_checked(root):
    write_tags(root, {"gone.jpg": "cat"})
    cut_off(root / "images/p002.jpg")
    found = lines(root)
    assert one(found, "images that are not there").startswith("error")
    assert one(found, "can be decoded").startswith("error 23 of 24")


def test_masks_and_tags_that_disagree(root):
    write_tags(root, {"p002.jpg": "cat", **dict.fromkeys(names_of(24)[3:8], "dog")})
    found = lines(root)
    assert one(found, "lack a class that their image is tagged with").startswith("warn")
    assert one(found, "that their image is not tagged with").startswith("warn")


def test_masks_that_are_none(root):
    shutil.copy(root / "masks/p002.png", root / "masks/nobody.png")
    Image.fromarray(np.zeros((40, 48), np.uint8)).save(root / "masks/p002.jpg")
    found = lines(root)
    assert one(found, "belong to no image").startswith("warn 1 masks")
    assert "save masks as PNG" in one(found, "JPEG or WebP")


def test_photos_alone_are_no_fault(tmp_path):
    write_photos(tmp_path, 4)
    found = lines(tmp_path)
    assert one(found, "to learn from tags").startswith("warn") and one(found, "scores need masks").startswith("ok")
    assert not [line for line in found if line.startswith("error")]


def test_absent_classes_and_ignored_pixels(root):
    for name in names_of(24):
        Image.fromarray(np.full((40, 48), 255, np.uint8)).save((root / "masks" / name).with_suffix(".png"))
    found = lines(root)
    assert "5 classes have no pixel" in one(found, "no pixel")
    assert "100.00% of the pixels are ignored" in one(found, "ignored (255)")


def test_a_missing_root_is_an_error(tmp_path):
    with pytest.raises(DatasetNotFoundError):
        check_folder(tmp_path / "none")


def test_the_verb_ends_with_0_1_or_2(root, tmp_path, capsys):
    check = ["data", "check", "folder", "--root"]
    assert main([*check, str(root)]) == 0
    assert "24 images in" in capsys.readouterr().out
    (root / "images/p002.jpg").write_text("no image")
    assert main([*check, str(root)]) == 1
    assert "not an image" in capsys.readouterr().out
    for wrong in (tmp_path / "none", tmp_path / "empty"):
        (tmp_path / "empty").mkdir(exist_ok=True)
        assert main([*check, str(wrong)]) == 2
        said = capsys.readouterr().err
        assert said.count("\n") == 1 and str(wrong) in said


def test_statistics_and_preparation_by_the_verb(root, tmp_path, capsys):
    assert (
        main(["data", "stats", "folder", "--root", str(root), "--out", str(tmp_path / "stats"), "--workers", "1"]) == 0
    )
    assert (tmp_path / "stats/folder-train.csv").is_file()
    (root / "tags.csv").unlink()
    assert main(["data", "prepare", "folder", "--root", str(root), "--workers", "1"]) == 0
    assert "24 rows written" in capsys.readouterr().out
    assert main(["data", "prepare", "folder", "--root", str(root), "--pixels", "0"]) == 2


def test_the_folder_is_shown(root, tmp_path, capsys):
    words = {"root": root, "recipe": "Segment", "recipe.init_args.crop": 32, "batch_size": 4, "num_workers": 0}
    flags = [f"--data.init_args.{key}={value}" for key, value in words.items()]
    assert main(["show", "--data=Folder", *flags, "--count", "4", "--out", str(tmp_path / "show.png")]) == 0
    assert "4 images of Folder, train" in capsys.readouterr().out and (tmp_path / "show.png").is_file()
