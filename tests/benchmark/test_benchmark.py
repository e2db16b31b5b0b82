"""The benchmark itself: rows of the right form, results of other runs kept, failures recorded."""

import json
import subprocess
import sys

import pytest

from tests.benchmark import __main__ as benchmark
from tests.benchmark.measure import REPOSITORY, Group, Measured, Row, Skip

KEYS = {"id", "what", "value", "unit", "bound", "better", "holds"}


def test_quick_prototypes_writes_rows_and_keeps_earlier_ones(tmp_path):
    out = tmp_path / "rows.json"
    earlier = dict.fromkeys(KEYS, None) | {"id": "crf.over_reference_3", "value": 2.0, "better": "lower"}
    out.write_text(json.dumps([earlier]))
    assert benchmark.main(["--quick", "--only", "sfc.prototypes_over", "--out", str(out)]) == 0
    rows = {row["id"]: row for row in json.loads(out.read_text())}
    assert set(rows) == {earlier["id"], "machine", "sfc.prototypes_over_naive"}
    assert all(set(row) >= KEYS and row["better"] in ("lower", "higher") for row in rows.values())
    assert rows["crf.over_reference_3"] == earlier
    assert rows["sfc.prototypes_over_naive"]["value"] > 0
    assert set(tmp_path.iterdir()) == {out, out.with_suffix(".md")}


@pytest.mark.parametrize(("better", "value", "holds"), [("lower", 1.2, False), ("higher", 1.2, True)])
def test_bound(better, value, holds):
    row = benchmark.record(Row("a.b", "", better=better, bound=1.1), Measured(value), quick=False)
    assert row["holds"] is holds


def test_peak_memory_counts_what_is_freed_again():
    """In a fresh process, as the rows do: this one may still hold memory that other tests have freed."""
    code = "from tests.benchmark.measure import peak_memory as p; print(p(lambda: bytearray(b'x') * (64 << 20)))"
    done = subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True, check=True)
    assert int(done.stdout) == pytest.approx(64 << 20, rel=0.05)


def fail(quick):
    raise RuntimeError("broken")


def succeed(quick):
    return {"a.good": Measured(2.0)}


def test_failing_row_is_recorded_and_others_run(tmp_path, monkeypatch, capsys):
    broken, good = Row("a.broken", "x"), Row("a.good", "y", bound=1.0)
    groups = [Group(f"{__name__}:fail", broken), Group(f"{__name__}:succeed", good)]
    monkeypatch.setattr(benchmark, "GROUPS", groups)
    out = tmp_path / "rows.json"
    assert benchmark.main(["--out", str(out)]) == 1
    rows = {row["id"]: row for row in json.loads(out.read_text())}
    assert rows["a.broken"]["error"] == "RuntimeError: broken"
    assert rows["a.broken"]["value"] is None
    assert rows["a.good"]["holds"] is False
    assert "a.broken" in capsys.readouterr().out


def test_rows_can_be_put_into_a_page(tmp_path, monkeypatch):
    groups = [
        Group(f"{__name__}:succeed", Row("a.good", "y", bound=1.0)),
        Group(f"{__name__}:skip", Row("b", "x", "MB")),
    ]
    monkeypatch.setattr(benchmark, "GROUPS", groups)
    page = tmp_path / "page.md"
    page.write_text("\n".join(["before", *benchmark.MARKS, "after", ""]))
    assert benchmark.main(["--out", str(tmp_path / "rows.json"), "--into", str(page)]) == 0
    lines = page.read_text().splitlines()
    assert "| `a.good` | 2 | <= 1 | y |" in lines and "| `b` |  |  | x (not here) |" in lines
    assert (lines[0], lines[-1]) == ("before", "after") and "1 thread" in page.read_text()


def skip(quick):
    raise Skip("not here")


def test_rows_that_cannot_run_say_why(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(benchmark, "GROUPS", [Group(f"{__name__}:skip", Row("a.absent", "x", bound=1.0))])
    out = tmp_path / "rows.json"
    assert benchmark.main(["--out", str(out)]) == 0
    row = json.loads(out.read_text())[-1]
    assert row["skipped"] == "not here"
    assert row["value"] is None
    assert row["holds"] is None
    assert "not here" in capsys.readouterr().out
