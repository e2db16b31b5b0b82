"""Few-shot tables: cells, facts, what is said to be incomparable, pages, and the verb."""

import json
import statistics

import pytest

from frugalseg.analysis.few_shot import read_stages
from frugalseg.analysis.few_shot_facts import LAST, PROTOCOLS, SELECTION, THRESHOLD, UNTRAINED
from frugalseg.analysis.few_shot_rows import FOLDS, rows_of
from frugalseg.analysis.few_shot_tables import blocks, class_grids, fact_lines, grid_table, main_grid, page_lines
from frugalseg.analysis.markdown import marks, score_lines
from frugalseg.analysis.seeds import aggregate
from frugalseg.cli import main
from frugalseg.data import dlrsd, isaid5i
from frugalseg.run import write_json
from tests.analysis.few_shot_runs import COSTS, slow_scores, write_test
from tests.analysis.test_tables import rows_of as rendered

HEADINGS = {"episodes of fold 0": "episodes per base seed", "episodes file of fold 0": "episodes file"}
"""Of columns, and of the facts that they show."""


def rows_in(root, *names):
    return [row for name in names for row in rows_of(name, read_stages(root / name))]


def write_all(root, name="dsmf", folds=FOLDS, **settings):
    """All folds of one training seed; gives fold -> slow scores of the base seeds."""
    found = {}
    for fold in folds:
        _, _, sums = write_test(root, name, fold=fold, **settings)
        found[fold] = [slow_scores(rows) for rows in sums]
    return found


def shown(values):
    numbers = [100 * value for value in values]
    return f"{statistics.fmean(numbers):.2f}" + (f" ±{statistics.stdev(numbers):.2f}" if len(numbers) > 1 else "")


def apart(grid):
    return [note for note in grid.notes if note.startswith("Not comparable")]


@pytest.mark.parametrize("seeds", [(0,), (0, 1, 2, 3, 4)])
def test_main_table(tmp_path, seeds):
    slow = write_all(tmp_path, seeds=seeds)
    lone = write_all(tmp_path, "cosine", costs={"test/episodes_per_second": 3.06}, checkpoint=None, seeds=seeds)
    grid = main_grid(rows_in(tmp_path, "dsmf", "cosine"))
    scores = ["fold 0", "fold 1", "fold 2", "mean", "FB-IoU"]
    costs = ["parameters trained / all", "FLOPs", "episodes/s"]
    assert grid.columns == ["experiment", "shots", "selection rule", *scores, *costs]
    for line, name, rule, found, cost in (
        (grid.rows[0], "dsmf", LAST, slow, ["6,082,824 / 29,590,856", "12.5 G", "8.2"]),
        (grid.rows[1], "cosine", UNTRAINED, lone, ["- / -", "-", "3.1"]),
    ):
        folds = [shown([s["miou"] for s in found[fold]]) for fold in FOLDS]
        means = [
            shown([statistics.fmean(found[fold][n][key] for fold in FOLDS) for n in range(len(seeds))])
            for key in ("miou", "fb_iou")
        ]
        assert line == [name, "1", rule, *folds, *means, *cost]
    assert grid.notes == []  # where nothing was trained nothing was selected


def test_a_missing_fold_is_a_dash_with_a_note(tmp_path):
    write_all(tmp_path, folds=(0, 2), shots=5)
    grid = main_grid(rows_in(tmp_path, "dsmf"))
    assert [grid.rows[0][grid.columns.index(c)] for c in ("fold 1", "mean", "FB-IoU")] == ["-", "-", "-"]
    assert "-" not in (grid.rows[0][2], grid.rows[0][4])
    assert grid.notes == ["dsmf, 5 shot: no mean of the folds, for want of fold 1."]


def test_costs_that_differ_between_folds_are_a_span(tmp_path):
    for fold in FOLDS:
        write_test(tmp_path, fold=fold, costs={"model/parameters": 1000.0 + fold, "model/flops": 2e11 * (1 + fold)})
    assert main_grid(rows_in(tmp_path, "dsmf")).rows[0][-3:] == ["- / 1,000 to 1,002", "200 G to 600 G", "-"]


