"""The report as a whole: broken runs stop nothing, everything is escaped, links resolve, and it replaces itself."""

import json
import os
import shutil

import pytest

from frugalseg.analysis.html import write_report
from frugalseg.analysis.html.states import State
from frugalseg.errors import ConfigError, DiskFullError
from tests.analysis.html.pages import Page, broken_links
from tests.analysis.html.runs import write_experiment, write_stage, write_world

NASTY = "<img src=x onerror=alert(1)> &amp; 'q' \"#?%"


@pytest.fixture
def runs(tmp_path):
    write_experiment(tmp_path / "runs", seeds=(0,))
    return tmp_path / "runs"


def pages(out):
    return [out / "index.html", *sorted((out / "pages").glob("*.html"))]


def test_broken_runs_are_listed_and_stop_nothing(runs, tmp_path):
    whole = write_experiment(runs, "mini-sfc-whole", seeds=(0,))
    before = write_report([whole], runs, tmp_path / "before").entries[0]
    for number, damage in enumerate(("done.json", "metrics.json", "provenance.json")):
        (
            write_experiment(runs, f"mini-sfc-broken{number}", seeds=(0,)) / "seed0/score-segment-val" / damage
        ).write_text("{")
    (runs / "mini-sfc-half/seed0/classify").mkdir(parents=True)
    (runs / "mini-sfc-begun/seed0").mkdir(parents=True)
    (runs / "mini-sfc-nothing").mkdir()
    (runs / "stray.txt").write_text("?")
    (runs / ".hidden").mkdir()
    summary = write_report([], runs, runs / "report")
    states = {entry.name: entry.state for entry in summary.entries}
    assert states == {
        "mini-sfc-broken0": State.BROKEN, "mini-sfc-broken1": State.BROKEN, "mini-sfc-broken2": State.BROKEN,
        "mini-sfc-half": State.BROKEN, "mini-sfc-begun": State.EMPTY, "mini-sfc-made-up": State.DONE, "mini-sfc-whole": State.DONE,
    }  # fmt: skip
    assert {name for name, _ in summary.others} == {"mini-sfc-nothing", "stray.txt"}
    assert before in summary.entries
    text = Page(runs / "report/index.html").text
    assert all(name in text for name in [*states, "stray.txt", "score-segment-val, seed 0: done.json: not readable"])
    assert [link for page in pages(runs / "report") for link in broken_links(page)] == []


def test_a_page_that_cannot_be_made_is_told(runs, tmp_path, monkeypatch):
    write_experiment(runs, "mini-sfc-other", seeds=(0,))
    from frugalseg.analysis.html import report

    real = report.make_page

    def fail(experiment, *rest):
        if experiment.name == "mini-sfc-other":
            raise ZeroDivisionError("surprise")
        return real(experiment, *rest)

    monkeypatch.setattr(report, "make_page", fail)
    summary = write_report([], runs, tmp_path / "out")
    assert {entry.name: entry.state for entry in summary.entries} == {
        "mini-sfc-made-up": "done",
        "mini-sfc-other": "broken",
    }
    assert "ZeroDivisionError: surprise" in Page(tmp_path / "out/index.html").text
    assert len(pages(tmp_path / "out")) == 2


def test_everything_is_escaped(tmp_path):
    world = write_world(tmp_path / "world", 0)
    folder = tmp_path / "runs" / NASTY.replace("/", "")
    stage = write_stage(folder / "seed0" / "score-val", world, {f"val/iou/{NASTY}": 0.5, "val/miou": 0.5})
    (stage / "groups.json").write_text(json.dumps({"head": [NASTY], "middle": [], "tail": []}))
    record = json.loads((stage / "provenance.json").read_text())
    record |= {"command": [NASTY], "git": {"commit": NASTY}, "resumed": [NASTY], "versions": {NASTY: NASTY}}
    (stage / "provenance.json").write_text(json.dumps(record))
    write_report([], tmp_path / "runs", tmp_path / "out")
    for path in pages(tmp_path / "out"):
        page = Page(path)
        assert "img" not in page.tags
        assert NASTY in page.text
        assert broken_links(path) == []


