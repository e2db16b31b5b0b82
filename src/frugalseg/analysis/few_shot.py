"""Few-shot test stages on disk: `fold<f>/seed<s>/<K>shot-test/`, their scores worked out anew from their counts."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from frugalseg.analysis.few_shot_facts import AGAIN
from frugalseg.analysis.few_shot_settings import Settings, read_settings
from frugalseg.analysis.seeds import read_metrics
from frugalseg.errors import RunFolderError
from frugalseg.ops.few_shot import ClassSums, class_iou, fb_iou, mean_iou

COSTS = {
    "parameters_trainable": "model/parameters_trainable",
    "parameters": "model/parameters",
    "flops": "model/flops",
    "episodes_per_second": "test/episodes_per_second",
}
"""What a net and an episode cost, and the keys in `metrics.json`; some are not there where nothing is trained."""
TOLERANCE = 1e-6
"""Between a logged IoU, which is a float32, and the exact one."""
_PLACE = re.compile(r"fold(\d+)/seed(\d+)/(\d+)shot-test")


class Scores(NamedTuple):
    """Scores of the episodes of one base seed, in 0..1.

    Attributes:
        miou: mean over the classes that had an episode.
        fb_iou: mean of background and foreground.
        iou: class id -> IoU.
        episodes: how many.
    """

    miou: float
    fb_iou: float
    iou: dict[int, float]
    episodes: int


@dataclass(frozen=True)
class Stage:
    """One finished test stage.

    Attributes:
        fold: its fold.
        seed: training seed.
        shots: K.
        settings: what it was run with.
        scores: base seed -> scores, exact.
        costs: of `COSTS`, as far as they were measured.
    """

    fold: int
    seed: int
    shots: int
    settings: Settings
    scores: dict[int, Scores]
    costs: dict[str, float]

    @property
    def facts(self) -> dict[str, str]:
        """What must be equal for two results of one fold to be comparable, but for classes and episodes."""
        return {**self.settings.facts, "base seeds": " ".join(map(str, self.scores))}

    @property
    def fold_facts(self) -> dict[str, str]:
        """Classes, number and file of the episodes: differ between folds as a matter of course."""
        names, counts = self.settings.names, dict.fromkeys(found.episodes for found in self.scores.values())
        absent = [names[c] for c in self.settings.tested if any(c not in s.iou for s in self.scores.values())]
        lack = f" (in a base seed without episodes: {', '.join(absent)})" if absent else ""
        tested = ", ".join(names[c] for c in self.settings.tested)
        found = {"classes": tested + lack, "episodes": ", ".join(map(str, counts))}
        return {**found, "episodes file": self.settings.episodes_file}


def has_few_shot(experiment: Path) -> bool:
    """Whether few-shot tests have been begun there."""
    return next(_places(experiment), None) is not None


def read_stages(experiment: Path) -> list[Stage]:
    """Read every finished few-shot test of an experiment; unfinished ones and old runs are left out.

    Args:
        experiment: `runs/<experiment>[-<name>]`.

    Raises:
        RunFolderError: none has finished, or one is damaged or contradicts itself.
    """
    stages = [
        _read(folder, experiment, *numbers)
        for folder, *numbers in _places(experiment)
        if (folder / "done.json").is_file()
    ]
    if not stages:
        raise RunFolderError(f"{experiment}: holds no finished few-shot test; run its make target first")
    return sorted(stages, key=lambda stage: (stage.shots, stage.fold, stage.seed))


def _places(experiment: Path) -> Iterator[tuple[Path, int, int, int]]:
    """Folders of tests with fold, training seed and shots; what was moved aside has another name."""
    for folder in sorted(experiment.glob("fold*/seed*/*shot-test")):
        if match := _PLACE.fullmatch(folder.relative_to(experiment).as_posix()):
            fold, seed, shots = map(int, match.groups())
            yield folder, fold, seed, shots


def _read(folder: Path, experiment: Path, fold: int, seed: int, shots: int) -> Stage:
    settings = read_settings(folder, experiment, fold, shots)
    metrics = read_metrics(folder / "metrics.json")
    scores = _scores(folder / "counts.npz", settings)
    _compare(folder / "metrics.json", metrics, scores)
    costs = {name: metrics[key] for name, key in COSTS.items() if key in metrics}
    return Stage(fold, seed, shots, settings, scores, costs)


def read_counts(path: Path) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Base seeds (S,) and sums (S, K, 5): per class episodes, intersection and union of background and foreground.

    Raises:
        RunFolderError: the file is missing or damaged, or its arrays are no such counts.
    """
    try:
        with np.load(path, allow_pickle=False) as archive:
            seeds, sums = archive["seeds"], archive["sums"]
    except Exception as error:  # damage makes zipfile, zlib and NumPy raise nearly anything
        reason = " ".join(str(error).split())[:160] or type(error).__name__
        raise RunFolderError(f"{path}: not readable ({reason}); {AGAIN}") from error
    if (flaw := _flaw(seeds, sums)) is not None:
        raise RunFolderError(f"{path}: {flaw}; {AGAIN}")
    return seeds.astype(np.int64), sums.astype(np.int64)


