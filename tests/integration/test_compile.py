"""The nets of every task compile in one piece, once for all steps, and compute what they did before."""

import pytest
import torch
import yaml
from lightning.pytorch import Callback, LightningModule
from torch import nn
from torch._dynamo.utils import counters

from frugalseg.callbacks import Compile
from frugalseg.callbacks.compiled import hot_methods
from frugalseg.cli import main
from tests.integration.conftest import EXPERIMENTS
from tests.integration.speed_cases import CASES, distance, fit, write_worlds
from tests.stages.toys import loader
from tests.stages.toys import world as toy_world

STEPS = 4
CHEAP = ("tags", "probe cached", "cti, drop path")
"""Those that compile in seconds; the others' compilation is slow, so that they are marked."""
BOUND = 2e-5
"""Of losses and gradients, relative: the same numbers in float32, some of them added up in another order."""


@pytest.fixture(scope="module")
def worlds(world, tmp_path_factory):
    return write_worlds(tmp_path_factory.mktemp("tiles"), world)


@pytest.fixture(autouse=True)
def _fresh():
    torch.compiler.reset()
    counters.clear()
    yield
    torch.compiler.reset()


class Graphs(Callback):
    """Notes after each step how many graphs there are."""

    def __init__(self):
        self.after: list[int] = []

    def on_train_batch_end(self, *_):
        self.after.append(counters["stats"]["unique_graphs"])


def compiled_as_plain(case, worlds, backend):
    plain, graphs = fit(case, case.data(worlds), STEPS), Graphs()
    torch.manual_seed(0)
    task = case.task()
    names = list(task.state_dict())
    found = fit(case, case.data(worlds), STEPS, Compile(backend), graphs, task=task)
    assert dict(counters["graph_break"]) == {}
    assert graphs.after[0] > 0 and graphs.after == graphs.after[:1] * STEPS  # compiled in the first step, for all
    assert found.losses == pytest.approx(plain.losses, rel=BOUND)
    assert distance(found, plain) <= BOUND
    assert list(found.task.state_dict()) == names
    # nothing stays behind
    assert not any(name in vars(owner) for owner, name in hot_methods(found.task))


@pytest.mark.parametrize("name", CHEAP)
def test_a_net_compiles_in_one_piece_and_once(name, worlds):
    compiled_as_plain(CASES[name], worlds, "eager")


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["eager", "aot_eager"])
@pytest.mark.parametrize("name", CASES)
def test_every_net_compiles_in_one_piece_and_once(name, worlds, backend):
    compiled_as_plain(CASES[name], worlds, backend)


def test_an_overlay_that_is_given_twice_compiles_once(worlds):
    case, counts = CASES["tags"], []
    for callbacks in ([Compile("eager")], [Compile("eager"), Compile("eager")]):
        torch.compiler.reset()
        counters.clear()
        task = fit(case, case.data(worlds), 2, *callbacks).task
        counts.append(counters["stats"]["unique_graphs"])
        assert not any(name in vars(owner) for owner, name in hot_methods(task))
    assert counts[0] == counts[1] > 0


class Broken(LightningModule):
    """Leaves compiled code in its net."""

    def __init__(self):
        super().__init__()
        self.net = Leaving(3, 5, 1)

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 1e-3)

    def training_step(self, batch, batch_idx):
        return self.net(batch["image"]).square().mean()

    def validation_step(self, batch, batch_idx):
        self.net(batch["image"])


class Leaving(nn.Conv2d):
    def forward(self, x):
        torch._dynamo.graph_break()
        return super().forward(x)


def test_a_break_is_counted(worlds):
    case = CASES["tags"]._replace(task=Broken)
    fit(case, loader(toy_world(8, 0)), 2, Compile("eager"))
    assert sum(counters["graph_break"].values()) > 0


def test_a_break_ends_the_fit_where_one_piece_is_demanded(worlds):
    case, callback = CASES["tags"]._replace(task=Broken), Compile("eager", fullgraph=True)
    task = Broken()
    with pytest.raises(RuntimeError):
        fit(case, loader(toy_world(8, 0)), 2, callback, task=task)
    assert "forward" not in vars(task.net)


def test_validation_runs_as_written(worlds):
    """Its images have many sizes: each would be compiled."""
    graphs, case = Graphs(), CASES["tags"]
    fit(
        case,
        case.data(worlds),
        STEPS,
        Compile("eager"),
        graphs,
        limit_val_batches=6,
        val_check_interval=2,
    )
    assert graphs.after == graphs.after[:1] * STEPS and graphs.after[0] > 0


@pytest.mark.slow
def test_overlays_join_and_leave_a_finished_stage_up_to_date(words, tmp_path, capfd):
    """They change how fast a stage runs, not what it is; each adds to the callbacks that are there."""
    names = ("channels-last", "compile", "recompute")
    overlays = [word for name in names for word in ("--config", str(EXPERIMENTS / f"_base/{name}.yaml"))]
    # no C++ compiler is asked for
    eager = ["--config", str(tmp_path / "eager.yaml")]
    text = (EXPERIMENTS / "_base/compile.yaml").read_text().replace("backend: inductor", "backend: eager")
    (tmp_path / "eager.yaml").write_text(text)
    overlays[2:4] = eager
    assert main(words("fit", *overlays)) == 0
    folder = tmp_path / "runs/mini-sfc/seed0/classify"
    kept = yaml.safe_load((folder / "config.yaml").read_text())["trainer"]["callbacks"]
    ours = ["ChannelsLast", "Compile", "Recompute"]
    assert [each["class_path"].rsplit(".", 1)[-1] for each in kept][-3:] == ours
    assert counters["stats"]["unique_graphs"] > 0
    capfd.readouterr()
    assert main(words("fit")) == 0
    assert "up to date" in capfd.readouterr().err
    plain = [*words("fit"), "--run.name", "plain"]
    assert main(plain) == 0
    states = [
        torch.load(path / "checkpoints/last.ckpt", weights_only=True)["state_dict"]
        for path in (folder, tmp_path / "runs/mini-sfc-plain/seed0/classify")
    ]
    assert states[0].keys() == states[1].keys()
    for name, value in states[0].items():
        torch.testing.assert_close(value, states[1][name], rtol=1e-3, atol=1e-4)
