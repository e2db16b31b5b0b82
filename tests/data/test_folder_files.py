"""Finding images and masks of a user's folder, its tags, classes and splits: every form, every fault."""

import os

import numpy as np
import pytest
from PIL import Image

from frugalseg.data.folder_classes import classes_of, read_classes
from frugalseg.data.folder_files import files_digest, find_files, find_layout, ids_of, names_in
from frugalseg.data.folder_index import Index, read_words
from frugalseg.data.folder_splits import draw
from frugalseg.data.folder_tags import read_tag_table
from frugalseg.data.io import read_mask
from frugalseg.errors import DatasetError, DatasetNotFoundError, MaskError
from frugalseg.ops.palette import voc_palette
from tests.data.image_folder import write_image
from tests.data.user_folder import (
    CLASSES,
    PALETTE,
    names_of,
    shown,
    write_all,
    write_classes,
    write_masks,
    write_photos,
    write_tags,
)  # fmt: skip
from tests.data.user_folder import (
    ids_of as mask_of,
)


def index_of(root, **parts):
    layout = find_layout(root, **parts)
    return Index(layout, *read_words(layout))


def said(path, text, read):
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(DatasetError) as error:
        read(path)
    message = str(error.value)
    assert message.startswith(str(path)) and "\n" not in message
    return message


# ---------------------------------------------------------------------- images and masks


def test_images_at_any_depth_have_ids_without_slashes(tmp_path):
    names = write_photos(tmp_path)
    write_image(tmp_path / "images/.hidden.png")
    (tmp_path / "images/readme.txt").write_text("not looked at")
    found = find_files(find_layout(tmp_path))
    assert found.names == sorted(names)
    assert set(found.ids) == {name[:-4].replace("/", "__") for name in names}
    assert found.masks == [None] * 16 and found.alone == []


def test_the_root_itself_may_hold_the_images(tmp_path):
    names = write_photos(tmp_path, 4, ".")
    write_masks(tmp_path, 4)
    write_image(tmp_path / "splits/no.png")
    found = find_files(find_layout(tmp_path))
    assert found.names == sorted(names) and all(found.masks)
    # an own name of the folder of masks is left out too
    (tmp_path / "masks").rename(tmp_path / "labels")
    assert find_files(find_layout(tmp_path, mask_dir="labels")).names == sorted(names)
    assert len(find_files(find_layout(tmp_path)).names) == 8


@pytest.mark.parametrize(("images", "masks"), [(".", "labels/ids"), ("images", "images/masks")])
def test_masks_at_any_depth_below_the_images_are_no_images(tmp_path, images, masks):
    names = write_photos(tmp_path, 4, images)
    write_masks(tmp_path, 4)
    (tmp_path / masks).parent.mkdir(exist_ok=True)
    (tmp_path / "masks").rename(tmp_path / masks)
    found = find_files(find_layout(tmp_path, mask_dir=masks))
    assert found.names == sorted(names) and all(found.masks) and found.alone == []


def test_masks_have_the_path_of_their_image(tmp_path):
    write_photos(tmp_path)
    write_masks(tmp_path, 5)
    Image.fromarray(mask_of(9)).save(tmp_path / "masks/other.png")
    found = find_files(find_layout(tmp_path))
    pairs = {name: mask for name, mask in zip(found.names, found.masks, strict=True) if mask}
    assert pairs == {name: name[:-4] + ".png" for name in names_of(5)}
    assert found.alone == ["other.png"]


def test_masks_of_other_names_are_refused(tmp_path):
    write_photos(tmp_path, 2)
    Image.fromarray(mask_of(0)).save((tmp_path / "masks").mkdir() or tmp_path / "masks/p000_mask.png")
    with pytest.raises(DatasetError, match=r"none of its 1 masks is named as an image .* p000_mask\.png"):
        find_files(find_layout(tmp_path))


@pytest.mark.parametrize("names", [("a.jpg", "a.png"), ("x/b.jpg", "x__b.jpg"), ("c.JPG", "c.jpg")])
def test_two_images_never_share_an_id(names):
    with pytest.raises(DatasetError, match="would share the id"):
        ids_of(sorted(names))


