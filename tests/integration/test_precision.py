"""Mixed precision: a step stays near float32's, nothing becomes NaN, and what has to be float32 is.

A number in bfloat16 has 8 bits: rounding changes it by 2^-8 of itself at most. What that does to a gradient depends on the task,
so it is measured beside: `EightBits` rounds the same products under float32. Mixed precision rounds those and besides
what lies between them, so it may be twice as far from float32; half precision in a softmax, norm or loss is far beyond.
"""

import math
from copy import deepcopy
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from torch import nn

from frugalseg.cli import main
from frugalseg.miniature.dlrsd import write_dlrsd_world
from frugalseg.ops.prototypes import masked_average_pool
from frugalseg.stages.deeplab.losses import scales_logits
from frugalseg.stages.retrieval.memory import nearest_labels
from tests.integration.conftest import EXPERIMENTS
from tests.integration.precision_cases import (
    CASES,
    EightBits,
    HalfOperations,
    Saved,
    Watch,
    distance,
    fit,
    run,
    trainer_of,
)

HALF = yaml.safe_load((EXPERIMENTS / "_base/bf16.yaml").read_text())["trainer"]["precision"]
STEPS, FEW = 50, 2
LOSS = 2**-6
"""Largest distance of a loss, or relative to it where it is above 1: four roundings of the largest number in it."""
GRADIENT = 0.5
"""Largest distance of a gradient whatever the task: within 30 degrees of float32's."""
SHARE = 2.0
"""Largest distance of a gradient over that of `EightBits`."""
PREDICTED = 2**-5
"""Largest mean distance of what is predicted, relative to its largest value: eight roundings of that."""
FLOAT32_ONLY = {
    "_softmax", "_log_softmax", "sigmoid", "log", "exp", "logsumexp", "nll_loss_forward", "nll_loss2d_forward",
    "binary_cross_entropy_with_logits", "linalg_vector_norm", "norm", "_cdist_forward", "_euclidean_dist",
    "grid_sampler_2d", "std", "var", "entr", "special_entr", "sort", "topk", "cumsum", "histc", "amax", "amin",
}  # fmt: skip
"""Softmax, logarithms, norms, distances, losses, and what divides maps (design.md section 5)."""
MEMORIES = ["sfc", "cti", "densecl", pytest.param("mevt", marks=pytest.mark.slow)]
"""Tasks that remember something from step to step: a bank, a class memory, queues and a teacher, centres."""
JUMPS = {"mp"}
"""Maps that hang on an argmax over maps which an untrained net makes nearly equal: their values may be any."""


@pytest.fixture(scope="module")
def worlds(world, tmp_path_factory):
    return {"voc": world, "dlrsd": write_dlrsd_world(tmp_path_factory.mktemp("dlrsd") / "dlrsd", 6, seed=0, size=64)}


def lengths():
    """Every task for 50 steps, the dear ones for a few, and for 50 where time does not matter."""
    slow = pytest.mark.slow
    quick = [pytest.param(n, FEW if case.dear else STEPS, id=n) for n, case in CASES.items() if case.fits]
    return quick + [pytest.param(n, STEPS, id=f"{n} {STEPS}", marks=slow) for n, case in CASES.items() if case.dear]


def check_state(task, trainer):
    """Weights, teachers, memories, banks and the optimiser's averages are float32 at least, and finite."""
    state = {f"task.{name}": value for name, value in task.state_dict().items()}
    for optimiser in trainer.optimizers:
        for number, kept in enumerate(optimiser.state.values()):
            state |= {f"optimiser.{number}.{key}": value for key, value in kept.items() if torch.is_tensor(value)}
    floats = {name: value for name, value in state.items() if value.is_floating_point()}
    assert {name for name, value in floats.items() if value.dtype not in (torch.float32, torch.float64)} == set()
    # the best score begins with minus infinity
    assert [name for name, value in floats.items() if not value.isfinite().all() and name != "task.best"] == []


@pytest.mark.parametrize(("name", "steps"), lengths())
def test_a_step_is_near_float32_and_many_give_no_nan(worlds, name, steps):
    case, watch = CASES[name], Watch()
    trainer, task, half = fit(case, case.data(worlds), HALF, steps, watch)
    assert watch.half.found, "nothing was computed in half precision"
    assert watch.half.found & FLOAT32_ONLY == set() == watch.half.on_islands
    check_state(task, trainer)
    if not case.learns:
        return
    _, _, full = fit(case, case.data(worlds), "32-true", 1)
    _, _, rounded = fit(case, case.data(worlds), "32-true", 1, EightBits())
    assert len(half.losses) == steps and all(map(math.isfinite, half.losses))
    assert abs(half.losses[0] - full.losses[0]) <= LOSS * max(1.0, abs(full.losses[0]))
    apart, unavoidable = distance(half.gradient, full.gradient), distance(rounded.gradient, full.gradient)
    print(f"{name}: loss {half.losses[0]:.6f} {full.losses[0]:.6f}, gradient {apart:.4f}, of {unavoidable:.4f}")
    # a test that float32 passed by itself would show nothing
    assert 0 < apart <= min(GRADIENT, SHARE * unavoidable)


@pytest.mark.parametrize("name", [name for name, case in CASES.items() if case.after])
def test_evaluation_is_finite_and_of_the_same_format(worlds, name):
    case = CASES[name]
    data = case.data(worlds)
    _, task, _ = fit(case, data, "32-true", FEW) if case.fits else (None, case.task(), None)
    for command in case.after:
        watch = Watch()
        half = answer(command, task, data, HALF, watch)
        full = answer(command, task, data, "32-true")
        assert watch.half.found & FLOAT32_ONLY == set() == watch.half.on_islands
        if command == "predict":
            rounded = answer(command, deepcopy(task), data, "32-true", EightBits())
            assert len(half) == 2
            for predictions in zip(half, full, rounded, strict=True):
                check_prediction(*predictions)
        else:
            assert half.keys() == full.keys() and all(map(math.isfinite, half.values()))


