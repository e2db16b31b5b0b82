"""Notebook 03: CTI's maps and tokens. All maps, tokens and scores are those that the stages wrote."""

import csv
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn.functional import normalize

from frugalseg.analysis.maps import foreground_scores, read_maps
from frugalseg.analysis.notebook.charts import Line, bar_chart, line_chart, matrix_chart
from frugalseg.analysis.notebook.display import Plate, Sheet, plate_of, shown
from frugalseg.analysis.notebook.folders import Runs
from frugalseg.analysis.notebook.scores import SCORES, map_scores, mean_and_std
from frugalseg.analysis.notebook.state import read_tensors
from frugalseg.analysis.pictures import Picture, captioned, enlarged
from frugalseg.analysis.seeds import read_metrics
from frugalseg.analysis.tables import caption, cell
from frugalseg.analysis.token_pictures import THRESHOLD, stacked, token_panel
from frugalseg.data.base import Sample
from frugalseg.data.description import Description
from frugalseg.data.io import read_image, read_mask
from frugalseg.errors import RunFolderError
from frugalseg.ops.cam import labels_from_maps
from frugalseg.ops.palette import colourise, overlay

MAPS = ("cam", "cam-train", "cam-val")
KINDS = ("cam", "r", "mt", "f", "q")


@shown
def token_maps(runs: Runs, experiment: str, count: int = 1) -> Plate:
    """Every kind of map of an image, one row each; the first map of a row is the background token's."""
    stage = runs.stage(experiment, *MAPS)
    data, samples = runs.predicted(stage)
    rows = [
        token_panel(sample, read_maps(stage / "maps" / f"{sample.id}.npz"), data.class_names, data.palette)
        for sample in [s for s in samples if s.mask is not None][:count]
    ]
    return plate_of(stacked(rows), f"{experiment}: R, mt, F and Q with the background token first")


@shown
def seeds(runs: Runs, *names: str, count: int = 4) -> Plate:
    """Seed labels of several experiments on the same images, each at its own best threshold, beside the truth."""
    stages = {name: runs.stage(name, *MAPS) for name in names}
    data, samples = runs.predicted(next(iter(stages.values())))
    best = {name: _threshold(runs, name) for name in names}
    rows = []
    for sample in [s for s in samples if s.mask is not None][:count]:
        image = read_image(sample.image)
        truth = read_mask(Path(sample.mask or ""), data.num_classes, code=sample.code)
        panels = [captioned(enlarged(image), sample.id), _painted(image, truth, data, "truth")]
        panels += [_painted(image, _labels(stages[n], sample, best[n]), data, f"{n} {best[n]:g}") for n in names]
        rows.append(np.concatenate(panels, axis=1))
    return plate_of(stacked(rows), f"image, truth and seed labels of {', '.join(names)}")


def _painted(image: Picture, labels: NDArray[np.integer], data: Description, text: str) -> Picture:
    return captioned(enlarged(overlay(image, colourise(labels, data.palette), 0.65)), text)


def _labels(stage: Path, sample: Sample, threshold: float) -> NDArray[np.int64]:
    arrays = read_maps(stage / "maps" / f"{sample.id}.npz")
    scores = foreground_scores(arrays, "cam")
    below = torch.full((1, *scores.shape[1:]), threshold)
    found = labels_from_maps(torch.cat([below, scores]), torch.as_tensor(arrays["keys"].astype(np.int64)))
    return np.asarray(found.numpy())


def _threshold(runs: Runs, experiment: str) -> float:
    """The best one of the seed map, where it has been scored."""
    stage = runs.stage(experiment, *SCORES)
    found = read_metrics(stage / "metrics.json")
    return next((value for key, value in found.items() if key.endswith("/threshold_cam")), THRESHOLD)


