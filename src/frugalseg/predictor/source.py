"""What `frugalseg.load` opens: a checkpoint of `frugalseg fit`, or a folder of `frugalseg package`.

Nothing is unpickled: checkpoints are read by `weights_only`, packages hold safetensors and JSON.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file
from torch import Tensor

from frugalseg.data.normalise import IMAGENET_MEAN, IMAGENET_STD
from frugalseg.errors import CheckpointError, FrugalsegError, RunFolderError
from frugalseg.ops.palette import voc_palette
from frugalseg.papers.mevt.model import PRESETS
from frugalseg.predictor.facts import Triple, classes_of, normalisation, run_facts
from frugalseg.predictor.kinds import PRETRAINING, TASKS
from frugalseg.run import file_digest, read_json

WEIGHTS, CONFIG, CARD = "model.safetensors", "config.json", "README.md"
"""Files of a package."""
FORMAT, NET_FORMAT = "frugalseg-features-1", "frugalseg-net-1"
"""Of packages with a pre-trained backbone, and with a whole net that gives masks."""
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
    mean: Triple = IMAGENET_MEAN
    std: Triple = IMAGENET_STD
    facts: Mapping[str, Any] = field(default_factory=dict)

    @property
    def is_mevt(self) -> bool:
        """Whether the net is MEVT's own, and not one of timm."""
        return self.preset in PRESETS


@dataclass(frozen=True)
class NetSource:
    """A net that gives masks, and what is known of it.

    Attributes:
        path: file or folder that it was read from.
        task: a key of `kinds.TASKS`.
        settings: what the net is built from and asked with; plain values, as JSON has them.
        tensors: by their names in the checkpoint.
        mean: of the normalisation, on the scale 0..1.
        std: of the normalisation.
        class_names: by class id; empty where they are not known.
        palette: (256, 3) uint8.
        facts: as of `Source`.
    """

    path: Path
    task: str
    settings: Mapping[str, Any]
    tensors: Mapping[str, Tensor]
    mean: Triple = IMAGENET_MEAN
    std: Triple = IMAGENET_STD
    class_names: tuple[str, ...] = ()
    palette: NDArray[np.uint8] = field(default_factory=voc_palette)
    facts: Mapping[str, Any] = field(default_factory=dict)


