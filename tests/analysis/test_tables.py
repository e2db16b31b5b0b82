"""Tables as text: every cell against the numbers it shows."""

import io
import statistics

from rich.console import Console

from frugalseg.analysis.groups import GROUPS
from frugalseg.analysis.seeds import aggregate
from frugalseg.analysis.tables import (
    LABELS,
    LOGITS,
    caption,
    class_table,
    compared,
    logit_table,
    names_of,
    splits_of,
    summary_table,
)

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
    assert names_of(rows, "val") == ["m0", "mw"]
    assert names_of(rows, "train") == ["tags"]
    assert names_of(rows, "test") == []


def test_names_come_in_the_order_of_the_chain():
    names = ["own_head_start", "crf", "mw_best", "tags", "", "mw", "own", "m0"]
    ends = [f"_{name}" if name else "" for name in names]
    keys = [f"val/miou{end}{group}" for end in ends for group in ("", *(f"_{group}" for group in GROUPS))]
    assert names_of(keys, "val") == ["m0", "mw", "mw_best", "tags", "", "crf", "own", "own_head_start"]
    assert splits_of(dict.fromkeys(keys)) == ["val"]


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


def test_masks_have_rows_too():
    """Those of a segmenter, whose keys carry no name, and those of a label stage."""
    metrics = {"val/miou": 0.5, "val/miou_tail": 0.25, "val/iou/background": 0.75, "val/miou_crf": 0.625}
    _, *lines = rows_of(summary_table({"sfc": aggregate({0: metrics})}, "val"))
    assert lines == [["sfc", LABELS[""], "50.0", "-", "-", "25.0", "75.0"], ["", LABELS["crf"], "62.5", *"----"]]
    header, *lines = rows_of(class_table("sfc", aggregate({0: metrics}), "val"))
    assert header[1:] == [LABELS[""], LABELS["crf"]]
    assert lines == [["background", "75.0", "-"], ["mean", "50.0", "62.5"]]


def test_an_empty_aggregate_renders():
    assert rows_of(summary_table({"sfc": {}}, "val"))[1:] == []
    assert rows_of(class_table("sfc", {}, "val"))[1:] == [["mean"]]


def test_captions():
    assert caption("mw") == LABELS["mw"]
    assert caption("mw_best") == f"{LABELS['mw']}, best threshold"
    assert caption("own") == "own"
    assert len({caption(name) for name in ("", "crf", "seed_labels", "refined", "pseudo")}) == 5


def test_what_is_compared_by_class():
    assert compared(["m0", "seed", "tags", "mw_best", "", "crf"]) == ["m0", "", "crf"]
    assert compared(["cam_best", "tags"]) == ["cam_best", "tags"]
    assert len(compared([f"x{number}" for number in range(20)])) == 8
