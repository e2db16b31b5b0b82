"""What stands on a page: the cells of the terminal's tables, bars, costs, published numbers and the right images."""

import numpy as np
import pytest
from PIL import Image

from frugalseg.analysis.chain import chain_table
from frugalseg.analysis.html.bars import class_bars, group_bars
from frugalseg.analysis.html.effort import clock, effort_grid, fact_grid, total_time
from frugalseg.analysis.html.experiments import read_experiment
from frugalseg.analysis.html.gallery import gallery
from frugalseg.analysis.html.page import learning_charts, make_page, state_matrix, sweep_charts
from frugalseg.analysis.html.pictures import Album, spread_out
from frugalseg.analysis.html.published import SYNTHETIC, compare, published
from frugalseg.analysis.html.scores import from_rich, read_scores
from frugalseg.analysis.seeds import aggregate, read_metrics
from frugalseg.analysis.stage_times import worked_seconds
from frugalseg.run import read_json, write_json
from tests.analysis import few_shot_runs, test_dense_rows
from tests.analysis.html.runs import CLASSES, GROUPS, IDS, write_experiment, write_stage, write_world


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("made") / "runs"
    write_experiment(folder)
    return folder


@pytest.fixture
def experiment(runs):
    return read_experiment(runs / "mini-sfc-made-up")


def test_the_chain_has_the_terminals_cells(experiment):
    scores = read_scores(experiment)
    assert scores.grids[0][:3] == from_rich(chain_table(experiment.name, experiment.scores))[:3]
    by_seed = {s: read_metrics(experiment.path / f"seed{s}/score-segment-val/metrics.json") for s in (0, 1)}
    row = aggregate(by_seed)["val/miou_crf"]
    assert scores.headline == f"{100 * row['mean']:.1f} ±{100 * row['std']:.1f}"
    assert scores.what == "segmentation network + CRF on val"
    assert not scores.reasons


def test_bars_are_the_scores(experiment):
    by_seed = {s: read_metrics(experiment.path / f"seed{s}/score-val/metrics.json") for s in (0, 1)}
    found = next(table for table in class_bars(experiment, []) if table.title.startswith("score-val"))
    assert [group for group, _ in found.groups] == ["", *GROUPS]
    assert {label for _, rows in found.groups for label, _ in rows} == set(CLASSES)
    ((_, bars),) = found.groups[1][1]
    expected = [
        100 * np.mean([m[f"val/iou_{rule}/disc"] for m in by_seed.values()]) for rule in ("m0", "mw", "mp", "sum")
    ]
    np.testing.assert_allclose([bar.share for bar in bars], expected)
    groups = next(table for table in group_bars(experiment) if table.title.startswith("score-val"))
    expected = np.mean([m["val/miou_m0_tail"] for m in by_seed.values()])
    assert dict(groups.groups[0][1])["tail"][0].share == pytest.approx(100 * expected)


def test_damaged_groups_cost_the_groups_alone(tmp_path):
    folder = write_experiment(tmp_path / "runs", seeds=(0,))
    (folder / "seed0/score-val/groups.json").write_text("{")
    reasons = []
    found = class_bars(read_experiment(folder), reasons)
    assert len(reasons) == 1 and "groups.json" in reasons[0]
    assert {label for _, rows in found[0].groups for label, _ in rows} == set(CLASSES)


def test_curves(experiment):
    titles = {chart.title: chart for chart in learning_charts(experiment)}
    assert set(titles) == {"classify: losses", "classify: validation in %"}
    assert [name for _, name in titles["classify: losses"].legend] == ["total", "scale"]
    assert str(titles["classify: losses"].svg).count("<polyline") == 4
    (sweep,) = sweep_charts(experiment)
    assert str(sweep.svg).count("<circle") == 4


def test_few_shot_tables(tmp_path):
    for fold in range(3):
        few_shot_runs.write_test(tmp_path, fold=fold)
    scores = read_scores(read_experiment(tmp_path / "dsmf"))
    assert "1 shot, mean of the folds" in scores.what
    assert [len(grid.rows) for grid in scores.grids[:4]] == [1, 1, 1, 1]
    (tmp_path / "dsmf/fold1/seed0/1shot-test/counts.npz").write_bytes(b"no")
    scores = read_scores(read_experiment(tmp_path / "dsmf"))
    assert scores.headline == "-" and "counts.npz" in scores.reasons[0]


def test_a_few_shot_run_of_one_fold_is_told_by_that_fold(tmp_path):
    few_shot_runs.write_test(tmp_path, fold=1)
    scores = read_scores(read_experiment(tmp_path / "dsmf"))
    assert scores.what == "1 shot, fold 1"
    assert float(scores.headline.split()[0]) > 0


