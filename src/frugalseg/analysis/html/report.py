"""Writing the report: one page per experiment, and last of all the index; a broken run never stops the others."""

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from frugalseg.analysis.few_shot_grid import Grid
from frugalseg.analysis.html.claims import claims_grid
from frugalseg.analysis.html.experiments import OTHER, PAPERS, Experiment, read_experiment
from frugalseg.analysis.html.page import Page, make_page
from frugalseg.analysis.html.pictures import FOLDER, Album, Picture
from frugalseg.analysis.html.render import address, experiment_html, index_html
from frugalseg.analysis.html.speed import speed_files, speed_grids
from frugalseg.analysis.html.states import State
from frugalseg.errors import ConfigError, DiskFullError, printable
from frugalseg.run import write_text

PAGES = "pages"
CLAIMS, SPEED = "claims", "benchmark"
"""A folder, and the name of files, among the runs that are no experiment; the report tells of them on its own."""
MARK = ".frugalseg-report"
"""Says that a folder is a report, whose older pages and pictures may be replaced."""


class Entry(NamedTuple):
    """One line of the index.

    Attributes:
        name: of the experiment.
        address: of its page; empty where it could not be made.
        paper: package of its paper.
        state: of the experiment.
        headline: the score that stands for it.
        what: what that is.
        seeds: how many.
        stages: finished ones of all.
        time: of work.
        troubles: the gravest, in words.
    """

    name: str
    address: str
    paper: str
    state: State
    headline: str
    what: str
    seeds: str
    stages: str
    time: str
    troubles: str


class Summary(NamedTuple):
    """What was written.

    Attributes:
        first: the first page.
        entries: one per experiment.
        others: (name, reason) of what is none.
    """

    first: Path
    entries: list[Entry]
    others: list[tuple[str, str]]


class Speed(NamedTuple):
    """What benchmarks have measured.

    Attributes:
        tables: of rows.
        picture: of growing costs.
    """

    tables: list[Grid]
    picture: Picture | None


def write_report(experiments: Sequence[Path], root: Path, out: Path) -> Summary:
    """Write the report of some experiments.

    Args:
        experiments: folders `runs/<experiment>[-<name>]`; none: all of `root`.
        root: folder of all runs, where `claims/claims.json` lies too.
        out: folder of the report; an older report in it is replaced, other files are refused.

    Raises:
        ConfigError: there are no runs, or `out` holds something else.
        DiskFullError: no room is left; the index is then still the older one.
    """
    _claim(out)
    folders = list(experiments) or _children(root, out)
    written: set[str] = set()
    entries, others, taken = list[Entry](), list[tuple[str, str]](), {CLAIMS, SPEED}
    for folder in folders:
        found = read_experiment(folder)
        if isinstance(found, str):
            others.append((printable(folder.name or str(folder)), found))
            continue
        slug = _slug(found.name, taken)
        entry, files = _write_page(found, slug, out)
        entries.append(entry)
        written |= files
    claims = claims_grid(root / CLAIMS / "claims.json", others)
    plot = claims and Album(out, CLAIMS).copy(
        root / CLAIMS / "claims.png", "effects with 95 % intervals", "forest plot"
    )
    growth = root / f"{SPEED}.png"
    speed = Speed(
        speed_grids(root, others),
        Album(out, SPEED).copy(growth, "growth of cost with size", "lines over sizes") if growth.is_file() else None,
    )
    _remove_older(out, written | {picture.source for picture in (plot, speed.picture) if picture})
    index = out / "index.html"
    write_text(index, _index(entries, others, (claims, plot), speed))
    return Summary(index, entries, others)


def _claim(out: Path) -> None:
    """Make a folder a report, unless it is something else."""
    if out.exists() and not out.is_dir():
        raise ConfigError(f"--html {out}: is a file; give a folder")
    ours = ("index.html", PAGES, FOLDER)
    if not (out / MARK).is_file() and any((out / name).exists() for name in ours):
        raise ConfigError(f"--html {out}: holds pages that are no report of frugalseg; give another folder")
    write_text(out / MARK, "Pages and pictures here are made by `frugalseg report --html` and replaced by it.\n")


