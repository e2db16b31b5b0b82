"""`python -m tests.benchmark [--only PREFIX] [--out FILE] [--quick] [--into PAGE]`: run rows, print a table, write them.

Beside the JSON file go a markdown page and a picture of how costs grow; both show all rows of the file.
"""

import argparse
import sys
import time
import traceback
from collections.abc import Sequence
from pathlib import Path

import cv2
import torch
from rich.console import Console

from frugalseg.analysis.markdown import put_between
from frugalseg.run import write_text
from tests.benchmark.measure import REPOSITORY, Group, Skip
from tests.benchmark.picture import draw
from tests.benchmark.registry import GROUPS
from tests.benchmark.rows import NOT_TOLD, THREADS, Record, machine, merge, read, record, record_or_reason
from tests.benchmark.tables import missed, page, page_lines, table

MARKS = "<!-- benchmark: begin (python -m tests.benchmark --into) -->", "<!-- benchmark: end -->"


def run_group(group: Group, only: str, quick: bool) -> list[Record]:
    """Run a group and keep the wanted rows; a failure becomes rows with `error`, what is not here rows with `skipped`."""
    wanted = [row for row in group.rows if row.id.startswith(only)]
    began = time.perf_counter()
    try:
        values = group.run(quick)
        found = [record_or_reason(row, values.get(row.id, NOT_TOLD), quick) for row in wanted]
    except Skip as absent:
        return [record(row, None, quick) | {"skipped": str(absent)} for row in wanted]
    except Exception as failure:
        # the other rows still run
        traceback.print_exc()
        return [record(row, None, quick, f"{type(failure).__name__}: {failure}") for row in wanted]
    # all of the group together, whichever of its rows one looks at
    return [row | {"group_seconds": round(time.perf_counter() - began, 1)} for row in found]


def write_beside(out: Path, before: Path | None) -> None:
    """Page and picture of all rows of a file."""
    rows = read(out)
    write_text(out.with_suffix(".md"), page(rows, read(before) if before else ()))
    draw(out.with_suffix(".png"), rows)


def chosen(only: str) -> list[Group]:
    """Groups with a wanted row; slow ones where they are asked for."""
    return [g for g in GROUPS if any(row.id.startswith(only) for row in g.rows) and (only or not g.slow)]


def arguments() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmark", description=__doc__)
    parser.add_argument("--only", default="", metavar="PREFIX", help="rows whose id begins so, slow ones too")
    parser.add_argument("--out", type=Path, help="default runs/benchmark.json, with --quick runs/benchmark-quick.json")
    parser.add_argument("--quick", action="store_true", help="tiny sizes, one round: does it run at all")
    parser.add_argument(
        "--into", type=Path, metavar="PAGE", help="put these rows between the markers of a markdown page"
    )
    parser.add_argument(
        "--before", type=Path, metavar="FILE", help="rows of earlier code, whose training steps the page shows too"
    )
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    parser = arguments()
    options = parser.parse_args(argv)
    out = options.out or REPOSITORY / "runs" / ("benchmark-quick.json" if options.quick else "benchmark.json")
    groups = chosen(options.only)
    if not groups:
        parser.error(f"no row begins with {options.only}; rows: {', '.join(r.id for g in GROUPS for r in g.rows)}")
    torch.set_num_threads(THREADS)
    cv2.setNumThreads(0)
    rows = [machine()]
    for group in groups:
        print("running", *(row.id for row in group.rows), file=sys.stderr, flush=True)
        rows += run_group(group, options.only, options.quick)
        merge(out, rows)  # after every group: an interrupted run keeps what it has
    write_beside(out, options.before)
    console = Console()
    # a pipe has no width of its own; narrower than this, the texts would be towers
    console.width = max(console.width, 150)
    console.print(table(rows))
    for line in missed(rows):
        print(f"bound not held: {line}" if "failed" not in line else line)
    print(f"written to {out}, and to {out.with_suffix('.md').name} all that it holds")
    if options.into is not None:
        put_between(options.into, *MARKS, page_lines(rows))
    return int(any("error" in row for row in rows))


if __name__ == "__main__":
    sys.exit(main())
