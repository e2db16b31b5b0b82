"""Evaluation of dense features from the command line: kept features, probes, clusters, retrieval, and their table."""

import json

import pytest
import yaml

from frugalseg.cli import main
from frugalseg.miniature.cityscapes import write_cityscapes_world
from frugalseg.nn.features import Backbone, FrozenBackbone
from frugalseg.papers.mevt import Pretrain
from frugalseg.stages.probe import cached
from tests.integration.conftest import EXPERIMENTS

MEVT = EXPERIMENTS / "mevt"
TINY = {"name": "frugalseg.papers.mevt.model:create", "weights": None, "prefix": "", "options": {"preset": "mevt_tiny"}}
HEADS = {"global_hidden": [8], "prototype_hidden": [8], "pixel_hidden": [8], "outputs": 4, "pixel_outputs": 4,
         "global_prototypes": 8, "dense_prototypes": 8}  # fmt: skip
"""Of a net whose losses nobody looks at."""
KEPT = ["--data", "frugalseg.stages.probe.CachedFeatures", "--data.init_args.index"]


@pytest.fixture
def configs(world, tmp_path):
    """Words of an experiment file of MEVT, on a tiny world, with a random mevt_tiny."""

    def build(name, model=None, data=None, trainer=None):
        small = {
            "run": {"root": str(tmp_path / "runs"), "wandb": False},
            "trainer": {"enable_progress_bar": False, "log_every_n_steps": 1, **(trainer or {})},
            "model": {"init_args": {"backbone": TINY, "input_size": 64, **(model or {})}},
            "data": {"init_args": {"root": str(world), "batch_size": 6, "num_workers": 0, **(data or {})}},
        }
        path = tmp_path / f"{name.replace('/', '-')}.{len(list(tmp_path.glob('*.yaml')))}.yaml"
        path.write_text(yaml.safe_dump(small))
        files = (EXPERIMENTS / "_base/trainer.yaml", MEVT / f"{name}.yaml", path, EXPERIMENTS / "_base/cpu.yaml")
        return [word for file in files for word in ("--config", str(file))]

    return build


def metrics(tmp_path, stage, experiment="mevt-voc"):
    return json.loads((tmp_path / "runs" / experiment / "seed0" / stage / "metrics.json").read_text())


CROP = {"recipe": {"class_path": "frugalseg.data.Segment", "init_args": {"crop": 64, "scale": None, "flip": 0.0}}}


def test_a_probe_of_kept_features_scores_as_one_without_augmentation(configs, tmp_path, capsys):
    """The same images in the same order; half precision and the size of batches are all that differs."""
    words = configs("voc/probe-cached", {"grid": 16, "drop_at": 2}, CROP, {"max_epochs": 3})
    index = str(tmp_path / "features/cache.json")
    chain = ["cache", *words, "--out", str(tmp_path / "features"), "+", "fit", *words, *KEPT, index]
    assert main(chain) == 0
    fresh = [*words, "--model.init_args.protocol", "L", "--run.stage", "probe-l"]
    assert main(["fit", *fresh]) == 0
    kept, own = metrics(tmp_path, "probe-cached"), metrics(tmp_path, "probe-l")
    assert kept["protocol/L-cached"] == own["protocol/L"] == 1
    assert kept["train/loss"] == pytest.approx(own["train/loss"], rel=1e-4)
    # one pixel of 6 x 16 x 16 may change sides
    assert kept["val/accuracy"] == pytest.approx(own["val/accuracy"], abs=2 / (6 * 16 * 16))
    assert kept["val/miou"] == pytest.approx(own["val/miou"], abs=1e-3)

    capsys.readouterr()
    assert main(chain) == 0
    assert capsys.readouterr().err.count("up to date") == 3  # two splits and the fit
    # features of fewer images are another cache, so the fit is out of date
    fewer = ["--data.init_args.limit", "12"]
    assert main(["cache", *words, *fewer, "--out", str(tmp_path / "features"), "+", "fit", *words, *KEPT, index]) == 0
    assert "the old run is now" in capsys.readouterr().err
    assert json.loads((tmp_path / "features/cache.json").read_text())["images"] == {"train": 12, "val": 6}


