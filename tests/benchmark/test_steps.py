"""Rows that all papers have: kinds of operators, fitted exponents, turns of the two loops, tables and the picture."""

from copy import deepcopy
from types import SimpleNamespace

import pytest
import torch
from lightning.pytorch import Callback
from PIL import Image
from torch import nn

from tests.benchmark import __main__ as benchmark
from tests.benchmark import growth, papers, picture, shares, tables, trainer
from tests.benchmark.measure import Group, Measured, Row
from tests.benchmark.registry import GROUPS
from tests.benchmark.registry_steps import GROWTH


@pytest.mark.slow
@pytest.mark.parametrize("group", GROUPS, ids=lambda group: f"{group.work.rpartition('.')[2]}-{group.of or ''}")
def test_every_group_measures_all_its_rows(group, monkeypatch):
    """Quick; what cannot run here says why."""
    rows = benchmark.run_group(group, "", quick=True)
    assert [row.get("error") for row in rows] == [None] * len(group.rows)
    assert all(row["value"] is not None or row["skipped"] for row in rows)


def test_ids_are_not_given_twice():
    ids = [row.id for group in GROUPS for row in group.rows]
    assert len(set(ids)) == len(ids)
    assert {"trainer.over_plain_loop", "ddp.two_over_one", *tables.OVER_BARE.values()} <= set(ids)


def test_slow_rows_are_run_by_name_alone(monkeypatch):
    slow, fast = Group("x:y", Row("a.slow", ""), slow=True), Group("x:y", Row("a.fast", ""))
    monkeypatch.setattr(benchmark, "GROUPS", [slow, fast])
    assert benchmark.chosen("") == [fast] and benchmark.chosen("a.slow") == [slow]


# ---------------------------------------------------------------------- shares


@pytest.mark.parametrize(
    ("operator", "kind"),
    [
        ("aten::addmm", "matrix products"), ("aten::comm", shares.OTHER), ("aten::native_batch_norm", "normalisation"),
        ("aten::_slow_conv2d_backward", "convolution, backward"), ("aten::mkldnn_convolution", "convolution, forward"),
        ("aten::add_", shares.OTHER), ("aten::index_put_", "gathering and scattering"), ("aten::_softmax", "softmax and losses"),
    ],
)  # fmt: skip
def test_kind_of_an_operator(operator, kind):
    assert shares.kind_of(operator) == kind


def test_shares_find_what_a_step_does_most():
    """A large product and nothing else; then an optimiser over many numbers and hardly anything else."""
    x = torch.randn(300, 300)
    kinds, _ = shares.measure(lambda: x @ x, 2)
    assert kinds.most_common(1)[0][0] == "matrix products"
    weight = nn.Parameter(torch.randn(400_000))
    weight.grad = torch.randn_like(weight)
    optimiser = torch.optim.AdamW([weight])
    kinds, _ = shares.measure(optimiser.step, 2)
    assert kinds["optimiser"] > 0.5 * sum(kinds.values())


def test_three_shares_of_a_step_are_the_largest_and_in_order():
    rows = shares.three_largest("cti", quick=True)
    values = [rows[f"cti.share_{place}"].value for place in (1, 2, 3)]
    told = rows["cti.share_1"].extra["shares"]
    assert values == sorted(told.values(), reverse=True)[:3]
    assert sum(told.values()) == pytest.approx(100, abs=0.5)


def test_every_paper_s_step_learns():
    """Weights move, so that a step is one."""
    for paper in papers.STEPS:
        step = papers.STEPS[paper](True)
        before = [p.clone() for p in step.task.parameters()]
        step.work()
        assert any(not torch.equal(a, b) for a, b in zip(before, step.task.parameters(), strict=True)), paper


# ---------------------------------------------------------------------- growth


@pytest.mark.parametrize("power", [0.5, 1.0, 2.0])
def test_fit_finds_the_power(power):
    exponent, explained = growth.fit({x: 3 * x**power for x in (10, 20, 40, 80)})
    assert exponent == pytest.approx(power) and explained == pytest.approx(1)


def test_every_curve_has_a_row():
    assert set(GROWTH) == set(growth.CURVES)


