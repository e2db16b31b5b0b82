"""Rows as they are kept: a JSON file of records, one on the machine among them."""

import json
import os
import platform
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import cv2

from tests.benchmark.measure import Measured, Row, Skip

THREADS = 1
PACKAGES = ("torch", "torchvision", "timm", "lightning", "numpy", "pillow")

Record = dict[str, Any]
NOT_TOLD = Skip("not told here")
"""Of a row that its group gave no value."""


def record(row: Row, measured: Measured | None, quick: bool, error: str | None = None) -> Record:
    """One row of the file. Tiny sizes say nothing about a bound, so quick rows leave it open."""
    value = None if measured is None else round(measured.value, 4)
    note = f" [{measured.note}]" if measured and measured.note else ""
    entry: Record = {
        "id": row.id,
        "what": row.what + note + (" [quick: tiny sizes]" if quick else ""),
        "value": value,
        "unit": row.unit,
        "bound": None if quick else row.bound,
        "better": row.better,
        "holds": None if quick or value is None else row.holds(value),
    }
    told = {"note": measured.note, **measured.extra} if measured else {}
    return entry | told | ({"error": error} if error else {})


def record_or_reason(row: Row, found: Measured | Skip, quick: bool) -> Record:
    """A row of the file; `skipped` where a group tells why it has none."""
    if isinstance(found, Measured):
        return record(row, found, quick)
    return record(row, None, quick) | {"skipped": str(found)}


def machine() -> Record:
    """The row on machine and versions."""
    info = Path("/proc/cpuinfo")
    names = [line.partition(":")[2].strip() for line in (info.read_text() if info.exists() else "").splitlines()
             if line.startswith("model name")]  # fmt: skip
    packages = ", ".join(f"{name} {installed(name)}" for name in PACKAGES) + f", opencv {cv2.__version__}"
    processor = names[0] if names else platform.processor()
    return {
        "id": "machine",
        "what": f"{processor}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f} before the run;"
        f" {platform.system()} {platform.machine()}, Python {platform.python_version()}, {packages};"
        f" {THREADS} thread; {datetime.now(UTC):%Y-%m-%d %H:%M} UTC",
        "value": THREADS, "unit": "threads", "bound": None, "better": "lower", "holds": None,
    }  # fmt: skip


def installed(package: str) -> str:
    try:
        return version(package)
    except ModuleNotFoundError:
        return "absent"


def merge(path: Path, rows: Sequence[Record], keep_values: bool = False) -> list[Record]:
    """Rows of the file, replaced or followed by the new ones; written whole or not at all.

    Args:
        path: of the file.
        rows: of this run.
        keep_values: a row without a value leaves one with a value as it is, but for a key `later` that says why.
    """
    merged: dict[str, Record] = {row["id"]: row for row in (json.loads(path.read_text()) if path.exists() else [])}
    for row in rows:
        earlier = merged.get(row["id"], {}).get("value")
        if keep_values and row["value"] is None and earlier is not None:
            merged[row["id"]] |= {"later": row.get("error") or row.get("skipped")}
        else:
            merged[row["id"]] = row
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    temporary.write_text(json.dumps(list(merged.values()), indent=2) + "\n")
    temporary.replace(path)
    return list(merged.values())


def read(path: Path) -> list[Record]:
    """The rows of a file, the machine's first."""
    found: list[Record] = json.loads(path.read_text())
    return sorted(found, key=lambda row: row["id"] != "machine")
