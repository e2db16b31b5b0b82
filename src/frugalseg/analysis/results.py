"""Records behind the tables of pages: `results/*.json`, from which alone a page's tables can be written again.

A record holds raw numbers (means, deviations, the values of all seeds), the page and the marks that its tables stand
between, and how it was made. What stands on a page is what `render` makes of its record: a typed number differs.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from frugalseg.analysis.claims_rows import row_from
from frugalseg.analysis.claims_runs import worked
from frugalseg.analysis.claims_tables import claims_lines
from frugalseg.analysis.dense_rows import DenseRow, Facts
from frugalseg.analysis.dense_tables import FIGURES, dense_lines
from frugalseg.analysis.few_shot import Scores, Stage
from frugalseg.analysis.few_shot_rows import Row
from frugalseg.analysis.few_shot_settings import Settings
from frugalseg.analysis.few_shot_tables import page_lines
from frugalseg.analysis.markdown import MARKER, marks, page_lines_of, put_between, read_between
from frugalseg.analysis.seeds import Aggregate
from frugalseg.errors import ConfigError
from frugalseg.run import write_text

FOLDER = "results"
"""Of all records, in the top folder of a checkout."""
ON_PAGES = ("miou", "logit_", "threshold_", "false_positive")
"""Beginnings of the scores that tables of pages have; and the IoU of the background. The rest is in aggregates."""
SHORT = 120
"""Signs of a line into which records put what has parts."""
Record = dict[str, Any]


def record_path(page: Path, marker: str = MARKER) -> Path | None:
    """Where the record of a place on a paper's page belongs: `results/<paper>[-<marker>].json`.

    Args:
        page: any page.
        marker: name of the place.

    Returns:
        None for pages that are not `<top>/src/frugalseg/papers/<paper>/README.md`.
    """
    *top, source, package, papers, paper, name = ("", "", "", "", "", *page.resolve().parts)
    if (source, package, papers, name) != ("src", "frugalseg", "papers", "README.md"):
        return None
    return Path(*filter(None, top)) / FOLDER / (paper + ("" if marker == MARKER else f"-{marker}") + ".json")


def record_of(results: dict[str, dict[str, Aggregate]], few_shot: Sequence[Row], dense: Sequence[DenseRow]) -> Record:
    """The numbers behind a page's tables.

    Args:
        results: experiment -> stage -> aggregate.
        few_shot: rows of few-shot tests.
        dense: rows of evaluations of dense features.
    """
    return {
        "scores": {
            name: {stage: {key: row for key, row in rows.items() if _on_pages(key)} for stage, rows in stages.items()}
            for name, stages in results.items()
        },
        "few_shot": [
            {"experiment": row.experiment, "stages": list(map(_stage_content, row.stages))} for row in few_shot
        ],
        "dense": [
            {
                "experiment": row.experiment,
                "stage": row.stage,
                "facts": row.facts._asdict(),
                "figures": {key: row.figures[key] for key in FIGURES.values() if key in row.figures},
            }
            for row in dense
        ],
    }


def _on_pages(key: str) -> bool:
    """Whether tables of pages can have a score."""
    _, _, name = key.partition("/")
    return name.startswith(ON_PAGES) or (name.startswith("iou") and name.endswith("/background"))


def _stage_content(stage: Stage) -> Record:
    scores = {str(base): found._asdict() for base, found in stage.scores.items()}
    return {
        "fold": stage.fold, "seed": stage.seed, "shots": stage.shots,
        "settings": stage.settings._asdict(), "scores": scores, "costs": stage.costs,
    }  # fmt: skip


def _stage_from(content: Mapping[str, Any]) -> Stage:
    """A stage again: JSON knows neither tuples nor numbers as keys."""
    settings = dict(content["settings"])
    settings |= {"names": tuple(settings["names"]), "tested": tuple(settings["tested"])}
    scores = {
        int(base): Scores(**{**found, "iou": {int(c): value for c, value in found["iou"].items()}})
        for base, found in content["scores"].items()
    }
    place = (content["fold"], content["seed"], content["shots"])
    return Stage(*place, Settings(**settings), scores, dict(content["costs"]))


def render(record: Record) -> list[str]:
    """Lines between the marks of a page, from its record alone.

    Raises:
        KeyError: the record lacks something; TypeError, ValueError: something in it is odd.
    """
    if "claims" in record:
        seconds = worked(record["runs"])
        return claims_lines([row_from(row) for row in record["rows"]], record["claims"], seconds)
    rows = [Row(each["experiment"], tuple(map(_stage_from, each["stages"]))) for each in record["few_shot"]]
    dense = [
        DenseRow(each["experiment"], each["stage"], Facts(**each["facts"]), each["figures"]) for each in record["dense"]
    ]
    return page_lines_of(record["scores"], [*page_lines(rows), *dense_lines(dense)])


def write_record(path: Path, record: Record, page: Path, marker: str) -> None:
    """Write a record, whole or not at all.

    Args:
        path: `<top>/results/<name>.json`.
        record: of `record_of` or of claims, and how it was made.
        page: below `<top>`.
        marker: of the place on it.

    Raises:
        ConfigError: the page is not below the folder that holds `results/`.
    """
    top = path.resolve().parent.parent
    if not page.resolve().is_relative_to(top):
        raise ConfigError(f"{page}: is not below {top}, where its record {path} would be looked for; move either")
    place = {"page": page.resolve().relative_to(top).as_posix(), "marker": marker}
    write_text(path, dump({**record, **place}) + "\n")


def dump(content: Any, indent: int = 0) -> str:
    """JSON with a line for whatever is short or holds only plain values: rows of numbers can be read and compared.

    Keys keep their order, which is that of the tables.

    Args:
        content: any JSON-able value.
        indent: spaces before it.
    """
    line = json.dumps(content)
    parts = (
        list(content.values()) if isinstance(content, Mapping) else content if isinstance(content, list | tuple) else []
    )
    if indent + len(line) <= SHORT or not any(isinstance(part, Mapping | list | tuple) and part for part in parts):
        return line
    inner = " " * (indent + 2)
    keys = [f"{json.dumps(key)}: " for key in content] if isinstance(content, Mapping) else [""] * len(parts)
    lines = [f"{inner}{key}{dump(part, indent + 2)}" for key, part in zip(keys, parts, strict=True)]
    start, end = "{}" if isinstance(content, Mapping) else "[]"
    return f"{start}\n" + ",\n".join(lines) + f"\n{' ' * indent}{end}"


def read_records(top: Path) -> dict[Path, Record]:
    """All records of a checkout that have a place on a page.

    Args:
        top: folder that holds `results/`.

    Raises:
        ConfigError: there is none, or one is damaged.
    """
    found = {path: _read(path) for path in sorted((top / FOLDER).glob("*.json"))}
    if not found:
        raise ConfigError(f"{top / FOLDER}: holds no records; write one with `frugalseg report RUN... --into PAGE`")
    return {path: record for path, record in found.items() if "page" in record}


def _read(path: Path) -> Record:
    try:
        content = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path}: not readable ({error}); restore it, or write it again by its command") from error
    if not isinstance(content, dict):
        raise ConfigError(f"{path}: not a JSON object; restore it, or write it again by its command")
    return content


def body_of(path: Path, record: Record) -> str:
    """What must stand between the marks of a record's page.

    Raises:
        ConfigError: the record is none.
    """
    try:
        return "\n".join(render(record)).strip("\n").rstrip()
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ConfigError(f"{path}: no record of tables ({error!r}); restore it, or write it again") from error


def differs(top: Path, path: Path, record: Record) -> bool:
    """Whether a page shows anything else than its record.

    Args:
        top: folder that holds `results/`.
        path: of the record.
        record: its content.

    Raises:
        ConfigError: the page is not there or lacks the marks, or the record is none.
    """
    return read_between(top / record["page"], *marks(record["marker"])) != body_of(path, record)


def rewrite(top: Path, path: Path, record: Record) -> None:
    """Put the tables of a record into its page.

    Args:
        top: folder that holds `results/`.
        path: of the record.
        record: its content.

    Raises:
        ConfigError: the page is not there or lacks the marks, or the record is none.
    """
    put_between(top / record["page"], *marks(record["marker"]), body_of(path, record))
