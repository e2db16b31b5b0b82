"""Means over seeds against the statistics module, and the files they end in."""

import csv
import json
import statistics

import pytest

from frugalseg.analysis.seeds import aggregate, finished_stages, write_aggregates
from frugalseg.errors import RunFolderError
from frugalseg.run import write_json

BY_SEED = {
    0: {"val/miou_mw": 0.5, "val/iou_mw/cat": 0.25, "val/only": 0.125},
    2: {"val/miou_mw": 0.75, "val/iou_mw/cat": 0.5},
    11: {"val/miou_mw": 0.625, "val/iou_mw/cat": 1.0},
}


def stage(root, path, metrics, done=True):
    write_json(root / path / "metrics.json", metrics)
    if done:
        write_json(root / path / "done.json", {"digest": "x"})


@pytest.fixture
def experiment(tmp_path):
    for seed, metrics in BY_SEED.items():
        stage(tmp_path, f"seed{seed}/score", metrics)
    stage(tmp_path, "seed0/score-train", {"train/miou_mw": 0.1})
    stage(tmp_path, "fold1/seed3/score", {"val/miou": 0.2})
    # none of these counts
    stage(tmp_path, "seed4/score", {"val/miou_mw": 9.0}, done=False)
    stage(tmp_path, "seed0/score.old-12345678", {"val/miou_mw": 9.0})
    stage(tmp_path, "seed0/classify", {"val/miou_mw": 9.0})
    return tmp_path


def test_finished_stages(experiment):
    assert finished_stages(experiment) == {
        "score": BY_SEED,
        "score-train": {0: {"train/miou_mw": 0.1}},
        "fold1/score": {3: {"val/miou": 0.2}},
    }
    assert list(finished_stages(experiment, "classify")) == ["classify"]


def test_aggregate_equals_the_statistics_module():
    rows = aggregate(BY_SEED)
    assert list(rows) == sorted({key for metrics in BY_SEED.values() for key in metrics})
    for key, row in rows.items():
        values = {seed: metrics[key] for seed, metrics in BY_SEED.items() if key in metrics}
        numbers = list(values.values())
        assert row["mean"] == pytest.approx(statistics.mean(numbers))
        assert row["std"] == pytest.approx(statistics.stdev(numbers) if len(numbers) > 1 else 0.0)
        assert row["n"] == len(numbers)
        assert {k: v for k, v in row.items() if k.startswith("seed")} == {f"seed{s}": v for s, v in values.items()}


def test_files_hold_the_aggregates(experiment):
    written = write_aggregates(experiment)
    folder = experiment / "aggregate"
    assert {p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()} == {
        f"{name}.{suffix}" for name in ("score", "score-train", "fold1/score") for suffix in ("json", "csv")
    }
    for name, rows in written.items():
        assert rows == aggregate(finished_stages(experiment)[name])
        assert json.loads((folder / f"{name}.json").read_text()) == rows
        with (folder / f"{name}.csv").open(newline="") as file:
            read = {row.pop("key"): row for row in csv.DictReader(file)}
        assert {key: {k: float(v) for k, v in row.items() if v} for key, row in read.items()} == rows


def test_columns_of_seeds_follow_the_statistics(experiment):
    write_aggregates(experiment)
    header = (experiment / "aggregate" / "score.csv").read_text().splitlines()[0].split(",")
    assert header[0] == "key"
    seeds = [column.startswith("seed") for column in header]
    assert seeds == sorted(seeds)
    assert sum(seeds) == len(BY_SEED)


def test_writing_twice_gives_the_same_files(experiment):
    write_aggregates(experiment)
    before = {p: p.read_bytes() for p in (experiment / "aggregate").rglob("*.*")}
    write_aggregates(experiment)
    assert {p: p.read_bytes() for p in (experiment / "aggregate").rglob("*.*")} == before


@pytest.mark.parametrize("text", ["{", "[1]", ""])
def test_damaged_metrics_are_named(experiment, text):
    path = experiment / "seed2" / "score" / "metrics.json"
    path.write_text(text)
    with pytest.raises(RunFolderError, match="seed2"):
        write_aggregates(experiment)


@pytest.mark.parametrize("value", ["high", "0.5", None, [1.0], {"mean": 1.0}])
def test_metrics_that_are_no_numbers_are_named(experiment, value):
    stage(experiment, "seed2/score", {**BY_SEED[2], "val/miou_mp": value})
    with pytest.raises(RunFolderError, match="val/miou_mp") as caught:
        write_aggregates(experiment)
    assert str(experiment / "seed2" / "score" / "metrics.json") in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not (experiment / "aggregate").exists()


def test_whole_numbers_become_floats(experiment):
    stage(experiment, "seed2/score", {"val/n": 3})
    assert isinstance(finished_stages(experiment)["score"][2]["val/n"], float)


def test_stages_with_dots_keep_files_of_their_own(tmp_path):
    for number in (1, 2):
        stage(tmp_path, f"seed0/score.v{number}", {"val/miou": float(number)})
    write_aggregates(tmp_path)
    folder = tmp_path / "aggregate"
    assert {p.name for p in folder.iterdir()} == {f"score.v{n}.{s}" for n in (1, 2) for s in ("json", "csv")}
    for number in (1, 2):
        assert json.loads((folder / f"score.v{number}.json").read_text())["val/miou"]["mean"] == number


def test_nothing_finished(tmp_path):
    stage(tmp_path, "seed0/score", {"a": 1.0}, done=False)
    with pytest.raises(RunFolderError, match="no finished score stage"):
        write_aggregates(tmp_path)
    assert not (tmp_path / "aggregate").exists()
