"""Rows as tables: on a terminal, in markdown, and what stands out of them."""

from collections.abc import Sequence

from rich.markup import escape
from rich.table import Table

from tests.benchmark.rows import Record

PAPERS = {"sfc": "SFC", "cti": "CTI", "dsmf": "DSMF-Net", "mevt": "MEVT"}
OVER_BARE = {
    "sfc": "sfc.step_over_bare", "cti": "cti.step_over_four", "dsmf": "dsmf.step_over_backbone", "mevt": "mevt.step_over_bare",
}  # fmt: skip
"""Paper -> the row that holds its step against its bare network."""


def bound_of(row: Record) -> str:
    """`<= 1.1`, or nothing."""
    return "" if row["bound"] is None else f"{'<=' if row['better'] == 'lower' else '>='} {row['bound']:g}"


def table(rows: Sequence[Record]) -> Table:
    view = Table("row", "value", "CPU", "unit", "bound", "holds", title="benchmark (CPU: the same ratio of CPU time)")
    for column in view.columns:
        column.no_wrap = True
    view.add_column("what", overflow="fold")
    marks = {True: "[green]yes", False: "[red]NO", None: ""}
    for row in rows:
        missing = "[red]error" if "error" in row else "skipped"
        value = missing if row["value"] is None else f"{row['value']:.4g}"
        cpu = f"{row['cpu_value']:.4g}" if "cpu_value" in row else ""
        text = escape(row.get("error") or row.get("skipped") or row["what"])
        view.add_row(row["id"], value, cpu, row["unit"], bound_of(row), marks[row["holds"]], text)
    return view


def step_lines(rows: Sequence[Record]) -> list[str]:
    """The four training steps beside each other, as a markdown table; papers without any such row are left out."""
    found = {row["id"]: row for row in rows}
    lines = []
    for paper, name in PAPERS.items():
        over, speed, peak = (found.get(key) for key in _of_step(paper))
        shares = [found.get(f"{paper}.share_{place}") for place in (1, 2, 3)]
        if any((over, speed, peak, *shares)):
            told = [f"{_value(row)} % {row['note']}" for row in shares if row and row["value"] is not None]
            bound = f" ({bound_of(over)})" if over and over["bound"] is not None else ""
            lines.append(
                f"| {name} | {_value(over)}{bound} | {_value(speed)} | {_value(peak)} | {'; '.join(told) or '-'} |"
            )
    head = [
        "| step | over the bare network | images/s | peak memory, MB | three largest shares |",
        "|---|---|---|---|---|",
    ]
    return [*head, *lines] if lines else []


def _of_step(paper: str) -> tuple[str, str, str]:
    return OVER_BARE[paper], f"{paper}.step_images_per_s", f"{paper}.step_peak_memory"


def _value(row: Record | None) -> str:
    return "-" if row is None or row["value"] is None else f"{row['value']:.4g}"


def missed(rows: Sequence[Record]) -> list[str]:
    """Bounds that do not hold and rows that failed, one line each."""
    failed = [f"{row['id']}: failed, {row['error']}" for row in rows if "error" in row]
    return [f"{row['id']}: {row['value']:.4g}, bound {bound_of(row)}" for row in rows if row["holds"] is False] + failed


def page_lines(rows: Sequence[Record]) -> str:
    """The rows as a markdown table; on its last line the machine."""
    lines = ["| row | value | bound | what |", "|---|---|---|---|"]
    for row in rows[1:]:
        unit = "" if row["unit"] == "ratio" else f" {row['unit']}"
        value = "" if row["value"] is None else f"{row['value']:.4g}{unit}"
        text = row.get("error") or str(row["what"]) + (f" ({row['skipped']})" if "skipped" in row else "")
        lines.append(f"| `{row['id']}` | {value} | {bound_of(row)} | {text} |")
    return "\n".join([*lines, "", rows[0]["what"]])


def page(rows: Sequence[Record], before: Sequence[Record] = ()) -> str:
    """All of it as a markdown page.

    Args:
        rows: the one on the machine first.
        before: of an earlier state of the code, whose training steps are to stand beside these.
    """
    steps, earlier, misses = step_lines(rows), step_lines(before), missed(rows)
    parts = [
        ["# Benchmark", "", "Ratios are of one run each. The machine stands below the table of all rows."],
        ["## Training steps", "", *steps] if steps else [],
        ["## Training steps before", "", *earlier, "", str(before[0]["what"])] if earlier else [],
        ["## All rows", "", page_lines(rows)],
        ["## Bounds that do not hold", "", *[f"- {line}" for line in misses or ["none"]]],
    ]
    return "\n\n".join("\n".join(part) for part in parts if part) + "\n"
