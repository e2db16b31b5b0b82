"""Run folders after a fault: outputs that are gone, other settings, a clock that was set back, two processes."""

import os
import time
from pathlib import Path

import pytest

from frugalseg.errors import RunFolderError
from frugalseg.keeping import leave
from frugalseg.run import RunFolder, read_json, write_json


def folder(path, lr=0.1):
    return RunFolder(path, "sfc-voc", "classify", {"model": {"lr": lr}, "inputs": {"maps": "ab" * 32}})


@pytest.fixture
def finished(tmp_path):
    path = tmp_path / "classify"
    ours = folder(path)
    ours.claim({})
    for name in ("maps/a.npz", "maps/b.npz", "checkpoints/last.ckpt", "checkpoints/best.ckpt"):
        (path / name).parent.mkdir(exist_ok=True)
        (path / name).write_text(name)
    ours.finish({"val/miou": 0.5})
    return path


def test_a_finished_stage_lets_go_and_counts_what_it_made(finished):
    assert read_json(finished / "done.json")["files"] == {".": 2, "maps": 2, "checkpoints": 2}
    assert not (finished / ".lock").exists() and folder(finished).is_done()


def test_missing_maps_are_made_again_beside_those_that_are_there(finished, capsys):
    (finished / "maps/a.npz").unlink()
    assert not folder(finished).is_done()
    folder(finished).claim({})
    said = capsys.readouterr().err
    assert (
        said
        == f"{finished}: 1 of 2 files of maps are gone, though the stage had finished; what is missing is made again\n"
    )
    assert not (finished / "done.json").exists() and (finished / "maps/b.npz").is_file()
    assert len(read_json(finished / "provenance.json")["resumed"]) == 1


def test_a_fit_that_lacks_a_checkpoint_is_moved_aside(finished, capsys):
    (finished / "checkpoints/best.ckpt").unlink()
    folder(finished).claim({})
    said = capsys.readouterr().err
    assert "1 of 2 files of checkpoints are gone, though the stage had finished; the old run is now" in said
    (old,) = [path for path in finished.parent.iterdir() if ".old-" in path.name]
    assert (old / "checkpoints/last.ckpt").is_file() and not (finished / "checkpoints").exists()
    assert read_json(finished / "provenance.json")["resumed"] == []


def test_a_record_of_an_older_version_still_counts_as_done(finished):
    done = read_json(finished / "done.json")
    del done["files"]
    write_json(finished / "done.json", done)
    (finished / "maps/a.npz").unlink()
    assert folder(finished).is_done()


def test_other_settings_are_told_with_old_and_new_value(finished, capsys):
    assert not folder(finished, 0.2).is_done()
    folder(finished, 0.2).claim({})
    said = capsys.readouterr().err
    assert f"{finished}: configuration or inputs changed (model.lr 0.1 -> 0.2); the old run is now " in said
    assert said.count("\n") == 1


def test_a_clock_set_back_makes_nothing_older(finished, monkeypatch):
    future = time.time() + 5000
    os.utime(finished / "done.json", (future, future))
    assert folder(finished).is_done() and (finished / "done.json").stat().st_mtime == pytest.approx(future, abs=0.01)


def test_a_disk_that_cannot_be_written_to_holds_finished_stages_all_the_same(finished, monkeypatch):
    def refuse(*_):
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(os, "utime", refuse)
    assert folder(finished).is_done()


def test_seconds_of_work_are_not_negative_under_a_clock_set_back(tmp_path, monkeypatch):
    path, now = tmp_path / "classify", time.time()
    folder(path).claim({})
    leave(path)  # as a process that was killed
    monkeypatch.setattr(time, "time", lambda: now - 86400)
    ours = folder(path)
    ours.claim({})
    ours.finish({})
    assert 0 <= read_json(path / "done.json")["seconds"] < 60


def test_whoever_finds_the_stage_just_finished_by_another_process_says_so(tmp_path):
    late, path = folder(tmp_path / "classify"), tmp_path / "classify"
    assert not late.is_done()
    first = folder(path)
    first.claim({})
    first.finish({})
    with pytest.raises(RunFolderError, match="has just finished there; run the same command again"):
        late.claim({})
    assert (path / "done.json").is_file() and not (path / ".lock").exists()
    assert folder(path).is_done()


def test_a_second_process_on_the_folder_is_refused_and_changes_nothing(tmp_path):
    path = tmp_path / "classify"
    folder(path).claim({"command": "first"})
    before = {p: p.read_bytes() for p in Path(path).iterdir()}
    reader, writer = os.pipe()
    if (child := os.fork()) == 0:
        try:
            folder(path, 0.5).claim({"command": "second"})
        except RunFolderError as error:
            os.write(writer, str(error).encode())
        finally:
            os._exit(0)
    os.waitpid(child, 0)
    os.write(writer, b"\n")
    assert "another process works there" in os.read(reader, 500).decode()
    assert {p: p.read_bytes() for p in Path(path).iterdir()} == before
    leave(path)
