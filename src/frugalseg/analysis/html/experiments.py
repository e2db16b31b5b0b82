"""Experiments in a folder of runs: what is one, what state it is in, and what else lies there."""

import re
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import Any

from frugalseg.analysis.html.states import ASIDE, StageRun, State, read_stage
from frugalseg.analysis.seeds import Aggregate, aggregate
from frugalseg.errors import printable

PAPERS = {"sfc": "SFC", "cti": "CTI", "dsmf": "DSMF-Net", "mevt": "MEVT"}
"""Package of a paper -> its name."""
OTHER = "other"
"""Group of experiments that belong to no paper, such as a pre-training that several share."""


@dataclass(frozen=True)
class Experiment:
    """One folder `runs/<experiment>[-<name>]`.

    Attributes:
        path: the folder.
        stages: all its stages, in the order in which they ran.
        strays: what lies in it and is no stage, with the reason; `aside` runs are counted in `aside`.
        aside: number of runs that others with other settings have moved aside.
    """

    path: Path
    stages: tuple[StageRun, ...]
    strays: tuple[str, ...] = ()
    aside: int = 0

    @property
    def name(self) -> str:
        """Of the folder; what is no UTF-8 is told with escapes."""
        return printable(self.path.name)

    @property
    def state(self) -> State:
        """The gravest state of its stages."""
        states = {stage.state for stage in self.stages}
        return next((state for state in State if state in states), State.EMPTY)

    @property
    def troubles(self) -> list[tuple[StageRun, str]]:
        """Stages that have not finished as they should, and why; the gravest first."""
        order = list(State)
        found = [(stage, reason) for stage in self.stages for reason in stage.reasons]
        return sorted(found, key=lambda pair: order.index(pair[0].state))

    @property
    def finished(self) -> list[StageRun]:
        """Stages whose results can be read."""
        return [stage for stage in self.stages if stage.metrics]

    @cached_property
    def paper(self) -> str:
        """Package of the paper whose task it runs, else the one that its name tells, else `OTHER`."""
        for stage in self.stages:
            if match := re.search(r"frugalseg\.papers\.(\w+)", str(stage.record.get("hyperparameters", {}))):
                return match[1] if match[1] in PAPERS else OTHER
        return next((word for word in re.split(r"[^a-z0-9]+", self.name) if word in PAPERS), OTHER)

    @cached_property
    def scores(self) -> dict[str, Aggregate]:
        """Score stages, means over their seeds; as `analysis.seeds.write_aggregates` gives them."""
        by_stage: dict[str, dict[int, dict[str, float]]] = {}
        for stage in self.finished:
            if stage.name.startswith("score"):
                by_stage.setdefault(stage.full_name, {})[stage.seed] = stage.metrics
        return {name: aggregate(seeds) for name, seeds in by_stage.items()}

    @property
    def seeds(self) -> list[int]:
        """All its seeds."""
        return sorted({stage.seed for stage in self.stages})

    @property
    def synthetic(self) -> bool:
        """Whether its data is a world of ours: the digests of its inputs say so."""
        inputs = (stage.record.get("identity", {}).get("inputs") for stage in self.stages if _is_record(stage.record))
        return any("world.json" in found for found in inputs if isinstance(found, dict))


def _is_record(record: dict[str, Any]) -> bool:
    return isinstance(record.get("identity"), dict)


def read_experiment(path: Path) -> Experiment | str:
    """Read one folder.

    Args:
        path: `runs/<experiment>[-<name>]`.

    Returns:
        The experiment, or why it is none.
    """
    if not path.is_dir():
        return "is a file" if path.exists() else "is not there"
    try:
        places = _places(path)
        if not places:
            settings_alone = [child.name for child in path.iterdir()] == [".settings"]
            return "no stage has started" if settings_alone else "holds no seed*/<stage>, so it is no experiment"
        return _read(path, places)
    except OSError as error:
        return f"not readable ({error.strerror})"


def _places(path: Path) -> list[tuple[int | None, int, Path]]:
    """Fold, seed and folder of every seed."""
    found: list[tuple[int | None, int, Path]] = []
    for folder in [*path.glob("seed*"), *path.glob("fold*/seed*")]:
        match = re.fullmatch(r"(?:fold(\d+)/)?seed(\d+)", folder.relative_to(path).as_posix())
        if match and folder.is_dir():
            found.append((int(match[1]) if match[1] else None, int(match[2]), folder))
    return sorted(found, key=lambda place: (-1 if place[0] is None else place[0], place[1]))


def _read(path: Path, places: list[tuple[int | None, int, Path]]) -> Experiment:
    stages: list[StageRun] = []
    strays: list[str] = []
    aside = 0
    for fold, seed, folder in places:
        for child in sorted(folder.iterdir()):
            where = printable(child.relative_to(path).as_posix())
            if ASIDE in child.name:
                aside += 1
            elif not child.is_dir():
                strays.append(f"{where} is a file where stages belong")
            elif not child.name.startswith("."):
                stages.append(read_stage(child, fold, seed))
    return Experiment(path, tuple(sorted(stages, key=_order)), tuple(strays), aside)


def _order(stage: StageRun) -> tuple[float, str]:
    """When a stage began; later ones may have the same second."""
    moment = ended(stage)
    return (moment.timestamp() if moment else float("inf")), stage.name


def ended(stage: StageRun) -> datetime | None:
    """When a stage finished; of one that has not, when it began."""
    for text in (stage.done.get("finished"), stage.record.get("started")):
        try:
            return datetime.fromisoformat(str(text))
        except ValueError:
            continue
    return None
