"""The claims that `frugalseg claims` has settled, as a table of the index."""

from pathlib import Path

from frugalseg.analysis.claims_rows import row_from
from frugalseg.analysis.claims_runs import worked
from frugalseg.analysis.claims_tables import HEADS, figures, notes
from frugalseg.analysis.few_shot_grid import Grid
from frugalseg.run import read_json


def claims_grid(path: Path, others: list[tuple[str, str]]) -> Grid | None:
    """Read settled claims.

    Args:
        path: `claims.json`; where it is missing there is no table.
        others: takes the reason where it cannot be read.
    """
    if not path.is_file():
        return None
    try:
        content = read_json(path)
        rows = [row_from(each) for each in content["rows"]]
        lines = [
            [f"{row.claim['id']}: {row.claim['statement']}", *figures(row), str(row.claim["command"])] for row in rows
        ]
        told = notes(rows, int(content["claims"]), worked(content["runs"]))
    except Exception as error:  # written by another version, or by hand: the rest of the report does without
        others.append(("claims/claims.json", f"no table of claims: {' '.join(str(error).split())[:160]}"))
        return None
    return (
        Grid("what the claims of the papers come to in miniature", [*HEADS, "command"], lines, told) if lines else None
    )
