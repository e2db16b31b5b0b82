"""`frugalseg results`: write the tables of pages again from results/*.json, or check that they agree."""

import argparse
import shlex
from collections.abc import Sequence
from pathlib import Path

from frugalseg.analysis.results import Record, differs, read_records, rewrite
from frugalseg.errors import ConfigError


def run(argv: list[str]) -> int:
    """Rewrite or check all pages."""
    parser = argparse.ArgumentParser("frugalseg results", description=__doc__)
    parser.add_argument("--top", type=Path, default=Path(), help="folder that holds results/; default: this one")
    parser.add_argument("--check", action="store_true", help="change nothing; fail where a page shows anything else")
    options = parser.parse_args(argv)
    records = read_records(options.top)
    apart = [path for path, record in records.items() if differs(options.top, path, record)]
    if options.check and apart:
        told = ", ".join(f"{records[path]['page']} ({path})" for path in apart)
        raise ConfigError(f"pages that show anything else than their record: {told}; run `frugalseg results`")
    for path in apart:
        rewrite(options.top, path, records[path])
        print(f"{records[path]['page']}: {records[path]['marker']} written from {path}")
    print(f"{len(records)} records, {len(records) - len(apart)} places as they should be")
    return 0


def made_by(verb: str, argv: Sequence[str]) -> Record:
    """How a record was made: command, commit and versions.

    Args:
        verb: that makes it.
        argv: its words.
    """
    from frugalseg.callbacks.provenance import describe  # Lightning, which it needs, takes seconds

    origin = describe(0, ["frugalseg", verb, *argv])
    return {"command": shlex.join(origin["command"]), "git": origin["git"], "versions": origin["versions"]}
