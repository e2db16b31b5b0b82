"""Per-class tables for W&B, from the flat keys of `metrics.json` and from counts."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from frugalseg.ops.confusion import iou

_PER_CLASS = re.compile(r"(?P<split>[^/]+)/iou(?P<rule>_[^/]+)?/(?P<name>.+)")


class ClassTable(NamedTuple):
    """IoU by class.

    Attributes:
        columns: `class`, then one for each rule or kind of masks; the nameless one is called `iou`.
        rows: one for each class; None where a class has no score under a rule.
    """

    columns: list[str]
    rows: list[list[str | float | None]]


def scalars(metrics: Mapping[str, float]) -> dict[str, float]:
    """The metrics that are not of one class: those of classes go to tables, hundreds of charts help nobody.

    Args:
        metrics: by flat key.
    """
    return {key: value for key, value in metrics.items() if not _PER_CLASS.fullmatch(key)}


def class_tables(metrics: Mapping[str, float]) -> dict[str, ClassTable]:
    """Tables by key `classes/<split>`.

    Args:
        metrics: flat keys, `<split>/iou[_<rule>]/<class>` among them.
    """
    scores: dict[str, dict[str, dict[str, float]]] = {}
    for key, value in metrics.items():
        if found := _PER_CLASS.fullmatch(key):
            rule = (found["rule"] or "").removeprefix("_") or "iou"
            scores.setdefault(found["split"], {}).setdefault(found["name"], {})[rule] = value
    return {f"classes/{split}": _table(of_classes) for split, of_classes in scores.items()}


def counted_tables(path: Path, class_names: Sequence[str]) -> dict[str, ClassTable]:
    """A table of the counts that a validation or a test wrote, under the key `classes/val`.

    Args:
        path: `confusion.npz`; counts that are not (K, K), as those of clusters, are left out.
        class_names: K names.
    """
    scores: dict[str, dict[str, float]] = {}
    if path.is_file():
        with np.load(path, allow_pickle=False) as archive:
            for rule in archive.files:
                counts = archive[rule]
                if counts.shape == (len(class_names), len(class_names)):
                    for name, value in zip(class_names, iou(counts).tolist(), strict=True):
                        scores.setdefault(name, {})[rule] = value
    return {"classes/val": _table(scores)} if scores else {}


def _table(scores: Mapping[str, Mapping[str, float]]) -> ClassTable:
    rules = list(dict.fromkeys(rule for by_rule in scores.values() for rule in by_rule))
    rows = [[name, *(_known(by_rule.get(rule)) for rule in rules)] for name, by_rule in scores.items()]
    return ClassTable(["class", *rules], rows)


def _known(value: float | None) -> float | None:
    """W&B takes no NaN in tables: a class that does not occur has no score."""
    return None if value is None or np.isnan(value) else float(value)
