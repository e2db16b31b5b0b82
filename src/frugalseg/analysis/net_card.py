"""The page that goes with a packaged net that gives masks, and which finished runs have judged its checkpoint."""

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from frugalseg.run import folder_digest, read_json

WHAT = {
    "segmenter": "a segmentation net: masks from images alone",
    "seeds": "a classifier of image tags: class maps and seed masks of images whose tags are known",
    "few-shot": "a few-shot net: masks of what a few other images show",
}
"""Kind -> what it is."""
PIPELINE = {"segmenter": "image-segmentation", "seeds": "image-segmentation", "few-shot": "image-segmentation"}
USE = {
    "segmenter": """\
mask = net("image.jpg")  # (H, W) uint8 class ids, one scale
mask = net("image.jpg", scales=(0.5, 1.0, 1.5), flip=True)
masks = net.masks(["a.jpg", "b.jpg"])""",
    "seeds": """\
mask = net("image.jpg", tags=[{tag}])  # (H, W) uint8 class ids
maps = net.maps("image.jpg", tags=[{tag}])  # class id -> (H, W) float32
mask = net("image.jpg")  # tags are guessed""",
    "few-shot": """\
mask = net("image.jpg", supports=[("other.jpg", "its-mask.png")])  # (H, W) of 0 and 1""",
}
"""Kind -> lines that use `net`."""
LIMITS = {
    "segmenter": "- It knows the classes below and no others: what belongs to none of them becomes one of them.",
    "seeds": "- Maps say where the evidence for a tag is, which is often the most telling part of a thing and no more."
    "\n- Tags that are guessed are those above a probability that nobody has tuned.",
    "few-shot": "- What it finds depends on the supports; it answers even where nothing of the kind is in the image.",
}
"""Kind -> what it cannot do."""
SHARED_LIMITS = """\
- The net was built and trained by the `frugalseg` suite; neither net nor weights are a paper's authors'.
- What was learned is what the training images show; on images of another kind or scale answers may mean little.
- The licence is that of the code; whether the terms of the training images bear on the weights is yours to judge."""


def net_card(config: Mapping[str, Any], training: str, measured: str) -> str:
    """The card as markdown with a YAML head.

    Args:
        config: what `config.json` holds.
        training: how it was trained, markdown.
        measured: what finished runs say of it, markdown.
    """
    kind, task = config["kind"], str(config["task"]).rsplit(".", 1)[-1]
    tags = ["frugalseg", "semantic-segmentation", task.lower()]
    head = ["license: apache-2.0", "library_name: frugalseg", f"pipeline_tag: {PIPELINE[kind]}", "tags:"]
    parts = [
        "---\n" + "\n".join([*head, *(f"- {tag}" for tag in tags)]) + "\n---",
        f"# {task}: {WHAT[kind].split(':', 1)[0]}",
        _what(config),
        "## Classes",
        _classes(config),
        "## How it was trained",
        training,
        "## Measured",
        measured,
        "## Limits",
        f"{LIMITS[kind]}\n{SHARED_LIMITS}",
        "## Use",
        f'```python\nimport frugalseg\nnet = frugalseg.load("FOLDER")  # this folder\n{_use(config)}\n```',
    ]
    return "\n\n".join(parts) + "\n"


def _what(config: Mapping[str, Any]) -> str:
    settings = {key: value for key, value in config["settings"].items() if key not in ("inference", "testing")}
    facts = {
        "what": WHAT[config["kind"]],
        "net": f"`frugalseg.{config['task']}`, {config['weights']['parameters']:,} parameters, float32",
        "settings": f"`{json.dumps(settings, sort_keys=True)}`",
        "images": f"RGB of any size, mean {config['mean']}, std {config['std']} on the scale 0..1",
        "weights": f"`{config['weights']['file']}`, SHA-256 `{config['weights']['sha256']}`",
    }
    return table(("", ""), facts.items())


def _classes(config: Mapping[str, Any]) -> str:
    names, palette = config["class_names"], config["palette"]
    if not names:
        return f"{config['num_classes']}; what they are called was not known when this was packaged."
    rows = ((number, name, "#" + bytes(palette[number]).hex()) for number, name in enumerate(names))
    return table(("id", "name", "colour"), rows)


def _use(config: Mapping[str, Any]) -> str:
    names = config["class_names"]
    return USE[config["kind"]].format(tag=json.dumps(names[1], ensure_ascii=False) if len(names) > 1 else "1")


def judged_whole(identity: Mapping[str, Any], digest: str) -> bool:
    """Whether a run judged a checkpoint as it is: it read the file, or scored masks or maps of a run that did.

    Args:
        identity: of the run's `provenance.json`.
        digest: of the checkpoint.
    """
    inputs = identity.get("inputs") or {}
    if inputs.get("ckpt_path") == digest:
        return True
    return any(_made_from(folder, inputs.get(key), digest) for key, folder in _scored(identity.get("settings")))


def _scored(settings: object) -> Iterator[tuple[str, Path]]:
    """Names of inputs of `frugalseg evaluate`, and their folders."""
    if not isinstance(settings, Mapping):
        return
    if settings.get("maps"):
        yield "maps", Path(str(settings["maps"]))
    given: Sequence[Any] = settings.get("masks") or ()
    for each in given:
        name, _, folder = str(each).rpartition("=")
        yield f"masks {name or 'masks'}", Path(folder)


def _made_from(folder: Path, noted: object, digest: str) -> bool:
    """Whether a folder's files are those that were scored, and its run predicted them with the checkpoint."""
    record = folder.parent / "provenance.json"
    if noted is None or not folder.is_dir() or not record.is_file():
        return False
    inputs = (read_json(record).get("identity") or {}).get("inputs") or {}
    pattern = "*.npz" if any(folder.glob("*.npz")) else "*.png"
    return bool(inputs.get("ckpt_path") == digest and folder_digest(folder, pattern) == noted)


def table(head: Sequence[str], rows: Any) -> str:
    """Markdown; a bar inside a cell would end it.

    Args:
        head: of the columns.
        rows: of cells.
    """
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(str(cell).replace("|", "\\|") for cell in line) + " |" for line in lines)
