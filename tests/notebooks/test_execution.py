"""Every notebook runs to its end, on runs and without any."""

import csv
import re

import pytest

from frugalseg.analysis.notebook import Runs
from frugalseg.analysis.notebook.sfc import threshold_curve
from tests.notebooks.conftest import NOTEBOOKS

NAMES = sorted(path.stem for path in NOTEBOOKS.glob("*.ipynb"))
START = "00_start_here"
ABSENT = re.compile(r"missing|not shown|Traceback|Error|Warning", re.IGNORECASE)


def outputs(book):
    return [output for cell in book.cells if cell.cell_type == "code" for output in cell.outputs]


def texts(book):
    """What a reader sees as text: streams, and plain forms of what is shown."""
    return [out["text"] if out.output_type == "stream" else out["data"]["text/plain"] for out in outputs(book)]


def check(book):
    """Everything is shown, and every code cell but those of settings alone shows something."""
    assert [text for text in texts(book) if ABSENT.search(text)] == []
    silent = [c.source for c in book.cells if c.cell_type == "code" and not c.outputs]
    assert all(" = " in source.splitlines()[-1] for source in silent), silent
    shown = [out["data"] for out in outputs(book)]
    assert all("image/png" in data or "text/html" in data or "text/plain" in data for data in shown)
    assert any("image/png" in data for data in shown) and any("text/html" in data for data in shown)


def test_the_first_notebook_shows_a_small_run(execute, start_runs):
    book = execute(START, start_runs)
    check(book)
    assert any("mini-cti-full" in text and "mini-cti-baseline" in text for text in texts(book))


def test_thresholds_that_are_counted_here_are_those_of_evaluate(start_runs):
    with (start_runs / "mini-cti-full/seed0/score/sweep.csv").open(newline="") as file:
        rows = {round(float(row["threshold"]), 2): row for row in csv.DictReader(file) if row["map"] == "cam"}
    curve = threshold_curve(Runs(start_runs), "mini-cti-full", "cam")
    assert len(curve.thresholds) == 51
    for place, threshold in enumerate(curve.thresholds.round(2).tolist()):
        for key in ("miou", "precision", "recall"):
            assert getattr(curve, key)[place] == pytest.approx(float(rows[threshold][key]), abs=1e-12), threshold


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in NAMES if name != START])
def test_a_notebook_shows_all_that_it_promises(execute, all_runs, name):
    check(execute(name, all_runs))


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_without_runs_a_notebook_names_the_targets_that_make_them(execute, tmp_path, name):
    told = [text for text in texts(execute(name, tmp_path / "none")) if text.startswith("not shown: missing")]
    assert told
    assert all("`make " in text and "\n" not in text for text in told), told
