"""What is told of all cases, and the whole of it on one stage."""

import json
import subprocess
import sys

import pytest

from frugalseg.errors import ConfigError
from tests.conftest import REPOSITORY
from tests.faults.kinds import KINDS
from tests.faults.record import summary, table, write_table


@pytest.fixture
def content(tmp_path):
    kill = {"chain": "sfc", "kind": "killed", "took": 2.0, "kills": 2, "passed": True}
    cases = [
        kill | {"stage": "irn", "hits": 2, "phases": ["between checkpoints", "before the first checkpoint"]},
        kill | {"stage": "cam", "hits": 1, "phases": ["between files", "after its end"]},
        {"chain": "sfc", "stage": "cam", "kind": "disk full", "took": 1.0, "passed": False, "why": "masks/a.png: differs"},
        {"chain": "sfc", "stage": "cam", "kind": "settings changed", "took": 0.0, "passed": True, "skipped": "no"},
        {"chain": "cti", "stage": "cam", "kind": "run twice", "took": 0.5, "passed": True,
         "differ": {"maps/a.png": "header", "maps/b.png": "header", "done.json": "times"}},
        {"chain": "mevt", "stage": "probe", "kind": "killed", "took": 9.0, "passed": True, "kills": 9, "hits": 9},
    ]  # fmt: skip
    (tmp_path / "cases").mkdir()
    for number, case in enumerate(cases):
        (tmp_path / f"cases/{number}.json").write_text(json.dumps(case))
    return summary(tmp_path, ["sfc", "cti"], 0.0, nightly=False)


def test_cases_are_counted(content):
    assert (content["cases"], content["passed"]) == (4, 3)  # what was skipped and other chains are left out
    assert (content["kills"], content["kills_that_hit_a_running_stage"], content["share_hit"]) == (4, 3, 0.75)
    assert content["phases"]["between checkpoints"] == 1 and sum(content["phases"].values()) == 4
    assert content["chains"]["sfc"]["stages"] == 2 and content["chains"]["sfc"]["kinds"]["killed"]["passed"] == 2
    assert content["kinds"]["disk full"] == {"cases": 1, "passed": 0, "stages": 1, "kills": 0}
    assert content["failed"] == [{"case": "sfc cam: disk full", "why": "masks/a.png: differs"}]
    assert content["differ_when_run_twice"] == {"header": ["cti/cam/maps/*.png"], "times": ["cti/cam/done.json"]}


def test_the_table_has_a_row_for_each_kind(content, tmp_path):
    lines = table(content)
    assert lines[0] == "| fault | SFC | CTI | survived |"
    assert sum(line.startswith("| ") for line in lines) == 1 + len(KINDS)
    assert "| disk full | 0 of 1 | - | 0 of 1 |" in lines and any("4 kills, 75 %" in line for line in lines)
    assert lines[-2:] == ["- `maps/*.png` (in 1): header", "- `done.json` (in 1): times"]
    page = tmp_path / "PAGE.md"
    page.write_text("before\n<!-- x: begin (python -m tests.faults --into) -->\noutdated\n<!-- x: end -->\nafter\n")
    write_table(page, "x", content)
    text = page.read_text()
    assert text.startswith("before\n") and text.endswith("\nafter\n") and "outdated" not in text and lines[0] in text
    with pytest.raises(ConfigError, match=r"PAGE\.md"):
        write_table(page, "y", content)


@pytest.mark.slow
def test_every_kind_of_fault_on_one_stage(tmp_path):
    """All of `make test-faults` but for the number of stages; an interrupted run keeps what has passed."""
    out = tmp_path / "faults.json"
    command = [sys.executable, "-m", "tests.faults", "--only", "sfc", "--stage", "irn", "--nightly", "--kind", "killed"]
    command += ["--kind", "checkpoint damaged", "--kind", "two at once", "--kind", "disk full"]
    done = subprocess.run(
        [*command, "--out", str(out), "--folder", str(tmp_path / "work")], cwd=REPOSITORY, check=False
    )
    content = json.loads(out.read_text())
    assert done.returncode == 0 and content["failed"] == []
    assert content["kills"] >= 12 and content["share_hit"] > 0.4
    assert {kind for kind, counts in content["kinds"].items() if counts["cases"]} == {
        "killed", "checkpoint damaged", "two at once", "disk full"
    }  # fmt: skip
