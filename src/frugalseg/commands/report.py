"""`frugalseg report`: tables of finished runs; writes the mean over seeds beside them as JSON and CSV.

Folders may hold scores of maps and masks, few-shot tests (`fold*/seed*/<K>shot-test`), evaluations of dense features
(probe, cluster, retrieval, fine-tuning), or several of these.

--html writes static pages instead: DIR/index.html and one page per experiment, of the folders named or of all of
--runs. They need no server and no network. A run that is broken or half-finished is listed as such and does not stop
the rest.
"""

import argparse
import sys
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from frugalseg.analysis import dense_rows
from frugalseg.analysis.chain import chain_table, is_chain
from frugalseg.analysis.dense_tables import dense_lines, dense_table
from frugalseg.analysis.few_shot import has_few_shot, read_stages
from frugalseg.analysis.few_shot_pairs import paired_grids
from frugalseg.analysis.few_shot_rows import Row, rows_of, write_rows
from frugalseg.analysis.few_shot_tables import blocks, class_grids, fact_table, grid_table, main_grid, page_lines
from frugalseg.analysis.markdown import MARKER, write_into
from frugalseg.analysis.names import shown
from frugalseg.analysis.results import record_of, record_path, write_record
from frugalseg.analysis.seeds import Aggregate, finished_stages, write_aggregates
from frugalseg.analysis.tables import class_table, logit_table, splits_of, summary_table, terminal
from frugalseg.commands.results import made_by
from frugalseg.errors import ConfigError, printable


def run(argv: list[str]) -> int:
    """Aggregate and print experiments."""
    options = _parser().parse_args(argv)
    _refuse_missing(options.experiments, pages=options.html is not None)
    if options.html is not None:
        return _write_pages(options)
    if not options.experiments:
        raise ConfigError("frugalseg report: name folders of experiments, or give --html DIR for pages of all runs")
    console = terminal()
    few_shot = {
        folder: rows_of(folder.name, read_stages(folder)) for folder in options.experiments if has_few_shot(folder)
    }
    judged = {folder: dense_rows.read_rows(folder) for folder in options.experiments if dense_rows.has_dense(folder)}
    scored = [f for f in options.experiments if (f not in few_shot and f not in judged) or finished_stages(f)]
    results = {folder.name: write_aggregates(folder) for folder in scored}
    for folder, found in few_shot.items():
        write_rows(folder, found)
    for folder, rows_found in judged.items():
        dense_rows.write_rows(folder, rows_found)
    rows = [row for found in few_shot.values() for row in found]
    dense = [row for found in judged.values() for row in found]
    _print_scores(console, results, options.classes)
    _print_few_shot(console, rows, options.classes)
    if dense:
        console.print(dense_table(dense))
    if options.into is not None:
        write_into(options.into, results, options.marker, [*page_lines(rows), *dense_lines(dense)])
        if (record := record_path(options.into, options.marker)) is not None:
            content = record_of(results, rows, dense) | made_by("report", argv)
            write_record(record, content, options.into, options.marker)
    console.print(
        "aggregates: " + ", ".join(shown(str(folder / "aggregate")) for folder in options.experiments), highlight=False
    )
    return 0


def _parser() -> argparse.ArgumentParser:
    """What the command line may say."""
    parser = argparse.ArgumentParser("frugalseg report", description=__doc__)
    parser.add_argument("experiments", nargs="*", type=Path, help="folders runs/<experiment>[-<name>]")
    parser.add_argument("--html", type=Path, metavar="DIR", help="write static pages there, and no aggregates")
    parser.add_argument("--runs", type=Path, default=Path("runs"), help="of --html: folder of all runs; default: runs")
    parser.add_argument("--classes", action="store_true", help="also print every class")
    parser.add_argument("--into", type=Path, help="also put the tables between the markers of this markdown page")
    parser.add_argument(
        "--marker", default=MARKER, metavar="NAME", help=f"of --into: name in the markers; default: {MARKER}"
    )
    return parser


def _refuse_missing(folders: Sequence[Path], pages: bool) -> None:
    """Refuse mistyped names before they cost an older report; pages list what is missing among other runs.

    Raises:
        ConfigError: a folder is missing, or all of them where pages are made.
    """
    missing = [str(folder) for folder in folders if not folder.exists()]
    if missing and not (pages and len(missing) < len(folders)):
        raise ConfigError(f"{', '.join(missing)}: no such folder; name folders runs/<experiment>[-<name>]")


def _write_pages(options: argparse.Namespace) -> int:
    """Write the static report and say what is in it."""
    from frugalseg.analysis.html import write_report  # templates: only for those who want pages

    if options.into is not None:
        raise ConfigError("--html and --into: write the pages and the markdown table by two commands")
    began = time.monotonic()
    summary = write_report(options.experiments, options.runs, options.html)
    counts = Counter(str(entry.state) for entry in summary.entries)
    states = ", ".join(f"{number} {state}" for state, number in sorted(counts.items())) or "none"
    for entry in summary.entries:
        if entry.troubles:
            print(printable(f"{entry.name}: {entry.state}: {entry.troubles}"), file=sys.stderr)
    print(f"{summary.first}: experiments: {states} ({time.monotonic() - began:.1f} s)")
    return 0


def _print_scores(console: Console, results: dict[str, dict[str, Aggregate]], classes: bool) -> None:
    """Tables of maps and masks."""
    for stage in dict.fromkeys(stage for aggregates in results.values() for stage in aggregates):
        rows = {name: aggregates[stage] for name, aggregates in results.items() if stage in aggregates}
        for split in dict.fromkeys(split for found in rows.values() for split in splits_of(found)):
            if classes:
                for name, found in rows.items():
                    console.print(class_table(name, found, split))
            console.print(summary_table(rows, split))
            if (logits := logit_table(rows, split)) is not None:
                console.print(logits)
    for name, stages in results.items():
        if is_chain(stages):
            console.print(chain_table(name, stages))


def _print_few_shot(console: Console, rows: Sequence[Row], classes: bool) -> None:
    """Facts and tables of few-shot tests, by benchmark."""
    for own in blocks(rows).values():
        console.print(fact_table(own))
        for grid in class_grids(own) if classes else []:
            console.print(grid_table(grid))
        for grid in (main_grid(own), *paired_grids(own)):
            console.print(grid_table(grid))
