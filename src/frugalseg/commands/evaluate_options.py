"""What the words of `frugalseg evaluate` ask for, checked before a file is read."""

import argparse
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from frugalseg.analysis.groups import GROUPS
from frugalseg.analysis.maps import CONTROLS, SWEEPS
from frugalseg.analysis.tables import BEST
from frugalseg.analysis.tally import Sources
from frugalseg.commands.data_settings import build_data
from frugalseg.data.base import Sample, samples_digest
from frugalseg.data.module import SegmentationData
from frugalseg.data.recipes import Segment
from frugalseg.data.voc import VOC
from frugalseg.errors import ConfigError
from frugalseg.ops.cam import RULES
from frugalseg.run import data_digests, digest_of, folder_digest

UNNAMED = "masks"
"""Stands for the segmenter's masks, whose name is empty, where a name is needed."""
_MOST_THRESHOLDS = 1000
_WITHOUT_EFFECT = {"out", "quiet", "workers", "config"}


@dataclass(frozen=True)
class Task:
    """A checked command.

    Attributes:
        options: parsed words.
        data: the benchmark.
        samples: images of the split.
        train_split: split whose tag counts decide what is head and tail.
        sources: what is scored.
    """

    options: argparse.Namespace
    data: SegmentationData
    samples: list[Sample]
    train_split: str
    sources: Sources

    def identity(self) -> dict[str, Any]:
        """What the scores depend on: the settings, the data, and the runs that made the maps and masks."""
        settings = {key: value for key, value in vars(self.options).items() if key not in _WITHOUT_EFFECT}
        # an older score, made before there was such an option, stays up to date
        if not self.options.views:
            del settings["views"]
        data = {
            "class": type(self.data).__name__,
            "classes": digest_of(self.data.class_names),
            "samples": samples_digest({self.options.split: self.samples}),
            "train_split": self.train_split,
        }
        inputs = data_digests(self.data.root, [self.options.split, self.train_split])
        if self.sources.maps is not None:
            inputs["maps"] = folder_digest(self.sources.maps, "*.npz")
        for name, folder in self.sources.masks.items():
            inputs[f"masks {name or UNNAMED}"] = folder_digest(folder, "*.png")
        return {"settings": settings, "data": data, "inputs": inputs}


def read_task(argv: list[str], description: str | None) -> Task:
    """Parse and check the words.

    Args:
        argv: words after `evaluate`.
        description: for --help.

    Raises:
        ConfigError: words that are unknown, missing, or contradict each other.
        DatasetNotFoundError: the data set or the split is not there.
        DatasetError: images of the split are missing.
    """
    options, rest = _parser(description).parse_known_args(argv)
    # what follows a --data setting is its value
    if unknown := [w for n, w in enumerate(rest) if not w.startswith("--data") and (n == 0 or w.startswith("--"))]:
        raise ConfigError(f"{unknown[0]}: no such setting; see `frugalseg evaluate --help`")
    if options.maps is None and not options.masks:
        raise ConfigError("frugalseg evaluate needs --maps DIR or --masks NAME=DIR")
    if options.maps is None and (of_maps := [o for o in ("sweep", "parts", "views") if getattr(options, o)]):
        raise ConfigError(f"--{of_maps[0]} is of maps: give --maps DIR too")
    rules, sweeps = _known("rules", options.rules, RULES), _known("sweep", options.sweep, SWEEPS)
    thresholds, masks = _thresholds(options.thresholds), _masks(options.masks)
    for option, number in (("workers", options.workers), ("limit", options.limit)):
        if number is not None and number < 1:
            raise ConfigError(f"--{option}: {number} is less than 1; give a larger number, or leave it out")
    data = _data(options, rest)
    if options.maps is not None and not data.classes.background:
        raise ConfigError(f"--maps: class maps begin with a background, and {type(data).__name__} has none")
    maps = None if options.maps is None else Path(options.maps)
    sources = Sources(data.num_classes, data.classes.background, maps, rules, sweeps, thresholds, masks)
    samples = data.index(options.split)[: options.limit or data.limit]
    train_split = options.train_split or ("trainaug" if options.root else data.splits["train"])
    return Task(options, data, samples, train_split, sources)