def read_source(path: str | PathLike[str]) -> Source | NetSource:
    """Read what `frugalseg.load` can open.

    Args:
        path: a checkpoint, a package's folder, or the weights in one.

    Raises:
        CheckpointError: missing, damaged, or of a task that gives neither masks nor features.
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
    task = _task(str(known["_class_path"]))
    if task != PRETRAINING and task not in TASKS:
        raise CheckpointError(
            f"{place}: holds {known['_class_path']}, which gives neither masks nor features; give a checkpoint of "
            f"{', '.join(f'frugalseg.{name}' for name in (PRETRAINING, *TASKS))}, or a folder of `frugalseg package`"
        )
    try:
        return _of_pretraining(place, content) if task == PRETRAINING else _of_task(place, task, content)
    except FrugalsegError:
        raise
    except (KeyError, TypeError, AttributeError, ValueError, OverflowError) as error:
        line = (str(error).splitlines() or [type(error).__name__])[0][:160]
        raise CheckpointError(
            f"{place}: what it says of its net cannot be read ({line}); give a whole checkpoint"
        ) from error


def read_package(folder: Path) -> Source | NetSource:
    """Read a folder of `frugalseg package`.

    Raises:
        CheckpointError: a file is missing or damaged, or the weights are not those that were packaged.
    """
    try:
        config = read_json(folder / CONFIG)
    except RunFolderError:
        raise CheckpointError(f"{folder}: holds no readable {CONFIG}; give a folder of `frugalseg package`") from None
    found = config.get("format")
    if found not in (FORMAT, NET_FORMAT):
        raise CheckpointError(
            f"{folder / CONFIG}: is not of format {FORMAT} or {NET_FORMAT}; give a folder of `frugalseg package`, or "
            "a newer frugalseg"
        )
    own = {"preset": str, "changes": dict} if found == FORMAT else {"task": str, "settings": dict}
    kinds = {**own, "mean": list, "std": list, "weights": dict}
    if wrong := next((key for key, kind in kinds.items() if not isinstance(config.get(key), kind)), None):
        raise CheckpointError(f"{folder / CONFIG}: has no {wrong}, or a wrong one; package or fetch it again")
    weights = folder / WEIGHTS
    if not weights.is_file() or file_digest(weights) != config["weights"].get("sha256"):
        raise CheckpointError(f"{weights}: is missing or not the file that was packaged; package or fetch it again")
    tensors = _checked(weights, lambda: load_file(weights))
    mean, std, facts = tuple(config["mean"]), tuple(config["std"]), config.get("source") or {}
    if found == FORMAT:
        return Source(folder, str(config["preset"]), config["changes"], tensors, mean, std, facts)
    if config["task"] not in TASKS:
        raise CheckpointError(f"{folder / CONFIG}: task {config['task']!r} is not known; it needs a newer frugalseg")
    names, palette = _classes_in(folder, config)
    return NetSource(folder, config["task"], config["settings"], tensors, mean, std, names, palette, facts)


def _classes_in(folder: Path, config: Mapping[str, Any]) -> tuple[tuple[str, ...], NDArray[np.uint8]]:
    """Names and colours that a package holds."""
    names, colours = config.get("class_names"), config.get("palette")
    palette = voc_palette()
    try:
        given = np.asarray(colours if colours else palette[:0], dtype=np.int64).reshape(-1, 3)
    except (TypeError, ValueError, OverflowError):
        given = np.full((1, 3), -1)
    good = isinstance(names, list) and all(isinstance(name, str) for name in names)
    if not good or len(given) > len(palette) or (given < 0).any() or (given > 255).any():
        raise CheckpointError(f"{folder / CONFIG}: class_names or palette is wrong; package or fetch it again")
    palette[: len(given)] = given
    return tuple(names or ()), palette


def _of_pretraining(path: Path, content: Mapping[str, Any]) -> Source:
    """The teacher's backbone of a checkpoint of MEVT's `Pretrain`."""
    known = _plain(content["hyper_parameters"])
    preset = str(known.get("preset"))
    changes = {k: v for k, v in (known.get("changes") or {}).items() if k not in ONLY_TRAINING}
    prefix = TEACHER if preset in PRESETS else f"{TEACHER}net."
    found = content.get("state_dict") or {}
    tensors = {name[len(prefix) :]: tensor for name, tensor in found.items() if name.startswith(prefix)}
    if not tensors:
        raise CheckpointError(f"{path}: holds no tensors {prefix}*; give a whole checkpoint of the pre-training")
    facts = _facts(path, known, content)
    return Source(path, preset, changes, tensors, *normalisation(path, content, facts), facts)


def _of_task(path: Path, task: str, content: Mapping[str, Any]) -> NetSource:
    """The net of a checkpoint of any other task."""
    known, kind = _plain(content["hyper_parameters"]), TASKS[task]
    facts = _facts(path, known, content)
    found = content.get("state_dict") or {}
    tensors = {name: tensor for name, tensor in found.items() if name.startswith(kind.prefixes)}
    if not tensors:
        raise CheckpointError(
            f"{path}: is of frugalseg.{task}, but has no tensors {kind.prefixes[0]}*; give a whole checkpoint"
        )
    try:
        settings = kind.settings(known, facts)
    except (KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(
            f"{path}: lacks the setting {error} of its net; give a checkpoint written by `frugalseg fit`"
        ) from error
    count = int(known.get("num_classes", 0))
    names, palette = classes_of(path, facts, count)
    return NetSource(path, task, settings, tensors, *normalisation(path, content, facts), names, palette, facts)


def _plain(known: Mapping[str, Any]) -> dict[str, Any]:
    """Settings of a task without what Lightning's command line adds."""
    return {key: value for key, value in known.items() if not key.startswith("_")}


def _facts(path: Path, known: Mapping[str, Any], content: Mapping[str, Any]) -> dict[str, Any]:
    told = {"hyper_parameters": known, "step": content.get("global_step"), "epoch": content.get("epoch")}
    return {**told, **run_facts(path)}


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