@pytest.mark.skipif(os.name != "posix", reason="names of files are text there")
def test_names_that_are_not_utf8(tmp_path):
    world = write_world(tmp_path / "world", 0)
    write_stage(tmp_path / "runs" / os.fsdecode(b"mini-\xff") / "seed0/score", world, {"val/miou": 0.5})
    write_report([], tmp_path / "runs", tmp_path / "out")
    assert "mini-\\xff" in Page(tmp_path / "out/index.html").text.replace("\\udcff", "\\xff")
    assert [link for path in pages(tmp_path / "out") for link in broken_links(path)] == []


def test_names_that_differ_in_case_have_pages_of_their_own(tmp_path):
    world = write_world(tmp_path / "world", 0)
    for name in ("x", "X", "x "):
        write_stage(tmp_path / "runs" / name / "seed0/score", world, {"val/miou": 0.5})
    write_report([], tmp_path / "runs", tmp_path / "out")
    assert len({path.name.lower() for path in (tmp_path / "out/pages").iterdir()}) == 3


def test_it_replaces_itself_and_nothing_else(runs, tmp_path):
    out = tmp_path / "out"
    write_experiment(runs, "mini-sfc-gone", seeds=(0,))
    write_report([], runs, out)
    (out / "mine.txt").write_text("mine")
    assert (out / "pages/mini-sfc-gone.html").is_file() and (out / "pictures/mini-sfc-gone").is_dir()
    shutil.rmtree(runs / "mini-sfc-gone")
    write_report([], runs, out)
    assert not (out / "pages/mini-sfc-gone.html").exists() and not (out / "pictures/mini-sfc-gone").exists()
    assert (out / "mine.txt").read_text() == "mine"
    assert (out / "pages/mini-sfc-made-up.html").is_file()
    assert not list(out.rglob("*.tmp"))


@pytest.mark.parametrize("name", ["index.html", "pages", "pictures"])
def test_a_folder_of_other_pages_is_refused_and_untouched(runs, tmp_path, name):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / name).mkdir()
    with pytest.raises(ConfigError, match="another folder"):
        write_report([], runs, tmp_path / "out")
    assert [path.name for path in (tmp_path / "out").rglob("*")] == [name]


def test_a_file_in_its_place_and_no_runs(runs, tmp_path):
    (tmp_path / "out").write_text("")
    with pytest.raises(ConfigError, match="is a file"):
        write_report([], runs, tmp_path / "out")
    with pytest.raises(ConfigError, match="no such folder"):
        write_report([], tmp_path / "none", tmp_path / "report")


def test_a_full_disk_leaves_the_older_index(runs, tmp_path, monkeypatch):
    write_report([], runs, tmp_path / "out")
    before = (tmp_path / "out/index.html").read_bytes()
    from frugalseg.analysis.html import report

    def full(*_):
        raise DiskFullError("full")

    monkeypatch.setattr(report, "experiment_html", full)
    with pytest.raises(DiskFullError):
        write_report([], runs, tmp_path / "out")
    assert (tmp_path / "out/index.html").read_bytes() == before


def test_pages_hold_no_address_of_the_network(runs, tmp_path):
    write_report([], runs, tmp_path / "out")
    for path in pages(tmp_path / "out"):
        page = Page(path)
        assert "://" not in path.read_text()
        assert all(alt for alt in page.alts)
        assert "script" not in page.tags or path.name == "index.html"


@pytest.mark.parametrize("text", ["{", "[]", '{"rows": [{"id": 1}], "claims": 1}', '{"rows": 3}'])
def test_damaged_claims_cost_the_claims_alone(runs, tmp_path, text):
    (runs / "claims").mkdir()
    (runs / "claims/claims.json").write_text(text)
    summary = write_report([], runs, tmp_path / "out")
    assert [name for name, _ in summary.others] == ["claims/claims.json"]
    assert [entry.name for entry in summary.entries] == ["mini-sfc-made-up"]
