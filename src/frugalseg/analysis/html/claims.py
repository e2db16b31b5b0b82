"""The claims that `frugalseg claims` has settled, as a table of the index."""

from pathlib import Path

from frugalseg.analysis.claims_rows import Row, row_from
from frugalseg.analysis.claims_runs import worked
from frugalseg.analysis.claims_tables import HEADS, figures, notes
from frugalseg.analysis.few_shot_grid import Grid
from frugalseg.run import read_json

EQUAL, COMMAND, VERDICT = "equal, and what is not", "command", "verdict"
COLUMNS = [HEADS[0], VERDICT, *(head for head in HEADS[1:] if head != VERDICT), EQUAL, COMMAND]
"""The terminal's, the verdict where a phone still shows it, and behind the figures what the comparison is fair in."""


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
        lines = [_cells(row) for row in rows]
        remarks = notes(rows, int(content["claims"]), worked(content["runs"]))
    except Exception as error:  # written by another version, or by hand: the rest of the report does without
        others.append(("claims/claims.json", f"no table of claims: {' '.join(str(error).split())[:160]}"))
        return None
    return Grid("what the claims of the papers come to in miniature", COLUMNS, lines, remarks) if lines else None


def _cells(row: Row) -> list[str]:
    told = dict(zip(HEADS[1:], figures(row), strict=True))
    told |= {HEADS[0]: f"{row.claim['id']}: {row.claim['statement']}", EQUAL: row.claim["equal"]}
    return [str(told[head]) for head in COLUMNS[:-1]] + [str(row.claim["command"])]
