"""`frugalseg package`: from a checkpoint to a folder for others, and back."""

import json
import shutil

import numpy as np
import pytest
import timm
import torch
import yaml
from safetensors import safe_open

import frugalseg
from frugalseg.cli import main
from frugalseg.errors import CheckpointError
from frugalseg.miniature.ade20k import write_ade20k_world
from frugalseg.run import file_digest
from tests.checkpoints import pretraining, write_checkpoint
from tests.integration.conftest import EXPERIMENTS

FILES = {"model.safetensors", "config.json", "README.md"}
IMAGE = np.random.default_rng(0).integers(0, 256, (50, 70, 3), dtype=np.uint8)
RECIPE = {"mean": [0.4, 0.5, 0.6], "std": [0.2, 0.25, 0.3]}


@pytest.fixture(scope="module")
def task():
    return pretraining(changes={"drop_path": 0.2, "context": False})


@pytest.fixture(scope="module")
def checkpoint(task, tmp_path_factory):
    return write_checkpoint(tmp_path_factory.mktemp("run") / "pretrain", task, RECIPE)


@pytest.fixture(scope="module")
def package(checkpoint, tmp_path_factory):
    out = tmp_path_factory.mktemp("packages") / "mevt"
    assert main(["package", str(checkpoint), "--out", str(out)]) == 0
    return out


def front_matter(card):
    _, head, _ = card.split("---\n", 2)
    return yaml.safe_load(head)


def score_run(folder, weights, inputs=None, **metrics):
    """What a finished probe leaves."""
    folder.mkdir(parents=True)
    backbone = {"weights": str(weights), "prefix": "teacher.module.backbone."}
    model = {"class_path": "frugalseg.stages.probe.LinearProbe", "init_args": {"backbone": backbone}}
    identity = {
        "model": model,
        "data": {"class_path": "frugalseg.data.VOC"},
        "inputs": {"world.json": "x", **(inputs or {})},
    }
    (folder / "provenance.json").write_text(json.dumps({"identity": identity}))
    (folder / "metrics.json").write_text(json.dumps({**metrics, "protocol/M": 1.0, "protocol/width": 64.0}))
    (folder / "done.json").write_text("{}")
    return folder


def test_features_are_bit_equal_before_and_after(checkpoint, package):
    before, after = frugalseg.load(checkpoint), frugalseg.load(package)
    for name in ("features", "token"):
        assert torch.equal(getattr(before, name)(IMAGE), getattr(after, name)(IMAGE))
    assert torch.equal(before.features(IMAGE), frugalseg.load(package / "model.safetensors").features(IMAGE))
    assert after.source.mean == tuple(RECIPE["mean"]) and after.source.std == tuple(RECIPE["std"])