def test_what_cannot_be_kept_is_refused_in_one_line(configs, tmp_path, capsys):
    words = configs("voc/probe-cached", {"grid": 16})
    out = ["--out", str(tmp_path / "features")]
    need = 30 * (64 * 16 * 16 * 2 + 16 * 16)
    for extra, said in (
        (["--limit", str(need - 1)], f"30 images, 64x16x16 in half precision, take {need} bytes"),
        (["--model.init_args.protocol", "L"], "only L-cached keeps features"),
        (["--trainer.max_epochs", "3"], "trainer"),
        (["--data.init_args.root", str(tmp_path / "none")], "none"),
        (["--model.init_args.backbone.weights", str(tmp_path / "none.ckpt")], "none.ckpt"),
    ):
        assert main(["cache", *words, *out, *extra]) == 2, said
        lines = capsys.readouterr().err.splitlines()
        assert [said in line for line in lines if line.startswith("frugalseg: error")] == [True]
    assert not (tmp_path / "features").exists()
    assert main(["fit", *words]) == 2 and "run `frugalseg cache`" in capsys.readouterr().err
    assert main(["fit", *words, *KEPT, str(tmp_path / "cache.json")]) == 2
    assert "no index of kept features" in capsys.readouterr().err


def test_an_interrupted_cache_goes_on(configs, tmp_path, capsys, monkeypatch):
    words = ["cache", *configs("voc/probe-cached", {"grid": 16}), "--out", str(tmp_path / "features")]
    monkeypatch.setattr("frugalseg.stages.probe.cache.FLUSH_EVERY", 4)
    count, put = [], cached.CacheWriter.put

    def unplug(self, name, features, mask):
        if len(count) == 10:
            raise KeyboardInterrupt
        count.append(name)
        put(self, name, features, mask)

    with monkeypatch.context() as patch:
        patch.setattr(cached.CacheWriter, "put", unplug)
        assert main(words) == 130
    assert "the same command goes on" in capsys.readouterr().err
    assert not (tmp_path / "features/cache.json").exists()
    again = []
    monkeypatch.setattr(cached.CacheWriter, "put", lambda *a: (again.append(a[1]), put(*a)))
    assert main(words) == 0
    assert len(again) == 30 - 8 and again[:2] == count[8:]


STAGES = {
    "voc/probe": ("fit", {"grid": 16}, {"recipe": {"init_args": {"crop": 64}}}, {"max_epochs": 1}),
    "voc/fcn": ("fit", {"grid": 16, "channels": 4}, {"recipe": {"init_args": {"crop": 64}}}, {"max_epochs": 1}),
    "voc/probe-m": ("fit", {"input_size": None}, {"recipe": {"init_args": {"crop": 48}}}, {"max_steps": 2, "val_check_interval": 2}),
    "voc/cluster": ("validate", {"grid": 16, "seeds": 2}, {}, {}),
    "voc/cluster-500": ("validate", {"grid": 16, "seeds": 1, "clusters": 20}, {}, {}),
    "voc/retrieval": ("fit", {"memory_size": 2000}, {"batch_size": 1, "limit": 8}, {}),
}  # fmt: skip
TOLD = [
    "L, linear, 64 px, masks 16 x 16",
    "L, fcn",
    "M, linear",
    "K1, 13 clusters",
    "K1, 20 clusters",
    "retrieval, 30 of 2,000",
]


def test_every_kind_of_evaluation_states_its_protocol(configs, tmp_path, capsys):
    commands = [[command, *configs(name, *rest)] for name, (command, *rest) in STAGES.items()]
    chain = [word for command in commands for word in ("+", *command)][1:]
    assert main(chain) == 0, capsys.readouterr().err
    stated = {"probe": "L", "fcn": "L", "probe-m": "M", "cluster-validate": "K1", "cluster-500-validate": "K1", "retrieval": "retrieval"}  # fmt: skip
    found = {stage: metrics(tmp_path, stage) for stage in stated}
    for stage, protocol in stated.items():
        assert found[stage][f"protocol/{protocol}"] == 1 and found[stage]["protocol/width"] == 64
        assert 0 <= found[stage]["val/miou"] <= 1
    capsys.readouterr()
    folder = tmp_path / "runs/mevt-voc"
    assert main(["report", str(folder)]) == 0
    told = " ".join(capsys.readouterr().out.replace("│", " ").split())
    assert "protocol/" not in told and "mevt_tiny, random" in told and "VOC, 13 classes" in told
    aggregates = [json.loads(path.read_text()) for path in (folder / "aggregate").glob("*.json")]
    assert len(aggregates) == len(STAGES)
    for words in TOLD:
        (one,) = [each for each in aggregates if each["facts"]["protocol"].startswith(words)]
        assert f"{100 * one['figures']['val/miou']['mean']:.1f}" in told, words

    page = tmp_path / "page.md"
    page.write_text("<!-- mevt: begin (frugalseg report --into) -->\n<!-- mevt: end -->\n")
    assert main(["report", str(folder), "--into", str(page), "--marker", "mevt"]) == 0
    assert sum(line.startswith("| mevt-voc |") for line in page.read_text().splitlines()) == len(STAGES)


