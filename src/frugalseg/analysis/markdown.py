"""Results tables in README files, generated from aggregates: never typed."""

import re
from collections.abc import Sequence
from pathlib import Path

from frugalseg.analysis.chain import chain_lines
from frugalseg.analysis.groups import GROUPS
from frugalseg.analysis.names import in_page
from frugalseg.analysis.scores import ending
from frugalseg.analysis.seeds import Aggregate
from frugalseg.analysis.tables import BEST, LOGITS, caption, cell, names_of, only_swept, splits_of, threshold_cell
from frugalseg.errors import ConfigError
from frugalseg.run import write_text

OTHER_STAGES = ("score-labels", "score-segment")
"""Score stages that are not of maps."""
MARKER = "results"
"""Name of the marked place where a page has one alone."""
SWEPT_COLUMNS = {"background IoU %": "iou{}/background", "false positives %": "false_positive{}"}
"""Further headings of maps that are swept only, and their keys: `{}` stands for a rule's ending."""


def marks(name: str = MARKER) -> tuple[str, str]:
    """The lines between which tables stand.

    Args:
        name: of the place, so that a page can have several.

    Raises:
        ConfigError: the name has odd signs.
    """
    if not re.fullmatch(r"[A-Za-z0-9_-]+", name):
        raise ConfigError(f"--marker: {name!r} cannot be a name; take letters, digits, _ and -, such as ablation")
    return f"<!-- {name}: begin (frugalseg report --into) -->", f"<!-- {name}: end -->"


def score_lines(results: dict[str, Aggregate]) -> list[str]:
    """Mean IoU of every experiment, map and class group, as lines of a markdown table.

    Best thresholds are chosen on true masks, and stay out of the page where a map has a background of its own. Maps
    that have none can be scored in no other way: beside them stand what the threshold is and how far they spill over.
    """
    found = [
        (n, split, rule) for n, rows in results.items() for split in splits_of(rows) for rule in _told(rows, split)
    ]
    swept = any(only_swept(rule) for _, _, rule in found)
    further = [*SWEPT_COLUMNS, "threshold"] if swept else []
    columns = ["experiment", "split", "map", "mIoU %", *GROUPS, *further, "seeds"]
    lines = [f"| {' | '.join(columns)} |", "|---" * len(columns) + "|"]
    for name, split, rule in found:
        rows, key = results[name], f"{split}/miou{ending(rule)}"
        cells = [cell(rows, key + ending(group)) for group in ("", *GROUPS)]
        if swept:
            cells += [cell(rows, f"{split}/{form.format(ending(rule))}") for form in SWEPT_COLUMNS.values()]
            cells.append(threshold_cell(rows, split, rule))
        head = " | ".join(map(in_page, (name, split, caption(rule))))
        lines.append(f"| {head} | {' | '.join(cells)} | {rows[key]['n']:.0f} |")
    return lines


def _told(rows: Aggregate, split: str) -> list[str]:
    """Rules and masks that a page tells of."""
    return [name for name in names_of(rows, split) if only_swept(name) or not name.endswith(BEST)]


def logit_lines(results: dict[str, Aggregate]) -> list[str]:
    """Mean logits on shared bodies as lines of a markdown table; empty where nothing was measured."""
    measured = {n: rows for n, rows in results.items() if any(key.endswith(f"/logit_{LOGITS[0]}") for key in rows)}
    if not measured:
        return []
    columns = ["experiment", *[f"{key.split('_')[0]} object: {key.split('_')[2]} logit" for key in LOGITS]]
    lines = ["", f"| {' | '.join(columns)} |", "|---" * len(columns) + "|"]
    for name, rows in measured.items():
        split = next(key.split("/")[0] for key in rows if "/logit_" in key)
        cells = " | ".join(cell(rows, f"{split}/logit_{key}", 1.0) for key in LOGITS)
        lines.append(f"| {in_page(name)} | {cells} |")
    return lines


def write_into(
    path: Path, results: dict[str, dict[str, Aggregate]], marker: str = MARKER, further: Sequence[str] = ()
) -> None:
    """Replace what stands between the markers of a page.

    Args:
        path: the page.
        results: experiment -> stage -> aggregate.
        marker: name of the markers, see `marks`.
        further: lines that follow.

    Raises:
        ConfigError: the page is not there or lacks the markers, or their name has odd signs.
    """
    put_between(path, *marks(marker), "\n".join(page_lines_of(results, further)))


def page_lines_of(results: dict[str, dict[str, Aggregate]], further: Sequence[str] = ()) -> list[str]:
    """All tables of a page: stages of maps come first, the whole chain in a table of its own.

    Args:
        results: experiment -> stage -> aggregate.
        further: lines that follow.
    """
    maps: dict[str, Aggregate] = {}
    for name, stages in results.items():
        of_maps = {stage: rows for stage, rows in stages.items() if not stage.startswith(OTHER_STAGES)}
        # a stage of this name scores the same images for every experiment
        of_maps = {"score": of_maps["score"]} if "score" in of_maps else of_maps
        maps[name] = {key: row for rows in of_maps.values() for key, row in rows.items()}
    scored = [*score_lines(maps), *logit_lines(maps), *chain_lines(results)] if results else []
    between = [""] if scored and further else []
    return [*scored, *between, *further]


def read_between(path: Path, begin: str, end: str) -> str:
    """What stands between two marks of a page, without the line ends next to them.

    Args:
        path: the page.
        begin: the line before.
        end: the line after.

    Raises:
        ConfigError: the page is not there or lacks the marks, in this order.
    """
    text = path.read_text() if path.is_file() else ""
    if end not in text.partition(begin)[2]:
        raise ConfigError(f"{path}: has no lines `{begin}` and `{end}`; put them where the tables should stand")
    return text.split(begin, 1)[1].split(end, 1)[0].strip("\n")


def put_between(path: Path, begin: str, end: str, body: str) -> None:
    """Replace what stands between two marks of a page.

    Args:
        path: the page.
        begin: the line before.
        end: the line after.
        body: lines.

    Raises:
        ConfigError: the page is not there or lacks the marks, in this order.
    """
    read_between(path, begin, end)
    before, rest = path.read_text().split(begin, 1)
    after = rest.split(end, 1)[1]
    write_text(path, f"{before}{begin}\n{body.rstrip()}\n{end}{after}")
