import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from frugalseg.analysis import stage_times
from frugalseg.analysis.stage_times import Stages, clock, stage_name
from frugalseg.cli import main
from frugalseg.commands import follow as follow_verb

MAKE = """
import json, pathlib, sys, time
for name in sys.argv[1:]:
    folder = pathlib.Path(name).parent
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "provenance.json").write_text("{}")
    print("making", folder, flush=True)
    time.sleep(0.7)
    pathlib.Path(name).write_text("{}")
"""


def done_files(tmp_path: Path, *names: str) -> list[str]:
    return [str(tmp_path / "runs" / name / "done.json") for name in names]


def follow(tmp_path: Path, files: list[str], command: list[str], *options: str) -> int:
    return main(["follow", "--log", str(tmp_path / "log.txt"), *options, "--stages", *files, "--", *command])


def test_runs_the_command_and_remembers_how_long_stages_took(tmp_path, capsys):
    files = done_files(tmp_path, "a/seed0/fit", "a/seed0/score")
    seconds = tmp_path / "seconds.json"
    command = [sys.executable, "-c", MAKE, *files]
    assert follow(tmp_path, files, command, "--remember", str(seconds)) == 0
    assert "2 of 2 stages done" in capsys.readouterr().err
    assert (tmp_path / "log.txt").read_text().count("making") == 2
    taken = json.loads(seconds.read_text())
    assert set(taken) == {"a/seed0/fit", "a/seed0/score"}
    assert all(0.1 <= value < 10 for value in taken.values())


