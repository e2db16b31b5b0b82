"""Run folders: names, owners, and what counts as finished."""

import copy
import hashlib
import importlib
import inspect
import json
from pathlib import Path

import numpy as np
import pytest

from frugalseg import run
from frugalseg.errors import RunFolderError
from frugalseg.run import (
    ADDED_LATER,
    Run,
    RunFolder,
    config_identity,
    data_digests,
    digest_of,
    file_digest,
    folder_digest,
    read_json,
    write_arrays,
    write_json,
    write_text,
)


def folder(path, lr=0.1, experiment="sfc-voc", stage="classify"):
    return RunFolder(path, experiment, stage, {"model": {"lr": lr}, "inputs": {"weights": "abc"}})


def files_in(path):
    return {p.relative_to(path).as_posix() for p in path.rglob("*") if p.is_file() and p.name != ".lock"}


# ---------------------------------------------------------------------- names


@pytest.mark.parametrize(
    ("settings", "seed", "suffix", "expected"),
    [
        ({}, 0, "", "runs/scratch/seed0/stage"),
        ({"experiment": "sfc-voc", "stage": "cam"}, 3, "", "runs/sfc-voc/seed3/cam"),
        ({"experiment": "sfc-voc", "stage": "cam", "name": "lr1"}, 0, "", "runs/sfc-voc-lr1/seed0/cam"),
        ({"experiment": "dsmf", "stage": "train", "fold": 0}, 1, "", "runs/dsmf/fold0/seed1/train"),
        (
            {"experiment": "dsmf", "stage": "t", "fold": 2, "name": "b", "root": "/x"},
            1,
            "-val",
            "/x/dsmf-b/fold2/seed1/t-val",
        ),
    ],
)
def test_folder_names(settings, seed, suffix, expected):
    assert Run(**settings).folder(seed, suffix) == Path(expected)


# ---------------------------------------------------------------------- files


def test_json_goes_there_and_back(tmp_path):
    content = {"b": 1.5, "a": [1, None], "path": Path("x")}
    write_json(tmp_path / "new" / "deep" / "a.json", content)
    assert read_json(tmp_path / "new" / "deep" / "a.json") == {"a": [1, None], "b": 1.5, "path": "x"}
    assert files_in(tmp_path) == {"new/deep/a.json"}


def test_a_file_appears_whole_or_not_at_all(tmp_path, monkeypatch):
    path = tmp_path / "a.json"
    write_json(path, {"old": 1})
    seen = []
    replace = Path.replace

    def watch(source, target):
        seen.append((json.loads(source.read_text()), source.parent, json.loads(target.read_text())))
        return replace(source, target)

    monkeypatch.setattr(Path, "replace", watch)
    write_json(path, {"new": 2})
    assert seen == [({"new": 2}, tmp_path, {"old": 1})]
    assert read_json(path) == {"new": 2}


def arrays_in(path):
    with np.load(path, allow_pickle=False) as archive:
        return {name: archive[name] for name in archive.files}


def test_arrays_go_there_and_back(tmp_path):
    path = tmp_path / "new" / "deep" / "a.npz"
    for content in ({"m0": np.arange(6).reshape(2, 3)}, {"mw": np.eye(2, dtype=np.float16), "mp": np.zeros(0)}):
        write_arrays(path, content)
        found = arrays_in(path)
        assert set(found) == set(content)
        for name, array in content.items():
            assert found[name].dtype == array.dtype
            np.testing.assert_array_equal(found[name], array)
    assert files_in(tmp_path) == {"new/deep/a.npz"}


def test_text_goes_there_and_back(tmp_path):
    write_text(tmp_path / "new" / "a.csv", "a,b\n")
    assert (tmp_path / "new" / "a.csv").read_text() == "a,b\n"
    assert files_in(tmp_path) == {"new/a.csv"}


def test_arrays_that_fail_leave_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "a.npz"
    write_arrays(path, {"old": np.ones(3)})

    def full(file, **arrays):
        file.write(b"PK")
        raise OSError("no space left on device")

    monkeypatch.setattr(np, "savez_compressed", full)
    with pytest.raises(OSError, match="no space"):
        write_arrays(path, {"new": np.ones(3)})
    with pytest.raises(OSError, match="no space"):
        write_arrays(tmp_path / "b.npz", {"new": np.ones(3)})
    assert set(arrays_in(path)) == {"old"}
    assert files_in(tmp_path) == {"a.npz"}


def test_a_write_that_fails_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "a.json"
    write_json(path, {"old": 1})

    def full(self, text, *args, **kwargs):
        with self.open("w") as file:
            file.write(text[:3])
        raise OSError("no space left on device")

    monkeypatch.setattr(Path, "write_text", full)
    with pytest.raises(OSError, match="no space"):
        write_json(path, {"new": 2})
    assert read_json(path) == {"old": 1}
    assert files_in(tmp_path) == {"a.json"}


