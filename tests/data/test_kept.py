"""`data.cache`: the same batches, each file decoded once, whole or not at all."""

import errno
import logging
import multiprocessing
import os
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from frugalseg.data import VOC, Episodes, MultiScale, Segment, Tags, Views
from frugalseg.data.codes import MaskCode
from frugalseg.data.io import read_image, read_mask
from frugalseg.data.kept import Kept
from frugalseg.data.recipes import Recipe
from frugalseg.errors import ConfigError, DiskFullError, ImageError
from frugalseg.run import config_identity
from tests.data.conftest import picture
from tests.data.test_module import epochs, equal, make

RECIPES: dict[str, Recipe] = {
    "tags": Tags(crop=48, flip=0.5),
    "two views": Tags(crop=16, area=(0.3, 1.2), views=2, scaled=True),
    "segment": Segment(crop=32),
    "views": Views(32, 16, 2, scaled=True),
}


def entries(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


@pytest.fixture
def jpeg(tmp_path) -> Path:
    path = tmp_path / "a.jpg"
    Image.fromarray(picture(20, 30, 0)).save(path)
    return path


@pytest.mark.parametrize("recipe", RECIPES)
def test_batches_are_the_same(voc_root, tmp_path, recipe):
    plain = epochs(make(voc_root, recipe=RECIPES[recipe]))
    kept = make(voc_root, recipe=RECIPES[recipe], cache=tmp_path / "kept")
    for found in (epochs(kept), epochs(kept)):  # the second time all comes from the cache
        assert len(found) == len(plain) == 6
        for first, second in zip(plain, found, strict=True):
            equal(first, second)
    assert entries(tmp_path / "kept")


def test_workers_fill_and_read_it(voc_root, tmp_path):
    plain = epochs(make(voc_root, recipe=RECIPES["segment"]), 3)
    found = epochs(make(voc_root, recipe=RECIPES["segment"], cache=tmp_path / "kept", num_workers=2), 3)
    for first, second in zip(plain, found, strict=True):
        equal(first, second)
    assert len(entries(tmp_path / "kept")) == 14  # 7 images and their masks


@pytest.mark.parametrize("role", ["val", "predict"])
def test_whole_images_are_the_same(voc_root, tmp_path, role):
    settings = {"recipe": Segment(crop=32), "predict_recipe": MultiScale((1.0, 0.5)), "predict_split": "val"}
    plain, kept = make(voc_root, **settings), make(voc_root, **settings, cache=tmp_path / "kept")
    for _ in range(2):
        for first, second in zip(*(getattr(d, f"{role}_dataloader")() for d in (plain, kept)), strict=True):
            for key, value in first.items():
                pairs = zip(value, second[key], strict=True) if isinstance(value, list) else [(value, second[key])]
                for one, other in pairs:
                    assert torch.equal(one, other) if isinstance(one, torch.Tensor) else one == other, key


def test_episodes_are_the_same(voc_root, tmp_path):
    (voc_root / "ImageSets/FewShot").mkdir()
    data = [
        VOC(voc_root, Episodes(size=32), train_split="trainaug", num_workers=0, seed=0, cache=cache)
        for cache in (None, tmp_path / "kept")
    ]
    samples = [each.samples("train") for each in data]
    for a, b in zip(*samples, strict=True):
        assert a == replace(b, keep=None)
    shown = [int(np.unique(read_mask(s.mask, 21))[1]) for s in samples[0][:2]]
    from frugalseg.data.base import Episode
    from frugalseg.data.sampler import draw_rng

    for _ in range(2):
        items = [
            recipe.recipe.train_item(
                Episode(**{**vars(found[0]), "class_id": shown[0], "supports": (found[1],), "number": 0}), 21, draw_rng(0, 1)
            )
            for recipe, found in zip(data, samples, strict=True)
        ]  # fmt: skip
        equal(*items)
    assert len(entries(tmp_path / "kept")) == 4


def test_files_are_decoded_once(voc_root, tmp_path, monkeypatch):
    data = make(voc_root, recipe=RECIPES["segment"], cache=tmp_path / "kept")
    first = epochs(data, 1)

    def refuse(*_, **__):
        raise AssertionError("decoded again")

    monkeypatch.setattr("frugalseg.data.io.Image.open", refuse)
    monkeypatch.setattr("frugalseg.data.io.cv2.imdecode", refuse)
    for one, other in zip(first, epochs(data, 1), strict=True):
        equal(one, other)


def test_a_changed_file_is_decoded_again(jpeg, tmp_path):
    kept = Kept(tmp_path / "kept")
    before = read_image(jpeg, keep=kept)
    Image.fromarray(picture(20, 30, 9)).save(jpeg)
    os.utime(jpeg, ns=(1, 1))
    after = read_image(jpeg, keep=kept)
    assert np.array_equal(after, read_image(jpeg)) and not np.array_equal(after, before)


def test_a_file_is_the_same_through_a_link(jpeg, tmp_path):
    kept = Kept(tmp_path / "kept")
    (tmp_path / "link").symlink_to(tmp_path)
    assert kept.place(jpeg, "image") == kept.place(tmp_path / "link" / "a.jpg", "image")
    assert kept.place(jpeg, "image") != kept.place(jpeg, "image/2")


def test_missing_and_damaged_sources_are_reported_as_ever(jpeg, tmp_path):
    kept = Kept(tmp_path / "kept")
    with pytest.raises(ImageError, match="no such image"):
        read_image(tmp_path / "no.jpg", keep=kept)
    jpeg.write_bytes(jpeg.read_bytes()[:100])
    for _ in range(2):
        with pytest.raises(ImageError, match="cannot be decoded"):
            read_image(jpeg, keep=kept)
    assert not entries(tmp_path / "kept")


DAMAGE = {
    "empty": lambda data: b"",
    "half": lambda data: data[: len(data) // 2],
    "a byte short": lambda data: data[:-1],
    "longer": lambda data: data + b"x",
    "something else": lambda data: b"x" * len(data),
    "zeroed tail": lambda data: data[:-600] + bytes(600),
    "zeroed data, checksum whole": lambda data: data[:-604] + bytes(600) + data[-4:],
    "zeroed page": lambda data: data[:4224] + bytes(4096) + data[8320:],
    "pages swapped": lambda data: data[:128] + data[4224:8320] + data[128:4224] + data[8320:],
    "another shape": lambda data: data.replace(b"(60, 70, 3)", b"(70, 60, 3)"),
    "a shape beyond memory": lambda data: data.replace(b" 3), }" + b" " * 12, b" 3" + b"0" * 12 + b"), }"),
    "of the earlier form": lambda data: data[:-4],
    "other numbers": lambda data: data.replace(b"|u1", b"|i1"),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_entry_is_made_again(jpeg, tmp_path, damage, caplog):
    kept = Kept(tmp_path / "kept")
    Image.fromarray(picture(60, 70, 0)).save(jpeg)  # of several pages
    whole = read_image(jpeg, keep=kept)
    (entry,) = entries(tmp_path / "kept")
    good = entry.read_bytes()
    assert DAMAGE[damage](good) != good
    entry.write_bytes(DAMAGE[damage](good))
    with caplog.at_level(logging.WARNING):
        assert np.array_equal(read_image(jpeg, keep=kept), whole)
    assert str(entry) in caplog.text and str(jpeg) in caplog.text
    assert entry.read_bytes() == good


@pytest.mark.parametrize("shape", [(0, 3), (7,), (1, 1, 1), (64, 64), (65, 63)])
@pytest.mark.parametrize("order", ["C", "F"])
def test_whatever_is_made_is_kept(jpeg, tmp_path, shape, order):
    """Data of less than a page, of whole pages and of more, and arrays that lie otherwise in memory."""
    kept = Kept(tmp_path / "kept")
    made = np.asarray(np.random.default_rng(0).integers(0, 256, shape, np.uint8), order=order)
    kept(jpeg, "some", lambda: made)
    found = kept(jpeg, "some", lambda: made + 1)
    assert np.array_equal(found, made) and found.flags.writeable


def test_no_byte_can_change_unseen(jpeg, tmp_path):
    kept = Kept(tmp_path / "kept")
    whole = read_image(jpeg, keep=kept)
    (entry,) = entries(tmp_path / "kept")
    good, rng = entry.read_bytes(), np.random.default_rng(0)
    for at in (*range(128), *rng.integers(128, len(good), 100), *range(len(good) - 4, len(good))):
        entry.write_bytes(good[:at] + bytes([good[at] ^ (1 << rng.integers(8))]) + good[at + 1 :])
        assert np.array_equal(read_image(jpeg, keep=kept), whole), at


def test_other_rules_of_ours_are_other_entries(jpeg, tmp_path, monkeypatch):
    kept = Kept(tmp_path / "kept")
    before = kept.place(jpeg, "image")
    monkeypatch.setattr("frugalseg.data.kept.FORMAT", -1)
    assert kept.place(jpeg, "image") != before


def test_files_of_a_folder_that_each_run_writes_anew_are_not_kept(tmp_path):
    (tmp_path / "run").mkdir()
    kept = Kept(tmp_path / "kept", passing=tmp_path / "run")
    for mask, count in ((tmp_path / "run" / "a.png", 0), (tmp_path / "a.png", 1)):
        Image.fromarray(np.full((2, 3), 5, np.uint8)).save(mask)
        assert read_mask(mask, 6, keep=kept).tolist() == [[5] * 3] * 2
        assert len(entries(tmp_path / "kept")) == count


def test_colours_of_another_table_are_other_values(tmp_path):
    path, kept = tmp_path / "m.png", Kept(tmp_path / "kept")
    colours = np.array([[0, 0, 0], [255, 0, 0], [0, 255, 0]], np.uint8)
    Image.fromarray(colours[[[0, 1, 2]]]).save(path)
    for order, expected in (([0, 1, 2], [0, 1, 2]), ([0, 2, 1], [0, 2, 1])):
        code = MaskCode.of({0: 0, 1: 1, 2: 2}, colours[order])
        for _ in range(2):
            assert read_mask(path, 3, code=code, keep=kept).tolist() == [expected]


def test_what_is_kept_is_checked_as_what_is_read(tmp_path):
    """Another number of classes, or another size, is refused of a kept mask too."""
    path, kept = tmp_path / "m.png", Kept(tmp_path / "kept")
    Image.fromarray(np.full((2, 3), 5, np.uint8)).save(path)
    read_mask(path, 6, keep=kept)
    with pytest.raises(Exception, match="class id 5"):
        read_mask(path, 5, keep=kept)
    with pytest.raises(Exception, match="2x3"):
        read_mask(path, 6, (3, 2), keep=kept)


def _read_all(
    paths: list[Path], folder: Path, gate: "multiprocessing.synchronize.Barrier", failed: "multiprocessing.Queue[str]"
) -> None:
    gate.wait()
    try:
        for path in paths:
            if not np.array_equal(read_image(path, keep=Kept(folder)), read_image(path)):
                failed.put(str(path))
    except Exception as error:
        failed.put(repr(error))


def test_many_processes_fill_it_at_once(tmp_path):
    paths = [tmp_path / f"{number}.jpg" for number in range(12)]
    for number, path in enumerate(paths):
        Image.fromarray(picture(60, 70, number)).save(path)
    context = multiprocessing.get_context("fork")
    gate, failed = context.Barrier(4), context.Queue()
    ranks = [context.Process(target=_read_all, args=(paths, tmp_path / "kept", gate, failed)) for _ in range(4)]
    for rank in ranks:
        rank.start()
    for rank in ranks:
        rank.join(60)
    assert failed.empty() and [rank.exitcode for rank in ranks] == [0] * 4
    assert len(entries(tmp_path / "kept")) == 12  # and no temporary file


def test_processes_of_equal_ids_on_different_nodes_do_not_share_a_temporary_file(jpeg, tmp_path, monkeypatch):
    """The other one writes the same entry while ours is open: both end well."""
    kept, save, depth = Kept(tmp_path / "kept"), np.save, []

    def slow(stream, array, **options):
        depth.append(stream.name)
        if len(depth) == 1:
            read_image(jpeg, keep=kept)
        save(stream, array, **options)

    monkeypatch.setattr("frugalseg.data.kept.np.save", slow)
    assert np.array_equal(read_image(jpeg, keep=kept), read_image(jpeg))
    assert len(set(depth)) == 2 and len(entries(tmp_path / "kept")) == 1


@pytest.mark.parametrize("workers", [0, 1])
def test_a_full_disk_is_one_clear_line(voc_root, tmp_path, monkeypatch, workers):
    def full(stream, array, **_):
        stream.write(b"half")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("frugalseg.data.kept.np.save", full)
    with pytest.raises(DiskFullError) as error:
        epochs(make(voc_root, cache=tmp_path / "kept", num_workers=workers), 1)
    assert str(error.value) == (
        f"{tmp_path / 'kept'}: the disk is full; free some space or set data.cache to null, and run the command again"
    )
    end = time.monotonic() + 30  # a worker reads ahead, and may be in the middle of the next file
    while entries(tmp_path / "kept") and time.monotonic() < end:
        time.sleep(0.05)
    assert not entries(tmp_path / "kept")


def test_a_folder_that_cannot_be_written_is_one_clear_line(jpeg, tmp_path, monkeypatch):
    def refuse(*_, **__):
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr("frugalseg.data.io.Path.mkdir", refuse)
    with pytest.raises(ConfigError) as error:
        read_image(jpeg, keep=Kept(tmp_path / "kept"))
    assert str(error.value).startswith(f"data.cache: {tmp_path / 'kept'} cannot be written (Permission denied);")


@pytest.mark.parametrize("below", ["", "deeper"])
def test_a_file_is_no_folder(voc_root, tmp_path, below):
    (tmp_path / "file").write_text("x")
    with pytest.raises(ConfigError, match=r"data.cache: .*/file is a file"):
        make(voc_root, cache=tmp_path / "file" / below)


def test_settings_that_change_no_number_leave_finished_stages_up_to_date():
    def identity(recipe, **data):
        init = {"root": "r", "recipe": {"class_path": "frugalseg.data.Views", "init_args": {"flip": 0.5, **recipe}}}
        return config_identity({"data": {"class_path": "frugalseg.data.VOC", "init_args": {**init, **data}}})

    before = identity({})
    assert identity({"scaled": False}, cache="/fast/disk") == before
    assert identity({"scaled": True}) != before