def test_only_the_teachers_backbone_is_in_it(package, task):
    assert {path.name for path in package.iterdir()} == FILES and list(package.parent.iterdir()) == [package]
    with safe_open(package / "model.safetensors", "pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a mapping
        assert file.metadata() == {"format": "pt"}
    own = task.teacher.module.backbone.state_dict()
    assert tensors.keys() == own.keys() and all(torch.equal(tensors[name], own[name]) for name in own)


def test_the_settings_say_what_the_weights_are(package, checkpoint, task):
    config = json.loads((package / "config.json").read_text())
    net = task.teacher.module.backbone
    assert (config["preset"], config["changes"]) == ("mevt_tiny", {"context": False})
    assert (config["width"], config["stride"], config["multiple"]) == (net.width, net.stride, 32)
    assert config["mean"] == RECIPE["mean"] and config["pretrained_cfg"]["std"] == RECIPE["std"]
    assert config["weights"]["sha256"] == file_digest(package / "model.safetensors")
    assert config["weights"]["parameters"] == sum(p.numel() for p in net.parameters())
    source = config["source"]
    assert source["checkpoint"] == file_digest(checkpoint) and source["step"] == 7
    assert source["provenance"]["git"]["commit"] == "c" * 40
    assert torch.__version__.startswith(config["versions"]["torch"])


def test_the_card_holds_what_is_known_and_no_score_of_its_own(package):
    card = (package / "README.md").read_text()
    head = front_matter(card)
    assert head["license"] == "apache-2.0" and head["library_name"] == "frugalseg" and "mevt_tiny" in head["tags"]
    config = json.loads((package / "config.json").read_text())
    for fact in (config["weights"]["sha256"], "c" * 40 + "`, with changes", "11 images", "1.25", '"context": false'):
        assert fact in card
    assert "no finished run was given" in card and "frugalseg.load(" in card
    assert [line for line in card.splitlines() if line.startswith("## ")] == [
        "## How it was trained", "## Measured", "## Limits", "## Use"
    ]  # fmt: skip


def test_scores_are_those_of_runs_that_judged_this_very_file(checkpoint, tmp_path, capsys):
    good = score_run(tmp_path / "probe", checkpoint, **{"val/miou": 0.4321, "train/loss": 9.0})
    out = tmp_path / "package"
    assert main(["package", str(checkpoint), "--out", str(out), "--scores", str(good)]) == 0
    card = (out / "README.md").read_text()
    row = next(line for line in card.splitlines() if "0.4321" in line)
    for fact in ("LinearProbe", "a synthetic world in the layout of VOC", "M, width 64", "`val/miou`"):
        assert fact in row
    assert "9.0000" not in card
    # a checkpoint that has moved since is known by what the run noted
    noted = score_run(tmp_path / "noted", tmp_path / "moved.ckpt", {"backbone.weights": file_digest(checkpoint)})
    assert main(["package", str(checkpoint), "--out", str(out), "--overwrite", "--scores", str(noted)]) == 0
    other = tmp_path / "other.ckpt"
    other.write_bytes(b"other")
    unfinished = score_run(tmp_path / "unfinished", checkpoint)
    (unfinished / "done.json").unlink()
    capsys.readouterr()
    for run, reason in {
        score_run(tmp_path / "of-another", other): "judged",
        score_run(tmp_path / "of-none", tmp_path / "gone.ckpt"): "judged",
        score_run(tmp_path / "of-older", checkpoint, {"backbone.weights": "0" * 64}): "judged",
        unfinished: "did not finish",
    }.items():
        assert main(["package", str(checkpoint), "--out", str(tmp_path / "no"), "--scores", str(run)]) == 2
        told = capsys.readouterr().err
        assert str(run) in told and reason in told and told.count("\n") == 1
        assert not (tmp_path / "no").exists()


def test_what_is_there_is_kept_unless_it_is_a_package_and_asked_for(checkpoint, package, tmp_path, capsys):
    out = tmp_path / "package"
    shutil.copytree(package, out)
    (out / "README.md").write_text("mine")
    words = ["package", str(checkpoint), "--out", str(out)]
    assert main(words) == 2 and "--overwrite" in capsys.readouterr().err
    assert (out / "README.md").read_text() == "mine"
    assert main([*words, "--overwrite"]) == 0
    assert (out / "README.md").read_text() == (package / "README.md").read_text()
    (out / "thesis.tex").write_text("years of work")
    assert main([*words, "--overwrite"]) == 2 and "thesis.tex" in capsys.readouterr().err
    assert (out / "thesis.tex").exists()


def test_nothing_is_left_where_writing_fails(checkpoint, package, tmp_path, monkeypatch):
    out = tmp_path / "package"
    shutil.copytree(package, out)
    monkeypatch.setattr("frugalseg.commands.package.model_card", lambda *_: 1 / 0)
    for words in (["--out", str(tmp_path / "new")], ["--out", str(out), "--overwrite"]):
        with pytest.raises(ZeroDivisionError):
            main(["package", str(checkpoint), *words])
    assert list(tmp_path.iterdir()) == [out] and {path.name for path in out.iterdir()} == FILES
    assert torch.equal(frugalseg.load(out).token(IMAGE), frugalseg.load(package).token(IMAGE))


def test_checkpoints_of_other_tasks_are_refused_in_one_line(tmp_path, package, capsys):
    path = tmp_path / "last.ckpt"
    torch.save({"state_dict": {}, "hyper_parameters": {"_class_path": "frugalseg.stages.probe.LinearProbe"}}, path)
    for source, reason in {path: "LinearProbe", package: "is no checkpoint", tmp_path / "no.ckpt": "no.ckpt"}.items():
        assert main(["package", str(source), "--out", str(tmp_path / "out")]) == 2
        told = capsys.readouterr().err
        assert reason in told and told.count("\n") == 1
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", sorted(FILES - {"README.md"}))
def test_a_damaged_package_is_refused(package, tmp_path, name):
    out = tmp_path / "package"
    shutil.copytree(package, out)
    content = bytearray((out / name).read_bytes())
    content[len(content) // 2 :] = b""
    (out / name).write_bytes(content)
    with pytest.raises(CheckpointError, match=name) as caught:
        frugalseg.load(out)
    assert "\n" not in str(caught.value)
    (out / name).unlink()
    with pytest.raises(CheckpointError, match=name):
        frugalseg.load(out)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"preset": "hf-hub:some/net"}, "hf-hub:some/net"),
        ({"preset": "local-dir:/etc"}, "local-dir:/etc"),
        ({"preset": "resnet18", "changes": {"checkpoint_path": "/etc/passwd"}}, "checkpoint_path"),
        ({"preset": "resnet18", "changes": {"pretrained_cfg": {"file": "x"}}}, "pretrained_cfg"),
        ({"preset": "resnet18", "changes": {"wings": 2}}, "cannot be built"),
        ({"preset": "resnet18", "changes": {}}, "not those of resnet18"),
        ({"format": "another"}, "format"),
        ({"weights": {}}, "not the file that was packaged"),
        ({"weights": None}, "has no weights"),
        ({"mean": None}, "has no mean"),
    ],
)
def test_a_package_from_strangers_reads_nothing_but_itself(package, tmp_path, change, reason):
    out = tmp_path / "package"
    shutil.copytree(package, out)
    config = json.loads((out / "config.json").read_text())
    (out / "config.json").write_text(json.dumps({**config, **change}))
    with pytest.raises(CheckpointError, match=reason) as caught:
        frugalseg.load(out)
    assert "\n" not in str(caught.value)


