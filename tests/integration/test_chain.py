"""Train, validate, make maps, score and report through `main([...])`, as a user does."""

import csv
import json

import numpy as np
import pytest
import torch

from frugalseg.cli import main
from frugalseg.data.voc import class_table, index
from tests.integration.conftest import EXPERIMENTS


def fit(words, *extra):
    assert main(words("fit", *extra)) == 0


@pytest.fixture
def trained(words, tmp_path):
    fit(words)
    return tmp_path / "runs/mini-sfc/seed0/classify"


def test_a_run_folder_holds_what_the_design_says(trained, read_yaml):
    for name in (
        "config.yaml",
        "provenance.json",
        "metrics.csv",
        "metrics.json",
        "done.json",
        "checkpoints/last.ckpt",
        "checkpoints/best.ckpt",
    ):
        assert (trained / name).is_file(), name
    assert {p.name for p in (trained / "checkpoints").iterdir()} == {"best.ckpt", "last.ckpt"}
    metrics = json.loads((trained / "metrics.json").read_text())
    assert {"val/miou_m0", "val/miou_mw", "val/miou_mp", "val/miou_sum", "val/selection"} <= set(metrics)
    assert metrics["val/selection"] == pytest.approx(metrics["val/miou_mw"] + metrics["val/miou_mp"])
    provenance = json.loads((trained / "provenance.json").read_text())
    assert (
        provenance["experiment"] == "mini-sfc"
        and provenance["seed"] == 0
        and provenance["command"][:2] == ["frugalseg", "fit"]
    )
    assert provenance["hyperparameters"]["num_classes"] == 13  # linked from the data, not typed in the YAML
    assert provenance["splits"]["train"] == 24 and len(provenance["data"]) == 64
    assert provenance["versions"]["torch"] == torch.__version__.split("+")[0]
    assert read_yaml(trained / "config.yaml")["model"]["class_path"] == "frugalseg.papers.sfc.SFC"
    assert len(list((trained / "pictures").glob("*.png"))) == 6
    with (trained / "metrics.csv").open() as file:
        steps = [int(row["step"]) for row in csv.DictReader(file) if row.get("train/loss_total")]
    assert steps == [0, 1, 2, 3, 4]


def test_a_mistyped_root_leaves_what_was_finished_where_it_is(words, trained, tmp_path, capsys):
    assert main(words("fit", "--data.init_args.root", str(tmp_path / "nowhere"))) == 2
    assert "does not exist; set data.root" in capsys.readouterr().err
    assert (trained / "done.json").is_file() and not [p for p in trained.parent.iterdir() if ".old-" in p.name]


def test_a_finished_stage_is_not_done_again_and_a_changed_one_moves_aside(words, trained, capsys):
    before = (trained / "checkpoints/last.ckpt").stat().st_mtime_ns
    fit(words)
    assert "up to date" in capsys.readouterr().err
    assert (trained / "checkpoints/last.ckpt").stat().st_mtime_ns == before
    fit(words, "--model.init_args.lr", "0.01")
    old = [p for p in trained.parent.iterdir() if ".old-" in p.name]
    assert len(old) == 1 and (old[0] / "done.json").is_file()
    assert (trained / "checkpoints/last.ckpt").stat().st_mtime_ns != before


def test_validate_repeats_the_scores_of_the_fit(words, trained):
    checkpoint = trained / "checkpoints/last.ckpt"
    assert main(words("validate", "--ckpt_path", str(checkpoint))) == 0
    fitted = json.loads((trained / "metrics.json").read_text())
    validated = json.loads((trained.parent / "classify-validate/metrics.json").read_text())
    keys = [key for key in validated if key.startswith("val/")]
    assert len(keys) == 5
    assert {k: validated[k] for k in keys} == {k: fitted[k] for k in keys}


def test_maps_scores_and_report(words, trained, world, tmp_path, capsys):
    checkpoint = str(trained / "checkpoints/last.ckpt")
    predict = words("predict", "--ckpt_path", checkpoint, cam=True)
    assert main(predict) == 0
    maps = trained.parent / "cam/maps"
    samples = index(world, "train")
    assert {p.stem for p in maps.glob("*.npz")} == {s.id for s in samples}
    arrays = np.load(maps / f"{samples[0].id}.npz", allow_pickle=False)
    keys = arrays["keys"].tolist()
    assert keys == [0, *[t + 1 for t in samples[0].tags]]
    assert {arrays[n].shape for n in ("m0", "mw", "mp")} == {(len(keys), 64, 64)}
    assert {arrays[n].dtype for n in ("m0", "mw", "mp")} == {np.dtype(np.float16)}
    assert arrays["logits"].shape == (12, 16, 16)

    out = trained.parent / "score"
    evaluate = [
        "evaluate",
        "--maps",
        str(maps),
        "--root",
        str(world),
        "--split",
        "train",
        "--out",
        str(out),
        "--experiment",
        "mini-sfc",
        "--parts",
        "--pictures",
        "2",
        "--quiet",
    ]
    assert main(evaluate) == 0
    metrics = json.loads((out / "metrics.json").read_text())
    names = class_table(world).names
    for rule in ("m0", "mw", "mp", "sum", "seed", "walk", "tags", "chance"):
        per_class = [metrics[k] for k in (f"train/iou_{rule}/{n}" for n in names) if k in metrics]
        assert metrics[f"train/miou_{rule}"] == pytest.approx(np.mean(per_class), abs=1e-12)
    assert {f"train/logit_{k}" for k in ("tail_body_head", "head_body_head")} <= set(metrics)
    assert len(list((out / "pictures").glob("*.png"))) == 2

    capsys.readouterr()
    assert main(["report", str(trained.parent.parent), "--classes"]) == 0
    printed = capsys.readouterr().out
    assert "M0 classifier" in printed and "chance" in printed


