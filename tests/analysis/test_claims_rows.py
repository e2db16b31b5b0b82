"""Claims settled from run folders: values against plain sums, half-finished and broken studies, times, and the guard."""

import json
import math
from datetime import UTC, datetime

import numpy as np
import pytest
from scipy import stats

from frugalseg.analysis.claims import parse_claims
from frugalseg.analysis.claims_guard import FIXED, LATE, UNKNOWN, committed, standing
from frugalseg.analysis.claims_rows import INCOMPLETE, row_from, settle
from frugalseg.analysis.claims_runs import Runs
from frugalseg.run import write_json
from tests.analysis.claim_runs import SEEDS, commit, entry, finish, study, text_of

BANK = [0.55, 0.56, 0.58, 0.57, 0.55]
PLAIN = [0.50, 0.52, 0.53, 0.51, 0.52]


def rows_of(runs, *entries, fixed=None):
    return settle(parse_claims(text_of(*entries), "claims.yaml"), Runs(runs), fixed or {})


def test_a_difference_equals_the_paired_test_of_its_seeds(tmp_path):
    study(tmp_path, bank=BANK, plain=PLAIN)
    (row,) = rows_of(tmp_path, entry())
    points = 100 * (np.array(BANK) - np.array(PLAIN))
    assert list(row.differences) == [str(seed) for seed in SEEDS]
    assert list(row.differences.values()) == pytest.approx(list(points))
    oracle = stats.ttest_rel(np.array(BANK) * 100, np.array(PLAIN) * 100)
    assert row.p == row.p_adjusted == pytest.approx(oracle.pvalue)
    interval = oracle.confidence_interval(0.95)
    assert (row.mean, row.low, row.high) == pytest.approx((points.mean(), interval.low, interval.high))
    assert (row.verdict, row.positive, row.remarks) == ("holds", 5, [])
    assert row.side("baseline") == pytest.approx(100 * np.mean(PLAIN))


def test_a_lower_value_can_be_claimed(tmp_path):
    study(tmp_path, bank=PLAIN, plain=BANK)
    (lower,) = rows_of(tmp_path, entry(better="lower"))
    (higher,) = rows_of(tmp_path, entry())
    assert lower.mean == higher.mean < 0
    assert (lower.verdict, lower.positive, higher.verdict, higher.positive) == ("holds", 5, "contradicted", 0)
    (margin,) = rows_of(tmp_path, entry(better="lower", margin=3))
    assert margin.p == pytest.approx(stats.ttest_1samp(list(lower.differences.values()), -3).pvalue)


def test_an_interaction_is_a_difference_of_differences(tmp_path):
    rng = np.random.default_rng(0)
    numbers = {name: rng.uniform(0, 1, 5) for name in ("bank", "plain", "bank-b", "plain-b")}
    study(tmp_path, **{name: list(values) for name, values in numbers.items()})
    control = {"treatment": "bank-b", "baseline": "plain-b"}
    (row,) = rows_of(tmp_path, entry(kind="interaction", control=control, scale=1))
    expected = (numbers["bank"] - numbers["plain"]) - (numbers["bank-b"] - numbers["plain-b"])
    assert list(row.differences.values()) == pytest.approx(list(expected))


def test_folds_stages_and_keys_are_averaged(tmp_path):
    for seed in SEEDS:
        for fold in (0, 1, 2):
            for stage in ("small", "large"):
                metrics = {"a": seed + 10 * fold + (stage == "small"), "b": 1.0}
                finish(tmp_path, f"full/fold{fold}/seed{seed}/{stage}", metrics)
    sides = {"treatment": {"stage": ["small", "large"], "metric": ["a", "b"]}, "baseline": {"stage": "large"}}
    (row,) = rows_of(tmp_path, entry(kind="within", run="full", metric="a", fold="mean", scale=1, **sides))
    assert row.values["treatment"] == {str(seed): pytest.approx((seed + 10 + 0.5 + 1) / 2) for seed in SEEDS}
    assert row.values["baseline"] == {str(seed): seed + 10.0 for seed in SEEDS}
    (row,) = rows_of(tmp_path, entry(kind="within", run="full", metric="a", fold=2, scale=1, **sides))
    assert row.values["baseline"]["11"] == 31.0


