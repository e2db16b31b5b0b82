"""What notebooks call, on folders made by hand: tables, places, tokens, differences."""

import io
import statistics

import numpy as np
import pytest
import torch
from PIL import Image
from rich.table import Table as RichTable
from scipy.stats import ttest_rel

from frugalseg.analysis.notebook import Runs, compare, cti, dsmf, open_runs, sfc, tour
from frugalseg.analysis.notebook.charts import bar_chart
from frugalseg.analysis.notebook.display import Note, Plate, Sheet, plate_of, sheet_of, shown
from frugalseg.analysis.notebook.folders import target_of
from frugalseg.analysis.notebook.state import read_tensors
from frugalseg.errors import CheckpointError, RunFolderError
from frugalseg.run import write_json
from tests.conftest import REPOSITORY


def write_stage(folder, metrics=None, done=True, rows=()):
    write_json(folder / "provenance.json", {"stage": folder.name, "seed": 0})
    if metrics is not None:
        write_json(folder / "metrics.json", metrics)
    if rows:
        (folder / "metrics.csv").write_text("\n".join(["epoch,step,train/loss", *rows]) + "\n")
    if done:
        write_json(folder / "done.json", {"digest": "0"})


@pytest.fixture
def runs(tmp_path):
    """Two experiments with three seeds, one of which is unfinished in `b`."""
    rng = np.random.default_rng(0)
    for name in ("a", "b"):
        for seed in (0, 1, 2):
            scores = {"val/miou": float(rng.random()), "val/only_a": 0.5} if name == "a" else {"val/miou": rng.random()}
            write_stage(tmp_path / f"{name}/seed{seed}/score", scores, done=not (name == "b" and seed == 2))
            write_stage(tmp_path / f"{name}/seed{seed}/fit", {}, rows=["0,9,3.0", "0,19,2.0"])
    return Runs(tmp_path)


class TestDisplay:
    def test_cells_are_escaped(self):
        text = Sheet("<b>", ["x<y"], [["<script>"]], ["a & b"])._repr_html_()
        assert "<script>" not in text and "&lt;script&gt;" in text
        assert "x&lt;y" in text and "a &amp; b" in text
        assert "&lt;b&gt;" in Note("<b>")._repr_html_()

    def test_a_terminals_table_keeps_its_cells(self):
        table = RichTable(title="T", caption=r"\[one]")
        table.add_column("name")
        table.add_column("value", justify="right")
        table.add_row(r"a \[b]", "1.0")
        sheet = sheet_of(table)
        assert sheet == Sheet("T", ["name", "value"], [("a [b]", "1.0")], ["[one]"], 1)
        assert [line.split() for line in repr(sheet).splitlines()[1:3]] == [["name", "value"], ["a", "[b]", "1.0"]]

    def test_a_picture_is_kept_to_the_pixel(self):
        picture = np.random.default_rng(0).integers(0, 256, (5, 7, 3), dtype=np.uint8)
        plate = plate_of(picture, "noise")
        assert np.array_equal(np.asarray(Image.open(io.BytesIO(plate._repr_png_()))), picture)
        assert repr(plate) == "picture: noise"

    def test_errors_of_users_become_notes_and_pass_on(self):
        @shown
        def fails(what):
            raise RunFolderError(f"missing: {what}")

        note = fails("x")
        assert note == Note("missing: x")
        assert fails(note) is note
        assert fails(what=note) is note

    def test_errors_of_ours_do_not(self):
        @shown
        def fails():
            raise KeyError("x")

        with pytest.raises(KeyError):
            fails()


