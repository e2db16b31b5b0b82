"""Sliding windows whose answers are cut: they cover an image once, and depend on nothing but the image."""

import errno
import os
from itertools import pairwise

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from frugalseg.errors import ConfigError, DiskFullError
from frugalseg.ops.tiles import Span
from frugalseg.predictor.windows import ArraySource, Windows, bands, decimated, shrunk, sliding_mask
from frugalseg.predictor.windows_partial import PartialMask

REACH = 5
IMAGE = np.random.default_rng(0).integers(0, 256, (83, 131, 3), dtype=np.uint8)


def local(parts):
    """A function of pixels that looks no further than REACH: the middle of three box sums, in whole numbers."""
    size = 2 * REACH + 1
    sums = (
        cv2.boxFilter(part, cv2.CV_32S, (size, size), normalize=False, borderType=cv2.BORDER_CONSTANT) for part in parts
    )
    return [(np.median(each, axis=2).astype(np.int64) % 251).astype(np.uint8) for each in sums]


class Watched(ArraySource):
    """Notes what is read."""

    def __init__(self, pixels):
        super().__init__(pixels)
        self.read_parts = []

    def read(self, rows, columns):
        self.read_parts.append((rows, columns))
        return super().read(rows, columns)


@st.composite
def layouts(draw):
    align = draw(st.sampled_from([1, 4, 14]))
    size = draw(st.integers(align, 90))
    largest = -(-size // align) * align - align
    return Windows(size, draw(st.integers(0, max(0, min(largest, size - 1)))), align), draw(st.integers(1, 300))


@given(layouts())
@settings(max_examples=200, deadline=None)
def test_cores_cover_a_side_once_and_windows_reach_beyond_them(drawn):
    windows, length = drawn
    cuts = windows.cuts(length)
    assert [cuts[0].core.begin, cuts[-1].core.end] == [0, length]
    assert all(left.core.end == right.core.begin for left, right in pairwise(cuts))
    for cut in cuts:
        assert cut.core.begin < cut.core.end and cut.window.begin % windows.align == 0
        assert cut.window.begin >= 0 and cut.window.end <= length and cut.window.end - cut.window.begin <= windows.size
        # what lies beyond an inner edge is seen for at least half the overlap
        assert cut.window.begin == 0 or cut.core.begin - cut.window.begin >= windows.overlap // 2
        assert cut.window.end == length or cut.window.end - cut.core.end >= windows.overlap // 2
    assert windows.count(length, 1) == len(cuts)


@pytest.mark.parametrize("align", [1, 4])
@pytest.mark.parametrize("batch_size", [1, 3])
def test_a_function_that_looks_no_further_than_half_the_overlap_answers_as_for_the_whole_image(align, batch_size):
    windows = Windows(32, 2 * REACH, align)
    assert windows.count(*IMAGE.shape[:2]) > 12
    found = sliding_mask(ArraySource(IMAGE), local, windows, batch_size)
    np.testing.assert_array_equal(found, local([IMAGE])[0])
    # and the control: with less overlap it does not
    assert (sliding_mask(ArraySource(IMAGE), local, Windows(32, 2, align), batch_size) != found).any()


def test_a_window_as_large_as_the_image_is_the_image_itself():
    seen = []
    sliding_mask(
        ArraySource(IMAGE), lambda parts: [seen.append(part) or part[..., 0] for part in parts], Windows(131, 64)
    )
    assert len(seen) == 1 and np.shares_memory(seen[0], IMAGE) and seen[0].shape == IMAGE.shape


def test_rows_that_are_done_are_neither_read_nor_asked_for_again():
    windows = Windows(32, 8)
    whole = sliding_mask(ArraySource(IMAGE), local, windows)
    for first, cut in enumerate(windows.cuts(83)):
        source = Watched(IMAGE)
        rest = list(bands(source, local, windows, first=first))
        np.testing.assert_array_equal(np.concatenate([band for _, band in rest]), whole[cut.core.begin :])
        assert rest[0][0] == cut.core and min(rows.begin for rows, _ in source.read_parts) == cut.window.begin


def test_batches_hold_windows_of_one_row_and_one_width():
    asked = []

    def answer(parts):
        asked.append([part.shape for part in parts])
        return [part[..., 0] for part in parts]

    windows = Windows(40, 8, 16)  # 40 becomes 48; the last window of a row is narrower
    assert windows.size == 48
    sliding_mask(ArraySource(IMAGE), answer, windows, batch_size=2)
    assert all(len(group) <= 2 and len(set(group)) == 1 for group in asked)
    assert len({group[0] for group in asked}) > 1 and max(map(len, asked)) == 2


@pytest.mark.parametrize(
    ("size", "overlap", "align", "said"),
    [(8, 0, 14, "--window 8"), (32, 32, 1, "--overlap 32"), (32, -1, 1, "--overlap -1"), (32, 20, 16, "at most 16")],
)
def test_windows_that_cannot_be_laid_are_refused(size, overlap, align, said):
    with pytest.raises(ConfigError, match=said):
        Windows(size, overlap, align)


def test_a_preview_takes_the_pixels_nearest_to_its_cells():
    small = decimated(IMAGE, (20, 33))
    for row in range(20):
        for column in range(33):
            place = int((row + 0.5) * 83 / 20), int((column + 0.5) * 131 / 33)
            assert (small[row, column] == IMAGE[place]).all()
    np.testing.assert_array_equal(decimated(IMAGE, (83, 131)), IMAGE)
    np.testing.assert_array_equal(ArraySource(IMAGE).preview((20, 33)), small)
    assert shrunk(83, 131, 200) == (83, 131) and shrunk(4000, 1, 100) == (100, 1) and shrunk(50, 100, 10) == (5, 10)


# ---------------------------------------------------------------------- partial masks on disk

WINDOWS, TOKEN = Windows(32, 8), "ab" * 32


@pytest.fixture
def mask(tmp_path):
    return tmp_path / "masks" / "deep" / "a.tif"


def rows_of(image):
    return [(rows, band) for rows, band in bands(ArraySource(image), local, WINDOWS)]


def test_rows_are_kept_and_a_torn_one_is_made_again(mask):
    made, whole = rows_of(IMAGE), local([IMAGE])[0]
    whole = np.concatenate([band for _, band in made])
    partial = PartialMask(mask, (83, 131), WINDOWS, TOKEN)
    assert partial.first == 0
    for _, band in made[:2]:
        partial.append(band)
    with partial.path.open("ab") as file:
        file.write(made[2][1].tobytes()[:-1])  # killed in the middle of a write
    again = PartialMask(mask, (83, 131), WINDOWS, TOKEN)
    assert again.first == 2 and again.path == partial.path
    for _, band in made[2:]:
        again.append(band)
    np.testing.assert_array_equal(again.ids(), whole)
    assert PartialMask(mask, (83, 131), WINDOWS, TOKEN).first == len(made)
    again.remove()
    assert list(mask.parent.iterdir()) == []


def test_rows_of_other_settings_are_not_continued(mask):
    old = PartialMask(mask, (83, 131), WINDOWS, TOKEN)
    old.append(rows_of(IMAGE)[0][1])
    other = mask.parent / f".{mask.name}.tif.{'0' * 16}.part"  # of an image whose id is a.tif
    other.touch()
    assert PartialMask(mask, (83, 131), WINDOWS, "cd" * 32).first == 0
    assert not old.path.exists() and other.exists()


def test_a_full_disk_is_said_and_what_was_there_stays(mask, monkeypatch):
    made, partial = rows_of(IMAGE), PartialMask(mask, (83, 131), WINDOWS, TOKEN)
    partial.append(made[0][1])

    def full(_):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(DiskFullError, match="No space left"):
            partial.append(made[1][1])
    # the band is there, but nobody has promised it: whole bands count, and are the same ones
    again = PartialMask(mask, (83, 131), WINDOWS, TOKEN)
    for _, band in made[again.first :]:
        again.append(band)
    np.testing.assert_array_equal(again.ids(), np.concatenate([band for _, band in made]))


def test_spans_are_of_the_whole_side_where_it_is_short():
    assert Windows(64, 8).cuts(10) == [(Span(0, 10), Span(0, 10))]
