"""Curves of `metrics.csv` and `sweep.csv`, whatever state the file is in."""

import csv
import math
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

Points = list[tuple[float, float]]


@dataclass(frozen=True)
class Log:
    """Logged values of one stage.

    Attributes:
        curves: column -> (step, value), in the order of steps, every step once.
        flaw: what is wrong with the file; empty where nothing is.
    """

    curves: dict[str, Points] = field(default_factory=dict)
    flaw: str = ""

    @property
    def last_step(self) -> int | None:
        """The last step that was logged."""
        steps = [points[-1][0] for points in self.curves.values() if points]
        return int(max(steps)) if steps else None


def read_log(path: Path) -> Log:
    """Read a `metrics.csv`.

    A run that was resumed from an earlier checkpoint logs some steps twice: the later value counts, so that there is
    one curve as if nothing had happened.

    Args:
        path: the file; where it is missing there are no curves.
    """
    if not path.is_file():
        return Log()
    found: dict[str, dict[float, float]] = defaultdict(dict)
    head, rows, flaw = _rows(path)
    if flaw and not rows:
        return Log({}, flaw)
    if "step" not in head:
        return Log({}, f"{path.name} has no column `step`") if head else Log({}, f"{path.name} is empty")
    columns = [(place, name) for place, name in enumerate(head) if name not in ("step", "epoch")]
    for number, row in rows:
        try:
            if len(row) != len(head):
                raise ValueError
            step = float(row[head.index("step")])
            values = {name: float(row[place]) for place, name in columns if row[place]}
        except ValueError:
            flaw = flaw or f"{path.name} line {number} is cut short or no row of numbers"
            continue
        for name, value in values.items():
            if math.isfinite(value):
                found[name][step] = value
    return Log({name: sorted(values.items()) for name, values in found.items()}, flaw)


def _rows(path: Path) -> tuple[list[str], list[tuple[int, list[str]]], str]:
    """Headings, rows with their numbers, and what is wrong with the file: without rows it cannot be read at all."""
    try:
        text = path.read_text(encoding="utf-8")
        lines = [(number, row) for number, row in enumerate(csv.reader(text.splitlines()), 1) if row]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        return [], [], f"{path.name} is not readable ({' '.join(str(error).split())[:120]})"
    if lines and not text.endswith("\n"):  # a number that was cut short reads as another one
        return (lines[0][1] if lines else []), lines[1:-1], f"{path.name} line {lines[-1][0]} is cut short"
    return (lines[0][1] if lines else []), lines[1:], ""


def read_sweep(path: Path) -> dict[str, Points]:
    """Mean IoU over the background threshold of every map that `frugalseg evaluate --sweep` tried.

    Args:
        path: `sweep.csv`; rows that cannot be read are left out.
    """
    found: dict[str, Points] = defaultdict(list)
    head, rows, _ = _rows(path) if path.is_file() else ([], [], "")
    if not {"map", "threshold", "miou"} <= set(head):
        return {}
    name, x, y = (head.index(column) for column in ("map", "threshold", "miou"))
    for _, row in rows:
        try:
            point = float(row[x]), float(row[y])
        except (ValueError, IndexError):
            continue
        if all(map(math.isfinite, point)):
            found[row[name]].append(point)
    return dict(found)


def thinned(points: Points, most: int = 120) -> Points:
    """Means over equal stretches of a curve, so that a long one stays small; its last point is kept as it is.

    Args:
        points: (x, y), in the order of x.
        most: how many to keep.
    """
    if len(points) <= most:
        return points
    body, last = points[:-1], points[-1]
    edges = [round(place * len(body) / (most - 1)) for place in range(most)]
    parts: Iterable[Points] = (body[a:b] for a, b in pairwise(edges) if b > a)
    return [*((_mean(x for x, _ in part), _mean(y for _, y in part)) for part in parts), last]


def _mean(values: Iterable[float]) -> float:
    listed = list(values)
    return sum(listed) / len(listed)
