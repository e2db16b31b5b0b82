"""The run on a GPU, with the CPU in its place: a part that fails or hangs costs its own rows, and what it had is kept."""

import json
import time
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch.optim.optimizer import register_optimizer_step_pre_hook

from tests.benchmark import (
    crf,
    cti,
    data,
    decoding,
    gpu,
    gpu_papers,
    gpu_part,
    gpu_rates,
    walk,
)  # fmt: skip
from tests.benchmark.device import VARIABLE, gpu_device, peak_bytes
from tests.benchmark.measure import Group, Row, Skip
from tests.benchmark.mevt_speed import Operations, operations
from tests.benchmark.registry import GROUPS
from tests.benchmark.rows import merge


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
    """No row of a GPU is forgotten, the whole stays below eight minutes, and all but what is compiled fits in it."""
    named = {row.id for g in GROUPS for row in g.rows if "gpu" in row.id}
    assert {row.id for g in gpu.parts("") for row in g.rows} == named
    assert gpu.WHOLE < 480
    first = [group for group in gpu.parts("") if group.work != gpu.LAST]
    assert sum(gpu.LIMITS[group.work] for group in first) <= gpu.WHOLE
    assert gpu.parts("")[: len(first)] == first


def test_no_part_takes_what_others_need(monkeypatch):
    monkeypatch.setattr(gpu, "LIMITS", {"m:dear": 150, "m:cheap": 10, gpu.LAST: 90})
    dear, cheap, last = Group("m:dear"), Group("m:cheap"), Group(gpu.LAST)
    assert gpu.limit_of([dear] * 4, 200.0, "cuda") == 50 and gpu.limit_of([dear], 400.0, "cuda") == 150
    assert gpu.limit_of([cheap] * 4, 200.0, "cuda") == 10 and gpu.limit_of([cheap] * 4, 200.0, "cpu") == 40
    assert gpu.limit_of([cheap], -1.0, "cuda") == 0
    # what is compiled takes nothing from what comes before it, and shares the rest
    assert gpu.limit_of([dear, last, last], 120.0, "cuda") == 120
    assert gpu.limit_of([last, last], 100.0, "cuda") == 50


def test_a_try_out_replaces_no_measured_rows():
    outs = {gpu.out_of(device, quick).name for device in ("cuda", "cpu") for quick in (False, True)}
    assert len(outs) == 4 and gpu.out_of("cuda", False).name == "benchmark-gpu.json"
    assert gpu.out_of("cpu", True).name == "benchmark-gpu-cpu-quick.json"


def test_an_unknown_row_is_an_error(capsys):
    with pytest.raises(SystemExit):
        gpu.main(["--only", "sfcc", "--device", "cpu", "--quick"])
    assert "no row begins with sfcc" in capsys.readouterr().err


@pytest.mark.parametrize("why", ["error", "skipped"])
def test_a_row_that_fails_leaves_a_measured_one(tmp_path, why):
    def row(value, **more):
        return {"id": "a.first", "value": value} | more

    out = tmp_path / "rows.json"
    merge(out, [row(2.0)])
    merge(out, [row(None, **{why: "gone"})], keep_values=True)
    assert json.loads(out.read_text()) == [row(2.0, later="gone")]
    merge(out, [row(3.0)], keep_values=True)
    assert json.loads(out.read_text()) == [row(3.0)]


def test_bounds_are_for_a_gpu():
    """Each of the two jobs that the issue wants fifty times as fast, listed where it is not; nothing of it on a CPU."""
    rows = (*group("crf:gpu").rows, *group("walk:gpu").rows)
    assert len(rows) == 5 and all(row.holds(49.0) is False and row.holds(51.0) for row in rows)
    assert all(row.holds(1.0) is None for row in gpu.unbound(group("crf:gpu")).rows)


def test_a_row_alone_can_say_why_it_is_not_there(capsys):
    gpu_part.main(["tests.benchmark.gpu_fakes:lacks_one"])
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    rows = gpu.rows_from(part("any"), lines, "", True, 1.0)
    assert rows[0]["skipped"] == "out of memory" and rows[1]["value"] == 2.0 and "skipped" not in rows[1]


