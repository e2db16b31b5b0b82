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
from dataclasses import replace
from pathlib import Path
from typing import Any

from rich.console import Console

from frugalseg.run import write_text
from tests.benchmark.device import VARIABLE
from tests.benchmark.gpu_part import SKIPPED
from tests.benchmark.measure import REPOSITORY, Group, Measured
from tests.benchmark.registry import GROUPS
from tests.benchmark.rows import NOT_TOLD, Record, machine, merge, read, record
from tests.benchmark.tables import missed, page, table

LIMITS = {
    "tests.benchmark.gpu_rates:rates": 30,
    "tests.benchmark.walk:gpu": 30,
    "tests.benchmark.crf:gpu": 60,
    "tests.benchmark.cti:gpu": 40,
    "tests.benchmark.mevt_speed:gpu": 60,
    "tests.benchmark.decoding:gpu": 40,
    "tests.benchmark.gpu_papers:eager": 50,
    "tests.benchmark.gpu_papers:compiled": 110,
}
"""Function -> seconds that a run of it may take at most, start included; in this order."""
LAST = "tests.benchmark.gpu_papers:compiled"
"""A first compilation takes as long as it likes: these parts share what all others, whose limits fit together, leave."""
WHOLE = 465
"""Seconds of all parts together."""
SLACK = {"cuda": 1, "cpu": 4}
"""Factor of all limits: a CPU in a GPU's place has other things to do."""


def limit_of(to_come: Sequence[Group], left: float, device: str) -> float:
    """Seconds of the next part: no more than its share of what is left, so that none eats up what others need.

    Args:
        to_come: the next part first.
        left: seconds until the end.
        device: that parts run on.
    """
    work = to_come[0].work
    sharing = [group for group in to_come if (group.work == LAST) == (work == LAST)]
    return max(0.0, min(LIMITS[work] * SLACK[device], left / len(sharing)))


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
    return rows_from(group if device == "cuda" else unbound(group), lines, failure, quick, time.monotonic() - began)


def unbound(group: Group) -> Group:
    """The same without bounds, which are for a GPU."""
    return Group(group.work, *(replace(row, bound=None) for row in group.rows), of=group.of)


def last_line(file: Any) -> str:
    file.seek(0)
    lines = [line for line in file.read().splitlines() if line.strip()]
    return lines[-1][:300] if lines else "ended with an error and said nothing"


def rows_from(group: Group, lines: Sequence[Record], failure: str, quick: bool, seconds: float) -> list[Record]:
    """Rows of a part from what it printed."""
    found = {line["id"]: Measured(line["value"], line["note"], line["extra"]) for line in lines if "value" in line}
    skipped = next((str(line[SKIPPED]) for line in lines if SKIPPED in line and "id" not in line), str(NOT_TOLD))
    alone = {line["id"]: line[SKIPPED] for line in lines if "id" in line and SKIPPED in line}
    rows = []
    for row in group.rows:
        if row.id in found:
            rows.append(record(row, found[row.id], quick) | {"group_seconds": round(seconds, 1)})
        elif row.id in alone:
            rows.append(record(row, None, quick) | {"skipped": alone[row.id]})
        elif failure:
            rows.append(record(row, None, quick, failure))
        else:
            rows.append(record(row, None, quick) | {"skipped": skipped})
    return rows


def out_of(device: str, quick: bool) -> Path:
    """Where rows go; what is tried out replaces nothing that was measured."""
    words = ["benchmark-gpu", *(["cpu"] if device == "cpu" else []), *(["quick"] if quick else [])]
    return REPOSITORY / "runs" / f"{'-'.join(words)}.json"


def arguments() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmark.gpu", description=__doc__)
    parser.add_argument("--device", default="cuda", choices=("cuda", "cpu"), help="cpu: in the place of a GPU")
    parser.add_argument("--quick", action="store_true", help="tiny sizes: does it run at all")
    parser.add_argument("--only", default="", metavar="PREFIX", help="parts with rows whose id begins so")
    parser.add_argument("--out", type=Path, help="default runs/benchmark-gpu.json; of a try-out, its words behind")
    parser.add_argument("--seconds", type=float, help=f"of all parts together; default {WHOLE}, four times on a CPU")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    parser = arguments()
    options = parser.parse_args(argv)
    wanted, out = parts(options.only), options.out or out_of(options.device, options.quick)
    if not wanted:
        parser.error(f"no row begins with {options.only}; rows: {', '.join(r.id for g in parts('') for r in g.rows)}")
    seconds = WHOLE * SLACK[options.device] if options.seconds is None else options.seconds
    rows, end = [machine()], time.monotonic() + seconds
    for done, group in enumerate(wanted):
        left = limit_of(wanted[done:], end - time.monotonic(), options.device)
        print("running", group.work, group.of or "", file=sys.stderr, flush=True)
        rows += run_part(group, left, options.device, options.quick)
        merge(out, rows, keep_values=True)  # after every part: an interrupted run keeps what it has
    write_text(out.with_suffix(".md"), page(read(out)))
    console = Console()
    console.width = max(console.width, 150)
    console.print(table(rows))
    print(*missed(rows), f"written to {out}", sep="\n")
    return int(any("error" in row for row in rows))


if __name__ == "__main__":
    sys.exit(main())