def test_tests_of_other_facts_do_not_crowd_the_headline(tmp_path):
    for shots in (1, 5):
        few_shot_runs.write_test(tmp_path, shots=shots)
        # other folds of other nets, and tiles of another size, are rows of their own
        few_shot_runs.write_test(tmp_path, shots=shots, fold=2, seed=1)
        few_shot_runs.write_test(tmp_path, shots=shots, seed=2, size=128)
    scores = read_scores(read_experiment(tmp_path / "dsmf"))
    assert scores.what == "1 / 5 shot, fold 0"
    assert len([float(part.split()[0]) for part in scores.headline.split(" / ")]) == 2


def test_a_probe_of_the_whole_net_stands_before_those_of_single_maps(tmp_path):
    test_dense_rows.stage(tmp_path / "x", name="cluster-validate", scores={"val/miou": 0.125})
    test_dense_rows.stage(tmp_path / "x", name="probe-f3", scores={"val/miou": 0.25})
    assert read_scores(read_experiment(tmp_path / "x")).what == "probe-f3 on val"
    test_dense_rows.stage(tmp_path / "x", scores={"val/miou": 0.5})
    scores = read_scores(read_experiment(tmp_path / "x"))
    assert scores.headline.startswith("50.0")
    assert scores.what == "probe on val"


def test_curves_of_single_classes_do_not_push_others_out(experiment):
    for log in experiment.path.glob("seed*/classify/metrics.csv"):
        head, *rows = log.read_text().splitlines()
        extra = [f"val/iou/{number}" for number in range(12)]
        log.write_text("\n".join([",".join([*extra, head]), *[",".join([*["0.5"] * 12, row]) for row in rows]]) + "\n")
    titles = {chart.title: chart for chart in learning_charts(read_experiment(experiment.path))}
    assert set(titles) == {"classify: losses", "classify: validation in %"}
    assert not [name for _, name in titles["classify: validation in %"].legend if name.startswith("iou/")]


def test_dense_tables_leave_out_what_is_damaged_alone(tmp_path):
    for seed, miou in enumerate((0.5, 0.75, 0.25)):
        test_dense_rows.stage(tmp_path / "x", seed=seed, scores={"val/miou": miou})
    record = tmp_path / "x/seed2/probe/provenance.json"
    record.write_text('{"hyperparameters": {}, "identity": {}}')
    scores = read_scores(read_experiment(tmp_path / "x"))
    assert scores.headline.startswith("62.5")
    assert scores.what == "probe on val"
    assert len(scores.reasons) == 1 and "seed 2" in scores.reasons[0]


def test_time_and_memory(experiment):
    grid = effort_grid(experiment)
    line = dict(zip(grid.columns, grid.rows[0], strict=True))
    assert (line["time"], line["memory"], line["runs finished"]) == (
        "1 min 16 s (1 min 16 s to 1 min 16 s)",
        "300 MiB",
        "2 of 2",
    )
    assert total_time(experiment) == clock(75.5 * len(experiment.stages))


def test_time_of_older_folders(tmp_path):
    folder = write_experiment(tmp_path / "runs", seeds=(0,)) / "seed0/classify"
    write_json(folder / "done.json", {"finished": "2026-01-02T10:01:30+00:00"})
    (stage,) = [s for s in read_experiment(folder.parent.parent).stages if s.name == "classify"]
    assert worked_seconds(stage.done, stage.record) == (90.0, False)
    write_json(folder / "provenance.json", {**read_json(folder / "provenance.json"), "resumed": ["2026-01-03"]})
    (stage,) = [s for s in read_experiment(folder.parent.parent).stages if s.name == "classify"]
    assert worked_seconds(stage.done, stage.record) == (None, False)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(3.21, "3.2 s"), (59.94, "59.9 s"), (245, "4 min 05 s"), (7620, "2 h 07 min"), (3599.8, "1 h 00 min")],
)
def test_clock(seconds, text):
    assert clock(seconds) == text


def test_provenance(experiment):
    facts = dict(fact_grid(experiment).rows)
    assert facts["commit"] == "0123456789ab"
    assert facts["machine"] == "a processor, 2 cores"


def test_state_matrix(experiment):
    heads, rows = state_matrix(experiment.stages)
    assert heads == ["s0", "s1"]
    assert all(run is not None and run.name == name for name, runs in rows for run in runs)


def test_every_published_number_has_its_source():
    for entry in published().values():
        assert entry["title"] and entry["read"] and entry["differs"]
        for number in entry["numbers"]:
            assert {"what", "value", "unit", "source", "data", "weights", "schedule", "stage", "key"} <= set(number)
            # second-hand figures and recollections stay out of the report
            assert number["source"].startswith(("abstract", "table", "section"))


def test_a_synthetic_world_is_not_compared(tmp_path):
    test_dense_rows.stage(tmp_path / "mini-mevt-x")
    test_dense_rows.stage(tmp_path / "mevt-voc")
    record = tmp_path / "mini-mevt-x/seed0/probe/provenance.json"
    content = read_json(record)
    content["identity"]["inputs"] = {"world.json": "abc"}
    write_json(record, content)
    (line,) = compare(read_experiment(tmp_path / "mini-mevt-x")).grid.rows
    assert SYNTHETIC in line
    (line,) = compare(read_experiment(tmp_path / "mevt-voc")).grid.rows
    assert SYNTHETIC not in line


