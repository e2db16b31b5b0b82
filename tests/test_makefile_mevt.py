"""Make's plan of MEVT: what pretrains, what is judged, and the two studies."""

import os
import re
import shlex
import subprocess

import pytest
import yaml

from tests.conftest import REPOSITORY
from tests.test_makefile import commands, make, pytestmark  # noqa: F401 - skips where there is no Make

PLANNED = f"planned{os.getpid()}"
"""RUN of every plan: nobody else's, and taken away at the end."""
MEVT = REPOSITORY / "experiments/mevt"
MINIATURE = REPOSITORY / "experiments/miniature/mevt"


@pytest.fixture(scope="module", autouse=True)
def _no_traces():
    """Even a plan writes the settings that it was made with."""
    yield
    for folder in (REPOSITORY / "runs").glob(f"mevt-*-{PLANNED}"):
        (folder / ".settings").unlink()
        folder.rmdir()


def configs(line):
    """YAMLs of a command in their order, without those of every run."""
    return [name for name in re.findall(r"--config (\S+)", line) if "/_base/" not in name]


def setting(line, name):
    """Value of a setting of a command; None where it is not given."""
    words = shlex.split(line)
    return words[words.index(f"--{name}") + 1] if f"--{name}" in words else None


def only(found, verb):
    """The one command of a verb."""
    (line,) = [line for each, line in found if each == verb]
    return line


def test_data_and_methods_lie_over_the_pretraining_and_name_it():
    words = ["DATA=voc", "METHOD=xs no-context", "ROOT=/nowhere", "SEEDS=3 4", f"RUN={PLANNED}", "ARGS=--a 1"]
    found = commands(make("-n", "mevt-pretrain", *words, "ARGS_pretrain=--b 2"))
    assert [verb for verb, _ in found] == ["fit", "fit"]
    names = ["pretrain", "data/voc", "method/xs", "method/no-context"]
    for seed, (_, line) in zip((3, 4), found, strict=True):
        assert configs(line) == [f"experiments/mevt/{name}.yaml" for name in names]
        assert setting(line, "run.name") == f"voc-xs-no-context-{PLANNED}"
        assert setting(line, "seed_everything") == str(seed)
        assert [setting(line, name) for name in ("data.init_args.root", "a", "b")] == ["/nowhere", "1", "2"]


def test_eight_gpus_are_for_the_large_data_sets():
    plans = {
        data: make("-n", "mevt-pretrain", f"RUN={PLANNED}", f"DATA={data}") for data in ("imagenet", "coco", "voc")
    }
    wide = {data: "_base/ddp.yaml" in plan for data, plan in plans.items()}
    assert wide == {"imagenet": True, "coco": True, "voc": False}


KINDS = {
    "probe-voc": ("fit", "voc/probe", "probe"),
    "probe-voc PROTOCOL=L": ("fit", "voc/probe", "probe"),
    "probe-voc PROTOCOL=M": ("fit", "voc/probe-m", "probe-m"),
    "probe-voc HEAD=fcn": ("fit", "voc/fcn", "fcn"),
    "probe-ade20k PROTOCOL=M": ("fit", "ade20k/probe", "probe"),
    "probe-ade20k PROTOCOL=L": ("fit", "ade20k/probe-l", "probe-l"),
    "probe-ade20k PROTOCOL=L HEAD=fcn": ("fit", "ade20k/fcn", "fcn"),
    "finetune-cityscapes": ("fit", "cityscapes/finetune", "finetune"),
    "finetune-cityscapes HEAD=fcn": ("fit", "cityscapes/fcn-finetune", "fcn-finetune"),
    "finetune-ade20k HEAD=upernet": ("fit", "ade20k/upernet", "upernet"),
    "cluster-coco": ("validate", "coco/cluster", "cluster"),
    "cluster-coco PROTOCOL=K2": ("validate", "coco/cluster-k2", "cluster-k2"),
    "cluster-voc CLUSTERS=500": ("validate", "voc/cluster-500", "cluster-500"),
    "cluster-voc CLUSTERS=60": ("validate", "voc/cluster", "cluster-60"),
    "retrieval-ade20k": ("fit", "ade20k/retrieval", "retrieval"),
}