def test_points_and_picture(tmp_path, monkeypatch):
    """Of clocks that are set by hand: the work takes as many seconds as the square root of its size, and once it is disturbed."""
    curve = growth.Curve("pixels", {n: lambda: None for n in (20_000, 80_000)})
    monkeypatch.setattr(growth, "CURVES", {"made_up": lambda quick: curve})
    monkeypatch.setattr(
        growth, "interleave", lambda works, rounds: {x: [(9.0, int(x) ** 0.5 * slow) for slow in (3, 1)] for x in works}
    )
    row = growth.measure("made_up", quick=True)["growth.made_up"]
    assert [x for x, _ in row.extra["points"]] == [20_000, 80_000] and row.value == pytest.approx(0.5)
    picture.draw(tmp_path / "rows.png", [benchmark.record(Row("growth.made_up", ""), row, quick=False)])
    with Image.open(tmp_path / "rows.png") as image:
        assert image.width > 200


def test_the_picture_names_the_work():
    """A training step is not what CRF and walk are."""
    rows = [
        benchmark.record(Row(f"growth.{name}", ""), Measured(1.0, "", {"axis": "x", "points": [[1, 1], [2, 2]]}), False)
        for name in ("sfc_pixels", "crf_pixels", "dsmf_shots")
    ]
    figure = picture.figure_of(rows)
    assert figure.get_suptitle() == "CPU seconds, one thread"
    told = [text.get_text() for axes in figure.axes for text in axes.get_legend().get_texts()]
    assert told == ["SFC's step: 1.00", "dense CRF: 1.00", "DSMF-Net's answer to an episode: 1.00"]


def test_without_points_there_is_no_picture(tmp_path):
    picture.draw(tmp_path / "rows.png", [benchmark.record(Row("a.b", ""), Measured(1.0), quick=False)])
    assert list(tmp_path.iterdir()) == []


# ---------------------------------------------------------------------- the loop


def test_blocks_take_turns_and_the_first_does_not_count(monkeypatch):
    """The clock is moved by hand: 3 s a step of the Trainer's, 2 s a step of the other loop."""
    now = 0.0

    def move(seconds):
        nonlocal now
        now += seconds

    monkeypatch.setattr(trainer, "_clocks", lambda: (now, 10 * now))
    blocks = trainer.Blocks(lambda: move(2.0), length=2, together=2)
    for step in range(1, 13):
        move(100.0 if step <= 4 else 3.0)  # set-up, and the block that warms up
        blocks.on_train_batch_end(SimpleNamespace(global_step=step), None)
    found = blocks.rounds()
    assert found == {"trainer": [(12.0, 120.0)] * 2, "plain": [(8.0, 80.0)] * 2}


def test_the_plain_loop_learns_what_the_trainer_learns():
    """Three steps of each from the same weights: else the ratio would be of different things."""
    made, steps = trainer.make(small=True), 3
    made.task.hparams.update(lr=1e-3, head_lr=1e-3)
    other, first = deepcopy(made.task), deepcopy(made.task)
    plain = trainer.plain_step(other, made.batch, steps)
    for _ in range(steps):
        plain()
    trainer.fit_as_a_run(made, steps, Callback())
    parameters = [list(task.parameters()) for task in (made.task, other, first)]
    for trained, alone, before in zip(*parameters, strict=True):
        torch.testing.assert_close(trained, alone)
        assert not trained.requires_grad or not torch.equal(trained, before)


# ---------------------------------------------------------------------- tables


def test_page_tells_steps_before_and_after_and_what_is_missed():
    def rows(over):
        made = [
            benchmark.record(Row("sfc.step_over_bare", "x", bound=1.1), Measured(over), quick=False),
            benchmark.record(Row("sfc.share_1", "y", "%"), Measured(55.0, "convolution"), quick=False),
            benchmark.record(Row("cti.share_1", "y", "%"), None, quick=False, error="boom"),
        ]
        return [{"id": "machine", "what": f"machine {over}", "holds": None}, *made]

    page = tables.page(rows(1.3), rows(1.7))
    after, before = page.split("## Training steps before")
    assert "| SFC | 1.3 (<= 1.1) | - | - | 55 % convolution |" in after and "| SFC | 1.7 (<= 1.1)" in before
    assert "- sfc.step_over_bare: 1.3, bound <= 1.1" in before and "- cti.share_1: failed, boom" in before
    assert "machine 1.7" in before and "| `sfc.share_1` | 55 % |" in before
