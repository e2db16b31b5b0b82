"""`frugalseg report --html` in a real browser, from the command line, and of a hundred runs."""

import time

import pytest

from frugalseg.cli import main
from tests.analysis import few_shot_runs, test_dense_rows
from tests.analysis.html.pages import broken_links
from tests.analysis.html.runs import write_experiment
from tests.browser import Browser, chromium, faults


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    runs = tmp_path_factory.mktemp("report") / "runs"
    write_experiment(runs, "mini-sfc-" + "a-name-that-is-long-" * 3)
    broken = write_experiment(runs, "mini-cti-broken", seeds=(0,))
    (broken / "seed0/score-val/metrics.json").write_text('{"val/miou": ')
    (broken / "seed0/classify/pictures/image0_step000040.png").write_bytes(b"no picture")
    for fold in range(3):
        few_shot_runs.write_test(runs, "mini-dsmf", fold=fold)
    for seed in range(2):
        test_dense_rows.stage(runs / "mini-mevt", seed=seed)
    assert main(["report", "--html", str(runs / "report"), "--runs", str(runs)]) == 0
    return runs / "report"


def pages(report):
    return [report / "index.html", *sorted((report / "pages").glob("*.html"))]


def test_all_links_resolve(report):
    assert len(pages(report)) == 5
    assert {path.name: broken for path in pages(report) if (broken := broken_links(path))} == {}


def test_in_a_browser(report, tmp_path):
    """Pictures load, the console is silent, nothing sticks out on a desk, on a phone and in print."""
    found = {}
    with Browser(tmp_path / "profile") as browser:
        for path in pages(report):
            for width, printed in ((1280, False), (390, False), (700, True)):
                if wrong := faults(browser, path, width, printed):
                    found[path.name, width] = wrong
                browser.screenshot(tmp_path / f"{path.stem}-{'print' if printed else width}.png")
                assert (tmp_path / f"{path.stem}-{'print' if printed else width}.png").stat().st_size > 2000
    assert found == {}


def test_dark_and_light_differ(report, tmp_path):
    grounds = []
    with Browser(tmp_path / "profile") as browser:
        for dark in (False, True):
            browser.open(report / "index.html", dark=dark)
            grounds.append(browser.evaluate("getComputedStyle(document.body).backgroundColor"))
    assert grounds[0] == "rgb(255, 255, 255)" and grounds[1] != grounds[0]


FAULTY = {
    "picture not loaded": '<img src="none.png" alt="x">',
    "error": "<script>console.error('oh')</script>",
    "exception": "<script>missing()</script>",
    "wider than": '<div style="width: 3000px">wide</div>',
    "asks the network": '<img src="http://127.0.0.1:9/x.png" alt="x">',
}


def test_the_browser_sees_what_is_wrong(tmp_path):
    """Each fault of a page is found, and a sound page has none."""
    with Browser(tmp_path / "profile") as browser:
        for words, body in FAULTY.items():
            page = tmp_path / "page.html"
            page.write_text(f"<!doctype html><title>t</title><link rel=icon href='data:,'><body>{body}")
            assert any(words in fault for fault in faults(browser, page, 800)), words
        page.write_text("<!doctype html><title>t</title><link rel=icon href='data:,'><body>fine")
        assert faults(browser, page, 800) == []


def test_without_a_browser_the_check_is_skipped(monkeypatch, tmp_path):
    monkeypatch.delenv("FRUGALSEG_CHROMIUM", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(pytest.skip.Exception, match="no browser"):
        chromium()


def test_the_command_line_tells_what_is_wrong(report, capsys):
    runs = report.parent
    assert main(["report", "--html", str(runs / "report"), "--runs", str(runs)]) == 0
    told = capsys.readouterr()
    # the made-up few-shot fits hold no metrics.json
    assert "2 broken, 2 done" in told.out and "mini-cti-broken: broken" in told.err
    assert main(["report"]) == 2
    assert main(["report", "--html", str(runs / "report"), "--into", "page.md"]) == 2
    capsys.readouterr()
    before = pages(runs / "report")
    assert main(["report", "--html", str(runs / "report"), str(runs / "none")]) == 2
    assert "none: no such folder" in capsys.readouterr().err
    assert pages(runs / "report") == before
    assert main(["report", str(runs / "none"), str(before[0].parent)]) == 2
    assert "none: no such folder" in capsys.readouterr().err
    # among others it is listed
    assert main(["report", "--html", str(runs / "other"), str(runs / "none"), str(runs / "mini-cti-broken")]) == 0


@pytest.mark.slow
def test_a_hundred_runs(tmp_path):
    """Measured, not bounded here: `make benchmark ONLY=report` has the bound."""
    for number in range(100):
        write_experiment(tmp_path / "runs", f"mini-sfc-{number:03d}", seeds=(0,))
    began = time.process_time()
    assert main(["report", "--html", str(tmp_path / "report"), "--runs", str(tmp_path / "runs")]) == 0
    print(f"report of 100 runs: {time.process_time() - began:.1f} s of CPU")
    assert len(pages(tmp_path / "report")) == 101
