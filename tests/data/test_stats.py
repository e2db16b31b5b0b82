import csv
import re

import numpy as np
import pytest
from PIL import Image

from frugalseg.analysis.long_tail import draw_long_tail, frequency_rows
from frugalseg.cli import main
from frugalseg.data.base import ClassTable, Sample, count_tags
from frugalseg.data.lists import read_histograms, read_ids, read_labels
from frugalseg.data.stats import class_frequencies
from frugalseg.data.voc import CLASS_COUNTS, NAMES, index
from frugalseg.errors import DatasetError
from frugalseg.ops.palette import voc_palette
from tests.conftest import FACTS

DATASETS = FACTS / "datasets.md"


def by_hand(samples):
    """Images and pixels per class, one pixel at a time."""
    images, pixels, ignored = [0] * 21, [0] * 21, 0
    for sample in samples:
        values = np.asarray(Image.open(sample.mask)).flatten().tolist()
        for class_id in range(21):
            images[class_id] += class_id in values
            pixels[class_id] += values.count(class_id)
        ignored += values.count(255)
    return images, pixels, ignored


@pytest.mark.parametrize("workers", [1, 2])
def test_frequencies_from_masks(voc_root, workers):
    samples, table = index(voc_root, "train"), ClassTable(NAMES, voc_palette())
    found = class_frequencies(samples, table, workers)
    images, pixels, ignored = by_hand(samples)
    assert found.images.tolist() == images
    assert found.pixels.tolist() == pixels
    assert found.ignored == ignored > 0
    assert found.masks == 7
    rows = frequency_rows(found, table)
    assert [row["images"] for row in rows] == sorted(images, reverse=True)
    assert sum(row["pixel_percent"] for row in rows) == pytest.approx(100)


def test_frequencies_from_tags(tmp_path):
    table = ClassTable(("background", "a", "b"), voc_palette())
    samples = [Sample("x", tmp_path, None, (0,)), Sample("y", tmp_path, None, (0, 1))]
    found = class_frequencies(samples, table)
    assert found.images.tolist() == [2, 2, 1]
    assert found.pixels is None
    with pytest.raises(DatasetError, match="neither masks nor image-level labels"):
        class_frequencies([Sample("x", tmp_path, None, None)], table)


def test_the_figure_and_the_verb(voc_root, tmp_path, capsys):
    out = tmp_path / "stats"
    assert main(["data", "stats", "voc", "--root", str(voc_root), "--out", str(out), "--workers", "1"]) == 0
    assert "7 masks" in capsys.readouterr().out
    with (out / "voc-train.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    images, pixels, _ = by_hand(index(voc_root, "train"))
    assert {(int(r["id"]), int(r["images"]), int(r["pixels"])) for r in rows} == set(
        zip(range(21), images, pixels, strict=True)
    )
    assert Image.open(out / "voc-train.png").size[0] > 500


def test_bars_are_as_many_as_foreground_classes(tmp_path):
    table = ClassTable(("background", "common", "rare", "never"), voc_palette())
    rows = [
        {"id": i, "class": n, "images": c}
        for i, n, c in ((0, "background", 9), (1, "common", 8), (2, "rare", 2), (3, "never", 0))
    ]
    draw_long_tail(tmp_path / "a.png", rows, table, "t")
    pixels = np.asarray(Image.open(tmp_path / "a.png").convert("RGB")).reshape(-1, 3)
    colours = {tuple(c) for c in np.unique(pixels, axis=0).tolist()}
    assert tuple(voc_palette()[1].tolist()) in colours
    assert tuple(voc_palette()[2].tolist()) in colours
    assert tuple(voc_palette()[3].tolist()) not in colours


@pytest.mark.skipif(not DATASETS.is_file(), reason=f"no facts at {FACTS}; set FRUGALSEG_FACTS")
def test_class_counts_of_the_shipped_voc_labels_equal_the_published_table():
    """`datasets.md`: images in train / trainaug / val of each class, and percent of pixels of trainaug and val."""
    line = next(line for line in DATASETS.read_text().splitlines() if line.startswith("aeroplane 88/590/90"))
    table = re.findall(r"(\w+) (\d+)/(\d+)/(\d+) ([\d.]+) ([\d.]+)", line)
    assert [row[0] for row in table] == list(NAMES[1:])
    histogram = {name: row.astype(np.int64) for name, row in read_histograms().items()}
    labels = read_labels("voc12")
    for column, split in ((1, "train"), (2, "trainaug"), (3, "val")):
        samples = [Sample(name, DATASETS, None, labels[name]) for name in read_ids("voc12", split)]
        assert count_tags(samples, 20).tolist() == [int(row[column]) for row in table]
    assert [int(row[2]) for row in table] == list(CLASS_COUNTS)
    for column, split in ((4, "trainaug"), (5, "val")):
        pixels = sum(histogram[name] for name in read_ids("voc12", split))
        percent = 100 * pixels[:21] / pixels[:21].sum()
        assert percent[1:] == pytest.approx([float(row[column]) for row in table], abs=0.0051)