def test_two_masks_of_one_image_are_refused(tmp_path):
    write_photos(tmp_path, 1)
    write_masks(tmp_path, 1)
    Image.fromarray(mask_of(0)).save(tmp_path / "masks/p000.bmp")
    with pytest.raises(DatasetError, match=r"p000\.bmp and p000\.png are of one image"):
        find_files(find_layout(tmp_path))


def test_links_that_lead_back_end(tmp_path):
    write_photos(tmp_path, 4)
    (tmp_path / "images/trip/back").symlink_to(tmp_path / "images")
    (tmp_path / "images/again").symlink_to(tmp_path / "images/trip")
    assert names_in(tmp_path / "images", {".jpg"}) == sorted(names_of(4))


@pytest.mark.parametrize(
    ("parts", "match"),
    [
        ({"image_dir": "photos"}, r"photos: no such folder; mend data\.image_dir"),
        ({"image_dir": "../other"}, "is outside of"),
        ({"mask_dir": "labels"}, r"labels: no such folder; mend data\.mask_dir"),
        ({"tags_file": "mine.csv"}, r"mine\.csv: no such file; mend data\.tags_file"),
        ({"classes_file": "names.txt"}, r"names\.txt: no such file; mend data\.classes_file"),
    ],
)
def test_what_a_setting_names_must_be_there(tmp_path, parts, match):
    write_photos(tmp_path / "mine", 1)
    (tmp_path / "other").mkdir()
    with pytest.raises(DatasetNotFoundError, match=match):
        find_layout(tmp_path / "mine", **parts)


def test_a_missing_or_empty_root(tmp_path):
    with pytest.raises(DatasetNotFoundError, match=r"is not a folder; set data\.root"):
        find_layout(tmp_path / "none")
    with pytest.raises(DatasetError, match="holds no images"):
        find_files(find_layout(tmp_path))


def test_settings_may_leave_parts_out(tmp_path):
    write_all(tmp_path)
    layout = find_layout(tmp_path, mask_dir="", tags_file="", classes_file="")
    assert (layout.masks, layout.tags, layout.classes) == (None, None, None)


def test_the_digest_changes_with_what_is_learned_and_not_with_times(tmp_path):
    write_all(tmp_path)
    first = files_digest(find_layout(tmp_path))
    for path in tmp_path.rglob("*.*"):
        os.utime(path, (1, 1))
    (tmp_path / "notes.txt").write_text("of no matter")
    assert files_digest(find_layout(tmp_path)) == first
    seen = {first}
    for name, content in (
        ("tags.csv", "image,tags\np002.jpg,cat\n"),
        ("classes.txt", "cat\ndog\n"),
        ("masks/p002.png", "x"),
    ):
        (tmp_path / name).write_text(content)
        seen.add(files_digest(find_layout(tmp_path)))
    (tmp_path / "images/p002.jpg").unlink()
    assert len(seen | {files_digest(find_layout(tmp_path))}) == 5


# ---------------------------------------------------------------------- tags