@pytest.mark.parametrize("text", [b"", b"{", b'{"a": 1', b"[1]", b"3", b"\xff\xfe{}"])
def test_damaged_json_is_a_one_line_error(tmp_path, text):
    path = tmp_path / "a.json"
    path.write_bytes(text)
    with pytest.raises(RunFolderError) as caught:
        read_json(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_missing_json_is_an_error(tmp_path):
    with pytest.raises(RunFolderError, match="nowhere"):
        read_json(tmp_path / "nowhere.json")


def test_digests(tmp_path):
    assert digest_of({"a": 1, "b": 2}) == digest_of({"b": 2, "a": 1})
    assert digest_of({"a": 1}) != digest_of({"a": 2})
    (tmp_path / "f").write_bytes(b"abc" * 100_000)
    assert file_digest(tmp_path / "f") == hashlib.sha256(b"abc" * 100_000).hexdigest()


# ---------------------------------------------------------------------- identity

CONFIG = {
    "seed_everything": 0,
    "model": {"class_path": "SFC", "init_args": {"lr": 0.1, "strides": [4, 1, 2, 2, 1]}},
    "data": {
        "class_path": "VOC",
        "init_args": {"root": "data", "num_workers": 2, "pin_memory": True, "batch_size": 16},
    },
    "trainer": {
        "max_epochs": 6,
        "devices": 1,
        "accelerator": "cpu",
        "logger": True,
        "callbacks": [],
        "precision": "32-true",
    },
    "run": {"name": "a"},
}


def changed(path, value):
    config = copy.deepcopy(CONFIG)
    node = config
    for key in path[:-1]:
        node = node[key]
    node[path[-1]] = value
    return config


@pytest.mark.parametrize(
    "path",
    [
        ("data", "init_args", "num_workers"),
        ("data", "init_args", "pin_memory"),
        ("trainer", "accelerator"),
        ("trainer", "logger"),
        ("trainer", "callbacks"),
        ("run", "name"),
    ],
)
def test_identity_ignores_what_changes_speed_only(path):
    assert digest_of(config_identity(changed(path, 99))) == digest_of(config_identity(CONFIG))


@pytest.mark.parametrize("key", ["devices", "num_nodes"])
def test_the_number_of_devices_is_part_of_a_fit_and_of_nothing_else(key):
    """It sets the batch of a step; scores and predictions are the same on any number."""
    other = changed(("trainer", key), 99)
    assert config_identity(other, fit=True) != config_identity(CONFIG, fit=True)
    assert config_identity(other, fit=False) == config_identity(CONFIG, fit=False)


def test_data_digests_see_lists_and_worlds(tmp_path):
    lists = tmp_path / "ImageSets/Segmentation"
    lists.mkdir(parents=True)
    (lists / "train.txt").write_text("a\n")
    (lists / "val.txt").write_text("b\n")
    before = data_digests(tmp_path, ["train", "train"])
    assert set(before) == {"ImageSets/Segmentation/train.txt"}
    (lists / "val.txt").write_text("c\n")
    assert data_digests(tmp_path, ["train"]) == before
    (lists / "train.txt").write_text("a\nd\n")
    assert data_digests(tmp_path, ["train"]) != before
    (tmp_path / "world.json").write_text("{}")
    assert "world.json" in data_digests(tmp_path, ["train"])


@pytest.mark.parametrize(
    ("name", "matters"),
    [
        ("splits/train.txt", True),
        ("splits/other.txt", False),
        ("objectInfo150.txt", True),
        ("ImageSets/FewShot/trn_fold0.txt", True),
        ("lists/d1_pairs_trn_fold0.txt", True),
        ("train/train_list/split1_train.txt", True),
        ("annotations/instances_train2014.json", True),
        ("annotations/captions_train2014.json", False),
    ],
)
def test_data_digests_see_what_decides_the_samples_of_every_benchmark(tmp_path, name, matters):
    before = data_digests(tmp_path, ["train"])
    (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / name).write_text("a")
    first = data_digests(tmp_path, ["train"])
    (tmp_path / name).write_text("b")  # as long as before
    assert (first != before) is matters
    assert (data_digests(tmp_path, ["train"]) != first) is matters


def test_a_folder_stands_for_the_run_that_made_it(tmp_path):
    folder = tmp_path / "stage" / "masks"
    folder.mkdir(parents=True)
    (folder / "a.png").write_text("a")
    before = folder_digest(folder, "*.png")
    (folder / "b.png").write_text("b")
    loose = folder_digest(folder, "*.png")
    assert loose != before
    (tmp_path / "stage" / "done.json").write_text("{}")
    made = folder_digest(folder, "*.png")
    assert made != loose
    (folder / "c.png").write_text("c")
    assert folder_digest(folder, "*.png") == made


@pytest.mark.parametrize(
    "path",
    [
        ("seed_everything",),
        ("model", "class_path"),
        ("model", "init_args", "lr"),
        ("model", "init_args", "new"),
        ("data", "class_path"),
        ("data", "init_args", "batch_size"),
        ("trainer", "max_epochs"),
        ("trainer", "precision"),
        ("trainer", "limit_train_batches"),
        ("trainer", "gradient_clip_val"),
        ("trainer", "accumulate_grad_batches"),
    ],
)
def test_identity_sees_what_changes_results(path):
    assert digest_of(config_identity(changed(path, 99))) != digest_of(config_identity(CONFIG))


def test_identity_leaves_the_configuration_alone():
    config = copy.deepcopy(CONFIG)
    config_identity(config)
    assert config == CONFIG


@pytest.mark.parametrize(
    "config",
    [
        {},
        {"data": None, "trainer": None},
        {"data": {"class_path": "VOC"}},
        {"data": {"class_path": "VOC", "init_args": None}},
    ],
)
def test_identity_takes_sparse_configurations(config):
    identity = config_identity(config)
    assert identity["seed"] is None
    assert identity["data"]["init_args"] == {}


# ---------------------------------------------------------------------- owners


def test_a_new_folder_is_claimed_with_its_identity(tmp_path):
    ours = folder(tmp_path / "seed0" / "classify")
    ours.claim({"command": "fit"})
    record = read_json(ours.path / "provenance.json")
    assert record["command"] == "fit"
    assert (record["experiment"], record["stage"], record["digest"]) == ("sfc-voc", "classify", ours.digest)
    assert record["identity"] == ours.identity
    assert record["resumed"] == []
    assert not ours.is_done()


def test_an_unfinished_run_of_the_same_identity_is_continued(tmp_path):
    ours = folder(tmp_path / "classify")
    ours.claim({})
    ours.last_checkpoint.parent.mkdir()
    ours.last_checkpoint.write_text("weights")
    for times in (1, 2):
        folder(tmp_path / "classify").claim({})
        assert len(read_json(ours.path / "provenance.json")["resumed"]) == times
    assert ours.last_checkpoint.read_text() == "weights"
    assert [p.name for p in tmp_path.iterdir()] == ["classify"]


def test_an_existing_empty_folder_is_taken(tmp_path):
    folder(tmp_path).claim({})
    assert files_in(tmp_path) == {"provenance.json"}


def test_a_changed_identity_moves_the_old_run_aside(tmp_path, capsys):
    path = tmp_path / "classify"
    olds = []
    for lr in (0.1, 0.2, 0.1, 0.2):  # the third and fourth meet folders moved aside with the same digest before
        ours = folder(path, lr)
        ours.claim({})
        assert files_in(path) == {"provenance.json"}
        (path / "result").write_text(str(lr))
        olds.append(ours.digest[:8])
    kept = {p.name: (p / "result").read_text() for p in tmp_path.iterdir()}
    assert kept == {
        "classify": "0.2",
        f"classify.old-{olds[0]}": "0.1",
        f"classify.old-{olds[1]}": "0.2",
        f"classify.old-{olds[0]}-1": "0.1",
    }
    assert capsys.readouterr().err.count("the old run is now") == 3


@pytest.mark.parametrize("other", [{"experiment": "cti-voc"}, {"stage": "cam"}])
def test_another_experiments_folder_is_refused_and_untouched(tmp_path, other):
    folder(tmp_path / "x", **other).claim({})
    before = (tmp_path / "x" / "provenance.json").read_bytes()
    with pytest.raises(RunFolderError, match="belongs to") as caught:
        folder(tmp_path / "x", lr=0.5).claim({})
    assert "\n" not in str(caught.value)
    assert (tmp_path / "x" / "provenance.json").read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["x"]


def test_a_folder_with_foreign_files_is_refused_and_untouched(tmp_path):
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(RunFolderError, match=r"no provenance\.json"):
        folder(tmp_path).claim({})
    assert files_in(tmp_path) == {"thesis.tex"}


def test_a_damaged_record_is_an_error(tmp_path):
    folder(tmp_path).claim({})
    (tmp_path / "provenance.json").write_text("{")
    with pytest.raises(RunFolderError, match=r"provenance\.json"):
        folder(tmp_path).claim({})


@pytest.mark.parametrize("below", ["", "seed0/classify"])
def test_a_file_in_the_folders_place_is_an_error(tmp_path, below):
    blocking = tmp_path / "classify"
    blocking.write_text("mine")
    assert not folder(blocking / below).is_done()
    with pytest.raises(RunFolderError, match="is a file") as caught:
        folder(blocking / below).claim({})
    assert str(caught.value).startswith(f"{blocking}: ")
    assert "\n" not in str(caught.value)
    assert blocking.read_text() == "mine"


def test_what_a_killed_write_left_does_not_make_a_folder_foreign(tmp_path):
    (tmp_path / ".provenance.json.123.tmp").write_text("{")
    folder(tmp_path).claim({})
    assert read_json(tmp_path / "provenance.json")["resumed"] == []


@pytest.mark.parametrize("name", ["notes.tmp", ".git", ".tmp"])
def test_other_hidden_or_temporary_files_do(tmp_path, name):
    (tmp_path / name).write_text("mine")
    with pytest.raises(RunFolderError, match=r"no provenance\.json"):
        folder(tmp_path).claim({})
    assert files_in(tmp_path) == {name}


# ---------------------------------------------------------------------- done


def test_done_means_this_identity(tmp_path):
    ours = folder(tmp_path / "classify")
    ours.claim({})
    assert not ours.is_done()
    ours.finish({"val/miou": 0.5})
    assert ours.is_done()
    assert folder(tmp_path / "classify").is_done()
    assert not folder(tmp_path / "classify", lr=0.2).is_done()
    assert read_json(ours.path / "metrics.json") == {"val/miou": 0.5}
    assert read_json(ours.path / "done.json")["inputs"] == ours.identity["inputs"]


def test_done_is_written_last(tmp_path, monkeypatch):
    order = []

    def record(path, content):
        order.append(path.name)
        write_json(path, content)

    monkeypatch.setattr(run, "write_json", record)
    ours = folder(tmp_path / "classify")
    ours.claim({})
    ours.finish({"a": 1.0})
    assert order == ["provenance.json", "metrics.json", "done.json"]


def test_finishing_without_metrics_keeps_those_that_are_there(tmp_path):
    ours = folder(tmp_path / "classify")
    ours.claim({})
    write_json(ours.path / "metrics.json", {"a": 1.0})
    ours.finish()
    assert read_json(ours.path / "metrics.json") == {"a": 1.0}
    assert ours.is_done()


def test_a_damaged_done_is_an_error(tmp_path):
    ours = folder(tmp_path / "classify")
    ours.claim({})
    (ours.path / "done.json").write_text("{")
    with pytest.raises(RunFolderError, match=r"done\.json"):
        ours.is_done()


def test_a_run_that_failed_before_its_first_result_is_replaced_in_place(tmp_path, capsys):
    """A typing mistake that shows late must not leave a trail of old folders."""
    folder = tmp_path / "stage"
    RunFolder(folder, "e", "s", {"lr": 1}).claim({})
    (folder / "config.yaml").write_text("lr: 1\n")
    RunFolder(folder, "e", "s", {"lr": 2}).claim({})
    assert [p.name for p in tmp_path.iterdir()] == ["stage"] and capsys.readouterr().err == ""
    (folder / "metrics.csv").write_text("step\n")
    RunFolder(folder, "e", "s", {"lr": 3}).claim({})
    assert len(list(tmp_path.iterdir())) == 2


def test_an_up_to_date_stage_satisfies_make(tmp_path):
    import os

    folder = RunFolder(tmp_path / "stage", "e", "s", {"lr": 1})
    folder.claim({})
    folder.finish({})
    os.utime(tmp_path / "stage/done.json", (1, 1))
    assert RunFolder(tmp_path / "stage", "e", "s", {"lr": 2}).is_done() is False
    assert (tmp_path / "stage/done.json").stat().st_mtime == 1
    assert folder.is_done() and (tmp_path / "stage/done.json").stat().st_mtime > 1


def test_the_owner_is_part_of_the_digest(tmp_path):
    mine = RunFolder(tmp_path / "stage", "e", "s", {"lr": 1})
    mine.claim({})
    mine.finish({})
    assert mine.is_done() and not RunFolder(tmp_path / "stage", "other", "s", {"lr": 1}).is_done()


def test_settings_that_tasks_gained_leave_older_stages_up_to_date():
    """The value that stands for how it was before must be the task's default, or a plain run would differ from itself."""
    for task, added in ADDED_LATER.items():
        package, _, name = task.rpartition(".")
        parameters = inspect.signature(getattr(importlib.import_module(package), name)).parameters
        before = {"model": {"class_path": task, "init_args": {"lr": 0.1}}}
        for key, value in added.items():
            assert parameters[key].default == value, (task, key)
            same = {"model": {"class_path": task, "init_args": {"lr": 0.1, key: value}}}
            other = {"model": {"class_path": task, "init_args": {"lr": 0.1, key: "another"}}}
            assert config_identity(same) == config_identity(before)
            assert config_identity(other) != config_identity(before)
    unknown = {"model": {"class_path": "x.Y", "init_args": {"unit": "graph"}}}
    assert config_identity(unknown)["model"] == unknown["model"]
