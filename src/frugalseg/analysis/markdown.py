"""Results tables in README files, generated from aggregates: never typed."""

from pathlib import Path

from frugalseg.analysis.chain import chain_lines
from frugalseg.analysis.groups import GROUPS
from frugalseg.analysis.scores import ending
from frugalseg.analysis.seeds import Aggregate
from frugalseg.analysis.tables import BEST, LOGITS, caption, cell, names_of, splits_of
from frugalseg.errors import ConfigError
from frugalseg.run import write_text

OTHER_STAGES = ("score-labels", "score-segment")
"""Score stages that are not of maps."""
BEGIN, END = "<!-- results: begin (frugalseg report --into) -->", "<!-- results: end -->"


def score_lines(results: dict[str, Aggregate]) -> list[str]:
    """Mean IoU of every experiment, map and class group, as lines of a markdown table."""
    columns = ["experiment", "split", "map", "mIoU %", *GROUPS, "seeds"]
    lines = [f"| {' | '.join(columns)} |", "|---" * len(columns) + "|"]
    for name, rows in results.items():
        for split in splits_of(rows):
            # thresholds chosen on true masks stay out of the page
            for rule in (found for found in names_of(rows, split) if not found.endswith(BEST)):
                key = f"{split}/miou{ending(rule)}"
                cells = [cell(rows, key + ending(group)) for group in ("", *GROUPS)]
                lines.append(f"| {name} | {split} | {caption(rule)} | {' | '.join(cells)} | {rows[key]['n']:.0f} |")
    return lines


def logit_lines(results: dict[str, Aggregate]) -> list[str]:
    """Mean logits on shared bodies as lines of a markdown table; empty where nothing was measured."""
    measured = {n: rows for n, rows in results.items() if any(key.endswith(f"/logit_{LOGITS[0]}") for key in rows)}
    if not measured:
        return []
    columns = ["experiment", *[f"{key.split('_')[0]} object: {key.split('_')[2]} logit" for key in LOGITS]]
    lines = ["", f"| {' | '.join(columns)} |", "|---" * len(columns) + "|"]
    for name, rows in measured.items():
        split = next(key.split("/")[0] for key in rows if "/logit_" in key)
        lines.append(f"| {name} | " + " | ".join(cell(rows, f"{split}/logit_{key}", 1.0) for key in LOGITS) + " |")
    return lines


def write_into(path: Path, results: dict[str, dict[str, Aggregate]]) -> None:
    """Replace what stands between the markers of a page.

    Args:
        path: the page.
        results: experiment -> stage -> aggregate. Stages of maps come first, the whole chain in a table of its own.

    Raises:
        ConfigError: the page is not there or lacks the markers.
    """
    maps: dict[str, Aggregate] = {}
    for name, stages in results.items():
        of_maps = {stage: rows for stage, rows in stages.items() if not stage.startswith(OTHER_STAGES)}
        # a stage of this name scores the same images for every experiment
        of_maps = {"score": of_maps["score"]} if "score" in of_maps else of_maps
        maps[name] = {key: row for rows in of_maps.values() for key, row in rows.items()}
    put_between(path, BEGIN, END, "\n".join([*score_lines(maps), *logit_lines(maps), *chain_lines(results)]))


def put_between(path: Path, begin: str, end: str, body: str) -> None:
    """Replace what stands between two marks of a page.

    Args:
        path: the page.
        begin: the line before.
        end: the line after.
        body: lines.

    Raises:
        ConfigError: the page is not there or lacks the marks.
    """
    text = path.read_text() if path.is_file() else ""
    if begin not in text or end not in text:
        raise ConfigError(f"{path}: has no lines `{begin}` and `{end}`; put them where the tables should stand")
    before, rest = text.split(begin, 1)
    after = rest.split(end, 1)[1]
    write_text(path, f"{before}{begin}\n{body.rstrip()}\n{end}{after}")