def answer(command, task, data, precision, *callbacks):
    """Predictions of two images, or the scores of two batches; the IoU of a class that nobody sees is not told."""
    limits = {f"limit_{split}_batches": 2 for split in ("val", "test", "predict")}
    trainer = trainer_of(precision, 1, *callbacks, **limits)
    found = run(trainer, command, task, data, **({} if command == "predict" else {"verbose": False}))
    scores = {key: float(value) for key, value in trainer.callback_metrics.items() if "/iou/" not in key}
    return found if command == "predict" else scores


def check_prediction(half, full, rounded):
    """The same names, types and sizes, and maps as near as rounded products allow."""
    assert half.keys() == full.keys() and half["id"] == full["id"]
    for kind in ("arrays", "masks"):
        assert half.get(kind, {}).keys() == full.get(kind, {}).keys()
        for key in full.get(kind, {}):
            found, wanted, control = (np.asarray(each[kind][key]) for each in (half, full, rounded))
            assert (found.dtype, found.shape) == (wanted.dtype, wanted.shape) and np.isfinite(found).all(), key
            if kind == "arrays" and key not in JUMPS:
                apart, unavoidable = (np.abs(each.astype(float) - wanted).mean() for each in (found, control))
                print(f"{key}: {apart:.5f} of {unavoidable:.5f}, largest {np.abs(wanted).max():.3f}")
                assert apart <= max(PREDICTED * np.abs(wanted).max(), SHARE * unavoidable), key


@pytest.mark.parametrize("name", MEMORIES)
def test_a_fit_resumes_to_the_bit(worlds, name, tmp_path):
    """Stopped after 3 of 6 steps, inside the first epoch."""
    case = CASES[name]
    _, whole, _ = fit(case, case.data(worlds), HALF, 6, Saved(tmp_path / "half.ckpt", 3))
    torch.manual_seed(9)
    task = case.task()
    resumed = trainer_of(HALF, 6, limit_val_batches=0)
    run(resumed, "fit", task, case.data(worlds), ckpt_path=tmp_path / "half.ckpt", weights_only=True)
    assert resumed.global_step == 6
    check_state(task, resumed)
    state = task.state_dict()
    assert [key for key, value in whole.state_dict().items() if not torch.equal(value, state[key])] == []


# ---------------------------------------------------------------------- single islands


def autocast():
    return torch.autocast("cpu", dtype=torch.bfloat16)


def test_the_watch_sees_half_precision():
    watch = HalfOperations()
    with autocast(), watch:
        nn.Linear(2, 2)(torch.ones(1, 2)).softmax(dim=-1)
    assert watch.found >= {"_softmax", "addmm"} and not watch.on_islands
    with autocast(), watch:
        masked_average_pool(torch.ones(1, 2, 3, 3), torch.ones(1, 2, 3, 3))
    assert watch.on_islands == {f"{Path('ops/prototypes.py')} masked_average_pool"}


def test_neighbours_are_those_of_float32():
    """Cosines that differ by less than a rounding of bfloat16: only float32 tells which neighbour is nearer."""
    torch.manual_seed(0)
    entries = nn.functional.normalize(torch.ones(64, 16) + 0.02 * torch.randn(64, 16), dim=1)
    queries, labels = torch.ones(5, 16) + 0.02 * torch.randn(5, 16), torch.eye(64)
    wanted = nearest_labels(queries, entries, labels, 3, 0.02)
    with autocast():
        found = nearest_labels(queries, entries, labels, 3, 0.02)
    assert torch.equal(found, wanted)


def test_logits_of_several_scales_are_resized_in_float32():
    net = nn.Conv2d(3, 4, 1)
    with autocast():
        found = scales_logits(net, torch.randn(2, 3, 8, 8), (1.0, 0.5))
        assert net(torch.randn(2, 3, 8, 8)).dtype == torch.bfloat16
    assert {each.dtype for each in found} == {torch.float32}
    # halves of bfloat16 numbers lie between its steps
    assert not torch.equal(found[-1], found[-1].bfloat16().float())


# ---------------------------------------------------------------------- from the command line


@pytest.mark.parametrize("accelerator", ["cpu", "auto"])
def test_float16_on_a_cpu_is_refused_in_one_line(words, capsys, tmp_path, accelerator):
    """Lightning would take bfloat16 in its place."""
    if accelerator == "auto" and torch.cuda.is_available():
        pytest.skip("there is a GPU, which has float16")
    given = words("fit", "--config", str(EXPERIMENTS / "_base/fp16.yaml"), "--trainer.accelerator", accelerator)
    assert main(given) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert (
        line.startswith("frugalseg: error: trainer.precision is 16-mixed, which needs a GPU") and "bf16-mixed" in line
    )
    assert not (tmp_path / "runs").exists()


def test_the_last_overlay_wins(words, tmp_path, read_yaml):
    files = [word for name in ("bf16", "fp32") for word in ("--config", str(EXPERIMENTS / f"_base/{name}.yaml"))]
    assert main(words("fit", *files, "--trainer.max_steps", "1", "--trainer.limit_val_batches", "1")) == 0
    assert read_yaml(tmp_path / "runs/mini-sfc/seed0/classify/config.yaml")["trainer"]["precision"] == "32-true"
