"""The tasks whose nets give masks: what of a checkpoint makes the net, and which predictor asks it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from torch import nn

from frugalseg.predictor import few_shot_nets, seed_nets, segment_nets
from frugalseg.predictor.facts import settings_of

Facts = Mapping[str, Any]
Settings = dict[str, Any]

PRETRAINING = "papers.mevt.Pretrain"
"""The task whose nets give features alone; see `predictor.features`."""


@dataclass(frozen=True)
class Kind:
    """How checkpoints of a task become a net.

    Attributes:
        kind: of the predictor: `segmenter`, `seeds` or `few-shot`.
        prefixes: of the tensors that the net has; others are of its training.
        settings: the task's hyper-parameters and the facts of its run -> what `build` takes, plain values alone.
        build: settings -> the net, from random numbers.
    """

    kind: Literal["segmenter", "seeds", "few-shot"]
    prefixes: tuple[str, ...]
    settings: Callable[[Facts, Facts], Settings]
    build: Callable[[Mapping[str, Any]], nn.Module]


def _taken(known: Facts, *keys: str) -> Settings:
    """Settings by name; tuples as lists, which JSON has."""
    return {key: list(known[key]) if isinstance(known[key], tuple) else known[key] for key in keys}


def _deeplab(known: Facts, facts: Facts) -> Settings:
    net = ("num_classes", "backbone", "head", "output_stride", "strides", "frozen_norm")
    inference = settings_of(facts, "model", "init_args", "inference")
    return {**_taken(known, *net, "backbone_options", "head_options"), "inference": dict(inference)}


def _finetune(known: Facts, _: Facts) -> Settings:
    settings = _taken(known, "num_classes", "head", "head_options", "norm", "frozen_norm", "testing")
    return {**settings, "backbone": _backbone(known["features"])}


def _probe(known: Facts, _: Facts) -> Settings:
    settings = _taken(known, "num_classes", "protocol", "head", "input_size", "grid", "channels")
    return {**settings, "backbone": _backbone(known["features"])}


def _backbone(features: Facts) -> Settings:
    """Which net, without where its first weights were."""
    return _taken(features, "name", "stages", "multiple", "options")


def _sfc(known: Facts, _: Facts) -> Settings:
    net = ("num_classes", "backbone", "strides", "side", "embedding", "background_factor", "centre_features")
    return _taken(known, *net, "backbone_options", "max_pixels")


def _cti(known: Facts, facts: Facts) -> Settings:
    net = ("num_classes", "dim", "depth", "heads", "patch", "grid", "infusion", "fused_blocks", "background_token")
    # the best background of the run's last validation, where it has scored its maps
    threshold = (facts.get("metrics") or {}).get("val/threshold")
    found = _taken(known, *net, "stem", "seed_map", "fit", "max_pixels")
    return found if threshold is None else {**found, "threshold": float(threshold)}


def _dsmf(known: Facts, facts: Facts) -> Settings:
    net = (
        "backbone", "backbone_options", "dim", "nodes", "states", "graph_stages", "graph_impl", "use_graph", "use_maps",
        "use_prior", "fusion", "sff_levels", "sff_merge", "prior_chunk",
    )  # fmt: skip
    # checkpoints from before there was a control have the graph
    return {**_taken(known, *net), "unit": known.get("unit", "graph"), "size": _side(facts)}


def _prototype(known: Facts, facts: Facts) -> Settings:
    return {**_taken(known, "backbone", "backbone_options", "stage"), "size": _side(facts)}


def _side(facts: Facts) -> int | None:
    """Longer side of the images that the net has seen in episodes; None where it is not known."""
    found = settings_of(facts, "data", "init_args", "recipe", "init_args").get("size")
    return int(found) if isinstance(found, int) else None


TASKS: dict[str, Kind] = {
    "stages.deeplab.DeepLab": Kind("segmenter", ("net.",), _deeplab, segment_nets.DeepLabSegmenter),
    "stages.finetune.FineTune": Kind("segmenter", ("net.backbone.", "net.head."), _finetune, segment_nets.FineTuned),
    "stages.probe.LinearProbe": Kind("segmenter", ("backbone.", "head."), _probe, segment_nets.Probed),
    "papers.sfc.SFC": Kind("seeds", ("net.",), _sfc, seed_nets.SFCSeeds),
    "papers.cti.CTI": Kind("seeds", ("net.",), _cti, seed_nets.CTISeeds),
    "papers.dsmf.DSMF": Kind("few-shot", ("net.",), _dsmf, few_shot_nets.GraphMatcher),
    "papers.dsmf.PrototypeBaseline": Kind("few-shot", ("backbone.", "threshold"), _prototype, few_shot_nets.Prototypes),
}
"""By the task's place and name."""
