"""`frugalseg evaluate`: score a folder of class maps against masks, from files and in one process."""

import argparse
import sys
from pathlib import Path
from typing import Any

from frugalseg.analysis.groups import frequency_groups
from frugalseg.analysis.maps import score_folder
from frugalseg.analysis.parts import shared_part_logits
from frugalseg.analysis.pictures import map_panel, save_png
from frugalseg.analysis.scores import flat_scores
from frugalseg.analysis.tables import print_scores
from frugalseg.commands.progress import counter
from frugalseg.data.base import count_tags
from frugalseg.data.voc import class_table, index
from frugalseg.errors import ConfigError, MapsError
from frugalseg.ops.cam import RULES
from frugalseg.run import RunFolder, data_digests, folder_digest, write_arrays, write_json


def run(argv: list[str]) -> int:
    """Score maps; writes `metrics.json`, `confusion.npz` and `done.json` to the output folder."""
    options = _parser().parse_args(argv)
    rules = options.rules.split(",")
    if unknown := [rule for rule in rules if rule not in RULES]:
        raise ConfigError(f"--rules: {', '.join(unknown)} unknown; choose from {', '.join(RULES)}")
    maps = Path(options.maps)
    if not maps.is_dir():
        raise MapsError(f"{maps}: no such folder; run the stage that makes the maps first")
    samples = index(options.root, options.split)[: options.limit]
    classes = class_table(options.root)
    folder = RunFolder(Path(options.out), options.experiment, options.stage, _identity(options, maps))
    if folder.is_done():
        print(f"{options.out}: up to date", file=sys.stderr)
    else:
        folder.claim({"command": sys.argv})
        counts = score_folder(maps, samples, classes.num_classes, rules, counter("score"))
        groups = frequency_groups(count_tags(index(options.root, options.train_split), classes.num_classes - 1))
        metrics = flat_scores(counts, options.split, classes.names, groups)
        if options.parts:
            parts = shared_part_logits(maps, Path(options.root), samples, classes.num_classes)
            metrics |= {f"{options.split}/{name}": value for name, value in parts.items()}
        write_arrays(Path(options.out) / "confusion.npz", counts)
        write_json(Path(options.out) / "groups.json", {k: [classes.names[i] for i in v] for k, v in groups.items()})
        for sample in [s for s in samples if s.mask is not None][: options.pictures]:
            panel = map_panel(sample, maps, classes.names, classes.palette)
            save_png(Path(options.out) / "pictures" / f"{sample.id}.png", panel)
        folder.finish(metrics)
    if not options.quiet:
        print_scores(Path(options.out))
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("frugalseg evaluate", description=__doc__)
    parser.add_argument("--maps", required=True, help="folder of <id>.npz files")
    parser.add_argument("--root", required=True, help="VOC2012 folder with the masks")
    parser.add_argument("--split", default="train")
    parser.add_argument("--train-split", default="trainaug", help="its tag counts decide what is head and tail")
    parser.add_argument("--rules", default=",".join(RULES), help="comma-separated; default: all")
    parser.add_argument("--out", required=True, help="folder for metrics.json")
    parser.add_argument("--experiment", default="scratch")
    parser.add_argument("--stage", default="score")
    parser.add_argument("--limit", type=int, help="only the first images of the split")
    parser.add_argument("--parts", action="store_true", help="also measure logits on shared parts (miniature worlds)")
    parser.add_argument("--pictures", type=int, default=0, help="draw the maps of the first images")
    parser.add_argument("--quiet", action="store_true", help="do not print the table")
    return parser


def _identity(options: argparse.Namespace, maps: Path) -> dict[str, Any]:
    """What the scores depend on: the settings and the run that made the maps."""
    settings = {k: v for k, v in vars(options).items() if k not in {"out", "quiet"}}
    lists = data_digests(Path(options.root), [options.split, options.train_split])
    return {"settings": settings, "inputs": {"maps": folder_digest(maps, "*.npz"), **lists}}