def test_any_fold_is_the_one_that_is_there(tmp_path):
    for seed in SEEDS:
        for run in ("bank", "plain"):
            finish(tmp_path, f"{run}/fold{seed % 3}/seed{seed}/score", {"train/miou_mw": seed * (2 - (run == "plain"))})
    (row,) = rows_of(tmp_path, entry(fold="any", scale=1))
    assert list(row.differences.values()) == list(SEEDS)
    finish(tmp_path, "bank/fold0/seed11/score", {"train/miou_mw": 1.0})
    (row,) = rows_of(tmp_path, entry(fold="any"))
    assert row.verdict == INCOMPLETE and "seed 11 has several folds" in row.remarks[0]


def test_a_half_finished_study_is_shown_as_such(tmp_path):
    study(tmp_path, bank=BANK[:3], plain=PLAIN)
    (tmp_path / "plain/seed13/score/done.json").unlink()
    (row,) = rows_of(tmp_path, entry())
    assert row.verdict == row.verdict_adjusted == INCOMPLETE and row.p == 1.0
    assert row.remarks == ["seeds 14, 15 lacking (bank score)", "seed 13 lacking (plain score)"]
    assert list(row.differences) == ["11", "12"] and row.mean == pytest.approx(4.5)
    assert row.side("baseline") == pytest.approx(100 * (PLAIN[0] + PLAIN[1]) / 2)


def test_a_study_that_has_not_begun(tmp_path):
    (row,) = rows_of(tmp_path, entry())
    assert (row.verdict, row.mean, row.low, row.seconds, row.side("baseline")) == (INCOMPLETE, None, None, None, None)
    json.dumps(row.as_json(), allow_nan=False)


@pytest.mark.parametrize(
    ("content", "told"),
    [('{"train/miou_mw": NaN}', "is nan"), ('{"val/miou": 1}', "lacks train/miou_mw"), ("{", "not readable"),
     ('{"train/miou_mw": "high"}', "not a number")],
)  # fmt: skip
def test_a_broken_number_is_named_and_never_averaged(tmp_path, content, told):
    study(tmp_path, bank=BANK, plain=PLAIN)
    path = tmp_path / "bank/seed13/score/metrics.json"
    path.write_text(content)
    (row,) = rows_of(tmp_path, entry())
    assert row.verdict == INCOMPLETE and "13" not in row.differences and len(row.differences) == 4
    assert str(path) in row.remarks[0] and told in row.remarks[0] and "\n" not in row.remarks[0]


def test_few_seeds_and_equal_differences_are_remarked(tmp_path):
    study(tmp_path, bank=[0.5, 0.6], plain=[0.4, 0.5])
    (row,) = rows_of(tmp_path, entry(seeds=[11, 12]))
    assert row.verdict == "not shown"
    assert row.remarks == ["2 seeds: fewer than 5", "all differences are equal: no spread to judge by"]


def test_the_correction_is_for_all_claims_of_the_file(tmp_path):
    study(tmp_path, bank=BANK, plain=PLAIN, weak=[0.52, 0.55, 0.53, 0.53, 0.54])
    weak = entry(id="sfc-weak", treatment="weak")
    (alone,) = rows_of(tmp_path, weak)
    assert alone.verdict == alone.verdict_adjusted == "holds"
    lacking = [entry(id=f"sfc-x{place}", treatment=f"x{place}") for place in range(8)]
    strong, amid, *_ = rows_of(tmp_path, entry(), weak, *lacking)
    assert amid.p == alone.p and amid.verdict == "holds"
    assert strong.p_adjusted == pytest.approx(10 * strong.p) and amid.p_adjusted == pytest.approx(9 * amid.p)
    assert amid.p_adjusted > 0.05 and amid.verdict_adjusted == "not shown"


def test_time_is_that_of_all_stages_of_all_runs(tmp_path):
    study(tmp_path, bank=BANK, plain=PLAIN)
    finish(tmp_path, "bank/seed11/classify", seconds=1000.5)
    finish(tmp_path, "bank/seed99/classify", seconds=5000.0)  # no seed of the claim
    finish(tmp_path, "warm/fold1/seed12/classify", seconds=200.0)
    finish(tmp_path, "plain/seed11/score.old-1234", seconds=7000.0)
    (row,) = rows_of(tmp_path, entry(needs=["warm"]))
    assert row.seconds == pytest.approx(10 * 60 + 1000.5 + 200.0)