def test_interrupted_maps_continue_with_what_is_missing(words, trained, monkeypatch):
    from frugalseg.callbacks import CamWriter

    predict = words("predict", "--ckpt_path", str(trained / "checkpoints/last.ckpt"), cam=True)
    maps = trained.parent / "cam/maps"
    write = CamWriter.on_predict_batch_end

    def stop_after_ten(self, trainer, module, outputs, batch, batch_idx, dataloader_idx=0):
        if batch_idx == 10:
            raise RuntimeError("pulled the plug")
        write(self, trainer, module, outputs, batch, batch_idx, dataloader_idx)

    monkeypatch.setattr(CamWriter, "on_predict_batch_end", stop_after_ten)
    with pytest.raises(RuntimeError, match="pulled the plug"):
        main(predict)
    first = {p.name: p.stat().st_mtime_ns for p in maps.glob("*.npz")}
    assert len(first) == 10 and not (maps.parent / "done.json").exists()
    monkeypatch.setattr(CamWriter, "on_predict_batch_end", write)
    assert main(predict) == 0
    after = {p.name: p.stat().st_mtime_ns for p in maps.glob("*.npz")}
    assert len(after) == 24 and all(after[name] == time for name, time in first.items())
    assert not [p for p in maps.iterdir() if p.suffix != ".npz"]
    (maps.parent / "done.json").unlink()
    assert main(predict) == 0  # nothing left to do is not an error


def test_two_seeds_are_aggregated(words, tmp_path, world):
    for seed in ("0", "1"):
        fit(words, "--seed_everything", seed)
        folder = tmp_path / f"runs/mini-sfc/seed{seed}"
        checkpoint = str(folder / "classify/checkpoints/last.ckpt")
        assert main(words("predict", "--seed_everything", seed, "--ckpt_path", checkpoint, cam=True)) == 0
        assert (
            main(
                [
                    "evaluate",
                    "--maps",
                    str(folder / "cam/maps"),
                    "--root",
                    str(world),
                    "--out",
                    str(folder / "score"),
                    "--experiment",
                    "mini-sfc",
                    "--quiet",
                ]
            )
            == 0
        )
    assert main(["report", str(tmp_path / "runs/mini-sfc")]) == 0
    rows = json.loads((tmp_path / "runs/mini-sfc/aggregate/score.json").read_text())
    single = [json.loads((tmp_path / f"runs/mini-sfc/seed{s}/score/metrics.json").read_text()) for s in (0, 1)]
    assert set(rows) == set(single[0]) | set(single[1])
    for key in ("train/miou_m0", "train/iou_sum/background"):
        values = [m[key] for m in single]
        assert values[0] != values[1]
        assert rows[key]["mean"] == pytest.approx(np.mean(values))
        assert rows[key]["std"] == pytest.approx(np.std(values, ddof=1))
        assert rows[key]["n"] == 2
    header = (tmp_path / "runs/mini-sfc/aggregate/score.csv").read_text().splitlines()[0]
    assert header == "key,mean,n,std,seed0,seed1"


def test_baseline_overlay_is_a_plain_classifier(words, tmp_path):
    fit(words, "--config", str(EXPERIMENTS / "miniature/sfc/baseline.yaml"))
    with (tmp_path / "runs/mini-sfc-baseline/seed0/classify/metrics.csv").open() as file:
        rows = [r for r in csv.DictReader(file) if r.get("train/loss_total")]
    assert all(float(r["train/loss_prototype"]) == float(r["train/loss_scale"]) == 0 for r in rows)
    assert all(float(r["train/loss_total"]) == float(r["train/loss_classification"]) > 0 for r in rows)


def test_pretraining_feeds_the_classifier(words, tmp_path):
    """A tags checkpoint is read as `weights`, and the frozen stages keep it."""
    assert main(words("fit", stage="pretrain")) == 0
    source = tmp_path / "runs/mini-pretrain/seed0/tags/checkpoints/last.ckpt"
    fit(words, "--model.init_args.weights", str(source))
    before = torch.load(source, weights_only=True)["state_dict"]
    after = torch.load(tmp_path / "runs/mini-sfc/seed0/classify/checkpoints/last.ckpt", weights_only=True)["state_dict"]
    frozen = [
        n
        for n in after
        if "num_batches" not in n and n.startswith(("net.backbone.conv1", "net.backbone.layer1", "net.backbone.layer2"))
    ]
    assert len(frozen) > 10
    assert [n for n in frozen if not torch.equal(after[n], before[n])] == []
    assert not torch.equal(after["net.backbone.layer4.0.conv1.weight"], before["net.backbone.layer4.0.conv1.weight"])


def test_offline_wandb_run_keeps_its_id(words, tmp_path, monkeypatch):
    for name in ("WANDB_API_KEY", "NETRC"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    fit(words, "--trainer.max_steps", "2", "--trainer.val_check_interval", "2")
    folder = tmp_path / "runs/mini-sfc/seed0/classify"
    identity = (folder / "wandb-id.txt").read_text().strip()
    offline = list((folder / "wandb").glob("offline-run-*"))
    assert [p.name.rsplit("-", 1)[-1] for p in offline] == [identity]
    assert list(offline[0].glob("*.wandb"))