@pytest.mark.parametrize(
    ("other", "heading", "cells"),
    [
        ({"protocol": "P2"}, "protocol", ["P1", "P2"]),
        ({"trained": "P2"}, "protocol", ["P1", "P1 (trained with P2)"]),
        ({"checkpoint": "best"}, "selection rule", [LAST, SELECTION["base"]]),
        ({"checkpoint": "best", "validated": "novel"}, "selection rule", [LAST, SELECTION["novel"]]),
        ({"seeds": (3, 4)}, "base seeds", ["0 1 2", "3 4"]),
        ({"size": 512}, "image size", ["256", "512"]),
        ({"file": "e{seed}.csv"}, "episodes file of fold 0", ["none", "e{seed}.csv"]),
        ({"episodes": 30}, "episodes of fold 0", ["40", "30"]),
        (
            {"classes": (1, 2, 3, 5)}, "classes of fold 0",
            [", ".join(isaid5i.NAMES[1:6]), ", ".join(isaid5i.NAMES[1:6]) + " (in a base seed without episodes: tennis court)"],
        ),
    ],
)  # fmt: skip
def test_what_differs_becomes_a_column(tmp_path, other, heading, cells):
    write_test(tmp_path, "dsmf")
    write_test(tmp_path, "fem", **other)
    rows = rows_in(tmp_path, "dsmf", "fem")
    for grid in (main_grid(rows), *class_grids(rows)):
        assert grid.columns[2] == heading and [line[2] for line in grid.rows] == cells
        assert apart(grid) == [f"Not comparable: rows that differ in {heading}."]
        assert {len(line) for line in grid.rows} == {len(grid.columns)}
    facts = dict(fact_lines(rows))
    told = facts[HEADINGS.get(heading, heading)]
    assert all(cell in told for cell in cells) and told.endswith("(differs from row to row)")


def test_the_training_rule_of_the_test_is_not_told_of_another_training(tmp_path):
    write_test(tmp_path, trained="P2")
    told = dict(fact_lines(rows_in(tmp_path, "dsmf")))["protocol"]
    assert told.startswith("P1 (trained with P2): ") and PROTOCOLS["P2"] in told and "keep the novel" not in told


def test_a_threshold_is_no_obstacle(tmp_path):
    write_test(tmp_path, "prototype", model="frugalseg.papers.dsmf.PrototypeBaseline")
    write_test(tmp_path, "foreground", checkpoint=None)
    names = ["prototype", "foreground"]
    assert apart(main_grid(rows_in(tmp_path, *names))) == []
    write_test(tmp_path, "dsmf")
    grid = main_grid(rows_in(tmp_path, *names, "dsmf"))
    assert grid.columns[2] == "selection rule" and [line[2] for line in grid.rows] == [THRESHOLD, UNTRAINED, LAST]
    assert apart(grid) == []
    write_test(tmp_path, "fem", checkpoint="best")
    assert apart(main_grid(rows_in(tmp_path, *names, "dsmf", "fem"))) != []


def test_several_differences_are_several_columns(tmp_path):
    write_test(tmp_path, "dsmf")
    write_test(tmp_path, "fem", checkpoint="best", protocol="P2", seed=1)
    write_test(tmp_path, "cosine", checkpoint=None)
    grid = main_grid(rows_in(tmp_path, "dsmf", "fem", "cosine"))
    assert grid.columns[2:5] == ["protocol", "selection rule", "training seeds"]
    assert apart(grid) == ["Not comparable: rows that differ in protocol, selection rule."]


def test_other_training_seeds_are_a_column_but_no_obstacle(tmp_path):
    write_test(tmp_path, "dsmf")
    write_test(tmp_path, "fem", seed=0)
    write_test(tmp_path, "fem", seed=1)
    rows = rows_in(tmp_path, "dsmf", "fem")
    grid = main_grid(rows)
    assert grid.columns[2] == "training seeds" and [line[2] for line in grid.rows] == ["0", "0 1"]
    assert apart(grid) == []
    assert "all (training seed, base seed) results" in dict(fact_lines(rows))["±"]


