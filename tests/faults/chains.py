"""The miniature chains, shrunk to worlds of a few images and fits of a few steps: a command line for every stage.

Paths are relative: an undisturbed run and a disturbed one work in the same folder one after the other, so that nothing
that they write differs by a path.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import yaml

from frugalseg.cli import main
from frugalseg.miniature.ade20k import write_ade20k_world
from frugalseg.miniature.attributes import write_attribute_world
from frugalseg.miniature.voc import write_voc_world
from frugalseg.papers.mevt.model import PRESETS
from tests.conftest import REPOSITORY

EXPERIMENTS = REPOSITORY / "experiments"
IMAGES, IMAGES_VAL = 16, 5


@dataclass(frozen=True)
class Stage:
    """One stage of a chain.

    Attributes:
        name: of the stage, unique in its chain.
        words: of its command.
        folder: where it writes, relative to the folder of the chain.
        change: words that make another configuration of it, and the key that must be told then.
    """

    name: str
    words: tuple[str, ...]
    folder: str
    change: tuple[tuple[str, ...], str]

    @property
    def kind(self) -> str:
        """What kind of command it is."""
        return self.words[0]


@dataclass(frozen=True)
class Chain:
    """Stages in their order, and how the worlds that they read are written to a folder."""

    name: str
    stages: tuple[Stage, ...]
    prepare: Callable[[Path], None]


def _words(command: str, files: tuple[str, ...], given: dict[str, object], *extra: str) -> tuple[str, ...]:
    names = ["_base/trainer", *files, "_base/cpu"]
    configs = [word for name in names for word in ("--config", str(EXPERIMENTS / f"{name}.yaml"))]
    return (command, *configs, *[word for key, value in given.items() for word in (f"--{key}", str(value))], *extra)


FEWER = ("--trainer.limit_train_batches", "3"), "trainer.limit_train_batches"


def _fit(name: str, folder: str, files: tuple[str, ...], given: dict[str, object]) -> Stage:
    small = {"trainer.log_every_n_steps": 1, "run.save_every": 2, "run.wandb": "false", "data.init_args.batch_size": 4}
    return Stage(name, _words("fit", files, small | given), folder, FEWER)


def _use(command: str, name: str, folder: str, files: tuple[str, ...], given: dict[str, object]) -> Stage:
    """A stage that reads a checkpoint."""
    change = ("--data.init_args.limit", "3"), "data.init_args.limit"
    return Stage(name, _words(command, files, {"run.wandb": "false"} | given), folder, change)


STEPS = {"trainer.max_steps": 6, "trainer.val_check_interval": 3}
LIMIT = {"data.init_args.limit": IMAGES}
VOC = "--data=VOC"


def _verb(verb: str, name: str, folder: str, world: str, experiment: str, *words: str) -> Stage:
    given = ("--split", "train", "--experiment", experiment, "--stage", name, "--out", folder)
    data = ("--data.init_args.root", world, "--data.init_args.limit", str(IMAGES))
    less = (("--data.init_args.limit", "4"), "inputs.ids")
    if verb == "evaluate":
        return Stage(
            name, (verb, *given, *words, *data, "--quiet", "--workers", "1"), folder, (less[0], "data.samples")
        )
    return Stage(name, (verb, *given, *words, *data, "--workers", "1"), folder, less)


def _pretrain(world: str = "worlds/attributes") -> Stage:
    given = STEPS | {"data.init_args.root": world, "data.init_args.limit": IMAGES}
    return _fit("pretrain", "runs/mini-pretrain/seed0/tags", ("miniature/sfc/pretrain",), given)


WEIGHTS = {"model.init_args.weights": "runs/mini-pretrain/seed0/tags/checkpoints/last.ckpt"}


def _behind(top: str, run: dict[str, object], labels: str, paper: str, affinities: bool) -> tuple[Stage, ...]:
    """From class maps to masks: seeds, edges, labels, segmenter - and PSA's affinities in the place of edges."""
    sfc, data, at = "miniature/sfc/", {"data.init_args.root": "worlds/voc"} | LIMIT, {"trainer.limit_val_batches": 4}
    config, experiment = ("--config", str(EXPERIMENTS / f"miniature/{paper}")), f"mini-{paper}"
    maps, net = ("--maps", f"{top}/cam/maps"), run | data | WEIGHTS
    pseudo = {"data.init_args.pseudo_labels": f"{top}/seeds/seed_labels"}

    def verb(kind: str, name: str, yaml_name: str, *words: str) -> Stage:
        given = (config[0], f"{config[1]}/{yaml_name}.yaml", *words)
        return _verb(kind, name, f"{top}/{name}", "worlds/voc", experiment, *given)

    def with_last(stage: str) -> dict[str, object]:
        return {"ckpt_path": f"{top}/{stage}/checkpoints/last.ckpt"}

    stages = [
        verb("crf", "seeds", "seeds", *maps),
        _fit("irn", f"{top}/irn", (sfc + "irn",), STEPS | at | net | pseudo),
        _use("predict", "edges", f"{top}/edges", (sfc + "irn", sfc + "edges"), net | with_last("irn")),
        verb("walk", "labels", "labels", *maps, "--edges", f"{top}/edges/edges"),
        verb("evaluate", "score-labels", "classify", *(f"--masks={k}={top}/labels/{k}" for k in ("refined",))),
    ]
    if affinities:
        stages += [
            _fit("psa", f"{top}/psa", (sfc + "psa",), STEPS | at | net | pseudo),
            _use("predict", "affinity", f"{top}/affinity", (sfc + "psa", sfc + "affinity"), net | with_last("psa")),
            verb("walk", "labels-psa", "labels-psa", *maps, "--edges", f"{top}/affinity/affinities"),
        ]
    masks = {"run.stage": "predict", "data.init_args.predict_split": "val"}
    over = {"data.init_args.pseudo_labels": f"{top}/labels/{labels}"}
    return (
        *stages,
        _fit("segment", f"{top}/segment", (sfc + "segment",), STEPS | at | net | over),
        _use(
            "predict", "predict", f"{top}/predict", (sfc + "segment", sfc + "predict"),
            net | with_last("segment") | masks,
        ),
        _verb(
            "evaluate", "score", f"{top}/score", "worlds/voc", experiment, "--split", "val", "--config",
            f"{config[1]}/classify.yaml", f"--masks=={top}/predict/masks", f"--masks=crf={top}/predict/masks-crf",
        ),
    )  # fmt: skip


