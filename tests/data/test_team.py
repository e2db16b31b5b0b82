"""Several processes of one command: who does what, and what becomes of those that fail, go, come late or are wrong."""

import json
import os
import signal
import time
from functools import partial

import pytest
import torch

from frugalseg.data.meeting import Place, address, cores, find_place
from frugalseg.data.messages import Messages
from frugalseg.data.parallel import each_dealt
from frugalseg.data.team import Team, alone
from frugalseg.errors import ConfigError, FrugalsegError
from tests.data.ranks import run_ranks

SIZES = [3, 9, 1, 7, 5, 8, 2, 6, 4, 0, 11, 10]


def do(out, fault, rank, item):
    """One item: note who did it. `fault` says what happens to whom."""
    if (rank, item) in fault:
        fault[rank, item]()
    time.sleep(0.02)
    with (out / f"{item}.txt").open("x") as file:  # a second one would fail
        file.write(str(rank))
    return item**2


def kill_me():
    os.kill(os.getpid(), signal.SIGKILL)


def kill_me_after_another(out):
    """Once the other rank has done an item."""
    while not list(out.glob("*.txt")):
        time.sleep(0.01)
    kill_me()


def fail():
    raise FrugalsegError("item is damaged; mend it")


def play(out, fault=None, identity=None, workers=1, sizes=SIZES, folder=None, together=0):
    """What a verb does. So many ranks as `together` says begin at once, however busy the machine is."""
    folder = out if folder is None else folder
    with Team() as team:
        plan = team.begin(identity or {}, lambda: None if (out / "done.json").is_file() else 1, folder)
        if plan is not None:
            (folder / f"begun-{team.rank}").touch()
            while len(list(folder.glob("begun-*"))) < together:
                time.sleep(0.01)
            missing = [size if not (out / f"{item}.txt").is_file() else -1 for item, size in enumerate(sizes)]
            todo = {item for item, size in enumerate(missing) if size >= 0}
            work = partial(skip_or_do, todo, partial(do, out, fault or {}, team.rank))
            known = team.gather(each_dealt(work, range(len(sizes)), team.deal(sizes), workers), len(sizes))
            if known is not None:
                (out / "done.json").write_text(json.dumps(known))
    return team.code


def skip_or_do(todo, work, item):
    return work(item) if item in todo else item**2


@pytest.fixture
def out(tmp_path):
    (tmp_path / "out").mkdir()
    return tmp_path / "out"


def owners(out):
    return {int(path.stem): int(path.read_text()) for path in out.glob("*.txt")}


@pytest.mark.parametrize("world", [1, 2, 3])
def test_every_item_is_done_once_and_rank_0_knows_all(out, tmp_path, world):
    ended = run_ranks(world, partial(play, folder=tmp_path, together=world), out, folder=tmp_path)
    assert [end.code for end in ended] == [0] * world, ended
    assert json.loads((out / "done.json").read_text()) == {str(n): n**2 for n in range(len(SIZES))}
    assert set(owners(out)) == set(range(len(SIZES)))
    assert set(owners(out).values()) == set(range(world))
    assert {path.name for path in out.iterdir()} == {"done.json", *(f"{n}.txt" for n in range(len(SIZES)))}


def test_large_items_are_dealt_first():
    with Team(Place()) as team:
        assert [item for _, item in team.deal([2, 9, 4, 9])] == [1, 3, 2, 0]
        assert list(team.deal([])) == []


def test_more_ranks_than_items(out, tmp_path):
    ended = run_ranks(4, play, out, {}, {}, 1, [5, 6], folder=tmp_path)
    assert [end.code for end in ended] == [0] * 4, ended
    assert set(owners(out)) == {0, 1}


class Late(Messages):
    """What is said comes between two questions."""

    def __init__(self, said):
        self.place, self.said, self.asked = Place(1, 2), said, 0

    def has(self, key):
        self.asked += 1
        return self.asked > 1 and key in self.said

    def read(self, key):
        return self.said[key]


def test_an_end_that_comes_between_two_questions():
    assert Late({"end": {"code": 0, "error": ""}}).of_rank_0("end") == {"code": 0, "error": ""}
    with pytest.raises(FrugalsegError, match="rank 1 of 2: rank 0 stopped: no disk"):
        Late({"end": {"code": 2, "error": "no disk"}}).of_rank_0("start")


def test_ranks_with_processes_of_their_own(out, tmp_path):
    ended = run_ranks(2, play, out, {}, {}, 2, folder=tmp_path)
    assert [end.code for end in ended] == [0, 0], ended
    assert set(owners(out)) == set(range(len(SIZES)))