def test_clusters_with_and_without_the_crf(configs, tmp_path, tmp_path_factory, capsys):
    root = write_cityscapes_world(tmp_path_factory.mktemp("city") / "cityscapes", images_train=2, images_val=2)
    words = configs("cityscapes/cluster-k2", {"seeds": 1, "restarts": 1}, {"root": str(root)})
    assert main(["validate", *words]) == 0, capsys.readouterr().err
    found = metrics(tmp_path, "cluster-k2-validate", "mevt-cityscapes")
    assert found["protocol/K2"] == found["protocol/crf"] == found["protocol/mirror"] == 1
    assert {"val/miou", "val/miou_crf", "val/accuracy", "val/accuracy_crf"} <= set(found)
    capsys.readouterr()
    assert main(["report", str(tmp_path / "runs/mevt-cityscapes")]) == 0
    told = capsys.readouterr().out
    assert "CRF" in told and f"{100 * found['val/miou_crf']:.1f}" in told


@pytest.mark.real
def test_genuine_images_of_all_sizes_are_kept_and_clustered(configs, real_voc, tmp_path, capsys):
    few = {"root": str(real_voc), "limit": 4}
    words = configs("voc/probe-cached", {"grid": 16}, {**few, "batch_size": 2}, {"max_epochs": 1})
    index = str(tmp_path / "features/cache.json")
    assert main(["cache", *words, "--out", str(tmp_path / "features"), "+", "fit", *words, *KEPT, index]) == 0
    assert metrics(tmp_path, "probe-cached")["protocol/L-cached"] == 1
    words = configs("voc/cluster", {"protocol": "K2", "crf": True, "mirror": True, "seeds": 1, "restarts": 1}, few)
    assert main(["validate", *words]) == 0, capsys.readouterr().err
    assert metrics(tmp_path, "cluster-validate")["val/miou_crf"] >= 0


def merged(*files):
    """Settings of overlays, later ones winning; dictionaries that are settings themselves are replaced whole."""
    result = {}
    for file in files:
        init = (yaml.safe_load((MEVT / file).read_text()).get("model") or {}).get("init_args") or {}
        result |= init
    return result


@pytest.mark.parametrize("name", sorted(path.stem for path in (MEVT / "method").glob("*.yaml")))
def test_every_method_can_be_built(name):
    init = merged("pretrain.yaml", f"method/{name}.yaml")
    small = {"preset": "mevt_tiny"} if init["preset"].startswith("mevt") else {}
    Pretrain(**{**init, **small, "heads": HEADS})


@pytest.mark.parametrize("name", sorted(path.stem for path in (MEVT / "backbone").glob("*.yaml")))
def test_every_backbone_can_be_built_and_named(name, configs, capsys):
    words = [*configs("voc/probe"), "--config", str(MEVT / f"backbone/{name}.yaml"), "--print_config"]
    with pytest.raises(SystemExit) as stop:
        main(["fit", *words])
    assert stop.value.code == 0
    settings = yaml.safe_load(capsys.readouterr().out)["model"]["init_args"]["backbone"]
    # a whole name, whatever it lies over: options of another net must not stay behind
    given = yaml.safe_load((MEVT / f"backbone/{name}.yaml").read_text())["model"]["init_args"]["backbone"]
    assert {key: settings[key] for key in given} == given and set(given) == {"name", "weights", "prefix", "options"}
    net = FrozenBackbone(Backbone(given["name"], options=given["options"]))
    assert net.width > 0 and net.multiple in (8, 16, 32)
