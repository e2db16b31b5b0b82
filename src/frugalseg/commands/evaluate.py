"""`frugalseg evaluate`: score class maps and label masks against the true masks of a split, from files.

--root ROOT alone means PASCAL VOC; any benchmark is given by --config with a `data` section, or by
`--data COCO --data.init_args.root ROOT`. Counts of pixels are integers, summed over images: scores
do not depend on --workers.

--maps: rules weigh SFC's maps as its scripts do (ops/cam.py). --sweep lays a constant background
under the foreground maps instead and tries every threshold in one pass. SFC's foreground maps are
stored times two, so each is divided by its maximum first. CTI's maps (`cam`, the seed; `r`, `mt`,
`f`, `q` and `infused`, what it is made of) are used as they are, and --sweep alone scores them.
`false positives` is the share of true background that is predicted as some class.

--parts: who is given the bodies that two classes of a miniature world share (analysis/shared_parts.py).
--views: how equal CTI's tokens and maps are in two views of an image, and how far apart the tokens of
classes lie (analysis/view_agreement.py).

--masks: 255 ("undecided") counts as background, as in the papers; `ignored` is its share.
"""

import sys
import time
from collections.abc import Mapping
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from frugalseg.analysis.figures import draw_classes, draw_confusion, draw_thresholds
from frugalseg.analysis.groups import frequency_groups
from frugalseg.analysis.maps import read_maps
from frugalseg.analysis.masks import label_panel
from frugalseg.analysis.overview import print_overview
from frugalseg.analysis.pictures import Picture, map_panel, save_png
from frugalseg.analysis.scores import flat_scores
from frugalseg.analysis.shared_parts import shared_part_values
from frugalseg.analysis.sweep import Curve, curves_csv, read_curve
from frugalseg.analysis.tables import BEST, caption, compared
from frugalseg.analysis.tally import Counts, Tally, count_shared
from frugalseg.analysis.token_pictures import THRESHOLD, rows_in, stacked, token_panel
from frugalseg.analysis.view_agreement import view_values
from frugalseg.callbacks.wandb_stages import log_stage
from frugalseg.commands.evaluate_options import UNNAMED, Task, read_task
from frugalseg.commands.progress import counter
from frugalseg.data.base import Sample, count_tags, first_five
from frugalseg.data.team import Team
from frugalseg.errors import DatasetError
from frugalseg.ops.confusion import iou
from frugalseg.run import RunFolder, write_arrays, write_json, write_text

Groups = dict[str, NDArray[np.int64]]


def run(argv: list[str]) -> int:
    """Score maps and masks; writes tables, figures, `metrics.json` and `done.json` to the output folder."""
    task = read_task(argv, __doc__)
    out = Path(task.options.out)
    folder = RunFolder(out, task.options.experiment, task.options.stage, task.identity())
    with Team() as team:
        if team.begin(folder.identity, partial(_claim, folder), out, folder.is_done) is None:
            if team.rank == 0:
                print(f"{out}: up to date", file=sys.stderr)
        elif (tally := _count(task, team)) is not None:
            folder.finish(_score(task, tally, out))
            log_stage(out, [*([] if task.sources.maps is None else [task.sources.maps]), *task.sources.masks.values()])
        if team.rank == 0 and not task.options.quiet:
            print_overview(out, task.options.split, task.data.class_names)
    return team.code


def _claim(folder: RunFolder) -> bool | None:
    """Make the run folder ours; None where there is nothing to do."""
    if folder.is_done():
        return None
    folder.claim({"command": sys.argv})
    return True


def _count(task: Task, team: Team) -> Tally | None:
    """Count everything; None where rank 0 knows of it."""
    began, split = time.monotonic(), task.options.split
    if task.options.parts and (bare := [s.id for s in task.samples if s.tags is None]):
        raise DatasetError(
            f"split {split}: {len(bare)} of {len(task.samples)} images have no image-level labels, first"
            f" {first_five(bare)}; {task.data.tags_from()}, or leave out --parts"
        )
    tally = count_shared(task.sources, task.samples, task.options.workers, counter("score"), team)
    if tally is not None:
        scored, seconds = sum(s.mask is not None for s in task.samples), time.monotonic() - began
        print(f"scored {scored} images in {seconds:.1f} s, {1000 * seconds / scored:.0f} ms an image", file=sys.stderr)
    return tally