def _flaw(seeds: NDArray[np.generic], sums: NDArray[np.generic]) -> str | None:
    """What is wrong with the arrays, or None."""
    if seeds.dtype.kind not in "iu" or sums.dtype.kind not in "iu":
        return f"seeds are {seeds.dtype} and sums {sums.dtype}, not whole numbers"
    if seeds.ndim != 1 or not seeds.size or sums.ndim != 3 or sums.shape[::2] != (seeds.size, 5):
        return f"seeds of shape {seeds.shape} and sums of shape {sums.shape}, not (S,) and (S, K, 5)"
    if len(np.unique(seeds)) < seeds.size:
        return "has a base seed twice"
    counts = sums.astype(np.int64)
    if (counts < 0).any() or (counts[..., 1:3] > counts[..., 3:5]).any():
        return "has negative counts, or more intersection than union"
    if ((counts[..., 0] == 0) & (counts[..., 1:] > 0).any(axis=-1)).any():
        return "has pixels of a class without episodes"
    if not counts[..., 0].any(axis=1).all():
        return "has a base seed without episodes"
    return None


def _scores(path: Path, settings: Settings) -> dict[int, Scores]:
    """Scores of every base seed, from the counts alone.

    Raises:
        RunFolderError: the counts are damaged, or of classes that are not the fold's.
    """
    seeds, sums = read_counts(path)
    if sums.shape[1] != len(settings.names):
        raise RunFolderError(
            f"{path}: counts {sums.shape[1]} classes, but {settings.benchmark} has {len(settings.names)}; {AGAIN}"
        )
    found: dict[int, Scores] = {}
    for seed, rows in sorted(zip(seeds.tolist(), sums, strict=True), key=lambda pair: int(pair[0])):
        classes = tuple(np.flatnonzero(rows[:, 0]).tolist())
        if foreign := [settings.names[c] for c in classes if c not in settings.tested]:
            raise RunFolderError(f"{path}: has episodes of {foreign[0]}, which the fold does not test; {AGAIN}")
        own = torch.from_numpy(rows[list(classes)])
        counts = ClassSums(classes, own[:, 0], own[:, 1:3], own[:, 3:5])
        iou = dict(zip(classes, class_iou(counts).tolist(), strict=True))
        found[seed] = Scores(mean_iou(counts), fb_iou(counts), iou, int(own[:, 0].sum()))
    return found


def _expected(scores: dict[int, Scores]) -> dict[str, float]:
    """What `metrics.json` must say of the scores, but for `test/`."""
    flat: dict[int, dict[str, float]] = {
        seed: {"miou": s.miou, "fb_iou": s.fb_iou, **{f"iou/{c}": v for c, v in s.iou.items()}}
        for seed, s in scores.items()
    }
    each = {f"seed{seed}/{key}": value for seed, row in flat.items() for key, value in row.items()}
    each |= {f"seed{seed}/episodes": found.episodes for seed, found in scores.items()}
    each |= {"seeds": len(scores), "classes": min(len(found.iou) for found in scores.values())}
    for key in dict.fromkeys(key for row in flat.values() for key in row):
        values = np.array([row[key] for row in flat.values() if key in row])
        head, slash, class_id = key.partition("/")
        each[key] = float(values.mean())
        if len(values) > 1:
            each[f"{head}_std{slash}{class_id}"] = float(values.std(ddof=1))
    return each


def _compare(path: Path, metrics: dict[str, float], scores: dict[int, Scores]) -> None:
    """Refuse metrics that are not those of the counts beside them.

    Raises:
        RunFolderError: a score is missing, differs, or is of a seed or class that was not counted.
    """
    expected = {f"test/{key}": value for key, value in _expected(scores).items()}
    for key, value in expected.items():
        if key not in metrics:
            raise RunFolderError(f"{path}: lacks {key}, which counts.npz gives as {value:.6f}; {AGAIN}")
        if not abs(metrics[key] - value) <= TOLERANCE:
            raise RunFolderError(f"{path}: {key} is {metrics[key]:.6f}, but counts.npz gives {value:.6f}; {AGAIN}")
    scored = re.compile(r"test/(seed-?\d+/.*|(miou|fb_iou|iou)(_std)?(/.*)?)")
    if extra := [key for key in metrics if scored.fullmatch(key) and key not in expected]:
        raise RunFolderError(f"{path}: has {extra[0]}, but counts.npz has no such episodes; {AGAIN}")
    if metrics.get("test/episodes") not in {found.episodes for found in scores.values()}:
        raise RunFolderError(f"{path}: test/episodes is {metrics.get('test/episodes')}, unlike counts.npz; {AGAIN}")
