"""Tables of settled claims: for terminals, pages and CSV."""

import csv
import io
from collections.abc import Iterable, Sequence
from typing import Any

from rich.markup import escape
from rich.table import Table

from frugalseg.analysis.claims_guard import FIXED, LATE, UNKNOWN
from frugalseg.analysis.claims_rows import INCOMPLETE, Row
from frugalseg.analysis.claims_statistics import CONTRADICTED, HOLDS, NOT_SHOWN

STYLES = {HOLDS: "green", CONTRADICTED: "red", NOT_SHOWN: "yellow", INCOMPLETE: "dim"}
"""Colours of verdicts in a terminal."""
HEADS = ("claim", "baseline", "treatment", "effect [95 % interval]", "as claimed", "verdict", "p, Holm", "time")


def signed(value: float | None) -> str:
    """A figure of an effect, with two places or, where it is small, two digits; "-" for none."""
    if value is None:
        return "-"
    return f"{value:+.2f}" if abs(value) >= 0.095 or value == 0 else f"{value:+.2g}"


def plain(value: float | None) -> str:
    """The same without the sign of what is positive."""
    return signed(value).removeprefix("+")


def clock(seconds: float | None) -> str:
    """Wall time, in the largest unit that it fills."""
    if seconds is None:
        return "-"
    for unit, size in (("h", 3600), ("min", 60)):
        if seconds >= size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds:.0f} s"


def figures(row: Row) -> list[str]:
    """Cells after the claim itself, as `HEADS` names them."""
    interval = "" if row.low is None else f" [{signed(row.low)}, {signed(row.high)}]"
    unit = f" {row.claim['unit']}" if row.mean is not None else ""
    margin = f", margin {row.claim['margin']:g}" if row.claim["margin"] else ""
    return [
        _side(row, "baseline"),
        _side(row, "treatment"),
        f"{signed(row.mean)}{interval}{unit}{margin}",
        f"{row.positive} of {len(row.differences)} {row.claim['better']}",
        told(row),
        adjusted(row),
        clock(row.seconds),
    ]


def _side(row: Row, term: str) -> str:
    """Mean of a term, and of the control's where there is one."""
    control = f" ({plain(row.side(f'control {term}'))})" if f"control {term}" in row.values else ""
    return plain(row.side(term)) + control


def told(row: Row) -> str:
    """The verdict, and how far a study is that has not finished."""
    if row.verdict == INCOMPLETE:
        return f"{INCOMPLETE} ({len(row.differences)} of {len(row.claim['seeds'])} seeds)"
    return row.verdict


def adjusted(row: Row) -> str:
    """Holm's p, and what it leaves of the verdict where that differs."""
    if row.verdict == INCOMPLETE:
        return "-"
    after = f": {row.verdict_adjusted}" if row.verdict_adjusted != row.verdict else ""
    return ("< .001" if row.p_adjusted < 0.001 else f"{row.p_adjusted:.3f}".removeprefix("0")) + after


def notes(rows: Sequence[Row], total: int, seconds: float) -> list[str]:
    """What holds for all rows, and what a reader must know of single ones.

    Args:
        rows: that are shown.
        total: number of claims in their file.
        seconds: wall time of all their runs.
    """
    found = [
        "Effect: treatment minus baseline, mean over seeds of the differences within a seed; its interval is Student's"
        " t. Of an interaction: minus the same difference of its control, whose figures stand in brackets. `as claimed`"
        " counts seeds, and says which way is claimed.",
        f"The verdict is that of the interval alone. `p, Holm` corrects for all {total} claims of the file; where it"
        " changes a verdict, it says so.",
        "Time: all stages of a claim's runs, one after the other; runs that claims share count in each."
        f" All together {clock(seconds)}.",
        definitions(rows),
    ]
    remarks: dict[str, list[str]] = {}
    for row in rows:
        if row.remarks:
            remarks.setdefault("; ".join(row.remarks), []).append(row.claim["id"])
    return found + [f"{', '.join(names)}: {remark}." for remark, names in remarks.items()]


def definitions(rows: Sequence[Row]) -> str:
    """Whether the claims were fixed before their runs."""
    last = max((row.fixed for row in rows if row.fixed), default="at no known time")
    first = min((row.started for row in rows if row.started), default="at no known time")
    text = f"Definitions committed {last}, first run started {first}"
    for standing in (LATE, UNKNOWN):
        if own := [row.claim["id"] for row in rows if row.standing == standing]:
            text += f"; fixed {standing}: {', '.join(own)}" if standing == LATE else f"; {standing} of {', '.join(own)}"
    return text + ("." if any(row.standing != FIXED for row in rows) else ": each claim is older than its runs.")


def claims_table(rows: Sequence[Row]) -> Table:
    """For the terminal; `notes` belong below it.

    Args:
        rows: at least one.
    """
    table = Table(title="claims")
    for place, head in enumerate(HEADS):
        width = None if place else 40  # a statement in a narrow column makes a long table
        table.add_column(head, justify="left" if place in (0, 3, 5) else "right", overflow="fold", min_width=width)
    for place, row in enumerate(rows):
        if place and row.claim["paper"] != rows[place - 1].claim["paper"]:
            table.add_section()
        cells = [escape(cell) for cell in figures(row)]
        cells[4] = f"[{STYLES[row.verdict]}]{cells[4]}[/]"
        table.add_row(f"[bold]{escape(row.claim['id'])}[/]\n{escape(row.claim['statement'])}", *cells)
    return table


def claims_lines(rows: Sequence[Row], total: int, seconds: float) -> list[str]:
    """The same as lines of markdown, with source, command and what is equal in each comparison.

    Args:
        rows: of one file.
        total: number of claims in it.
        seconds: wall time of all their runs.
    """
    lines = [f"| {' | '.join(HEADS)} |", "|---" * len(HEADS) + "|"]
    for row in rows:
        claim = f"**{row.claim['id']}**: {row.claim['statement']} ({row.claim['source']})"
        lines.append(f"| {' | '.join(map(_cell, [claim, *figures(row)]))} |")
    lines += [line for note in notes(rows, total, seconds) for line in ("", note)]
    lines += ["", *[f"- **{row.claim['id']}** (`{row.claim['command']}`): {_equal(row)}" for row in rows]]
    return lines


def _equal(row: Row) -> str:
    """What is equal on both sides, and what else to read."""
    beside = f" Read beside {', '.join(row.claim['controls'])}." if row.claim["controls"] else ""
    return f"{row.claim['equal'].rstrip('.')}.{beside}"


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def claims_csv(rows: Iterable[Row]) -> str:
    """All figures as CSV: one line per claim, and its seeds' differences in columns of their own."""
    lines = [_flat(row) for row in rows]
    columns = list(dict.fromkeys(key for line in lines for key in line))
    text = io.StringIO()
    writer = csv.DictWriter(text, columns)
    writer.writeheader()
    writer.writerows(lines)
    return text.getvalue()


def _flat(row: Row) -> dict[str, Any]:
    taken = ("id", "paper", "kind", "better", "unit", "margin", "statement", "source", "command")
    line = {key: row.claim[key] for key in taken}
    line |= {term: row.side(term) for term in row.values}
    shown = ("mean", "std", "low", "high", "positive", "verdict", "p", "p_adjusted", "verdict_adjusted")
    line |= {key: getattr(row, key) for key in (*shown, "seconds", "fixed", "started", "standing")}
    line |= {"n": len(row.differences), "remarks": "; ".join(row.remarks)}
    return line | {f"seed{seed}": value for seed, value in row.differences.items()}
