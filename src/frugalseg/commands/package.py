"""`frugalseg package`: a checkpoint as a folder for others: safetensors, settings, a model card.

Of a segmentation net, a classifier or a few-shot net the whole net goes in, of a pre-training the teacher's backbone
alone, without heads. `frugalseg.load(FOLDER)` opens it, without Lightning or any code of training; a pre-training also
`timm.create_model("local-dir:FOLDER", pretrained=True)`.
"""

import argparse
import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from importlib import metadata
from pathlib import Path
from typing import Any, cast

from safetensors.torch import save
from timm.models import get_pretrained_cfg

import frugalseg.papers.mevt.timm_entry  # noqa: F401 - timm gets to know the presets
from frugalseg.analysis.model_card import Score, data_of, judged_by, model_card, read_score
from frugalseg.data.io import write_atomic
from frugalseg.errors import CheckpointError, RunFolderError
from frugalseg.predictor.features import FeaturePredictor
from frugalseg.predictor.few_shot import FewShotPredictor
from frugalseg.predictor.opening import predictor_of
from frugalseg.predictor.seeds import SeedPredictor
from frugalseg.predictor.segmenter import SegmentPredictor
from frugalseg.predictor.source import CARD, CONFIG, FORMAT, NET_FORMAT, WEIGHTS, NetSource, Source, read_source
from frugalseg.run import file_digest, read_json, write_json, write_text

Whole = SegmentPredictor | SeedPredictor | FewShotPredictor
"""Predictors whose whole net is packaged."""
VERSIONS = ("frugalseg", "torch", "timm", "safetensors")


def run(argv: list[str]) -> int:
    """Write the folder whole or not at all."""
    parser = argparse.ArgumentParser("frugalseg package", description=__doc__)
    parser.add_argument(
        "checkpoint", type=Path, help="of `frugalseg fit`, of any task whose net gives masks or features"
    )
    parser.add_argument("--out", type=Path, required=True, help="folder to write")
    parser.add_argument(
        "--scores", type=Path, nargs="+", default=[], metavar="RUN", help="finished runs that judged it"
    )
    parser.add_argument("--matching", action="store_true", help="of --scores, leave out what judged other weights")
    parser.add_argument("--overwrite", action="store_true", help="replace an existing package")
    options = parser.parse_args(argv)
    out: Path = options.out.resolve()
    _check_place(out, options.overwrite)
    if not options.checkpoint.is_file() or options.checkpoint.suffix == ".safetensors":
        raise CheckpointError(f"{options.checkpoint}: is no checkpoint; give a file of `frugalseg fit`")
    source = read_source(options.checkpoint)
    runs = [folder for folder in options.scores if not options.matching or judged_by(folder, source.path)]
    scores = [read_score(folder, source.path) for folder in runs]
    write_package(source, out, scores)
    print(f"{out}: {WEIGHTS}, {CONFIG}, {CARD}; open it with frugalseg.load({str(out)!r})")
    return 0


def write_package(source: Source | NetSource, out: Path, scores: Sequence[Score] = ()) -> None:
    """Write a package in place of what is there.

    Args:
        source: of a checkpoint.
        out: the folder.
        scores: measured of it.

    Raises:
        CheckpointError: the tensors are not those of the net that the checkpoint names.
    """
    net = cast(Whole | FeaturePredictor, predictor_of(source))  # refuses what could not be opened again
    draft, old = (out.with_name(f".{out.name}.{os.getpid()}.{what}") for what in ("tmp", "old"))
    draft.mkdir(parents=True)
    try:
        # of a whole net as it answers: a classifier's tokens are folded by now
        found = source.tensors if isinstance(source, Source) else net.net.state_dict()
        tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in found.items()}
        write_atomic(draft / WEIGHTS, lambda stream: stream.write(save(tensors, {"format": "pt"})))
        config = _config(net, draft / WEIGHTS) if isinstance(net, FeaturePredictor) else _whole(net, draft / WEIGHTS)
        write_json(draft / CONFIG, config)
        write_text(draft / CARD, model_card(config, scores))
        if out.exists():
            out.rename(old)
        draft.rename(out)
    finally:
        if old.exists() and not out.exists():
            old.rename(out)
        for leftover in (draft, old):
            shutil.rmtree(leftover, ignore_errors=True)


