"""Notebook 00: what is in a folder of runs, how one stage's folder looks, and one chain from image to prediction."""

from collections.abc import Iterator
from pathlib import Path

from frugalseg.analysis.chain import chain_table
from frugalseg.analysis.maps import read_maps
from frugalseg.analysis.masks import label_panel
from frugalseg.analysis.notebook.display import Plate, Sheet, plate_of, sheet_of, shown
from frugalseg.analysis.notebook.folders import Runs, seeds_in, stages_in
from frugalseg.analysis.pictures import Picture, map_panel
from frugalseg.analysis.seeds import aggregate, finished_stages
from frugalseg.analysis.tables import summary_table
from frugalseg.analysis.token_pictures import rows_in, stacked, token_panel
from frugalseg.data.base import Sample
from frugalseg.data.description import Description
from frugalseg.errors import RunFolderError
from frugalseg.run import read_json

FILES = {
    "config.yaml": "every setting, also those that were left to their defaults",
    "hparams.yaml": "settings of the net and of its losses",
    "provenance.json": "command, git revision, versions, machine, seed, digests of data and inputs",
    "checkpoints": "best.ckpt and last.ckpt: an interrupted fit continues from the last one",
    "metrics.csv": "what was logged, step by step",
    "metrics.json": "the scores, flat",
    "maps": "class maps, one .npz per image",
    "masks": "predicted masks, one PNG per image",
    "confusion.npz": "counts of pixels behind the scores",
    "figures": "curves and bars, PNG",
    "pictures": "image, maps, labels and truth side by side, PNG",
    "sweep.csv": "scores at every background threshold",
    "groups.json": "head, middle and tail classes",
    "wandb-id.txt": "the run's id at Weights & Biases",
    "done.json": "written last: what the stage was made of; while it is not there the stage is unfinished",
}
"""What a stage writes."""
LIBRARIES = ("frugalseg", "torch", "lightning", "timm")
LABELS = (
    ("CRF", "seeds", "crf"), ("seed labels", "seeds", "seed_labels"), ("refined", "labels", "refined"),
    ("pseudo label", "labels", "pseudo"), ("prediction", "predict", "masks"),
)  # fmt: skip
"""Caption, stage and folder of the masks of a weakly supervised chain, in its order."""


@shown
def experiments(runs: Runs) -> Sheet:
    """One line per experiment: what has finished there, and what was begun."""
    found = runs.experiments()
    if not found:
        raise RunFolderError(f"missing: {runs.folder.name}/ holds no runs yet; `make demo` makes some")
    rows = []
    for experiment in found:
        stages = stages_in(experiment)
        done = [stage for stage in stages if (stage / "done.json").is_file()]
        folds = {stage.parent.parent.name.removeprefix("fold") for stage in stages} - {experiment.name}
        rows.append(
            [
                experiment.name,
                ", ".join(dict.fromkeys(stage.name for stage in done)),
                " ".join(map(str, seeds_in(experiment))),
                " ".join(sorted(folds)) or "-",
                str(len(done)),
                str(len(stages) - len(done)),
            ]
        )
    return Sheet(
        "What is in the folder of runs",
        ["experiment", "finished stages", "seeds", "folds", "finished", "begun"],
        rows,
        wordy=4,
    )


@shown
def stage_files(runs: Runs, experiment: str, stage: str) -> Sheet:
    """What one stage has written, and what it is for."""
    folder = runs.stage(experiment, stage)
    rows = [
        [path.name + "/" * path.is_dir(), FILES.get(path.name, ""), _size(path)]
        for path in sorted(folder.iterdir(), key=lambda path: (path.is_file(), path.name))
    ]
    return Sheet(f"{folder.relative_to(runs.folder)}/", ["file", "what it is", "size"], rows, wordy=2)


