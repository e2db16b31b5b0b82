"""What a few-shot test stage was run with, from its `config.yaml` and `provenance.json`."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from frugalseg.analysis.few_shot_facts import AGAIN, protocol_texts, section
from frugalseg.analysis.few_shot_fit import read_fit
from frugalseg.errors import ConfigError, RunFolderError
from frugalseg.run import digest_of, read_json
from frugalseg.yaml_text import load_yaml


class Settings(NamedTuple):
    """What a test stage was run with.

    Attributes:
        benchmark: name of the data module's class.
        names: of all classes, in the order of the class ids.
        tested: ids of the fold's classes.
        protocol: what it is, in one phrase.
        facts: what must be equal for two results to be comparable, but for classes and episodes: heading -> value.
        episodes_file: its name and digest, or `none` where episodes are drawn from the base seeds.
        root: of the data.
    """

    benchmark: str
    names: tuple[str, ...]
    tested: tuple[int, ...]
    protocol: str
    facts: dict[str, str]
    episodes_file: str
    root: str


def read_settings(folder: Path, experiment: Path, fold: int, shots: int) -> Settings:
    """Read a test stage's `config.yaml` and `provenance.json`.

    Args:
        folder: of the stage.
        experiment: folder `runs/<experiment>[-<name>]` that it is in.
        fold: that the folder's name says.
        shots: that the folder's name says.

    Raises:
        RunFolderError: a file is missing or damaged, contradicts the folder's name, or tells of no few-shot benchmark;
            or the fit behind the test cannot be reported, see `read_fit`.
    """
    path = folder / "config.yaml"
    config = _read_config(path)
    data = section(path, config, "data")
    settings = section(path, data, "init_args", "data.")
    recipe = section(path, section(path, settings, "recipe", "data.init_args."), "init_args", "recipe.")
    for what, told, named in (("fold", settings.get("fold"), fold), ("recipe's shots", recipe.get("shots"), shots)):
        if told != named:
            raise RunFolderError(f"{path}: data's {what} is {told}, but the folder says {named}; {AGAIN}")
    benchmark = str(data.get("class_path")).rsplit(".", 1)[-1]
    protocol = str(settings.get("protocol"))
    names, tested = _classes(path, benchmark, fold, protocol)
    fit = read_fit(folder, experiment, config, fold, protocol)
    heading, phrase = protocol_texts(protocol, fit.protocol)
    inputs = _inputs(folder)
    # what says which pairs are tested: the world and its lists
    lists = {k: v for k, v in inputs.items() if k == "world.json" or k.startswith("lists/") or "_list/" in k}
    miniature = ", miniature world" if "world.json" in lists else ""
    facts = {
        "benchmark": benchmark + miniature,
        "protocol": heading,
        "pair lists": f"on disk, digest {digest_of(lists)[:8]}" if lists else "packaged",
        "image size": str(recipe.get("size")),
        "selection rule": fit.rule,
    }
    file = _episodes_file(recipe.get("episodes_file"), inputs)
    return Settings(benchmark, names, tested, phrase, facts, file, str(settings.get("root")))


def _read_config(path: Path) -> dict[str, Any]:
    try:
        content = load_yaml(path.read_text())
    except (OSError, ValueError, yaml.YAMLError) as error:
        reason = " ".join(str(error).split())[:160]
        raise RunFolderError(f"{path}: not readable ({reason}); {AGAIN}") from error
    if not isinstance(content, dict):
        raise RunFolderError(f"{path}: holds no settings; {AGAIN}")
    return content


def _classes(path: Path, benchmark: str, fold: int, protocol: str) -> tuple[tuple[str, ...], tuple[int, ...]]:
    """Names of all classes, and ids of the fold's."""
    from frugalseg.data import dlrsd, isaid5i  # Lightning, which they need, takes seconds that other reports do without

    known = {"ISAID5i": ("P1", "P2"), "DLRSD": ("D1", "D2")}
    if protocol not in known.get(benchmark, ()):
        raise RunFolderError(
            f"{path}: data {benchmark} with protocol {protocol} is none of the few-shot benchmarks ISAID5i (P1, P2) and"
            f" DLRSD (D1, D2); {AGAIN}"
        )
    try:
        if benchmark == "ISAID5i":
            return isaid5i.NAMES, isaid5i.fold_classes(fold)
        return dlrsd.NAMES, dlrsd.fold_classes(fold, "D1" if protocol == "D1" else "D2")
    except ConfigError as error:
        raise RunFolderError(f"{path}: {error}; {AGAIN}") from error


def _inputs(folder: Path) -> dict[str, Any]:
    """Digests of the files that the stage started from."""
    path = folder / "provenance.json"
    return section(path, section(path, read_json(path), "identity"), "inputs", "identity.")


def _episodes_file(path: object, inputs: Mapping[str, Any]) -> str:
    """Name of the file of episodes, and a digest over those of all base seeds."""
    if path is None or str(path) == "None":  # the latter is how jsonargparse passes on a `null` of the command line
        return "none"
    digests = {k: v for k, v in inputs.items() if k.startswith("episodes of base seed ")}
    return f"{path}, digest {digest_of(digests)[:8]}" if digests else str(path)
