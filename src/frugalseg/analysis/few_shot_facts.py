"""What a few-shot result hangs on besides the method, and what published tables keep silent about.

Protocols, episodes and model selection: dsmf.md sections 5.3, 5.4 and 6.2.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from frugalseg.errors import ConfigError, RunFolderError
from frugalseg.run import digest_of, read_json

PROTOCOLS = {
    "P1": "SDM's pairs; training tiles keep the novel classes, as background",
    "P2": "DMNet's rule; training drops every tile that is listed for a novel class",
    "D1": "SCCNet's pairs, without trees and water; training and test share their images, which keep the novel classes,"
    " as background",
    "D2": "PCFNet's pairs, without field and sea; about 70/30 per class, but images still overlap across classes and"
    " keep the novel ones, as background",
}
"""In one phrase each."""
UNTRAINED = "nothing trained"
LAST = "last step, nothing selected"
SELECTION = {
    "base": "best on held-out base classes",
    "novel": "best on the novel test episodes (the field's habit)",
}
"""By what the fit validated on."""
AGAIN = "run the stage that writes it again"


class Settings(NamedTuple):
    """What a test stage was run with.

    Attributes:
        benchmark: name of the data module's class.
        names: of all classes, in the order of the class ids.
        tested: ids of the fold's classes.
        facts: what must be equal for two results to be comparable, but for classes and episodes: heading -> value.
        episodes_file: its name and digest, or `none` where episodes are drawn from the base seeds.
        root: of the data.
    """

    benchmark: str
    names: tuple[str, ...]
    tested: tuple[int, ...]
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
        RunFolderError: a file is missing or damaged, contradicts the folder's name, or tells of no few-shot benchmark.
    """
    path = folder / "config.yaml"
    config = _read_config(path)
    data = _section(path, config, "data")
    settings = _section(path, data, "init_args", "data.")
    recipe = _section(path, _section(path, settings, "recipe", "data.init_args."), "init_args", "recipe.")
    for what, told, named in (("fold", settings.get("fold"), fold), ("recipe's shots", recipe.get("shots"), shots)):
        if told != named:
            raise RunFolderError(f"{path}: data's {what} is {told}, but the folder says {named}; {AGAIN}")
    benchmark = str(data.get("class_path")).rsplit(".", 1)[-1]
    protocol = str(settings.get("protocol"))
    names, tested = _classes(path, benchmark, fold, protocol)
    inputs = _inputs(folder)
    # what says which pairs are tested: the world and its lists
    lists = {k: v for k, v in inputs.items() if k == "world.json" or k.startswith("lists/") or "_list/" in k}
    miniature = ", miniature world" if "world.json" in lists else ""
    facts = {
        "benchmark": benchmark + miniature,
        "protocol": protocol,
        "pair lists": f"on disk, digest {digest_of(lists)[:8]}" if lists else "packaged",
        "image size": str(recipe.get("size")),
        "selection rule": selection(folder, experiment, config.get("ckpt_path")),
    }
    file = _episodes_file(recipe.get("episodes_file"), inputs)
    return Settings(benchmark, names, tested, facts, file, str(settings.get("root")))


def selection(folder: Path, experiment: Path, checkpoint: object) -> str:
    """How the tested weights were chosen among those of the fit.

    Args:
        folder: of the test stage.
        experiment: folder that it is in; runs may have been moved since.
        checkpoint: `ckpt_path` of the test; None where nothing was trained.

    Raises:
        RunFolderError: the fit does not tell, has another name for its checkpoint, or was run again since.
    """
    if checkpoint is None:
        return UNTRAINED
    path = Path(str(checkpoint))
    if path.stem == "last":
        return LAST
    if path.stem != "best":
        raise RunFolderError(f"{folder / 'config.yaml'}: ckpt_path {path} is neither best.ckpt nor last.ckpt; test one")
    fit = _fit_folder(path, experiment)
    identity = _section(fit / "provenance.json", read_json(fit / "provenance.json"), "identity")
    try:
        validated = identity["data"]["init_args"]["val_classes"]
    except (KeyError, TypeError):
        validated = None
    if validated not in SELECTION:
        raise RunFolderError(
            f"{fit / 'provenance.json'}: identity's data.init_args.val_classes is {validated!r}, not base or novel, so"
            f" what {path.name} was best on is not known; train again"
        )
    if _finished(fit) > _finished(folder) != "":
        raise RunFolderError(f"{folder}: was tested before {fit} finished, so it scores other weights; test again")
    return SELECTION[str(validated)]


def _fit_folder(checkpoint: Path, experiment: Path) -> Path:
    """Folder of the fit, two above its checkpoint; looked for beside the test where the runs have been moved."""
    fit = checkpoint.parent.parent
    if not fit.is_dir() and experiment.name in fit.parts:
        place = len(fit.parts) - 1 - fit.parts[::-1].index(experiment.name)
        return experiment.joinpath(*fit.parts[place + 1 :])
    return fit


def _finished(folder: Path) -> str:
    """When a stage finished, as text that sorts by time; empty where that is not known."""
    path = folder / "done.json"
    return str(read_json(path).get("finished", "")) if path.is_file() else ""


def _read_config(path: Path) -> dict[str, Any]:
    try:
        content = yaml.safe_load(path.read_text())
    except (OSError, ValueError, yaml.YAMLError) as error:
        reason = " ".join(str(error).split())[:160]
        raise RunFolderError(f"{path}: not readable ({reason}); {AGAIN}") from error
    if not isinstance(content, dict):
        raise RunFolderError(f"{path}: holds no settings; {AGAIN}")
    return content


def _section(path: Path, content: Mapping[str, Any], key: str, above: str = "") -> dict[str, Any]:
    """A part of a file that has parts of its own."""
    part = content.get(key)
    if not isinstance(part, dict):
        raise RunFolderError(f"{path}: has no section {above}{key}; {AGAIN}")
    return part


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
    return _section(path, _section(path, read_json(path), "identity"), "inputs", "identity.")


def _episodes_file(path: object, inputs: Mapping[str, Any]) -> str:
    """Name of the file of episodes, and a digest over those of all base seeds."""
    if path is None or str(path) == "None":  # the latter is how jsonargparse passes on a `null` of the command line
        return "none"
    digests = {k: v for k, v in inputs.items() if k.startswith("episodes of base seed ")}
    return f"{path}, digest {digest_of(digests)[:8]}" if digests else str(path)
