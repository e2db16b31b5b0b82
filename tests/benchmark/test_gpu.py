"""The run on a GPU, with the CPU in its place: a part that fails or hangs costs its own rows, and what it had is kept."""

import json
import time
from collections import Counter

import pytest
import torch

from tests.benchmark import crf, cti, gpu, gpu_bottleneck, gpu_papers, gpu_rates, walk
from tests.benchmark.device import VARIABLE, gpu_device
from tests.benchmark.measure import Group, Row, Skip
from tests.benchmark.registry import GROUPS


def group(work, of=None):
    (found,) = [each for each in GROUPS if each.work == f"tests.benchmark.{work}" and each.of == of]
    return found


@pytest.fixture
def on_cpu(monkeypatch):
    monkeypatch.setenv(VARIABLE, "cpu")


# ---------------------------------------------------------------------- parts


ROWS = Row("a.first", "x"), Row("a.second", "y")


def part(function):
    return Group(f"tests.benchmark.gpu_fakes:{function}", *ROWS)


def test_a_part_that_fails_keeps_what_it_had():
    rows = gpu.run_part(part("fails"), 120, "cpu", quick=True)
    assert rows[0]["value"] == 1.0 and rows[1]["error"] == "RuntimeError: the card is on fire"


def test_a_part_that_cannot_run_says_why():
    rows = gpu.rows_from(part("any"), [{"skipped": "no such card"}], "", True, 1.0)
    assert [row["skipped"] for row in rows] == ["no such card"] * 2


@pytest.mark.slow
def test_a_part_that_hangs_is_stopped():
    """The limit leaves time to start."""
    began = time.monotonic()
    rows = gpu.run_part(part("hangs"), 40, "cpu", quick=True)
    assert time.monotonic() - began < 55
    assert rows[0]["value"] == 1.0 and rows[1]["error"] == "stopped after its 40 s"


def test_parts_after_the_end_are_told_and_all_is_written(tmp_path, monkeypatch):
    monkeypatch.setattr(gpu, "GROUPS", [part("hangs")])
    monkeypatch.setattr(gpu, "LIMITS", {"tests.benchmark.gpu_fakes:hangs": 30})
    out = tmp_path / "gpu.json"
    assert gpu.main(["--device", "cpu", "--quick", "--seconds", "0", "--out", str(out)]) == 1
    rows = {row["id"]: row for row in json.loads(out.read_text())}
    assert set(rows) == {"machine", "a.first", "a.second"}
    assert rows["a.first"]["error"].startswith("stopped after its") and out.with_suffix(".md").is_file()


def test_every_group_of_a_gpu_is_a_part():
    """No row of a GPU is forgotten, and the whole stays below eight minutes."""
    named = {row.id for g in GROUPS for row in g.rows if "gpu" in row.id}
    assert {row.id for g in gpu.parts("") for row in g.rows} == named
    assert gpu.WHOLE < 480


def test_no_part_takes_what_others_need(monkeypatch):
    monkeypatch.setattr(gpu, "LIMITS", {"m:dear": 150, "m:cheap": 10})
    dear, cheap = Group("m:dear"), Group("m:cheap")
    assert gpu.limit_of(dear, 200.0, 4, "cuda") == 50 and gpu.limit_of(dear, 400.0, 1, "cuda") == 150
    assert gpu.limit_of(cheap, 200.0, 4, "cuda") == 10 and gpu.limit_of(cheap, 200.0, 4, "cpu") == 40
    assert gpu.limit_of(cheap, -1.0, 4, "cuda") == 0


@pytest.mark.slow
def test_the_whole_run_on_a_cpu(tmp_path):
    out = tmp_path / "gpu.json"
    assert gpu.main(["--device", "cpu", "--quick", "--out", str(out)]) == 0
    rows = {row["id"]: row for row in json.loads(out.read_text())}
    assert rows["cti.gpu_compiled_images_per_s"]["value"] > 0 and rows["walk.gpu_over_cpu"]["value"] > 0


# ---------------------------------------------------------------------- what they measure


SLOW = [pytest.param(paper, marks=pytest.mark.slow) for paper in ("cti", "dsmf", "mevt")]


@pytest.mark.parametrize("paper", ["sfc", *SLOW])
def test_a_paper_is_measured_in_three_ways(on_cpu, paper):
    """All its rows but the peaks, which only a GPU tells; one after the other, so that a late one loses no early one."""
    found = [set(rows) for rows in gpu_papers.measured(paper, quick=True)]
    wanted = {row.id for row in group("gpu_papers:measured", paper).rows if "peak" not in row.id}
    assert set.union(*found) == wanted and len(found) == 4
    assert f"{paper}.gpu_compiled_images_per_s" in found[-1]


@pytest.mark.parametrize("mode", gpu_papers.MODES)
def test_a_mode_is_what_it_says(mode):
    wanted = gpu_papers.MODES[mode]
    step = gpu_papers.prepare("sfc", wanted, "cpu", quick=True)
    seen = []
    conv = next(m for m in step.task.modules() if isinstance(m, torch.nn.Conv2d) and m.kernel_size == (3, 3))
    conv.register_forward_hook(lambda module, given, out: seen.append(out.dtype))
    step.work()
    assert seen[0] == (torch.bfloat16 if wanted.bf16 else torch.float32)
    assert conv.weight.is_contiguous(memory_format=torch.channels_last) == wanted.compiled


@pytest.mark.parametrize("measure", [crf.gpu, walk.gpu, cti.gpu, gpu_rates.rates])
def test_other_rows_run_on_any_device(on_cpu, measure):
    try:
        rows = measure(True)
    except Skip as reason:
        pytest.skip(str(reason))
    wanted = {row.id for row in group(f"{measure.__module__.rpartition('.')[2]}:{measure.__name__}").rows}
    assert {name for name in wanted if "peak" not in name} == set(rows) and all(row.value > 0 for row in rows.values())


def test_without_a_gpu_the_rows_are_left_out(monkeypatch):
    monkeypatch.delenv(VARIABLE, raising=False)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(Skip, match="no GPU"):
        gpu_device()


def test_the_bottleneck_is_a_kernel_of_a_busy_card_else_the_host():
    kernels, host = Counter({"gemm": 6.0, "copy": 3.0}), Counter({"aten::item": 5.0, "aten::mm": 1.0})
    busy = gpu_bottleneck.told(kernels, host, 7, 10.0, 8.0, 3)
    assert busy.value == pytest.approx(60) and busy.note == "kernel gemm" and busy.extra["waits_per_step"] == 2
    idle = gpu_bottleneck.told(kernels, host, 1, 20.0, 19.0, 3)
    assert idle.value == pytest.approx(55) and "aten::item" in idle.note and idle.extra["waits_per_step"] == 0
