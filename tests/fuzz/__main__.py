"""`python -m tests.fuzz`: try malformed inputs of all kinds and write what became of them."""

import argparse
import sys
from pathlib import Path

from frugalseg.analysis.markdown import put_between
from frugalseg.commands.progress import counter
from frugalseg.errors import ConfigError
from frugalseg.run import read_json, write_json
from tests.fuzz import archives, commands, nets, pictures, texts
from tests.fuzz.guided import guided_rows
from tests.fuzz.run import Row, run_kind

KINDS = (*pictures.KINDS, *texts.KINDS, *archives.KINDS, *nets.KINDS, *commands.KINDS)


def main(words: list[str] | None = None) -> int:
    """Try inputs; 1 where one of them was a failure."""
    parser = argparse.ArgumentParser("python -m tests.fuzz", description=__doc__)
    parser.add_argument("--count", type=int, default=10_000, help="inputs of all kinds together")
    parser.add_argument("--seed", type=int, default=0, help="others give other inputs")
    parser.add_argument("--only", choices=[kind.name for kind in KINDS], help="inputs of one kind alone")
    parser.add_argument("--number", type=int, help="with --only: the one input of that number")
    parser.add_argument("--guided", type=int, default=0, help="inputs of each kind that atheris leads by coverage")
    parser.add_argument("--out", type=Path, help="write the rows there as JSON")
    parser.add_argument("--into", type=Path, help="also put the table between the markers of this page")
    parser.add_argument("--marker", default="fuzz", help="name in the markers")
    parser.add_argument("--kept", type=Path, help="try nothing: take the rows from this JSON, for --into")
    options = parser.parse_args(words)
    if options.kept:
        kept = [Row(**row) for row in read_json(options.kept)["rows"]]
        if options.into:
            _put(options.into, options.marker, kept)
        return int(any(row.failures for row in kept))
    chosen = [kind for kind in KINDS if options.only in (None, kind.name)]
    total = sum(kind.share for kind in chosen)
    rows = []
    for kind in chosen:
        count = -(-options.count * kind.share // total)
        rows.append(run_kind(kind, count, options.seed, counter(f"fuzz {kind.name}"), options.number))
        print(_line(rows[-1]), flush=True)
        for number, what in rows[-1].failures[:20]:
            print(f"  --seed {options.seed} --only {kind.name} --number {number}: {what}", flush=True)
    if options.guided:
        rows += guided_rows(options.guided, options.seed)
    if options.out:
        record = [row._asdict() for row in rows]
        write_json(options.out, {"seed": options.seed, "inputs": sum(row.inputs for row in rows), "rows": record})
    if options.into:
        _put(options.into, options.marker, rows)
    return int(any(row.failures for row in rows))


def _line(row: Row) -> str:
    counts = f"{row.inputs:,} | {row.accepted:,} | {row.refused:,} | {len(row.failures)} | {row.seconds:.0f}"
    return f"| {row.kind} | {row.what} | {counts} |"


def _put(page: Path, marker: str, rows: list[Row]) -> None:
    head = [
        "| kind | read by | inputs | accepted | refused in one line | failures | seconds |",
        "|---|---|---|---|---|---|---|",
    ]
    whole = Row(
        "all", "", *(sum(getattr(row, key) for row in rows) for key in ("inputs", "accepted", "refused")),
        [failure for row in rows for failure in row.failures], sum(row.seconds for row in rows),
    )  # fmt: skip
    begin, end = f"<!-- {marker}: begin (python -m tests.fuzz --into) -->", f"<!-- {marker}: end -->"
    put_between(page, begin, end, "\n".join([*head, *map(_line, [*rows, whole])]))


if __name__ == "__main__":
    try:
        sys.exit(main())
    except ConfigError as error:
        sys.exit(f"tests.fuzz: {error}")