@pytest.mark.slow
def test_the_whole_run_on_a_cpu(tmp_path):
    out = tmp_path / "gpu.json"
    assert gpu.main(["--device", "cpu", "--quick", "--out", str(out)]) == 0
    rows = {row["id"]: row for row in json.loads(out.read_text())}
    assert rows["cti.gpu_compiled_images_per_s"]["value"] > 0 and rows["walk.gpu_over_cpu"]["value"] > 0


# ---------------------------------------------------------------------- what they measure


SLOW = [pytest.param(paper, marks=pytest.mark.slow) for paper in ("cti", "dsmf", "mevt")]


@pytest.mark.parametrize("paper", ["sfc", *SLOW])
@pytest.mark.parametrize("work", ["eager", "compiled"])
def test_a_paper_is_measured_in_three_ways(on_cpu, paper, work):
    """All its rows but the peaks, which only a GPU tells; one mode after the other, so that none loses an earlier one."""
    found = list(getattr(gpu_papers, work)(paper, quick=True))
    wanted = {row.id for row in group(f"gpu_papers:{work}", paper).rows if "peak" not in row.id}
    assert set.union(*map(set, found)) == wanted and len(found) == (3 if work == "eager" else 1)
    assert all(row.value > 0 for rows in found for row in rows.values())


def test_a_mode_that_does_not_fit_costs_its_own_rows_alone(on_cpu, monkeypatch):
    """fp32 does not: bf16 and its bottleneck are measured, the ratio to fp32 tells why not."""
    genuine = gpu_papers.prepare

    def full(paper, mode, *rest):
        if not mode.bf16:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB. GPU 0 has ...")
        return genuine(paper, mode, *rest)

    monkeypatch.setattr(gpu_papers, "prepare", full)
    rows = {name: row for part in gpu_papers.eager("dsmf", quick=True) for name, row in part.items()}
    assert str(rows["dsmf.gpu_fp32_images_per_s"]) == "out of memory: CUDA out of memory"
    assert {name for name, row in rows.items() if isinstance(row, Skip)} == {
        "dsmf.gpu_fp32_images_per_s", "dsmf.gpu_fp32_utilisation", "dsmf.gpu_fp32_peak_memory", "dsmf.gpu_bf16_over_fp32",
    }  # fmt: skip
    assert rows["dsmf.gpu_bf16_images_per_s"].value > 0 and rows["dsmf.gpu_bottleneck"].value > 0


@pytest.mark.parametrize(("mode", "percent"), [("fp32", 35.0), ("bf16", 11.0)])
def test_operations_are_held_against_the_rates_that_they_run_at(monkeypatch, mode, percent):
    """Per second 1000 of convolutions as TF32, 200 of products in float32, 2000 of either in bf16; 2 s a step."""
    rates = {"bf16": 2000.0, "tf32": 1000.0, "fp32": 200.0}
    monkeypatch.setattr(gpu_papers, "matrix_rate", lambda device, precision, side: rates[precision])
    monkeypatch.setattr(gpu_papers, "operations_of", lambda *given: Operations(400.0, 60.0))
    bench = gpu_papers.Bench("sfc", "cpu", True)
    value, extra = bench._utilisation(gpu_papers.MODES[mode], 2.0)
    assert value == pytest.approx(100 * (400 / 1000 + 60 / 200) / 2 if mode == "fp32" else 100 * 460 / 2000 / 2)
    assert value == pytest.approx(percent, abs=1) and extra["operations"] == {"convolutions": 400, "products": 60}


def test_operations_of_a_batch_are_continued_from_smaller_ones(monkeypatch):
    """SFC's step has four images of the bank whatever the batch; 16 fresh ones, of which 2 and 4 are counted."""
    monkeypatch.setattr(gpu_papers, "size_of", lambda paper, quick: 16)
    gpu_papers.operations_of.cache_clear()
    found = gpu_papers.operations_of("sfc", "cpu", True)
    gpu_papers.operations_of.cache_clear()
    exact = operations(gpu_papers.prepare("sfc", gpu_papers.MODES["fp32"], "cpu", True, 16).work)
    assert found == pytest.approx(exact, rel=1e-6) and found.convolutions > 0 and found.products > 0


