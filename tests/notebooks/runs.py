"""Small runs that notebooks can read: real stages of a few steps, and few-shot tests in the form that tests write."""

from pathlib import Path

import numpy as np
from PIL import Image

from frugalseg.callbacks.episode_panel import Drawn, episode_panel
from frugalseg.cli import main
from frugalseg.data.coco_masks import make_masks
from frugalseg.data.tiling import tile_dataset
from frugalseg.miniature.ade20k import write_ade20k_world
from frugalseg.miniature.cityscapes import write_cityscapes_world
from frugalseg.miniature.coco import write_coco_world
from frugalseg.miniature.dlrsd import write_dlrsd_world
from frugalseg.miniature.isaid import write_isaid_world
from frugalseg.miniature.voc import write_voc_world
from tests.analysis.few_shot_runs import write_test
from tests.conftest import REPOSITORY
from tests.integration.user_photos import Chain, write_photos

EXPERIMENTS = REPOSITORY / "experiments"
IMAGES = 24


def words(command, runs, configs, **settings):
    """A command line of the miniature; dots of settings are written as double underscores."""
    names = ["_base/trainer", *(f"miniature/{name}" for name in configs), "_base/cpu"]
    given = {"run.root": runs, "run.wandb": "false", **{k.replace("__", "."): v for k, v in settings.items()}}
    if command == "fit":
        given |= {"trainer.max_steps": 4, "trainer.log_every_n_steps": 1}
    flags = [word for key, value in given.items() for word in (f"--{key}", str(value))]
    return [command, *[w for name in names for w in ("--config", str(EXPERIMENTS / f"{name}.yaml"))], *flags]


def run(*line):
    assert main([str(word) for word in line]) in (0, None), line


def write_worlds(runs):
    """The two worlds of SFC and CTI."""
    for name, balanced in (("voc-longtail-seed0", False), ("voc-balanced-seed0", True)):
        write_voc_world(runs / "worlds" / name, images_train=IMAGES, images_val=6, seed=0, balanced=balanced)


def make_sfc(runs, world, method):
    """Classifier, maps and scores."""
    root, folder = runs / f"worlds/voc-{world}-seed0", runs / f"mini-sfc-{world}-{method}/seed0"
    configs = ["sfc/classify", *["sfc/baseline"] * (method == "baseline")]
    settings = {"run__name": f"{world}-{method}", "data__init_args__root": root, "data__init_args__batch_size": 4}
    early = {"model__init_args__bank_start": 0, "model__init_args__calibration_start": 1}
    run(*words("fit", runs, configs, trainer__val_check_interval=4, trainer__limit_val_batches=2, **settings, **early))
    checkpoint = folder / "classify/checkpoints/last.ckpt"
    few = {"data__init_args__limit": 12, "data__init_args__predict_recipe__init_args__scales": "[1.0]"}
    run(*words("predict", runs, [*configs, "sfc/cam"], **settings, **few), "--ckpt_path", checkpoint)
    run(
        "evaluate", "--maps", folder / "cam/maps", "--root", root, "--split", "train", "--limit", 12, "--parts",
        "--experiment", "mini-sfc", "--out", folder / "score", "--no-figures", "--quiet",
    )  # fmt: skip


def make_cti(runs, row):
    """Net, maps of all kinds and scores."""
    root, folder = runs / "worlds/voc-balanced-seed0", runs / f"mini-cti-{row}/seed0"
    configs = ["cti/classify", *[f"cti/{row}"] * (row != "full")]
    settings = {
        "run__name": row, "data__init_args__root": root, "data__init_args__batch_size": 12,
        "model__init_args__memory_size": 2,
    }  # fmt: skip
    run(*words("fit", runs, configs, **settings))
    checkpoint = folder / "classify/checkpoints/last.ckpt"
    settings["data__init_args__limit"] = 12
    run(*words("predict", runs, [*configs, "cti/cam"], **settings), "--ckpt_path", checkpoint)
    run(
        "evaluate", "--maps", folder / "cam/maps", "--sweep", "cam,r,f,q", "--root", root, "--split", "train",
        "--limit", 12, "--experiment", "mini-cti", "--out", folder / "score", "--no-figures", "--quiet",
    )  # fmt: skip


def make_mevt(runs, row):
    """Pre-training, unless random numbers are judged, and a probe."""
    root = runs / "worlds/ade20k-seed0"
    if not root.is_dir():
        write_ade20k_world(root, images_train=12, images_val=4, seed=0)
    settings = {"run__name": row, "data__init_args__root": root, "data__init_args__batch_size": 4}
    weights = {}
    if row != "init":
        run(*words("fit", runs, ["mevt/pretrain", *[f"mevt/{row}"] * (row != "full")], **settings))
        weights["model__init_args__backbone__weights"] = runs / f"mini-mevt-{row}/seed0/pretrain/checkpoints/last.ckpt"
    configs = ["mevt/probe", *["mevt/init"] * (row == "init")]
    run(*words("fit", runs, configs, trainer__val_check_interval=4, **settings, **weights))


def make_few_shot(runs, name):
    """Counts of made-up answers, and panels of made-up episodes."""
    rng = np.random.default_rng(0)
    for fold in (0, 1, 2):
        for shots in (1, 5):
            folder, _, _ = write_test(runs, name, fold=fold, shots=shots, protocol="P2")
            (folder / "pictures").mkdir()
            for class_id in (1, 2):
                image = rng.integers(0, 256, (2, 64, 64, 3), dtype=np.uint8)
                mask = rng.integers(0, 2, (2, 64, 64))
                drawn = Drawn(image[0], mask[0], image[1:], mask[1:], mask[1], rng.random((8, 8)), [], str(class_id))
                panel = folder / "pictures" / f"test_class{class_id:02d}_episode{class_id:05d}.png"
                Image.fromarray(episode_panel(drawn)).save(panel)


def write_benchmarks(top: Path):
    """What `make data-mini` leaves, smaller."""
    write_voc_world(top / "voc", images_train=IMAGES, images_val=6, seed=0)
    write_coco_world(top / "coco", 12, 4, seed=0)
    for folder in ("train2014", "val2014"):
        make_masks(top / "coco", folder, workers=1)
    write_ade20k_world(top / "ade20k", images_train=12, images_val=4, seed=0)
    write_cityscapes_world(top / "cityscapes", 12, 4, seed=0)
    write_isaid_world(top / "isaid", 3, 2, seed=0)
    tile_dataset(top / "isaid", top / "isaid5i", tile=96, step=77, workers=1, lists=True)
    write_dlrsd_world(top / "dlrsd", 2, seed=0, size=96)


def make_folder_masks(runs: Path):
    """What `make folder-masks`, `folder-scores` and `folder-segment` leave, of a few steps."""
    photos = write_photos(runs / "photos/mine", runs / "worlds/voc-longtail-seed0")
    chain = Chain(photos, runs, "sfc")
    for line in chain.stages().values():
        run(*line)
    checkpoint = chain.folder / "segment/checkpoints/last.ckpt"
    out = chain.folder / "segment-new"
    run("segment", photos.parent / "new", "--checkpoint", checkpoint, "--out", out, "--device", "cpu", "--quiet")