def test_a_fold_that_one_row_lacks_is_no_difference(tmp_path):
    write_all(tmp_path)
    write_test(tmp_path, "fem", fold=1)
    rows = rows_in(tmp_path, "dsmf", "fem")
    assert apart(main_grid(rows)) == []
    assert [len(grid.rows) for grid in class_grids(rows)] == [1, 2, 1]


def test_class_tables(tmp_path):
    slow = {shots: write_all(tmp_path, shots=shots, protocol="D2") for shots in (1, 5)}
    grids = class_grids(rows_in(tmp_path, "dsmf"))
    assert [grid.title for grid in grids] == [f"fold {fold}: IoU in % by class" for fold in FOLDS]
    for fold, grid in enumerate(grids):
        classes = dlrsd.fold_classes(fold, "D2")
        assert grid.columns == ["experiment", "shots", *[dlrsd.NAMES[c] for c in classes], "mean", "FB-IoU"]
        for line, (shots, found) in zip(grid.rows, slow.items(), strict=True):
            cells = [shown([s["iou"][c] for s in found[fold]]) for c in classes]
            cells += [shown([s[key] for s in found[fold]]) for key in ("miou", "fb_iou")]
            assert line == ["dsmf", str(shots), *cells]


def test_class_lists_of_two_protocols_stand_side_by_side(tmp_path):
    write_test(tmp_path, "one", fold=1, protocol="D1")
    write_test(tmp_path, "two", fold=1, protocol="D2")
    (grid,) = class_grids(rows_in(tmp_path, "one", "two"))
    assert grid.columns[2:4] == ["protocol", "classes of fold 1"]
    field, pavement = (grid.columns.index(name) for name in ("field", "pavement"))
    assert [line[field] == "-" for line in grid.rows] == [False, True]
    assert [line[pavement] == "-" for line in grid.rows] == [True, False]


@pytest.mark.parametrize("protocol", list(PROTOCOLS))
def test_facts(tmp_path, protocol):
    names = isaid5i.NAMES if protocol[0] == "P" else dlrsd.NAMES
    tested = [isaid5i.fold_classes(f) if protocol[0] == "P" else dlrsd.fold_classes(f, protocol) for f in FOLDS]
    write_all(tmp_path, protocol=protocol, episodes=50, checkpoint="best", validated="novel", file="e.csv")
    rows = rows_in(tmp_path, "dsmf")
    facts = dict(fact_lines(rows))
    assert facts["benchmark"] == ("ISAID5i" if protocol[0] == "P" else "DLRSD")
    assert facts["protocol"] == f"{protocol}: {PROTOCOLS[protocol]}"
    assert facts["selection rule"] == SELECTION["novel"]
    assert facts["episodes per base seed"] == "50"
    for fold in FOLDS:
        assert facts[f"classes of fold {fold}"] == ", ".join(names[c] for c in tested[fold])
    assert [facts[k] for k in ("image size", "base seeds", "training seeds", "episodes file")] == [
        "256", "0 1 2", "0", "e.csv",
    ]  # fmt: skip
    assert "over base seeds" in facts["±"]
    page = "\n".join(page_lines(rows))
    assert all(f"- **{heading}**: {text}\n" in page for heading, text in facts.items())


def test_episodes_are_told_by_fold_where_folds_differ(tmp_path):
    for fold in FOLDS:
        write_test(tmp_path, fold=fold, episodes=50 + fold, file=f"e{fold}.csv")
    facts = dict(fact_lines(rows_in(tmp_path, "dsmf")))
    assert facts["episodes per base seed"] == "fold 0: 50; fold 1: 51; fold 2: 52"
    assert facts["episodes file"] == "fold 0: e0.csv; fold 1: e1.csv; fold 2: e2.csv"


def test_a_single_result_has_no_deviation(tmp_path):
    write_test(tmp_path, seeds=(0,))
    rows = rows_in(tmp_path, "dsmf")
    assert dict(fact_lines(rows))["±"].startswith("none")
    assert not any("±" in cell for line in main_grid(rows).rows for cell in line)


