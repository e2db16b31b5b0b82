"""Lineage for W&B: checkpoint -> maps -> labels -> segmenter -> predictions -> scores, as small manifests.

An artifact holds one `run.json` of what a finished stage is, never its gigabytes of maps. Whoever reads a stage's files
writes the same manifest from the same folder, so that both ends of an edge have one digest and meet in one version,
whichever of them is uploaded first.
"""

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from frugalseg.callbacks.wandb_names import read_facts
from frugalseg.run import file_digest, read_json, write_text

if TYPE_CHECKING:
    from wandb import Artifact, Run

KINDS = {
    "checkpoints": "checkpoint",
    "maps": "maps",
    "edges": "edges",
    "affinities": "edges",
    "masks": "predictions",
    "masks-crf": "predictions",
}
"""Folder of a stage's results -> type of the artifact, the first that is there."""
_NOT_RESULTS = {"wandb", "pictures", "figures", "checkpoints"}
_DEPTH = 3
"""How far above a file its stage's `done.json` may lie: `<stage>/checkpoints/best.ckpt`, `<stage>/maps`."""
_MOST = 128
"""Letters of an artifact's name."""


def kind_of(folder: Path) -> str:
    """Type of a finished stage's artifact.

    Args:
        folder: the run folder; one with other folders of results holds labels, one with none of them scores.
    """
    for name, kind in KINDS.items():
        if (folder / name).is_dir():
            return kind
    return "labels" if _results(folder) else "scores"


def _results(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.is_dir() and path.name not in _NOT_RESULTS)


def artifact_name(folder: Path) -> str:
    """Name of a stage's artifact: its folder's, in letters that W&B takes."""
    return re.sub(r"[^\w.-]+", "-", read_facts(folder).name)[-_MOST:]


def manifest(folder: Path) -> str:
    """What a finished stage is, as JSON: the same text whenever and wherever it is written.

    Args:
        folder: with `done.json`; neither its place nor times of files matter.

    Raises:
        RunFolderError: `done.json` or `provenance.json` is missing or damaged.
    """
    done, record = read_json(folder / "done.json"), read_json(folder / "provenance.json")
    checkpoints = {path.name: file_digest(path) for path in sorted((folder / "checkpoints").glob("*.ckpt"))}
    content: dict[str, Any] = {
        "run": read_facts(folder).name,
        "experiment": record.get("experiment"),
        "stage": record.get("stage"),
        "digest": done.get("digest"),
        "done": file_digest(folder / "done.json"),
        "inputs": done.get("inputs") or {},
        "results": _results(folder),
        "checkpoints": checkpoints,
    }
    return json.dumps(content, indent=2, sort_keys=True) + "\n"


def makers(paths: Iterable[Path]) -> list[Path]:
    """Run folders of the finished stages that made these files, each once, in order.

    Args:
        paths: files or folders; those that no stage made are left out.
    """
    found = []
    for path in paths:
        above = [path.absolute(), *path.absolute().parents][: _DEPTH + 1]
        found += [folder for folder in above if (folder / "done.json").is_file()][:1]
    return list(dict.fromkeys(found))


def paths_in(settings: Any) -> Iterator[Path]:
    """All files and folders that resolved settings name.

    Args:
        settings: nested mappings and lists.
    """
    if isinstance(settings, Mapping):
        for value in settings.values():
            yield from paths_in(value)
    elif isinstance(settings, list | tuple):
        for value in settings:
            yield from paths_in(value)
    elif isinstance(settings, str | Path) and "/" in str(settings):
        path = Path(settings).expanduser()
        if path.exists():
            yield path


def log_lineage(run: "Run", folder: Path, inputs: Iterable[Path]) -> None:
    """Declare what a finished stage read, and log what it made.

    Args:
        run: of the stage.
        folder: of the stage, with `done.json`.
        inputs: files and folders that it read.
    """
    for maker in makers(inputs):
        if maker != folder.absolute():
            _use(run, _artifact(maker, folder))
    run.log_artifact(_artifact(folder, folder))


def _artifact(stage: Path, folder: Path) -> "Artifact":
    """The artifact of a stage; its manifest is kept in the folder of whoever logs it, not in W&B's staging folder."""
    import wandb

    name = artifact_name(stage)
    path = folder / "wandb" / "lineage" / f"{name}.json"
    write_text(path, manifest(stage))
    artifact = wandb.Artifact(name, kind_of(stage), metadata={"folder": str(stage.absolute())})
    artifact.add_file(str(path), name="run.json", policy="immutable", skip_cache=True)
    return artifact


def _use(run: "Run", artifact: "Artifact") -> None:
    """Declare an input.

    `Run.use_artifact` refuses to work offline, though the record that it sends can be written like any other; the
    server looks the artifact up, or makes it, when the run is uploaded.
    """
    if run.offline:
        run._log_artifact(artifact, is_user_created=True, use_after_commit=True)
    else:
        run.use_artifact(artifact)
