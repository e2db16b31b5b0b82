"""Notebook 07: a user's photos on their way from tags to masks; most of it needs no true mask."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from frugalseg.analysis.maps import foreground_scores, lacking, read_maps
from frugalseg.analysis.masks import read_labels
from frugalseg.analysis.notebook.charts import bar_chart
from frugalseg.analysis.notebook.display import Plate, Sheet, plate_of, shown
from frugalseg.analysis.notebook.folders import Runs, target_of
from frugalseg.analysis.pictures import Picture, captioned, enlarged, grid
from frugalseg.analysis.seeds import read_metrics
from frugalseg.analysis.token_pictures import rows_in, stacked
from frugalseg.data.base import Sample, count_tags
from frugalseg.data.folder_splits import ALL, MASKED, TAGGED
from frugalseg.data.io import image_size, read_image, read_mask
from frugalseg.data.module import SegmentationData
from frugalseg.errors import DatasetError, RunFolderError
from frugalseg.ops.palette import colourise, heat, overlay
from frugalseg.run import read_json

LABELS = (
    ("CRF", "seeds-tagged", "crf"), ("seed labels", "seeds-tagged", "seed_labels"),
    ("after the walk", "labels-tagged", "refined"), ("pseudo label", "labels-tagged", "pseudo"),
    ("mask", "predict-all", "masks"),
)  # fmt: skip
"""Caption, stage and folder of the labels of `make folder-masks`, in its order."""
SIDE = 300
"""Pixels of the longer side of a photo on the page, at most."""


@shown
def overview(runs: Runs, experiment: str) -> Sheet:
    """How many photos there are, and which labels they have."""
    data = _data(runs, experiment)
    rows = [
        ["photos", ALL, _size(data, ALL)],
        ["with at least one tag: what is learned from", TAGGED, _size(data, TAGGED)],
        ["with a mask painted by hand: what can be scored", MASKED, _size(data, MASKED)],
    ]
    names = ", ".join(data.class_names[1:])
    return Sheet(
        str(data.root.name), ["what", "split", "photos"], rows, [f"{data.classes.foreground} classes: {names}"], 2
    )


def _size(data: SegmentationData, split: str) -> str:
    try:
        return f"{len(data.index(split)):,}"
    except DatasetError:  # an empty split
        return "0"


@shown
def tag_counts(runs: Runs, experiment: str) -> Plate:
    """Photos of every class, the commonest first."""
    data = _data(runs, experiment)
    counts = count_tags(data.index(TAGGED), data.classes.foreground)
    order = np.argsort(-counts, kind="stable")
    bars = {"photos with the tag": [(float(counts[i]), 0.0) for i in order]}
    return bar_chart([data.class_names[i + 1] for i in order], bars, "photos", "Photos of every class")


@shown
def steps(runs: Runs, experiment: str, count: int = 2) -> Plate:
    """Photos with the most tags: what the classifier looks at, and below it the labels of every stage that has run."""
    stage = runs.stage(experiment, "cam-tagged")
    data, samples = runs.predicted(stage)
    rows = []
    for sample in sorted(samples, key=lambda sample: -len(sample.tags or ()))[:count]:
        image = read_image(sample.image)
        arrays = read_maps(stage / "maps" / f"{sample.id}.npz")
        rule = "cam" if rows_in(arrays) else "sum" if not lacking(arrays, "sum") else "m0"
        scores = foreground_scores(arrays, rule).float().numpy()
        panels = [_small(image, sample.id)]
        for key, score in zip(arrays["keys"][1:].tolist(), scores, strict=True):
            panels.append(_small(overlay(image, heat(score), 0.6), data.class_names[key]))
        rows.append(np.concatenate(panels, axis=1))
        if there := _folders(stage.parent, sample):
            rows.append(_labels(sample, there, data))
    return plate_of(stacked(rows), f"{experiment}: photo, class maps, labels of each stage")


@shown
def masks(runs: Runs, experiment: str, count: int = 6) -> Plate:
    """Masks of the last stage over the photos, those without a tag first: the net alone has found what is there."""
    stage = runs.stage(experiment, "predict-all")
    data, samples = runs.predicted(stage)
    chosen = sorted(samples, key=lambda sample: bool(sample.tags))[:count]
    panels = [_labels(sample, {_told(sample, data): stage / "masks"}, data) for sample in chosen]
    return plate_of(grid(panels, 2), f"{experiment}: masks of {len(panels)} photos")


def _labels(sample: Sample, folders: Mapping[str, Path], data: SegmentationData) -> Picture:
    """Photo, the labels of each folder, and the mask that was painted by hand, where there is one."""
    image = read_image(sample.image)
    panels = [_small(image, sample.id)]
    size = image.shape[0], image.shape[1]
    for name, folder in folders.items():
        ids = read_labels(folder / f"{sample.id}.png", data.num_classes, size, sample.image)
        panels.append(_small(overlay(image, colourise(ids, data.palette), 0.65), name))
    if sample.mask is not None:
        truth = read_mask(sample.mask, data.num_classes, size, sample.image, sample.code)
        panels.append(_small(overlay(image, colourise(truth, data.palette), 0.65), "by hand"))
    return np.concatenate(panels, axis=1)


def _small(picture: Picture, text: str) -> Picture:
    """A picture with a caption, at a size at which several fit side by side: photos have many more pixels."""
    if (longest := max(picture.shape[:2])) > SIDE:
        height, width = (max(1, round(side * SIDE / longest)) for side in picture.shape[:2])
        picture = np.asarray(Image.fromarray(picture).resize((width, height), Image.Resampling.BOX))
    return captioned(enlarged(picture), text)


def _told(sample: Sample, data: SegmentationData) -> str:
    return ", ".join(data.class_names[tag + 1] for tag in sample.tags or ()) or "no tag"


def _folders(seed: Path, sample: Sample) -> dict[str, Path]:
    """Caption -> folder of the labels that a photo has."""
    folders = {name: seed / stage / kind for name, stage, kind in LABELS}
    return {name: folder for name, folder in folders.items() if (folder / f"{sample.id}.png").is_file()}


@dataclass
class Tally:
    """What labels say of one class.

    Attributes:
        tagged: photos with the tag.
        kept: of these, those whose label shows the class.
        other: photos without the tag whose label shows it.
        area: mean share of the photo where it is shown, over `kept`.
    """

    tagged: int = 0
    kept: int = 0
    other: int = 0
    area: float = 0.0


@shown
def agreement(runs: Runs, experiment: str) -> Sheet:
    """Whether labels and masks show what the tags say; a class that masks lose, or find everywhere, stands out here."""
    stage = runs.stage(experiment, "predict-all")
    data = _data(runs, experiment)
    samples = data.index(TAGGED)
    kinds = [place for place in LABELS if place[2] in ("refined", "pseudo", "masks")]
    there = [(name, stage.parent / at / kind) for name, at, kind in kinds if (stage.parent / at / kind).is_dir()]
    found = {name: tally(samples, folder, data.num_classes) for name, folder in there}
    rows = []
    for number, name in enumerate(data.class_names[1:]):
        own = [tallies[number] for tallies in found.values()]
        if own[-1].tagged or own[-1].other:
            rows.append([name, str(own[-1].tagged), *(text for each in own for text in _texts(each))])
    columns = [f"{name}: {what}" for name in found for what in ("shown", "area", "elsewhere")]
    notes = [
        "shown: part of the photos with the tag in which the class has a pixel; area: its part of those photos;"
        " elsewhere: photos without the tag in which it has one (labels know the tags, masks do not)"
    ]
    return Sheet("Tags against labels and masks", ["class", "photos with the tag", *columns], rows, notes)


def _texts(tally: Tally) -> tuple[str, str, str]:
    shown = f"{tally.kept / tally.tagged:.0%}" if tally.tagged else "-"
    return shown, f"{tally.area / tally.kept:.1%}" if tally.kept else "-", str(tally.other)


def tally(samples: Sequence[Sample], folder: Path, num_classes: int) -> list[Tally]:
    """Count over photos with tags what their labels show.

    Args:
        samples: with tags.
        folder: of one label each.
        num_classes: K, with the background.

    Returns:
        One per foreground class.

    Raises:
        FrugalsegError: a label is missing or wrong.
    """
    tallies = [Tally() for _ in range(num_classes - 1)]
    for sample in samples:
        ids = read_labels(folder / f"{sample.id}.png", num_classes, image_size(sample.image), sample.image)
        shares = np.bincount(ids.ravel(), minlength=256)[1:num_classes] / ids.size
        for number, (own, share) in enumerate(zip(tallies, shares.tolist(), strict=True)):
            tagged = number in (sample.tags or ())
            own.tagged += tagged
            own.kept += tagged and share > 0
            own.other += not tagged and share > 0
            own.area += share * tagged
    return tallies


@shown
def scores(runs: Runs, experiment: str) -> Sheet:
    """Intersection over union of the masks on the photos that have one painted by hand."""
    found = read_metrics(runs.stage(experiment, "score-masked") / "metrics.json")
    rows = []
    for kind, what in (("", "masks"), ("_crf", "masks after a CRF")):
        classes = {key.split("/", 2)[2]: value for key, value in found.items() if key.startswith(f"masked/iou{kind}/")}
        if classes:
            rows += [[what, name, f"{100 * value:.1f}"] for name, value in classes.items()]
            rows.append([what, "mean", f"{100 * found[f'masked/miou{kind}']:.1f}"])
    return Sheet("IoU in % on photos with a mask", ["what", "class", "IoU"], rows, wordy=2)


@shown
def new_photos(runs: Runs, experiment: str, count: int = 6) -> Plate:
    """What `frugalseg segment` made of photos that nobody has tagged, with the largest areas."""
    folder = runs.stage(experiment, "segment").parent / "segment-new"
    if not (folder / "areas.json").is_file():
        where = f"{experiment}/seed{runs.seed}/{folder.name}"
        raise RunFolderError(f"missing: {where}; `make {target_of('folder-segment')}` makes it")
    entries: dict[str, Any] = read_json(folder / "areas.json").get("images", {})
    panels = []
    for name, entry in list(entries.items())[:count]:
        if not entry.get("overlay") or not (folder / entry["overlay"]).is_file():
            continue
        largest = sorted(entry["areas"], key=lambda area: -area["share"])[:2]
        said = ", ".join(f"{area['class']} {area['share']:.0%}" for area in largest)
        panels.append(_small(read_image(folder / entry["overlay"]), f"{name}: {said}"))
    if not panels:
        raise RunFolderError(
            f"missing: overlays in {experiment}/seed{runs.seed}/{folder.name}; segment without --no-overlay"
        )
    return plate_of(grid(panels, 2), f"{experiment}: masks of photos without tags")


def _data(runs: Runs, experiment: str) -> SegmentationData:
    return runs.data(runs.stage(experiment, "classify"))
