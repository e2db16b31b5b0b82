"""What claims are settled with: single numbers of finished stages, and the records of the runs that they come from."""

import math
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from frugalseg.analysis.claims import FOLDS, Side
from frugalseg.analysis.seeds import read_metrics
from frugalseg.analysis.stage_times import worked_seconds
from frugalseg.errors import RunFolderError
from frugalseg.run import read_json


class UnfinishedError(Exception):
    """A stage has not finished."""


class FaultyError(Exception):
    """A stage has finished, but does not have the number."""


class Runs:
    """A folder of runs; every file is read once.

    Args:
        root: such as runs/.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self._metrics: dict[Path, dict[str, float]] = {}

    def value(self, side: Side, seed: int) -> float:
        """A side's number for a seed: the mean over its folds, stages and metrics.

        Raises:
            UnfinishedError: a stage has not finished.
            FaultyError: a number is missing or not finite, or a file is damaged; says which.
        """
        folders = [folder / stage for folder in self.folders(side, seed) for stage in side.stages]
        if lack := [folder for folder in folders if not (folder / "done.json").is_file()]:
            raise UnfinishedError(str(lack[0]))
        found = [self._number(folder, key) for folder in folders for key in side.metrics]
        return math.fsum(found) / len(found)

    def folders(self, side: Side, seed: int) -> list[Path]:
        """Folders of a side's seed: one, or one per fold.

        Raises:
            UnfinishedError: `any` fold was asked for, and there is none.
            FaultyError: `any` fold was asked for, and there are several.
        """
        run, name = self.root / side.run, f"seed{seed}"
        if side.fold is None:
            return [run / name]
        if side.fold != "any":
            return [run / f"fold{fold}" / name for fold in (FOLDS if side.fold == "mean" else (side.fold,))]
        found = sorted(run.glob(f"fold*/{name}"))
        if not found:
            raise UnfinishedError(str(run / "fold*" / name))
        if len(found) > 1:
            raise FaultyError(f"{run}: seed {seed} has several folds, of which `any` cannot choose")
        return found

    def _number(self, folder: Path, key: str) -> float:
        path = folder / "metrics.json"
        if path not in self._metrics:
            try:
                self._metrics[path] = read_metrics(path)
            except RunFolderError as error:
                raise FaultyError(str(error).partition(";")[0]) from error
        if key not in self._metrics[path]:
            raise FaultyError(f"{path}: lacks {key}")
        if not math.isfinite(value := self._metrics[path][key]):
            raise FaultyError(f"{path}: {key} is {value}")
        return value

    def records(self, run: str, seed: int) -> dict[str, dict[str, Any]]:
        """Records of all finished stages of a run's seed, in any fold; `[fold<f>/]seed<s>/<stage>` -> record.

        A record holds `digest` (of settings and inputs), `started`, `finished`, `resumed`, `seconds`, `commit`,
        `changed` and `versions`, None where the stage did not write it.
        """
        top = self.root / run
        return {folder.relative_to(top).as_posix(): _record(folder) for folder in _finished(top, seed)}

    def starts(self, run: str, seed: int) -> list[str]:
        """When stages of a run's seed began, also those that were stopped, or moved aside when settings changed.

        Whoever looks at results and then changes a row has seen them, whatever the row says afterwards.
        """
        top = self.root / run
        folders = [f.parent for p in ("", "fold*/") for f in sorted(top.glob(f"{p}seed{seed}/*/provenance.json"))]
        return [str(found) for found in (_record(folder)["started"] for folder in folders) if found]


def _finished(top: Path, seed: int) -> Iterator[Path]:
    for pattern in (f"seed{seed}/*/done.json", f"fold*/seed{seed}/*/done.json"):
        yield from (done.parent for done in sorted(top.glob(pattern)) if ".old-" not in done.parent.name)


def _record(folder: Path) -> dict[str, Any]:
    """What a stage's two records say; a damaged one says nothing."""
    done, origin = _lenient(folder / "done.json"), _lenient(folder / "provenance.json")
    git = origin.get("git") if isinstance(origin.get("git"), dict) else {}
    resumed = origin.get("resumed") or []
    return {
        "digest": done.get("digest"),
        "started": _started(origin, resumed),
        "finished": done.get("finished"),
        "resumed": resumed,
        "seconds": worked_seconds(done, origin)[0],
        "commit": (git or {}).get("commit"),
        "changed": (git or {}).get("changed"),
        "versions": origin.get("versions"),
    }


def _started(origin: dict[str, Any], resumed: list[str]) -> str | None:
    """When a stage started; of a resumed one its first resumption, since only that is recorded."""
    if resumed:
        return resumed[0]
    if isinstance(claimed := origin.get("claimed"), int | float):
        return datetime.fromtimestamp(claimed, UTC).isoformat(timespec="seconds")
    return origin.get("started")


def _lenient(path: Path) -> dict[str, Any]:
    try:
        return read_json(path)
    except RunFolderError:
        return {}


def worked(records: Mapping[str, Mapping[str, Mapping[str, Any]]]) -> float:
    """Wall seconds of stages, as far as they are known.

    Args:
        records: run -> stage -> record, see `Runs.records`.
    """
    every = (record["seconds"] for stages in records.values() for record in stages.values())
    return math.fsum(seconds for seconds in every if seconds is not None)