def test_timm_opens_it_too(package):
    net = timm.create_model(f"local-dir:{package}", pretrained=True).eval()
    own = frugalseg.load(package)
    image = torch.randn(1, 3, 64, 32)
    with torch.no_grad():
        assert torch.equal(net.dense(image), own.net(image).features)
        assert torch.equal(net(image), own.net(image).token)
        maps = timm.create_model(f"local-dir:{package}", pretrained=True, features_only=True).eval()(image)
        assert all(torch.equal(a, b) for a, b in zip(maps, own.net(image).stages, strict=True))
    assert net.default_cfg["mean"] == RECIPE["mean"]


def test_a_baseline_of_timm_is_packaged_under_timms_own_names(tmp_path):
    task = pretraining("vit_tiny_patch16_224", {"depth": 2, "embed_dim": 48, "num_heads": 3})
    path, out = write_checkpoint(tmp_path / "run", task), tmp_path / "vit"
    assert main(["package", str(path), "--out", str(out)]) == 0
    assert torch.equal(frugalseg.load(path).features(IMAGE), frugalseg.load(out).features(IMAGE))
    net = timm.create_model(f"local-dir:{out}", pretrained=True).eval()
    image = torch.randn(1, 3, 64, 32)
    with torch.no_grad():
        torch.testing.assert_close(net(image), frugalseg.load(out).net(image).token)
    assert "not known" in (out / "README.md").read_text()


def test_what_fit_writes_is_packaged(tmp_path):
    """The whole way: a fit of two steps, its checkpoint, the package."""
    world = write_ade20k_world(tmp_path / "world", images_train=8, images_val=2, seed=1)
    configs = [EXPERIMENTS / name for name in ("_base/trainer.yaml", "miniature/mevt/pretrain.yaml", "_base/cpu.yaml")]
    settings = {"trainer.max_steps": 2, "run.root": tmp_path / "runs", "data.init_args.root": world}
    settings |= {"run.wandb": False, "data.init_args.batch_size": 4, "model.init_args.warmup": 1}
    words = [word for path in configs for word in ("--config", str(path))]
    assert main(["fit", *words, *[word for key, value in settings.items() for word in (f"--{key}", str(value))]]) == 0
    path = next((tmp_path / "runs").rglob("last.ckpt"))
    assert main(["package", str(path), "--out", str(tmp_path / "package")]) == 0
    before, after = frugalseg.load(path), frugalseg.load(tmp_path / "package")
    assert torch.equal(before.features(IMAGE), after.features(IMAGE))
    assert "a synthetic world in the layout of ADE20K, 8 images" in (tmp_path / "package/README.md").read_text()
