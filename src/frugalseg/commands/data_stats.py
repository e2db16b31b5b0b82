"""`frugalseg data stats`: class frequencies and the long tail."""

import argparse
import csv
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from frugalseg.commands.progress import counter
from frugalseg.run import write_text


def add_parser(actions: Any, names: Sequence[str]) -> None:
    """Add `stats` to the actions of `frugalseg data`; `names` are those of the benchmarks."""
    stats = actions.add_parser("stats", help="images and pixels per class; draws the long tail")
    stats.add_argument("benchmark", choices=names)
    stats.add_argument("--root", type=Path, required=True)
    stats.add_argument("--split", default="train")
    stats.add_argument("--out", type=Path, default=Path("runs/stats"), help="folder for <benchmark>-<split>.{csv,png}")
    stats.add_argument("--workers", type=int, help="processes; default: all cores")


def run_stats(options: argparse.Namespace) -> int:
    """Print the table; write it as CSV and the long tail as PNG."""
    from frugalseg.analysis.long_tail import draw_long_tail, frequency_rows
    from frugalseg.commands.benchmarks import BENCHMARKS
    from frugalseg.data.stats import class_frequencies

    data = BENCHMARKS[options.benchmark].make(options.root)
    samples = data.index(options.split)
    found = class_frequencies(samples, data.classes, options.workers, counter("stats"))
    rows = frequency_rows(found, data.classes)
    table = Table(
        *rows[0], title=f"{options.benchmark} {options.split}: {len(samples):,} images, {found.masks:,} masks"
    )
    for row in rows:
        table.add_row(*(f"{value:.3f}" if isinstance(value, float) else str(value) for value in row.values()))
    Console().print(table)
    if found.pixels is not None:
        share = found.ignored / max(1, int(found.pixels.sum()) + found.ignored)
        print(f"ignored pixels: {100 * share:.2f} %")
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]))
    writer.writeheader()
    writer.writerows(rows)
    stem = options.out / f"{options.benchmark}-{options.split}"
    write_text(stem.with_suffix(".csv"), text.getvalue())
    draw_long_tail(stem.with_suffix(".png"), rows, data.classes, f"{options.benchmark} {options.split}")
    print(f"{stem}.csv, {stem}.png")
    return 0
