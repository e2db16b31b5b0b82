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
    threshold_cell,
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
    assert compared(["m0", "mw_best", "tags", "cam_best", "r_best"]) == ["m0", "cam_best", "r_best"]
    assert compared(["tags", "crf", "cam_best"]) == ["crf", "cam_best"]
    assert compared(["tags", "mw_best"]) == ["tags", "mw_best"]


def test_maps_of_cti_have_captions_and_come_before_the_controls():
    shown = {"cam": "seed map", "r": "R head map", "mt": "mt class attention", "f": "F = R mt", "q": "Q = pa F"}
    shown["infused"] = "R after infusion"
    assert {name: caption(name) for name in shown} == shown
    assert caption("q_best") == "Q = pa F, best threshold"
    keys = [f"val/miou_{name}{end}" for name in sorted(shown) for end in ("_best", "_best_head")]
    expected = [f"{name}_best" for name in shown]
    assert names_of([*keys, "val/miou_tags", "val/miou_walk"], "val") == ["walk", *expected, "tags"]


ABLATION = {
    "cti-ablation-baseline": [(0.663, 0.871, 0.0921, 0.42), (0.671, 0.877, 0.0862, 0.44), (0.652, 0.869, 0.1013, 0.44)],
    "cti-ablation-bg": [(0.692, 0.892, 0.0613, 0.395)],
}
"""Experiment -> (mIoU, background, false positives, best threshold) of each seed."""


def ablation(keys=("miou_cam_best", "iou_cam_best/background", "false_positive_cam_best", "threshold_cam")):
    """What `evaluate --sweep cam` ends in, controls apart."""
    return {
        name: aggregate(
            {
                seed: {f"train/{key}": value for key, value in zip(keys, row, strict=True)}
                for seed, row in enumerate(seeds)
            }
        )
        for name, seeds in ABLATION.items()
    }


def test_an_ablation_reads_as_one_row_per_experiment():
    header, *lines = rows_of(summary_table(ablation(), "train"))
    assert header == ["experiment", "map", "all", "background", "false positives", "threshold"]
    (first, second) = lines
    columns = list(zip(*ABLATION["cti-ablation-baseline"], strict=True))
    assert first == [
        "cti-ablation-baseline",
        "seed map, best threshold",
        *(f"{100 * statistics.mean(c):.1f} ±{100 * statistics.stdev(c):.1f}" for c in columns[:3]),
        f"{statistics.mean(columns[3]):.3f} ±{statistics.stdev(columns[3]):.3f}",
    ]
    assert second[-1] == "0.395" and second[2:5] == [f"{100 * v:.1f}" for v in ABLATION["cti-ablation-bg"][0][:3]]


def test_only_a_best_row_has_a_threshold():
    metrics = {"val/miou_mw": 0.5, "val/miou_mw_best": 0.5625, "val/threshold_mw": 0.25, "val/false_positive_mw": 0.125}
    rows = aggregate({0: metrics})
    header, *lines = rows_of(summary_table({"sfc": rows}, "val"))
    assert header[-2:] == ["false positives", "threshold"]
    assert [line[-2:] for line in lines] == [["12.5", ""], ["-", "0.25"]]
    assert threshold_cell(rows, "val", "mw") == "" and threshold_cell(rows, "train", "mw_best") == ""


def test_columns_are_those_of_the_split_that_is_shown():
    metrics = {"val/miou_mw": 0.5, "train/miou_mw": 0.5, "train/miou_mw_head": 0.5, "train/false_positive_mw": 0.5}
    results = {"sfc": aggregate({0: metrics})}
    assert rows_of(summary_table(results, "val"))[0] == ["experiment", "map", "all", "background"]
    assert rows_of(summary_table(results, "train"))[0][-2:] == ["background", "false positives"]
