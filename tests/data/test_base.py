from pathlib import Path

import numpy as np

from frugalseg.data.base import ClassTable, Sample, count_tags, first_five


def test_count_tags_counts_images_per_class():
    rng = np.random.default_rng(0)
    table = rng.random((50, 7)) < 0.3
    samples = [Sample(str(i), Path(), None, tuple(np.flatnonzero(row).tolist())) for i, row in enumerate(table)]
    found = count_tags([*samples, Sample("bare", Path(), None, None)], 7)
    assert found.dtype == np.int64
    assert np.array_equal(found, table.sum(0))


def test_class_table_counts_the_background():
    assert ClassTable(("background", "cat"), np.zeros((256, 3), np.uint8)).num_classes == 2


def test_first_five():
    assert first_five("abcdefg") == "a, b, c, d, e"
