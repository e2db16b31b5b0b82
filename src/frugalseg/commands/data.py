"""`frugalseg data`: look after data sets on disk; `data check voc --root R` reports what is there and what is not."""

import argparse

from rich.console import Console

from frugalseg.commands.progress import counter
from frugalseg.data.check import check_voc

STYLE = {"ok": "green", "warn": "yellow", "error": "bold red"}


def run(argv: list[str]) -> int:
    """Check a benchmark's folder; the exit code is 1 where something must be mended."""
    parser = argparse.ArgumentParser("frugalseg data", description=__doc__)
    actions = parser.add_subparsers(dest="action", required=True)
    check = actions.add_parser("check", help="counts, sizes, ids and value ranges against the published numbers")
    check.add_argument("benchmark", choices=["voc"])
    check.add_argument("--root", required=True)
    check.add_argument("--quick", action="store_true", help="read headers of masks only")
    options = parser.parse_args(argv)
    findings = check_voc(options.root, options.quick, counter("check"))
    console = Console()
    for level, what in findings:
        console.print(f"[{STYLE[level]}]{level:<5}[/] {what}", highlight=False)
    return 1 if any(f.level == "error" for f in findings) else 0
