"""Pages from templates: everything is escaped, and what a template asks for and does not get is an error."""

import os
import re
from datetime import UTC, datetime
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any
from urllib.parse import quote

from jinja2 import DictLoader, Environment, StrictUndefined
from markupsafe import Markup

from frugalseg._version import __version__
from frugalseg.analysis.html.effort import Command
from frugalseg.analysis.html.experiments import PAPERS
from frugalseg.analysis.html.page import Page
from frugalseg.analysis.html.states import State
from frugalseg.errors import printable

SIGNS = {State.DONE: "✓", State.RUNNING: "…", State.HALF: "◐", State.BROKEN: "✗", State.EMPTY: "○"}
SECTIONS = {
    "troubles": "Not as it should be", "scores": "Scores", "paper": "Beside the paper", "groups": "Head, middle, tail",
    "classes": "Classes", "thresholds": "Thresholds", "curves": "Learning curves", "gallery": "Image by image",
    "pictures": "Pictures", "confusion": "Confusion", "stages": "Stages, time, memory", "provenance": "Provenance",
}  # fmt: skip
"""Anchor -> name in the page's list of contents."""
LINKED = ("config.yaml", "provenance.json", "metrics.json", "metrics.csv", "done.json")
"""Files of a stage that its command links to."""


def experiment_html(page: Page, folder: Path) -> str:
    """The page of one experiment.

    Args:
        page: what stands on it.
        folder: where it will lie; links to files of runs are relative to it.
    """

    def link(path: Path) -> str:
        return address(path, folder)

    def linked(command: Command) -> list[tuple[str, str]]:
        run = next(s for s in page.experiment.stages if (s.name, s.place) == (command.stage, command.place))
        return [(name, link(run.path / name)) for name in LINKED if (run.path / name).is_file()]

    shown = {
        "troubles": page.troubles, "scores": page.scores.grids, "paper": page.comparison, "groups": page.groups,
        "classes": page.classes, "thresholds": page.sweeps, "curves": page.curves, "gallery": page.gallery,
        "pictures": page.pictures, "confusion": page.confusion, "stages": True, "provenance": True,
    }  # fmt: skip
    sections = [(anchor, name) for anchor, name in SECTIONS.items() if shown[anchor]]
    paper = PAPERS.get(page.experiment.paper, "no paper of its own")
    return _render("experiment.html.j2", page=page, paper=paper, sections=sections, link=link, files=linked)


def index_html(**content: Any) -> str:
    """The first page.

    Args:
        **content: what `index.html.j2` asks for.
    """
    return _render("index.html.j2", script=Markup(_file("filter.js")), **content)  # noqa: S704 - a file of ours


def address(path: Path, folder: Path) -> str:
    """Relative address of a file, whatever its name holds.

    Args:
        path: the file or folder.
        folder: of the page.
    """
    relative = os.path.relpath(path.resolve(), folder.resolve())
    return quote(os.fsencode(relative.replace(os.sep, "/")))


def _render(name: str, **content: Any) -> str:
    written = datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")
    style = Markup(_file("style.css"))  # noqa: S704 - a file of ours
    return _templates().get_template(name).render(style=style, version=__version__, written=written, **content)


@cache
def _templates() -> Environment:
    names = ("base.html.j2", "parts.html.j2", "experiment.html.j2", "index.html.j2")
    loader = DictLoader({name: _file(name) for name in names})
    found = Environment(
        loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True,
        finalize=lambda value: type(value)(printable(value)) if isinstance(value, str) else value,
    )  # fmt: skip
    found.filters["slug"] = lambda text: re.sub(r"[^a-z]+", "-", str(text).lower())
    found.filters["sign"] = lambda state: SIGNS[state]
    found.filters["numeric"] = lambda text: bool(re.match(r"[≈ +−-]*\d", str(text))) and len(str(text)) < 24
    return found


@cache
def _file(name: str) -> str:
    return files("frugalseg.analysis.html").joinpath("templates", name).read_text(encoding="utf-8")
