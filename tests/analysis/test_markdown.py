"""Tables of pages: what stands in them, where they are put, and that SFC's page keeps its form."""

import pytest

from frugalseg.analysis.markdown import MARKER, marks, score_lines, write_into
from frugalseg.analysis.seeds import aggregate
from frugalseg.analysis.tables import summary_table
from frugalseg.cli import main
from frugalseg.errors import ConfigError
from frugalseg.run import write_json
from tests.analysis.test_tables import ABLATION, ablation, rows_of

SFC = {
    "train/miou_m0": 0.5, "train/miou_m0_head": 0.625, "train/miou_m0_best": 0.75, "train/threshold_m0": 0.3,
    "train/iou_m0/background": 0.9, "train/false_positive_m0": 0.1, "train/miou_tags": 0.125,
}  # fmt: skip
SFC_LINES = [
    "| experiment | split | map | mIoU % | head | middle | tail | seeds |",
    "|---|---|---|---|---|---|---|---|",
    "| sfc | train | M0 classifier | 50.0 | 62.5 | - | - | 1 |",
    "| sfc | train | tags painted | 12.5 | - | - | - | 1 |",
]


def page(path, *names):
    path.write_text("above\n" + "".join("{}\nold\n{}\nbetween\n".format(*marks(name)) for name in names))
    return path


def cells_of(line):
    return [cell.strip() for cell in line.strip("|").split("|")]


def test_a_page_of_sfc_keeps_its_form():
    """Neither best thresholds nor false positives come in, whether or not they were measured."""
    assert score_lines({"sfc": aggregate({0: SFC})}) == SFC_LINES
    bare = {key: value for key, value in SFC.items() if "best" not in key and "positive" not in key}
    assert score_lines({"sfc": aggregate({0: bare})}) == SFC_LINES


def test_an_ablation_says_the_same_as_in_the_terminal():
    results = ablation()
    header, _, *lines = map(cells_of, score_lines(results))
    assert header == [
        "experiment", "split", "map", "mIoU %", "head", "middle", "tail",
        "background IoU %", "false positives %", "threshold", "seeds",
    ]  # fmt: skip
    _, *printed = rows_of(summary_table(results, "train"))
    assert len(lines) == len(printed) == len(ABLATION)
    for line, shown in zip(lines, printed, strict=True):
        assert [line[0], line[2], line[3], *line[7:10]] == shown
        assert line[10] == str(len(ABLATION[line[0]]))


def test_other_rows_beside_swept_ones_have_no_threshold():
    lines = score_lines({**ablation(), "sfc": aggregate({0: SFC})})
    assert cells_of(lines[4]) == ["sfc", "train", "M0 classifier", "50.0", "62.5", "-", "-", "90.0", "10.0", "", "1"]
    assert len({line.count("|") for line in lines}) == 1 and len(lines) == 6


@pytest.mark.parametrize("name", [MARKER, "ablation", "per-map_2"])
def test_only_the_named_place_is_written(tmp_path, name):
    path = page(tmp_path / "README.md", MARKER, "ablation", "per-map_2")
    before = path.read_text()
    write_into(path, {n: {"score-train": rows} for n, rows in ablation().items()}, name)
    begin, end = marks(name)
    after = path.read_text()
    assert after.count("\nold\n") == 2
    written = after.split(begin)[1].split(end)[0]
    assert written.strip().splitlines() == score_lines(ablation())
    assert after.replace(written, "\nold\n") == before


def test_the_usual_marks_stay_what_they_are():
    """Pages hold them, and studies look for them."""
    assert marks() == ("<!-- results: begin (frugalseg report --into) -->", "<!-- results: end -->")


@pytest.mark.parametrize("text", [None, "", "{0}", "{1}", "{1} {0}"])
def test_a_page_without_its_marks_is_left_alone(tmp_path, text):
    path = tmp_path / "README.md"
    if text is not None:
        path.write_text(text.format(*marks("ablation")))
    with pytest.raises(ConfigError, match=r"README.md: has no lines `<!-- ablation: begin .*put them where"):
        write_into(path, {"sfc": {"score": aggregate({0: SFC})}}, "ablation")
    assert (path.read_text() if path.is_file() else None) == (text if text is None else text.format(*marks("ablation")))


@pytest.mark.parametrize("name", ["", "a b", "-->", "a:b"])
def test_odd_names_of_marks_are_refused(name):
    with pytest.raises(ConfigError, match="--marker: "):
        marks(name)


def test_report_by_the_command_line(tmp_path, capsys):
    for seed, (miou, background, spilt, threshold) in enumerate(ABLATION["cti-ablation-baseline"]):
        folder = tmp_path / f"runs/cti-ablation-baseline/seed{seed}/score-train"
        metrics = {"miou_cam_best": miou, "iou_cam_best/background": background, "false_positive_cam_best": spilt}
        write_json(
            folder / "metrics.json", {f"train/{k}": v for k, v in (metrics | {"threshold_cam": threshold}).items()}
        )
        write_json(folder / "done.json", {})
    path = page(tmp_path / "README.md", MARKER, "ablation")
    words = ["report", str(tmp_path / "runs/cti-ablation-baseline"), "--into", str(path)]
    assert main([*words, "--marker", "ablation"]) == 0
    assert "false positives" in capsys.readouterr().out
    first, second = path.read_text().split("between", 1)
    assert "\nold\n" in first
    assert score_lines({"cti-ablation-baseline": ablation()["cti-ablation-baseline"]})[2] in second
    assert main([*words, "--marker", "none"]) == 2 and "none: begin" in capsys.readouterr().err
    assert main(words) == 0 and "\nold\n" not in path.read_text()
