"""What `make benchmark` and `make benchmark-gpu` have measured, as tables of the index."""

import json
from pathlib import Path
from typing import Any

from frugalseg.analysis.few_shot_grid import Grid

FILES = {"benchmark": "speed and memory, one thread", "benchmark-gpu": "speed and memory on a GPU"}
"""Name of a file of rows, without its ending -> title of its table."""
ENDINGS = (".json", ".md", ".png")
COLUMNS = ["row", "value", "bound", "holds", "what"]
HOLDS = {True: "yes", False: "NO", None: ""}


def speed_files(root: Path) -> list[Path]:
    """Files of the benchmarks among the runs, which are no experiments.

    Args:
        root: folder of all runs.
    """
    return [root / f"{name}{ending}" for name in FILES for ending in ENDINGS]


def speed_grids(root: Path, others: list[tuple[str, str]]) -> list[Grid]:
    """Read rows of benchmarks.

    Args:
        root: folder of all runs; a benchmark that was not run has no table.
        others: takes the reason where a file cannot be read.
    """
    grids = []
    for name, title in FILES.items():
        path = root / f"{name}.json"
        if not path.is_file():
            continue
        try:
            rows = json.loads(path.read_text(encoding="utf-8"))
            told = {row["id"]: row for row in rows}
            machine = told.pop("machine", None)
            lines = [_line(row) for row in told.values()]
        except Exception as error:  # written by another version, or by hand: the rest of the report does without
            others.append((path.name, f"no table of speed: {' '.join(str(error).split())[:160]}"))
            continue
        grids += [Grid(title, COLUMNS, lines, [str(machine["what"])] if machine else [])] if lines else []
    return grids


def _line(row: dict[str, Any]) -> list[str]:
    sign = "≤" if row["better"] == "lower" else "≥"
    unit = "" if row["unit"] == "ratio" else f" {row['unit']}"
    missing = "failed" if "error" in row else "-"
    value = missing if row["value"] is None else f"{float(row['value']):.4g}{unit}"
    bound = "" if row["bound"] is None else f"{sign} {float(row['bound']):g}"
    told = row.get("error") or row.get("skipped") or row["what"]
    return [str(row["id"]), value, bound, HOLDS[row["holds"]], str(told)]
