"""`python -m tests.benchmark [--only PREFIX] [--out FILE] [--quick] [--into PAGE]`: run rows, print a table, write them."""

import argparse
import json
import os
import platform
import sys
import traceback
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import cv2
import torch
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from frugalseg.analysis.markdown import put_between
from tests.benchmark.measure import REPOSITORY, Group, Measured, Row, Skip
from tests.benchmark.registry import GROUPS

THREADS = 1
PACKAGES = ("torch", "torchvision", "timm", "lightning", "numpy", "pillow")

Record = dict[str, Any]


def record(row: Row, measured: Measured | None, quick: bool, error: str | None = None) -> Record:
    """One row of the file. Tiny sizes say nothing about a bound, so quick rows leave it open."""
    value = None if measured is None else round(measured.value, 4)
    note = f" [{measured.note}]" if measured and measured.note else ""
    entry: Record = {
        "id": row.id,
        "what": row.what + note + (" [quick: tiny sizes]" if quick else ""),
        "value": value,
        "unit": row.unit,
        "bound": None if quick else row.bound,
        "better": row.better,
        "holds": None if quick or value is None else row.holds(value),
    }
    return entry | (measured.extra if measured else {}) | ({"error": error} if error else {})


def run_group(group: Group, only: str, quick: bool) -> list[Record]:
    """Run a group and keep the wanted rows; a failure becomes rows with `error`, what is not here rows with `skipped`."""
    wanted = [row for row in group.rows if row.id.startswith(only)]
    try:
        values = group.run(quick)
        return [record(row, values[row.id], quick) for row in wanted]
    except Skip as absent:
        return [record(row, None, quick) | {"skipped": str(absent)} for row in wanted]
    except Exception as failure:
        # the other rows still run
        traceback.print_exc()
        return [record(row, None, quick, f"{type(failure).__name__}: {failure}") for row in wanted]


def machine() -> Record:
    """The row on machine and versions."""
    info = Path("/proc/cpuinfo")
    names = [line.partition(":")[2].strip() for line in (info.read_text() if info.exists() else "").splitlines()
             if line.startswith("model name")]  # fmt: skip
    packages = ", ".join(f"{name} {installed(name)}" for name in PACKAGES) + f", opencv {cv2.__version__}"
    processor = names[0] if names else platform.processor()
    return {
        "id": "machine",
        "what": f"{processor}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f} before the run;"
        f" {platform.system()} {platform.machine()}, Python {platform.python_version()}, {packages};"
        f" {THREADS} thread; {datetime.now(UTC):%Y-%m-%d %H:%M} UTC",
        "value": THREADS, "unit": "threads", "bound": None, "better": "lower", "holds": None,
    }  # fmt: skip


def installed(package: str) -> str:
    try:
        return version(package)
    except ModuleNotFoundError:
        return "absent"


def merge(path: Path, rows: Sequence[Record]) -> list[Record]:
    """Rows of the file, replaced or followed by the new ones; written whole or not at all."""
    before = json.loads(path.read_text()) if path.exists() else []
    merged = list({row["id"]: row for row in (*before, *rows)}.values())
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    temporary.write_text(json.dumps(merged, indent=2) + "\n")
    temporary.replace(path)
    return merged


def table(rows: Sequence[Record]) -> Table:
    view = Table("row", "value", "CPU", "unit", "bound", "holds", title="benchmark (CPU: the same ratio of CPU time)")
    for column in view.columns:
        column.no_wrap = True
    view.add_column("what", overflow="fold")
    marks = {True: "[green]yes", False: "[red]NO", None: ""}
    for row in rows:
        missing = "[red]error" if "error" in row else "skipped"
        value = missing if row["value"] is None else f"{row['value']:.4g}"
        cpu = f"{row['cpu_value']:.4g}" if "cpu_value" in row else ""
        bound = "" if row["bound"] is None else f"{'<=' if row['better'] == 'lower' else '>='} {row['bound']:g}"
        text = escape(row.get("error") or row.get("skipped") or row["what"])
        view.add_row(row["id"], value, cpu, row["unit"], bound, marks[row["holds"]], text)
    return view


MARKS = "<!-- benchmark: begin (python -m tests.benchmark --into) -->", "<!-- benchmark: end -->"


def page_lines(rows: Sequence[Record]) -> str:
    """The rows as a markdown table; on its last line the machine."""
    lines = ["| row | value | bound | what |", "|---|---|---|---|"]
    for row in rows[1:]:
        unit = "" if row["unit"] == "ratio" else f" {row['unit']}"
        value = "" if row["value"] is None else f"{row['value']:.4g}{unit}"
        bound = "" if row["bound"] is None else f"{'<=' if row['better'] == 'lower' else '>='} {row['bound']:g}"
        text = row.get("error") or row["what"] + (f" ({row['skipped']})" if "skipped" in row else "")
        lines.append(f"| `{row['id']}` | {value} | {bound} | {text} |")
    return "\n".join([*lines, "", rows[0]["what"]])


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmark", description=__doc__)
    parser.add_argument("--only", default="", metavar="PREFIX", help="rows whose id begins so")
    parser.add_argument("--out", type=Path, help="default runs/benchmark.json, with --quick runs/benchmark-quick.json")
    parser.add_argument("--quick", action="store_true", help="tiny sizes, one round: does it run at all")
    parser.add_argument(
        "--into", type=Path, metavar="PAGE", help="put these rows between the markers of a markdown page"
    )
    options = parser.parse_args(argv)
    out = options.out or REPOSITORY / "runs" / ("benchmark-quick.json" if options.quick else "benchmark.json")
    groups = [g for g in GROUPS if any(row.id.startswith(options.only) for row in g.rows)]
    if not groups:
        parser.error(f"no row begins with {options.only}; rows: {', '.join(r.id for g in GROUPS for r in g.rows)}")
    torch.set_num_threads(THREADS)
    cv2.setNumThreads(0)
    rows = [machine()]
    for group in groups:
        print("running", *(row.id for row in group.rows), file=sys.stderr, flush=True)
        rows += run_group(group, options.only, options.quick)
        merge(out, rows)  # after every group: an interrupted run keeps what it has
    console = Console()
    # a pipe has no width of its own; narrower than this, the texts would be towers
    console.width = max(console.width, 150)
    console.print(table(rows))
    print(f"written to {out}")
    if options.into is not None:
        put_between(options.into, *MARKS, page_lines(rows))
    return int(any("error" in row for row in rows))


if __name__ == "__main__":
    sys.exit(main())