def _voc(folder: Path, balanced: bool) -> None:
    write_attribute_world(folder / "worlds/attributes", images=IMAGES, images_val=IMAGES_VAL, seed=3)
    write_voc_world(folder / "worlds/voc", images_train=IMAGES, images_val=IMAGES_VAL, seed=3, balanced=balanced)


def sfc() -> Chain:
    """SFC with IRN, PSA and a segmenter."""
    top, run = "runs/mini-sfc-t/seed0", {"run.name": "t"}
    data = {"data.init_args.root": "worlds/voc"} | LIMIT | run | WEIGHTS
    own = {"model.init_args.bank_start": 0, "model.init_args.calibration_start": 1}
    files = ("miniature/sfc/classify",)
    stages = (
        _pretrain(),
        _fit("classify", f"{top}/classify", files, STEPS | data | own | {"trainer.limit_val_batches": 4}),
        _use(
            "predict", "cam", f"{top}/cam", (*files, "miniature/sfc/cam"),
            data | own | {"ckpt_path": f"{top}/classify/checkpoints/last.ckpt"},
        ),
        *_behind(top, run, "pseudo", "sfc", affinities=True),
    )  # fmt: skip
    return Chain("sfc", stages, lambda folder: _voc(folder, balanced=False))


def cti() -> Chain:
    """CTI: both phases, maps, and labels to masks."""
    top, run = "runs/mini-cti-full/seed0", {"run.experiment": "mini-cti", "run.name": "full"}
    stem = {"model.init_args.stem_weights": WEIGHTS["model.init_args.weights"]}
    data = {"data.init_args.root": "worlds/voc", "model.init_args.memory_size": 1} | LIMIT | stem
    files, fork = (
        ("miniature/cti/classify",),
        {"model.init_args.weights": "runs/mini-cti-warm/seed0/classify/checkpoints/last.ckpt"},
    )
    maps = {"ckpt_path": f"{top}/classify/checkpoints/last.ckpt"}
    stages = (
        _pretrain(),
        _fit("warm", "runs/mini-cti-warm/seed0/classify", (*files, "miniature/cti/warm"), data | {"trainer.max_steps": 5}),
        _fit("classify", f"{top}/classify", files, data | fork | {"trainer.max_steps": 5}),
        _use("predict", "cam", f"{top}/cam", (*files, "miniature/cti/cam"), data | fork | maps),
        *_behind(top, run, "refined", "cti", affinities=False),
    )  # fmt: skip
    return Chain("cti", stages, lambda folder: _voc(folder, balanced=True))


