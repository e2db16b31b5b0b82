"""A pre-trained backbone on disk: a checkpoint of `Pretrain`, or a folder of `frugalseg package`.

Nothing is unpickled: checkpoints are read by `weights_only`, packages hold safetensors and JSON.
"""

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from os import PathLike
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from frugalseg.data.normalise import IMAGENET_MEAN, IMAGENET_STD
from frugalseg.errors import CheckpointError, RunFolderError
from frugalseg.papers.mevt.model import PRESETS
from frugalseg.run import file_digest, read_json

log = logging.getLogger(__name__)

WEIGHTS, CONFIG, CARD = "model.safetensors", "config.json", "README.md"
"""Files of a package."""
FORMAT = "frugalseg-features-1"
TEACHER = "teacher.module.backbone."
ONLY_TRAINING = ("drop_path", "drop_path_rate", "checkpointing")
"""Arguments of nets that change no answer of a trained one."""


@dataclass(frozen=True)
class Source:
    """A backbone without its heads, and what is known of it.

    Attributes:
        path: file or folder that it was read from.
        preset: of MEVT, or a name of timm.
        changes: arguments that differ from the preset.
        tensors: by the net's own names; timm's for a net of timm.
        mean: of the normalisation, on the scale 0..1.
        std: of the normalisation.
        facts: `hyper_parameters`, `step`, and where it lies in a run folder `provenance` and `metrics`.
    """

    path: Path
    preset: str
    changes: Mapping[str, Any]
    tensors: Mapping[str, Tensor]
    mean: tuple[float, float, float] = IMAGENET_MEAN
    std: tuple[float, float, float] = IMAGENET_STD
    facts: Mapping[str, Any] = field(default_factory=dict)

    @property
    def is_mevt(self) -> bool:
        """Whether the net is MEVT's own, and not one of timm."""
        return self.preset in PRESETS


def read_source(path: str | PathLike[str]) -> Source:
    """Read what `frugalseg.load` can open.

    Args:
        path: a checkpoint, a package's folder, or the weights in one.

    Raises:
        CheckpointError: missing, damaged, or of another task.
    """
    place = Path(path).expanduser()
    if place.is_dir() or place.suffix == ".safetensors":
        return read_package(place if place.is_dir() else place.parent)
    if not place.is_file():
        raise CheckpointError(f"{place}: no such checkpoint; give a file of `frugalseg fit` or a folder of `package`")
    content = _checked(place, lambda: torch.load(place, map_location="cpu", weights_only=True, mmap=True))
    known = content.get("hyper_parameters") if isinstance(content, dict) else None
    if not isinstance(known, dict) or "_class_path" not in known:
        raise CheckpointError(
            f"{place}: does not say which task it is of; give a checkpoint written by `frugalseg fit`"
        )
    opener = TASKS.get(_task(str(known["_class_path"])))
    if opener is None:
        raise CheckpointError(
            f"{place}: holds {known['_class_path']}, which gives no features yet; "
            "give a checkpoint of frugalseg.papers.mevt.Pretrain, or a folder of `frugalseg package`"
        )
    return opener(place, content)


def read_package(folder: Path) -> Source:
    """Read a folder of `frugalseg package`.

    Raises:
        CheckpointError: a file is missing or damaged, or the weights are not those that were packaged.
    """
    try:
        config = read_json(folder / CONFIG)
    except RunFolderError:
        raise CheckpointError(f"{folder}: holds no readable {CONFIG}; give a folder of `frugalseg package`") from None
    if config.get("format") != FORMAT:
        raise CheckpointError(f"{folder / CONFIG}: is not of format {FORMAT}; give a folder of `frugalseg package`")
    kinds = {"preset": str, "changes": dict, "mean": list, "std": list, "weights": dict}
    if wrong := next((key for key, kind in kinds.items() if not isinstance(config.get(key), kind)), None):
        raise CheckpointError(f"{folder / CONFIG}: has no {wrong}, or a wrong one; package or fetch it again")
    weights = folder / WEIGHTS
    if not weights.is_file() or file_digest(weights) != config["weights"].get("sha256"):
        raise CheckpointError(f"{weights}: is missing or not the file that was packaged; package or fetch it again")
    tensors = _checked(weights, lambda: load_file(weights))
    mean, std = tuple(config["mean"]), tuple(config["std"])
    return Source(folder, str(config["preset"]), config["changes"], tensors, mean, std, config.get("source") or {})


def _of_pretraining(path: Path, content: Mapping[str, Any]) -> Source:
    """The teacher's backbone of a checkpoint of MEVT's `Pretrain`."""
    known = {key: value for key, value in content["hyper_parameters"].items() if not key.startswith("_")}
    preset = str(known.get("preset"))
    changes = {k: v for k, v in (known.get("changes") or {}).items() if k not in ONLY_TRAINING}
    prefix = TEACHER if preset in PRESETS else f"{TEACHER}net."
    found = content.get("state_dict") or {}
    tensors = {name[len(prefix) :]: tensor for name, tensor in found.items() if name.startswith(prefix)}
    if not tensors:
        raise CheckpointError(f"{path}: holds no tensors {prefix}*; give a whole checkpoint of the pre-training")
    facts = {"hyper_parameters": known, "step": content.get("global_step"), "epoch": content.get("epoch")}
    facts |= run_facts(path)
    # older checkpoints do not say it themselves
    recipe = content.get("normalisation") or _views(facts)
    if not recipe:
        log.warning("%s: does not say how images were normalised, nor does a run folder; taking ImageNet's", path)
    mean, std = tuple(recipe.get("mean") or IMAGENET_MEAN), tuple(recipe.get("std") or IMAGENET_STD)
    return Source(path, preset, changes, tensors, mean, std, facts)


TASKS: dict[str, Callable[[Path, Mapping[str, Any]], Source]] = {"papers.mevt.Pretrain": _of_pretraining}
"""Task -> reader of its checkpoints."""


def run_facts(checkpoint: Path) -> dict[str, Any]:
    """`provenance` and `metrics` of the run whose folder a checkpoint lies in; empty where it lies elsewhere.

    Raises:
        RunFolderError: one of the files is damaged.
    """
    run = checkpoint.resolve().parent.parent
    files = {name: run / f"{name}.json" for name in ("provenance", "metrics")}
    return {name: read_json(file) for name, file in files.items() if file.is_file()}


def _views(facts: Mapping[str, Any]) -> Mapping[str, Any]:
    """Settings of the recipe that a run has trained on."""
    content: Any = facts.get("provenance") or {}
    for key in ("identity", "data", "init_args", "recipe", "init_args"):
        content = content.get(key) or {}
    return dict(content)


def _task(class_path: str) -> str:
    """`papers.mevt.Pretrain` of `frugalseg.papers.mevt.task.Pretrain` and of `frugalseg.papers.mevt.Pretrain`."""
    parts = class_path.split(".")
    return ".".join([*parts[1:3], parts[-1]])


def _checked(path: Path, read: Callable[[], Any]) -> Any:
    """What a reader gives; its errors in one line."""
    try:
        return read()
    except Exception as error:  # whatever torch meets in a damaged file
        reason = str(error).splitlines()[0][:160] if str(error) else type(error).__name__
        raise CheckpointError(f"{path}: not a readable checkpoint ({reason}); fetch it again or train again") from error
