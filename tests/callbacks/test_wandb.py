"""Names, tables and manifests for W&B, and when a run is begun at all."""

import os

import numpy as np
import pytest

from frugalseg.callbacks import wandb_runs, wandb_stages
from frugalseg.callbacks.wandb_artifacts import artifact_name, kind_of, makers, manifest, paths_in
from frugalseg.callbacks.wandb_names import read_facts
from frugalseg.callbacks.wandb_runs import RECORD, close_run, has_key, open_run, sweep_name, wandb_mode
from frugalseg.callbacks.wandb_stages import log_stage
from frugalseg.callbacks.wandb_tables import class_tables, counted_tables, scalars
from frugalseg.cli import main
from frugalseg.errors import ConfigError, RunFolderError
from frugalseg.run import RunFolder
from tests.callbacks.wandb_records import Recorded
from tests.callbacks.wandb_server import StandIn
from tests.test_architecture import PACKAGE, imports_of, sources


@pytest.fixture
def keyless(monkeypatch, tmp_path):
    """No key, and no word on W&B, in the environment."""
    for name in ("WANDB_API_KEY", "WANDB_MODE", "WANDB_BASE_URL", "WANDB_SWEEP_ID", "WANDB_RUN_ID", "WANDB_PROJECT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    return monkeypatch


@pytest.fixture
def stage(tmp_path):
    """Makes a finished stage with folders of results."""

    def make(place, *folders, metrics=None, identity=None):
        path = tmp_path / "runs" / place
        folder = RunFolder(path, place.split("/")[0], path.name, identity or {})
        folder.claim({"command": ["frugalseg"]})
        for name in folders:
            (path / name).mkdir()
            (path / name / "a.ckpt").write_text(name)
        folder.finish(metrics or {})
        return path

    return make


# ---------------------------------------------------------------------- modes and keys


def test_runs_are_offline_unless_a_key_is_present(keyless, tmp_path):
    assert wandb_mode() == "offline"
    (tmp_path / "netrc").write_text("machine api.wandb.ai login user password secret\n")
    assert wandb_mode() == "online"
    keyless.setenv("WANDB_BASE_URL", "https://own.example:8080")
    assert not has_key()  # a key for another server
    (tmp_path / "netrc").write_text("machine own.example login user password secret\n")
    assert wandb_mode() == "online"
    (tmp_path / "netrc").unlink()
    keyless.setenv("WANDB_API_KEY", "a" * 40)
    assert wandb_mode() == "online"


@pytest.mark.parametrize(("asked", "mode"), [("disabled", "disabled"), ("offline", "offline"), ("dryrun", "offline")])
def test_wandb_mode_is_respected_whatever_key_there_is(keyless, asked, mode):
    keyless.setenv("WANDB_API_KEY", "a" * 40)
    keyless.setenv("WANDB_MODE", asked)
    assert wandb_mode() == mode


@pytest.mark.parametrize("asked", ["online", "sometimes"])
def test_a_mode_that_cannot_be_is_refused_in_one_line(keyless, asked):
    keyless.setenv("WANDB_MODE", asked)
    with pytest.raises(ConfigError, match="WANDB_MODE"):
        wandb_mode()


def test_runs_of_a_sweep_have_folders_of_their_own(keyless):
    keyless.setenv("WANDB_RUN_ID", "ab12")  # left over, without a sweep
    assert (sweep_name(""), sweep_name("long")) == ("", "long")
    keyless.setenv("WANDB_SWEEP_ID", "s")
    assert (sweep_name(""), sweep_name("long")) == ("ab12", "long-ab12")


def test_a_server_that_refuses_leaves_the_run_offline(keyless, stage, caplog):
    server = StandIn(refuse=True)
    keyless.setattr(wandb_runs, "_PATIENCE", 3)  # W&B asks again and again, unless it has yet to look at the key
    keyless.setenv("WANDB_BASE_URL", server.url)
    keyless.setenv("WANDB_API_KEY", "a" * 40)
    folder = stage("x/seed0/score")
    run = open_run(folder)
    identity = run.id
    close_run()
    server.close()
    assert "this run is kept offline" in caplog.text
    (offline,) = (folder / "wandb").glob("offline-run-*")
    assert Recorded(offline).run.run_id == identity == (folder / RECORD).read_text().strip()


def test_sync_lists_finished_stages_oldest_first_and_says_where_nothing_is(keyless, tmp_path, capsys):
    def wait(stage, day, *names):
        folder = tmp_path / stage / "wandb" / f"offline-run-202611{day}_120000-ab"
        folder.mkdir(parents=True)
        for name in names:
            (folder / name).touch()
        return folder / names[0]

    late, early, open_one = wait("a", 22, "run-ab.wandb"), wait("b", 21, "run-ab.wandb"), wait("c", 20, "run-ab.wandb")
    wait("d", 19, "run-ab.wandb", "run-ab.wandb.synced")
    for name in ("a", "b", "d"):
        (tmp_path / name / "done.json").touch()
    assert main(["sync", str(tmp_path), "--dry-run"]) == 0
    assert capsys.readouterr().out.splitlines() == [str(early), str(late)]
    assert main(["sync", str(tmp_path), "--dry-run", "--unfinished"]) == 0
    assert capsys.readouterr().out.splitlines() == [str(open_one), str(early), str(late)]
    assert main(["sync", str(tmp_path / "absent")]) == 2
    assert "no such folder" in capsys.readouterr().err
    keyless.setenv("WANDB_API_KEY", "a" * 40)
    keyless.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")
    assert main(["sync", str(tmp_path)]) == 2
    assert "http://127.0.0.1:9: cannot be reached" in capsys.readouterr().err


def test_sync_names_the_run_that_w_and_b_refused(keyless, stage, capsys):
    folder = stage("x/seed0/score")
    (folder / RECORD).touch()
    keyless.setenv("WANDB_MODE", "offline")
    log_stage(folder, [])
    keyless.delenv("WANDB_MODE")
    server = StandIn(refuse=True)
    keyless.setenv("WANDB_BASE_URL", server.url)
    keyless.setenv("WANDB_API_KEY", "a" * 40)
    assert main(["sync", str(folder)]) == 2
    server.close()
    told = capsys.readouterr().err
    assert ".wandb: not sent (ERROR" in told
    assert "401" in told


# ---------------------------------------------------------------------- names


@pytest.mark.parametrize(
    ("place", "identity", "facts"),
    [
        (
            "sfc-voc-long/seed3/irn",
            {"data": {"class_path": "frugalseg.data.VOC"}},
            ("sfc-voc-long", "irn", "sfc-voc-long/seed3/irn", 3, None, ("sfc", "VOC", "seed3")),
        ),
        (
            "mini-dsmf/fold2/seed0/5shot-test",
            {"data": {"class": "ISAID5i"}},
            (
                "mini-dsmf",
                "5shot-test",
                "mini-dsmf/fold2/seed0/5shot-test",
                0,
                2,
                ("dsmf", "ISAID5i", "seed0", "fold2"),
            ),
        ),
        (
            "mine/seed1/classify",
            {"model": {"class_path": "frugalseg.papers.cti.CTI"}, "data": {"module": "COCO"}},
            ("mine", "classify", "mine/seed1/classify", 1, None, ("cti", "COCO", "seed1")),
        ),
        ("scratch", {}, ("scratch", "scratch", "scratch/scratch", None, None, ())),
    ],
)
def test_names_come_from_the_folder_and_its_record(stage, place, identity, facts):
    found = read_facts(stage(place, identity=identity))
    assert (*found[:5], found.tags) == facts


# ---------------------------------------------------------------------- tables


def test_scores_of_classes_and_others_are_told_apart():
    metrics = {
        "val/miou": 0.5, "val/iou/cat": 0.1, "val/iou_crf/cat": 0.2, "val/iou/a/b": 0.3, "val/boundary_iou": 0.4,
        "train/iou/cat": 0.6, "test/seed0/iou/1": 0.7,
    }  # fmt: skip
    assert set(scalars(metrics)) == {"val/miou", "val/boundary_iou", "test/seed0/iou/1"}
    tables = class_tables(metrics)
    assert tables["classes/val"] == (["class", "iou", "crf"], [["cat", 0.1, 0.2], ["a/b", 0.3, None]])
    assert tables["classes/train"] == (["class", "iou"], [["cat", 0.6]])


def test_counts_become_scores_and_a_class_that_does_not_occur_has_none(tmp_path):
    counts = np.array([[3, 1, 0], [0, 4, 0], [0, 0, 0]])
    np.savez(tmp_path / "confusion.npz", good=counts, clusters=np.ones((3, 5)))
    (key, table), *rest = counted_tables(tmp_path / "confusion.npz", ["a", "b", "c"]).items()
    assert (key, rest) == ("classes/val", [])
    assert table == (["class", "good"], [["a", 3 / 4], ["b", 4 / 5], ["c", None]])
    assert counted_tables(tmp_path / "none.npz", ["a"]) == {}


# ---------------------------------------------------------------------- lineage


@pytest.mark.parametrize(
    ("folders", "kind"),
    [
        (["checkpoints", "pictures"], "checkpoint"),
        (["maps"], "maps"),
        (["edges"], "edges"),
        (["affinities"], "edges"),
        (["masks", "masks-crf"], "predictions"),
        (["crf", "seed_labels"], "labels"),
        (["figures", "pictures", "wandb"], "scores"),
    ],
)
def test_the_kind_of_an_artifact_is_that_of_its_results(stage, folders, kind):
    assert kind_of(stage("x/seed0/s", *folders)) == kind


def test_a_manifest_does_not_change_with_place_or_time_but_with_results(stage, tmp_path):
    folder = stage("sfc-voc/seed0/classify", "checkpoints")
    text = manifest(folder)
    os.utime(folder / "done.json")
    moved = tmp_path / "elsewhere/sfc-voc/seed0/classify"
    moved.parent.mkdir(parents=True)
    folder.rename(moved)
    assert manifest(moved) == text
    assert artifact_name(moved) == "sfc-voc-seed0-classify"
    (moved / "checkpoints/a.ckpt").write_text("other weights")
    assert manifest(moved) != text
    (moved / "done.json").unlink()
    with pytest.raises(RunFolderError, match=r"done\.json"):
        manifest(moved)


def test_makers_are_the_stages_that_wrote_the_files_which_settings_name(stage, tmp_path):
    trained, drawn = stage("x/seed0/classify", "checkpoints"), stage("x/seed0/cam", "maps")
    settings = {
        "ckpt_path": str(trained / "checkpoints/a.ckpt"),
        "data": {"root": str(tmp_path), "pseudo": [str(drawn / "maps"), str(drawn / "maps")], "tags": "runs/absent"},
        "model": {"weights": "resnet50.tv_in1k", "none": None, "lr": 0.1},
    }
    assert makers(paths_in(settings)) == [trained, drawn]


# ---------------------------------------------------------------------- verbs


def test_a_verb_is_logged_where_what_it_reads_was_logged(stage, monkeypatch):
    maker, folder = stage("x/seed0/cam", "maps"), stage("x/seed0/score", metrics={"val/miou": 0.5})
    monkeypatch.setenv("WANDB_MODE", "offline")
    log_stage(folder, [maker / "maps"])
    assert not (folder / RECORD).exists()
    (maker / RECORD).write_text("ab12cd34\n")
    monkeypatch.setenv("WANDB_MODE", "disabled")
    log_stage(folder, [maker / "maps"])
    assert not (folder / RECORD).exists()
    monkeypatch.setenv("WANDB_MODE", "offline")
    log_stage(folder, [maker / "maps"])
    (offline,) = (folder / "wandb").glob("offline-run-*")
    run = Recorded(offline)
    assert [row["val/miou"] for row in run.history] == [0.5]
    assert set(run.manifests(used=True)) == {"x-seed0-cam"}
    assert "WANDB_DATA_DIR" not in os.environ


def of_wandb(text):
    import wandb

    return wandb.errors.CommError(text)


@pytest.mark.parametrize("kind", [of_wandb, RunFolderError, OSError])
def test_a_tracker_that_fails_takes_no_result_with_it(stage, monkeypatch, caplog, kind):
    import wandb

    def fail(*_):
        raise kind("the server\nis gone")

    folder = stage("x/seed0/score", metrics={"val/miou": 0.5})
    (folder / RECORD).write_text("ab12cd34\n")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setattr(wandb_stages, "log_lineage", fail)
    log_stage(folder, [])
    assert f"W&B: the server is gone; the results are in {folder}" in caplog.text
    assert wandb.run is None


@pytest.mark.parametrize("mode", ["online", "sometimes"])
def test_a_mode_that_cannot_be_does_not_fail_a_verb_that_has_finished(keyless, stage, monkeypatch, caplog, mode):
    folder = stage("x/seed0/score", metrics={"val/miou": 0.5})
    (folder / RECORD).write_text("ab12cd34\n")
    monkeypatch.setenv("WANDB_MODE", mode)
    log_stage(folder, [])
    assert "W&B: WANDB_MODE" in caplog.text and str(folder) in caplog.text


def test_nothing_imports_wandb_until_a_run_is_begun():
    """Scoring on a machine without W&B's service is to stay quick; one file is imported for dashboards alone."""
    early = [
        (file.name, item.target)
        for file in sources(PACKAGE)
        for item in imports_of(PACKAGE, file)
        if item.target.startswith("wandb") and not item.lazy
    ]
    assert {name for name, _ in early} == {"dashboard_build.py"}
