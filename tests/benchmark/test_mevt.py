"""MEVT's rows: both sides of a ratio do what they say, every row is there, work is counted as it is."""

import pytest
import torch
from torch import nn

from tests.benchmark import __main__ as benchmark
from tests.benchmark import mevt, mevt_probe, mevt_speed
from tests.benchmark.device import VARIABLE
from tests.benchmark.registry import GROUPS


@pytest.fixture(scope="module")
def task():
    return mevt.make_task()


@pytest.fixture
def batch():
    return mevt.make_batch(mevt.recipe(), 2)


def group(work):
    (found,) = [each for each in GROUPS if each.work == f"tests.benchmark.{work}"]
    return found


@pytest.mark.parametrize("work", ["mevt:shares", "mevt_speed:images_per_second", "mevt_probe:cached_over_uncached"])
def test_a_group_measures_all_its_rows(work):
    rows = benchmark.run_group(group(work), "mevt.", quick=True)
    assert [row.get("error") for row in rows] == [None] * len(group(work).rows)
    assert all(row["value"] > 0 for row in rows)


def test_a_gpu_s_rows_are_left_out_without_one(monkeypatch):
    monkeypatch.delenv(VARIABLE, raising=False)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    rows = benchmark.run_group(group("mevt_speed:gpu"), "mevt.", quick=True)
    assert rows and all(row["value"] is None and row["skipped"] == "no GPU" for row in rows)


def test_a_gpu_s_rows_run_on_any_device(monkeypatch):
    """All but the peaks, which only a GPU tells."""
    monkeypatch.setenv(VARIABLE, "cpu")
    rows = mevt_speed.gpu(quick=True)
    wanted = {row.id for row in group("mevt_speed:gpu").rows if "peak" not in row.id}
    assert set(rows) == wanted and all(row.value > 0 for row in rows.values())


def test_the_bare_step_gives_every_parameter_of_the_student_a_gradient(task, batch):
    """Those and no others have one after the task's own backward pass."""
    step = mevt.task_step(task, batch)
    bare = mevt.bare_step(task, batch, mevt.rows_of_heads(task, step), lambda: seen.append(having(task)))
    seen = []
    bare()
    moment = mevt.Moment(0.04, mevt.seeds_of(batch["id"], 0, 0))
    task.terms(batch, moment).total.backward()
    assert seen == [having(task)] and seen[0]
    task.student.zero_grad()


def having(task):
    return {name for name, p in task.named_parameters() if p.grad is not None}


def test_heads_get_the_rows_of_the_step(task, batch):
    rows = mevt.rows_of_heads(task, mevt.task_step(task, batch))
    student, teacher = task.student, task.teacher.module
    assert set(rows) == {student.dense_head, student.pixel_head, teacher.dense_head, teacher.pixel_head}
    assert len(rows[student.dense_head]) == len(rows[teacher.dense_head]) >= len(rows[student.pixel_head]) > 0


def test_a_step_moves_student_and_teacher(batch):
    task = mevt.make_task()
    before = [p.clone() for p in (*task.student.parameters(), *task.teacher.parameters())]
    mevt.task_step(task, batch)()
    after = [*task.student.parameters(), *task.teacher.parameters()]
    moved = [not torch.equal(a, b) for a, b in zip(before, after, strict=True)]
    students = len(list(task.student.parameters()))
    assert any(moved[:students]) and any(moved[students:])


@pytest.mark.parametrize("groups", [1, 2, 6])
def test_operations_of_a_convolution_know_its_groups(groups):
    """Three passes: forward, the input's gradient, the weight's."""
    conv, x = nn.Conv2d(6, 12, 3, padding=1, groups=groups, bias=False), torch.randn(2, 6, 5, 7, requires_grad=True)
    found = mevt_speed.operations(lambda: conv(x).sum().backward())
    assert found.products == 0 and found.convolutions == 3 * 2 * (2 * 12 * 5 * 7) * (6 // groups * 3 * 3)


def test_operations_of_products_stand_apart():
    linear, x = nn.Linear(6, 5, bias=False), torch.randn(7, 6, requires_grad=True)
    found = mevt_speed.operations(lambda: linear(x).sum().backward())
    assert found.convolutions == 0 and found.products == found.total == 3 * 2 * 7 * 6 * 5


def test_probes_with_and_without_a_cache_learn_the_same():
    """The benchmark refuses others; so it must notice them."""
    one, other = nn.Conv2d(3, 2, 1), nn.Conv2d(3, 2, 1)
    other.load_state_dict(one.state_dict())
    mevt_probe._check(one, other)
    with torch.no_grad():
        other.bias += 0.1
    with pytest.raises(AssertionError):
        mevt_probe._check(one, other)
