"""Notebook 06: any experiments side by side: scores, learning curves, differences by seed."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from frugalseg.analysis.claims_statistics import effect_of
from frugalseg.analysis.html.curves import read_log
from frugalseg.analysis.notebook.charts import Line, finished, line_chart, new_figure
from frugalseg.analysis.notebook.display import Plate, Sheet, shown
from frugalseg.analysis.notebook.folders import Runs, stages_in, target_of
from frugalseg.analysis.seeds import read_metrics
from frugalseg.errors import RunFolderError


@shown
def table(runs: Runs, stage: str, keys: Sequence[str], *names: str) -> Sheet:
    """Scores of one stage: mean and sample standard deviation over seeds, in percent.

    Args:
        runs: the folder of runs.
        stage: its name.
        keys: of `metrics.json`.
        names: of experiments; none takes all that have the stage.
    """
    experiments = runs.named(list(names)) if names else runs.experiments()
    found = {experiment.name: by_seed(experiment, stage) for experiment in experiments}
    rows = [[name, *[_cell(values, key) for key in keys], str(len(values))] for name, values in found.items() if values]
    if not rows:
        raise RunFolderError(f"missing: {stage} of {', '.join(names) or 'any experiment'}; {_remedy(*names)}")
    return Sheet(f"{stage}: mean ± deviation over seeds, in %", ["experiment", *keys, "seeds"], rows)


def by_seed(experiment: Path, stage: str) -> dict[str, dict[str, float]]:
    """Metrics of a stage by seed, and by fold where there are folds.

    Args:
        experiment: its folder.
        stage: its name.

    Returns:
        `seed0`, or `fold0/seed0` -> flat metrics; unfinished stages are left out.
    """
    done = [path for path in stages_in(experiment) if path.name == stage and (path / "done.json").is_file()]
    there = [path for path in done if (path / "metrics.json").is_file()]
    return {path.parent.relative_to(experiment).as_posix(): read_metrics(path / "metrics.json") for path in there}


def _remedy(*names: str) -> str:
    targets = dict.fromkeys(map(target_of, names)) or ["demo"]
    return f"{' and '.join(f'`make {target}`' for target in targets)} makes it"


def _cell(found: dict[str, dict[str, float]], key: str) -> str:
    values = np.array([metrics[key] for metrics in found.values() if key in metrics])
    if not values.size:
        return "-"
    return f"{100 * values.mean():.1f}" + (f" ±{100 * values.std(ddof=1):.1f}" if values.size > 1 else "")


@shown
def keys(runs: Runs, experiment: str, stage: str) -> Sheet:
    """What `learning_curves` can draw of a stage."""
    columns = read_curves(runs.stage(experiment, stage) / "metrics.csv")
    rows = [[key, str(len(x)), f"{y[0]:.4g}", f"{y[-1]:.4g}"] for key, (x, y) in columns.items()]
    return Sheet(f"{experiment}/{stage}: what was logged", ["key", "times", "first", "last"], rows)


@shown
def learning_curves(runs: Runs, stage: str, keys: Sequence[str], *names: str) -> Plate:
    """Curves of several experiments over one another, one line per seed (and fold).

    Args:
        runs: the folder of runs.
        stage: name of the fit.
        keys: columns of `metrics.csv`, one panel each.
        names: of experiments.
    """
    panels: dict[str, dict[str, list[Line]]] = {key: {} for key in keys}
    for experiment in runs.named(list(names)):
        for folder in stages_in(experiment):
            path = folder / "metrics.csv"
            if folder.name != stage or not path.is_file():
                continue
            found = read_curves(path)
            for key in keys:
                if key in found:
                    panels[key].setdefault(experiment.name, []).append(found[key])
    if not any(panels.values()):
        what = f"curves {', '.join(keys)} of {stage} in {', '.join(names)}"
        raise RunFolderError(f"missing: {what}; give other keys, or {_remedy(*names)}")
    return line_chart({key: found for key, found in panels.items() if found}, "step", f"{stage}: one line per seed")


def read_curves(path: Path) -> dict[str, Line]:
    """Columns of a `metrics.csv` over the steps.

    Args:
        path: the file.

    Raises:
        RunFolderError: it holds no curve.
    """
    log = read_log(path)
    if not log.curves:
        raise RunFolderError(f"missing: {path.name} of {path.parent.name}: {log.flaw or 'nothing was logged'}")
    return {key: ([x for x, _ in points], [y for _, y in points]) for key, points in log.curves.items()}


def _differences(
    runs: Runs, pairs: Sequence[tuple[str, str]], stage: str, keys: Sequence[str]
) -> list[tuple[tuple[str, str], str, dict[str, float]]]:
    """Pair, key, and second minus first by seed in percentage points; keys that no seed of both has are left out."""
    found = []
    for pair in pairs:
        one, two = (by_seed(experiment, stage) for experiment in runs.named(list(pair)))
        for key in keys:
            common = [seed for seed in one if seed in two and key in one[seed] and key in two[seed]]
            if common:
                found.append((pair, key, {seed: 100 * (two[seed][key] - one[seed][key]) for seed in common}))
    if not found:
        named = "; ".join(f"{one} and {two}" for one, two in pairs)
        what = f"seeds in common with {', '.join(keys)} in {stage}: {named}"
        raise RunFolderError(f"missing: {what}; {_remedy(*(name for pair in pairs for name in pair))}")
    return found


@shown
def differences(runs: Runs, stage: str, keys: Sequence[str], *pairs: tuple[str, str]) -> Sheet:
    """What the second experiment of a pair gains over the first, seed by seed.

    Args:
        runs: the folder of runs.
        stage: whose metrics.
        keys: of `metrics.json`.
        pairs: (without, with).
    """
    rows = []
    for pair, key, found in _differences(runs, pairs, stage, keys):
        effect = effect_of(list(found.values()))
        about = f"{effect.low:+.1f} to {effect.high:+.1f}" if effect.n > 1 else "one seed: none"
        each = ", ".join(f"{seed} {value:+.1f}" for seed, value in found.items())
        rows.append([f"{pair[1]} minus {pair[0]}", key, f"{effect.mean:+.1f}", about, each])
    return Sheet(
        "Differences in percentage points", ["experiments", "key", "mean", "95 % interval", "by seed"], rows,
        ["Student's t over seeds: an interval on both sides of 0 shows nothing"], wordy=2,
    )  # fmt: skip


@shown
def difference_chart(runs: Runs, stage: str, keys: Sequence[str], *pairs: tuple[str, str]) -> Plate:
    """The same as a picture: dots are seeds, lines the 95 % interval of their mean."""
    found = _differences(runs, pairs, stage, keys)
    figure = new_figure(9.0, 1.2 + 0.4 * len(found))
    axes = figure.subplots()
    for row, (_, _, values) in enumerate(found):
        effect = effect_of(list(values.values()))
        if effect.n > 1:
            reach = effect.mean - effect.low
            axes.errorbar(effect.mean, row, xerr=reach, fmt="|", color="black", capsize=4, markersize=12)
        axes.plot(list(values.values()), [row] * len(values), "o", color="#4c72b0", alpha=0.7)
    axes.axvline(0, color="0.4", linestyle="--", linewidth=1)
    axes.set_yticks(range(len(found)), [f"{b} - {a}\n{key}" for (a, b), key, _ in found], fontsize=8)
    axes.set_ylim(len(found) - 0.5, -0.5)
    axes.set_xlabel("percentage points")
    axes.grid(axis="x", color="0.9")
    axes.set_title("Differences by seed, with the 95 % interval of the mean", fontsize=11)
    return finished(figure, "differences by seed with 95 % intervals")