def test_a_rank_that_is_killed_and_the_same_command_again_with_more_ranks(out, tmp_path):
    fault = {(1, item): kill_me for item in range(len(SIZES))}
    ended = run_ranks(3, partial(play, folder=tmp_path, together=3), out, fault, folder=tmp_path, patience=2)
    assert [end.code for end in ended] == [2, -signal.SIGKILL, 2], ended
    assert "rank 1 of 3 has gone: " in ended[0].said
    assert (
        "silent for 2 seconds; 1 of 12 items are not known to be done, the other ranks have finished" in ended[0].said
    )
    assert "rank 2 of 3: rank 0 stopped: rank 1 of 3 has gone" in ended[2].said
    there = owners(out)
    assert len(there) == len(SIZES) - 1 and set(there.values()) == {0, 2}
    assert not (out / "done.json").exists()
    ended = run_ranks(4, play, out, folder=tmp_path)
    assert [end.code for end in ended] == [0] * 4, ended
    assert there.items() <= owners(out).items()
    assert json.loads((out / "done.json").read_text()) == {str(n): n**2 for n in range(len(SIZES))}


@pytest.mark.parametrize("culprit", [0, 1])
def test_a_rank_that_fails_stops_no_other(out, tmp_path, culprit):
    fault = {(culprit, item): fail for item in range(len(SIZES))}
    ended = run_ranks(2, play, out, fault, folder=tmp_path)
    assert [end.code for end in ended] == [2, 2], ended
    assert "item is damaged; mend it" in ended[0].said
    assert ("rank 1 of 2 failed: " in ended[0].said) == (culprit == 1)
    assert len(owners(out)) == len(SIZES) - 1
    assert not (out / "done.json").exists()


def test_rank_0_is_killed(out, tmp_path):
    fault = {(0, item): partial(kill_me_after_another, out) for item in range(len(SIZES))}
    ended = run_ranks(2, play, out, fault, folder=tmp_path, patience=2)
    assert [end.code for end in ended] == [-signal.SIGKILL, 2], ended
    assert "rank 1 of 2: rank 0 has gone, or has not come" in ended[1].said
    assert not (out / "done.json").exists()


def test_a_rank_that_sees_other_data(out, tmp_path):
    def identity(rank):
        return {}, {"data": {"split": "train"}, "inputs": {"ids": f"digest{rank}"}}

    ended = run_ranks(2, play, out, folder=tmp_path, each=identity)
    assert [end.code for end in ended] == [2, 2], ended
    assert "differs from rank 0 in inputs.ids; give all ranks the same command and the same data" in ended[1].said
    assert "rank 1 of 2 failed: rank 1 of 2" in ended[0].said
    assert set(owners(out).values()) == {0}


def test_a_rank_whose_folder_is_another_one(out, tmp_path):
    ended = run_ranks(
        2, play, out, {}, {}, 1, SIZES, folder=tmp_path, patience=1, each=lambda rank: (tmp_path / f"disk{rank}",)
    )
    assert [end.code for end in ended] == [2, 2], ended
    assert f"{tmp_path / 'disk1'}: rank 1 of 2" in ended[1].said
    assert "does not see there what rank 0 writes; give a folder on a disk that all machines share" in ended[1].said


def come(out, rank):
    """Rank 1 never comes."""
    return 0 if rank == 1 else play(out)


def test_a_rank_that_never_comes_is_not_waited_for(out, tmp_path):
    ended = run_ranks(2, come, out, folder=tmp_path, each=lambda rank: (rank,), patience=1)
    assert [end.code for end in ended] == [0, 0], ended
    assert set(owners(out)) == set(range(len(SIZES)))


def lead(out, rank):
    """Rank 0 never comes."""
    return 0 if rank == 0 else play(out)


def test_rank_0_never_comes(out, tmp_path):
    ended = run_ranks(2, lead, out, folder=tmp_path, each=lambda rank: (rank,), patience=0.4)
    assert ended[1].code == 2
    assert "rank 0's: nobody has answered for 2 seconds" in ended[1].said


def two_commands(out, second):
    return play(out) or play(second)


def test_nobody_begins_the_next_command_before_rank_0_has_ended_the_last(out, tmp_path):
    (tmp_path / "second").mkdir()
    ended = run_ranks(3, two_commands, out, tmp_path / "second", folder=tmp_path)
    assert [end.code for end in ended] == [0] * 3, ended
    assert set(owners(tmp_path / "second").values()) == {0, 1, 2}