def test_a_failure_shows_the_end_of_the_log_and_keeps_the_code(tmp_path, capsys):
    (tmp_path / "log.txt").write_text("of an earlier run\n")
    files = done_files(tmp_path, "a/seed0/fit")
    command = [sys.executable, "-c", "import sys; print('no such world'); sys.exit(7)"]
    assert follow(tmp_path, files, command, "--remember", str(tmp_path / "seconds.json")) == 7
    said = capsys.readouterr().err
    assert "no such world" in said
    assert "of an earlier run" not in said
    assert "0 of 1 stages done" in said
    assert not (tmp_path / "seconds.json").exists()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_stops_what_runs_and_nothing_stays_behind(tmp_path, number):
    files = done_files(tmp_path, "a/seed0/fit")
    child = "import os, pathlib, sys, time; pathlib.Path(sys.argv[1]).write_text(str(os.getpid())); time.sleep(60)"
    words = ["follow", "--log", str(tmp_path / "log.txt"), "--stages", *files, "--", sys.executable, "-c", child]
    # in a terminal, whatever the test suite itself was told to ignore by `nohup` or as a background job
    heed = (
        "import os, signal, sys; [signal.signal(n, signal.SIG_DFL) for n in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)];"
        " os.execv(sys.executable, sys.argv[1:])"
    )
    command = [sys.executable, "-m", "frugalseg", *words, str(tmp_path / "pid")]
    watcher = subprocess.Popen([sys.executable, "-c", heed, *command], stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 60
    while not (tmp_path / "pid").exists() or not (tmp_path / "pid").read_text():
        assert time.monotonic() < deadline
        time.sleep(0.05)
    watcher.send_signal(number)
    said = watcher.communicate(timeout=60)[1]
    assert watcher.returncode == 130
    assert "stopped with 0 of 1 stages done" in said
    with pytest.raises(ProcessLookupError):
        os.kill(int((tmp_path / "pid").read_text()), 0)


def test_a_stage_that_is_deaf_to_the_interrupt_is_ended_all_the_same(tmp_path, monkeypatch):
    monkeypatch.setattr(follow_verb, "PATIENCE", 0.5)
    child = (
        "import signal, time; signal.signal(signal.SIGINT, signal.SIG_IGN); print('deaf', flush=True); time.sleep(60)"
    )
    deaf = subprocess.Popen([sys.executable, "-c", child], start_new_session=True, stdout=subprocess.PIPE)
    deaf.stdout.readline()
    began = time.monotonic()
    follow_verb._stop(deaf)
    assert deaf.returncode == -signal.SIGTERM
    assert time.monotonic() - began < 20


def test_a_hang_up_that_the_caller_ignores_stays_ignored(tmp_path):
    files = done_files(tmp_path, "a/seed0/fit")
    words = ["follow", "--log", str(tmp_path / "log.txt"), "--stages", *files, "--", sys.executable, "-c", MAKE, *files]
    hush = (
        "import os, signal, sys; signal.signal(signal.SIGHUP, signal.SIG_IGN); os.execv(sys.executable, sys.argv[1:])"
    )
    watcher = subprocess.Popen([sys.executable, "-c", hush, sys.executable, "-m", "frugalseg", *words])
    deadline = time.monotonic() + 60
    while not (tmp_path / "log.txt").exists() or not (tmp_path / "log.txt").read_text():
        assert time.monotonic() < deadline
        time.sleep(0.02)
    watcher.send_signal(signal.SIGHUP)
    assert watcher.wait(60) == 0


@pytest.mark.parametrize(("command", "said"), [([], "no command"), (["/no/such/program"], "cannot be started")])
def test_mistakes_end_in_one_line(tmp_path, capsys, command, said):
    assert follow(tmp_path, done_files(tmp_path, "a/seed0/fit"), command) == 2
    err = capsys.readouterr().err
    assert said in err
    assert err.count("\n") == 1


@pytest.fixture
def clocks(monkeypatch):
    """Both clocks of the module, at 1000 and moved by hand."""
    now = {"t": 1000.0}
    monkeypatch.setattr(stage_times.time, "monotonic", lambda: now["t"])
    monkeypatch.setattr(stage_times.time, "time", lambda: now["t"])
    return now


def begin(file: Path, at: float) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    record = file.parent / "provenance.json"
    record.write_text("{}")
    os.utime(record, (at, at))


def test_time_left_follows_the_pace_of_finished_stages(tmp_path, clocks):
    files = [Path(name) for name in done_files(tmp_path, "a/seed0/fit", "a/seed0/score", "b/seed0/fit")]
    stages = Stages(files, {"a/seed0/fit": 100.0, "a/seed0/score": 20.0, "b/seed0/fit": 100.0}, jobs=1)
    assert stages.seconds_left() == pytest.approx(220)
    begin(files[0], 1000.0)
    stages.look()
    clocks["t"] = 1050.0
    assert stages.seconds_left() == pytest.approx(170)
    assert stages.running() == [("a/seed0/fit", 50.0)]
    clocks["t"] = 1200.0
    files[0].write_text("{}")
    stages.look()
    assert stages.done == 1
    # 200 seconds instead of 100, with half a minute of doubt
    assert stages.seconds_left() == pytest.approx(120 * 230 / 130)
    assert stages.measured() == {"a/seed0/fit": 200.0}


def test_a_stage_left_by_an_earlier_run_is_not_running(tmp_path, clocks):
    files = [Path(name) for name in done_files(tmp_path, "a/seed0/fit")]
    begin(files[0], 10.0)
    stages = Stages(files, {})
    stages.look()
    assert stages.running() == []
    begin(files[0], 1000.0)
    stages.look()
    assert [name for name, _ in stages.running()] == ["a/seed0/fit"]


def test_a_stage_that_is_made_again_counts_again(tmp_path, clocks):
    files = [Path(name) for name in done_files(tmp_path, "a/seed0/fit", "a/seed0/score")]
    for file in files:
        file.parent.mkdir(parents=True)
        file.write_text("{}")
    stages = Stages(files, {})
    assert stages.done == 2
    assert stages.left_text() == "all done"
    files[0].unlink()
    stages.look()
    assert stages.done == 1
    assert stages.line().startswith("stage 1 of 2, about ")


def test_names_and_clock():
    assert stage_name(Path("runs/mini-sfc/seed0/cam/done.json")) == "mini-sfc/seed0/cam"
    assert stage_name(Path("runs/worlds/voc-seed0/world.json")) == "worlds/voc-seed0"
    assert stage_name(Path("elsewhere/x/seed0/cam/done.json")) == "x/seed0/cam"
    assert [clock(0), clock(59.6), clock(187)] == ["0:00", "1:00", "3:07"]
