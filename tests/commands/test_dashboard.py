"""W&B's dashboards show what stages log, and its sweeps set what stages have."""

import ast
import importlib
import json
import re

import numpy as np
import pytest
import torch
import yaml

from frugalseg.analysis.dashboard import PAGES, SFC, Panel, Section, definition
from frugalseg.analysis.groups import GROUPS
from frugalseg.analysis.maps import SWEEPS
from frugalseg.analysis.scores import flat_scores
from frugalseg.analysis.tables import BEST
from frugalseg.callbacks.wandb_tables import class_tables, scalars
from frugalseg.cli import main
from frugalseg.ops.cam import RULES
from frugalseg.papers.dsmf.scoring import over_seeds, scores
from tests.callbacks.wandb_server import StandIn
from tests.conftest import REPOSITORY

PACKAGE, SWEEP_FILES = REPOSITORY / "src/frugalseg", sorted((REPOSITORY / "experiments/sweeps").glob("*.yaml"))
LABELS = ("crf", "seed_labels", "psa", "refined", "pseudo", "")
"""Kinds of masks that chains score; the nameless ones are the segmenter's."""
# wandb-workspaces writes its models for both versions of pydantic
pytestmark = pytest.mark.filterwarnings("ignore:Pydantic V1 style")
KEY = re.compile(r"(train|val|test|model|protocol)/[a-z_]\w*")


def written_keys() -> set[str]:
    """Whole keys that stand in the code of tasks and of what they count with, and those that are `train/loss_` and the name of a term."""
    found, terms = set(), set()
    for file in [path for part in ("papers", "stages", "nn") for path in (PACKAGE / part).rglob("*.py")]:
        tree = ast.parse(file.read_text())
        for node in ast.walk(tree):
            if isinstance(node, ast.Constant) and isinstance(node.value, str) and KEY.fullmatch(node.value):
                found.add(node.value)
            if isinstance(node, ast.ClassDef) and [ast.unparse(base) for base in node.bases] == ["NamedTuple"]:
                fields = {item.target.id for item in node.body if isinstance(item, ast.AnnAssign)}
                terms |= fields if "total" in fields else set()
            if isinstance(node, ast.Subscript) and ast.unparse(node.value) in ("terms.parts", "terms.monitors"):
                name = ast.literal_eval(node.slice) if isinstance(node.slice, ast.Constant) else ""
                found.add(f"train/loss_{name}" if ast.unparse(node.value) == "terms.parts" else f"train/{name}")
    return found | {f"train/loss_{name}" for name in terms}


def scored_keys() -> dict[str, float]:
    """Keys of `evaluate`, of few-shot validation and tests, and of IRN's validation, from the functions that make them."""
    counts = {name: np.eye(3, dtype=np.int64) for name in (*RULES, *(rule + BEST for rule in SWEEPS), *LABELS)}
    groups = dict(zip(GROUPS, np.arange(3)[:, None], strict=True))
    found: dict[str, float] = {}
    for split in ("train", "val"):
        found |= flat_scores(counts, split, ["background", "a", "b"], groups, background=True)
    sums = torch.ones(3, 5, dtype=torch.int64)
    episodes = scores(sums, "test")
    found |= {f"val/{key}": value for key, value in episodes.items()}
    return found | {f"test/{key}": value for key, value in over_seeds({0: episodes, 1: episodes}).items()}


@pytest.fixture(scope="module")
def logged() -> set[str]:
    """All that a panel may show: metrics, and columns of tables as `<table>:<column>`."""
    found = scored_keys()
    tables = {f"{key}:{column}" for key, table in class_tables(found).items() for column in table.columns}
    # SFC's, IRN's and a test's speed are put together from words
    from frugalseg.papers.sfc.task import VALIDATED

    together = {f"val/miou_{name}" for name in VALIDATED} | {"test/episodes_per_second", "val/miou_std"}
    return written_keys() | set(scalars(found)) | tables | together


def unknown(pages, logged) -> list[str]:
    """Keys of panels that nobody logs."""
    panels = [panel for page in pages for section in page.sections for panel in section.panels]
    keys = [[":".join(panel.keys)] if panel.kind == "classes" else panel.keys for panel in panels]
    return [key for of_panel in keys for key in of_panel if key not in logged]


def test_panels_show_what_is_logged(logged):
    assert unknown(PAGES, logged) == []
    assert len({page.paper for page in PAGES}) == 4


def test_a_panel_of_what_nobody_logs_is_found(logged):
    wrong = (Panel("x", "lines", ("val/nobody",)), Panel("x", "classes", ("classes/train", "nobody")))
    page = SFC._replace(sections=(Section("x", wrong),))
    assert unknown([page], logged) == ["val/nobody", "classes/train:nobody"]


def test_groups_of_panels_are_settings_of_runs():
    from frugalseg.callbacks.wandb_names import RunFacts

    known = RunFacts("g", "s", "n", 0, 0, "p", "b", {}).settings
    assert {panel.group for page in PAGES for section in page.sections for panel in section.panels} <= set(known)


