"""Notebook 02: SFC and the long tail. All maps and scores are those that the stages wrote."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from frugalseg.analysis.groups import GROUPS, frequency_groups
from frugalseg.analysis.maps import foreground_scores, lacking, read_maps
from frugalseg.analysis.notebook.charts import Line, bar_chart, finished, line_chart, new_figure
from frugalseg.analysis.notebook.display import Plate, plate_of, shown
from frugalseg.analysis.notebook.folders import Runs
from frugalseg.analysis.notebook.scores import map_scores, mean_and_std
from frugalseg.analysis.notebook.state import read_tensors
from frugalseg.analysis.pictures import captioned, denormalise, enlarged, grid, map_panel
from frugalseg.analysis.sweep import Curve, read_curve
from frugalseg.analysis.tables import LOGITS, caption
from frugalseg.analysis.token_pictures import stacked
from frugalseg.data.base import Sample, count_tags
from frugalseg.data.io import read_mask
from frugalseg.data.normalise import IMAGENET_MEAN, IMAGENET_STD
from frugalseg.errors import MapsError, RunFolderError
from frugalseg.ops.thresholds import histogram

THRESHOLDS = torch.tensor([step / 50 for step in range(51)], dtype=torch.float64)
Way = tuple[str, str]
"""Name of an experiment, and one of `ops.cam.RULES`."""
IMAGES = 80
"""Images that a threshold curve is counted on."""


@shown
def frequencies_and_weights(runs: Runs, experiment: str) -> Plate:
    """Training images of every class, the commonest first, and the class weights w_c that its fit used."""
    stage = runs.stage(experiment, "classify")
    data = runs.data(stage)
    counts = count_tags(data.index(data.splits["train"]), data.classes.foreground)
    weights = read_tensors(stage, "class_weight")["class_weight"][1:].double().numpy()
    order = np.argsort(-counts, kind="stable")
    owner = {int(i): name for name, ids in frequency_groups(counts).items() for i in ids}
    figure = new_figure(9.0, 4.2)
    axes = figure.subplots()
    axes.bar(range(len(order)), counts[order], color=[data.palette[i + 1] / 255 for i in order], edgecolor="0.4")
    names = [f"{data.class_names[i + 1]} ({owner[int(i) + 1]})" for i in order]
    axes.set_xticks(range(len(order)), names, rotation=40, ha="right", fontsize=8)
    axes.set_ylabel("training images")
    other = axes.twinx()
    other.plot(range(len(order)), weights[order], "o-", color="black", linewidth=1)
    other.axhline(1, color="0.6", linestyle="--", linewidth=0.8)
    other.set_ylim(0, None)
    other.set_ylabel("class weight w_c (dots)")
    title = f"{experiment}: {counts.max()} to {counts.min()} images per class"
    axes.set_title(title, fontsize=11)
    return finished(figure, f"{title}, with class weights")


@shown
def image_bank(runs: Runs, experiment: str) -> Plate:
    """The image that the bank held of every class when the fit ended."""
    stage = runs.stage(experiment, "classify")
    data, kept = runs.data(stage), read_tensors(stage, "bank.image", "bank.tags")
    if not kept["bank.image"].numel():
        raise RunFolderError(f"{experiment} has no image bank: its draws are switched off")
    pictures = []
    for slot, (image, tags) in enumerate(zip(kept["bank.image"], kept["bank.tags"], strict=True)):
        others = int(tags.gt(0).sum()) - 1
        text = data.class_names[slot + 1] + (f" +{others}" if others > 0 else "" if others == 0 else " (empty)")
        pictures.append(captioned(enlarged(denormalise(image, IMAGENET_MEAN, IMAGENET_STD), 150), text))
    return plate_of(grid(pictures, 6), f"{experiment}: one image per class in the bank")


@shown
def shared_part_logits(runs: Runs, *names: str) -> Plate:
    """Mean logits of the head and of the tail class on bodies that both share, with the deviation over seeds."""
    rows = {name: map_scores(runs, name) for name in names}
    series = {
        name: [mean_and_std(each, f"logit_{key}", 1.0) for key in LOGITS]
        for name, each in rows.items()
        if any(f"logit_{key}" in each for key in LOGITS)
    }
    if not series:
        raise RunFolderError("missing: logits on shared parts; `make mini-sfc` counts them (evaluate --parts)")
    labels = [f"{owner}'s object:\n{rival}'s logit" for owner in ("tail", "head") for rival in ("head", "tail")]
    return bar_chart(labels, series, "mean logit", "Who claims a shared body")


@shown
def maps(runs: Runs, *ways: Way, count: int = 3) -> Plate:
    """The same images under several experiments: heat of every tagged class, labels, truth.

    Args:
        runs: the folder of runs.
        ways: experiment, and rule of its labels, such as m0 or sum.
        count: images, those with the most tagged classes first.
    """
    rows = []
    stages = {name: runs.stage(name, "cam", "cam-train", "cam-val") for name, _ in ways}
    data, samples = runs.predicted(next(iter(stages.values())))
    for sample in _crowded(samples, count):
        for name, rule in ways:
            panel = map_panel(sample, stages[name] / "maps", data.class_names, data.palette, rule)
            rows.append(captioned(panel, f"{name}: {caption(rule)}"))
    return plate_of(stacked(rows), f"class maps of {' and '.join(stages)} beside the truth")


def _crowded(samples: Sequence[Sample], count: int) -> list[Sample]:
    """Samples with masks that have the most tags, in the order of the split."""
    masked = [sample for sample in samples if sample.mask is not None]
    chosen = {s.id for s in sorted(masked, key=lambda sample: -len(sample.tags or ()))[:count]}
    return [sample for sample in masked if sample.id in chosen]


@shown
def groups(runs: Runs, *ways: Way) -> Plate:
    """Mean IoU of all, head, middle and tail classes, with the deviation over seeds.

    Args:
        runs: the folder of runs.
        ways: experiment, and rule whose score is drawn.
    """
    series = {}
    for name, rule in ways:
        rows, keys = map_scores(runs, name), [f"miou_{rule}", *(f"miou_{rule}_{group}" for group in GROUPS)]
        series[f"{name}, {caption(rule)}"] = [mean_and_std(rows, key) for key in keys]
    return bar_chart(["all", *GROUPS], series, "mean IoU in %", "By class frequency")


@shown
def threshold_curves(runs: Runs, *ways: Way) -> Plate:
    """Mean IoU, precision and recall over a constant background threshold, counted here on the first images.

    Args:
        runs: the folder of runs.
        ways: experiment, and map or sum of maps.
    """
    curves = {f"{name}, {caption(rule)}": threshold_curve(runs, name, rule) for name, rule in ways}
    panels: dict[str, dict[str, list[Line]]] = {"mean IoU in %": {}, "precision in %": {}, "recall in %": {}}
    for name, curve in curves.items():
        for panel, values in zip(panels.values(), (curve.miou, curve.precision, curve.recall), strict=True):
            panel[name] = [(curve.thresholds.tolist(), (100 * values).tolist())]
    return line_chart(panels, "background threshold", f"Thresholds, first {IMAGES} images at most")


def threshold_curve(runs: Runs, experiment: str, rule: str) -> Curve:
    """Scores of a map at every threshold, on the first images.

    Args:
        runs: the folder of runs.
        experiment: whose maps.
        rule: map, or sum of maps.

    Raises:
        RunFolderError: no maps are there.
        MapsError: they lack what the rule needs, or no image has a mask.
    """
    stage = runs.stage(experiment, "cam", "cam-train", "cam-val")
    data, samples = runs.predicted(stage)
    masked = [sample for sample in samples if sample.mask is not None][:IMAGES]
    counts = sum(_counted(stage / "maps", sample, rule, data.num_classes) for sample in masked)
    curve = None if isinstance(counts, int) else read_curve(counts.numpy(), THRESHOLDS.tolist())
    if curve is None:
        raise MapsError(f"{experiment}: no image of its maps has a mask to score against")
    return curve


def _counted(folder: Path, sample: Sample, rule: str, classes: int) -> torch.Tensor:
    path = folder / f"{sample.id}.npz"
    arrays = read_maps(path)
    if needed := lacking(arrays, rule):
        raise MapsError(f"{path}: holds no map {needed[0]}, which {rule} needs; choose another rule")
    keys = torch.as_tensor(arrays["keys"].astype(np.int64))[1:]
    truth = torch.as_tensor(read_mask(Path(sample.mask or ""), classes, code=sample.code).astype(np.int64))
    return histogram(foreground_scores(arrays, rule), keys, truth, THRESHOLDS, classes)
