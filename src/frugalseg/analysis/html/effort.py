"""What an experiment cost and where it comes from: time and memory per stage, commands, code, machine and data."""

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from frugalseg.analysis.few_shot_grid import Grid
from frugalseg.analysis.html.experiments import Experiment
from frugalseg.analysis.html.states import StageRun
from frugalseg.analysis.model_card import data_of
from frugalseg.analysis.stage_times import worked_seconds
from frugalseg.errors import RunFolderError, printable

COMPUTED = (
    "Time is the wall time of work over all resumptions, without the waiting between them, mean and range over"
    " seeds and folds. Memory is the largest resident memory of the process that finished, without loaders' workers:"
    " earlier stages of that process are in it, what was done before a resumption is not."
)
OLDER = "≈: by an older version, which noted only when a run began and ended."


class Command(NamedTuple):
    """How one stage was made.

    Attributes:
        stage: its name.
        place: fold and seed.
        command: words of the command line.
    """

    stage: str
    place: str
    command: str


def _seconds(stage: StageRun) -> tuple[float | None, bool]:
    return worked_seconds(stage.done, stage.record)


def clock(seconds: float) -> str:
    """`3.2 s`, `4 min 05 s`, `2 h 07 min`."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    return f"{minutes // 60:,} h {minutes % 60:02d} min"


def effort_grid(experiment: Experiment) -> Grid:
    """Time and memory of every stage.

    Args:
        experiment: with any state.
    """
    names = list(dict.fromkeys(stage.name for stage in experiment.stages))
    lines, estimated = [], False
    for name in names:
        own = [stage for stage in experiment.stages if stage.name == name]
        known = [(seconds, exact) for seconds, exact in map(_seconds, own) if seconds is not None]
        guessed = any(not exact for _, exact in known)
        estimated |= guessed
        resumed = sum(len(stage.record.get("resumed") or []) for stage in own)
        lines.append(
            [
                name, ("≈ " if guessed else "") + _span([seconds for seconds, _ in known]),
                _memory(own, "done", "peak_memory_bytes"), _memory(own, "record", "peak_gpu_memory_bytes"),
                f"{sum(bool(stage.done) for stage in own)} of {len(own)}", str(resumed) if resumed else "-",
            ]
        )  # fmt: skip
    columns = ["stage", "time", "memory", "GPU memory", "runs finished", "resumed"]
    return Grid("time and memory by stage", columns, lines, [COMPUTED, *[OLDER] * estimated])


def total_time(experiment: Experiment) -> str:
    """Wall time of all finished stages together; "-" where none is known."""
    known = [(seconds, exact) for seconds, exact in map(_seconds, experiment.stages) if seconds is not None]
    if not known:
        return "-"
    return ("" if all(exact for _, exact in known) else "≈ ") + clock(sum(seconds for seconds, _ in known))


def _span(seconds: Sequence[float]) -> str:
    if not seconds:
        return "-"
    mean = clock(sum(seconds) / len(seconds))
    return mean if len(seconds) == 1 else f"{mean} ({clock(min(seconds))} to {clock(max(seconds))})"


def _memory(stages: Sequence[StageRun], where: str, key: str) -> str:
    found = [value for stage in stages if isinstance(value := getattr(stage, where).get(key), int | float)]
    return f"{max(found) / 2**20:,.0f} MiB" if found else "-"


def fact_grid(experiment: Experiment) -> Grid:
    """Code, versions, machine and data, each with all its values where stages differ.

    Args:
        experiment: with any state.
    """
    facts = {
        "commit": (_commit(stage.record) for stage in experiment.stages),
        "versions": (_pairs(stage.record.get("versions")) for stage in experiment.stages),
        "machine": (_machine(stage.record.get("hardware")) for stage in experiment.stages),
        "devices": (_pairs(stage.record.get("devices")) for stage in experiment.stages),
        "precision": (str(stage.record.get("precision") or "") for stage in experiment.stages),
        "data": (_data(stage.record) for stage in experiment.stages),
        "data digest": (str(stage.record.get("data") or "")[:16] for stage in experiment.stages),
        "images per split": (_pairs(stage.record.get("splits")) for stage in experiment.stages),
        "parameters, trained": (_parameters(stage) for stage in experiment.stages),
        "resumed at": (_resumed(stage) for stage in experiment.stages),
    }
    lines = [[name, told] for name, values in facts.items() if (told := _several(values))]
    return Grid("provenance", ["fact", "value"], lines, [])


def commands(experiment: Experiment) -> list[Command]:
    """The command of every stage of the first fold and seed; the others differ from it in those numbers alone.

    Args:
        experiment: with any state.
    """
    found: dict[str, Command] = {}
    for stage in sorted(experiment.stages, key=lambda s: (s.fold or 0, s.seed)):
        words = stage.record.get("command")
        if isinstance(words, list) and stage.name not in found:
            found[stage.name] = Command(stage.name, stage.place, printable(" ".join(map(str, words))))
    order = list(dict.fromkeys(stage.name for stage in experiment.stages))
    return sorted(found.values(), key=lambda command: order.index(command.stage))


def _several(values: Iterable[str]) -> str:
    """The different values, of many the first few."""
    different = list(dict.fromkeys(printable(value) for value in values if value))
    return " · ".join(different[:6]) + (f" · and {len(different) - 6} more" if len(different) > 6 else "")


def _commit(record: dict[str, Any]) -> str:
    git = record.get("git")
    if not isinstance(git, dict):
        return ""
    return str(git.get("commit", ""))[:12] + (" with changes that were not committed" if git.get("changed") else "")


def _pairs(content: object) -> str:
    if not isinstance(content, dict):
        return ""
    return ", ".join(f"{key} {value}" for key, value in content.items() if value is not None)


def _machine(content: object) -> str:
    if not isinstance(content, dict):
        return ""
    gpus = content.get("gpus") or []
    what = [content.get("processor"), f"{content.get('cores')} cores", *(gpus if isinstance(gpus, list) else [])]
    return ", ".join(str(part) for part in what if part)


def _data(record: dict[str, Any]) -> str:
    identity = record.get("identity")
    data = identity.get("data") if isinstance(identity, dict) else None
    if not isinstance(identity, dict) or not isinstance(data, dict) or "class_path" not in data:
        return ""  # verbs that read files keep digests alone
    try:
        return data_of(identity)
    except (RunFolderError, TypeError, AttributeError, ValueError):
        return ""


def _parameters(stage: StageRun) -> str:
    every, trained = stage.record.get("parameters"), stage.record.get("trainable_parameters")
    return f"{stage.name} {every:,}, {trained:,}" if isinstance(every, int) and isinstance(trained, int) else ""


def _resumed(stage: StageRun) -> str:
    times = stage.record.get("resumed")
    return f"{stage.name} of {stage.place}: {', '.join(map(str, times))}" if isinstance(times, list) and times else ""