def test_the_start_of_a_resumed_stage_is_not_taken_for_its_first(tmp_path):
    study(tmp_path, bank=BANK, plain=PLAIN)
    path = tmp_path / "bank/seed11/score/provenance.json"
    later = {"claimed": datetime(2026, 1, 5, tzinfo=UTC).timestamp(), "started": "2026-01-05T00:00:00+00:00"}
    write_json(path, later | {"resumed": ["2026-01-01T12:00:00+00:00", "2026-01-05T00:00:00+00:00"]})
    (row,) = rows_of(tmp_path, entry())
    assert row.started == "2026-01-01T12:00:00+00:00"
    assert row.remarks == ["1 of its stages were resumed, and started earlier than is known"]
    assert row.seconds == pytest.approx(9 * 60)


@pytest.mark.parametrize("place", ["bank/seed11/score.old-1234", "plain/fold1/seed12/classify"])
@pytest.mark.parametrize("finished", [True, False])
def test_runs_that_were_moved_aside_or_never_finished_were_seen_too(tmp_path, place, finished):
    study(tmp_path, bank=BANK, plain=PLAIN)
    folder = finish(tmp_path, place, started="2026-01-01T00:00:00+00:00")
    if not finished:
        (folder / "done.json").unlink()
    (row,) = rows_of(tmp_path, entry())
    assert row.started == "2026-01-01T00:00:00+00:00"


def test_a_row_comes_back_from_json(tmp_path):
    study(tmp_path, bank=BANK, plain=PLAIN)
    (row,) = rows_of(tmp_path, entry(), fixed={"sfc-bank": datetime(2026, 1, 1, tzinfo=UTC)})
    again = row_from(json.loads(json.dumps(row.as_json(), allow_nan=False)))
    assert again.side("treatment") == row.side("treatment") and math.isfinite(again.side("treatment"))
    assert json.dumps(again.as_json()) == json.dumps(row.as_json()) and row.standing == FIXED


def test_since_when_claims_are_committed(tmp_path):
    file = tmp_path / "claims.yaml"
    other = entry(id="sfc-other", treatment="other")

    def at(text, when=None):
        file.write_text(text)
        if when:
            commit(tmp_path, when)
        return committed(file, parse_claims(text, "claims.yaml"))

    first, second, third = (datetime(2026, 1, day, tzinfo=UTC) for day in (1, 2, 3))
    assert at(text_of(entry())) == {"sfc-bank": None}  # no repository
    at(text_of(entry(margin=3)), "2025-12-31T00:00:00+00:00")
    assert at(text_of(entry()), first.isoformat()) == {"sfc-bank": first}
    # words that decide nothing, and another claim, leave it as old as it is
    reworded = entry(statement="another wording")
    assert at(text_of(reworded, other), second.isoformat()) == {"sfc-bank": first, "sfc-other": second}
    # a margin that goes and comes back is as young as its return
    at(text_of(entry(margin=1), other), second.isoformat())
    assert at(text_of(reworded, other), third.isoformat()) == {"sfc-bank": third, "sfc-other": second}
    assert at(text_of(entry(metric="x"), other)) == {"sfc-bank": None, "sfc-other": second}
    assert at(text_of(entry(), other, seeds=(1, 2))) == {"sfc-bank": None, "sfc-other": None}


def test_a_file_that_was_none_once_is_no_hindrance(tmp_path):
    file = tmp_path / "claims.yaml"
    file.write_text("another: form\n")
    commit(tmp_path, "2026-01-01T00:00:00+00:00")
    file.write_text(text_of(entry()))
    commit(tmp_path, "2026-01-02T00:00:00+00:00")
    assert committed(file, parse_claims(file.read_text(), "")) == {"sfc-bank": datetime(2026, 1, 2, tzinfo=UTC)}


def test_the_three_standings():
    early, late = datetime(2026, 1, 1, tzinfo=UTC), datetime(2026, 1, 2, tzinfo=UTC)
    assert standing(early, late) == standing(late, late) == FIXED
    assert standing(late, early) == LATE
    assert standing(None, late) == standing(early, None) == UNKNOWN
