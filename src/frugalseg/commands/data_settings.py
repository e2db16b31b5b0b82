"""The data module that a verb's words ask for: `--config FILE` with a `data` section, and `--data...` settings."""

from pathlib import Path
from typing import Any

import yaml
from jsonargparse import ArgumentError, ArgumentParser

import frugalseg.commands.benchmarks  # noqa: F401 - makes the data modules known by their short names
from frugalseg.commands.parsing import check_parsed, check_words, mendable, one_line
from frugalseg.data.module import SegmentationData
from frugalseg.errors import ConfigError
from frugalseg.limits import check_class_paths
from frugalseg.yaml_text import read_yaml


def build_data(configs: list[str], words: list[str], verb: str = "show", recipe: str | None = None) -> SegmentationData:
    """Make the data module of some experiment files.

    Args:
        configs: YAML files; later ones win.
        words: further `--data...` settings.
        verb: of `frugalseg`, for messages.
        recipe: name of the recipe where the settings give none; for verbs that read files and draw no batches.

    Raises:
        ConfigError: a file is not there, has no `data`, a key is unknown, or a class refuses its settings.
    """
    section = _section(configs)
    if not section and not words:
        raise ConfigError(f"frugalseg {verb} needs --config with a `data` section, or --data settings")
    if recipe and "recipe" not in section.get("init_args", {}) and not any(_RECIPE in word for word in words):
        words = [*words, f"{_RECIPE}={recipe}"]
    check_words(words)
    parser = ArgumentParser(exit_on_error=False)
    parser.add_subclass_arguments(SegmentationData, "data", required=True)
    try:
        whole = [f"--data={yaml.safe_dump(section, default_flow_style=True)}"] if section else []
        parsed = parser.parse_args([*whole, *words])
    except (ArgumentError, UnicodeDecodeError) as error:
        raise ConfigError(f"{one_line(str(error))}; see `frugalseg {verb} --help`") from error
    check_parsed(parsed)
    try:
        data: SegmentationData = parser.instantiate(parsed).data
    except (ValueError, TypeError) as error:
        raise mendable(error) from None
    return data


_RECIPE = "--data.init_args.recipe"


def _section(configs: list[str]) -> dict[str, Any]:
    """The `data` sections of some files, later ones winning."""
    section: dict[str, Any] = {}
    for name in configs:
        section = _merge(section, read_experiment(name).get("data") or {})
    return section


def read_experiment(name: str) -> dict[str, Any]:
    """Contents of an experiment's YAML.

    Args:
        name: the file.

    Raises:
        ConfigError: it is not there or no such YAML, or names a class of a package that is not allowed.
    """
    content = read_yaml(Path(name)) or {}
    if not isinstance(content, dict) or not isinstance(content.get("data") or {}, dict):
        raise ConfigError(f"{name}: is not a mapping with a `data` section; give an experiment's YAML")
    check_class_paths(content, name)
    return content


def _merge(base: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    """Nested settings, `over` winning."""
    merged = dict(base)
    for key, value in over.items():
        both = isinstance(value, dict) and isinstance(merged.get(key), dict)
        merged[key] = _merge(merged[key], value) if both else value
    return merged