@shown
def spill(runs: Runs, *names: str) -> Plate:
    """How much true background the seed takes for a class, at its best threshold, with the deviation over seeds."""
    keys = ("false_positive_cam_best", "false_positive_r_best")
    series = {name: [mean_and_std(map_scores(runs, name), key) for key in keys] for name in names}
    labels = [caption("cam"), caption("r")]
    return bar_chart(labels, series, "% of the true background", "Background that is taken for a class")


@shown
def best_maps(runs: Runs, *names: str) -> Sheet:
    """Mean IoU of every kind of map at its best threshold."""
    found = {name: map_scores(runs, name) for name in names}
    kinds = [kind for kind in KINDS if any(f"miou_{kind}_best" in rows for rows in found.values())]
    rows = [[name, *[cell(own, f"miou_{kind}_best") for kind in kinds]] for name, own in found.items()]
    return Sheet("Mean IoU in % at the best threshold", ["experiment", *map(caption, kinds)], rows)


@shown
def threshold_curves(runs: Runs, *names: str, map_name: str = "cam") -> Plate:
    """Mean IoU of a map over the background threshold, as the evaluation counted it."""
    columns = {"miou": "mean IoU in %", "precision": "precision in %", "recall": "recall in %"}
    panels: dict[str, dict[str, list[Line]]] = {what: {} for what in columns.values()}
    for name in names:
        path = runs.stage(name, *SCORES) / "sweep.csv"
        if not path.is_file():
            raise RunFolderError(f"missing: sweep.csv of {name}; run evaluate with --sweep {map_name}")
        with path.open(newline="") as file:
            rows = [row for row in csv.DictReader(file) if row["map"] == map_name]
        for key, what in columns.items():
            at = [float(row["threshold"]) for row in rows]
            panels[what][name] = [(at, [100 * float(row[key]) for row in rows])]
    return line_chart(panels, "background threshold", caption(map_name))


@shown
def token_cosines(runs: Runs, *names: str) -> Plate:
    """Mean cosine between the class tokens in the memory, class by class; the diagonal is within a class.

    Experiments whose memory is empty, as C-CTI is off, are left out; classes without entries stay white.
    """
    found: dict[str, NDArray[np.float64]] = {}
    classes: tuple[str, ...] = ()
    for name in names:
        stage = runs.stage(name, "classify")
        kept = read_tensors(stage, "memory.values", "memory.count")
        if int((kept["memory.count"] > 0).sum()) < 2:
            continue
        matrix = mean_cosines(kept["memory.values"], kept["memory.count"])
        within = float(np.nanmean(np.diag(matrix)))
        between = float(np.nanmean(matrix[~np.eye(len(matrix), dtype=bool)]))
        found[f"{name}: within {within:.2f}, between {between:.2f}"] = matrix
        classes = runs.data(stage).class_names[1:]
    if not found:
        raise RunFolderError(f"the class memory of {', '.join(names)} is empty: C-CTI is off, or the fit was too short")
    lowest = min(float(np.nanmin(matrix)) for matrix in found.values())
    return matrix_chart(found, classes, "Mean cosine of class tokens", lowest)


def mean_cosines(values: torch.Tensor, count: torch.Tensor) -> NDArray[np.float64]:
    """Mean cosine between entries of every two classes; of an entry with itself none is taken.

    Args:
        values: (C, M, D) entries; empty slots hold zeros.
        count: (C,) entries written so far.

    Returns:
        (C, C); NaN in rows and columns of classes without entries, and on the diagonal of a class with one.
    """
    # a zero vector stays zero and adds nothing to a sum
    sums = normalize(values.double(), dim=2).sum(dim=1)
    filled = count.clamp(max=values.shape[1]).double()
    products, pairs = sums @ sums.T, filled[:, None] * filled[None]
    own = torch.eye(len(filled), dtype=torch.bool)
    products[own] -= filled
    pairs[own] -= filled
    return np.asarray(torch.where(pairs > 0, products / pairs, torch.nan).numpy())