def test_no_paper_no_comparison(tmp_path):
    world = write_world(tmp_path / "world", 0)
    write_stage(tmp_path / "scratch/seed0/tags", world, {}, hyperparameters={"_class_path": "frugalseg.stages.tags"})
    assert compare(read_experiment(tmp_path / "scratch")) is None


def pixels(out, picture):
    return np.asarray(Image.open(out / picture.source).convert("RGB"))


def test_the_gallery_shows_the_images_of_its_own_seed(tmp_path):
    """Worlds of different seeds hold different images under one name; the later stage of the other seed ran first."""
    folder = write_experiment(tmp_path / "runs")
    for path in (folder / "seed0").glob("*/done.json"):
        write_json(path, {**read_json(path), "finished": "2026-01-03T10:00:00+00:00"})
    rows = gallery(read_experiment(folder), Album(tmp_path / "out", "x"))
    assert [row.title for row in rows] == [f"val: {name}" for name in IDS]
    captions = [picture.caption for picture in rows[0].pictures]
    assert captions == ["image", "class maps", "maps + CRF", "seed labels", "refined", "pseudo label", "prediction",
                        "prediction + CRF", "truth"]  # fmt: skip
    for name, row in zip(IDS, rows, strict=True):
        for caption, path in (
            ("image", f"worlds/seed0/JPEGImages/{name}.jpg"),
            ("truth", f"worlds/seed0/SegmentationClass/{name}.png"),
            ("refined", f"runs/{folder.name}/seed0/labels-val/refined/{name}.png"),
        ):
            picture = row.pictures[captions.index(caption)]
            np.testing.assert_array_equal(
                pixels(tmp_path / "out", picture), np.asarray(Image.open(tmp_path / path).convert("RGB"))
            )


def test_a_world_that_was_made_anew_is_not_shown(tmp_path):
    folder = write_experiment(tmp_path / "runs", seeds=(0,))
    write_json(tmp_path / "worlds/seed0/world.json", {"seed": 7})
    (first, *_) = gallery(read_experiment(folder), Album(tmp_path / "out", "x"))
    assert not {"image", "truth"} & {picture.caption for picture in first.pictures}
    assert "prediction" in {picture.caption for picture in first.pictures}


def test_what_is_no_picture_is_told_and_left_out(tmp_path):
    folder = write_experiment(tmp_path / "runs", seeds=(0,))
    (folder / "seed0/classify/pictures/image0_step000040.png").write_bytes(b"\x89PNG no")
    (folder / f"seed0/predict-val/masks/{IDS[0]}.png").write_bytes(b"")
    (folder / f"seed0/cam-val/maps/{IDS[1]}.npz").write_bytes(b"")
    page = make_page(read_experiment(folder), "x", tmp_path / "out")
    told = " ".join(reason for _, _, reason in page.troubles)
    assert all(name in told for name in ("image0_step000040.png", f"{IDS[0]}.png", f"{IDS[1]}.npz"))
    assert [picture.caption for row in page.pictures for picture in row.pictures] == ["image1_step000040"]


def test_large_pictures_are_scaled_down(tmp_path):
    Image.new("RGB", (4000, 1000), "red").save(tmp_path / "large.png")
    picture = Album(tmp_path / "out", "x").copy(tmp_path / "large.png", "", "")
    assert (picture.width, picture.height) == (1600, 400)
    assert pixels(tmp_path / "out", picture).shape == (400, 1600, 3)


def test_pictures_of_one_name_do_not_replace_each_other(tmp_path):
    album = Album(tmp_path, "x")
    names = {album.paint(np.zeros((2, 2, 3), np.uint8), stem, "", "").source for stem in ("a", "A", "a!", "a?", "a_")}
    assert len(names) == 5


def test_spreading_out(tmp_path):
    assert spread_out(list(range(10)), 4) == [0, 2, 5, 7]
    assert spread_out([1, 2], 4) == [1, 2]


def test_grey_masks_are_painted(tmp_path):
    folder = write_experiment(tmp_path / "runs", seeds=(0,))
    root = write_world(tmp_path / "other", 0)
    truth = Image.open(root / f"SegmentationClass/{IDS[0]}.png")
    path = tmp_path / f"worlds/seed0/SegmentationClass/{IDS[0]}.png"
    Image.fromarray(np.asarray(truth)).save(path)
    assert Image.open(path).mode == "L"
    rows = gallery(read_experiment(folder), Album(tmp_path / "out", "x"))
    np.testing.assert_array_equal(pixels(tmp_path / "out", rows[0].pictures[-1]), np.asarray(truth.convert("RGB")))
