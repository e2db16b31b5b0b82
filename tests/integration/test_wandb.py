"""What W&B records of a chain of stages, read back from the files of offline runs."""

import json
import os

import pytest

from frugalseg.cli import main
from tests.callbacks.wandb_records import Recorded
from tests.callbacks.wandb_server import StandIn
from tests.conftest import REPOSITORY

EXPERIMENTS = REPOSITORY / "experiments"
FOLDER = "mini-sfc-tracked/seed0"


def recorded(folder) -> Recorded:
    """The one offline run of a stage's folder."""
    (found,) = (folder / "wandb").glob("offline-run-*")
    return Recorded(found)


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return tmp_path_factory.mktemp("tracked") / "runs"


@pytest.fixture(scope="module")
def trained(world, root):
    """Words of a Trainer's command on a tiny world."""
    settings = {
        "trainer.max_steps": 3, "trainer.val_check_interval": 3, "trainer.log_every_n_steps": 1, "run.root": root,
        "run.name": "tracked", "data.init_args.root": world, "data.init_args.batch_size": 4, "data.init_args.limit": 8,
        "model.init_args.bank_start": 0, "model.init_args.calibration_start": 1,
    }  # fmt: skip

    def build(verb, *stages):
        files = ["_base/trainer.yaml", *(f"miniature/sfc/{stage}.yaml" for stage in stages), "_base/cpu.yaml"]
        flags = [word for key, value in settings.items() for word in (f"--{key}", str(value))]
        return [verb, *[word for file in files for word in ("--config", str(EXPERIMENTS / file))], *flags]

    return build


@pytest.fixture(scope="module")
def classify(trained):
    return trained("fit", "classify")


@pytest.fixture(scope="module")
def chain(world, root, trained, classify):
    """Folder of a seed whose stages have run offline in one process: fit, predict and scores."""
    top = root / FOLDER
    predict = [*trained("predict", "classify", "cam"), "--ckpt_path", str(top / "classify/checkpoints/last.ckpt")]
    score = ["--root", str(world), "--experiment", "mini-sfc", "--stage", "score", "--limit", "8", "--workers", "1"]
    score += ["--maps", str(top / "cam/maps"), "--out", str(top / "score"), "--pictures", "1", "--quiet"]
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("WANDB_API_KEY", raising=False)
        patch.setenv("WANDB_MODE", "offline")
        assert main([*classify, "+", *predict, "+", "evaluate", *score]) == 0
        # what the Trainer's stages leave to those after them
        assert os.environ["WANDB_MODE"] == "offline"
    return top


@pytest.fixture
def again(chain, classify, monkeypatch):
    """The classifier's folder after its fit was continued; W&B names folders by the second."""
    monkeypatch.setenv("WANDB_MODE", "offline")
    (chain / "classify/done.json").unlink()
    assert main(classify) == 0
    return chain / "classify"


@pytest.fixture
def server(monkeypatch):
    found = StandIn()
    monkeypatch.setenv("WANDB_BASE_URL", found.url)
    yield found
    found.close()


def test_each_stage_of_one_process_is_a_run_of_its_own(chain):
    runs = {stage: recorded(chain / stage) for stage in ("classify", "cam", "score")}
    assert {stage: (r.run.run_group, r.run.job_type) for stage, r in runs.items()} == {
        stage: ("mini-sfc-tracked", stage) for stage in runs
    }
    assert {tuple(r.run.tags) for r in runs.values()} == {("sfc", "VOC", "seed0")}
    assert len({r.run.run_id for r in runs.values()}) == 3
    assert {r.run.display_name for r in runs.values()} == {f"{FOLDER}/{stage}" for stage in runs}
    assert {code for r in runs.values() for code in r.exit_codes} == {0}
    assert {r.run.project for r in runs.values()} == {"frugalseg"}


def test_settings_are_grouped_by_what_the_run_is_and_hold_the_resolved_configuration(chain):
    facts = {
        "run_experiment": "mini-sfc-tracked", "run_stage": "classify", "run_seed": 0, "run_fold": None,
        "run_paper": "sfc", "run_benchmark": "VOC",
    }  # fmt: skip
    config, scored = recorded(chain / "classify").config, recorded(chain / "score").config
    assert {key: config[key] for key in facts} == facts
    assert {key: scored[key] for key in facts} == {**facts, "run_stage": "score"}
    assert config["config"]["model"]["init_args"]["bank_start"] == 0
    assert config["config"]["trainer"]["max_steps"] == 3
    assert config["trainable_parameters"] > 0
    assert scored["identity"] == json.loads((chain / "score/provenance.json").read_text())["identity"]


def test_metrics_go_over_the_steps_of_the_trainer(chain):
    run = recorded(chain / "classify")
    rows = [row for row in run.history if "train/loss_total" in row]
    assert [row["trainer/global_step"] for row in rows] == [0, 1, 2]
    (row,) = [row for row in run.history if "val/miou_sum" in row]
    assert row["val/miou_sum"] == json.loads((chain / "classify/metrics.json").read_text())["val/miou_sum"]
    assert {(m.name, m.glob_name, m.step_metric) for m in run.metrics} == {
        ("trainer/global_step", "", ""),
        ("", "*", "trainer/global_step"),
    }
    assert "stats" in run.kinds  # W&B's own measurements of the system


