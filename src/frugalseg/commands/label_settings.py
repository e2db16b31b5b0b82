"""Words and settings of the verbs that make labels: `--config` files with a section of the verb's name and `data`."""

import argparse
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from jsonargparse import ArgumentError, ArgumentParser

from frugalseg.analysis.maps import SWEEPS
from frugalseg.commands.data_settings import build_data
from frugalseg.commands.parsing import check_parsed, check_words, guard, one_line
from frugalseg.data.base import Sample
from frugalseg.data.module import SegmentationData
from frugalseg.errors import ConfigError, DatasetError
from frugalseg.ops.cam import RULES
from frugalseg.yaml_text import read_yaml

S = TypeVar("S")
SECTIONS = frozenset({"crf", "walk", "data", "model", "trainer", "run", "seed_everything", "ckpt_path"})
"""Of experiment files; these verbs look at one of the first two and at the data."""


class Request(NamedTuple):
    """What a verb was asked for.

    Attributes:
        verb: its name, also of its section.
        argv: its words.
        options: paths, split, names and speed.
        data: the data module.
        samples: of the split, as far as data.limit goes.
    """

    verb: str
    argv: list[str]
    options: argparse.Namespace
    data: SegmentationData
    samples: list[Sample]


def words_of(verb: str, doc: str | None, settings: type, stage: str) -> argparse.ArgumentParser:
    """The parser of the words that all these verbs take.

    Args:
        verb: its name, also of its section.
        doc: for `--help`.
        settings: dataclass of its section.
        stage: default of `--stage`.
    """
    described = _settings_parser(verb, settings).format_help().split("\n\n", 2)[-1]
    parser = argparse.ArgumentParser(
        f"frugalseg {verb}", description=doc, allow_abbrev=False, formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog=f"section `{verb}` of the configuration, or as words:\n\n{described}",
    )  # fmt: skip
    parser.add_argument("--config", action="append", default=[], help="experiment YAML; may be repeated")
    parser.add_argument("--maps", type=Path, required=True, help="folder of <id>.npz files")
    parser.add_argument("--split", default="train")
    parser.add_argument("--out", type=Path, required=True, help="run folder; a folder of PNGs for each kind")
    parser.add_argument(
        "--workers", type=int, help="processes, on a GPU threads that read and write; default: all cores"
    )
    parser.add_argument("--device", choices=("cpu", "cuda", "auto"), default="cpu", help="auto: a GPU if there is one")
    parser.add_argument("--batch", type=int, default=8, help="images of one size that a GPU takes at once")
    parser.add_argument("--experiment", default="scratch")
    parser.add_argument("--stage", default=stage)
    return parser


def parse(parser: argparse.ArgumentParser, verb: str, settings: type[S], argv: list[str]) -> tuple[Request, S]:
    """Read all words and files.

    Args:
        parser: of `words_of`, perhaps with more words.
        verb: its name, also of its section.
        settings: dataclass of its section.
        argv: words.

    Raises:
        ConfigError: an unknown key, a refused value, or no section.
        DatasetError: the split cannot be listed, or the data set has no background.
    """
    options, rest = parser.parse_known_args(argv)
    if (options.workers is not None and options.workers < 1) or options.batch < 1:
        raise ConfigError("--workers and --batch must be at least 1")
    own, others = _split(rest, verb)
    data = build_data(options.config, others, verb, recipe="Segment")
    section = read_settings(options.config, own, verb, settings)
    if not data.classes.background:
        raise DatasetError(
            f"{type(data).__name__} has no background class, which label rules need; take another data set"
        )
    samples = data.index(options.split)[: data.limit]
    return Request(verb, argv, options, data, samples), section


def check_kinds(kinds: Sequence[str]) -> None:
    """Refuse no kind, and a kind that is named twice.

    Raises:
        ValueError: it is so.
    """
    if not kinds or len(set(kinds)) < len(kinds):
        raise ValueError(f"kinds {list(kinds)} must name at least one kind, and none twice")


def check_rule(name: str, rule: str, without_background: bool) -> None:
    """Refuse a rule that no maps follow.

    Args:
        name: of the setting.
        rule: its value.
        without_background: whether maps without a background will do.

    Raises:
        ValueError: it is unknown, or its maps have no background of their own.
    """
    if rule not in SWEEPS:
        raise ValueError(f"{name} {rule} is unknown; choose from {', '.join(SWEEPS)}")
    if rule not in RULES and not without_background:
        raise ValueError(
            f"{name} {rule} has no background map, which this needs; set a constant, or another kind or rule"
        )


def read_settings(configs: Sequence[str], words: Sequence[str], name: str, settings: type[S]) -> S:
    """Build a section's settings from files, later ones winning, and words.

    Args:
        configs: YAML files, which can be read (`build_data` has looked).
        words: `--<name>.<key>` settings.
        name: of the section.
        settings: its dataclass.

    Raises:
        ConfigError: an unknown section, no file has this one, an unknown key, or a refused value.
    """
    contents = [read_yaml(Path(config)) or {} for config in configs]
    for config, content in zip(configs, contents, strict=True):
        if unknown := [str(key) for key in content if key not in SECTIONS]:
            raise ConfigError(
                f"{config}: {unknown[0]}: no such section; mend its name, or see `frugalseg {name} --help`"
            )
    sections = [content[name] for content in contents if name in content]
    if configs and not sections:
        raise ConfigError(f"{', '.join(configs)}: has no `{name}` section; give the experiment's YAML of this stage")
    if not all(isinstance(section or {}, dict) for section in sections):
        raise ConfigError(f"{', '.join(configs)}: `{name}` is not a mapping of settings; see `frugalseg {name} --help`")
    flat = [word for section in sections for word in _flat(section or {}, f"--{name}")]
    check_words(words)
    parser = _settings_parser(name, settings)
    try:
        parsed = parser.parse_args([*flat, *words])
        check_parsed(parsed)
        built: S = parser.instantiate(parsed)[name]
    except (ArgumentError, UnicodeDecodeError) as error:
        raise ConfigError(f"{one_line(str(error))}; see `frugalseg {name} --help`") from error
    except ValueError as error:  # a setting that the dataclass refuses
        raise ConfigError(
            f"{name}: {one_line(str(error))}; mend the setting, or see `frugalseg {name} --help`"
        ) from error
    return built


def _settings_parser(name: str, settings: type) -> ArgumentParser:
    guard()
    parser = ArgumentParser(exit_on_error=False)
    parser.add_class_arguments(settings, name)
    return parser


def _flat(section: dict[str, Any], prefix: str) -> Iterator[str]:
    """Settings as words: the parser names the key of each, not the whole section."""
    for key, value in section.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}.{key}")
        else:
            yield f"{prefix}.{key}={value if isinstance(value, str) else json.dumps(value)}"


def _split(words: Sequence[str], verb: str) -> tuple[list[str], list[str]]:
    """Words of the verb's own section, and all others."""
    parts: tuple[list[str], list[str]] = ([], [])
    place = 1
    for word in words:
        if word.startswith("--"):
            place = 0 if word.startswith(f"--{verb}.") else 1
        parts[place].append(word)
    return parts