@shown
def provenance(runs: Runs, experiment: str, stage: str) -> Sheet:
    """Where a stage's results come from."""
    record = read_json(runs.stage(experiment, stage) / "provenance.json")
    versions, git = record.get("versions") or {}, record.get("git") or {}
    machine = record.get("hardware") or {}
    rows = [
        ["started", str(record.get("started", "-"))],
        ["revision", f"{str(git.get('commit', '-'))[:12]}{' with changes' if git.get('changed') else ''}"],
        ["seed", str(record.get("seed", "-"))],
        ["machine", f"{machine.get('processor', '-')}, {machine.get('cores', '-')} cores"],
        ["versions", ", ".join(f"{name} {versions[name]}" for name in LIBRARIES if name in versions)],
        ["images", ", ".join(f"{split} {number}" for split, number in (record.get("splits") or {}).items())],
        ["digest", str(record.get("digest", "-"))[:12]],
    ]  # fmt: skip
    return Sheet("Where it comes from", ["what", "value"], rows, wordy=2)


@shown
def chain_pictures(runs: Runs, experiment: str, count: int = 3) -> Plate:
    """Images, their class maps, and below them the labels of every later stage that has run, up to the truth."""
    stage = runs.stage(experiment, "cam-train", "cam", "cam-val")
    data, samples = runs.predicted(stage)
    shown_ids = [sample for sample in samples if sample.mask is not None][:count]
    rows = [row for sample in shown_ids for row in _chain_rows(data, stage, sample)]
    return plate_of(stacked(rows), f"{experiment}: image, class maps, labels of each stage, truth")


def _chain_rows(data: Description, stage: Path, sample: Sample) -> Iterator[Picture]:
    arrays = read_maps(stage / "maps" / f"{sample.id}.npz")
    if rows_in(arrays):  # CTI's: of its many kinds of maps the seed alone
        seed = {name: array for name, array in arrays.items() if name in ("keys", "cam")}
        yield token_panel(sample, seed, data.class_names, data.palette)
    else:
        yield map_panel(sample, stage / "maps", data.class_names, data.palette)
    split = stage.name.removeprefix("cam").removeprefix("-") or "train"
    folders = {name: stage.parent / f"{begun}-{split}" / kind for name, begun, kind in LABELS}
    there = {name: folder for name, folder in folders.items() if (folder / f"{sample.id}.png").is_file()}
    if there:
        yield label_panel(sample, there, data.class_names, data.palette)


@shown
def scores(runs: Runs, *names: str) -> Sheet:
    """Mean IoU of all maps and labels of some experiments, over their seeds, and by class frequency."""
    results = {}
    for experiment in runs.named(list(names)):
        found = finished_stages(experiment)
        if (stage := next(iter(sorted(found, key=lambda name: (name != "score", name))), None)) is None:
            raise RunFolderError(f"missing: scores of {experiment.name}; run its make target to its end")
        results[experiment.name] = aggregate(found[stage])
    split = next(key.split("/")[0] for rows in results.values() for key in rows if "/miou" in key)
    return sheet_of(summary_table(results, split))


@shown
def chain_scores(runs: Runs, experiment: str) -> Sheet:
    """Mean IoU of every intermediate of a chain, on train and val; of its maps alone where no more has run."""
    (folder,) = runs.named([experiment])
    stages = {stage: aggregate(by_seed) for stage, by_seed in finished_stages(folder).items()}
    if not stages:
        raise RunFolderError(f"missing: scores of {experiment}; run its make target to its end")
    for stage in [name for name in stages if name == "score"]:  # the short form, of one split
        split = next(key.split("/")[0] for key in stages[stage] if "/miou" in key)
        stages.setdefault(f"score-{split}", stages[stage])
    return sheet_of(chain_table(experiment, stages))


def _size(path: Path) -> str:
    files = [path] if path.is_file() else [inside for inside in path.rglob("*") if inside.is_file()]
    size = sum(file.stat().st_size for file in files)
    number = f"{size / 1e6:.1f} MB" if size >= 1e6 else f"{size / 1e3:.1f} kB"
    return number if path.is_file() else f"{len(files)} files, {number}"
