"""`frugalseg claims`: what finished runs say of the papers' claims, with intervals and verdicts.

Reads the file of claims and run folders; writes `claims.json`, `.csv`, `.md` and a forest plot. Studies that have not
finished are shown as such.
"""

import argparse
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from rich.markup import escape

from frugalseg.analysis.claims import read_claims
from frugalseg.analysis.claims_figure import draw_claims
from frugalseg.analysis.claims_guard import committed
from frugalseg.analysis.claims_rows import Row, settle
from frugalseg.analysis.claims_runs import Runs, worked
from frugalseg.analysis.claims_tables import claims_csv, claims_lines, claims_table, notes
from frugalseg.analysis.markdown import marks, put_between, read_between
from frugalseg.analysis.results import Record, body_of, dump, record_path, write_record
from frugalseg.analysis.tables import terminal
from frugalseg.commands.results import made_by
from frugalseg.errors import ConfigError, RunFolderError
from frugalseg.run import file_digest, write_text

FILE = Path("experiments/claims/claims.yaml")
MARKER = "claims"


def run(argv: list[str]) -> int:
    """Judge, print and write."""
    options = _parser().parse_args(argv)
    claims = read_claims(options.file)
    if not claims:
        raise ConfigError(f"{options.file}: has no claims; its comments say how one is written")
    if not any(claim.id.startswith(options.only) for claim in claims):
        raise ConfigError(f"--only {options.only!r}: no claim of {options.file} begins with it; it has {len(claims)}")
    if options.into is not None:
        read_between(options.into, *marks(options.marker))  # before the work
    runs = Runs(options.runs)
    # all of them, whichever are shown: the correction is for their number
    rows = settle(claims, runs, committed(options.file, claims))
    if not any(found for row in rows for found in row.values.values()):
        raise RunFolderError(f"{options.runs}: holds no finished run of any claim of {options.file}; run `make claims`")
    shown = [row for row in rows if row.claim["id"].startswith(options.only)]
    facts = made_by("claims", argv) | {"file": {"path": str(options.file), "sha256": file_digest(options.file)}}
    _write(options.out, rows, facts | _records(rows, runs))
    record = _record(shown, len(rows), facts | _records(shown, runs))
    console = terminal()
    console.print(claims_table(shown))
    # not as the table's caption, of which rich drops the end of a line that is just too long
    for note in notes(shown, len(rows), worked(record["runs"])):
        console.print(escape(note), highlight=False)
    _put(options, record)
    print(f"tables: {options.out}")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("frugalseg claims", description=__doc__)
    parser.add_argument("--file", type=Path, default=FILE, help=f"of claims; default: {FILE}")
    parser.add_argument("--runs", type=Path, default=Path("runs"), help="folder of all runs; default: runs")
    parser.add_argument("--only", default="", metavar="ID", help="show claims whose id begins so, e.g. sfc")
    parser.add_argument("--out", type=Path, default=Path("runs/claims"), help="for all claims; default: runs/claims")
    parser.add_argument("--into", type=Path, metavar="PAGE", help="also put the table into this markdown page")
    parser.add_argument("--marker", default=MARKER, metavar="NAME", help=f"of --into; default: {MARKER}")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the claims that are shown as a record")
    return parser


def _records(rows: Sequence[Row], runs: Runs) -> Record:
    """Where the numbers come from: `runs`, run -> stage -> record, and the versions of packages that they name."""
    found: dict[str, dict[str, Any]] = {}
    versions: list[Any] = []
    for name, seed in dict.fromkeys((name, seed) for row in rows for name in row.runs for seed in row.claim["seeds"]):
        for stage, record in runs.records(name, seed).items():
            own = record.pop("versions")  # hundreds of stages share one or two
            versions += [own] if own not in versions else []
            found.setdefault(name, {})[stage] = record | {"versions": versions.index(own)}
    return {"runs": found, "versions_of_runs": versions}


def _record(rows: Sequence[Row], total: int, facts: Record) -> Record:
    """What tables are rendered from, and how it was made; `claims` is the number of claims in the file."""
    return {"claims": total, "rows": [row.as_json() for row in rows], **facts}


def _write(folder: Path, rows: Sequence[Row], facts: Record) -> None:
    """All claims, in all forms."""
    write_text(folder / "claims.csv", claims_csv(rows))
    write_text(folder / "claims.md", "\n".join(claims_lines(rows, len(rows), worked(facts["runs"]))) + "\n")
    draw_claims(folder / "claims.png", rows)
    # last: who finds it finds the others too
    now = datetime.now().astimezone().isoformat(timespec="seconds")
    write_text(folder / "claims.json", dump(_record(rows, len(rows), facts | {"written": now})) + "\n")


def _put(options: argparse.Namespace, record: Record) -> None:
    """Record and page of what is shown; the page is rendered from the record."""
    path = options.json or (options.into and record_path(options.into, options.marker))
    if options.into is not None and path is not None:
        write_record(path, record, options.into, options.marker)
    elif path is not None:
        write_text(path, dump(record) + "\n")
    if options.into is not None:
        put_between(options.into, *marks(options.marker), body_of(options.into, record))
