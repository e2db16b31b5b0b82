"""The fit whose weights a few-shot test scored: how they were chosen, and what they were trained with."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from frugalseg.analysis.few_shot_facts import ELSEWHERE, LAST, PROTOCOLS, SELECTION, THRESHOLD, UNTRAINED, section
from frugalseg.errors import RunFolderError
from frugalseg.run import read_json


class Fit(NamedTuple):
    """What a test owes to its fit.

    Attributes:
        rule: how the tested weights were chosen among those of the fit.
        protocol: that it was trained with: the test's where nothing was trained, empty where it is not known.
    """

    rule: str
    protocol: str


def read_fit(folder: Path, experiment: Path, config: Mapping[str, Any], fold: int, protocol: str) -> Fit:
    """Find the fit behind a test and see that its weights are what the test says.

    Args:
        folder: of the test stage.
        experiment: folder that it is in; runs may have been moved since.
        config: settings of the test.
        fold: of the test.
        protocol: of the test.

    Raises:
        RunFolderError: the fit does not tell, has another name for its checkpoint, has not finished, was run again
            since, or is of another fold.
    """
    if config.get("ckpt_path") is None:
        return Fit(UNTRAINED, protocol)
    path = Path(str(config["ckpt_path"]))
    if path.stem not in ("best", "last"):
        raise RunFolderError(f"{folder / 'config.yaml'}: ckpt_path {path} is neither best.ckpt nor last.ckpt; test one")
    fit = _fit_folder(path, experiment)
    record = fit / "provenance.json"
    # any file has a folder two above it, but only that of a fit has such records
    if path.stem == "last" and not (record.is_file() or (fit / "done.json").is_file()):
        return Fit(ELSEWHERE, "")
    identity = section(record, read_json(record), "identity")
    rule = _last(config) if path.stem == "last" else _best(identity, record)
    _check_time(folder, fit)
    return Fit(rule, _trained_with(identity, record, folder, fold))


def _fit_folder(checkpoint: Path, experiment: Path) -> Path:
    """Folder of the fit, two above its checkpoint; looked for beside the test where the runs have been moved."""
    fit = checkpoint.parent.parent
    places = [fit]
    if experiment.name in fit.parts:
        place = len(fit.parts) - 1 - fit.parts[::-1].index(experiment.name)
        places.append(experiment.joinpath(*fit.parts[place + 1 :]))
    # of another experiment: <experiment>/fold<f>/seed<s>/<stage>
    places.append(experiment.parent.joinpath(*fit.parts[-4:]))
    return next((found for found in places if found.is_dir()), fit)


def _last(config: Mapping[str, Any]) -> str:
    """Rule of a last checkpoint, which the model's class decides."""
    model = config.get("model")
    name = str(model.get("class_path")) if isinstance(model, dict) else ""
    return THRESHOLD if name.rsplit(".", 1)[-1] == "PrototypeBaseline" else LAST


def _best(identity: Mapping[str, Any], record: Path) -> str:
    """Rule of a best checkpoint, which the classes of the fit's validation decide."""
    validated = _setting(identity, "val_classes")
    if validated not in SELECTION:
        raise RunFolderError(
            f"{record}: identity's data.init_args.val_classes is {validated!r}, not base or novel, so what best.ckpt"
            " was best on is not known; train again"
        )
    return SELECTION[validated]


def _trained_with(identity: Mapping[str, Any], record: Path, folder: Path, fold: int) -> str:
    """Protocol of the fit, which must be of the test's fold: in others the tested classes are trained on."""
    own = _setting(identity, "fold")
    if own != fold:
        raise RunFolderError(
            f"{folder}: tests fold {fold}, but by {record} the fit is of fold {own}, which trains on other classes;"
            " test the fold that it was trained for"
        )
    protocol = _setting(identity, "protocol")
    if protocol not in PROTOCOLS:
        raise RunFolderError(
            f"{record}: identity's data.init_args.protocol is {protocol!r}, none of {', '.join(PROTOCOLS)}, so what the"
            " net was trained with is not known; train again"
        )
    return str(protocol)


def _setting(identity: Mapping[str, Any], key: str) -> Any:
    """A plain setting of the fit's data module; None where there is none."""
    try:
        value = identity["data"]["init_args"][key]
    except (KeyError, TypeError):
        return None
    return value if isinstance(value, str | int) else None


def _check_time(folder: Path, fit: Path) -> None:
    """See that the fit finished, and before the test did."""
    if not (fit / "done.json").is_file():
        raise RunFolderError(
            f"{fit}: has no done.json, so {folder} scores a fit that was cut short; finish it, test again"
        )
    if _finished(fit) > _finished(folder) != "":
        raise RunFolderError(f"{folder}: was tested before {fit} finished, so it scores other weights; test again")


def _finished(folder: Path) -> str:
    """When a stage finished, as text that sorts by time; empty where that is not known."""
    path = folder / "done.json"
    return str(read_json(path).get("finished", "")) if path.is_file() else ""