def test_terminal_and_page_show_the_same_cells(tmp_path):
    write_all(tmp_path)
    rows = rows_in(tmp_path, "dsmf")
    page = page_lines(rows)
    for grid in (main_grid(rows), *class_grids(rows)):
        assert rendered(grid_table(grid)) == [grid.columns, *grid.rows]
        assert f"| {' | '.join(grid.rows[0])} |" in page
    assert {line.count("|") for line in page if line.startswith("| dsmf")} == {11, 10}


def test_benchmarks_have_tables_of_their_own(tmp_path):
    write_test(tmp_path, "a")
    write_test(tmp_path, "b", protocol="D1")
    write_test(tmp_path, "c", inputs={"world.json": "w"})
    rows = rows_in(tmp_path, "a", "b", "c")
    assert list(blocks(rows)) == ["ISAID5i", "DLRSD", "ISAID5i, miniature world"]
    assert sum(line.startswith("- **benchmark**") for line in page_lines(rows)) == 3


# ---------------------------------------------------------------------- the verb


def score_run(root):
    write_json(root / "sfc/seed0/score/metrics.json", {"val/miou_mw": 0.5})
    write_json(root / "sfc/seed0/score/done.json", {})


def page(path):
    path.write_text("above\n{}\nold\n{}\nbelow\n".format(*marks("few")))
    return path


def test_report_of_few_shot_tests(tmp_path, capsys):
    write_all(tmp_path)
    write_all(tmp_path, "fem", shots=5)
    into = page(tmp_path / "README.md")
    words = ["report", str(tmp_path / "dsmf"), str(tmp_path / "fem"), "--into", str(into), "--marker", "few"]
    assert main(words) == 0
    brief = capsys.readouterr().out
    assert PROTOCOLS["P1"] in brief and "fold 1: IoU in % by class" not in brief
    assert main([*words, "--classes"]) == 0
    assert "fold 1: IoU in % by class" in capsys.readouterr().out
    written = into.read_text().split(marks("few")[0])[1].split(marks("few")[1])[0].strip().splitlines()
    assert written == page_lines(rows_in(tmp_path, "dsmf", "fem"))
    assert "| experiment | split | map" not in into.read_text()
    values = json.loads((tmp_path / "fem/aggregate/5shot-test.json").read_text())["values"]
    assert values["parameters"]["mean"] == COSTS["model/parameters"]


def test_both_kinds_in_one_call_and_in_one_folder(tmp_path, capsys):
    write_all(tmp_path)
    score_run(tmp_path)
    (tmp_path / "sfc/seed0").rename(tmp_path / "dsmf/seed0")
    score_run(tmp_path)
    into = page(tmp_path / "README.md")
    words = ["report", *[str(tmp_path / n) for n in ("sfc", "dsmf")], "--into", str(into), "--marker", "few"]
    assert main(words) == 0
    assert "mIoU in % on val" in (out := capsys.readouterr().out) and "mIoU in % by fold" in out
    body = into.read_text().split(marks("few")[0])[1].split(marks("few")[1])[0].strip()
    scores = score_lines({name: aggregate({0: {"val/miou_mw": 0.5}}) for name in ("sfc", "dsmf")})
    assert body == "\n".join([*scores, "", *page_lines(rows_in(tmp_path, "dsmf"))])
    assert {p.name for p in (tmp_path / "dsmf/aggregate").glob("*.json")} == {"1shot-test.json", "score.json"}


def test_a_damaged_test_ends_the_report_before_anything_is_written(tmp_path, capsys):
    write_all(tmp_path)
    folder, *_ = write_test(tmp_path, "fem")
    (folder / "counts.npz").write_bytes(b"")
    into = page(tmp_path / "README.md")
    before = into.read_text()
    words = ["report", *[str(tmp_path / n) for n in ("dsmf", "fem")], "--into", str(into), "--marker", "few"]
    assert main(words) == 2
    error = capsys.readouterr().err.strip()
    assert str(folder / "counts.npz") in error.replace("\n", "") and "Traceback" not in error
    assert not list(tmp_path.glob("*/aggregate")) and into.read_text() == before
    (folder / "done.json").unlink()
    assert main(words) == 2 and "no finished few-shot test" in capsys.readouterr().err
