"""Rows of few-shot tables: averages against the statistics module, what is kept apart, and the files."""

import csv
import json
import statistics

import pytest

from frugalseg.analysis.few_shot import read_stages
from frugalseg.analysis.few_shot_rows import FOLDS, rows_of, write_rows
from frugalseg.data import isaid5i
from tests.analysis.few_shot_runs import COSTS, slow_scores, write_test


def rows_in(root, name="dsmf"):
    return rows_of(name, read_stages(root / name))


def experiment(root, training=(0, 2), folds=FOLDS, **settings):
    """Write all tests; gives (fold, training seed, base seed) -> slow scores."""
    slow = {}
    for fold in folds:
        for seed in training:
            _, bases, sums = write_test(root, fold=fold, seed=seed, **settings)
            slow |= {(fold, seed, b): slow_scores(rows) for b, rows in zip(bases.tolist(), sums, strict=True)}
    return slow


def expected(values):
    std = statistics.stdev(values.values()) if len(values) > 1 else 0.0
    return {"mean": statistics.fmean(values.values()), "std": std, "n": len(values), **values}


@pytest.mark.parametrize("training", [(0,), (0, 2)])
def test_means_over_seeds_and_folds(tmp_path, training):
    slow = experiment(tmp_path, training)
    (row,) = rows_in(tmp_path)
    wanted = {}
    for fold in FOLDS:
        own = {f"seed{s}/base{b}": scores for (f, s, b), scores in slow.items() if f == fold}
        assert len(own) == 3 * len(training)
        for key in ("miou", "fb_iou"):
            wanted[f"fold{fold}/{key}"] = {label: scores[key] for label, scores in own.items()}
        for c in isaid5i.fold_classes(fold):
            values = {label: scores["iou"][c] for label, scores in own.items()}
            wanted[f"fold{fold}/iou/{isaid5i.NAMES[c]}"] = values
    for key in ("miou", "fb_iou"):
        # per pair of seeds over the folds first: a deviation of these means, not a mean of deviations
        labels = wanted[f"fold0/{key}"]
        wanted[f"mean/{key}"] = {n: statistics.fmean(wanted[f"fold{f}/{key}"][n] for f in FOLDS) for n in labels}
    for key, value in COSTS.items():
        name = key.split("/")[1]
        wanted[name] = {f"seed{s}/fold{f}": value for f in FOLDS for s in training}
    assert set(row.figures) == set(wanted)
    for key, values in wanted.items():
        assert row.figures[key] == pytest.approx(expected(values), abs=1e-12, rel=1e-12), key
    assert row.notes == []
    assert row.training_seeds == " ".join(map(str, training))


@pytest.mark.parametrize(("folds", "missing"), [((0, 2), "1"), ((1,), "0 and 2")])
def test_a_missing_fold_leaves_no_mean(tmp_path, folds, missing):
    experiment(tmp_path, folds=folds)
    (row,) = rows_in(tmp_path)
    assert not any(key.startswith("mean/") for key in row.figures)
    assert row.notes == [f"no mean of the folds, for want of fold {missing}"]


def test_a_mean_of_folds_takes_common_seeds_only(tmp_path):
    slow = experiment(tmp_path, (0,))
    write_test(tmp_path, fold=1, seed=3)
    (row,) = rows_in(tmp_path)
    assert row.figures["fold1/miou"]["n"] == 6
    means = {f"seed0/base{b}": statistics.fmean(slow[f, 0, b]["miou"] for f in FOLDS) for b in range(3)}
    assert row.figures["mean/miou"] == pytest.approx(expected(means))
    assert row.notes == [
        "the mean of the folds leaves out seed3/base0, seed3/base1, seed3/base2, which not every fold has"
    ]
    assert row.training_seeds == "fold 0: 0, fold 1: 0 3, fold 2: 0"


def test_no_training_seed_in_common(tmp_path):
    for fold in FOLDS:
        write_test(tmp_path, fold=fold, seed=fold)
    (row,) = rows_in(tmp_path)
    assert "mean/miou" not in row.figures
    assert row.notes == ["no mean of the folds, since no training seed has all of them"]


def test_shots_have_rows_of_their_own(tmp_path):
    for shots in (5, 1, 10):
        write_test(tmp_path, shots=shots)
    assert [row.shots for row in rows_in(tmp_path)] == [1, 5, 10]


@pytest.mark.parametrize(
    "other",
    [
        {"protocol": "P2"}, {"checkpoint": "best"}, {"checkpoint": None}, {"size": 512},
        {"seeds": (0, 1)}, {"inputs": {"world.json": "w"}}, {"protocol": "D1"},
    ],
)  # fmt: skip
def test_what_differs_between_folds_is_never_averaged(tmp_path, other):
    for fold in (0, 1):
        write_test(tmp_path, fold=fold)
    write_test(tmp_path, fold=2, **other)
    first, second = rows_in(tmp_path)
    assert set(first.folds) == {0, 1} and set(second.folds) == {2}
    assert not any(key.startswith("mean/") for row in (first, second) for key in row.figures)


def test_every_fold_may_have_episodes_files_of_its_own(tmp_path):
    for fold in FOLDS:
        write_test(tmp_path, fold=fold, file=f"fold{fold}-{{seed}}.csv")
    (row,) = rows_in(tmp_path)
    assert row.figures["mean/miou"]["n"] == 3
    assert [facts["episodes file"] for facts in row.folds.values()] == [f"fold{f}-{{seed}}.csv" for f in FOLDS]


@pytest.mark.parametrize("other", [{"episodes": 30}, {"classes": (1, 2, 3, 4)}, {"file": "e.csv"}])
def test_training_seeds_with_other_episodes_or_classes_are_never_averaged(tmp_path, other):
    experiment(tmp_path, (0, 1))
    write_test(tmp_path, fold=0, seed=2, **other)
    first, second = rows_in(tmp_path)
    assert first.figures["fold0/miou"]["n"] == 6 and first.figures["mean/miou"]["n"] == 6
    assert second.figures["fold0/miou"]["n"] == 3 and set(second.folds) == {0}


def test_files_hold_every_number_with_its_facts(tmp_path):
    experiment(tmp_path, (0, 1))
    experiment(tmp_path, (0,), shots=5, checkpoint="best")
    write_test(tmp_path, seed=4, checkpoint="best")
    rows = rows_in(tmp_path)
    write_rows(tmp_path / "dsmf", rows)
    folder = tmp_path / "dsmf" / "aggregate"
    names = ["1shot-test", "1shot-test-2", "5shot-test"]
    assert sorted(p.name for p in folder.iterdir()) == sorted(f"{n}.{e}" for n in names for e in ("json", "csv"))
    for name, row in zip(names, rows, strict=True):
        content = json.loads((folder / f"{name}.json").read_text())
        assert content["values"] == row.figures
        facts = content["facts"]
        assert facts["selection rule"] == row.facts["selection rule"] and facts["protocol"] == "P1"
        assert facts["classes of fold 0"] == ", ".join(isaid5i.NAMES[1:6])
        assert facts["shots"] == str(row.shots) and facts["training seeds"] == row.training_seeds
        with (folder / f"{name}.csv").open(newline="") as file:
            read = {line.pop("key"): line for line in csv.DictReader(file)}
        for line in read.values():
            assert {key: line.pop(key) for key in facts} == facts
        assert {key: {k: float(v) for k, v in line.items() if v} for key, line in read.items()} == row.figures
