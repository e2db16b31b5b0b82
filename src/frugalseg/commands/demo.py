"""`frugalseg demo`: what `make demo` ends in, from its finished runs: one table, and one picture of all four papers."""

import argparse
import dataclasses
from pathlib import Path

from rich.table import Table

from frugalseg.analysis.claims import Claim, read_claims
from frugalseg.analysis.claims_rows import read_values
from frugalseg.analysis.claims_runs import Runs
from frugalseg.analysis.pictures import save_png
from frugalseg.analysis.tables import terminal
from frugalseg.commands.demo_rows import picture_of
from frugalseg.errors import RunFolderError

NAMES = {"sfc": "SFC", "cti": "CTI", "dsmf": "DSMF-Net", "mevt": "MEVT"}


def run(argv: list[str]) -> int:
    """Print the table and draw the picture.

    Raises:
        RunFolderError: a stage of the demo has not finished, or lacks a number.
    """
    parser = argparse.ArgumentParser("frugalseg demo", description=__doc__)
    parser.add_argument("--runs", type=Path, default=Path("runs"))
    parser.add_argument("--file", type=Path, default=Path("experiments/demo.yaml"), help="what the table compares")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--fold", type=int, default=0)
    parser.add_argument("--out", type=Path, required=True, help="PNG of all four papers")
    options = parser.parse_args(argv)
    claims = [_of(claim, options.seed, options.fold) for claim in read_claims(options.file)]
    terminal().print(table_of(claims, Runs(options.runs)))
    save_png(options.out, picture_of(options.runs, options.seed, options.fold))
    print(f"picture: {options.out}")
    return 0


def _of(claim: Claim, seed: int, fold: int) -> Claim:
    """The same comparison of another seed and fold."""
    terms = {name: side._replace(fold=None if side.fold is None else fold) for name, side in claim.terms.items()}
    return dataclasses.replace(claim, seeds=(seed,), terms=terms)


def table_of(claims: list[Claim], runs: Runs) -> Table:
    """One row per comparison: without the method, with it, and the difference.

    Raises:
        RunFolderError: a number is missing.
    """
    table = Table(
        "paper", "what", title="frugalseg in miniature, one seed", caption="synthetic worlds; see make claims"
    )
    for column in ("without", "with", "difference", "in"):
        table.add_column(column, justify="right" if column != "in" else "left")
    for claim in claims:
        values, lacks = read_values(claim, runs)
        if lacks:
            raise RunFolderError(f"{claim.id}: {lacks[0]}; run make demo again, it goes on where it was")
        seed = str(claim.seeds[0])
        without, with_it = (claim.scale * values[term][seed] for term in ("baseline", "treatment"))
        cells = (f"{without:.1f}", f"{with_it:.1f}", f"{with_it - without:+.1f}", claim.unit)
        table.add_row(NAMES[claim.paper], claim.statement, *cells)
    return table
