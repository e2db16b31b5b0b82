"""`python -m tests.benchmark.gpu [--device cpu] [--quick] [--only PREFIX] [--out FILE]`: all rows of a GPU, in minutes.

Every part is a process of its own with a limit of time: one that fails or takes too long costs its own rows alone, and
keeps those that it had. Rows are those of the registry, which says what each part measures.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from frugalseg.run import write_text
from tests.benchmark.device import VARIABLE
from tests.benchmark.gpu_part import SKIPPED
from tests.benchmark.measure import REPOSITORY, Group, Measured
from tests.benchmark.registry import GROUPS
from tests.benchmark.rows import Record, machine, merge, read, record
from tests.benchmark.tables import missed, page, table

LIMITS = {
    "tests.benchmark.gpu_rates:rates": 40,
    "tests.benchmark.crf:gpu": 60,
    "tests.benchmark.walk:gpu": 40,
    "tests.benchmark.cti:gpu": 45,
    "tests.benchmark.mevt_speed:gpu": 60,
    "tests.benchmark.gpu_papers:measured": 150,
}
"""Function -> seconds that a run of it may take at most, start included; in this order, what compiles comes last."""
WHOLE = 465
"""Seconds of all parts together."""
SLACK = {"cuda": 1, "cpu": 4}
"""Factor of all limits: a CPU in a GPU's place has other things to do."""


def limit_of(group: Group, left: float, parts_left: int, device: str) -> float:
    """Seconds of the next part: no more than its share of what is left, so that none eats up what others need."""
    return max(0.0, min(LIMITS[group.work] * SLACK[device], left / parts_left))


def parts(only: str) -> list[Group]:
    """Groups of the registry that need a GPU, in the order of `LIMITS`."""
    found = [group for work in LIMITS for group in GROUPS if group.work == work]
    return [group for group in found if any(row.id.startswith(only) for row in group.rows)]


def run_part(group: Group, seconds: float, device: str, quick: bool) -> list[Record]:
    """Run one part.

    Args:
        group: of the registry.
        seconds: it may take.
        device: `cuda`, or `cpu` to see whether it runs at all.
        quick: tiny sizes.

    Returns:
        All rows of the group; those it did not come to say why.
    """
    words = [sys.executable, "-m", "tests.benchmark.gpu_part", group.work, *([group.of] if group.of else [])]
    environment = {**os.environ, VARIABLE: device, "OMP_NUM_THREADS": "1"}
    began = time.monotonic()
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:
        try:
            done = subprocess.run(
                [*words, *(["--quick"] if quick else [])],
                cwd=REPOSITORY, env=environment, stdout=out, stderr=err, timeout=max(seconds, 0.1),
            )  # fmt: skip
            failure = last_line(err) if done.returncode else ""
        except subprocess.TimeoutExpired:
            failure = f"stopped after its {seconds:.0f} s"
        out.seek(0)
        lines = [json.loads(line) for line in out if line.startswith("{") and line.endswith("}\n")]
    return rows_from(group, lines, failure, quick, time.monotonic() - began)


def last_line(file: Any) -> str:
    file.seek(0)
    lines = [line for line in file.read().splitlines() if line.strip()]
    return lines[-1][:300] if lines else "ended with an error and said nothing"


def rows_from(group: Group, lines: Sequence[Record], failure: str, quick: bool, seconds: float) -> list[Record]:
    """Rows of a part from what it printed."""
    found = {line["id"]: Measured(line["value"], line["note"], line["extra"]) for line in lines if "id" in line}
    skipped = next((str(line[SKIPPED]) for line in lines if SKIPPED in line), "not told here")
    rows = []
    for row in group.rows:
        if row.id in found:
            rows.append(record(row, found[row.id], quick) | {"group_seconds": round(seconds, 1)})
        elif failure:
            rows.append(record(row, None, quick, failure))
        else:
            rows.append(record(row, None, quick) | {"skipped": skipped})
    return rows


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmark.gpu", description=__doc__)
    parser.add_argument("--device", default="cuda", choices=("cuda", "cpu"), help="cpu: in the place of a GPU")
    parser.add_argument("--quick", action="store_true", help="tiny sizes: does it run at all")
    parser.add_argument("--only", default="", metavar="PREFIX", help="parts with rows whose id begins so")
    parser.add_argument("--out", type=Path, default=REPOSITORY / "runs/benchmark-gpu.json")
    parser.add_argument("--seconds", type=float, help=f"of all parts together; default {WHOLE}, four times on a CPU")
    options = parser.parse_args(argv)
    seconds = WHOLE * SLACK[options.device] if options.seconds is None else options.seconds
    rows, end, wanted = [machine()], time.monotonic() + seconds, parts(options.only)
    for done, group in enumerate(wanted):
        left = limit_of(group, end - time.monotonic(), len(wanted) - done, options.device)
        print("running", group.work, group.of or "", file=sys.stderr, flush=True)
        rows += run_part(group, left, options.device, options.quick)
        merge(options.out, rows)  # after every part: an interrupted run keeps what it has
    write_text(options.out.with_suffix(".md"), page(read(options.out)))
    console = Console()
    console.width = max(console.width, 150)
    console.print(table(rows))
    print(*missed(rows), f"written to {options.out}", sep="\n")
    return int(any("error" in row for row in rows))


if __name__ == "__main__":
    sys.exit(main())