@pytest.mark.parametrize(
    "text",
    [
        "image,tags\na.jpg,cat;dog\nsub/b.png,\n",
        "image,tags\na.jpg,dog|cat\nsub/b.png,\n",
        'image,tags\r\n"a.jpg","dog, cat"\r\n\r\nsub/b.png,""\r\n',
        "image,tags\na.jpg,cat,dog\nsub/b.png,\n",
        "\ufeffFile;Labels\na.jpg;cat,dog\nsub\\b.png;\n",
        "path\tclasses\na.jpg\tcat;dog;cat\n./sub/b.png\t\n",
        "id,cat,dog\na.jpg,1,1\nsub/b.png,0,0\n",
        "image;dog;cat\na.jpg;1;1\nsub/b.png;0;0\n",
    ],
)
def test_forms_of_tags(tmp_path, text):
    (tmp_path / "tags.csv").write_bytes(text.encode())
    table = read_tag_table(tmp_path / "tags.csv")
    assert table.rows == {"a.jpg": ("cat", "dog"), "sub/b.png": ()} and table.tags == {"cat", "dog"}


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("", "has no header: its first line is ''"),
        ("a.jpg,cat\nb.jpg,dog\n", r"has no header: its first line is 'a.jpg,cat'"),
        ("image\na.jpg\n", "has no header"),
        ("image,tags\na.jpg,cat\na.jpg,dog\n", r"line 3 is about 'a.jpg' again"),
        ("image,tags\na.jpg\n", r"line 2, 'a.jpg', has no tags; write a.jpg,"),
        ("image,tags\n,cat\n", "line 2 names no image"),
        ("image,cat,dog\na.jpg,1\n", "line 2, 'a.jpg', has 1 cells for 2 classes"),
        ("image,cat,dog\na.jpg,1,2\n", "others than 0 and 1"),
        ("image,cat,cat\na.jpg,1,1\n", "the header has 'cat' more than once"),
        ("image,cat,\na.jpg,1,1\n", "the header has '' more than once, or empty"),
        ('image,tags\na.jpg,"cat\n', "line 2 is no CSV"),
        (b"image,tags\na.jpg,caf\xe9\n", "is not UTF-8 text"),
        ("image,tags\na.jpg,cat\n".encode("utf-16"), "is not UTF-8 text"),
    ],
)
def test_tags_that_cannot_be_read(tmp_path, text, match):
    assert match in said(tmp_path / "tags.csv", text, read_tag_table)


def test_images_are_found_by_path_by_stem_and_by_id(tmp_path):
    names = write_photos(tmp_path, 8)
    written = [
        names[0],
        names[1][:-4],
        f"images/{names[2]}",
        f"images/{names[3][:-4]}",
        names[5][:-4].replace("/", "__"),
    ]
    write_tags(tmp_path, dict.fromkeys(written, "cat"))
    tagged = {sample.id for sample in index_of(tmp_path).samples("tagged")}
    assert tagged == {names[n][:-4].replace("/", "__") for n in (0, 1, 2, 3, 5)}


@pytest.mark.parametrize(
    ("rows", "match"),
    [
        ({"p002.jpg": "cat", "gone.jpg": "dog", "trip/p002.jpg": "dog"}, r"2 of 3 rows are about images that are not"),
        ({"p002.jpg": "cat", "p002": "dog"}, "p002 is about an image that another row names too"),
        ({"p002.jpg": "cta"}, r"1 tags are no class, first cta; is 'cta' 'cat'\? Mend them"),
        ({"p002.jpg": "Cat"}, r"is 'Cat' 'cat'\?"),
        ({"p002.jpg": "Background"}, "Background; background is in every image and no tag"),
    ],
)
def test_tags_that_do_not_fit(tmp_path, rows, match):
    write_photos(tmp_path)
    write_classes(tmp_path)
    path = write_tags(tmp_path, rows)
    with pytest.raises(DatasetError, match=match) as error:
        index_of(tmp_path)
    assert str(error.value).startswith(str(path)) and "\n" not in str(error.value)


def test_without_a_file_classes_are_the_tags_sorted(tmp_path):
    write_photos(tmp_path)
    write_tags(tmp_path)
    index = index_of(tmp_path)
    assert index.classes.table.names == ("background", *sorted(CLASSES[1:])) and index.classes.code is None
    number = names_of(16).index("trip/p003.jpg")
    (sample,) = [s for s in index.every() if s.id == "trip__p003"]
    assert sample.tags == tuple(c - 1 for c in shown(number))


# ---------------------------------------------------------------------- classes


def test_forms_of_classes(tmp_path):
    for name, text in (
        ("classes.txt", "cat\ndog\n\n"), ("classes.txt", "Background\ncat\ndog"), ("classes.csv", "name\ncat\ndog\n"),
        ("palette.csv", "name,r,g,b\ncat,1,2,3\ndog,4,5,6\n"), ("palette.csv", "Name, R,G,B\nbackground,9,9,9\ncat,1,2,3\ndog,4,5,6\n"),
    ):  # fmt: skip
        (tmp_path / name).write_text(text)
        found = read_classes(tmp_path / name)
        assert [n.lower() for n in found.table.names] == ["background", "cat", "dog"] and found.table.foreground == 2
    assert found.table.palette[:3].tolist() == [[9, 9, 9], [1, 2, 3], [4, 5, 6]]
    assert np.array_equal(found.table.palette[3:], voc_palette()[3:])


