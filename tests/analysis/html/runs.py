"""Made-up run folders with everything that a report shows: scores, curves, pictures, maps, masks and a world."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from frugalseg.data.io import write_mask
from frugalseg.ops.palette import voc_palette
from frugalseg.run import file_digest, write_json, write_text

CLASSES = ("background", "disc", "cross", "ring")
GROUPS = {"head": ["disc"], "middle": ["cross"], "tail": ["ring"]}
IDS = ("2011_000001", "2011_000002")
SIDE = 24
LABELS = {
    "seeds-val": ("crf", "seed_labels"),
    "labels-val": ("refined", "pseudo"),
    "predict-val": ("masks", "masks-crf"),
}
SCORED = {
    "score-val": ("m0", "mw", "mp", "sum"), "score-labels-val": ("crf", "seed_labels", "refined", "pseudo"),
    "score-segment-val": ("", "crf"),
}  # fmt: skip


def write_world(folder: Path, seed: int) -> Path:
    """Images and masks in VOC's layout; another seed gives others under the same ids."""
    rng = np.random.default_rng(seed)
    write_json(folder / "world.json", {"seed": seed})
    (folder / "JPEGImages").mkdir(parents=True)
    for name in IDS:
        Image.fromarray(rng.integers(0, 255, (SIDE, SIDE, 3), np.uint8)).save(folder / "JPEGImages" / f"{name}.jpg")
        write_mask(folder / "SegmentationClass" / f"{name}.png", labels(rng), voc_palette())
    return folder


def labels(rng: np.random.Generator) -> np.ndarray[Any, np.dtype[np.uint8]]:
    return np.repeat(np.repeat(rng.integers(0, 4, (4, 4), np.uint8), SIDE // 4, 0), SIDE // 4, 1)


def write_stage(folder: Path, world: Path, metrics: Mapping[str, float], done: bool = True, **facts: Any) -> Path:
    """One stage with its records."""
    root = str(world)
    record = {
        "command": ["frugalseg", "predict", "--data.init_args.root", root], "started": "2026-01-02T10:00:00+00:00",
        "git": {"commit": "0123456789abcdef", "changed": False}, "versions": {"python": "3.11", "torch": "2.0"},
        "hardware": {"processor": "a processor", "cores": 2, "gpus": []}, "experiment": "made-up", "stage": folder.name,
        "identity": {"inputs": {"world.json": file_digest(world / "world.json")},
                     "data": {"class_path": "frugalseg.data.VOC", "init_args": {"root": root}}},
        "hyperparameters": {"_class_path": "frugalseg.papers.sfc.SFC"}, "resumed": [], "trainable_parameters": 10,
        "parameters": 12,
    }  # fmt: skip
    write_json(folder / "provenance.json", {**record, **facts})
    write_json(folder / "metrics.json", dict(metrics))
    if done:
        end = {"finished": "2026-01-02T10:01:30+00:00", "seconds": 75.5, "peak_memory_bytes": 300 * 2**20}
        write_json(folder / "done.json", end)
    return folder


def write_fit(folder: Path, world: Path, seed: int, steps: int = 40, done: bool = True, **facts: Any) -> Path:
    """A fit with curves, a checkpoint and pictures."""
    rng = np.random.default_rng(seed)
    rows = [f"0,{step},{1 / (step + 1):.4f},{rng.random():.4f}," for step in range(steps)]
    rows += [f"0,{steps // 2},,,0.25", f"0,{steps - 1},,,0.5"]
    command = ["frugalseg", "fit", "--data.init_args.root", str(world)]
    write_stage(folder, world, {"val/miou": 0.5}, done, **{"command": command, **facts})
    write_text(
        folder / "metrics.csv", "epoch,step,train/loss_total,train/loss_scale,val/miou\n" + "\n".join(rows) + "\n"
    )
    write_text(folder / "config.yaml", "seed_everything: 1\n")
    write_text(folder / "checkpoints" / "last.ckpt", "weights")
    (folder / "pictures").mkdir()
    for number in range(2):
        pixels = rng.integers(0, 255, (SIDE, 3 * SIDE, 3), np.uint8)
        Image.fromarray(pixels).save(folder / "pictures" / f"image{number}_step000040.png")
    return folder


def scores(rng: np.random.Generator, names: tuple[str, ...], split: str) -> dict[str, float]:
    """Metrics of a score stage."""
    found: dict[str, float] = {}
    for name in names:
        end = f"_{name}" if name else ""
        keys = [f"{split}/miou{end}", *[f"{split}/miou{end}_{group}" for group in GROUPS]]
        keys += [f"{split}/iou{end}/{label}" for label in CLASSES]
        found |= {key: float(rng.random()) for key in keys}
    return found


def write_experiment(runs: Path, name: str = "mini-sfc-made-up", seeds: tuple[int, ...] = (0, 1)) -> Path:
    """A whole chain of one experiment, and its worlds beside the runs."""
    for seed in seeds:
        world = runs.parent / "worlds" / f"seed{seed}"
        if not world.is_dir():
            write_world(world, seed)
        above, rng = runs / name / f"seed{seed}", np.random.default_rng([seed, len(name)])
        write_fit(above / "classify", world, seed)
        maps = write_stage(above / "cam-val", world, {}) / "maps"
        maps.mkdir()
        for each in IDS:
            heat = rng.random((2, SIDE, SIDE)).astype(np.float16)
            np.savez_compressed(maps / f"{each}.npz", keys=np.array([0, 2], np.uint8), mw=heat, mp=heat)
        for stage, folders in LABELS.items():
            made = write_stage(above / stage, world, {})
            for folder in folders:
                for each in IDS:
                    write_mask(made / folder / f"{each}.png", labels(rng), voc_palette())
        for stage, names in SCORED.items():
            made = write_stage(above / stage, world, scores(rng, names, "val"))
            write_json(made / "groups.json", GROUPS)
        rows = [f"{key},{t / 20},{t * (20 - t) / 200},0.5,0.5,0.5" for key in ("m0", "mw") for t in range(21)]
        head = "map,threshold,miou,precision,recall,pixel_accuracy"
        write_text(above / "score-val" / "sweep.csv", "\n".join([head, *rows]) + "\n")
        (above / "score-segment-val" / "figures").mkdir()
        Image.new("RGB", (300, 200), "white").save(above / "score-segment-val" / "figures" / "confusion_masks.png")
    return runs / name
