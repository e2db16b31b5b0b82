"""The folder of runs that a notebook reads: where it is, what has finished there, and with which data."""

import os
import re
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import frugalseg.data
from frugalseg.data.base import Sample
from frugalseg.data.module import SegmentationData
from frugalseg.data.recipes import Segment
from frugalseg.errors import RunFolderError
from frugalseg.run import read_json

VARIABLE = "FRUGALSEG_RUNS"
TARGETS = {
    "mini-pretrain": "mini-sfc", "mini-sfc": "mini-sfc", "mini-cti": "mini-cti", "mini-dsmf": "mini-dsmf",
    "mini-mevt-real": "mini-mevt-real", "mini-mevt": "mini-mevt", "data-mini": "data-mini", "claims": "claims",
    "cti-ablation": "cti-ablation", "folder-segment": "folder-segment", "folder-": "folder-masks",
}  # fmt: skip
"""Start of an experiment's name -> make target, where they differ; the first that fits counts."""
KEPT = (
    "fold", "protocol", "labels", "year", "val_classes", "train_split", "val_split", "test_split", "predict_split",
    "image_dir", "mask_dir", "tags_file", "classes_file", "background", "val_share", "split_seed", "folds",
)  # fmt: skip
"""Settings of a data module that say which classes and splits it has."""


@dataclass(frozen=True)
class Runs:
    """A folder of runs, seen through one seed.

    Attributes:
        folder: it need not exist.
        seed: whose maps and pictures are shown; tables take all seeds.
    """

    folder: Path
    seed: int = 0

    def __repr__(self) -> str:
        found = self.experiments()
        begins = f"{len(found)} experiments in {self.folder.name}/" if found else f"no runs in {self.folder.name}/ yet"
        return f"{begins}, seen through seed {self.seed}" + ("" if found else "; `make demo` makes some")

    def experiments(self) -> list[Path]:
        """Folders that hold a stage, finished or not."""
        if not self.folder.is_dir():
            return []
        return [path for path in sorted(self.folder.iterdir()) if path.is_dir() and stages_in(path)]

    def named(self, names: list[str]) -> list[Path]:
        """Folders of experiments.

        Args:
            names: of experiments.

        Raises:
            RunFolderError: one is not there.
        """
        if absent := [name for name in names if not (self.folder / name).is_dir()]:
            raise RunFolderError(f"missing: {', '.join(absent)}; `make {target_of(absent[0])}` makes it")
        return [self.folder / name for name in names]

    def having(self, stage: str, *names: str) -> list[str]:
        """Those experiments that have finished a stage for our seed, in any fold; all where none has.

        Args:
            stage: its name.
            names: of experiments.
        """
        found = [name for name in names if any(map(self._finished, self._places(name, stage)))]
        return found or list(names)

    def _places(self, experiment: str, stage: str) -> list[Path]:
        top = self.folder / experiment
        return [above / f"seed{self.seed}" / stage for above in (top, *sorted(top.glob("fold*")))]

    @staticmethod
    def _finished(stage: Path) -> bool:
        return (stage / "done.json").is_file()

    def stage(self, experiment: str, *names: str, fold: int | None = None) -> Path:
        """Folder of a finished stage of our seed.

        Args:
            experiment: name of its folder.
            names: of stages; the first that has finished is taken.
            fold: of cross-validation, where the experiment has them.

        Raises:
            RunFolderError: none has finished.
        """
        part = "" if fold is None else f"fold{fold}/"
        above = self.folder / experiment / f"{part}seed{self.seed}"
        for name in names:
            if self._finished(above / name):
                return above / name
        wanted = " or ".join(f"{experiment}/{part}seed{self.seed}/{name}" for name in names)
        raise RunFolderError(f"missing: {wanted}; `make {target_of(experiment)}` makes it")

    def place(self, recorded: str) -> Path:
        """A path that a run has recorded: as it is, beside the folder of runs, or inside it.

        Args:
            recorded: absolute, or relative to the folder that the run was started in.

        Raises:
            RunFolderError: it is nowhere.
        """
        path = Path(recorded)
        inside = self.folder.joinpath(*path.parts[1:]) if len(path.parts) > 1 else path
        for place in (path, self.folder.parent / path, inside):
            if place.exists():
                return place
        raise RunFolderError(f"missing: {recorded}, which a run was made with; make it again, or move it back")

    def data(self, stage: Path) -> SegmentationData:
        """The data that a Trainer stage has seen, with its classes and splits; draws no batches.

        Args:
            stage: its folder.

        Raises:
            RunFolderError: the stage does not say, or the data have gone.
            DatasetError: the data are damaged.
        """
        settings = _data_record(stage)
        name = str(settings["class_path"]).rsplit(".", 1)[-1]
        if name not in frugalseg.data.__all__:
            raise RunFolderError(f"{stage}: its data {name} are none of frugalseg.data; notebooks cannot read them")
        own = settings["init_args"]
        kept = {key: own[key] for key in KEPT if own.get(key) is not None}
        data: SegmentationData = getattr(frugalseg.data, name)(self.place(str(own["root"])), Segment(), **kept)
        return data

    def predicted(self, stage: Path) -> tuple[SegmentationData, list[Sample]]:
        """The data of a prediction, and its images.

        Args:
            stage: folder of a `predict`.
        """
        data, own = self.data(stage), _data_record(stage)["init_args"]
        return data, data.index(str(own.get("predict_split") or "train"))[: own.get("limit")]


def open_runs(seed: int = 0) -> Runs:
    """The folder that the variable FRUGALSEG_RUNS names, else the nearest `runs` at or above the working folder.

    Args:
        seed: whose maps and pictures are shown.
    """
    # what is imported later asks for a bar of progress that nothing here draws
    warnings.filterwarnings("ignore", message="IProgress not found")
    if given := os.environ.get(VARIABLE):
        return Runs(Path(given), seed)
    here = Path.cwd()
    found = (above / "runs" for above in (here, *here.parents) if (above / "runs").is_dir())
    return Runs(next(found, here.parent / "runs"), seed)


def target_of(experiment: str) -> str:
    """Make target of an experiment."""
    return next((target for start, target in TARGETS.items() if experiment.startswith(start)), experiment)


def stages_in(experiment: Path) -> list[Path]:
    """Folders of stages, with or without folds; what was moved aside is left out."""
    found = [*experiment.glob("seed*/*/provenance.json"), *experiment.glob("fold*/seed*/*/provenance.json")]
    return sorted(path.parent for path in found if ".old-" not in path.parent.name)


def seeds_in(experiment: Path) -> list[int]:
    """Training seeds of an experiment, ascending."""
    matches = (re.fullmatch(r"seed(\d+)", stage.parent.name) for stage in stages_in(experiment))
    return sorted({int(match[1]) for match in matches if match})


def _data_record(stage: Path) -> dict[str, Any]:
    record = read_json(stage / "provenance.json")
    try:
        settings: dict[str, Any] = record["identity"]["data"]
        settings["class_path"], settings["init_args"]["root"]
    except (KeyError, TypeError) as error:
        raise RunFolderError(f"{stage}: does not tell its data ({error!r}); give a stage of fit or predict") from error
    return settings