class TestFolders:
    def test_the_variable_wins(self, monkeypatch, tmp_path):
        monkeypatch.setenv("FRUGALSEG_RUNS", str(tmp_path / "mine"))
        assert open_runs(3) == Runs(tmp_path / "mine", 3)

    def test_else_the_nearest_folder_above(self, monkeypatch, tmp_path):
        monkeypatch.delenv("FRUGALSEG_RUNS", raising=False)
        (tmp_path / "runs").mkdir()
        (tmp_path / "x/notebooks").mkdir(parents=True)
        monkeypatch.chdir(tmp_path / "x/notebooks")
        assert open_runs().folder == tmp_path / "runs"

    def test_an_unfinished_stage_is_missing(self, runs):
        assert runs.stage("b", "nothing", "score") == runs.folder / "b/seed0/score"
        with pytest.raises(RunFolderError, match="missing: b/seed2/score; `make b` makes it"):
            Runs(runs.folder, 2).stage("b", "score")

    def test_experiments_that_have_a_stage(self, runs):
        write_stage(runs.folder / "c/fold1/seed0/1shot-test")
        assert runs.having("score", "a", "b", "c") == ["a", "b"]
        assert Runs(runs.folder, 2).having("score", "a", "b") == ["a"]
        assert runs.having("1shot-test", "a", "c") == ["c"]
        assert runs.having("none", "a", "b") == ["a", "b"]

    def test_recorded_places_are_found_where_runs_have_gone(self, tmp_path):
        world = tmp_path / "moved/worlds/w"
        world.mkdir(parents=True)
        assert Runs(tmp_path / "moved").place("runs/worlds/w") == world
        assert Runs(tmp_path / "moved").place(str(world)) == world
        with pytest.raises(RunFolderError, match="missing: runs/worlds/v"):
            Runs(tmp_path / "moved").place("runs/worlds/v")

    def test_targets_are_in_the_makefiles(self):
        text = "\n".join(path.read_text() for path in (REPOSITORY / "Makefile", *REPOSITORY.glob("experiments/*.mk")))
        for experiment in (
            "mini-sfc-longtail-sfc",
            "mini-cti-bg",
            "mini-dsmf-full",
            "mini-mevt-real",
            "mini-mevt-full",
        ):
            assert f"\n{target_of(experiment)}:" in text
        assert target_of("mini-mevt-real-random") == "mini-mevt-real"
        assert target_of("sfc-voc") == "sfc-voc"

    def test_the_table_of_experiments_counts_what_was_begun(self, runs):
        lines = {row[0]: row[1:] for row in tour.experiments(runs).rows}
        assert lines == {"a": ["fit, score", "0 1 2", "-", "6", "0"], "b": ["fit, score", "0 1 2", "-", "5", "1"]}


class TestTokens:
    def test_cosines_are_those_of_all_pairs(self):
        rng = np.random.default_rng(0)
        values, count = np.zeros((4, 5, 6), np.float32), np.array([9, 3, 1, 0])
        for c, n in enumerate(np.minimum(count, 5)):
            values[c, :n] = rng.normal(size=(n, 6))
        found = cti.mean_cosines(torch.from_numpy(values), torch.from_numpy(count))
        for a in range(4):
            for b in range(4):
                pairs = [
                    x @ y / (np.linalg.norm(x) * np.linalg.norm(y))
                    for i, x in enumerate(values[a, : min(count[a], 5)].astype(float))
                    for j, y in enumerate(values[b, : min(count[b], 5)].astype(float))
                    if (a, i) != (b, j)
                ]
                assert found[a, b] == pytest.approx(np.mean(pairs) if pairs else np.nan, nan_ok=True)

    def test_a_checkpoint_of_another_net_is_told(self, tmp_path):
        (tmp_path / "checkpoints").mkdir()
        torch.save({"state_dict": {"x": torch.ones(2)}}, tmp_path / "checkpoints/last.ckpt")
        assert read_tensors(tmp_path, "x")["x"].tolist() == [1, 1]
        with pytest.raises(CheckpointError, match=r"holds no memory\.values"):
            read_tensors(tmp_path, "memory.values")
        (tmp_path / "checkpoints/last.ckpt").write_bytes(b"cut short")
        with pytest.raises(CheckpointError, match="not readable"):
            read_tensors(tmp_path, "x")


