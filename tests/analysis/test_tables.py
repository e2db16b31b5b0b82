"""Tables as text: every cell against the numbers it shows."""

import io
import statistics

import pytest
from rich.console import Console

from frugalseg.analysis.groups import GROUPS
from frugalseg.analysis.seeds import aggregate
from frugalseg.analysis.tables import (
    LABELS,
    LOGITS,
    class_table,
    logit_table,
    print_scores,
    rules_of,
    splits_of,
    summary_table,
)
from frugalseg.errors import RunFolderError
from frugalseg.run import write_json

SEEDS = {
    0: {
        "val/miou_m0": 0.401,
        "val/miou_m0_head": 0.5,
        "val/iou_m0/background": 0.812,
        "val/iou_m0/cat": 0.3,
        "val/miou_mw": 0.45,
    },
    1: {
        "val/miou_m0": 0.433,
        "val/miou_m0_head": 0.6,
        "val/iou_m0/background": 0.836,
        "val/iou_m0/cat": 0.1,
        "val/miou_mw": 0.47,
    },
}
LOGIT_KEYS = {f"val/logit_{key}": number for number, key in enumerate(LOGITS, start=-1)}


def rows_of(table):
    """Cells of a rendered table, line by line."""
    text = io.StringIO()
    Console(file=text, width=250).print(table)
    lines = [line for line in text.getvalue().splitlines() if "│" in line or "┃" in line]
    return [[cell.strip() for cell in line.replace("┃", "│").strip("│").split("│")] for line in lines]


def shown(key, factor=100):
    numbers = [metrics[key] * factor for metrics in SEEDS.values()]
    return f"{statistics.mean(numbers):.1f} ±{statistics.stdev(numbers):.1f}"


def test_splits_and_rules():
    rows = aggregate({0: {"val/miou_mw": 1.0, "val/miou_m0": 1.0, "train/miou_tags": 1.0, "test/logit_x": 1.0}})
    assert splits_of(rows) == ["train", "val"]
    assert rules_of(rows, "val") == ["m0", "mw"]
    assert rules_of(rows, "train") == ["tags"]
    assert rules_of(rows, "test") == []


def test_summary_table():
    single = aggregate({0: SEEDS[0]})
    header, *lines = rows_of(summary_table({"sfc": aggregate(SEEDS), "baseline": single}, "val"))
    assert header == ["experiment", "map", "all", *GROUPS, "background"]
    assert lines[0] == [
        "sfc",
        LABELS["m0"],
        shown("val/miou_m0"),
        shown("val/miou_m0_head"),
        "-",
        "-",
        shown("val/iou_m0/background"),
    ]
    assert lines[1] == ["", LABELS["mw"], shown("val/miou_mw"), "-", "-", "-", "-"]
    # one seed has no spread
    assert lines[2][:3] == ["baseline", LABELS["m0"], f"{100 * SEEDS[0]['val/miou_m0']:.1f}"]
    assert len(lines) == 4


def test_class_table():
    header, *lines = rows_of(class_table("sfc", aggregate(SEEDS), "val"))
    assert header == ["class", LABELS["m0"], LABELS["mw"]]
    assert {line[0]: line[1:] for line in lines} == {
        "background": [shown("val/iou_m0/background"), "-"],
        "cat": [shown("val/iou_m0/cat"), "-"],
        "mean": [shown("val/miou_m0"), shown("val/miou_mw")],
    }
    assert lines[-1][0] == "mean"


def test_logit_table():
    results = {"sfc": aggregate({0: {**SEEDS[0], **LOGIT_KEYS}}), "baseline": aggregate(SEEDS)}
    header, *lines = rows_of(logit_table(results, "val"))
    assert header[1:] == [
        "on tail: head",
        "on tail: tail",
        "on head: head",
        "on head: tail",
    ]
    assert lines == [["sfc", *(f"{LOGIT_KEYS[f'val/logit_{key}']:.1f}" for key in LOGITS)]]


def test_no_logits_no_table():
    assert logit_table({"sfc": aggregate(SEEDS)}, "val") is None
    assert logit_table({"sfc": aggregate({0: LOGIT_KEYS})}, "train") is None


def test_an_empty_aggregate_renders():
    assert rows_of(summary_table({"sfc": {}}, "val"))[1:] == []
    assert rows_of(class_table("sfc", {}, "val"))[1:] == [["mean"]]


@pytest.mark.parametrize("split", ["val", "train"])
def test_print_scores(tmp_path, capsys, monkeypatch, split):
    monkeypatch.setenv("COLUMNS", "200")
    folder = tmp_path / "sfc-voc" / "seed0" / "score"
    write_json(folder / "metrics.json", {key.replace("val/", f"{split}/"): value for key, value in SEEDS[0].items()})
    print_scores(folder)
    printed = capsys.readouterr().out
    assert "sfc-voc" in printed
    assert f"on {split}" in printed
    for value in SEEDS[0].values():
        assert f"{100 * value:.1f}" in printed


def test_print_scores_of_metrics_that_are_no_numbers(tmp_path):
    folder = tmp_path / "sfc-voc" / "seed0" / "score"
    write_json(folder / "metrics.json", {"val/miou_mw": "high"})
    with pytest.raises(RunFolderError, match=r"metrics\.json"):
        print_scores(folder)