def _children(root: Path, out: Path) -> list[Path]:
    """Folders and files of a folder of runs, but for the report itself."""
    if not root.is_dir():
        raise ConfigError(f"{root}: no such folder of runs; run an experiment first, or name folders of some")
    left_out = {path.resolve() for path in (out, root / CLAIMS, *speed_files(root))}
    return [path for path in sorted(root.iterdir()) if path.name[0] != "." and path.resolve() not in left_out]


def _slug(name: str, taken: set[str]) -> str:
    """A name for addresses and files that no other experiment has, whatever the file system thinks of case."""
    plain = re.sub(r"[^A-Za-z0-9_.-]", "_", name).strip(".")[:120].lower() or "experiment"
    number, slug = 1, plain
    while slug in taken:
        number += 1
        slug = f"{plain}-{number}"
    taken.add(slug)
    return slug


def _write_page(experiment: Experiment, slug: str, out: Path) -> tuple[Entry, set[str]]:
    """Write one page; its line of the index, and the files that it needs."""
    path = out / PAGES / f"{slug}.html"
    try:
        page = make_page(experiment, slug, out)
        write_text(path, experiment_html(page, path.parent))
    except DiskFullError:
        raise
    except Exception as error:  # whatever a damaged run makes a reader raise, the others are reported
        reason = f"no page: {type(error).__name__}: {' '.join(str(error).split())[:200]}"
        return _entry(experiment, None, "", reason), set()
    pictures = {
        p.source for rows in (page.gallery, page.pictures, page.confusion) for row in rows for p in row.pictures
    }
    return _entry(experiment, page, address(path, out), ""), {f"{PAGES}/{slug}.html", *pictures}


def _entry(experiment: Experiment, page: Page | None, where: str, failed: str) -> Entry:
    reasons = [failed] if failed else []
    for place, _, reason in page.troubles if page else ():
        reasons.append(f"{place}: {reason}" if place else reason)
    told = "; ".join(printable(reason) for reason in reasons[:3])
    more = f"; and {len(reasons) - 3} more" if len(reasons) > 3 else ""
    flawed = bool(failed) or any(state == State.BROKEN for _, state, _ in (page.troubles if page else ()))
    done = sum(stage.state is State.DONE for stage in experiment.stages)
    return Entry(
        experiment.name, where, experiment.paper, State.BROKEN if flawed else experiment.state,
        page.scores.headline if page else "-", page.scores.what if page else "", str(len(experiment.seeds)),
        f"{done} of {len(experiment.stages)}", page.time if page else "-", told + more,
    )  # fmt: skip


def _index(
    entries: Sequence[Entry],
    others: Sequence[tuple[str, str]],
    claims: tuple[Grid | None, Picture | None],
    speed: Speed,
) -> str:
    names = {**PAPERS, OTHER: "Others"}
    groups = [(paper, name, [e for e in entries if e.paper == paper]) for paper, name in names.items()]
    counts = Counter(entry.state for entry in entries)
    return index_html(
        entries=entries,
        groups=[group for group in groups if group[2]],
        counts=[(state, counts[state]) for state in State if counts[state]],
        claims=claims[0],
        plot=claims[1],
        speed=speed,
        others=_by_reason(others),
    )


def _by_reason(others: Sequence[tuple[str, str]]) -> list[tuple[str, list[str]]]:
    """What was left out, names with one reason together."""
    found: dict[str, list[str]] = {}
    for name, reason in others:
        found.setdefault(reason, []).append(name)
    return list(found.items())


def _remove_older(out: Path, written: Iterable[str]) -> None:
    """Remove pages and pictures of an earlier report that this one does not have."""
    keep = set(written)
    for folder in (out / PAGES, out / FOLDER):
        for path in sorted(folder.rglob("*"), reverse=True):
            if path.is_dir():
                if not any(path.iterdir()):
                    path.rmdir()
            elif path.relative_to(out).as_posix() not in keep:
                path.unlink()
