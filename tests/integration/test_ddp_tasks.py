"""Two gloo processes do what one does with both shares: every task's scores, predictions, gradients and weights.

MEVT's pretraining is in `test_mevt_ddp`, its losses being the hardest; tasks that refuse several processes say so in
their own tests.
"""

import os
import subprocess
import sys

import pytest
import torch

from tests.conftest import REPOSITORY
from tests.integration.rank_cases import CASES, play, write_worlds

TOLERANCE = 1e-5
"""Of gradients, as a share of their norm: some terms are float32 whatever the trainer's precision."""


@pytest.fixture(scope="module")
def worlds(tmp_path_factory):
    return write_worlds(tmp_path_factory.mktemp("worlds"))


@pytest.fixture(scope="module")
def both(worlds, tmp_path_factory):
    """What both ranks found in each case; one start of two processes plays them all."""
    out = tmp_path_factory.mktemp("ranks")
    done = subprocess.run(
        [sys.executable, "-m", "tests.integration.rank_cases", str(worlds), str(out), *CASES],
        cwd=REPOSITORY,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    if done.returncode:
        pytest.fail(done.stderr[-3000:], pytrace=False)
    return {case: [torch.load(out / f"{case}-{rank}.pt", weights_only=True) for rank in (0, 1)] for case in CASES}


@pytest.fixture(scope="module")
def alone(worlds):
    found = {}

    def play_once(case):
        if case not in found:
            # batches of a rank one after the other: what its BatchNorms see
            found[case] = play(case, worlds, 1, accumulate=2 if CASES[case].norms == "own" else 1)
        return found[case]

    return play_once


def cases_with(verb):
    return [name for name, case in CASES.items() if verb in case.verbs]


@pytest.mark.parametrize("verb", ["validate", "test"])
def test_scores_are_those_of_one_process(verb, both, alone):
    for case in cases_with(verb):
        one = alone(case)
        for rank in both[case]:
            assert rank[verb].keys() == one[verb].keys(), case
            for key, counts in one[verb].items():
                assert counts.dtype == torch.int64 and torch.equal(rank[verb][key], counts), (case, key)
            # a mean of whole numbers is the same on all ranks
            assert rank[f"{verb} scores"] == one[f"{verb} scores"] and one[f"{verb} scores"], case


def test_every_image_is_predicted_once_and_as_by_one_process(both, alone):
    for case in cases_with("predict"):
        one, (first, second) = alone(case)["predict"], (rank["predict"] for rank in both[case])
        assert len(first) == len(second) + 1 and not set(first) & set(second), case
        assert set(first | second) == set(one), case
        for name, arrays in (first | second).items():
            assert arrays.keys() == one[name].keys()
            assert all(torch.equal(value, one[name][key]) for key, value in arrays.items()), (case, name)


@pytest.mark.parametrize("case", cases_with("fit"))
def test_steps_are_those_of_one_process(case, both, alone):
    one, ranks = alone(case), both[case]
    steps = len(one["gradients"])
    assert steps == CASES[case].steps
    if CASES[case].norms == "own":
        shares = [first + second for first, second in zip(one["ids"][::2], one["ids"][1::2], strict=True)]
    else:
        shares = one["ids"]
    assert shares == [first + second for first, second in zip(ranks[0]["ids"], ranks[1]["ids"], strict=True)]
    for step in range(steps):
        wanted = one["gradients"][step]
        for rank in ranks:
            found = rank["gradients"][step]
            assert found.keys() == wanted.keys() and wanted
            error = torch.stack([(found[n] - g).norm() for n, g in wanted.items()]).norm()
            scale = torch.stack([g.norm() for g in wanted.values()]).norm()
            assert scale > 0 and error <= TOLERANCE * scale, (step, float(error / scale))


@pytest.mark.parametrize("case", cases_with("fit"))
def test_weights_and_memories_are_those_of_one_process(case, both, alone):
    one, ranks = dict(alone(case)["state"]), [rank["state"] for rank in both[case]]
    if "trained" in one:  # classes of episodes: each rank notes its own, and checkpoints hold those of all
        assert torch.equal(one.pop("trained"), ranks[0]["trained"] | ranks[1]["trained"])
    for name, value in one.items():
        running = CASES[case].norms == "own" and name.rpartition(".")[2].startswith(("running", "num_batches"))
        # each rank keeps the statistics of its own images; a checkpoint has those of the first
        assert running or torch.equal(ranks[0][name], ranks[1][name]), name
        if not running:
            torch.testing.assert_close(ranks[0][name], value, rtol=1e-4, atol=1e-5, msg=lambda m, n=name: f"{n}: {m}")


def test_cases_reach_what_they_are_about(alone, worlds):
    """Banks and memories hold something, and shares differ in pixels that count."""
    assert alone("sfc")["state"]["bank.tags"].sum() > 0
    assert int(alone("cti")["state"]["memory.count"].min()) > 2  # of every class full, and written over
    masks = torch.cat([batch["mask"] for batch in CASES["deeplab"].data(worlds, 2).train_dataloader()])
    assert len((masks != 255).sum(dim=(1, 2)).view(-1, 2).sum(dim=1).unique()) > 1
