"""Rows of few-shot tables: means over base seeds, training seeds and folds, and the files that they end in.

What is not comparable never shares a row: tests of one experiment that differ in a fact make several.
"""

from collections import defaultdict
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from frugalseg.analysis.few_shot import Stage
from frugalseg.analysis.seeds import Aggregate, csv_text, spread
from frugalseg.run import write_json, write_text

FOLDS = (0, 1, 2)
"""Of every benchmark we have."""


@dataclass(frozen=True)
class Row:
    """Finished tests of one experiment with one number of shots that may be averaged.

    Attributes:
        experiment: name of its folder.
        stages: with equal facts; in each fold, with equal classes and episodes too.
    """

    experiment: str
    stages: tuple[Stage, ...]

    @property
    def shots(self) -> int:
        """K."""
        return self.stages[0].shots

    @property
    def facts(self) -> dict[str, str]:
        """Heading -> value, equal for all stages."""
        return self.stages[0].facts

    @property
    def folds(self) -> dict[int, dict[str, str]]:
        """Fold -> its classes and episodes, of those that were tested."""
        return {stage.fold: stage.fold_facts for stage in self.stages}

    @property
    def training_seeds(self) -> str:
        """As text; by fold where the folds have different ones."""
        seeds = {fold: " ".join(str(s.seed) for s in self.stages if s.fold == fold) for fold in self.folds}
        if len(set(seeds.values())) == 1:
            return next(iter(seeds.values()))
        return ", ".join(f"fold {fold}: {text}" for fold, text in seeds.items())

    @property
    def protocol(self) -> str:
        """What its protocol is, in one phrase."""
        return self.stages[0].settings.protocol

    @property
    def names(self) -> dict[int, list[str]]:
        """Fold -> names of its classes."""
        return {s.fold: [s.settings.names[c] for c in s.settings.tested] for s in self.stages}

    @property
    def roots(self) -> list[str]:
        """Data folders."""
        return list(dict.fromkeys(stage.settings.root for stage in self.stages))

    @cached_property
    def figures(self) -> Aggregate:
        """Scores and costs with mean, deviation, number and values.

        Keys are `fold<f>/miou`, `fold<f>/fb_iou`, `fold<f>/iou/<class>`, the same with `mean/` for the mean of all
        folds, and those of `COSTS`. Values are named `seed<training seed>/base<base seed>`. The mean of the folds is
        taken for every such pair first; it is left out where a fold has not been tested, and over the pairs that all
        folds have where one lacks some.
        """
        found: dict[str, dict[str, float]] = defaultdict(dict)
        for stage in self.stages:
            for base, scores in stage.scores.items():
                label, start = f"seed{stage.seed}/base{base}", f"fold{stage.fold}"
                found[f"{start}/miou"][label] = scores.miou
                found[f"{start}/fb_iou"][label] = scores.fb_iou
                for class_id, value in scores.iou.items():
                    found[f"{start}/iou/{stage.settings.names[class_id]}"][label] = value
        for key in ("miou", "fb_iou"):
            each = [found.get(f"fold{fold}/{key}", {}) for fold in FOLDS]
            for label in (label for label in each[0] if all(label in values for values in each)):
                found[f"mean/{key}"][label] = float(np.mean([values[label] for values in each]))
        for stage in self.stages:
            for name, value in stage.costs.items():
                found[name][f"seed{stage.seed}/fold{stage.fold}"] = value
        return {key: spread(values) for key, values in found.items()}

    @property
    def notes(self) -> list[str]:
        """What a reader of its mean of the folds must know."""
        if missing := [str(fold) for fold in FOLDS if fold not in self.folds]:
            return [f"no mean of the folds, for want of fold {' and '.join(missing)}"]
        every = {label for fold in FOLDS for label in self.values(f"fold{fold}/miou")}
        common = self.values("mean/miou")
        if not common:
            return ["no mean of the folds, since no training seed has all of them"]
        if left_out := sorted(every - set(common)):
            return [f"the mean of the folds leaves out {', '.join(left_out)}, which not every fold has"]
        return []

    def values(self, key: str) -> dict[str, float]:
        """Values of a key by name."""
        return {name: value for name, value in self.figures.get(key, {}).items() if name.startswith("seed")}


def rows_of(experiment: str, stages: list[Stage]) -> list[Row]:
    """Group tests by shots and by everything that they must share to be averaged.

    Args:
        experiment: name of its folder.
        stages: of `read_stages`.

    Returns:
        In the order of shots; more than one for some shots where the facts differ.
    """
    kinds: dict[tuple[object, ...], list[dict[str, str]]] = defaultdict(list)
    groups: dict[tuple[object, ...], list[Stage]] = defaultdict(list)
    for stage in stages:
        shared = (stage.shots, *stage.facts.items())
        # folds differ in classes and episodes, but training seeds of one fold must not
        known = kinds[(*shared, stage.fold)]
        if stage.fold_facts not in known:
            known.append(stage.fold_facts)
        groups[(*shared, known.index(stage.fold_facts))].append(stage)
    return sorted((Row(experiment, tuple(found)) for found in groups.values()), key=lambda row: row.shots)


def write_rows(experiment: Path, rows: list[Row]) -> None:
    """Write `aggregate/<K>shot-test.json` and `.csv`, each whole or not at all.

    Args:
        experiment: folder.
        rows: of this experiment; a second one of the same shots goes to `<K>shot-test-2`, and so on.
    """
    seen: dict[int, int] = defaultdict(int)
    for row in rows:
        seen[row.shots] += 1
        name = f"{row.shots}shot-test" + (f"-{seen[row.shots]}" if seen[row.shots] > 1 else "")
        facts = facts_of(row)
        write_json(experiment / "aggregate" / f"{name}.json", {"facts": facts, "values": row.figures})
        write_text(experiment / "aggregate" / f"{name}.csv", csv_text(row.figures, facts))


def facts_of(row: Row) -> dict[str, str]:
    """All facts of a row: shared ones, training seeds, and the classes and episodes of every fold."""
    by_fold = {f"{what} of fold {f}": text for f, facts in row.folds.items() for what, text in facts.items()}
    return {
        "shots": str(row.shots), **row.facts, "training seeds": row.training_seeds, **by_fold,
        "data folder": ", ".join(row.roots),
    }  # fmt: skip