class TestCompare:
    def test_scores_are_of_finished_seeds(self, runs):
        sheet = compare.table(runs, "score", ["val/miou", "val/only_a"])
        rows = {row[0]: row[1:] for row in sheet.rows}
        values = [100 * m["val/miou"] for m in compare.by_seed(runs.folder / "b", "score").values()]
        assert rows["b"] == [f"{np.mean(values):.1f} ±{statistics.stdev(values):.1f}", "-", "2"]
        assert rows["a"][1:] == ["50.0 ±0.0", "3"]

    def test_differences_are_paired_by_seed(self, runs):
        sheet = compare.differences(runs, "score", ["val/miou", "val/only_a"], ("a", "b"))
        one, two = (compare.by_seed(runs.folder / name, "score") for name in "ab")
        pairs = [(100 * one[s]["val/miou"], 100 * two[s]["val/miou"]) for s in ("seed0", "seed1")]
        (row,) = sheet.rows  # the key that b lacks is left out
        low, high = ttest_rel(*np.array(pairs).T[::-1]).confidence_interval()
        assert row[2:4] == [f"{np.mean([y - x for x, y in pairs]):+.1f}", f"{low:+.1f} to {high:+.1f}"]
        assert row[4] == ", ".join(f"seed{n} {y - x:+.1f}" for n, (x, y) in enumerate(pairs))

    def test_one_seed_has_no_interval(self, runs):
        for name in "ab":
            (runs.folder / name / "seed1/score/done.json").unlink()
        assert compare.differences(runs, "score", ["val/miou"], ("a", "b")).rows[0][3] == "one seed: none"
        assert isinstance(compare.difference_chart(runs, "score", ["val/miou"], ("a", "b")), Plate)

    def test_nothing_in_common_is_a_note(self, runs):
        assert "seeds in common" in repr(compare.differences(runs, "score", ["val/only_a"], ("a", "b")))

    def test_a_resumed_fit_has_one_curve(self, runs):
        path = runs.folder / "a/seed0/fit/metrics.csv"
        path.write_text(path.read_text() + "0,19,1.0\n0,29,0.5\n")
        assert compare.read_curves(path) == {"train/loss": ([9, 19, 29], [3.0, 1.0, 0.5])}
        assert isinstance(compare.learning_curves(runs, "fit", ["train/loss"], "a", "b"), Plate)
        assert "missing: curves none" in repr(compare.learning_curves(runs, "fit", ["none"], "a"))


class TestPictures:
    def test_episodes_of_all_classes_come_first(self, tmp_path):
        folder = tmp_path / "e/fold0/seed0/1shot-test"
        write_stage(folder)
        (folder / "pictures").mkdir()
        for class_id, number in ((2, 3), (1, 9), (1, 4), (2, 8)):
            colour = np.full((2, 2, 3), 10 * class_id + number, np.uint8)
            Image.fromarray(colour).save(folder / f"pictures/test_class{class_id:02d}_episode{number:05d}.png")
        plate = dsmf.episodes(Runs(tmp_path), "e", count=4)
        drawn = np.asarray(Image.open(io.BytesIO(plate.png)))[::6, 0, 0]
        assert drawn.tolist() == [14, 23, 19, 28]

    def test_no_pictures_is_a_note(self, tmp_path):
        write_stage(tmp_path / "e/fold0/seed0/1shot-test")
        assert "missing: pictures of" in repr(dsmf.episodes(Runs(tmp_path), "e"))

    def test_gaps_in_bars_are_no_error(self):
        plate = bar_chart(["x", "y"], {"a": [(1.0, 0.1), (float("nan"), 0.0)]}, "%", "title")
        assert plate.text == "title" and plate.png.startswith(b"\x89PNG")

    def test_missing_experiments_are_notes(self, tmp_path):
        runs = Runs(tmp_path / "none")
        told = repr(sfc.maps(runs, ("mini-sfc-x", "m0")))
        assert told.startswith("not shown: missing: mini-sfc-x/seed0/cam") and "`make mini-sfc` makes it" in told
        assert "`make demo`" in repr(tour.experiments(runs)) and "`make demo`" in repr(runs)
