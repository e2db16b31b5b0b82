"""Means over seeds: what `SEEDS="0 1 2"` ends in."""

import csv
import io
import re
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from frugalseg.errors import RunFolderError
from frugalseg.run import read_json, write_json, write_text

Aggregate = dict[str, dict[str, float]]


def read_metrics(path: Path) -> dict[str, float]:
    """Flat metrics of one stage.

    Raises:
        RunFolderError: the file is missing or damaged, or a value is no number.
    """
    content = read_json(path)
    for key, value in content.items():
        if not isinstance(value, int | float):
            raise RunFolderError(f"{path}: {key} is {value!r}, not a number; run the stage that writes it again")
    return {key: float(value) for key, value in content.items()}


def finished_stages(experiment: Path, prefix: str = "score") -> dict[str, dict[int, dict[str, float]]]:
    """Metrics of an experiment's finished stages, by stage (with its fold, where there is one) and seed.

    Args:
        experiment: `runs/<experiment>[-<name>]`.
        prefix: of the stages' names.

    Returns:
        stage -> seed -> flat metrics; stages without `done.json` are left out.

    Raises:
        RunFolderError: a metrics file is damaged.
    """
    found: dict[str, dict[int, dict[str, float]]] = defaultdict(dict)
    for done in sorted(experiment.glob(f"**/seed*/{prefix}*/done.json")):
        stage = done.parent.relative_to(experiment)
        if ".old-" in stage.name:
            continue
        seed = int(re.sub(r"\D", "", stage.parts[-2]) or 0)
        name = "/".join([*stage.parts[:-2], stage.name])
        found[name][seed] = read_metrics(done.parent / "metrics.json")
    return dict(found)


def aggregate(by_seed: dict[int, dict[str, float]]) -> Aggregate:
    """Mean, sample standard deviation (0 for one seed), number and values of every key over seeds."""
    keys = sorted({key for metrics in by_seed.values() for key in metrics})
    result: Aggregate = {}
    for key in keys:
        result[key] = spread({f"seed{s}": metrics[key] for s, metrics in sorted(by_seed.items()) if key in metrics})
    return result


def spread(values: Mapping[str, float]) -> dict[str, float]:
    """Mean, sample standard deviation (0 for one value) and number of values, and the values themselves.

    Args:
        values: at least one; name of a seed, which begins with `seed`, -> value.
    """
    numbers = np.array(list(values.values()))
    std = float(numbers.std(ddof=1)) if len(numbers) > 1 else 0.0
    return {"mean": float(numbers.mean()), "std": std, "n": float(len(numbers)), **values}


def csv_text(rows: Aggregate, facts: Mapping[str, str] | None = None) -> str:
    """An aggregate as CSV, the columns of seeds after the statistics.

    Args:
        rows: key -> row.
        facts: what holds for all rows, in columns of their own at the end.
    """
    facts = facts or {}
    columns = sorted({column for row in rows.values() for column in row}, key=lambda c: (c.startswith("seed"), c))
    text = io.StringIO()
    writer = csv.DictWriter(text, ["key", *columns, *facts])
    writer.writeheader()
    writer.writerows({"key": key, **row, **facts} for key, row in rows.items())
    return text.getvalue()


def write_aggregates(experiment: Path) -> dict[str, Aggregate]:
    """Aggregate every finished score stage and write `<stage>.json` and `<stage>.csv` under `aggregate/`.

    Returns:
        stage -> aggregate.

    Raises:
        RunFolderError: nothing has finished there.
    """
    stages = finished_stages(experiment)
    if not stages:
        raise RunFolderError(f"{experiment}: holds no finished score stage; run its make target first")
    aggregates = {stage: aggregate(by_seed) for stage, by_seed in stages.items()}
    for stage, rows in aggregates.items():
        # not with_suffix: the stages score.v1 and score.v2 would share a file
        write_json(experiment / "aggregate" / f"{stage}.json", dict(rows))
        write_text(experiment / "aggregate" / f"{stage}.csv", csv_text(rows))
    return aggregates