def test_without_a_key_the_definition_goes_to_a_file(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("WANDB_MODE", "offline")
    out = tmp_path / "new" / "dashboard.json"
    assert main(["dashboard", "--entity", "team", "--project", "p", "--out", str(out)]) == 0
    assert json.loads(out.read_text()) == json.loads(json.dumps(definition("team", "p")))
    assert "nothing was sent" in capsys.readouterr().err
    assert [path.name for path in out.parent.iterdir()] == ["dashboard.json"]
    assert main(["dashboard", "--out", str(out)]) == 0
    assert "<entity>" in out.read_text()
    capsys.readouterr()
    monkeypatch.setenv("WANDB_API_KEY", "a" * 40)
    for words in (["--project", ""], []):
        monkeypatch.setenv("WANDB_MODE", "offline" if words else "online")
        assert main(["dashboard", *words, "--out", str(out)]) == 2
        assert "one is missing" in capsys.readouterr().err


def test_with_a_key_the_workspace_and_four_reports_are_saved(tmp_path, monkeypatch, capsys):
    importlib.import_module("wandb_workspaces")
    server = StandIn()
    monkeypatch.setenv("WANDB_BASE_URL", server.url)
    monkeypatch.setenv("WANDB_API_KEY", "a" * 40)
    monkeypatch.delenv("WANDB_MODE")
    assert main(["dashboard", "--entity", "e", "--project", "p", "--out", str(tmp_path / "definition.json")]) == 0
    server.close()
    assert json.loads((tmp_path / "definition.json").read_text())["entity"] == "e"
    assert len(capsys.readouterr().out.split()) == 5
    assert set(server.views) == {"frugalseg", *(page.title for page in PAGES)}
    for page in PAGES:
        shown, text = json.dumps(server.views["frugalseg"]), json.dumps(server.views[page.title])
        keys = [key for section in page.sections for panel in section.panels for key in panel.keys]
        assert [key for key in keys if f'"{key}"' not in shown and f":{key}" not in shown] == []
        assert [key for key in keys if f'"{key}"' not in text and f":{key}" not in text] == []
        assert f'"{page.paper}"' in text  # the tag that chooses its runs


def test_dashboard_says_in_one_line_what_w_and_b_refuses(monkeypatch, capsys):
    server = StandIn(refuse=True)
    monkeypatch.setenv("WANDB_BASE_URL", server.url)
    monkeypatch.setenv("WANDB_API_KEY", "a" * 40)
    monkeypatch.delenv("WANDB_MODE")
    assert main(["dashboard", "--entity", "e", "--project", "p"]) == 2
    server.close()
    assert capsys.readouterr().err.splitlines()[-1].startswith("frugalseg: error: W&B refused e/p: ")


# ---------------------------------------------------------------------- sweeps


def lookup(settings, key):
    for part in key.split("."):
        settings = settings[part]
    return settings


def samples(rule):
    """The first and the last value that a parameter may take."""
    assert rule.keys() <= {"value", "values", "distribution", "min", "max"}
    if "distribution" in rule:
        assert rule["distribution"] in {"uniform", "log_uniform_values", "int_uniform"}
        assert rule["min"] < rule["max"]
        return rule["min"], rule["max"]
    values = rule.get("values") or [rule["value"]]
    return values[0], values[-1]


@pytest.mark.parametrize("file", SWEEP_FILES, ids=lambda file: file.stem)
@pytest.mark.parametrize("pick", [0, 1], ids=["first", "last"])
def test_a_sweep_sets_what_the_command_line_knows(file, pick, capsys, monkeypatch):
    from wandb.sdk.launch.sweeps.utils import create_sweep_command_args

    sweep = yaml.safe_load(file.read_text())
    assert sweep["method"] in {"grid", "random", "bayes"}
    assert (REPOSITORY / sweep["program"]).is_file()
    chosen = {key: samples(rule)[pick] for key, rule in sweep["parameters"].items()}
    # as W&B's agent writes them
    given = create_sweep_command_args({"args": {key: {"value": value} for key, value in chosen.items()}})
    head, words = sweep["command"][:4], sweep["command"][4:]
    assert head == ["${env}", "${interpreter}", "-m", "frugalseg"]
    assert words[-1] == "${args}"
    monkeypatch.chdir(REPOSITORY)
    with pytest.raises(SystemExit) as leaving:
        main([*words[:-1], *given["args"], "--print_config"])
    assert not leaving.value.code
    settings = yaml.safe_load(capsys.readouterr().out)
    assert {key: lookup(settings, key) for key in chosen} == chosen


@pytest.mark.parametrize("file", SWEEP_FILES, ids=lambda file: file.stem)
def test_a_sweep_aims_at_what_its_stage_logs(file, logged):
    sweep = yaml.safe_load(file.read_text())
    assert sweep["method"] == "grid" or sweep["metric"]["name"] in logged


def test_there_is_a_sweep_for_each_paper():
    assert {file.stem for file in SWEEP_FILES} == {page.paper for page in PAGES}
