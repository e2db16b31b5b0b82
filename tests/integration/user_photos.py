"""A user's photos with tags, made of a miniature world, and the words of every stage from them to masks."""

import csv
import shutil
from pathlib import Path

import yaml

from frugalseg.data.voc import class_table, index
from frugalseg.miniature.voc import write_voc_world
from tests.conftest import REPOSITORY

EXPERIMENTS = REPOSITORY / "experiments"
PHOTOS = 24
METHODS = {"sfc": "pseudo", "cti": "refined"}
"""Method -> labels that its segmenter learns."""


def write_photos(root: Path, world: Path | None = None, masks: int = 4) -> Path:
    """Photos in two folders with tags.csv; the first of them also have masks. Two photos have no row."""
    world = world or write_voc_world(root.parent / "world", images_train=PHOTOS, images_val=6, seed=3)
    names = class_table(world).names
    samples = index(world, "train")
    rows = []
    for number, sample in enumerate(samples):
        place = f"{'walk' if number % 2 else 'garden'}/{sample.id}.jpg"
        _copy(sample.image, root / "images" / place)
        if number >= 2:
            rows.append([place, ";".join(names[tag + 1] for tag in sample.tags or ())])
        if number < masks and sample.mask is not None:
            _copy(sample.mask, (root / "masks" / place).with_suffix(".png"))
    with (root / "tags.csv").open("w", newline="") as file:
        csv.writer(file).writerows([["image", "tags"], *rows])
    (root / "classes.txt").write_text("\n".join(names[1:]) + "\n")
    for sample in index(world, "val"):
        _copy(sample.image, root.parent / "new" / sample.image.name)
    return root


def _copy(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(source, target)


class Chain:
    """Command lines from photos to masks: the miniature's nets over the folder, as experiments/folder lies over VOC's."""

    def __init__(self, root: Path, runs: Path, method: str, steps: int = 2) -> None:
        self.root, self.runs, self.method, self.steps = root, runs, method, steps
        self.folder = runs / f"folder-{method}/seed0"
        self.over = runs / "folder.yaml"
        runs.mkdir(parents=True, exist_ok=True)
        init_args = {"root": str(root), "train_split": "tagged", "val_split": "", "batch_size": 4, "limit": None}
        overlay = {
            "trainer": {"limit_val_batches": 0, "max_steps": steps, "max_epochs": -1, "log_every_n_steps": 1},
            "data": {"class_path": "frugalseg.data.Folder", "init_args": init_args},
        }
        self.over.write_text(yaml.safe_dump(overlay))
        self.data = runs / "labels.yaml"
        self.data.write_text(yaml.safe_dump({"data": {**overlay["data"], "init_args": {"root": str(root)}}}))

    def trainer(self, verb: str, stage: str, *names: str, **settings: object) -> list[str]:
        """A stage of the Trainer; the folder's overlay lies over the first YAML, the others over it."""
        files = [EXPERIMENTS / "_base/trainer.yaml", EXPERIMENTS / f"miniature/{names[0]}.yaml", self.over]
        files += [*(EXPERIMENTS / f"miniature/{name}.yaml" for name in names[1:]), EXPERIMENTS / "_base/cpu.yaml"]
        given = {
            "run.experiment": f"folder-{self.method}", "run.name": "", "run.stage": stage, "run.root": self.runs,
            "run.wandb": "false", "data.init_args.limit": "null",
            **{key.replace("__", "."): value for key, value in settings.items()},
        }  # fmt: skip
        flags = [f"--{key}={value}" for key, value in given.items()]
        return [verb, *[w for file in files for w in ("--config", str(file))], *flags]

    def labels(self, verb: str, stage: str, *words: object) -> list[str]:
        """`crf` or `walk`."""
        configs = [EXPERIMENTS / f"miniature/{self.method}/{stage}.yaml", self.data]
        out = ["--out", self.folder / f"{stage}-tagged", "--maps", self.folder / "cam-tagged/maps", "--workers", 1]
        line = [verb, *[w for c in configs for w in ("--config", c)], "--split", "tagged", *out, *words]
        return [str(word) for word in line]

    def stages(self) -> dict[str, list[str]]:
        """Stage -> its command line, in their order."""
        at = self.folder
        own = {"model.init_args.bank_start": 0} if self.method == "sfc" else {"model.init_args.memory_size": 2}
        tagged, keep = {"data.init_args.predict_split": "tagged"}, "checkpoints/last.ckpt"
        return {
            "classify": self.trainer("fit", "classify", f"{self.method}/classify", **own),
            "cam-tagged": self.trainer(
                "predict", "cam-tagged", f"{self.method}/classify", f"{self.method}/cam", **own, **tagged,
                **{"data.init_args.predict_recipe.init_args.scales": "[1.0]"}, ckpt_path=at / "classify" / keep,
            ),
            "seeds-tagged": self.labels("crf", "seeds"),
            "irn": self.trainer(
                "fit", "irn", "sfc/irn", **{"data.init_args.pseudo_labels": at / "seeds-tagged/seed_labels"}
            ),
            "edges-tagged": self.trainer(
                "predict", "edges-tagged", "sfc/irn", "sfc/edges", **tagged, ckpt_path=at / "irn" / keep
            ),
            "labels-tagged": self.labels("walk", "labels", "--edges", at / "edges-tagged/edges"),
            "segment": self.trainer(
                "fit", "segment", "sfc/segment",
                **{"data.init_args.pseudo_labels": at / f"labels-tagged/{METHODS[self.method]}"},
            ),
            "predict-all": self.trainer(
                "predict", "predict-all", "sfc/segment", "sfc/predict", **{"data.init_args.predict_split": "all"},
                ckpt_path=at / "segment" / keep,
            ),
            "score-masked": [
                "evaluate", "--masks", f"={at}/predict-all/masks", "--config", str(self.data), "--split", "masked",
                "--train-split", "tagged", "--experiment", "folder", "--out", str(at / "score-masked"), "--quiet",
                "--no-figures",
            ],
        }  # fmt: skip
