"""Names of runs, classes, images and notes that would be markup: in pages, in markdown, in a terminal."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from frugalseg.analysis.html import write_report
from frugalseg.analysis.html.svg import Line, line_chart
from frugalseg.analysis.names import in_page, shown
from frugalseg.cli import main
from tests.analysis.html.pages import Page, broken_links
from tests.analysis.html.runs import write_experiment, write_stage, write_world

NAMES = {
    "script": "<script>alert(1)</script>", "image": '"><img src=x onerror=alert(1)>', "quotes": "'\"` onmouseover=alert(1) x='",
    "address": "javascript:alert(1)", "data": "data:text⁄html,<b>", "closing": "</title></style></svg>--><b>", "parents": "..%2f..%2fx",
    "template": "{{ 7*7 }}{% include 'x' %}", "entity": "&lt;b&gt;&#x3c;b", "pipe": "a|b|c", "lines": "a\nb\r\nc", "escape": "\x1b[31mred\x1b]0;t\x07",
    "direction": "a\u202egpj.exe", "brackets": "[bold]x[/bold][link=http://x]y[/]", "tick": "`a` **b** [c](javascript:alert(1))",
    "colon": "C:", "hash": "a#b?c=d", "percent": "%3Cscript%3E", "spaces": "  a  ", "style": "x;}body{display:none",
}  # fmt: skip
ALLOWED = {"script"}
"""Elements of ours: the filter of the first page."""


def pages(out: Path) -> list[Path]:
    return [out / "index.html", *sorted((out / "pages").glob("*.html"))]


@pytest.fixture(scope="module")
def hostile(tmp_path_factory):
    """One run for each name, which also names its classes, pictures, commands and notes."""
    base = tmp_path_factory.mktemp("hostile")
    world = write_world(base / "world", 0)
    for number, name in enumerate(NAMES.values()):
        # as it may stand in a file's name: without slashes, and one for each run
        folder = base / "runs" / f"{number}{name.replace('/', '∕')}"
        metrics = {
            f"val/iou/{name}": 0.5,
            "val/miou": 0.5,
            f"val/miou_{name.replace('/', '')}": 0.4,
            f"{name}/miou": 0.3,
        }
        stage = write_stage(folder / "seed0" / "score-val", world, metrics)
        (stage / "groups.json").write_text(json.dumps({"head": [name], "middle": [], "tail": []}))
        record = json.loads((stage / "provenance.json").read_text())
        record |= {
            "command": ["frugalseg", name],
            "git": {"commit": name, "changed": True},
            "resumed": [name],
            "versions": {name: name},
        }
        record |= {"experiment": name, "stage": name, "hardware": {"processor": name, "gpus": [name]}, "notes": name}
        (stage / "provenance.json").write_text(json.dumps(record))
        pictures = stage / "pictures"
        pictures.mkdir()
        Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(
            pictures / f"{number}{name.replace('/', '∕')}_step000040.png"
        )
        (pictures / f"{number}{name.replace('/', '∕')}_step000050.png").write_text("no picture")
        (stage / "metrics.csv").write_text(
            f'epoch,step,"{name.replace(chr(34), chr(34) * 2)}",val/miou\n0,1,0.5,0.2\n0,2,0.4,0.3\n'
        )
    write_report([], base / "runs", base / "out")
    return base


def test_pages_hold_no_elements_of_names(hostile):
    plain = write_experiment(hostile / "plain", "mini-sfc")
    write_report([plain], hostile / "plain", hostile / "plain-out")
    known = {tag for path in pages(hostile / "plain-out") for tag in Page(path).tags} | {
        "p",
        "b",
        "section",
        "ul",
        "li",
        "img",
        "a",
    }
    found = pages(hostile / "out")
    assert len(found) == len(NAMES) + 1
    for path in found:
        page, text = Page(path), path.read_text(encoding="utf-8")
        assert set(page.tags) <= known, set(page.tags) - known
        assert page.tags.count("script") == (1 if path.name == "index.html" else 0)
        assert page.tags.count("title") == 1 and page.tags.count("style") == 1
        assert not re.search(r"<[a-z][^>]*\son[a-z]+\s*=", re.sub(r'"[^"]*"', '""', text)), path.name
        assert "\x1b" not in text and "\u202e" not in text


def test_links_stay_inside(hostile):
    """Nothing leads to a script, out of the folder, or nowhere."""
    for path in pages(hostile / "out"):
        page = Page(path)
        assert not [link for link in page.links if re.match(r"\s*(javascript|vbscript|data:text)", link, re.I)]
        assert broken_links(path) == []


def test_files_of_the_report_have_plain_names(hostile):
    names = [path.relative_to(hostile / "out").as_posix() for path in (hostile / "out").rglob("*") if path.is_file()]
    assert names and all(re.fullmatch(r"[\w./-]+", name) for name in names), names
    assert {path.name for path in hostile.iterdir()} >= {"out", "runs", "world"}


def test_the_names_are_still_told(hostile):
    text = Page(hostile / "out/index.html").text
    for name in ("<script>alert(1)<∕script>", "javascript:alert(1)", "{{ 7*7 }}", "a|b|c", "\\x1b[31mred"):
        assert name in text


def test_drawings(hostile):
    for name in NAMES.values():
        chart = line_chart(name, [Line(name, [(0.0, 1.0), (1.0, 2.0)])], name, best=True)
        assert set(re.findall(r"<(/?[a-zA-Z]+)", str(chart.svg))) <= {
            "svg",
            "/svg",
            "line",
            "text",
            "/text",
            "polyline",
            "circle",
        }


@pytest.mark.parametrize("name", NAMES)
def test_the_terminal_and_markdown(tmp_path, capsys, name):
    """`report` prints a table and writes one into a page: neither is broken by a name."""
    world = write_world(tmp_path / "world", 0)
    folder = tmp_path / NAMES[name].replace("/", "∕").strip()
    write_stage(folder / "seed0/score", world, {"val/miou_mw": 0.5, f"val/iou_mw/{NAMES[name]}": 0.5})
    page = tmp_path / "page.md"
    page.write_text("<!-- results: begin (frugalseg report --into) -->\n<!-- results: end -->\n")
    assert main(["report", str(folder), "--classes", "--into", str(page)]) == 0
    told = capsys.readouterr().out
    assert "\x1b" not in told and "\x07" not in told and "\u202e" not in told
    if name == "brackets":
        assert "[bold]x[/bold]" in told
    rows = [line for line in page.read_text().splitlines() if line.startswith("|")]
    assert len(rows) == 3 and len({len(re.findall(r"(?<!\\)\|", row)) for row in rows}) == 1
    assert "<" not in rows[2]


def test_cells():
    assert in_page("a|b\nc<d\x1b[0m") == "a\\|b c&lt;d\\x1b[0m"
    assert shown("[red]a\x07\nb") == "\\[red]a\\x07 b"
    assert in_page("**54.3** ± 0.2") == "**54.3** ± 0.2"


def test_a_message_about_a_file_with_an_odd_name(tmp_path, capsys):
    for name in ("escape", "direction", "lines"):
        path = tmp_path / NAMES[name].replace("/", "∕")
        assert main(["show", "--config", str(path), "--out", str(tmp_path / "o")]) == 2
        told = capsys.readouterr().err
        assert "\x1b" not in told and "\u202e" not in told and len(told.splitlines()) == 1
