"""Pretraining on two gloo processes is pretraining on one with both shares (mevt.md c.8), by Lightning's plain `ddp`."""

import os
import subprocess
import sys

import pytest
import torch

from tests.conftest import REPOSITORY
from tests.integration.mevt_ranks import CASES, IMAGES, STEPS, fit

FAST = "all"
ALIKE = [case for case in CASES if not case.startswith(("resnet", "idle", FAST))]


def two_ranks(folder, *cases):
    """What both ranks wrote of each case; in processes of their own, as Lightning starts them."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.integration.mevt_ranks", str(folder), *cases],
        cwd=REPOSITORY,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=400,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return {case: [torch.load(folder / f"{case}-{rank}.pt", weights_only=True) for rank in (0, 1)] for case in cases}


@pytest.fixture(scope="module")
def both(tmp_path_factory):
    return two_ranks(tmp_path_factory.mktemp("ranks"), *ALIKE)


def memory(state):
    return {name: value for name, value in state.items() if name.startswith("method.")}


def assert_same_on_both(ranks):
    """No rank saw the other's images, and both have the same net, teacher, centres and queues."""
    first, second = ranks
    for ours, theirs in zip(first["ids"], second["ids"], strict=True):
        assert len(ours) == len(theirs) == IMAGES // 2 and not set(ours) & set(theirs)
    assert all(torch.equal(value, second["state"][name]) for name, value in first["state"].items())


def assert_as_one(ranks, one, tolerance):
    assert_same_on_both(ranks)
    assert len(one["losses"]) == len(ranks[0]["losses"]) == STEPS
    for step in range(STEPS):
        for term, value in one["losses"][step].items():
            mean = (ranks[0]["losses"][step][term] + ranks[1]["losses"][step][term]) / 2
            assert mean == pytest.approx(value, rel=tolerance, abs=tolerance), (step, term)
        gradients = one["gradients"][step]
        assert gradients.keys() == ranks[0]["gradients"][step].keys() and gradients
        for name, gradient in gradients.items():
            scale = max(float(gradient.abs().max()), 1e-3)
            torch.testing.assert_close(
                ranks[0]["gradients"][step][name], gradient, rtol=0, atol=tolerance * scale, msg=name
            )


def assert_same_state(ranks, one, tolerance):
    assert one["state"].keys() == ranks[0]["state"].keys()
    for name, value in one["state"].items():
        torch.testing.assert_close(ranks[0]["state"][name], value, rtol=tolerance, atol=tolerance, msg=name)


def test_all_terms(tmp_path):
    """Losses, gradients, nets, centres and queue in double precision; an image lacks pairs, so shares differ in points."""
    ranks, one = two_ranks(tmp_path, FAST)[FAST], fit(FAST, 1)
    assert one["losses"][0].keys() == {
        f"train/loss{n}" for n in ("", "_global", "_prototype", "_pixel", "_masked", "_region")
    }
    assert_as_one(ranks, one, 1e-9)
    # the optimiser divides by the gradient's size: where that is nothing but rounding, steps need not agree further
    assert_same_state(ranks, one, 1e-5)
    kept = memory(one["state"])
    assert int(kept["method.queue.filled"]) > 0 and all(
        kept[f"method.{name}"].abs().max() > 0 for name in ("centre", "cell_centre", "region_centre", "queue.rows")
    )
    assert ranks[0]["losses"][0] != ranks[1]["losses"][0]  # each has its own images


@pytest.mark.slow
@pytest.mark.parametrize("case", [case for case in ALIKE if case != "float32"])
def test_as_one_rank(both, case):
    one = fit(case, 1)
    # timm resizes positions in single precision
    assert_as_one(both[case], one, 1e-5 if case == "vit" else 1e-9)
    assert_same_state(both[case], one, 1e-5)


@pytest.mark.slow
def test_single_precision(both):
    """Before the optimiser has divided rounding by rounding: losses and gradients of the first step."""
    one, ranks = fit("float32", 1), both["float32"]
    assert_same_on_both(ranks)
    for term, value in one["losses"][0].items():
        mean = (ranks[0]["losses"][0][term] + ranks[1]["losses"][0][term]) / 2
        assert mean == pytest.approx(value, rel=1e-5), term
    whole = torch.cat([g.flatten() for g in one["gradients"][0].values()])
    split = torch.cat([g.flatten() for g in ranks[0]["gradients"][0].values()])
    assert (whole - split).norm() < 1e-5 * whole.norm()


@pytest.mark.slow
def test_queues_of_densecl_are_equal_and_hold_both_ranks_keys(both):
    states = [memory(rank["state"]) for rank in both["densecl"]]
    one = memory(fit("densecl", 1)["state"])
    for name in ("method.images.rows", "method.means.rows"):
        assert torch.equal(states[0][name], states[1][name])
        torch.testing.assert_close(states[0][name], one[name], rtol=1e-6, atol=1e-6)
        torch.testing.assert_close(one[name].norm(dim=1), torch.ones(10, dtype=one[name].dtype), rtol=1e-6, atol=0)
        assert len(one[name].unique(dim=0)) == 10  # 3 steps of 4 images have filled it


@pytest.mark.slow
@pytest.mark.parametrize("case", [case for case in CASES if case.startswith("resnet")])
def test_every_parameter_of_other_nets_has_a_gradient(tmp_path, case):
    ranks = two_ranks(tmp_path, case)[case]
    assert len(ranks[0]["losses"]) == STEPS
    state = [
        {k: v for k, v in rank["state"].items() if "running" not in k and "num_batches" not in k} for rank in ranks
    ]
    assert all(torch.equal(value, state[1][name]) for name, value in state[0].items())


@pytest.mark.slow
def test_a_mask_token_that_no_loss_reaches_does_not_stop_ddp(tmp_path):
    ranks = two_ranks(tmp_path, "idle mask token")["idle mask token"]
    assert len(ranks[0]["losses"]) == STEPS