def test_without_a_background_ids_count_from_zero(tmp_path):
    (tmp_path / "classes.txt").write_text("road\nsky\n")
    table = read_classes(tmp_path / "classes.txt", background=False).table
    assert (table.names, table.foreground, table.background) == (("road", "sky"), 2, False)


@pytest.mark.parametrize(
    ("name", "text", "match"),
    [
        ("classes.txt", "", "names 0 classes; write 1 to 254"),
        ("classes.txt", "\n".join(f"c{n}" for n in range(255)), "names 255 classes; write 1 to 254"),
        ("classes.txt", "cat\ncat\n", "names cat more than once"),
        ("classes.txt", "cat;dog\n", "'cat;dog' is no class name"),
        ("classes.txt", "cat\nbackground\n", "its line must be the first one"),
        ("classes.txt", b"caf\xe9\n", "is not UTF-8"),
        ("palette.csv", "cat,1,2,3\n", "write name or name,r,g,b in its first line"),
        ("palette.csv", "", "write name,r,g,b in its first line"),
        ("palette.csv", "name,r,g,b\ncat,1,2\n", "has 3 cells, the header 4"),
        ("palette.csv", "name,r,g,b\ncat,1,2,256\n", "has no colour; write r, g and b"),
        ("palette.csv", "name,r,g,b\ncat,1,2,-3\n", "has no colour"),
        ("palette.csv", "name,r,g,b\ncat,1,2," + "9" * 5000, "has no colour"),
        ("palette.csv", "name,r,g,b\ncat,1,2,3\ndog,1,2,3\n", "colour (1, 2, 3) stands for two classes"),
        ("palette.csv", "name,r,g,b\ncat,0,0,0\n", "stands for two classes"),
    ],
)
def test_classes_that_cannot_be(tmp_path, name, text, match):
    assert match in said(tmp_path / name, text, read_classes)


def test_254_classes_are_the_most(tmp_path):
    (tmp_path / "classes.txt").write_text("\n".join(f"c{n}" for n in range(254)))
    assert read_classes(tmp_path / "classes.txt").table.num_classes == 255
    with pytest.raises(DatasetError, match="names 255 classes"):
        classes_of([f"c{n}" for n in range(255)], tmp_path / "tags.csv")


def test_two_files_of_classes_are_refused(tmp_path):
    write_all(tmp_path)
    write_classes(tmp_path, colours=True)
    with pytest.raises(DatasetError, match=r"holds palette.csv and classes.txt, .* set data.classes_file"):
        find_layout(tmp_path)
    assert find_layout(tmp_path, classes_file="palette.csv").classes == tmp_path / "palette.csv"


def test_colours_become_ids_and_what_is_ignored_255(tmp_path):
    write_classes(tmp_path, colours=True)
    with (tmp_path / "palette.csv").open("a") as file:
        file.write("ignore,224,224,192\n")
    found = read_classes(tmp_path / "palette.csv")
    assert found.table.names == CLASSES and found.table.palette[255].tolist() == [224, 224, 192]
    colours = np.array([*PALETTE.values(), (224, 224, 192)], np.uint8)
    Image.fromarray(colours[np.arange(6)[None].repeat(2, 0)]).save(tmp_path / "m.png")
    assert read_mask(tmp_path / "m.png", 5, code=found.code).tolist() == [[0, 1, 2, 3, 4, 255]] * 2
    # masks of ids go on meaning classes; a class that is not there is refused
    Image.fromarray(np.array([[0, 4, 255]], np.uint8)).save(tmp_path / "ids.png")
    assert read_mask(tmp_path / "ids.png", 5, code=found.code).tolist() == [[0, 4, 255]]
    Image.fromarray(np.array([[0, 5]], np.uint8)).save(tmp_path / "ids.png")
    with pytest.raises(MaskError, match="value 5"):
        read_mask(tmp_path / "ids.png", 5, code=found.code)
    Image.fromarray(np.array([[[1, 2, 3]]], np.uint8)).save(tmp_path / "m.png")
    with pytest.raises(MaskError, match=r"colour \(1, 2, 3\)"):
        read_mask(tmp_path / "m.png", 5, code=found.code)