@pytest.mark.parametrize("paper", gpu_papers.STEPS)
def test_half_precision_is_for_forward_pass_and_losses_alone(paper):
    """As under Lightning: neither the backward pass nor the optimiser runs under autocast."""
    step = gpu_papers.prepare(paper, gpu_papers.MODES["bf16"], "cpu", quick=True)
    seen = {"forward": set(), "backward": set(), "optimiser": set()}

    def note(name):
        return lambda *given: seen[name].add(torch.is_autocast_enabled("cpu"))

    for module in step.task.modules():
        module.register_forward_hook(note("forward"))
    for parameter in step.task.parameters():
        if parameter.requires_grad:
            parameter.register_post_accumulate_grad_hook(note("backward"))
    hook = register_optimizer_step_pre_hook(note("optimiser"))
    step.work()
    hook.remove()
    assert True in seen["forward"] and seen["backward"] == seen["optimiser"] == {False}


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


@pytest.mark.parametrize(
    "measure", [crf.gpu, walk.gpu, cti.gpu, gpu_rates.rates, pytest.param(decoding.gpu, marks=pytest.mark.slow)]
)
def test_other_rows_run_on_any_device(on_cpu, measure):
    rows = measure(True)
    wanted = {row.id for row in group(f"{measure.__module__.rpartition('.')[2]}:{measure.__name__}").rows}
    assert {name for name in wanted if "peak" not in name} == set(rows) and all(row.value > 0 for row in rows.values())
    # seconds of a GPU are nobody's CPU seconds
    assert not any(key in row.extra for row in rows.values() for key in ("cpu_value", "best_value"))


def test_without_the_genuine_photo_there_is_one_of_its_size(monkeypatch, tmp_path):
    for module in (crf, data):
        monkeypatch.setattr(module, "REAL", tmp_path)
    photo, note = crf.any_photo(quick=False)
    assert photo.shape == (375, 500, 3) and "NO genuine" in note and len(np.unique(photo)) > 50
    with pytest.raises(Skip):
        crf.load_photo(quick=False)


def test_without_a_gpu_the_rows_are_left_out(monkeypatch):
    monkeypatch.delenv(VARIABLE, raising=False)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(Skip, match="no GPU"):
        gpu_device()


class FakeCuda:
    """Of `torch.cuda`, what `device` calls; a step takes 5 GB for a while."""

    def __init__(self, monkeypatch):
        self.calls, self.now, self.most = [], 1000, 9000
        for name in ("synchronize", "reset_peak_memory_stats", "max_memory_allocated"):
            monkeypatch.setattr(torch.cuda, name, getattr(self, name))

    def synchronize(self):
        self.calls.append("wait")

    def reset_peak_memory_stats(self):
        self.calls.append("reset")
        self.most = self.now

    def max_memory_allocated(self):
        return self.most

    def work(self):
        self.calls.append("work")
        self.most = max(self.most, self.now + 5000)


def test_peak_memory_of_a_gpu_is_that_of_the_work(monkeypatch):
    """Not what was there before it; asked when the device is done."""
    cuda = FakeCuda(monkeypatch)
    assert peak_bytes("cuda", cuda.work) == 6000 and cuda.calls == ["wait", "reset", "work", "wait"]
    assert peak_bytes("cpu", cuda.work) is None


def test_the_clock_of_waiting_for_data_starts_when_the_device_is_done(monkeypatch):
    """The first step, which starts the worker, does not count: neither does what a GPU has left of it."""
    cuda = FakeCuda(monkeypatch)
    clock = iter(range(100))
    monkeypatch.setattr(
        decoding, "time", SimpleNamespace(perf_counter=lambda: cuda.calls.append("clock") or next(clock))
    )
    batch = dict.fromkeys(decoding.Batch._fields, SimpleNamespace(to=lambda *given, **more: None))
    share = decoding._waiting(cuda.work, [batch] * 2, "cuda")
    assert cuda.calls == ["clock", "work", "wait", "clock", "clock", "clock", "work", "wait", "clock"]
    assert share == pytest.approx(1 / 3)
