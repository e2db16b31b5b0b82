"""Results tables in README files, generated from aggregates: never typed."""

from pathlib import Path

from frugalseg.analysis.chain import chain_lines
from frugalseg.analysis.groups import GROUPS
from frugalseg.analysis.seeds import Aggregate
from frugalseg.analysis.tables import LABELS, LOGITS, cell, rules_of, splits_of
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
            for rule in rules_of(rows, split):
                key = f"{split}/miou_{rule}"
                cells = [cell(rows, key + (f"_{group}" if group else "")) for group in ("", *GROUPS)]
                lines.append(f"| {name} | {split} | {LABELS[rule]} | {' | '.join(cells)} | {rows[key]['n']:.0f} |")
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
    text = path.read_text() if path.is_file() else ""
    if BEGIN not in text or END not in text:
        raise ConfigError(f"{path}: has no lines `{BEGIN}` and `{END}`; put them where the tables should stand")
    before, rest = text.split(BEGIN, 1)
    after = rest.split(END, 1)[1]
    maps: dict[str, Aggregate] = {}
    for name, stages in results.items():
        of_maps = {stage: rows for stage, rows in stages.items() if not stage.startswith(OTHER_STAGES)}
        maps[name] = {key: row for rows in of_maps.values() for key, row in rows.items()}
    body = "\n".join([*score_lines(maps), *logit_lines(maps), *chain_lines(results)])
    write_text(path, f"{before}{BEGIN}\n{body}\n{END}{after}")