def _tiles(folder: Path) -> None:
    raw, root = str(folder / "worlds/isaid"), str(folder / "worlds/tiles")
    main(["miniature", "isaid", "--root", raw, "--scenes", "8", "--scenes-val", "4", "--size", "192"])
    main(
        [
            "data",
            "prepare",
            "isaid5i",
            "--raw",
            raw,
            "--root",
            root,
            "--tile",
            "96",
            "--step",
            "77",
            "--lists",
            "--workers",
            "1",
        ]
    )


def dsmf() -> Chain:
    """DSMF-Net on one fold, and a baseline that learns nothing."""
    base, episodes = "miniature/dsmf/", "data.init_args.recipe.init_args."
    given = {"run.fold": 0, "data.init_args.fold": 0, "data.init_args.root": "worlds/tiles"}
    weights = {"model.init_args.weights": "runs/mini-dsmf-backbone/fold0/seed0/pretrain/checkpoints/last.ckpt"}
    few = (
        given
        | weights
        | {f"{episodes}test_seed": "[0,1]", f"{episodes}test_episodes": 6, f"{episodes}allow_missing_classes": "true"}
    )
    net = {"model.init_args.dim": 16, "model.init_args.nodes": 4, "model.init_args.states": 8}

    def test(row: str, file: str, shots: int, more: dict[str, object]) -> Stage:
        folder = f"runs/mini-dsmf-{row}/fold0/seed0"
        words = few | more | {
            "run.name": row, "run.stage": f"{shots}shot", f"{episodes}shots": shots, "run.wandb": "false",
            "data.init_args.batch_size": 4, "ckpt_path": f"{folder}/train/checkpoints/last.ckpt",
        }  # fmt: skip
        change = (f"--{episodes}test_episodes", "7"), "test_episodes"
        return Stage(
            f"{row}-{shots}shot",
            _words("test", (base + file, base + "test"), words),
            f"{folder}/{shots}shot-test",
            change,
        )

    few_fit = {"run.name": "full", "run.stage": "train", "trainer.max_steps": 5}
    stages = (
        _fit(
            "pretrain", "runs/mini-dsmf-backbone/fold0/seed0/pretrain", (base + "pretrain",),
            STEPS | given | {"trainer.limit_val_batches": 4},
        ),
        _fit("train", "runs/mini-dsmf-full/fold0/seed0/train", (base + "train",), few | net | few_fit),
        test("full", "train", 1, net),
        test("full", "train", 5, net),
        _fit(
            "prototype", "runs/mini-dsmf-prototype/fold0/seed0/train", (base + "prototype",),
            few | {"run.name": "prototype", f"{episodes}per_epoch": 16},
        ),
        test("prototype", "prototype", 1, {}),
    )  # fmt: skip
    return Chain("dsmf", stages, _tiles)


