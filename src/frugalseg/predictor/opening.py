"""From files to nets: `frugalseg.load` and `frugalseg.create_model`."""

from collections.abc import Mapping
from os import PathLike
from typing import Any, cast

import timm
from torch import nn

from frugalseg.errors import CheckpointError, ConfigError
from frugalseg.papers.mevt.model import PRESETS
from frugalseg.papers.mevt.timm_entry import TimmMEVT
from frugalseg.predictor.base import Predictor
from frugalseg.predictor.features import FeaturePredictor, load_exactly
from frugalseg.predictor.source import Source, read_source


def open_predictor(checkpoint: str | PathLike[str], device: str = "cpu") -> Predictor:
    """See `frugalseg.load`. Kinds of nets are told apart here: other tasks add theirs to `source.TASKS`."""
    return FeaturePredictor(read_source(checkpoint), device)


def build_model(name: str, checkpoint: str | PathLike[str] | None, changes: Mapping[str, Any]) -> TimmMEVT:
    """See `frugalseg.create_model`."""
    if name not in PRESETS:
        raise ConfigError(f"create_model: {name!r} is none of {', '.join(PRESETS)}; timm.create_model has its own")
    source = None if checkpoint is None else read_source(checkpoint)
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
        load_exactly(net, source)
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
