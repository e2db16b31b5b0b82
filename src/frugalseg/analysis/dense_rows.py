"""How dense features were judged: finished probes, clusterings, retrievals and fine-tunings, one row per setting."""

import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from frugalseg.analysis.model_card import data_of
from frugalseg.analysis.seeds import Aggregate, aggregate, csv_text, read_metrics
from frugalseg.errors import RunFolderError
from frugalseg.run import read_json, write_json, write_text

STATED = "protocol/"
"""Begins the metrics by which an evaluation says how it was done."""


class Facts(NamedTuple):
    """What a score depends on besides the seed, in words.

    Attributes:
        data: benchmark and number of classes.
        backbone: net, and whose weights.
        protocol: how it was judged, and how long a head learned.
        width: D of the features, where a head reads them directly.
    """

    data: str
    backbone: str
    protocol: str
    width: str


class DenseRow(NamedTuple):
    """Scores of one setting over its seeds.

    Attributes:
        experiment: name of the folder.
        stage: name of the stage.
        facts: of the setting.
        figures: flat metrics over seeds.
    """

    experiment: str
    stage: str
    facts: Facts
    figures: Aggregate


def has_dense(experiment: Path) -> bool:
    """Whether an evaluation of dense features has finished there.

    Args:
        experiment: `runs/<experiment>[-<name>]`.
    """
    return next(_stages(experiment), None) is not None


def read_rows(experiment: Path) -> list[DenseRow]:
    """Read every finished evaluation of dense features; unfinished ones and old runs are left out.

    Args:
        experiment: `runs/<experiment>[-<name>]`.

    Raises:
        RunFolderError: one is damaged.
    """
    found: dict[tuple[str, Facts], dict[int, dict[str, float]]] = {}
    for folder, seed, metrics in _stages(experiment):
        key = folder.name.removesuffix("-validate"), read_facts(folder / "provenance.json")
        found.setdefault(key, {})[seed] = metrics
    return [DenseRow(experiment.name, stage, facts, aggregate(by_seed)) for (stage, facts), by_seed in found.items()]


def write_rows(experiment: Path, rows: list[DenseRow]) -> None:
    """Write the figures of all rows under `aggregate/`, as JSON and CSV.

    Args:
        experiment: `runs/<experiment>[-<name>]`.
        rows: of `read_rows`.
    """
    for number, row in enumerate(rows):
        twin = sum(other.stage == row.stage for other in rows[:number])
        path = experiment / "aggregate" / (row.stage + (f"-{twin + 1}" if twin else ""))
        facts = row.facts._asdict()
        write_json(path.with_name(f"{path.name}.json"), {"facts": facts, "figures": row.figures})
        write_text(path.with_name(f"{path.name}.csv"), csv_text(row.figures, facts))


def _stages(experiment: Path) -> Iterator[tuple[Path, int, dict[str, float]]]:
    """Folders with seed and metrics."""
    for done in sorted(experiment.glob("seed*/*/done.json")):
        match = re.fullmatch(r"seed(\d+)", done.parent.parent.name)
        if match is None or ".old-" in done.parent.name or not (done.parent / "metrics.json").is_file():
            continue
        metrics = read_metrics(done.parent / "metrics.json")
        if any(key.startswith(STATED) for key in metrics):
            yield done.parent, int(match[1]), metrics


def read_facts(path: Path) -> Facts:
    """What a stage was run with.

    Args:
        path: its `provenance.json`.

    Raises:
        RunFolderError: it lacks what every such stage writes.
    """
    record = read_json(path)
    try:
        settings, identity = record["hyperparameters"], record["identity"]
        task = str(settings["_class_path"]).rsplit(".", 1)[-1]
        told = PROTOCOLS[task](settings) if task in PROTOCOLS else task
        trainer = identity["trainer"]
        length = _length(trainer) if task in ("LinearProbe", "FineTune") else ""
        width = settings.get("width")
        return Facts(
            f"{data_of(identity)}, {settings['num_classes']} classes",
            _backbone(settings["features"]),
            told + (f", {length}" if length else ""),
            "-" if width is None else str(width),
        )
    except (KeyError, TypeError, AttributeError) as error:
        raise RunFolderError(f"{path}: does not tell what was judged ({error!r}); run the stage again") from error


def _backbone(features: Mapping[str, Any]) -> str:
    """Net, and whose weights: a run's name, a file's, one of timm's, or none."""
    options = dict(features.get("options") or {})
    name = str(options.pop("preset", None) or features["name"])
    name += " Z ++ F4" if options.pop("joined", False) else ""
    stages = list(features.get("stages") or [-1])
    name += "" if stages == [-1] else f", stages {', '.join(map(str, stages))}"
    name += f" ({', '.join(f'{key} {value}' for key, value in sorted(options.items()))})" if options else ""
    name += ", student" if str(features.get("prefix", "")).startswith("student.") else ""
    weights = features.get("weights")
    if weights is None:
        return f"{name}, random"
    parts = Path(str(weights)).parts
    seeds = [place for place, part in enumerate(parts) if re.fullmatch(r"seed\d+", part)]
    return f"{name}, {'/'.join(parts[seeds[0] - 1 : seeds[0]]) if seeds and seeds[0] else parts[-1]}"


def _length(trainer: Mapping[str, Any]) -> str:
    """How long a head learned."""
    steps, epochs = trainer.get("max_steps"), trainer.get("max_epochs")
    return f"{steps:,} steps" if steps and steps > 0 else f"{epochs} epochs" if epochs and epochs > 0 else ""


def _sizes(settings: Mapping[str, Any]) -> str:
    """Side of images and of masks; nothing where images and masks stay as they are."""
    side, grid = settings.get("input_size"), settings.get("grid")
    return (f", {side} px" if side else "") + (f", masks {grid} x {grid}" if grid else "")


def _probe(settings: Mapping[str, Any]) -> str:
    return f"{settings['protocol']}, {settings['head']}{_sizes(settings)}"


def _clusters(settings: Mapping[str, Any]) -> str:
    count = settings.get("clusters") or settings["num_classes"]
    mirror = ", mirrored too" if settings.get("mirror") else ""
    return f"{settings['protocol']}, {count} clusters{_sizes(settings)}{mirror}, {settings['seeds']} runs of k-means"


def _retrieval(settings: Mapping[str, Any]) -> str:
    return f"retrieval, {settings['neighbours']} of {settings['memory_size']:,} neighbours{_sizes(settings)}"


def _fine_tuning(settings: Mapping[str, Any]) -> str:
    return f"fine-tuning, {settings['head']}"


PROTOCOLS: dict[str, Callable[[Mapping[str, Any]], str]] = {
    "LinearProbe": _probe,
    "Clustering": _clusters,
    "Retrieval": _retrieval,
    "FineTune": _fine_tuning,
}
"""Task -> how its settings are told."""
