"""Notebook 04: few-shot episodes and their scores. All pictures and counts are those that the tests wrote."""

import re
from pathlib import Path

import numpy as np

from frugalseg.analysis.few_shot import has_few_shot, read_stages
from frugalseg.analysis.few_shot_rows import FOLDS, Row, rows_of
from frugalseg.analysis.few_shot_tables import blocks, class_grids, main_grid
from frugalseg.analysis.notebook.charts import bar_chart
from frugalseg.analysis.notebook.display import Plate, Sheet, plate_of, sheet_of_grid, shown
from frugalseg.analysis.notebook.folders import Runs
from frugalseg.analysis.notebook.scores import mean_and_std
from frugalseg.analysis.pictures import captioned, grid
from frugalseg.data.opening import open_image
from frugalseg.errors import RunFolderError

_PICTURE = re.compile(r"test_class(\d+)_episode(\d+)\.png")


def _rows(runs: Runs, names: list[str]) -> list[Row]:
    """Rows of the experiments, all of one benchmark."""
    rows = [
        row
        for experiment in runs.named(names)
        if has_few_shot(experiment)
        for row in rows_of(experiment.name, read_stages(experiment))
    ]
    if not rows:
        raise RunFolderError(f"missing: few-shot tests of {', '.join(names)}; `make mini-dsmf` makes them")
    return next(iter(blocks(rows).values()))


@shown
def scores(runs: Runs, *names: str) -> Sheet:
    """Mean IoU by fold, their mean, FB-IoU, and what an episode costs."""
    return sheet_of_grid(main_grid(_rows(runs, list(names))))


@shown
def by_fold(runs: Runs, *names: str) -> Plate:
    """Mean IoU of every fold, one bar per experiment and number of shots, with the deviation over all seeds."""
    series = {}
    for row in _rows(runs, list(names)):
        keys = [*[f"fold{fold}/miou" for fold in FOLDS], "mean/miou"]
        series[f"{row.experiment}, {row.shots} shot"] = [mean_and_std(row.figures, key) for key in keys]
    return bar_chart([*[f"fold {fold}" for fold in FOLDS], "mean"], series, "mean IoU in %", "By fold")


@shown
def by_class(runs: Runs, *names: str, fold: int = 0) -> Sheet:
    """IoU of every class of a fold."""
    rows = [row for row in _rows(runs, list(names)) if fold in row.folds]
    if not rows:
        raise RunFolderError(f"missing: tests of fold {fold} of {', '.join(names)}; `make mini-dsmf` makes them")
    return sheet_of_grid(next(g for g in class_grids(rows) if g.title.startswith(f"fold {fold}:")))


@shown
def shots(runs: Runs, experiment: str) -> Plate:
    """What more supports give: IoU of every class of every fold with each number of shots."""
    rows = _rows(runs, [experiment])
    classes = {(fold, name): None for row in rows for fold, names in sorted(row.names.items()) for name in names}
    keys = [f"fold{fold}/iou/{name}" for fold, name in classes]
    series = {f"{row.shots} shot": [mean_and_std(row.figures, key) for key in keys] for row in rows}
    labels = [f"{name} ({fold})" for fold, name in classes]
    return bar_chart(labels, series, "IoU in %", f"{experiment}: by class (fold)")


@shown
def episodes(runs: Runs, experiment: str, shots: int = 1, fold: int = 0, count: int = 3) -> Plate:
    """Episodes as the test drew them: supports, query, truth, prediction; below, prior mask and graph maps.

    Args:
        runs: the folder of runs.
        experiment: whose.
        shots: K.
        fold: its number.
        count: how many, one of each class first.
    """
    pictures = _pictures(runs.stage(experiment, f"{shots}shot-test", fold=fold))
    return plate_of(
        grid([_read(path) for path in pictures[:count]], 1), f"{experiment}, fold {fold}, {shots} shot: episodes"
    )


@shown
def answers(runs: Runs, names: list[str], shots: int = 1, fold: int = 0, count: int = 2) -> Plate:
    """The same episodes answered by several experiments, below one another.

    Args:
        runs: the folder of runs.
        names: of experiments.
        shots: K.
        fold: its number.
        count: of episodes.
    """
    found = {name: _pictures(runs.stage(name, f"{shots}shot-test", fold=fold)) for name in names}
    drawn = [{path.name: path for path in paths} for paths in found.values()]
    common = [name for name in drawn[0] if all(name in each for each in drawn)]
    if not common:
        raise RunFolderError(f"{', '.join(names)} drew no episode in common; look at each with `episodes`")
    pictures = [
        captioned(_read(each[name]), experiment)
        for name in common[:count]
        for experiment, each in zip(found, drawn, strict=True)
    ]
    return plate_of(grid(pictures, 1), f"the same episodes of fold {fold} by {' and '.join(names)}")


def _pictures(stage: Path) -> list[Path]:
    """Episodes that a test drew, one of each class before any second one."""
    found = []
    for path in sorted((stage / "pictures").glob("*.png")):
        if match := _PICTURE.fullmatch(path.name):
            found.append((int(match[2]), int(match[1]), path))
    if not found:
        raise RunFolderError(f"missing: pictures of {stage.parent.parent.name}/{stage.name}; run the test again")
    seen: dict[int, int] = {}
    order = []
    for _, class_id, path in sorted(found):
        order.append((seen.setdefault(class_id, 0), class_id, path))
        seen[class_id] += 1
    return [path for _, _, path in sorted(order)]


def _read(path: Path) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    try:
        with open_image(path) as image:
            return np.asarray(image.convert("RGB"))
    except OSError as error:
        raise RunFolderError(f"{path}: is no picture ({error}); run the test again") from error