def _check_place(out: Path, overwrite: bool) -> None:
    """Refuse to write over what is there, and even when asked over what is no package."""
    if not out.exists():
        return
    if not overwrite:
        raise RunFolderError(f"{out}: is there already; give another --out, or --overwrite")
    strange = sorted({path.name for path in out.iterdir()} - {WEIGHTS, CONFIG, CARD}) if out.is_dir() else [out.name]
    if strange or (any(out.iterdir()) and read_json(out / CONFIG).get("format") not in (FORMAT, NET_FORMAT)):
        raise RunFolderError(f"{out}: is no package of this verb ({', '.join(strange[:3])}); give another --out")


def _config(net: FeaturePredictor, weights: Path) -> dict[str, Any]:
    """What `config.json` holds: for `frugalseg.load`, and under timm's own keys for timm."""
    source = net.source
    own = {
        "format": FORMAT,
        "preset": source.preset,
        "is_mevt": source.is_mevt,
        "changes": dict(source.changes),
        "width": net.width,
        "stride": net.stride,
        "token_width": net.token_width,
        "multiple": net.multiple,
        **_common(net, weights),
    }
    return {**own, **_for_timm(source)}


def _whole(net: Whole, weights: Path) -> dict[str, Any]:
    """The same for a net that gives masks."""
    source, count = net.source, len(net.class_names) or int(getattr(net, "num_classes", 0))
    settings = dict(source.settings)
    if isinstance(net, SegmentPredictor):
        settings |= {"inference": asdict(net.inference)} if "inference" in settings else {}
    return {
        "format": NET_FORMAT,
        "kind": net.kind,
        "task": source.task,
        "settings": settings,
        "num_classes": count,
        "class_names": list(net.class_names),
        "palette": net.palette[:count].tolist(),
        **_common(net, weights),
    }


def _common(net: Whole | FeaturePredictor, weights: Path) -> dict[str, Any]:
    """What the settings of every package hold."""
    source = net.source
    return {
        "mean": list(source.mean),
        "std": list(source.std),
        "weights": {
            "file": WEIGHTS,
            "sha256": file_digest(weights),
            "parameters": sum(parameter.numel() for parameter in net.net.parameters()),
        },
        "versions": {name: metadata.version(name) for name in VERSIONS},
        "source": _origin(source),
    }


def _origin(source: Source | NetSource) -> dict[str, Any]:
    """Where the weights come from, without paths of the machine."""
    facts = source.facts
    known = {key: facts.get(key) for key in ("hyper_parameters", "step", "epoch", "metrics")}
    known["hyper_parameters"] = _without_places(known["hyper_parameters"] or {})
    record: Mapping[str, Any] = facts.get("provenance") or {}
    kept = ("experiment", "stage", "seed", "digest", "git", "versions", "hardware", "devices", "precision", "data")
    told = {key: record[key] for key in (*kept, "started", "splits") if key in record}
    if told:
        told["data_class"] = data_of(record.get("identity") or {})
        told["images"] = (record.get("splits") or {}).get("train")
    return {**known, "provenance": told, "checkpoint": file_digest(source.path)}


def _without_places(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Settings whose files have lost their folders, at any depth."""
    found = dict(settings)
    for key, value in settings.items():
        if isinstance(value, Mapping):
            found[key] = _without_places(value)
        elif value and key in ("weights", "stem_weights"):
            found[key] = Path(str(value)).name
    return found


def _for_timm(source: Source) -> dict[str, Any]:
    """`architecture`, `model_args` and `pretrained_cfg` as timm's own packages have them."""
    known: Any = get_pretrained_cfg(source.preset)
    config = known.to_dict(remove_source=True) if known is not None else {}
    for key in ("tag", "license", "description", "origin_url", "paper_name", "paper_ids", "notes", "architecture"):
        config.pop(key, None)
    config |= {"num_classes": 0, "mean": list(source.mean), "std": list(source.std)}
    arguments = {"num_classes": 0, **source.changes}
    if not source.is_mevt and "vit" in source.preset.split("_")[0]:
        arguments.setdefault("dynamic_img_size", True)
    return {"architecture": source.preset, "num_classes": 0, "model_args": arguments, "pretrained_cfg": config}