HEADS = {"global_hidden": [8], "prototype_hidden": [8], "pixel_hidden": [8], "outputs": 4, "pixel_outputs": 4,
         "global_prototypes": 8, "dense_prototypes": 8, "norm": True}  # fmt: skip
PRETRAINED = "runs/mini-mevt/seed0/pretrain/checkpoints/last.ckpt"


def _ade(folder: Path) -> None:
    write_ade20k_world(folder / "worlds/ade20k", images_train=IMAGES, images_val=IMAGES_VAL, seed=3)
    rule = {"sides": [4, 3], "pixel_points": 60, "eps": 0.02}
    overlay = {"model": {"init_args": {"heads": HEADS, "rule": rule, "warmup": 2}}}
    (folder / "small.yaml").write_text(yaml.safe_dump(overlay))
    net = {
        "name": "frugalseg.papers.mevt.model:MEVT",
        "options": {k: _plain(v) for k, v in PRESETS["mevt_tiny"].items()},
    }
    (folder / "net.yaml").write_text(yaml.safe_dump({"model": {"init_args": {"backbone": net}}}))


def _plain(value: object) -> object:
    return list(value) if isinstance(value, tuple) else value


def mevt() -> Chain:
    """MEVT: pretraining, then every way to judge its features."""
    top, voc = "runs/mini-mevt/seed0", "mevt/ade20k/"
    data = {"data.init_args.root": "worlds/ade20k"} | LIMIT
    backbone = {"config": "net.yaml", "model.init_args.backbone.weights": PRETRAINED}
    judged = data | backbone | {"run.experiment": "mini-mevt"}
    crop = {"data.init_args.recipe.init_args.crop": 64}
    few = {"trainer.max_steps": 4, "trainer.val_check_interval": 2}
    kept = data | backbone | {"model.init_args.input_size": 64, "model.init_args.grid": 16}
    pretrain = _fit("pretrain", f"{top}/pretrain", ("miniature/mevt/pretrain",), data | {"trainer.max_steps": 5})
    cache = _words("cache", (voc + "probe-cached",), {}, *_flags(kept | {"data.init_args.batch_size": 4}))
    shape = {"model.init_args.optimiser.warmup": 1, "model.init_args.testing.short_side": 64}
    stages = (
        Stage("pretrain", (*pretrain.words, "--config", "small.yaml"), pretrain.folder, pretrain.change),
        _fit("probe", f"{top}/probe", ("miniature/mevt/probe",), judged | crop | few | {"model.init_args.input_size": 64}),
        _fit("finetune", f"{top}/finetune", (voc + "finetune",), judged | crop | few | shape),
        _use("validate", "cluster", f"{top}/cluster-validate", ("miniature/mevt/cluster",), judged),
        _fit("retrieval", f"{top}/retrieval", (voc + "retrieval",), judged | {"model.init_args.memory_size": 2000, "data.init_args.batch_size": 1, "data.init_args.limit": 6}),
        Stage("cache", (*cache, "--out", f"{top}/features"), f"{top}/features", ((), "")),
        _fit(
            "probe-cached", f"{top}/probe-cached", (voc + "probe-cached",),
            kept | {"run.experiment": "mini-mevt", "trainer.max_epochs": 2, "data": "frugalseg.stages.probe.CachedFeatures", "data.init_args.index": f"{top}/features/cache.json"},
        ),
    )  # fmt: skip
    return Chain("mevt", stages, _ade)


def _flags(given: dict[str, object]) -> tuple[str, ...]:
    return tuple(word for key, value in given.items() for word in (f"--{key}", str(value)))


CHAINS = {"sfc": sfc, "cti": cti, "dsmf": dsmf, "mevt": mevt}