# ---------------------------------------------------------------------- splits


def test_the_share_is_drawn_by_names_alone(tmp_path):
    write_photos(tmp_path, 16)
    index = index_of(tmp_path)
    halves = [{s.id for s in index.samples(split, 0.4)} for split in ("train", "val")]
    assert not halves[0] & halves[1] and halves[0] | halves[1] == set(index.files.ids)
    assert halves[1] == {name for name in index.files.ids if draw(name, 0) < 0.4}
    write_image(tmp_path / "images/new.jpg")
    assert {s.id for s in index_of(tmp_path).samples("val", 0.4)} - {"new"} == halves[1]
    assert {s.id for s in index.samples("val", 0.4, seed=1)} != halves[1]


def test_shares_are_even():
    numbers = np.array([draw(f"IMG_{n:05d}", 0) for n in range(20000)])
    histogram = np.histogram(numbers, 20, (0, 1))[0]
    chi_square = ((histogram - 1000) ** 2 / 1000).sum()
    assert chi_square < 45  # 19 degrees of freedom: 1 in 1,000


def test_lists_win_and_one_leaves_the_rest_to_the_other(tmp_path):
    names = write_photos(tmp_path, 8)
    (tmp_path / "splits").mkdir()
    (tmp_path / "splits/val.txt").write_text(f"{names[3]}\nimages/{names[2][:-4]}\r\n\n")
    index = index_of(tmp_path)
    assert [s.id for s in index.samples("val")] == ["trip__p003", "p002"]
    assert {s.id for s in index.samples("train")} == set(index.files.ids) - {"trip__p003", "p002"}
    (tmp_path / "splits/train.txt").write_text("p004\n")
    assert [s.id for s in index.samples("train")] == ["p004"]
    (tmp_path / "splits/val.txt").unlink()
    assert len(index.samples("val")) == 7
    (tmp_path / "splits/few.txt").write_text("p000\n")
    assert [s.id for s in index.samples("few")] == ["p000"]


def test_folders_train_and_val_are_splits(tmp_path):
    for place in ("train/a.jpg", "train/x/b.jpg", "val/c.jpg", "more/d.jpg"):
        write_image(tmp_path / "images" / place)
    index = index_of(tmp_path)
    assert [s.id for s in index.samples("train")] == ["train__a", "train__x__b"]
    assert [s.id for s in index.samples("val")] == ["val__c"]
    assert [s.id for s in index.samples("more")] == ["more__d"]


def test_splits_of_what_is_labelled(tmp_path):
    write_photos(tmp_path, 6)
    write_masks(tmp_path, 2)
    names = names_of(6)
    write_tags(tmp_path, {names[0]: "cat", names[4]: "", names[5]: "dog"})
    write_classes(tmp_path)
    index = index_of(tmp_path)
    assert [s.id for s in index.samples("tagged")] == ["p000", "trip__p005"]
    assert [s.id for s in index.samples("masked")] == ["p000", "trip__p001"]
    assert len(index.samples("all")) == 6
    assert {s.id: s.tags for s in index.every()}["p004"] == ()


@pytest.mark.parametrize(
    ("listed", "split", "match"),
    [
        ("gone\np000\n", "val", "1 of 2 images are not there, first gone"),
        ("p000\nimages/p000\n", "val", r"1 images occur twice, first images/p000"),
        ("\n", "val", "the split is empty; fill the list"),
        (None, "test", "no such list, nor a folder"),
        (None, "tagged", "is empty; add tags.csv"),
        (None, "masked", "is empty; add masks"),
    ],
)
def test_splits_that_cannot_be(tmp_path, listed, split, match):
    write_photos(tmp_path, 2)
    if listed is not None:
        (tmp_path / "splits").mkdir()
        (tmp_path / "splits/val.txt").write_text(listed)
    with pytest.raises((DatasetError, DatasetNotFoundError), match=match):
        index_of(tmp_path).samples(split)
