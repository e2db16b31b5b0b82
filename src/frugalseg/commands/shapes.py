"""`frugalseg shapes`: mean IoU of thin and of small classes, from a finished probe and the training masks.

Which classes are thin or small, the masks of the training split say (`analysis/thin_classes.py`); their IoU, the
`metrics.json` of the stage --of, as `val/iou/<class id>`. Takes the `data` section of the probe's YAML. Writes
`metrics.json` with `val/miou_thin`, `val/miou_small` and `val/miou_other`, and `shapes.json` with what was found.
"""

import argparse
import re
import sys
from pathlib import Path

from frugalseg.analysis.seeds import read_metrics
from frugalseg.analysis.thin_classes import Shape, class_shapes, group_scores, shape_groups
from frugalseg.commands.data_settings import build_data
from frugalseg.data.io import read_mask
from frugalseg.data.module import SegmentationData
from frugalseg.errors import RunFolderError
from frugalseg.run import RunFolder, data_digests, file_digest, write_json


def run(argv: list[str]) -> int:
    """Write the scores of one probe."""
    parser = argparse.ArgumentParser("frugalseg shapes", description=__doc__, allow_abbrev=False)
    parser.add_argument("--config", action="append", default=[], help="experiment YAML; may be repeated")
    parser.add_argument("--of", type=Path, required=True, help="folder of the finished probe")
    parser.add_argument("--out", type=Path, required=True, help="folder to write to")
    parser.add_argument("--experiment", default="scratch", help="name of the run; default: scratch")
    parser.add_argument("--stage", default="shapes", help="name of the stage; default: shapes")
    options, rest = parser.parse_known_args(argv)
    data = build_data(options.config, rest, verb="shapes")
    iou = class_scores(options.of / "metrics.json")
    split = data.splits["train"]
    inputs = data_digests(data.root, [split]) | {"of": file_digest(options.of / "metrics.json")}
    folder = RunFolder(options.out, options.experiment, options.stage, {"split": split, "inputs": inputs})
    if folder.is_done():
        print(f"{options.out}: up to date", file=sys.stderr)
        return 0
    folder.claim({"command": sys.argv})
    shapes = training_shapes(data)
    groups, names = shape_groups(shapes), data.class_names
    named = {group: [names[c] for c in ids] for group, ids in groups.items()}
    medians = {names[c]: shape._asdict() for c, shape in shapes.items()}
    write_json(options.out / "shapes.json", {"groups": named, "median regions": medians})
    scores = group_scores(iou, groups)
    folder.finish({f"val/miou_{group}": value for group, value in scores.items()})
    for group, value in scores.items():
        print(f"{group} ({', '.join(named[group])}): {100 * value:.1f}")
    return 0


def class_scores(path: Path) -> dict[int, float]:
    """IoU of each class of a probe's last validation.

    Args:
        path: its `metrics.json`.

    Raises:
        RunFolderError: it is missing or damaged, or was written before IoUs were kept.
    """
    found = {re.fullmatch(r"val/iou/(\d+)", key): value for key, value in read_metrics(path).items()}
    iou = {int(match[1]): value for match, value in found.items() if match}
    if not iou:
        raise RunFolderError(f"{path}: holds no val/iou/<class id>; run the probe again")
    return iou


def training_shapes(data: SegmentationData) -> dict[int, Shape]:
    """Median shapes of the classes in the training masks, the background left out.

    Args:
        data: any benchmark with masks.
    """
    samples = [sample for sample in data.index(data.splits["train"]) if sample.mask is not None]
    masks = (read_mask(s.mask, data.num_classes, code=s.code) for s in samples if s.mask is not None)
    return class_shapes(masks, range(int(data.classes.background), data.num_classes))
