import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from frugalseg.data.parallel import each
from frugalseg.errors import DatasetError, FrugalsegError
from tests.conftest import REPOSITORY, hear_ctrl_c


def square(number):
    return number**2


def slow_square(number):
    time.sleep(0.02 * (5 - number % 5))  # later items finish first
    return number**2, os.getpid()


def fail_at_three(number):
    if number == 3:
        raise DatasetError("item 3 is broken; mend it")
    time.sleep(0.01)
    return number


@pytest.mark.parametrize("workers", [1, 2])
def test_results_are_in_order(workers):
    seen = []
    assert each(square, range(10), workers, lambda *p: seen.append(p)) == [n**2 for n in range(10)]
    assert seen == [(n, 10) for n in range(1, 11)]


def test_several_processes_work():
    results = each(slow_square, range(10), 2)
    assert [value for value, _ in results] == [n**2 for n in range(10)]
    assert os.getpid() not in {pid for _, pid in results}
    assert len({pid for _, pid in results}) == 2


@pytest.mark.parametrize("workers", [1, 2])
def test_the_first_error_ends_it(workers):
    with pytest.raises(DatasetError, match="item 3 is broken"):
        each(fail_at_three, range(200), workers)


def test_nothing_to_do():
    assert each(square, []) == []


def die_at_two(number):
    if number == 2:
        os.kill(os.getpid(), signal.SIGKILL)
    return number


def test_a_killed_process_is_said_in_one_line():
    with pytest.raises(FrugalsegError, match="a process was killed, perhaps for lack of memory"):
        each(die_at_two, range(20), 2)


INTERRUPTED = """
import sys, time
from functools import partial
from pathlib import Path
from frugalseg.data.parallel import each
from tests.data.test_parallel import write_slowly
try:
    each(partial(write_slowly, sys.argv[1]), range(100), 2, lambda done, total: print(done, flush=True))
except KeyboardInterrupt:
    print("stopped", flush=True)
"""


def write_slowly(folder, number):
    path = Path(folder) / str(number)
    path.write_text("begun")
    time.sleep(0.1)
    path.write_text("finished")


def test_ctrl_c_ends_all_processes_and_finishes_what_has_begun(tmp_path):
    process = subprocess.Popen(
        [sys.executable, "-c", INTERRUPTED, str(tmp_path)], cwd=REPOSITORY, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        text=True, start_new_session=True, preexec_fn=hear_ctrl_c,
    )  # fmt: skip
    assert process.stdout.readline().strip() == "1"
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does: to every process of the group
    output, errors = process.communicate(timeout=30)
    assert output.split()[-1] == "stopped"
    assert errors == ""
    texts = [path.read_text() for path in tmp_path.iterdir()]
    assert 2 <= len(texts) < 20
    assert set(texts) == {"finished"}


def test_workers_end_when_their_parent_is_killed(tmp_path):
    process = subprocess.Popen(
        [sys.executable, "-c", INTERRUPTED, str(tmp_path)], cwd=REPOSITORY, stdout=subprocess.PIPE, text=True,
        start_new_session=True, preexec_fn=hear_ctrl_c,
    )  # fmt: skip
    assert process.stdout.readline().strip() == "1"
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        try:
            os.killpg(process.pid, 0)  # the workers are of the same group
        except ProcessLookupError:
            return
        time.sleep(0.1)
    os.killpg(process.pid, signal.SIGKILL)
    raise AssertionError("workers outlive their parent")
