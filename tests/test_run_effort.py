"""Seconds of work and peak memory in `done.json`, over all resumptions."""

import json
import os
import time
from types import SimpleNamespace

import pytest
import torch

from frugalseg.callbacks.provenance import Provenance
from frugalseg.run import RunFolder, peak_memory, read_json


def folder(tmp_path):
    return RunFolder(tmp_path / "stage", "x", "stage", {"seed": 0})


def test_a_run_in_one_go(tmp_path):
    began = time.monotonic()
    ours = folder(tmp_path)
    ours.claim({})
    time.sleep(0.05)
    ours.finish({})
    done = read_json(ours.path / "done.json")
    assert 0.05 <= done["seconds"] <= time.monotonic() - began + 0.001
    assert done["peak_memory_bytes"] <= peak_memory()
    assert done["peak_memory_bytes"] > 10 * 2**20


def test_resumptions_add_up_without_the_time_between(tmp_path):
    for attempt, worked in enumerate((30.0, 12.5)):
        ours = folder(tmp_path)
        ours.claim({})
        record = read_json(ours.path / "provenance.json")
        assert len(record["resumed"]) == attempt
        # as if it had begun long ago, worked for so long, and then been killed
        record["claimed"] -= 5000.0
        (ours.path / "provenance.json").write_text(json.dumps(record))
        (ours.path / "metrics.csv").write_text("step\n")
        for path in ours.path.iterdir():
            os.utime(path, (record["claimed"], record["claimed"]))
        os.utime(ours.path / "metrics.csv", (record["claimed"] + worked,) * 2)
    ours = folder(tmp_path)
    ours.claim({})
    ours.finish({})
    assert read_json(ours.path / "done.json")["seconds"] == pytest.approx(42.5, abs=2.0)


def test_what_an_older_version_began_has_no_seconds(tmp_path):
    folder(tmp_path).claim({})
    record = read_json(tmp_path / "stage/provenance.json")
    del record["claimed"], record["seconds_earlier"]
    (tmp_path / "stage/provenance.json").write_text(json.dumps(record))
    ours = folder(tmp_path)
    ours.claim({})
    ours.finish({})
    assert "seconds" not in read_json(ours.path / "done.json")


def test_a_resumption_keeps_the_memory_of_the_gpu(tmp_path):
    folder(tmp_path).claim({})
    path = tmp_path / "stage/provenance.json"
    path.write_text(json.dumps(read_json(path) | {"peak_gpu_memory_bytes": 250}))
    folder(tmp_path).claim({"seed": 0})
    assert read_json(path)["peak_gpu_memory_bytes"] == 250
    RunFolder(tmp_path / "stage", "x", "stage", {"seed": 1}).claim({})
    assert "peak_gpu_memory_bytes" not in read_json(path)


@pytest.mark.parametrize(("before", "peak", "expected"), [(None, 100, 100), (250, 100, 250), (50, 100, 100)])
def test_the_largest_memory_of_a_gpu_over_all_resumptions(tmp_path, monkeypatch, before, peak, expected):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda: peak)
    path = tmp_path / "provenance.json"
    path.write_text(json.dumps({"seed": 1} | ({} if before is None else {"peak_gpu_memory_bytes": before})))
    Provenance({}).teardown(SimpleNamespace(is_global_zero=True, default_root_dir=str(tmp_path)), None, "fit")
    assert read_json(path) == {"seed": 1, "peak_gpu_memory_bytes": expected}