def test_pictures_of_validation_and_of_scores_are_recorded(chain):
    drawn = sorted(path.stem.split("_step")[0] for path in (chain / "classify/pictures").glob("*.png"))
    keys = {key for key in recorded(chain / "classify").keys if key.endswith("._type")}
    assert keys == {f"val/maps/{name}._type" for name in drawn}
    assert drawn
    scored = {key.removesuffix("._type") for key in recorded(chain / "score").keys if key.endswith("._type")}
    files = [path for part in ("figures", "pictures") for path in (chain / "score" / part).glob("*.png")]
    assert scored == {f"{path.parent.name}/{path.stem}" for path in files} | {"classes/train"}


def test_scores_of_classes_are_a_table_and_all_others_metrics(chain):
    run, metrics = recorded(chain / "score"), json.loads((chain / "score/metrics.json").read_text())
    (row,) = run.history
    assert {key: row[key] for key in metrics if "/iou" not in key} == {
        k: v for k, v in metrics.items() if "/iou" not in k
    }
    assert not [key for key in row if key.startswith("train/iou")]
    (folder,) = (chain / "score/wandb").glob("offline-run-*")
    table = json.loads((folder / "files" / row["classes/train.path"]).read_text())
    found = {
        f"train/iou_{rule}/{cells[0]}": value
        for cells in table["data"]
        for rule, value in zip(table["columns"][1:], cells[1:], strict=True)
        if value is not None
    }
    assert found == {key: value for key, value in metrics.items() if key.startswith("train/iou_")}


def test_each_stage_uses_what_the_one_before_it_logged(chain):
    runs = {stage: recorded(chain / stage) for stage in ("classify", "cam", "score")}
    made = {name: found for r in runs.values() for name, found in r.manifests(used=False).items()}
    assert {name: kind for name, (kind, _) in made.items() if kind != "run_table"} == {
        "mini-sfc-tracked-seed0-classify": "checkpoint",
        "mini-sfc-tracked-seed0-cam": "maps",
        "mini-sfc-tracked-seed0-score": "scores",
    }
    assert {stage: set(r.manifests(used=True)) for stage, r in runs.items()} == {
        "classify": set(),
        "cam": {"mini-sfc-tracked-seed0-classify"},
        "score": {"mini-sfc-tracked-seed0-cam"},
    }
    for run in runs.values():
        for name, used in run.manifests(used=True).items():
            assert used == made[name]  # type and digest: both ends meet in one version
    local = [content.local_path for r in runs.values() for a in r.artifacts for content in a.manifest.contents]
    assert len(local) == 6
    assert [path for path in local if not path.startswith(str(chain))] == []  # nothing waits in the user's home


def test_sync_sends_a_continued_run_once_with_its_lineage(chain, again, server, monkeypatch, capsys):
    """The classifier's run has been continued: two folders, one id."""
    monkeypatch.delenv("WANDB_MODE")
    runs = str(chain.parents[1])
    for name in ("WANDB_API_KEY", "HOME"):
        monkeypatch.setenv(name, "")
    monkeypatch.setenv("NETRC", "/nowhere")
    assert main(["sync", runs]) == 2
    assert capsys.readouterr().err == (
        "frugalseg: error: offline runs to send: 4, but there is no W&B key; set WANDB_API_KEY, or run `wandb login`\n"
    )
    monkeypatch.setenv("WANDB_API_KEY", "a" * 40)
    assert main(["sync", runs]) == 0
    identities = {stage: (chain / stage / "wandb-id.txt").read_text().strip() for stage in ("classify", "cam", "score")}
    assert set(server.runs) == set(identities.values())
    assert {server.runs[i]["groupName"] for i in identities.values()} == {"mini-sfc-tracked"}
    assert {server.runs[i]["jobType"] for i in identities.values()} == set(identities)
    steps = [row["trainer/global_step"] for row in server.history[identities["classify"]] if "train/loss_total" in row]
    assert steps == [0, 1, 2]
    maker = {artifact: run for run, artifact in server.made}
    assert {(maker[artifact], run) for run, artifact in server.used} == {
        (identities["classify"], identities["cam"]),
        (identities["cam"], identities["score"]),
    }
    asked = len(server.graph)
    assert main(["sync", runs]) == 0
    assert "offline runs to send: 0" in capsys.readouterr().err
    assert len(server.graph) == asked


def test_an_error_ends_in_one_line_and_a_failed_run(chain, classify, monkeypatch, capfd):
    monkeypatch.setenv("WANDB_MODE", "offline")
    words = [*classify, "--run.stage", "broken", "--data.init_args.train_split", "absent"]
    capfd.readouterr()
    assert main(words) == 2
    told = capfd.readouterr()
    assert "wandb" not in (told.out + told.err).lower()
    assert told.err.splitlines()[-1].startswith("frugalseg: error: ")
    assert recorded(chain / "broken").exit_codes == [1]
