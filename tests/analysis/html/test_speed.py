"""Benchmarks in the report: a table of rows and their picture; a damaged file stops nothing."""

import json

import pytest
from PIL import Image

from frugalseg.analysis.html import write_report
from frugalseg.analysis.html.speed import speed_grids
from tests.analysis.html.pages import Page, broken_links
from tests.analysis.html.runs import write_experiment

MACHINE = {
    "id": "machine",
    "what": "a machine <b>",
    "value": 1,
    "unit": "threads",
    "bound": None,
    "better": "lower",
    "holds": None,
}
ROWS = [
    MACHINE,
    {"id": "a.over", "what": "x & y", "value": 1.25, "unit": "ratio", "bound": 1.1, "better": "lower", "holds": False},
    {"id": "a.speed", "what": "z", "value": 30.0, "unit": "images/s", "bound": 20, "better": "higher", "holds": True},
    {"id": "a.bad", "what": "w", "value": None, "unit": "s", "bound": None, "better": "lower", "holds": None, "error": "boom"},
]  # fmt: skip


@pytest.fixture
def runs(tmp_path):
    write_experiment(tmp_path / "runs", seeds=(0,))
    return tmp_path / "runs"


def test_rows_stand_in_the_index_with_their_picture(runs, tmp_path):
    (runs / "benchmark.json").write_text(json.dumps(ROWS))
    (runs / "benchmark.md").write_text("# Benchmark\n")
    Image.new("RGB", (8, 8)).save(runs / "benchmark.png")
    summary = write_report([], runs, tmp_path / "report")
    assert summary.others == []
    page = tmp_path / "report/index.html"
    assert all(
        word in Page(page).text for word in ("a machine <b>", "a.over", "1.25", "≤ 1.1", "NO", "30 images/s", "boom")
    )
    assert broken_links(page) == [] and "growth of cost" in Page(page).text
    assert list((tmp_path / "report").rglob("*.png"))


def test_without_a_benchmark_there_is_no_table(runs, tmp_path):
    write_report([], runs, tmp_path / "report")
    assert 'id="speed"' not in (tmp_path / "report/index.html").read_text()


@pytest.mark.parametrize("damage", ["{", "[1]", '[{"id": "a"}]'])
def test_a_damaged_file_is_told(tmp_path, damage):
    (tmp_path / "benchmark.json").write_text(damage)
    (tmp_path / "benchmark-gpu.json").write_text(json.dumps(ROWS))
    others = []
    (grid,) = speed_grids(tmp_path, others)
    assert [row[0] for row in grid.rows] == ["a.over", "a.speed", "a.bad"]
    assert [name for name, _ in others] == ["benchmark.json"]
