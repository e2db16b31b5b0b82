"""The page that goes with packaged weights: what they are, how they came about, what was measured of them."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from frugalseg.analysis.net_card import judged_whole, net_card, table
from frugalseg.errors import RunFolderError
from frugalseg.run import file_digest, read_json

TEACHER = "teacher.module.backbone."
"""Stands before the names of what is packaged."""
LIMITS = """\
- These are features, not masks: they know no classes. A head must be trained, or cells be clustered or compared.
- The net was built and trained by the `frugalseg` suite. Of the paper (Self-supervised vision transformers for
  semantic segmentation, CVIU) only the abstract was at hand: neither net nor weights are its authors'.
- What was learned is what the training images show; on images of another kind or scale features may say little.
- Images are padded, not resized, to sides that the net takes; cells near a padded border have seen the padding.
- The licence is that of the code; whether the terms of the training images bear on the weights is yours to judge."""


@dataclass(frozen=True)
class Score:
    """One finished run that judged the weights.

    Attributes:
        run: its folder.
        task: class of its task.
        data: class of its data.
        protocol: as the metrics state it.
        values: measured numbers by their keys.
    """

    run: str
    task: str
    data: str
    protocol: str
    values: Mapping[str, float]


def read_score(run: Path, checkpoint: Path) -> Score:
    """What a finished run measured of a checkpoint.

    Args:
        run: folder with `done.json`, `metrics.json` and `provenance.json`.
        checkpoint: the file that is packaged.

    Raises:
        RunFolderError: the run has not finished, or judged other weights.
    """
    if not (run / "done.json").is_file():
        raise RunFolderError(f"{run}: has no done.json, so it did not finish; give a finished run to --scores")
    metrics, record = read_json(run / "metrics.json"), read_json(run / "provenance.json")
    identity = record.get("identity") or {}
    if not judged_by(run, checkpoint):
        raise RunFolderError(f"{run}: judged other weights than {checkpoint}; leave it out of --scores")
    values = {key: float(value) for key, value in metrics.items() if key.startswith(("val/", "test/"))}
    model = identity.get("model") or {}
    task = str(model.get("class_path", "")).rsplit(".", 1)[-1]
    init = model.get("init_args") or {}
    backbone = init.get("backbone") if isinstance(init.get("backbone"), Mapping) else {}
    task += f", {init['head']}" if init.get("head") else ""
    task += ", Z ++ F4" if ((backbone or {}).get("options") or {}).get("joined") else ""
    return Score(run.as_posix(), task or "evaluate", data_of(identity), _protocol(metrics), values)


def judged_by(run: Path, checkpoint: Path) -> bool:
    """Whether a run judged a checkpoint as it is now.

    Args:
        run: its folder.
        checkpoint: the file.
    """
    identity = read_json(run / "provenance.json").get("identity") or {}
    digest = file_digest(checkpoint)
    if judged_whole(identity, digest):
        return True
    backbone = ((identity.get("model") or {}).get("init_args") or {}).get("backbone")
    named = backbone.get("weights") if isinstance(backbone, Mapping) else None
    if not isinstance(backbone, Mapping) or not str(backbone.get("prefix", "")).startswith(TEACHER):
        return False  # the student's, say
    # what the run has read; runs from before that was noted only name the file
    read = (identity.get("inputs") or {}).get("backbone.weights")
    if read is None and named is not None and Path(named).is_file():
        read = file_digest(Path(named))
    return bool(read == digest)


def data_of(identity: Mapping[str, Any]) -> str:
    """Class of the data that a run saw; a miniature world in a benchmark's layout is not that benchmark.

    Args:
        identity: of `provenance.json`.
    """
    data = identity.get("data") or {}
    # `frugalseg evaluate` notes the class alone
    name, init = str(data.get("class_path") or data.get("class", "")).rsplit(".", 1)[-1], data.get("init_args") or {}
    index = Path(str(init.get("index") or ""))
    if "index" in init:
        name = str(read_json(index).get("benchmark")) if index.is_file() else "kept features"
    if limit := init.get("limit"):
        name += f" (first {limit:,} images of each split)"
    return f"a synthetic world in the layout of {name}" if "world.json" in (identity.get("inputs") or {}) else name


def _protocol(metrics: Mapping[str, Any]) -> str:
    """`M, input_size 96` of `protocol/M` = 1 and `protocol/input_size` = 96."""
    stated = {key.split("/", 1)[1]: value for key, value in sorted(metrics.items()) if key.startswith("protocol/")}
    return ", ".join(key if key[0].isupper() else f"{key} {value:g}" for key, value in stated.items())


def model_card(config: Mapping[str, Any], scores: Sequence[Score]) -> str:
    """The card as markdown with a YAML head.

    Args:
        config: what `config.json` holds.
        scores: measured ones, or none.
    """
    source = config.get("source") or {}
    if "task" in config:
        return net_card(config, _training(source, "The whole net, without its training's state."), _measured(scores))
    preset = config["preset"]
    tags = ["frugalseg", "image-feature-extraction", "self-supervised", "dense-features", preset]
    head = ["license: apache-2.0", "library_name: frugalseg", "pipeline_tag: image-feature-extraction", "tags:"]
    parts = [
        "---\n" + "\n".join([*head, *(f"- {tag}" for tag in tags)]) + "\n---",
        f"# {preset}, pre-trained without labels",
        _what(config),
        "## How it was trained",
        _training(source, "The teacher's backbone, without heads."),
        "## Measured",
        _measured(scores),
        "## Limits",
        LIMITS,
        "## Use",
        "```python\nimport frugalseg\n"
        f'net = frugalseg.load("FOLDER")  # this folder\n'
        f'features = net.features("image.jpg")  # ({config["width"]}, ceil(H / {config["stride"]}), '
        f"ceil(W / {config['stride']}))\n```",
        _timm(config),
    ]
    return "\n\n".join(parts) + "\n"


def _what(config: Mapping[str, Any]) -> str:
    changes = f" with `{json.dumps(config['changes'], sort_keys=True)}`" if config["changes"] else ""
    facts = {
        "net": f"`{config['preset']}`{changes}, {config['weights']['parameters']:,} parameters, float32",
        "dense features": f"{config['width']} channels, one cell per {config['stride']} x {config['stride']} pixels",
        "token": f"{config['token_width']} numbers per image",
        "images": f"RGB, mean {config['mean']}, std {config['std']} on the scale 0..1; sides padded to multiples of "
        f"{config['multiple']}",
        "weights": f"`{config['weights']['file']}`, SHA-256 `{config['weights']['sha256']}`",
    }
    return table(("", ""), facts.items())


def _training(source: Mapping[str, Any], part: str) -> str:
    """Facts of the run, which part of the net this is, and the settings of the task."""
    known, record = source.get("hyper_parameters") or {}, source.get("provenance") or {}
    if not record:
        facts = {"run": "not known: the checkpoint lay in no run folder"}
    else:
        git = record.get("git") or {}
        changed = ", with changes that were not committed" if git.get("changed") else ""
        facts = {
            "run": f"{record.get('experiment')}/{record.get('stage')}, seed {record.get('seed')}, digest "
            f"`{record.get('digest')}`",
            "code": f"frugalseg at commit `{git.get('commit')}`{changed}",
            "versions": ", ".join(f"{name} {v}" for name, v in (record.get("versions") or {}).items()),
            "data": f"{record.get('data_class')}, {record.get('images')} images, digest `{record.get('data')}`",
            "hardware": _hardware(record),
        }
    facts |= {"checkpoint": f"step {source.get('step')}, SHA-256 `{source.get('checkpoint')}`"}
    settings = table(("setting", "value"), ((f"`{k}`", f"`{json.dumps(v)}`") for k, v in sorted(known.items())))
    last = {f"`{k}`": f"{v:.4g}" for k, v in (source.get("metrics") or {}).items() if k.startswith("train/loss")}
    losses = "\n\nLosses of the last logged step:\n\n" + table(("key", "value"), last.items()) if last else ""
    return f"{table(('', ''), facts.items())}\n\n{part} Settings:\n\n{settings}{losses}"


def _hardware(record: Mapping[str, Any]) -> str:
    machine, devices = record.get("hardware") or {}, record.get("devices") or {}
    what = ", ".join(machine.get("gpus") or []) or machine.get("processor")
    return f"{what}, {devices.get('world_size')} process(es), precision {record.get('precision')}"


def _measured(scores: Sequence[Score]) -> str:
    if not scores:
        return "Nothing: no finished run was given to `frugalseg package --scores`."
    rows = [
        (score.run, score.task, score.data, score.protocol, f"`{key}`", f"{value:.4f}")
        for score in scores
        for key, value in sorted(score.values.items())
    ]
    return "Read from `metrics.json` of these runs, each of which judged this very checkpoint.\n\n" + table(
        ("run", "task", "data", "protocol", "key", "value"), rows
    )


def _timm(config: Mapping[str, Any]) -> str:
    own = config["is_mevt"]
    first = "import frugalseg.papers.mevt.timm_entry  # tells timm the name\n" if own else ""
    more = " (`net.dense(batch)` gives the dense features)" if own else ""
    return (
        f"Or as a model of timm{more}:\n\n```python\n"
        f'{first}import timm\nnet = timm.create_model("local-dir:FOLDER", pretrained=True)\n```'
    )
