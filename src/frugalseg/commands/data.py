"""`frugalseg data`: look after data sets on disk; `data {get,prepare,check,stats} ... --help` says more."""

import argparse
from functools import partial
from pathlib import Path

from frugalseg.commands import data_get, data_prepare, data_stats
from frugalseg.commands.progress import counter
from frugalseg.data.team import alone

NAMES = (
    "voc", "coco2014", "coco2017", "coco-stuff", "coco-stuff27", "ade20k", "cityscapes", "cityscapes27", "isaid5i",
    "dlrsd", "images", "folder",
)  # fmt: skip
"""Keys of `commands.benchmarks.BENCHMARKS`, which takes seconds to import: `data get` does not wait for it."""
STYLE = {"ok": "green", "warn": "yellow", "error": "bold red"}


def run(argv: list[str]) -> int:
    """Get, prepare, check or count a benchmark."""
    parser = argparse.ArgumentParser("frugalseg data", description=__doc__)
    actions = parser.add_subparsers(dest="action", required=True)
    data_get.add_parser(actions)
    data_prepare.add_parser(actions)
    data_stats.add_parser(actions, [name for name in NAMES if name != "images"])  # which have no classes
    check = actions.add_parser("check", help="counts, sizes, ids and value ranges against the published numbers")
    check.add_argument("benchmark", choices=NAMES)
    check.add_argument("--root", type=Path, required=True)
    check.add_argument("--quick", action="store_true", help="read headers only: no pixels are decoded")
    options = parser.parse_args(argv)
    if options.action == "prepare":
        return data_prepare.run_prepare(options)
    verbs = {"get": data_get.run_get, "stats": data_stats.run_stats}
    return alone(partial(verbs.get(options.action, run_check), options))


def run_check(options: argparse.Namespace) -> int:
    """Print findings; the exit code is 1 where something must be mended."""
    from rich.console import Console
    from rich.markup import escape

    from frugalseg.commands.benchmarks import BENCHMARKS

    findings = BENCHMARKS[options.benchmark].findings(options.root, options.quick, counter("check"))
    console = Console()
    for level, what in findings:
        console.print(f"[{STYLE[level]}]{level:<5}[/] {escape(what)}", highlight=False, soft_wrap=True)
    return 1 if any(finding.level == "error" for finding in findings) else 0