@pytest.mark.parametrize("words", KINDS)
def test_every_way_to_judge_has_a_stage_of_its_own(words):
    verb, name, stage = KINDS[words]
    target, *rest = words.split()
    benchmark = name.split("/")[0]
    found = commands(
        make(
            "-n", f"mevt-{target}", *rest, "WEIGHTS=/w.ckpt", "ROOT=/nowhere", "SEED=3", f"RUN={PLANNED}", "ARGS=--a 1"
        )
    )
    assert found[-1] == ("report", f"report runs/mevt-{benchmark}-{PLANNED}")
    line = only(found, verb)
    assert len(found) == 2 and configs(line) == [f"experiments/mevt/{name}.yaml"]
    assert (setting(line, "run.stage"), setting(line, "seed_everything")) == (stage, "3")
    assert (setting(line, "data.init_args.root"), setting(line, "a")) == ("/nowhere", "1")
    assert setting(line, "model.init_args.backbone.weights") == "/w.ckpt"
    assert setting(line, "model.init_args.clusters") == (stage.split("-")[1] if "CLUSTERS" in words else None)


def test_labels_of_coco_stuff_have_runs_of_their_own():
    line = only(commands(make("-n", "mevt-probe-coco", f"RUN={PLANNED}", "LABELS=things12")), "fit")
    assert configs(line) == [f"experiments/mevt/coco/{name}.yaml" for name in ("probe", "things12")]
    assert setting(line, "run.name") == f"things12-{PLANNED}"
    assert configs(only(commands(make("-n", "mevt-probe-coco", f"RUN={PLANNED}", "LABELS=27")), "fit")) == [
        "experiments/mevt/coco/probe.yaml"
    ]


OURS = f"runs/mevt-pretrain{{}}-{PLANNED}/seed3/pretrain/checkpoints/last.ckpt"
NETS = {
    "": ("", OURS.format(""), {}),
    "DATA=coco METHOD=dino": ("", OURS.format("-coco-dino"), {"options.decoder": "false", "partial": "true"}),
    "METHOD=xs": ("mevt_xs", OURS.format("-xs"), {}),
    "METHOD=vit-s16": ("vit-s16-ours", OURS.format("-vit-s16"), {}),
    "METHOD=resnet50": ("resnet50", OURS.format("-resnet50"), {"prefix": "teacher.module.backbone.net."}),
    "METHOD=no-context": ("", OURS.format("-no-context"), {"options.context": "false"}),
    "METHOD=stride-8": ("", OURS.format("-stride-8"), {"options.output_stride": "8"}),
    "BACKBONE=mevt_s-joined": ("mevt_s-joined", OURS.format(""), {}),
    "BACKBONE=resnet50": ("resnet50", None, {}),
    "BACKBONE=vit-s16": ("vit-s16", None, {}),
    "BACKBONE=random": ("random", None, {}),
    "BACKBONE=file WEIGHTS=/w.safetensors": ("file", "/w.safetensors", {}),
}


@pytest.mark.parametrize("words", NETS)
def test_the_net_that_is_judged_and_where_its_weights_are(words):
    overlay, weights, options = NETS[words]
    plan = make("-n", "mevt-probe-voc", "SEED=3", f"RUN={PLANNED}", *words.split())
    line = only(commands(plan), "fit")
    assert configs(line)[1:] == ([f"experiments/mevt/backbone/{overlay}.yaml"] if overlay else [])
    stated = {name: setting(line, f"model.init_args.backbone.{name}") for name in ("weights", *options)}
    assert stated == {"weights": weights, **options}
    assert ("not there; run make mevt-pretrain" in plan) == (weights is not None and weights.startswith("runs/"))


def test_judging_never_pretrains():
    """ROOT and ARGS are the benchmark's: changed ones must not begin days of work anew."""
    for target in ("probe-voc", "finetune-ade20k", "cluster-coco", "retrieval-cityscapes", "pictures", "package"):
        plan = make("-n", f"mevt-{target}", "ROOT=/nowhere", "ARGS=--a 1", f"RUN={PLANNED}")
        assert "pretrain.yaml" not in plan, target
        assert f"runs/mevt-pretrain-{PLANNED}/seed0/pretrain/done.json: not there; run make mevt-pretrain" in plan, (
            target
        )


def test_kept_features_are_made_from_the_same_settings_and_read_by_the_probe():
    words = ["PROTOCOL=L-cached", "WEIGHTS=/w.ckpt", "ROOT=/nowhere", "BACKBONE=mevt_xs", f"RUN={PLANNED}"]
    plan = make("-n", "mevt-probe-voc", *words, "ARGS=--a 1", "ARGS_cache=--b 2")
    found = commands(plan)
    assert [verb for verb, _ in found] == ["cache", "fit", "report"]
    cache, fit = found[0][1], found[1][1]
    names = ["voc/probe-cached", "backbone/mevt_xs"]
    assert configs(cache) == configs(fit) == [f"experiments/mevt/{name}.yaml" for name in names]
    for line in (cache, fit):
        assert setting(line, "model.init_args.backbone.weights") == "/w.ckpt"
    assert setting(cache, "data.init_args.root") == "/nowhere" and setting(fit, "data.init_args.root") is None
    assert setting(fit, "data") == "frugalseg.stages.probe.CachedFeatures"
    assert setting(fit, "data.init_args.index") == f"{setting(cache, 'out')}/cache.json"
    assert (setting(cache, "a"), setting(cache, "b"), setting(fit, "a"), setting(fit, "b")) == (None, "2", "1", None)