def _parser(description: str | None) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        "frugalseg evaluate",
        description=description,
        allow_abbrev=False,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--maps", help="folder of <id>.npz files")
    parser.add_argument(
        "--masks", action="append", default=[], metavar="NAME=DIR",
        help="folder of <id>.png label masks, scored as miou_NAME; may be repeated; without NAME= the segmenter's, "
        "scored as miou; 255 counts as background",
    )  # fmt: skip
    parser.add_argument("--root", help="VOC2012 folder with the true masks; other benchmarks by --config or --data")
    parser.add_argument("--config", action="append", default=[], help="YAML with a `data` section; may be repeated")
    parser.add_argument("--split", default="train")
    parser.add_argument("--train-split", help="its tag counts decide what is head and tail; default: of the data")
    parser.add_argument("--rules", default=",".join(RULES), help="comma-separated; default: all")
    parser.add_argument("--sweep", default="", help=f"comma-separated maps to sweep: {', '.join(SWEEPS)}")
    parser.add_argument("--thresholds", default="0:1:0.01", metavar="LO:HI:STEP", help="of --sweep")
    parser.add_argument("--out", required=True, help="folder for metrics.json")
    parser.add_argument("--experiment", default="scratch")
    parser.add_argument("--stage", default="score")
    parser.add_argument("--limit", type=int, help="only the first images of the split")
    parser.add_argument("--workers", type=int, help="processes; default: one per core, one for few images")
    parser.add_argument(
        "--parts", action="store_true", help="also measure logits and shares of shared parts (miniature worlds)"
    )
    parser.add_argument(
        "--views", action="store_true", help="also compare two views of each image (CTI with save_views)"
    )
    parser.add_argument("--pictures", type=int, default=0, help="draw maps and masks of the first images")
    parser.add_argument("--no-figures", action="store_true", help="leave out figures/*.png")
    parser.add_argument("--quiet", action="store_true", help="do not print the tables")
    return parser


def _data(options: argparse.Namespace, rest: list[str]) -> SegmentationData:
    """VOC for --root alone, else what --config and --data say."""
    if options.root and (rest or options.config):
        raise ConfigError(
            "--root is VOC's; beside --config or --data give the folder as --data.init_args.root and leave --root out"
        )
    if options.root:
        return VOC(options.root, Segment())
    if not rest and not options.config:
        raise ConfigError("frugalseg evaluate needs --root ROOT (VOC), --config with a `data` section, or --data")
    return build_data(options.config, rest, "evaluate", recipe="Segment")


def _known(option: str, value: str, choices: Any) -> tuple[str, ...]:
    """Comma-separated names of `choices`."""
    names = tuple(dict.fromkeys(name for name in value.split(",") if name))
    if unknown := [name for name in names if name not in choices]:
        raise ConfigError(f"--{option}: {', '.join(unknown)} unknown; choose from {', '.join(choices)}")
    return names


def _thresholds(text: str) -> tuple[float, ...]:
    """LO:HI:STEP as numbers, HI included."""
    try:
        low, high, step = (float(part) for part in text.split(":"))
        count = int((high - low) / step + 1e-6) + 1 if step > 0 else 0
    except (ValueError, OverflowError):
        low, high, count = 0.0, -1.0, 0
    if not (0 <= low <= high < float("inf") and 1 <= count <= _MOST_THRESHOLDS):
        raise ConfigError(
            f"--thresholds: {text} is not LO:HI:STEP with 0 <= LO <= HI, STEP above 0 and at most {_MOST_THRESHOLDS}"
            " steps; write 0:1:0.01"
        )
    return tuple(round(low + number * step, 9) for number in range(count))


def _masks(words: list[str]) -> dict[str, Path]:
    """NAME=DIR, =DIR or DIR, as name -> folder."""
    masks: dict[str, Path] = {}
    for word in words:
        name, equals, folder = word.partition("=")
        if not equals or "/" in name:  # an equals sign of the path's own
            name, folder = "", word
        if not folder:
            raise ConfigError(f"--masks {word}: names no folder; write NAME=DIR")
        taken = name in (*SWEEPS, *CONTROLS, *GROUPS, UNNAMED) or name.endswith((BEST, *(f"_{g}" for g in GROUPS)))
        if taken or not re.fullmatch(r"\w*", name):
            raise ConfigError(
                f"--masks {word}: {name} cannot be a name, {'another score has it' if taken else 'it has odd signs'};"
                " take letters, digits and _, such as crf"
            )
        if name in masks:
            raise ConfigError(
                f"--masks: {masks[name]} and {folder} both have the name {name!r}; give one of them another: NAME=DIR"
            )
        masks[name] = Path(folder)
    return masks
