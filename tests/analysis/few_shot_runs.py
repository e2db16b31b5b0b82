"""Made-up few-shot run folders, and a slow oracle of their scores."""

import math
import statistics

import numpy as np
import yaml

from frugalseg.data import dlrsd, isaid5i
from frugalseg.run import write_arrays, write_json

TESTED = {"P1": isaid5i.fold_classes, "P2": isaid5i.fold_classes}
TESTED |= {p: lambda fold, p=p: dlrsd.fold_classes(fold, p) for p in ("D1", "D2")}
BENCHMARK = {"P1": "ISAID5i", "P2": "ISAID5i", "D1": "DLRSD", "D2": "DLRSD"}
NAMES = {"ISAID5i": isaid5i.NAMES, "DLRSD": dlrsd.NAMES}
COSTS = {
    "model/parameters": 29_590_856.0, "model/parameters_trainable": 6_082_824.0, "model/flops": 12.5e9,
    "test/episodes_per_second": 8.25,
}  # fmt: skip


def random_counts(rng, classes, num_classes, seeds=(0, 1, 2), episodes=40):
    """Counts of `episodes` episodes per base seed, dealt out to the classes; intersections within unions."""
    sums = np.zeros((len(seeds), num_classes, 5), np.int64)
    for row in sums:
        row[list(classes), 0] = rng.multinomial(episodes - len(classes), [1 / len(classes)] * len(classes)) + 1
        for c in classes:
            union = rng.integers(1, 10**8, size=2)
            row[c, 3:], row[c, 1:3] = union, [rng.integers(0, u + 1) for u in union.tolist()]
    return np.array(seeds, np.int64), sums


def slow_scores(rows):
    """miou, fb_iou, episodes and IoU by class of one base seed, number by number."""
    iou, parts = {}, [0, 0, 0, 0]
    episodes = 0
    for c, (count, *pixels) in enumerate(rows.tolist()):
        if count:
            iou[c] = pixels[1] / pixels[3] if pixels[3] else 0.0
            parts = [a + b for a, b in zip(parts, pixels, strict=True)]
            episodes += count
    fb = (parts[0] / max(parts[2], 1) + parts[1] / max(parts[3], 1)) / 2
    return {"miou": math.fsum(iou.values()) / len(iou), "fb_iou": fb, "episodes": episodes, "iou": iou}


def slow_metrics(seeds, sums):
    """What a test stage logs, in float32 as Lightning keeps it."""
    each = {seed: slow_scores(rows) for seed, rows in zip(seeds.tolist(), sums, strict=True)}
    first = next(iter(each.values()))
    found = {"seeds": len(each), "classes": min(len(s["iou"]) for s in each.values()), "episodes": first["episodes"]}
    series = {key: [s[key] for s in each.values()] for key in ("miou", "fb_iou")}
    series |= {
        f"iou/{c}": [s["iou"][c] for s in each.values() if c in s["iou"]] for s in each.values() for c in s["iou"]
    }
    for key, values in series.items():
        found[key] = statistics.fmean(values)
        if len(values) > 1:
            found[key.replace("iou/", "iou_std/") if "/" in key else f"{key}_std"] = statistics.stdev(values)
    for seed, s in each.items():
        found |= {f"seed{seed}/{key}": s[key] for key in ("miou", "fb_iou", "episodes")}
        found |= {f"seed{seed}/iou/{c}": value for c, value in s["iou"].items()}
    return {f"test/{key}": float(np.float32(value)) for key, value in found.items()}


def write_test(
    root, name="dsmf", fold=0, seed=0, shots=1, protocol="P1", checkpoint="last", validated="base", classes=None,
    costs=COSTS, done=True, inputs=None, size=256, file=None, number=None, trained=None, trained_fold=None,
    model="frugalseg.papers.dsmf.DSMF", **counts,
):  # fmt: skip
    """Write one test stage, and the fit that it belongs to; gives its folder and its counts."""
    above = root / name / f"fold{fold}" / f"seed{seed}"
    folder, benchmark = above / f"{shots}shot-test", BENCHMARK[protocol]
    tested = TESTED[protocol](fold) if classes is None else classes
    rng = np.random.default_rng([fold, seed, shots, len(name)] if number is None else number)
    seeds, sums = random_counts(rng, tested, len(NAMES[benchmark]), **counts)
    recipe = {
        "class_path": "frugalseg.data.Episodes",
        "init_args": {"shots": shots, "size": size, "episodes_file": file},
    }
    settings = {"root": "data/tiles", "fold": fold, "protocol": protocol, "val_classes": "novel", "recipe": recipe}
    path = f"runs/{name}/fold{fold}/seed{seed}/train/checkpoints/{checkpoint}.ckpt" if checkpoint else None
    config = {
        "model": {"class_path": model},
        "data": {"class_path": f"frugalseg.data.{benchmark}", "init_args": settings},
        "ckpt_path": path,
    }
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.yaml").write_text("# lightning\n" + yaml.safe_dump(config))
    write_json(folder / "provenance.json", {"identity": {"inputs": {"ckpt_path": "abc", **(inputs or {})}}})
    write_json(folder / "metrics.json", {**slow_metrics(seeds, sums), **costs})
    write_arrays(folder / "counts.npz", {"seeds": seeds, "sums": sums})
    if checkpoint:
        own = {"val_classes": validated, "protocol": trained or protocol}
        fit = {"data": {"init_args": {**own, "fold": fold if trained_fold is None else trained_fold}}}
        write_json(above / "train" / "provenance.json", {"identity": fit})
        write_json(above / "train" / "done.json", {"finished": "2026-01-01T10:00:00+00:00"})
    if done:
        write_json(folder / "done.json", {"finished": "2026-01-01T11:00:00+00:00"})
    return folder, seeds, sums
