"""`frugalseg report`: tables of finished runs; writes the mean over seeds beside them as JSON and CSV."""

import argparse
from pathlib import Path

from frugalseg.analysis.chain import chain_table, is_chain
from frugalseg.analysis.markdown import MARKER, write_into
from frugalseg.analysis.seeds import write_aggregates
from frugalseg.analysis.tables import class_table, logit_table, splits_of, summary_table, terminal


def run(argv: list[str]) -> int:
    """Aggregate and print experiments."""
    parser = argparse.ArgumentParser("frugalseg report", description=__doc__)
    parser.add_argument("experiments", nargs="+", type=Path, help="folders runs/<experiment>[-<name>]")
    parser.add_argument("--classes", action="store_true", help="also print every class")
    parser.add_argument("--into", type=Path, help="also put the tables between the markers of this markdown page")
    parser.add_argument(
        "--marker", default=MARKER, metavar="NAME", help=f"of --into: name in the markers; default: {MARKER}"
    )
    options = parser.parse_args(argv)
    console = terminal()
    results = {folder.name: write_aggregates(folder) for folder in options.experiments}
    for stage in dict.fromkeys(stage for aggregates in results.values() for stage in aggregates):
        rows = {name: aggregates[stage] for name, aggregates in results.items() if stage in aggregates}
        for split in dict.fromkeys(split for found in rows.values() for split in splits_of(found)):
            if options.classes:
                for name, found in rows.items():
                    console.print(class_table(name, found, split))
            console.print(summary_table(rows, split))
            if (logits := logit_table(rows, split)) is not None:
                console.print(logits)
    for name, stages in results.items():
        if is_chain(stages):
            console.print(chain_table(name, stages))
    if options.into is not None:
        write_into(options.into, results, options.marker)
    console.print(
        "aggregates: " + ", ".join(str(folder / "aggregate") for folder in options.experiments), highlight=False
    )
    return 0
