"""`frugalseg data`: look after data sets on disk; `data {get,prepare,check,stats} ... --help` says more."""

import argparse
from pathlib import Path

from rich.console import Console
from rich.markup import escape

from frugalseg.commands import data_get, data_prepare, data_stats
from frugalseg.commands.benchmarks import BENCHMARKS, benchmark
from frugalseg.commands.progress import counter
from frugalseg.data.check import Finding, check_splits
from frugalseg.data.check_voc import check_voc
from frugalseg.data.cityscapes import unpaired
from frugalseg.data.dlrsd import odd_sizes

STYLE = {"ok": "green", "warn": "yellow", "error": "bold red"}


def run(argv: list[str]) -> int:
    """Get, prepare, check or count a benchmark."""
    parser = argparse.ArgumentParser("frugalseg data", description=__doc__)
    actions = parser.add_subparsers(dest="action", required=True)
    data_get.add_parser(actions)
    data_prepare.add_parser(actions)
    data_stats.add_parser(actions)
    check = actions.add_parser("check", help="counts, sizes, ids and value ranges against the published numbers")
    check.add_argument("benchmark", choices=list(BENCHMARKS))
    check.add_argument("--root", type=Path, required=True)
    check.add_argument("--quick", action="store_true", help="read headers of masks only")
    options = parser.parse_args(argv)
    verbs = {"get": data_get.run_get, "prepare": data_prepare.run_prepare, "stats": data_stats.run_stats}
    return verbs.get(options.action, run_check)(options)


def run_check(options: argparse.Namespace) -> int:
    """Print findings; the exit code is 1 where something must be mended."""
    findings = find(options.benchmark, options.root, options.quick)
    console = Console()
    for level, what in findings:
        console.print(f"[{STYLE[level]}]{level:<5}[/] {escape(what)}", highlight=False, soft_wrap=True)
    return 1 if any(finding.level == "error" for finding in findings) else 0


def find(name: str, root: Path, quick: bool = False) -> list[Finding]:
    """Findings about a benchmark's folder.

    Args:
        name: of `BENCHMARKS`.
        root: its folder.
        quick: read headers of masks only.

    Raises:
        DatasetNotFoundError: root is not there.
    """
    progress = counter("check")
    if name == "voc":
        return check_voc(root, quick, progress)
    chosen = benchmark(name)
    findings = check_splits(chosen.make(root), chosen.published, quick, progress)
    if name.startswith("cityscapes"):
        findings += [Finding("error", what) for what in unpaired(root)]
    if name == "dlrsd" and (odd := odd_sizes(root)):
        sizes = ", ".join(f"{len(ids)} of {h}x{w}" for (h, w), ids in sorted(odd.items()))
        findings.append(Finding("warn", f"images that are not 256x256 (HxW): {sizes}; recipes pad or crop them"))
    return findings