def test_pictures_and_package_of_a_checkpoint():
    words = ["WEIGHTS=/w.ckpt", "OUT=/out"]
    pictures = only(commands(make("-n", "mevt-pictures", *words, "BENCHMARK=ade20k", "PICTURES=3")), "pictures")
    assert pictures.split()[:2] == ["pictures", "/w.ckpt"]
    assert [setting(pictures, name) for name in ("data", "images", "out")] == ["ade20k", "3", "/out/pictures-ade20k"]
    package = only(commands(make("-n", "mevt-package", *words)), "package")
    assert package.split()[:4] == ["package", "/w.ckpt", "--out", "/out/package"]


def headed():
    """(file, target and variables) of every experiment of MEVT, as its own header says."""
    for path in sorted(MEVT.rglob("*.yaml")):
        head = " ".join(line.strip("# ") for line in path.read_text().split("\n#   hardware")[0].splitlines())
        found = re.search(r"make (mevt-[a-z0-9-]+(?: [A-Z]+=[^\s,;)]+)*)", head)
        yield path.relative_to(REPOSITORY).as_posix(), found[1] if found else "help"


@pytest.mark.parametrize(("path", "words"), list(headed()))
def test_the_command_in_the_header_of_an_experiment_uses_it(path, words):
    assert f"--config {path} " in make("-n", *words.split(), f"RUN={PLANNED}")


@pytest.mark.parametrize(
    ("words", "named"),
    [
        ("mevt-finetune-coco HEAD=fcn", "experiments/mevt/coco/fcn-finetune.yaml"),
        ("mevt-cluster-ade20k PROTOCOL=K2", "experiments/mevt/ade20k/cluster-k2.yaml"),
        ("mevt-probe-voc PROTOCOL=M HEAD=fcn", "experiments/mevt/voc/fcn-m.yaml"),
        ("mevt-probe-voc BACKBONE=swin", "BACKBONE=swin: there is no experiments/mevt/backbone/swin.yaml"),
        ("mevt-pretrain METHOD=moco", "METHOD=moco: there is no experiments/mevt/method/moco.yaml"),
        ("mevt-pretrain DATA=flickr", "DATA=flickr"),
        ("mevt-probe-voc HEAD=own", "HEAD=own"),
        ("mevt-probe-voc PROTOCOL=K1", "PROTOCOL=K1"),
        ("mevt-probe-voc LABELS=27", "only mevt-*-coco"),
        ("mevt-probe-coco LABELS=5", "LABELS=5"),
        ("mevt-finetune-voc HEAD=linear", "HEAD=linear"),
        ("mevt-cluster-voc PROTOCOL=L", "PROTOCOL=L"),
        ("mevt-pictures BENCHMARK=dlrsd", "BENCHMARK=dlrsd"),
        ("mevt-pretrain mevt-probe-voc", "alone"),
    ],
)  # fmt: skip
def test_what_cannot_be_meant_is_refused_in_one_line_before_anything_runs(words, named):
    refused = subprocess.run(
        ["make", "-n", *words.split(), "WEIGHTS=/w.ckpt", f"RUN={PLANNED}"],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=False,
    )
    assert refused.returncode != 0
    assert named in refused.stderr and refused.stderr.count("\n") == 1
    assert "frugalseg" not in refused.stdout