def _score(task: Task, tally: Tally, out: Path) -> dict[str, float]:
    """Write what is not metrics, and give the metrics."""
    names, split = task.data.class_names, task.options.split
    groups = _groups(task)
    curves = _curves(tally, task.sources.thresholds)
    tally.confusion |= {name + BEST: curve.confusion for name, curve in curves.items()}
    background = task.data.classes.background
    metrics = flat_scores(tally.confusion, split, names, groups, tally.boundary, tally.ignored, background)
    metrics |= {f"{split}/threshold_{name}": float(c.thresholds[c.best]) for name, c in curves.items()}
    metrics |= {f"{split}/{name}": value for name, value in _measures(task).items()}
    write_arrays(out / "confusion.npz", _named(tally.confusion))
    write_arrays(out / "boundary.npz", _named(tally.boundary))
    write_json(out / "groups.json", {name: [names[i] for i in ids] for name, ids in groups.items()})
    if curves:
        write_text(out / "sweep.csv", curves_csv(curves))
    if not task.options.no_figures:
        _draw(task, tally, curves, groups, out / "figures")
    _draw_pictures(task, curves, out / "pictures")
    return metrics


def _measures(task: Task) -> dict[str, float]:
    """What --parts and --views ask for."""
    maps, found = task.sources.maps, dict[str, float]()
    if maps is not None and task.options.parts:
        found |= shared_part_values(maps, task.data.root, task.samples, task.data.num_classes)
    if maps is not None and task.options.views:
        found |= view_values(maps, task.samples)
    return found


def _groups(task: Task) -> Groups:
    """Head, middle and tail by the training images per class; none where the benchmark has no image-level labels."""
    training = task.data.index(task.train_split)
    if all(sample.tags is None for sample in training):
        return {}
    groups = frequency_groups(count_tags(training, task.data.classes.foreground))
    # foreground classes begin at 1, and at 0 where there is no background
    return {name: ids - (not task.data.classes.background) for name, ids in groups.items()}


def _curves(tally: Tally, thresholds: tuple[float, ...]) -> dict[str, Curve]:
    curves = {name: read_curve(counts, thresholds) for name, counts in tally.histograms.items()}
    return {name: curve for name, curve in curves.items() if curve is not None}


def _named(counts: Counts) -> Counts:
    """With a name for the segmenter's masks, which as a member of an archive need one."""
    return {name or UNNAMED: array for name, array in counts.items()}


def _draw(task: Task, tally: Tally, curves: Mapping[str, Curve], groups: Groups, folder: Path) -> None:
    """Figures: thresholds where maps were swept, classes, and the confusion of masks and of the main rule."""
    names, split = task.data.class_names, task.options.split
    if curves:
        shown = {caption(name): curve for name, curve in curves.items()}
        draw_thresholds(folder / "thresholds.png", shown, f"background thresholds on {split}")
    main = compared(list(tally.confusion))
    scores = {caption(name): iou(tally.confusion[name]) for name in main}
    draw_classes(folder / "classes.png", scores, names, groups, f"IoU by class on {split}")
    maps = [name for name in main if name not in task.sources.masks]
    chosen = [name for name in ("sum", "cam" + BEST) if name in maps][:1] or maps[-1:]
    for name in [*chosen, *task.sources.masks]:
        title = f"{caption(name)}: confusion on {split}"
        draw_confusion(folder / f"confusion_{name or UNNAMED}.png", tally.confusion[name], names, title)


def _draw_pictures(task: Task, curves: Mapping[str, Curve], folder: Path) -> None:
    """Maps and masks of the first images."""
    best = {name: float(curve.thresholds[curve.best]) for name, curve in curves.items()}
    for sample in [s for s in task.samples if s.mask is not None][: task.options.pictures]:
        save_png(folder / f"{sample.id}.png", _picture(task, sample, best))


def _picture(task: Task, sample: Sample, best: Mapping[str, float]) -> Picture:
    """SFC's maps and the masks side by side; CTI's maps, which are many rows, above the masks.

    Args:
        task: the command.
        sample: with a mask.
        best: swept map -> best threshold.
    """
    maps, masks, names, palette = task.sources.maps, task.sources.masks, task.data.class_names, task.data.palette
    labels = [label_panel(sample, masks, names, palette)] if masks else []
    if maps is None:
        return labels[0]
    if rows := rows_in(arrays := read_maps(maps / f"{sample.id}.npz")):
        threshold = best.get(rows[0], THRESHOLD)
        return stacked([token_panel(sample, arrays, names, palette, threshold), *labels])
    return np.concatenate([map_panel(sample, maps, names, palette), *labels], axis=1)
