"""From files to nets: `frugalseg.load` and `frugalseg.create_model`."""

from collections.abc import Callable, Mapping
from os import PathLike
from typing import Any, cast

import timm
import torch
from torch import nn

from frugalseg.errors import CheckpointError, ConfigError
from frugalseg.papers.mevt.model import PRESETS
from frugalseg.papers.mevt.timm_entry import TimmMEVT
from frugalseg.predictor.base import Predictor
from frugalseg.predictor.features import FeaturePredictor
from frugalseg.predictor.few_shot import FewShotPredictor
from frugalseg.predictor.kinds import TASKS
from frugalseg.predictor.nets import load_exactly
from frugalseg.predictor.seeds import SeedPredictor
from frugalseg.predictor.segmenter import SegmentPredictor
from frugalseg.predictor.source import NetSource, Source, read_source

PREDICTORS: dict[str, Callable[[NetSource, str | torch.device], Predictor]] = {
    "segmenter": SegmentPredictor,
    "seeds": SeedPredictor,
    "few-shot": FewShotPredictor,
}
"""By kind."""


def open_predictor(checkpoint: str | PathLike[str], device: str = "cpu") -> Predictor:
    """See `frugalseg.load`. Which task gives which kind of predictor is said by `kinds.TASKS`."""
    return predictor_of(read_source(checkpoint), device)


def open_features(checkpoint: str | PathLike[str], device: str = "cpu") -> FeaturePredictor:
    """The backbone of a pre-training.

    Args:
        checkpoint: as of `frugalseg.load`.
        device: as torch names it.

    Raises:
        CheckpointError: as of `frugalseg.load`, or it is of a net with an end of its own.
        ConfigError: no such device.
    """
    return FeaturePredictor(_of_pretraining(read_source(checkpoint)), device)


def _of_pretraining(source: Source | NetSource) -> Source:
    if isinstance(source, NetSource):
        raise CheckpointError(
            f"{source.path}: holds no pre-training; give a checkpoint of frugalseg.papers.mevt.Pretrain"
        )
    return source


def predictor_of(source: Source | NetSource, device: str | torch.device = "cpu") -> Predictor:
    """The predictor of a source.

    Args:
        source: of `read_source`.
        device: as torch names it.

    Raises:
        CheckpointError: the tensors are not those of the net.
        ConfigError: no such device.
    """
    if isinstance(source, Source):
        return FeaturePredictor(source, device)
    return PREDICTORS[TASKS[source.task].kind](source, device)


def build_model(name: str, checkpoint: str | PathLike[str] | None, changes: Mapping[str, Any]) -> TimmMEVT:
    """See `frugalseg.create_model`."""
    if name not in PRESETS:
        raise ConfigError(f"create_model: {name!r} is none of {', '.join(PRESETS)}; timm.create_model has its own")
    source = None if checkpoint is None else _of_pretraining(read_source(checkpoint))
    settings = dict(changes)
    if source is not None:
        settings = {**_settings_of(source, name), **changes}
    try:
        net = cast(TimmMEVT, timm.create_model(name, **settings))
    except (TypeError, ValueError) as error:
        raise ConfigError(f"create_model: {name} cannot be built so: {error}") from error
    if source is not None:
        # the classifier is new: nothing in a pre-training is of its kind
        head, net.head = net.head, nn.Identity()
        load_exactly(net, source.tensors, str(source.path), source.preset)
        net.head = head
    return net


def _settings_of(source: Source, name: str) -> dict[str, Any]:
    """Settings of a checkpoint's net.

    Raises:
        CheckpointError: it is of another preset.
    """
    if source.preset != name:
        raise CheckpointError(f"{source.path}: holds {source.preset}, not {name}; give that name, or its checkpoint")
    return dict(source.changes)