@pytest.mark.parametrize(
    "methods", ["tiny xs", "tiny vit-s16", "no-context stride-8", "ibot no-decoder", "dino esvit", "ibot esvit"]
)
def test_methods_that_set_the_same_thing_are_refused(methods):
    refused = subprocess.run(
        ["make", "-n", "mevt-pretrain", f"METHOD={methods}", f"RUN={PLANNED}"],
        cwd=REPOSITORY, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert refused.returncode != 0 and refused.stderr.count("\n") == 1
    assert f"{methods} set the same thing" in refused.stderr


def test_dino_with_a_transformer_is_judged_on_its_own_map():
    plan = make("-n", "mevt-probe-voc", "SEED=3", f"RUN={PLANNED}", "METHOD=dino vit-s16")
    line = only(commands(plan), "fit")
    assert setting(line, "model.init_args.backbone.partial") is None
    assert configs(line)[1:] == ["experiments/mevt/backbone/vit-s16-ours.yaml"]


def test_those_that_see_two_views_alone_ask_for_no_others():
    for name in ("densecl", "pixpro"):
        overlay = yaml.safe_load((MEVT / f"method/{name}.yaml").read_text())
        assert overlay["data"]["init_args"]["recipe"]["init_args"]["local_views"] == 0


# ---------------------------------------------------------------- in miniature

ROWS = ("init", "global", "dense", "full", "no-context", "no-decoder")


def of(found, row, seed):
    """Commands of a row."""
    return [
        (verb, line)
        for verb, line in found
        if setting(line, "run.name") == row and setting(line, "seed_everything") == str(seed)
    ]


def test_rows_of_the_miniature_are_pretrained_probed_and_clustered():
    found = commands(make("-n", "mini-mevt", "SEEDS=8 9"))
    assert found[-1] == ("report", "report " + " ".join(f"runs/mini-mevt-{row}" for row in ROWS))
    for row in ROWS:
        for seed in (8, 9):
            mine = of(found, row, seed)
            assert [verb for verb, _ in mine] == ["fit"] * (1 if row == "init" else 2) + ["validate"] * 2
            folder = f"runs/mini-mevt-{row}/seed{seed}"
            checkpoint = None if row == "init" else f"{folder}/pretrain/checkpoints/last.ckpt"
            for verb, line in mine:
                assert setting(line, "data.init_args.root") == f"runs/worlds/ade20k-seed{seed}"
                pretrains = any(name.endswith("/pretrain.yaml") for name in configs(line))
                judged = setting(line, "model.init_args.backbone.weights")
                assert judged == (None if pretrains else checkpoint), (row, verb)
    assert len(found) == 1 + 2 * (3 + 5 * 4)


def test_what_a_row_changes_in_the_net_is_said_to_probe_and_clusters_too():
    found = commands(make("-n", "mini-mevt", "SEEDS=8"))
    for row, option in (("no-context", "context"), ("no-decoder", "decoder"), ("full", None)):
        told = yaml.safe_load((MINIATURE / f"{row}.yaml").read_text())["model"]["init_args"] if option else {}
        assert told == ({"changes": {option: False}} if option else {})
        for _, line in of(found, row, 8)[1:]:
            options = re.findall(r"backbone\.options\.(\w+) (\w+)", line)
            assert options == ([(option, "false")] if option else [])


def test_three_seeds_unless_told_otherwise():
    def seeds(*words):
        plan = commands(make("-n", "-B", "mini-mevt", "MEVT_ROWS=init", *words))
        return [setting(line, "seed_everything") for verb, line in plan if verb == "fit"]

    assert seeds() == ["0", "1", "2"]
    assert seeds("SEEDS=8") == seeds("SEED=8") == ["8"]


def test_rows_of_the_miniature_differ_from_all_terms_in_the_weights_alone():
    """An overlay replaces a rule as a whole, so that it has to say all of it."""

    def rule(name):
        return yaml.safe_load((MINIATURE / f"{name}.yaml").read_text())["model"]["init_args"]["rule"]

    full = rule("pretrain")
    for row, weights in (("global", [1, 0, 0]), ("dense", [0, 1, 1])):
        assert rule(row) == full | {"weights": weights} != full


def test_clusters_and_probe_of_the_miniature_see_the_same_net_and_images():
    probe, cluster = (yaml.safe_load((MINIATURE / f"{name}.yaml").read_text()) for name in ("probe", "cluster"))
    assert probe["model"]["init_args"]["backbone"] == cluster["model"]["init_args"]["backbone"]
    # clusters take one image at a time and train on none
    assert probe["data"]["init_args"].pop("batch_size") and probe["data"] == cluster["data"]


def test_the_real_sample_is_pretrained_on_once_and_probed_by_every_seed():
    plan = make("-n", "-B", "mini-mevt-real", "SEEDS=8 9", "REAL=/samples")
    found = commands(plan)
    assert found[-1] == ("report", "report runs/mini-mevt-real runs/mini-mevt-real-random")
    fits = [line for verb, line in found if verb == "fit"]
    assert {setting(line, "data.init_args.root") for line in fits} == {"/samples/VOCdevkit/VOC2012"}
    pretrained = {line for line in fits if "real-pretrain.yaml" in line}
    assert [setting(line, "seed_everything") for line in pretrained] == ["0"]
    probes = [line for line in fits if line not in pretrained]
    assert sorted((setting(line, "seed_everything"), "real-random.yaml" in line) for line in probes) == [
        ("8", False), ("8", True), ("9", False), ("9", True)
    ]  # fmt: skip
    weights = {setting(line, "model.init_args.backbone.weights") for line in probes if "real-random" not in line}
    assert weights == {"runs/mini-mevt-real/seed0/pretrain/checkpoints/last.ckpt"}