def around_a_fit(first, second):
    """Without the store of torchrun, the process group of a fit listens on the same port."""
    code = play(first)
    torch.distributed.init_process_group("gloo")
    torch.distributed.all_reduce(total := torch.ones(1))
    return code or play(second) or int(total) - 2


def test_before_and_after_a_process_group(out, tmp_path):
    (tmp_path / "second").mkdir()
    ended = run_ranks(2, around_a_fit, out, tmp_path / "second", folder=tmp_path)
    assert [end.code for end in ended] == [0, 0], ended
    assert set(owners(tmp_path / "second")) == set(range(len(SIZES)))


def test_what_is_up_to_date_is_left_alone_by_all(out, tmp_path):
    (out / "done.json").touch()
    assert [end.code for end in run_ranks(2, play, out, folder=tmp_path)] == [0, 0]
    assert owners(out) == {}


def note_alone(out, code):
    def work():
        (out / f"{os.environ['RANK']}.txt").write_text(os.environ["RANK"])
        return code

    return alone(work)


@pytest.mark.parametrize("code", [0, 1])
def test_what_is_not_shared_out_is_done_by_rank_0_and_all_end_like_it(out, tmp_path, code):
    assert [end.code for end in run_ranks(2, note_alone, out, code, folder=tmp_path)] == [code, code]
    assert owners(out) == {0: 0}


@pytest.mark.parametrize(
    ("environ", "place"),
    [
        ({}, Place()),
        ({"RANK": "3", "WORLD_SIZE": "8", "LOCAL_WORLD_SIZE": "4", "LOCAL_RANK": "3"}, Place(3, 8, 4, 3)),
        (
            {"SLURM_PROCID": "1", "SLURM_STEP_NUM_TASKS": "2", "SLURM_STEP_TASKS_PER_NODE": "2", "SLURM_LOCALID": "1"},
            Place(1, 2, 2, 1),
        ),
        (
            {
                "SLURM_PROCID": "9",
                "SLURM_STEP_NUM_TASKS": "20",
                "SLURM_STEP_TASKS_PER_NODE": "8(x2),4",
                "SLURM_LOCALID": "1",
            },
            Place(9, 20, 8, 1),
        ),
        ({"SLURM_PROCID": "0", "SLURM_STEP_NUM_TASKS": "1", "SLURM_LOCALID": "0"}, Place()),  # srun --pty bash
        ({"SLURM_PROCID": "0", "SLURM_NTASKS": "2"}, Place()),  # the script of a batch job
        ({"LOCAL_RANK": "1", "WORLD_SIZE": "2"}, Place()),  # what Lightning leaves behind
    ],
)
def test_the_launchers(environ, place):
    assert find_place(environ) == place


@pytest.mark.parametrize("environ", [{"RANK": "2", "WORLD_SIZE": "2"}, {"RANK": "one", "WORLD_SIZE": "2"}])
def test_a_place_that_is_none(environ):
    with pytest.raises(ConfigError, match=f"RANK={environ['RANK']}, WORLD_SIZE=2: no rank of a world"):
        find_place(environ)


def test_rank_0_must_have_an_address(monkeypatch):
    monkeypatch.setenv("RANK", "0")
    monkeypatch.delenv("MASTER_ADDR", raising=False)
    with pytest.raises(ConfigError, match="MASTER_ADDR and MASTER_PORT are not host and port"):
        address()


def test_slurm_lists_its_nodes(monkeypatch):
    for name in ("RANK", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("SLURM_NODELIST", "node[7-9]")
    monkeypatch.setenv("SLURM_JOB_ID", "120042")
    try:
        assert address() == ("node7", 15042)
    finally:
        # Lightning has set them; monkeypatch would bring them back at the end, and later groups would wait for node7
        for name in ("MASTER_ADDR", "MASTER_PORT"):
            os.environ.pop(name, None)


def test_ranks_of_one_machine_share_its_cores():
    assert cores(Place(0, 2, os.cpu_count())) == 1
    assert 1 <= cores(Place()) <= os.cpu_count()


def test_ranks_of_torchrun_share_the_cores_that_it_was_given(monkeypatch):
    """On a machine of many, as part of which a job runs; a task of srun may have been given its own."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(32)), raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: 128)
    monkeypatch.delenv("RANK", raising=False)
    assert cores(Place(0, 8, 8)) == 16
    monkeypatch.setenv("RANK", "0")
    assert cores(Place(0, 8, 8)) == 4
